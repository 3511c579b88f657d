"""How soon does a page answer after a switch? Random experiments, one after the other, through HTTP, as a browser sends
them: a text of 20 tokens, with one to five heads off, and every other time an MLP too."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import uvicorn

from data import read_corpus
from experiments.explore.server import create_app
from experiments.explore.subject import Subject
from lab.device import Device
from lab.guard import list_hosts
from lab.texts import read_texts
from model import GPT2Classifier, GPT2Config, Tokenizer

TOKENS, WARM_UP = 20, 10


def measure_latency(shape: str, device: Device, n: int) -> dict[str, Any]:
    """Return a row: `shape, tokens, requests, median_ms, p95_ms` of POST /api/run, with random weights in fp32."""
    corpus, tokenizer, config = read_corpus("sample"), Tokenizer.load("gpt2-mini"), GPT2Config.preset(shape)
    texts = read_texts(corpus, tokenizer, config, truncate=False)
    torch.manual_seed(0)
    clf = GPT2Classifier(config, corpus.labels).to(device.device).eval().requires_grad_(False)
    subject = Subject(shape, "", clf, tokenizer, device, texts["train"], [], corpus.name, "random weights")
    first = [len(ids) for ids in texts["test"].sequences].index(TOKENS)
    bodies = draw_experiments(config, texts["test"].strings[first], WARM_UP + n)
    with serve(subject) as port:
        seconds = [ask(port, body) for body in bodies][WARM_UP:]
    median, p95 = (1000 * np.quantile(seconds, [0.5, 0.95])).tolist()
    return {"shape": shape, "tokens": TOKENS, "requests": n, "median_ms": median, "p95_ms": p95}


def draw_experiments(config: GPT2Config, text: str, n: int) -> list[dict[str, Any]]:
    """Return n bodies of requests."""
    rng, bodies = np.random.default_rng(0), []
    for i in range(n):
        numbers = rng.choice(config.n_layer * config.n_head, rng.integers(1, 6), replace=False).tolist()
        heads = [divmod(number, config.n_head) for number in numbers]
        bodies.append({"text": text, "heads": heads, "mlps": [int(rng.integers(config.n_layer))] if i % 2 else []})
    return bodies


def ask(port: int, body: dict[str, Any]) -> float:
    """Return the seconds until the answer is here."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/api/run", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    if response.status != 200:
        raise RuntimeError(answer["error"])
    return time.perf_counter() - started


@contextmanager
def serve(subject: Subject) -> Iterator[int]:
    """Serve the page from another thread, and yield its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    app = create_app(subject, list_hosts(port, []))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()
