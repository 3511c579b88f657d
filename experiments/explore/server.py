"""The addresses of the page. Requests carry all that they need, and the network is only read: nothing is kept between
two of them, so tabs never meet. One thread computes, and a request whose sender has gone is dropped."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp

from lab.attention import MOST_TOKENS
from lab.removals import REMOVALS
from lab.server import Json, make_app
from model import InputError

from . import compute
from .code import write_code
from .experiment import Experiment, describe_json, read_experiment, read_head
from .findings import read_findings
from .subject import CLOSE_CALLS, FILLS, Subject

PAGE = Path(__file__).parent / "page" / "explore.html"
MOST_WAITING = 32  # requests
T = TypeVar("T")


class Worker:
    """One thread computes, and requests wait in order."""

    def __init__(self) -> None:
        self.thread, self.turn, self.waiting = ThreadPoolExecutor(1), asyncio.Lock(), 0

    async def compute(self, request: Request, work: Callable[..., T], *arguments: Any) -> T:
        """Return `work(*arguments)`. Raises ClientDisconnect where nobody waits for it any more, and
        HTTPException where too many do."""
        if self.waiting >= MOST_WAITING:
            raise HTTPException(503, f"{MOST_WAITING} requests are waiting; try again", {"retry-after": "1"})
        self.waiting += 1
        try:
            async with self.turn:
                if await request.is_disconnected():
                    raise ClientDisconnect
                return await asyncio.get_running_loop().run_in_executor(self.thread, work, *arguments)
        finally:
            self.waiting -= 1


class Api:
    """What is answered to each request; `body` is parsed JSON."""

    def __init__(self, subject: Subject, address: str) -> None:
        self.subject, self.address, self.worker = subject, address, Worker()

    async def run(self, request: Request, body: Any) -> Json:
        """Answer with probabilities before and after."""
        experiment = read_experiment(body, self.subject)
        started = time.perf_counter()
        answer = await self.worker.compute(request, compute.run, self.subject, experiment)
        return answer | {"seconds": time.perf_counter() - started}

    async def attention(self, request: Request, body: Any) -> Json:
        """Answer with a recording for lab/page/recording.js."""
        look, every = (body.pop(name, None) for name in ("look", "all")) if isinstance(body, dict) else (None, None)
        experiment, head = read_experiment(body, self.subject), read_head(look, self.subject, "look")
        if not isinstance(every, bool | None):
            raise InputError(f"all: expected true or false, got {describe_json(every)}")
        return await self.worker.compute(request, compute.record, self.subject, experiment, head, bool(every))

    async def heads(self, request: Request, body: Any) -> Json:
        """Answer with the probabilities where each unit is switched off too, and whether that changes the prediction,
        be it to a next token that is not shown."""
        experiment = read_experiment(body, self.subject)
        closed = list(compute.close_too(self.subject, experiment))
        answer, probabilities = await self.run_each(request, experiment, closed)
        changed = probabilities.argmax(dim=-1) != answer.after.argmax()
        units, changes = self.arrange(answer.select(probabilities)), self.arrange(changed.tolist())
        return {"labels": answer.labels, **units, "changed": changes}

    def arrange(self, rows: list[Any]) -> Json:
        """Return what belongs to each unit, every head in order and then every MLP, by layer."""
        L, H = self.subject.model.config.n_layer, self.subject.model.config.n_head
        return {"heads": [rows[layer * H :][:H] for layer in range(L)], "mlps": rows[L * H :]}

    async def random(self, request: Request, body: Any) -> Json:
        """Answer with the probabilities where as many random units are switched off instead."""
        experiment = read_experiment(body, self.subject)
        closed = compute.draw_random(self.subject, experiment)
        answer, probabilities = await self.run_each(request, experiment, closed)
        changed = int((probabilities.argmax(dim=-1) != answer.before.argmax()).sum())
        after = answer.select(probabilities)
        overlaps = compute.count_overlaps(experiment, closed)
        return {"labels": answer.labels, "draws": len(after), "after": after, "changed": changed, "overlaps": overlaps}

    async def run_each(
        self, request: Request, experiment: Experiment, closed: Sequence[compute.Closed]
    ) -> tuple[compute.Answer, torch.Tensor]:
        """Return the answer, and probabilities (n, K or V) for each of what is closed; other requests may come in
        between."""
        answer = await self.worker.compute(request, compute.answer, self.subject, experiment)
        size = max(1, self.subject.device.tokens // len(experiment.ids))
        pieces = [
            await self.worker.compute(request, compute.run_each, self.subject, experiment, closed[start : start + size])
            for start in range(0, len(closed), size)
        ]
        return answer, torch.cat(pieces)

    async def lens(self, request: Request, body: Any) -> Json:
        """Answer with what the head reads at each layer and token."""
        return await self.worker.compute(
            request, compute.read_layers, self.subject, read_experiment(body, self.subject)
        )

    async def code(self, request: Request, body: Any) -> Json:
        """Answer with the same experiment as Python, and as a command."""
        return write_code(self.subject, read_experiment(body, self.subject), self.address)


def create_app(subject: Subject, hosts: Sequence[str]) -> ASGIApp:
    """Return the application. hosts: the values of `Host` that it answers; the first one is its address."""
    api = Api(subject, f"http://{hosts[0]}/")
    posts = {"run": api.run, "attention": api.attention, "heads": api.heads}
    posts |= {"random": api.random, "lens": api.lens, "code": api.code}
    return make_app(PAGE, {"model": describe(subject), "findings": read_findings(subject)}, posts, hosts)


def describe(subject: Subject) -> Json:
    """Return what GET /api/model says."""
    config = subject.model.config
    return {
        "kind": "classifier" if subject.labels else "language model",
        "name": subject.name,
        "run": str(subject.run) if subject.run else None,
        "corpus": subject.corpus,
        "labels": list(subject.labels),
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "head_width": config.head_width,
        "n_embd": config.n_embd,
        "n_ctx": config.n_ctx,
        "vocab_size": config.vocab_size,
        "sha256": subject.weights,
        "device": str(subject.device),
        "fills": [{"name": name, "text": FILLS[name]} for name in subject.fill_names],
        "removals": [{"name": name, "text": text} for name, text in REMOVALS.items()],
        "examples": list(subject.examples),
        "most_tokens": MOST_TOKENS,
        "about": [CLOSE_CALLS] * bool(subject.labels) + [f"The network reads: {subject.prompt}"] * bool(subject.prompt),
    }
