"""The page in a real browser: a rater gets through by keyboard, and every answer is on disk before the next item."""

import json
import re
import socket
import threading
from pathlib import Path

import pytest
import uvicorn
from browser import check_accessibility, open_browser, open_page, scrolls
from explained_files import EMOJI
from playwright.sync_api import Page

from experiments.rate.answers import read_lines
from experiments.rate.server import create_app
from lab.guard import list_hosts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture
def site(items, tmp_path):
    """The address of a real server; answers land in tmp_path."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    app = create_app(tmp_path, items, list_hosts(port, ()))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join(10)


def begin(page: Page, pseudonym: str = "ann", haste: int = 1000) -> None:
    """Begin, on a page whose clock runs so much faster that keys may follow each other at once."""
    page.evaluate("n => { const now = performance.now.bind(performance); performance.now = () => n * now(); }", haste)
    page.fill("#pseudonym", pseudonym)
    page.keyboard.press("Enter")
    page.wait_for_selector("#item:not([hidden])")


def press(page: Page, key: str) -> None:
    """Press a key that answers, and wait for the next item."""
    done = page.evaluate("document.getElementById('bar').value")
    page.keyboard.press(key)
    page.wait_for_function("n => document.getElementById('bar').value === n", arg=done + 1)


def answer(page: Page) -> None:
    """Answer the present item by keyboard."""
    if page.is_visible("text=I have read it"):
        press(page, "n")
    elif page.query_selector(".sides"):
        press(page, "ArrowRight")
    elif page.query_selector(".word"):
        page.focus(".word >> nth=1")
        page.keyboard.press("Space")
        press(page, "s")
    else:
        press(page, "2")


def answer_until(page: Page, title: str) -> None:
    while page.inner_text("#title") != title:
        answer(page)


def test_a_rater_gets_through_by_keyboard_and_downloads_what_is_on_disk(browser, site, items, tmp_path):
    with open_page(browser, site) as page:
        begin(page)
        for n in range(1, 97):
            answer(page)
            assert len(read_lines(tmp_path / "ann.jsonl")) == 1 + n  # autosave
        page.wait_for_selector("#thanks:not([hidden])")
        with page.expect_download() as download:
            page.click("#download")
        assert download.value.suggested_filename == "ann.jsonl"
        lines = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
    assert lines == read_lines(tmp_path / "ann.jsonl")
    answers = {part: {str(line["answer"]) for line in lines[1:] if line["part"] == part} for part in ("after", "marks")}
    assert answers == {"after": {items.labels[1]}, "marks": {"[1]"}}
    assert {line["answer"] for line in lines[1:] if line["part"] == "choices"} == {"right"}
    assert all(line["seconds"] > 0 for line in lines[1:])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_each_kind_of_item_is_accessible_and_fits(browser, site, scheme, width):
    with open_page(browser, site, color_scheme=scheme, viewport={"width": width, "height": 800}) as page:
        check_accessibility(page)
        begin(page)
        titles = ["Get to know the network", "Predict the network", "The same texts, explained"]
        for title in (*titles, "Compare explanations", "Mark the words"):
            answer_until(page, title)
            check_accessibility(page)
            assert not scrolls(page)[0]
            boxes = [button.bounding_box() for button in page.query_selector_all("button") if button.is_visible()]
            assert min(min(box["width"], box["height"]) for box in boxes) >= 24
            assert page.evaluate("document.activeElement.id") == "title"
        while page.is_visible("#item"):
            answer(page)
        check_accessibility(page)


def test_texts_are_shown_as_they_are_whatever_is_in_them(browser, site, items, tmp_path):
    with open_page(browser, site) as page:
        begin(page)
        shown = set()
        while page.is_visible("#item"):
            shown |= {*page.eval_on_selector_all(".passage", "all => all.map((each) => each.textContent)")}
            answer(page)
    lines = read_lines(tmp_path / "ann.jsonl")[1:]
    assert shown == {line["text"] for line in lines}
    assert any("<img src=x onerror" in text for text in shown)


def test_words_are_coloured_by_absolute_weight_in_one_colour(browser, site, items, tmp_path):
    with open_page(browser, site) as page:
        begin(page)
        answer_until(page, "The same texts, explained")
        words = page.locator("#shown .weight")
        colours = [
            tuple(map(int, re.findall(r"\d+", words.nth(i).evaluate("e => getComputedStyle(e).backgroundColor"))))
            for i in range(words.count())
        ]
        line = read_lines(tmp_path / "ann.jsonl")[0]["order"][32]
    weights = [abs(value) for value in items.texts[line["text"]].values["integrated_gradients"]]
    order = sorted(range(len(weights)), key=lambda i: weights[i])
    reds = [colours[i][0] for i in order]
    assert reds == sorted(reds, reverse=True)  # from white to blue, the larger the weight
    assert len({*reds}) > 4
    assert all(red <= green <= blue for red, green, blue in colours)


def test_a_second_click_or_key_does_not_answer_the_next_item_unseen(browser, site, tmp_path):
    with open_page(browser, site) as page:
        begin(page, haste=1)
        page.wait_for_timeout(450)
        for _ in range(3):
            page.keyboard.press("n")
            page.wait_for_timeout(100)
        assert len(read_lines(tmp_path / "ann.jsonl")) == 2
        page.wait_for_timeout(450)
        page.click("text=I have read it", click_count=2, delay=50)
        page.wait_for_timeout(200)
        assert len(read_lines(tmp_path / "ann.jsonl")) == 3


def test_who_hears_an_explanation_hears_words_alone(browser, site):
    with open_page(browser, site) as page:
        begin(page)
        answer_until(page, "The same texts, explained")
        said = page.locator("#shown .unseen").inner_text()
        assert re.fullmatch(r"Strongest: \S+ \d+ %(, \S+ \d+ %){4}", said)
        assert EMOJI not in said


def test_one_item_back_can_be_changed_once_and_reloading_goes_on(browser, site, items, tmp_path):
    with open_page(browser, site) as page:
        begin(page)
        answer_until(page, "Predict the network")
        press(page, "1")
        text = page.inner_text("#shown")
        page.click("#back")
        assert page.is_hidden("#back")
        assert page.locator("#answers [aria-pressed=true]").inner_text().endswith(items.labels[0])
        page.click("#forth")
        assert page.inner_text("#shown") == text
        page.click("#back")
        page.keyboard.press("3")
        page.wait_for_function("text => document.getElementById('shown').innerText === text", arg=text)
        page.reload()
        page.wait_for_selector("#item:not([hidden])")
        assert page.inner_text("#shown") == text
    answers = [line["answer"] for line in read_lines(tmp_path / "ann.jsonl")[17:]]
    assert answers == [items.labels[0], items.labels[2]]


def test_a_tab_that_lags_behind_says_so_and_goes_on(browser, site, tmp_path):
    with open_page(browser, site) as first, open_page(browser, site) as second:
        begin(first)
        begin(second, "Ann")
        press(first, "n")
        press(first, "n")
        second.keyboard.press("n")
        second.wait_for_function("() => document.getElementById('bar').value === 2")
        assert second.inner_text("#note").startswith("Another tab has gone on")
        assert second.inner_text("#shown") == first.inner_text("#shown")
        assert len(read_lines(tmp_path / "ann.jsonl")) == 3


def test_a_bad_pseudonym_is_said(browser, site, tmp_path):
    page = browser.new_context().new_page()
    page.goto(site)
    page.fill("#pseudonym", "sim-1")
    page.keyboard.press("Enter")
    page.wait_for_selector("#error:not(:empty)")
    assert "are for simulated raters" in page.inner_text("#error")
    assert page.is_visible("#welcome")
    assert not list(tmp_path.glob("*.jsonl"))
    page.context.close()
