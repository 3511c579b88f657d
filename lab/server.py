"""A page and its addresses, served on this machine: files, JSON in, JSON out, and every mistake in one line."""

import asyncio
import json
import socket
import sys
import webbrowser
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from model import InputError

from .guard import LOOPBACK, MOST_BYTES, Guard, list_hosts
from .progress import console

NAMES = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}  # of this machine, where it listens on these addresses
SHARED = Path(__file__).with_name("page")  # modules and styles of all pages
MEDIA = {".js": "text/javascript", ".css": "text/css"}  # some registries call .js plain text
SECONDS = 60  # that a request may take, waiting included
Json = dict[str, Any]
Answer = Callable[[Request, Any], Awaitable[Json]]  # to a request with parsed JSON


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a port, 0: any free one. Raises InputError where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # who reads the address may ask at once
    except (OSError, UnicodeError) as error:
        listener.close()
        raise InputError(f"{host}:{port}: cannot listen there: {error}; choose another --port, 0 for any") from None
    return listener


def serve(
    create_app: Callable[[Sequence[str]], ASGIApp],
    listener: socket.socket,
    host: str,
    allow_host: Sequence[str],
    open_page: bool,
) -> None:
    """Serve a page until Ctrl-C, and print its address. create_app: takes the values of `Host` that are answered.

    host: what the listener listens on; allow_host: names by which browsers elsewhere call this machine."""
    port = listener.getsockname()[1]
    if host not in (*LOOPBACK, "::1"):
        names = ", ".join(allow_host) or "none yet, see --allow-host"
        console.print(f"Every program that reaches this port can use the page. Names for other browsers: {names}")
    address = f"http://{NAMES.get(host, host)}:{port}/"
    print(address, flush=True)  # also where another program reads it
    if open_page and sys.stdout.isatty():
        webbrowser.open(address)
    app = create_app(list_hosts(port, allow_host))
    config = uvicorn.Config(app, ws="none", log_level="warning", access_log=False, server_header=False)
    uvicorn.Server(config).run(sockets=[listener])


def make_app(page: Path, facts: Mapping[str, Json], answers: Mapping[str, Answer], hosts: Sequence[str]) -> ASGIApp:
    """Return an application: `/` is the page, `/page/` has the modules and styles of its folder and the shared ones,
    `/api/` has facts to GET, and answers to what is posted. hosts: the values of `Host` that it answers."""
    files = {path.name: path for folder in (page.parent, SHARED) for path in folder.iterdir() if path.suffix in MEDIA}
    routes = [
        Route("/", lambda request: FileResponse(page, media_type="text/html")),
        Route("/page/{name}", partial(send_file, files)),
        *(Route(f"/api/{name}", partial(send_json, fact)) for name, fact in facts.items()),
        *(Route(f"/api/{name}", partial(answer_json, answer), methods=["POST"]) for name, answer in answers.items()),
    ]
    handlers = {HTTPException: refuse, Exception: fail}
    # Around all of it: a middleware would be within Starlette's own, which answers where we fail.
    return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts)


def send_json(content: Json, request: Request) -> Response:
    return JSONResponse(content)


async def answer_json(answer: Answer, request: Request) -> Response:
    """Answer a request whose body is JSON; in one line, where it is not as it must be."""
    try:
        async with asyncio.timeout(SECONDS):
            return JSONResponse(await answer(request, parse_body(await read_body(request))))
    except InputError as error:
        return JSONResponse({"error": str(error)}, 400)
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
