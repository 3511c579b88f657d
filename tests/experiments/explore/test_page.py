"""The page in a real browser: what it shows are the numbers of the API, and nothing that is typed or clicked breaks
it."""

import json
import re
import socket
import threading
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import small_run
import uvicorn
from browser import NO_NETWORK, check_accessibility, open_browser, scrolls
from matplotlib.image import imread
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Route

from experiments.explore.check import compare, read_export
from experiments.explore.server import create_app
from experiments.explore.subject import Subject, open_run
from lab.device import Device
from lab.guard import list_hosts
from model import GPT2Config

pytestmark = pytest.mark.slow
Json = dict[str, Any]
Visit = Callable[..., Page]


class Site:
    """A server of the page, in a thread."""

    def __init__(self, subject: Subject) -> None:
        self.subject, listener = subject, socket.create_server(("127.0.0.1", 0))
        hosts = list_hosts(listener.getsockname()[1], ())
        self.address = f"http://{hosts[0]}"
        self.server = uvicorn.Server(uvicorn.Config(create_app(subject, hosts), log_level="error"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self.thread.start()

    def get(self, path: str) -> Json:
        with urllib.request.urlopen(self.address + path) as answer:
            return json.load(answer)

    def post(self, path: str, **body: Any) -> Json:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)


def serve_run(folder: Path) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        site = Site(open_run("one", Device.choose("cpu", "fp32")))
    yield site
    site.stop()


@pytest.fixture(scope="module")
def site(trained: Path) -> Iterator[Site]:
    """Two layers of three heads, three classes, 17 positions."""
    yield from serve_run(trained)


@pytest.fixture(scope="module")
def large_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Twelve layers of twelve heads, as the small GPT-2 has them."""
    folder = tmp_path_factory.mktemp("large")
    small_run.write_corpus(folder / "corpus.txt", 12)
    small_run.train_on(folder, "corpus.txt", GPT2Config(12, 12, 24, n_ctx=33))
    yield from serve_run(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as chromium:
        yield chromium


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Visit]:
    """Open the page at a fragment and wait for its answers. Fails on an error in the console, and on any request to
    another host."""
    contexts, complaints = [], []

    def open_page(
        fragment: str = "", at: Site = site, script: str = "", routes: dict[str, str] | None = None, **settings: Any
    ) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.add_init_script(script)
        for pattern, body in (routes or {}).items():
            page.route(pattern, partial(answer_with, body))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda message: complaints.append(message.text) if is_complaint(message) else None)
        page.on("request", lambda request: complaints.append(request.url) if leaves(request.url, at) else None)
        page.goto(at.address + "/" + fragment)
        settle(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def answer_with(body: str, route: Route) -> None:
    route.fulfill(body=body, content_type="application/json")


def is_complaint(message: ConsoleMessage) -> bool:
    refusal = re.search("status of (400|503)", message.text)  # no error of ours
    return message.type in ("error", "warning") and not refusal


def leaves(url: str, site: Site) -> bool:
    return not url.startswith((site.address + "/", *NO_NETWORK))


def settle(page: Page) -> None:
    """Wait until everything that is shown belongs to the present state."""
    page.wait_for_selector("#prediction:not(.old)")
    page.wait_for_selector("#grid:not(.old)")
    page.wait_for_selector("#view-attention:not(.old), #view-attention[hidden]", state="attached")
    page.wait_for_selector("#view-lens:not(.old), #view-lens[hidden]", state="attached")


def cell(page: Page, name: str) -> Locator:
    return page.locator(f'#grid [data-name="{name}"]')


def type_text(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.wait_for_function("text => new URLSearchParams(location.hash.slice(1)).get('text') === text", arg=text)
    settle(page)


def percent(p: float) -> str:
    return f"{100 * p:.1f} %"


def isolate(name: str) -> str:
    """A name that keeps its right-to-left letters to itself."""
    return f"\u2068{name}\u2069"


def points(difference: float, digits: int = 1) -> str:
    text = f"{abs(100 * difference):.{digits}f}"
    return text if float(text) == 0 else ("−" if difference < 0 else "+") + text


def assert_shown(page: Page, answer: Json) -> None:
    """The bars are those of an answer of /api/run, and the words are about its prediction."""
    names = [label for label in page.locator("#bars .name").all_inner_texts()]
    assert names == answer["labels"]
    assert page.locator("#bars .number").all_inner_texts() == [percent(p) for p in answer["after"]]
    differences = [points(q - p) for p, q in zip(answer["before"], answer["after"], strict=True)]
    assert page.locator("#bars .difference").all_inner_texts() == differences
    for part in ("before", "after"):
        widths = [
            float(style)
            for style in page.locator(f"#bars .{part}").evaluate_all("l => l.map(e => parseFloat(e.style.width))")
        ]
        assert widths == pytest.approx([100 * p for p in answer[part]], abs=1e-3)
    verdict = page.inner_text("#verdict")
    assert answer["predicted"] in verdict
    assert ("changed" in verdict) == (answer["predicted"] != answer["predicted_before"])


def assert_effects(page: Page, site: Site, answer: Json, body: Json) -> None:
    """Each cell that is on shows what switching it off too does to the label predicted before."""
    units, label = site.post("/api/heads", **body), answer["predicted_before"]
    k, off = answer["labels"].index(label), {tuple(head) for head in body.get("heads", [])}
    effects = []
    for layer, row in enumerate(units["heads"]):
        for head, p in enumerate(row):
            button, effect = cell(page, f"head {layer}.{head}"), p[k] - answer["after"][k]
            if (layer, head) in off:
                assert button.inner_text() == "off"
            else:
                effects.append(effect)
                assert button.inner_text() == points(effect, 0)
                assert f"{points(effect)} points for {isolate(label)}" in str(button.get_attribute("aria-label"))
    assert max(map(abs, effects)) > 0.001  # or else this would compare zeros
    limit = max(0.01, *map(abs, effects))
    assert page.inner_text("#legend").startswith(points(-limit, 0))


def test_the_first_example_is_predicted_on_load(site: Site, visit: Visit) -> None:
    page = visit()
    text = site.get("/api/model")["examples"][0]["text"]
    assert page.input_value("#text") == text
    answer = site.post("/api/run", text=text)
    assert_shown(page, answer)
    assert_effects(page, site, answer, {"text": text})
    options = page.locator("#examples option").all_text_contents()
    assert options[:2] == ["Examples: close calls …", *site.get("/api/model")["about"]]
    assert f"right: {isolate(text)}" in options
    assert page.locator("#grid button[aria-pressed=true]").count() == 0
    assert page.inner_text("#link-note") == ""


def test_type_switch_and_see(site: Site, visit: Visit) -> None:
    page, body = visit(), {"text": "i felt afraid at work"}
    type_text(page, body["text"])
    assert_shown(page, site.post("/api/run", **body))
    cell(page, "head 1.2").click()
    assert cell(page, "head 1.2").get_attribute("aria-pressed") == "true"
    settle(page)
    body["heads"] = [[1, 2]]
    answer = site.post("/api/run", **body)
    assert_shown(page, answer)
    assert_effects(page, site, answer, body)
    label, p = answer["predicted_before"], answer["after"][answer["labels"].index(answer["predicted_before"])]
    assert re.search(rf"{isolate(label)} {p:.2f}.*; head 1\.2 off", page.inner_text("#live"))
    cell(page, "head 0.1").hover()
    assert page.inner_text("#readout").startswith(f"head 0.1 off: {isolate(label)} {percent(p)} → ")
    cell(page, "MLP 0").click()
    page.locator(".token").nth(1).click()
    page.click("#removals >> text=delete")
    page.locator(".token").nth(2).click()
    page.click("#fills >> text=its mean")
    settle(page)
    body |= {"mlps": [0], "tokens": {"1": "hide", "2": "delete"}, "fill": "mean"}
    assert_shown(page, site.post("/api/run", **body))
    assert page.locator(".token.hide").inner_text().endswith("hidden")
    assert page.locator(".token.delete").inner_text().endswith("deleted")
    type_text(page, "i felt glad")  # other words: what was hidden or deleted is no more, heads stay off
    del body["tokens"]
    assert_shown(page, site.post("/api/run", **body | {"text": "i felt glad"}))


def test_whole_rows_switch_together(site: Site, visit: Visit) -> None:
    page = visit("#text=i+felt+glad&heads=1.0")
    cell(page, "all heads of layer 1").click()
    settle(page)
    heads = [[1, 0], [1, 1], [1, 2]]
    assert_shown(page, site.post("/api/run", text="i felt glad", heads=heads))
    cell(page, "layer 1").click()
    settle(page)
    assert_shown(page, site.post("/api/run", text="i felt glad", heads=heads, mlps=[1]))
    cell(page, "layer 1").click()
    settle(page)
    assert_shown(page, site.post("/api/run", text="i felt glad"))


def test_a_click_on_a_bar_changes_what_the_grid_is_about(site: Site, visit: Visit) -> None:
    page = visit("#text=i+felt+glad")
    answer = site.post("/api/run", text="i felt glad")
    other = next(label for label in answer["labels"] if label != answer["predicted_before"])
    page.click(f"#bars .bar:has-text('{other}')")
    assert f"points for {other}" in page.inner_text("#legend")
    assert_effects(page, site, answer | {"predicted_before": other}, {"text": "i felt glad"})


def test_the_keyboard_alone_goes_from_the_text_to_a_switched_head(site: Site, visit: Visit) -> None:
    page = visit()
    page.focus("#text")
    page.keyboard.press("Control+a")
    page.keyboard.type("i felt mad")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("() => document.querySelectorAll('.token').length === 3")
    settle(page)
    for _ in range(20):  # tab stops: what a click on a word does, the words, the bars, the strongest head
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#grid') !== null"):
            break
    focused = "document.activeElement.dataset.name"
    assert page.evaluate(focused) == "head 0.0"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == "head 1.1"
    assert page.locator("#grid button[tabindex='0']").count() == 1
    page.keyboard.press("Space")
    settle(page)
    assert_shown(page, site.post("/api/run", text="i felt mad", heads=[[1, 1]]))
    page.keyboard.press("End")
    assert page.evaluate(focused) == "MLP 1"
    page.keyboard.press("Home")
    assert page.evaluate(focused) == "layer 1"
    page.keyboard.press("Control+Home")
    assert page.evaluate(focused) == "layer 0"
    page.keyboard.press("a")
    settle(page)
    assert_shown(page, site.post("/api/run", text="i felt mad"))
    page.keyboard.press("Control+z")
    settle(page)
    assert_shown(page, site.post("/api/run", text="i felt mad", heads=[[1, 1]]))
    page.keyboard.press("?")
    assert page.locator("dialog[open]").is_visible()
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")


def test_looking_does_not_switch(site: Site, visit: Visit) -> None:
    page = visit()

    def looked() -> list[str]:
        return page.locator(".attention-bar select").evaluate_all("l => l.slice(0, 2).map(e => e.value)")

    cell(page, "head 1.2").click(modifiers=["Shift"])
    page.wait_for_function("() => document.querySelector('.attention-bar select').value === '1'")
    assert looked() == ["1", "2"]
    cell(page, "head 0.1").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.attention-bar select').value === '0'")
    assert looked() == ["0", "1"]
    assert page.locator("#grid button[aria-pressed=true]").count() == 0
    assert page.locator("#grid .looked").get_attribute("data-name") == "head 0.1"
    page.locator(".attention-bar select").nth(0).select_option("1")
    assert page.locator("#grid .looked").get_attribute("data-name") == "head 1.1"


def test_the_strongest_head_is_the_one_whose_effect_is_largest(site: Site, visit: Visit) -> None:
    body = {"text": "i felt glad at work"}
    page = visit("#text=" + body["text"].replace(" ", "+"))
    answer, units = site.post("/api/run", **body), site.post("/api/heads", **body)
    k = answer["labels"].index(answer["predicted"])
    heads = [(max(p) <= p[k], p[k], f"head {i}.{j}") for i, row in enumerate(units["heads"]) for j, p in enumerate(row)]
    page.click("#strongest")
    settle(page)
    assert page.locator("#grid .unit[aria-pressed=true]").evaluate_all("l => l.map(e => e.dataset.name)") == [
        min(heads)[2]
    ]


def test_where_no_head_changes_the_prediction_the_page_says_what_to_do(site: Site, visit: Visit) -> None:
    unchanged = site.post("/api/heads", text="i felt glad")
    unchanged["changed"]["heads"] = [[False] * 3] * 2
    page = visit("#text=i+felt+glad", routes={"**/api/heads": json.dumps(unchanged)})
    assert page.inner_text("#hint").startswith("No single head changes this prediction")
    assert page.locator("#grid [data-name^=head].turns").count() == 0
    page.unroute("**/api/heads")
    unchanged["changed"]["heads"] = [[False] * 3, [False, True, False]]
    page.route("**/api/heads", partial(answer_with, json.dumps(unchanged)))
    type_text(page, "i felt mad")
    assert page.inner_text("#hint").startswith("Switch a head off")
    assert page.locator("#grid .turns").evaluate_all("l => l.map(e => e.dataset.name)") == ["head 1.1"]
    page.click("#strongest")  # one that changes the prediction before one that moves it more
    assert cell(page, "head 1.1").get_attribute("aria-pressed") == "true"


def test_a_link_brings_back_the_same_page(site: Site, visit: Visit) -> None:
    page = visit()
    text = "glad & mad + 1 #ü%"
    type_text(page, text)
    cell(page, "head 0.2").click()
    cell(page, "MLP 1").click()
    page.click("#removals >> text=fill")
    page.locator(".token").nth(0).click()
    page.click("#fills >> text=other text")
    page.fill("#other", "i felt furious")
    page.click("#bars .bar >> nth=2")
    page.wait_for_function("() => location.hash.includes('other=i+felt+furious&')")
    settle(page)
    fields = parse_qs(urlsplit(page.url).fragment)
    assert {name: value for name, [value] in fields.items()} == {
        "v": "1",
        "text": text,
        "heads": "0.2",
        "mlps": "1",
        "tokens": "0:fill",
        "fill": "text",
        "other": "i felt furious",
        "look": "0.2",
        "focus": site.get("/api/model")["labels"][2],
        "model": site.get("/api/model")["sha256"][:12],
    }
    again = visit(page.url.split("/")[-1])
    body = {
        "text": text,
        "heads": [[0, 2]],
        "mlps": [1],
        "tokens": {"0": "fill"},
        "fill": "text",
        "other": "i felt furious",
    }
    assert_shown(again, site.post("/api/run", **body))
    for part in ("#tokens", "#bars", "#grid", "#verdict", "#legend"):
        assert again.inner_text(part) == page.inner_text(part)
    assert again.url == page.url


def test_links_to_what_is_not_there(site: Site, visit: Visit) -> None:
    page = visit("#v=1&text=i+felt+glad&heads=0.1,9.9,x&mlps=7&tokens=0:burn&fill=lava&look=-1.0&model=0123456789ab")
    assert "another network (0123456789ab" in page.inner_text("#link-note")
    assert_shown(page, site.post("/api/run", text="i felt glad", heads=[[0, 1]]))
    page.evaluate("location.hash = '#text=i+felt+mad&heads=5.5'")
    page.wait_for_function("() => document.querySelectorAll('#grid [aria-pressed=true]').length === 0")
    settle(page)
    assert_shown(page, site.post("/api/run", text="i felt mad"))
    assert "5.5" in page.inner_text("#link-note")
    page.click("#undo")
    settle(page)
    assert_shown(page, site.post("/api/run", text="i felt glad", heads=[[0, 1]]))


def test_a_link_that_is_refused_says_the_way_out(site: Site, visit: Visit) -> None:
    page = visit("#text=i+felt+glad")
    page.goto("about:blank")
    page.goto(f"{site.address}/#text=i+felt+glad&tokens=2:hide")
    page.wait_for_selector("#text-error:has-text('“Everything on” starts anew')")
    page.click("#everything-on")
    settle(page)
    assert_shown(page, site.post("/api/run", text="i felt glad"))


def test_undo_and_everything_on(site: Site, visit: Visit) -> None:
    page = visit("#text=i+felt+glad")
    assert page.is_disabled("#undo")
    assert page.is_disabled("#everything-on")
    cell(page, "head 0.1").click()
    page.locator(".token").nth(0).click()
    settle(page)
    page.click("#everything-on")
    settle(page)
    assert_shown(page, site.post("/api/run", text="i felt glad"))
    for body in ({"heads": [[0, 1]], "tokens": {"0": "hide"}}, {"heads": [[0, 1]]}, {}):
        page.click("#undo")
        settle(page)
        assert_shown(page, site.post("/api/run", text="i felt glad", **body))
    assert page.is_disabled("#undo")


def test_late_answers_are_dropped(site: Site, visit: Visit) -> None:
    """The first answer is held back until the second one is shown; the page cannot abort it, so it does arrive."""
    page, held = visit("#text=i+felt+glad", script="AbortController.prototype.abort = () => {}"), []

    def hold(route: Route) -> None:
        if route.request.post_data_json.get("heads") == [[0, 0]]:
            held.append((route, route.fetch()))
        else:
            route.continue_()

    page.route("**/api/run", hold)
    cell(page, "head 0.0").click()
    cell(page, "head 1.1").click()
    settle(page)
    answer = site.post("/api/run", text="i felt glad", heads=[[0, 0], [1, 1]])
    assert_shown(page, answer)
    [(route, late)] = held
    assert late.json()["after"] != answer["after"]
    with page.expect_response("**/api/run"):
        route.fulfill(response=late)
    page.wait_for_timeout(200)
    assert_shown(page, answer)


def test_what_is_typed_while_an_answer_is_on_its_way_stays(site: Site, visit: Visit) -> None:
    page, held = visit("#text=i+felt+glad"), []
    page.route("**/api/run", lambda route: held.append(route) if not held else route.continue_())
    page.focus("#text")
    page.keyboard.press("End")
    page.keyboard.type(" at")
    page.wait_for_selector("#prediction.old")
    page.keyboard.type(" wo", delay=5)
    held[0].continue_()
    page.keyboard.type("rk", delay=40)
    page.wait_for_function("() => document.querySelectorAll('.token').length === 5")
    settle(page)
    assert page.input_value("#text") == "i felt glad at work"
    assert_shown(page, site.post("/api/run", text="i felt glad at work"))


def test_the_attention_view_follows_the_token_that_is_read(site: Site, visit: Visit) -> None:
    page = visit()

    def read() -> str:
        """Return the line of numbers, without the marks that keep a token's letters to themselves."""
        return re.sub("[\u2068\u2069]", "", page.locator("#view-attention .readout").inner_text())

    page.fill("#text", "")
    page.focus("#text")
    page.keyboard.type("i felt afraid", delay=200)
    page.wait_for_function("() => document.querySelectorAll('.token').length === 3")
    settle(page)
    assert "·afraid (2) looks at" in read()
    page.locator(".strip-token").nth(1).evaluate("element => element.click()")
    cell(page, "head 1.1").click()
    settle(page)
    assert "·felt (1) looks at" in read()  # the same text: what was chosen stays
    type_text(page, "i felt glad")
    assert "·glad (2) looks at" in read()
    page.click("#removals >> text=delete")
    page.locator(".token").nth(0).click()
    settle(page)
    assert "·glad (1) looks at" in read()


HOSTILE = {
    "a tag": "<img src=x onerror=alert(1)>",
    "the end of a script": "</script><script>alert(1)</script>",
    "right to left": "אני שמח \u202e مرحبا",
    "emoji": "🙂 👩‍👩‍👧",
    "unseen": "a\u200bb\x00c\td\ne\u2028f",
    "a special token": "<|endoftext|>",
    "one token": "a",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sentences_are_only_text(large_site: Site, visit: Visit, name: str) -> None:
    page, text = visit(at=large_site), HOSTILE[name]
    type_text(page, text)
    answer = large_site.post("/api/run", text=text)
    assert_shown(page, answer)
    assert page.locator(".token").count() == len(answer["tokens"])
    assert page.locator("#tokens img, #tokens script, #side img").count() == 0
    for view in ("Class lens", "Corpus", "Attention"):
        page.click(f"role=tab[name='{view}']")
        settle(page)
    again = visit(page.url.split("/")[-1], at=large_site)
    assert again.input_value("#text") == page.input_value("#text")


def test_texts_that_are_refused_leave_the_page_alive(site: Site, visit: Visit) -> None:
    page = visit("#text=i+felt+glad")
    for text, line in {"": "at least one character", "very " * 1024: "at most 17 tokens"}.items():
        page.fill("#text", text)
        page.wait_for_selector(f"#text-error:has-text('{line}')")
    assert "export JSON" in page.inner_text("#link-note")
    assert urlsplit(page.url).fragment == ""
    page.click("#bars .bar >> nth=1")  # the old numbers stay, and do no harm
    type_text(page, "i felt mad")
    assert page.inner_text("#text-error") == ""
    assert_shown(page, site.post("/api/run", text="i felt mad"))
    assert page.locator(".token").last.get_attribute("aria-disabled") == "true"  # it is read
    page.locator(".token").last.click(force=True)
    assert "choose delete or fill" in page.inner_text("#text-error")
    assert_shown(page, site.post("/api/run", text="i felt mad"))
    page.locator(".token").nth(1).click()
    page.click("#removals >> text=delete")
    page.locator(".token").last.click()  # now a hidden token is read
    page.wait_for_selector("#text-error:has-text('cannot be hidden')")
    page.click("#export-json")
    assert "no answer to export" in page.inner_text("#link-note")
    page.locator(".token").last.click()
    settle(page)
    assert_shown(page, site.post("/api/run", text="i felt mad", tokens={"1": "hide"}))


def test_a_server_that_is_gone_is_said_so(visit: Visit) -> None:
    page = visit("#text=i+felt+glad", script="addEventListener('error', (event) => event.preventDefault())")
    page.evaluate("() => { window.fetch = () => Promise.reject(new TypeError('refused')); }")
    cell(page, "head 0.0").click()
    page.wait_for_selector("#text-error:has-text('does not answer')")


@pytest.mark.parametrize("busy", [False, True])
def test_only_a_busy_server_is_asked_again(site: Site, visit: Visit, busy: bool) -> None:
    page, asked = visit("#text=i+felt+glad"), []

    def refuse_once(route: Route) -> None:
        asked.append(route)
        if len(asked) == 1:
            line = json.dumps({"error": "this took more than 60 seconds"})
            headers = {"content-type": "application/json"} | ({"retry-after": "1"} if busy else {})
            route.fulfill(status=503, headers=headers, body=line)
        else:
            route.continue_()

    page.route("**/api/heads", refuse_once)
    cell(page, "head 0.0").click()
    if busy:
        settle(page)
        assert page.inner_text("#grid-error") == ""
    else:
        page.wait_for_selector("#grid-error:has-text('more than 60 seconds')")
        page.wait_for_timeout(500)
    assert len(asked) == (2 if busy else 1)


def test_two_tabs_never_meet(site: Site, visit: Visit) -> None:
    first, second = visit("#text=i+felt+glad"), visit("#text=i+felt+mad")
    cell(first, "head 0.0").click()
    cell(second, "head 1.0").click()
    settle(first)
    settle(second)
    assert_shown(first, site.post("/api/run", text="i felt glad", heads=[[0, 0]]))
    assert_shown(second, site.post("/api/run", text="i felt mad", heads=[[1, 0]]))
    assert second.evaluate("localStorage.length + sessionStorage.length") == 0


def test_the_other_views(site: Site, visit: Visit) -> None:
    body = {"text": "i felt glad at work", "heads": [[0, 0]], "tokens": {"1": "delete"}}
    page = visit("#text=i+felt+glad+at+work&heads=0.0&tokens=1:delete&view=lens")
    answer, lens = site.post("/api/run", **body), site.post("/api/lens", **body)
    k = answer["labels"].index(answer["predicted_before"])
    rows = [[f"{100 * layer[t][k]:.0f}" for layer in lens["probabilities"]] for t in range(4)]
    cells = page.locator(".lens tbody tr").evaluate_all(
        "l => l.map(r => [...r.querySelectorAll('td')].map(d => d.textContent))"
    )
    assert cells == rows
    page.click("role=tab[name='Random heads']")
    page.click("#draw")
    page.wait_for_selector(".draws")
    draws = site.post("/api/random", **body)
    first = [p[0] for p in draws["after"]]
    numbers = [answer["before"][0], answer["after"][0], min(first), sum(first) / 20, max(first)]
    assert page.locator(".draws tbody tr").first.locator("td").all_text_contents() == [percent(p) for p in numbers]
    did = "did not" if answer["predicted"] == answer["predicted_before"] else "did"
    line = f"The prediction changed in {draws['changed']} of 20 random draws. With your switches it {did}."
    assert line in page.inner_text("#view-random")
    ticks = (
        page.locator("#bars .bar >> nth=0")
        .locator(".ticks i")
        .evaluate_all("l => l.map(e => parseFloat(e.style.left))")
    )
    assert ticks == pytest.approx([100 * p[0] for p in draws["after"]], abs=1e-3)
    page.click("role=tab[name='Corpus']")
    assert "make ablate" in page.inner_text("#view-corpus")
    page.route("**/api/run", lambda route: route.fulfill(status=400, json={"error": "no"}))
    cell(page, "head 0.0").click()
    page.wait_for_selector("#text-error:has-text('no')")
    assert page.locator(".ticks i, .draws").count() == 0  # they belonged to other switches


def test_what_ablate_found_stands_beside_the_switched_unit(visit: Visit) -> None:
    row = {"kind": "head", "layer": 1, "head": 2, "class": "joy", "n": 60, "effect": -0.05, "rank": 1, "of": 6}
    share = {"share": -0.123, "share_low": -0.2, "share_high": -0.06, "verdict": "matters"}
    mlp = {"share": None, "share_low": None, "share_high": None, "verdict": None}
    rows = [row | share | {"fill": "zero"}, row | share | {"fill": "mean", "share": 0.5}]
    rows += [row | mlp | {"kind": "mlp", "layer": 0, "head": None, "fill": "mean"}]
    rows += [row | mlp | {"kind": kind, "head": None, "fill": "zero"} for kind in ("heads", "layer")]
    answer = json.dumps({"why": None, "rows": rows})
    page = visit("#text=i+felt+glad&view=corpus&look=1.2&mlps=0", routes={"**/api/findings": answer})
    tables = page.locator("#view-corpus tbody").evaluate_all(
        "l => l.map(t => [...t.rows[0].cells].map(c => c.textContent))"
    )
    assert tables == [
        ["joy", "−5.0", "−12.3 %", "−20.0 to −6.0 %", "matters", "1 of 6", "zero", "60"],
        ["joy", "−5.0", "", "", "", "1 of 6", "mean", "60"],  # no fill zero: what there is
    ]
    captions = ["head 1.2", "MLP 0: make ablate measured mean, not zero"]
    assert page.locator("#view-corpus caption").all_text_contents() == captions
    for name, title in (("all heads of layer 1", "all heads of layer 1"), ("MLP 1", "layer 1")):  # closed together
        cell(page, name).click()
        assert page.locator("#view-corpus caption").first.text_content() == title
    cell(page, "head 0.1").focus()
    page.keyboard.press("Enter")
    assert "head 0.1: make ablate did not measure it" in page.inner_text("#view-corpus")


def test_code_is_shown_and_can_be_closed_at_any_size(site: Site, visit: Visit) -> None:
    page = visit("#text=i+felt+glad&heads=0.1", viewport={"width": 320, "height": 480})
    code = site.post("/api/code", text="i felt glad", heads=[[0, 1]])
    for button, language in (("#copy-python", "python"), ("#copy-command", "command")):
        page.click(button)
        assert page.locator("dialog pre").text_content() == code[language]
        assert page.locator("dialog .close").bounding_box()["y"] >= 0
        page.click("dialog .close")
        page.wait_for_selector("dialog", state="detached")


def test_exports_hold_what_is_shown(site: Site, visit: Visit, tmp_path: Path) -> None:
    body = {"text": "i felt glad, and mad", "heads": [[0, 1]], "fill": "mean"}
    page = visit("#text=i+felt+glad,+and+mad&heads=0.1&fill=mean")

    def export(kind: str) -> Path:
        with page.expect_download() as download:
            page.click(f"#export-{kind}")
        download.value.save_as(tmp_path / f"file.{kind}")
        return tmp_path / f"file.{kind}"

    answer = site.post("/api/run", **body)
    assert compare(site.subject, read_export(export("json"))) == 0
    rows = [line.split(",") for line in export("csv").read_text().splitlines()]
    assert rows[0] == ["unit", "label", "before", "after"]
    assert [float(row[3]) for row in rows[1:4]] == answer["after"]
    assert len(rows) == 1 + 3 * (1 + 2 * 3 + 2)
    texts = ["".join(element.itertext()) for element in ElementTree.parse(export("svg")).iter()]
    filled = [
        rect.get("width") for rect in ElementTree.parse(tmp_path / "file.svg").iter() if rect.get("height") == "14"
    ]
    widths = [(300, 300 * after, 300 * before) for before, after in zip(answer["before"], answer["after"], strict=True)]
    assert [float(width or 0) for width in filled[:9]] == pytest.approx(sum(widths, ()))
    assert any(f"{percent(answer['before'][0])} → {percent(answer['after'][0])}" in text for text in texts)
    assert export("png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_ends_of_the_scale_differ_for_who_sees_no_green(visit: Visit, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    page.context.new_cdp_session(page).send("Emulation.setEmulatedVisionDeficiency", {"type": "deuteranopia"})
    settle(page)
    page.wait_for_load_state("networkidle")  # the effects of all heads draw the legend anew
    # The locator waits until the scale stands still: rows that come above it push it down.
    picture = imread(BytesIO(page.locator("#legend .scale").screenshot()), format="png")[..., :3]
    row = picture[len(picture) // 2]
    low, middle, high = row[4], row[len(row) // 2], row[-5]
    for one, other in ((low, middle), (middle, high), (low, high)):
        assert np.linalg.norm(one - other) > 0.35  # of 1.7 between black and white


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit: Visit, scheme: str) -> None:
    page = visit(
        "#text=i+felt+glad+at+work&heads=0.1&mlps=1&tokens=1:hide,2:fill", color_scheme=scheme, reduced_motion="reduce"
    )

    check_accessibility(page)
    for view in ("Class lens", "Random heads", "Corpus"):
        page.click(f"role=tab[name='{view}']")
        settle(page)
        check_accessibility(page)
    page.keyboard.press("?")
    check_accessibility(page)


def test_one_screen_holds_twelve_layers_of_twelve_heads(large_site: Site, visit: Visit) -> None:
    page = visit("#text=" + "+".join(["glad", "mad"] * 10), at=large_site)
    assert scrolls(page) == (False, False)
    for name in ("head 0.0", "MLP 11"):
        box = cell(page, name).bounding_box()
        assert box["y"] + box["height"] <= 800
        assert min(box["width"], box["height"]) >= 24
    assert page.evaluate("(e => e.scrollHeight - e.clientHeight)(document.querySelector('#switches'))") == 0


def test_lines_of_a_whole_sentence_fit_the_screen(large_site: Site, visit: Visit) -> None:
    page = visit("#text=i" + "+felt" * 19, at=large_site)
    assert page.locator(".token").count() == 20
    heights = page.evaluate("(e => [e.scrollHeight, e.clientHeight])(document.querySelector('#attention-view'))")
    assert heights[0] == heights[1]


DRAW_LINES = """async ([tokens, strongest, height]) => {
  const { drawLines } = await import("/page/lines.js"), query = tokens - 1, labels = Array(tokens).fill("word");
  const box = document.body.appendChild(document.createElement("div"));
  Object.assign(box.style, { height: `${height}px`, overflow: "auto", flex: "none" });
  const map = { at: (i, j) => (j === strongest && i >= j ? 1 : 0) };
  const recording = { tokens: labels, labels, hidden: new Set() };
  const { target } = drawLines(box, { recording, map, query, width: 600 }, {});
  const lines = [...box.querySelectorAll("path")].map((path) => path.getAttribute("d").match(/[\\d.]+/g).map(Number));
  return [Number(box.querySelector("svg").getAttribute("height")), target.dataset.spot, lines];
}"""


@pytest.mark.parametrize(
    ("tokens", "strongest", "box", "height", "target"),
    [
        pytest.param(10, 0, 300, 22 + 10 * 22 + 4, "query 5", id="enough"),
        pytest.param(20, 0, 300, 300, "query 10", id="lower rows"),
        pytest.param(20, 16, 200, 22 + 20 * 22 + 4, "query 18", id="query and key"),
        pytest.param(20, 0, 200, 22 + 20 * 22 + 4, "query 19", id="too far"),
    ],
)
def test_lines_fit_a_box_or_show_the_query_and_the_strongest_key(
    visit: Visit, tokens: int, strongest: int, box: int, height: int, target: str
) -> None:
    drawn = visit("#text=glad").evaluate(DRAW_LINES, [tokens, strongest, box])
    assert drawn[:2] == [pytest.approx(height, abs=0.5), target]
    row = (height - 26) / tokens
    middles = [22 + row * (i + 0.5) for i in range(tokens)]
    ends = sorted((line[1], line[-1]) for line in drawn[2])  # from each query on the left to the key on the right
    assert ends == [pytest.approx((middles[i], middles[strongest]), abs=0.5) for i in range(strongest, tokens)]
    assert all(line[0] < line[-2] for line in drawn[2])


@pytest.mark.parametrize("size", [(390, 844), (640, 400)])  # a phone; 1280 x 800 at 200 % zoom
def test_a_small_screen_shows_one_column(large_site: Site, visit: Visit, size: tuple[int, int]) -> None:
    page = visit(at=large_site, viewport={"width": size[0], "height": size[1]})
    assert not scrolls(page)[0]
    boxes = [page.locator(f"#{name}").bounding_box() or {} for name in ("input", "prediction", "switches", "side")]
    assert all(box["x"] + box["width"] <= size[0] for box in boxes)
    assert [box["y"] for box in boxes] == sorted(box["y"] for box in boxes)


def test_a_language_model_shows_next_tokens(language_subject: Subject, visit: Visit) -> None:
    site = Site(language_subject)
    try:
        page = visit("#text=It+was+not+the&heads=0.0", at=site)
        answer = site.post("/api/run", text="It was not the", heads=[[0, 0]])
        assert page.locator("#bars .number").all_inner_texts() == [percent(p) for p in answer["after"]]
        assert "next token" in page.inner_text("#verdict")
        assert page.locator("#to-corpus").is_hidden()
        page.click("role=tab[name='Corpus']")
        assert "language model" in page.inner_text("#view-corpus")
    finally:
        site.stop()
