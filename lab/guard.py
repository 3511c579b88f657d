"""Who may ask. A page of another site can send requests to this machine through its owner's browser: directly, or after
its own name was made to point here (DNS rebinding). The address that a server is bound to stops neither, and of a
rebound request everything but `Host` looks right. So `Host` is compared first, with a list, then the origin."""

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MOST_BYTES = 64 * 1024  # of a request's body
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",  # who opened the page cannot lead it from link to link
}


class Guard:
    """ASGI middleware that refuses requests from elsewhere in one line, and adds headers that bind the browser.

    hosts: the values of `Host` that are answered, e.g. "127.0.0.1:8000", in lower case."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app, self.hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"expected HTTP, got {scope['type']}")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self.find_refusal(scope["method"], scope["path"], Headers(scope=scope))
        answer = JSONResponse({"error": refusal[1]}, refusal[0]) if refusal else self.app
        await answer(scope, receive, send_with_headers)

    def find_refusal(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        """Return the status and the line with which a request is refused; None for one that is answered."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return 400, f"Host: expected one of {', '.join(sorted(self.hosts))}; see --allow-host"
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in {f"http://{host}" for host in self.hosts}:
            return 403, "Origin: expected this page"
        same_origin = headers.get("sec-fetch-site", "none") in ("same-origin", "none")
        if not same_origin and not (method == "GET" and path == "/" and is_followed_link(headers)):
            return 403, "Sec-Fetch-Site: expected a request of this page, or an address that was typed"
        if method not in ("GET", "HEAD", "POST"):
            return 405, "expected GET or POST"
        if method == "POST":
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                return 415, "Content-Type: expected application/json"
            length = headers.get("content-length", "0")
            if not length.isdecimal() or len(length) > 9 or int(length) > MOST_BYTES:  # int() has limits of its own
                return 413, f"expected at most {MOST_BYTES:,} bytes"
        return None


def is_followed_link(headers: Headers) -> bool:
    """Return whether a browser opens the address as a page of its own, as where a person clicks a permalink."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def list_hosts(port: int, allowed: Sequence[str]) -> list[str]:
    """Return the values of `Host` that are answered: the names of this machine, and those that the user allows, with
    the port unless they have one."""
    names = [*LOOPBACK, *(name.lower() for name in allowed)]
    with_port = [name if has_port(name) else f"{name}:{port}" for name in names]
    return with_port + (names if port == 80 else [])  # browsers leave out the default port


def has_port(name: str) -> bool:
    return name.rpartition("]")[2].rpartition(":")[2].isdecimal() and ":" in name.rpartition("]")[2]
