"""The addresses of the page. Requests carry all that they need, and the network is only read: nothing is kept between
two of them, so tabs never meet. One thread computes, and a request whose sender has gone is dropped."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

import lab
from lab.attention import MOST_TOKENS
from lab.removals import REMOVALS
from model import InputError

from . import compute
from .code import write_code
from .experiment import Experiment, describe_json, read_experiment, read_head
from .findings import read_findings
from .guard import MOST_BYTES, Guard
from .subject import CLOSE_CALLS, FILLS, Subject

PAGE = Path(__file__).with_name("page")
FOLDERS = (PAGE, Path(lab.__file__).with_name("page"))  # the page's own modules, and those that it shares
MEDIA = {".js": "text/javascript", ".css": "text/css"}  # some registries call .js plain text
MOST_WAITING = 32  # requests
SECONDS = 60  # that a request may take, waiting included
Json = dict[str, Any]
T = TypeVar("T")


class BusyError(Exception):
    """Too many requests wait."""


class Worker:
    """One thread computes, and requests wait in order."""

    def __init__(self) -> None:
        self.thread, self.turn, self.waiting = ThreadPoolExecutor(1), asyncio.Lock(), 0

    async def compute(self, request: Request, work: Callable[..., T], *arguments: Any) -> T:
        """Return `work(*arguments)`. Raises ClientDisconnect where nobody waits for it any more, and BusyError."""
        if self.waiting >= MOST_WAITING:
            raise BusyError(f"{MOST_WAITING} requests are waiting; try again")
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
    model, findings = describe(subject), read_findings(subject)
    posts = {"run": api.run, "attention": api.attention, "heads": api.heads}
    posts |= {"random": api.random, "lens": api.lens, "code": api.code}
    files = {path.name: path for folder in FOLDERS for path in folder.iterdir() if path.suffix in MEDIA}
    routes = [
        Route("/", lambda request: FileResponse(PAGE / "explore.html", media_type="text/html")),
        Route("/page/{name}", partial(send_file, files)),
        Route("/api/model", lambda request: JSONResponse(model)),
        Route("/api/findings", lambda request: JSONResponse(findings)),
        *(Route(f"/api/{name}", partial(answer_json, answer), methods=["POST"]) for name, answer in posts.items()),
    ]
    handlers = {HTTPException: refuse, Exception: fail}
    # Around all of it: a middleware would be within Starlette's own, which answers where we fail.
    return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts)


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
        "about": [CLOSE_CALLS] if subject.labels else [],
    }


async def answer_json(answer: Callable[[Request, Any], Awaitable[Json]], request: Request) -> Response:
    """Answer a request whose body is JSON; in one line, where it is not as it must be."""
    try:
        async with asyncio.timeout(SECONDS):
            return JSONResponse(await answer(request, parse_body(await read_body(request))))
    except InputError as error:
        return JSONResponse({"error": str(error)}, 400)
    except BusyError as error:
        return JSONResponse({"error": str(error)}, 503, {"retry-after": "1"})
    except TimeoutError:
        return JSONResponse({"error": f"this took more than {SECONDS} seconds; shorten the text"}, 503)
    except (torch.OutOfMemoryError, MemoryError):
        return JSONResponse({"error": "out of memory; shorten the text"}, 503)
    except ClientDisconnect:
        return Response(status_code=499)  # nobody reads it


async def read_body(request: Request) -> bytes:
    """Return the body. Raises HTTPException where it is too long, whatever its head says."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise HTTPException(413, f"expected at most {MOST_BYTES:,} bytes")
    return body


def parse_body(body: bytes) -> Any:
    """Return the value that JSON in UTF-8 stands for. Raises InputError for anything else."""
    try:
        return json.loads(body.decode(), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deep
        raise InputError(f'expected JSON in UTF-8, like {{"text": "..."}}: {error}') from None


def refuse_constant(name: str) -> float:
    """Raise ValueError for NaN and Infinity, which Python reads and JSON does not know."""
    raise ValueError(f"{name} is no number in JSON")


def send_file(files: dict[str, Path], request: Request) -> Response:
    path = files.get(request.path_params["name"])
    if path is None:
        raise HTTPException(404, "there is no such file")
    return FileResponse(path, media_type=MEDIA[path.suffix])


def refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def fail(request: Request, error: Exception) -> Response:
    """Answer where the fault is ours; the terminal shows where."""
    return JSONResponse({"error": f"headgate failed: {type(error).__name__}; see the terminal"}, 500)
