"""A real browser for the tests of pages: Debian's chromium, driven by Playwright, and pages that are watched."""

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

NAMES = ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("background-networking", "component-update", "sync", "gpu", "quic")  # chromium's own way to the network
SETTINGS = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in QUIET)]
NO_NETWORK = ("data:", "blob:")  # addresses of what the page itself holds


def find_chromium() -> str:
    """Return the path of a browser. Without one a test is skipped, in CI it fails."""
    named = os.environ.get("CHROMIUM")
    for path in filter(None, map(shutil.which, [named] if named else NAMES)):
        return path
    line = "NO BROWSER: tests of pages need chromium (apt install chromium, or CHROMIUM=path)"
    if os.environ.get("CI") or os.environ.get("HEADGATE_BROWSER") == "required":
        pytest.fail(line)
    warnings.warn(f"{line}; they are skipped", stacklevel=2)
    pytest.skip(line)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start a browser; a fixture of a test module keeps one."""
    chromium = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=SETTINGS)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, url: str, **settings: Any) -> Iterator[Page]:
    """Open a page; a file without a network. A request to elsewhere, an error or a dialog fails the test at the end.

    settings: of the browser's context, such as color_scheme="dark" or viewport={"width": 390, "height": 800}."""
    complaints: list[str] = []

    def watch_request(request: Request) -> None:
        inside = request.url == url if url.startswith("file:") else request.url.startswith(url)
        if not inside and not request.url.startswith(NO_NETWORK):
            complaints.append(f"request: {request.url}")

    def watch_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"console: {message.text}")

    context = browser.new_context(accept_downloads=True, **settings)
    context.set_offline(url.startswith("file:"))
    page = context.new_page()
    page.on("request", watch_request)
    page.on("console", watch_console)
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.goto(url)
    yield page
    context.close()
    assert not complaints, complaints


def check_accessibility(page: Page) -> None:
    """Fail where axe finds a fault; print what it cannot judge."""
    results = Axe().run(page, options={"resultTypes": ["violations", "incomplete"]}).response
    for rule in results["incomplete"]:
        print("axe cannot judge:", rule["id"], [node["target"] for node in rule["nodes"]][:5])
    faults = {rule["id"]: [node["html"] for node in rule["nodes"]][:5] for rule in results["violations"]}
    assert not faults, faults


def scrolls(page: Page) -> tuple[bool, bool]:
    """Return whether the page itself scrolls (across, down)."""
    across, down = page.evaluate(
        "(() => { const page = document.documentElement;"
        " return [page.scrollWidth > innerWidth, page.scrollHeight > innerHeight]; })()"
    )
    return across, down
