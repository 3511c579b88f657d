"""A stand-in for the Hugging Face hub: a server that answers what `huggingface_hub` asks, and misbehaves on demand.

Like the hub it lists the hash of each file, compresses small files, offers large files by Xet, and redirects plain
downloads of them to another host. `requests` records every request.
"""

import gzip
import hashlib
import json
import re
import socket
import struct
import sys
from collections import Counter
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple
from urllib.parse import unquote

COMMIT = "c0ffee" + "0" * 34
LARGE = (".safetensors", ".parquet", ".bin")  # stored outside git, and named by their SHA-256
API = re.compile(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?")
FILE = re.compile(r"(/cdn)?/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
ERRORS = {"RepoNotFound": 404, "RevisionNotFound": 404, "EntryNotFound": 404, "GatedRepo": 403}


class Request(NamedTuple):
    method: str
    path: str
    range: str | None  # "bytes=7-": from byte 7 on
    token: str | None


class Hub:
    """`hub.repositories["model", "owner/name"] = folder` publishes it; `hub.commits["owner/name"]` is its commit."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Path] = {}
        self.commits: dict[str, str] = {}
        self.requests: list[Request] = []
        self.sent: Counter[str] = Counter()  # bytes sent of each file
        self.faults: dict[str, dict[str, Any]] = {}
        self.closing = Event()
        self.server = Server(("127.0.0.1", 0), partial(Answer, self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=partial(self.server.serve_forever, poll_interval=0.02), daemon=True).start()

    def misbehave(self, where: str, times: float = float("inf"), **fault: Any) -> None:
        """From now on, or for that many `times`, answer wrongly.

        `where` is a file's name, "HEAD name" for the question for its hash, or "api".
        status=503, or error="GatedRepo": an error of the hub; html=True: a page, as a captive portal sends it;
        hang=True: no answer; edit=function: changes the listing of a repository.
        drop=n, reset=n, end=n: the connection breaks at byte n of the file, is reset there, or ends there without a
        length in its header; flip=n: one bit of byte n is flipped."""
        self.faults[where] = {"times": times, **fault}

    def behave(self) -> None:
        self.faults.clear()

    def fault(self, where: str) -> dict[str, Any]:
        fault = self.faults.get(where, {"times": 0})
        fault["times"] -= 1
        return fault if fault["times"] >= 0 else {}

    def asked(self, part: str = "") -> list[Request]:
        """Return the requests with `part` in their paths, except those that were redirected."""
        return [request for request in self.requests if part in request.path and not request.path.startswith("/cdn")]

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()


class Server(ThreadingHTTPServer):
    def handle_error(self, *where: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may hang up
            super().handle_error(*where)


class Answer(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *connection: Any) -> None:
        self.hub = hub
        super().__init__(*connection)

    def log_message(self, *message: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append(Request(self.command, path, self.headers["Range"], self.headers["Authorization"]))
        if match := API.fullmatch(path):
            self.answer_api(*match.groups())
        elif match := FILE.fullmatch(path):
            self.answer_file(*match.groups())
        else:
            self.answer(404)

    do_HEAD = do_GET  # noqa: N815

    def answer_api(self, kind: str, name: str, what: str | None, revision: str | None) -> None:
        folder, commit = self.hub.repositories.get((kind, name)), self.hub.commits.get(name, COMMIT)
        fault = self.hub.fault("api")
        if self.failed(fault):
            return
        if not folder:
            self.answer(404 if self.headers["Authorization"] else 401, {"X-Error-Code": "RepoNotFound"})
        elif revision not in (None, "main", commit):
            self.error("RevisionNotFound")
        elif what == "tree":
            self.answer_json([{"type": "file", "path": path, **file} for path, file in files(folder).items()])
        else:
            siblings = [{"rfilename": path, "blobId": file["oid"], **file} for path, file in files(folder).items()]
            info = {"id": name, "sha": commit, "siblings": siblings}
            if edit := fault.get("edit"):
                edit(info)
            self.answer_json(info)

    def answer_file(self, cdn: str | None, dataset: str | None, repository: str, revision: str, name: str) -> None:
        folder = self.hub.repositories.get(("dataset" if dataset else "model", repository))
        commit = self.hub.commits.get(repository, COMMIT)
        if self.command == "HEAD" and self.failed(self.hub.fault(f"HEAD {name}")):
            return
        if not folder or revision not in ("main", commit):
            self.error("RevisionNotFound" if folder else "RepoNotFound")
        elif not (folder / name).is_file():
            self.error("EntryNotFound", {"X-Repo-Commit": commit})
        elif name.endswith(LARGE) and not cdn:
            content = (folder / name).read_bytes()
            linked = {"X-Linked-Etag": f'"{content_hash(name, content)}"', "X-Linked-Size": str(len(content))}
            xet = {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": f"{self.hub.url}/api/xet"}
            elsewhere = f"http://localhost:{self.server.server_port}/cdn{self.path}"
            self.answer(302, {"X-Repo-Commit": commit, "Location": elsewhere, **linked, **xet})
        elif self.command == "HEAD" or not self.failed(fault := self.hub.fault(name)):
            content = (folder / name).read_bytes()
            head = {"X-Repo-Commit": commit, "ETag": f'"{content_hash(name, content)}"'}
            self.answer_content(name, content, head, {} if self.command == "HEAD" else fault)

    def answer_content(self, name: str, content: bytes, head: dict[str, str], fault: dict[str, Any]) -> None:
        """Send a file, or the rest of it, with its fault."""
        range_ = self.headers["Range"]
        start = int(range_.removeprefix("bytes=").removesuffix("-")) if range_ else 0
        status = 206 if range_ else 200
        if range_ and start >= len(content):
            self.answer(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        if range_:
            head["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if at := fault.get("flip"):
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        stop = min(fault.get(how, len(content)) for how in ("drop", "reset", "end"))
        body = content[start : max(start, stop)]
        if self.command == "GET":
            self.hub.sent[name] += len(body)
        if not range_ and not name.endswith(LARGE) and "gzip" in (self.headers["Accept-Encoding"] or ""):
            body, fault = gzip.compress(body), {"end": stop}
            head["Content-Encoding"] = "gzip"
        length = {"Connection": "close"} if "end" in fault else {"Content-Length": str(len(content) - start)}
        self.answer(status, head | length, body)
        self.close_connection = "end" in fault or stop < len(content)
        if "reset" in fault:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for end in (self.rfile, self.wfile, self.connection):
                end.close()
            self.rfile, self.wfile = BytesIO(), BytesIO()

    def failed(self, fault: dict[str, Any]) -> bool:
        """Answer with an error, a page or silence if the fault says so; return whether it did."""
        if "hang" in fault:
            self.hub.closing.wait()
            self.close_connection = True
        elif "error" in fault:
            self.error(fault["error"])
        elif "status" in fault:
            self.answer(fault["status"])
        elif "html" in fault:
            self.answer(200, {"Content-Type": "text/html"}, b"<html>Welcome to the airport</html>")
        return bool({"hang", "error", "status", "html"} & fault.keys())

    def error(self, code: str, headers: dict[str, str] | None = None) -> None:
        self.answer(ERRORS[code], {"X-Error-Code": code} | (headers or {}))

    def answer_json(self, content: object) -> None:
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        headers = headers or {}
        if not {"Content-Length", "Connection"} & headers.keys():
            headers = {"Content-Length": str(len(body))} | headers
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the API lists of each file by name: size and hash, for a large file also of its pointer in git."""
    listing = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        hash_ = content_hash(name, content)
        listing[name] = {"size": len(content), "oid": hash_}
        if name.endswith(LARGE):
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{hash_}\nsize {len(content)}\n".encode()
            lfs = {"oid": hash_, "sha256": hash_, "size": len(content), "pointerSize": len(pointer)}
            listing[name] |= {"oid": content_hash("", pointer), "lfs": lfs}
    return listing


def content_hash(name: str, content: bytes) -> str:
    """Return the SHA-256 of a large file, git's hash of a small one."""
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
