"""texts.html: the numbers are those of the explanations, everything can be reached, and no text becomes code."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from browser import check_accessibility, open_browser, open_page, scrolls
from playwright.sync_api import expect

from experiments.explain import page as explain_page
from experiments.explain.choose import Explained
from experiments.explain.methods import METHODS, explain, parse
from experiments.explain.page import SHOWN, write_page
from lab.device import Device
from model import Tokenizer

slow = pytest.mark.slow
CPU = Device(torch.device("cpu"), "fp32")
TEXTS = ["I feel so unhappily happy", "nobody came, and I wept bitterly", "No", "what a day"]
HOSTILE = (
    "<img src=x onerror=alert(1)> </script><!-- {{ data }} \u2028\u2029 \u202eשלום עולם \u200b 🙂 ሀ <|endoftext|>\n\t"
    "\x00 \ud800 e\u0301 </title> &lt; ${x} %3C"
)
SIZES = "nodes => nodes.map((node) => [node.offsetWidth, node.offsetHeight])"
NUMBER = re.compile(r": ([+-]?[\d.]+)$")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load("gpt2-mini")


@pytest.fixture(scope="module")
def network(reference):
    """A random classifier with a whole vocabulary."""
    return reference("GPT2ForSequenceClassification", vocab_size=50257, n_positions=256).ours


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


def make_text(network, tokenizer, text: str, split: str, index: int, right: bool | None) -> Explained:
    """Return a text with its explanation, classified right or wrong, or without a label."""
    parsed = parse(text, tokenizer)
    with torch.no_grad():
        p = network(torch.tensor([parsed.ids]))[0].softmax(dim=0).numpy()
    k = int(p.argmax())
    label = None if right is None else k if right else (k + 1) % len(p)
    return Explained(split, index, parsed, label, p, explain(network, parsed, CPU, pairs=2))


@pytest.fixture(scope="module")
def texts(network, tokenizer):
    """Three test texts, the second of them wrong, and then one of the user."""
    rights = [True, False, True]
    texts = [make_text(network, tokenizer, TEXTS[i], "test", 7 + i, right) for i, right in enumerate(rights)]
    return [*texts, make_text(network, tokenizer, TEXTS[3], "user", 0, None)]


@pytest.fixture(scope="module")
def path(texts, network, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "texts.html"
    write_page(path, texts, network.labels, ["run tests", "corpus none"])
    return path


def read_data(path) -> dict:
    content = path.read_text(encoding="utf-8")
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', content, re.DOTALL)
    return json.loads(data)


def read_line(page, method: str, at: int = 0) -> list[float]:
    """Return the numbers of one coloured line, as they are read aloud."""
    line = page.locator(f"section[aria-labelledby='title-{method}'] .coloured").nth(at)
    labels = line.locator(".unit").evaluate_all("nodes => nodes.map((node) => node.getAttribute('aria-label'))")
    return [float(NUMBER.search(label)[1]) for label in labels]


def show_methods(page, methods) -> None:
    for method in METHODS:
        page.set_checked(f"#method-{method}", method in methods)


def choose(page, text: str) -> None:
    page.locator(".text-choice").filter(has_text=re.compile("^" + re.escape(text))).click()


def sum_words(text: Explained, values: np.ndarray) -> np.ndarray:
    sums = [values[text.parsed.groups == group].sum() for group in range(len(text.parsed.words))]
    return np.array(sums)


# Without a browser


def test_the_page_holds_the_numbers_to_four_digits(path, texts):
    described = read_data(path)["texts"]
    assert [text["name"] for text in described] == ["user 0", "test 7", "test 8", "test 9"]  # the user's first
    for text, shown in zip([texts[-1], *texts[:-1]], described, strict=True):
        for method in METHODS:
            values = text.explanation.values[method]
            expected = values if METHODS[method].of_class else values[:, :1]
            np.testing.assert_allclose(shown["values"][method], expected, rtol=5.1e-4)
        assert (shown["label"], shown["predicted"]) == (text.label, text.predicted)
        assert shown["text"] == text.parsed.text
        assert "".join(shown["words"]) == text.parsed.text


def test_hostile_text_stays_data(network, tokenizer, tmp_path):
    text = make_text(network, tokenizer, HOSTILE, "user", 0, None)
    write_page(tmp_path / "x.html", [text], ["</script>", *network.labels[1:]], [HOSTILE])
    content = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert content.count("</script") == 2
    assert "<img" not in content
    assert "<!--" not in content
    data = read_data(tmp_path / "x.html")
    assert data["texts"][0]["text"] == HOSTILE
    assert data["about"] == [HOSTILE]


def test_later_texts_are_left_out_where_the_page_would_be_too_large(texts, network, tmp_path, monkeypatch, capsys):
    sizes = [len(json.dumps(text, separators=(",", ":"))) for text in map(explain_page.describe, texts)]
    monkeypatch.setattr(explain_page, "MOST_BYTES", sizes[3] + sizes[0] + 100)
    write_page(tmp_path / "x.html", texts, network.labels, [])
    data = read_data(tmp_path / "x.html")
    assert [text["name"] for text in data["texts"]] == ["user 0", "test 7"]
    assert data["left_out"].startswith("2 of 4 texts are left out of texts.html")
    assert "yours" not in data["left_out"]
    assert " ".join(capsys.readouterr().out.split()) == data["left_out"]
    monkeypatch.setattr(explain_page, "MOST_BYTES", 1)
    write_page(tmp_path / "x.html", [texts[0], texts[3], texts[3]], network.labels, [])
    data = read_data(tmp_path / "x.html")
    assert [text["name"] for text in data["texts"]] == ["user 0"]  # the first one always stays
    assert "2 of 3 texts are left out" in data["left_out"]
    assert data["left_out"].endswith("1 of them are yours: give fewer or shorter ones")


def test_the_limit_leaves_room_for_the_page_itself(texts, network, tmp_path):
    write_page(tmp_path / "x.html", texts[2:3], network.labels, [])
    data = len(json.dumps(explain_page.describe(texts[2])))
    assert (tmp_path / "x.html").stat().st_size - data + explain_page.MOST_BYTES < 5_000_000
    assert set(SHOWN) <= set(METHODS)


# In a browser


@slow
def test_the_numbers_of_the_page_are_those_of_the_explanation(path, texts, browser):
    with open_page(browser, path.as_uri()) as page:
        show_methods(page, METHODS)
        for text in texts:
            choose(page, text.parsed.text)
            for method, values in text.explanation.values.items():
                largest = np.abs(values).max()
                expected = values[:, text.predicted]
                np.testing.assert_allclose(read_line(page, method), expected, atol=0.011 * largest)
            page.select_option("#unit", "word")
            for method in ("shapley", "integrated_gradients"):
                values = text.explanation.values[method]
                words = np.array([sum_words(text, column) for column in values.T])
                shown = read_line(page, method)
                np.testing.assert_allclose(shown, words[text.predicted], atol=0.011 * np.abs(words).max())
            page.select_option("#unit", "token")


@slow
def test_three_digits_are_written_and_no_negative_zero(path, texts, network, tmp_path, browser):
    text = texts[2]
    explanation = replace(text.explanation, values=dict(text.explanation.values))
    for method, largest in (("shapley", 20.0), ("integrated_gradients", 0.0345)):
        values = np.zeros_like(explanation.values[method])
        values[0] = -largest / 1e4
        values[0, 0] = largest
        explanation.values[method] = values
    write_page(tmp_path / "x.html", [replace(text, explanation=explanation)], network.labels, [])
    with open_page(browser, (tmp_path / "x.html").as_uri()) as page:
        for k, expected in ((0, ["+0.0345", "+20.0"]), (1, ["0.0000", "0.0"])):
            page.select_option("#target", str(k))
            names = page.locator(".unit").evaluate_all("nodes => nodes.map((node) => node.getAttribute('aria-label'))")
            assert [name.split(": ")[1] for name in names if name.split(": ")[1] in expected] == expected


@slow
def test_any_class_is_explained_and_all_of_them_at_once(path, texts, network, browser):
    text, K = texts[0], len(network.labels)
    values = text.explanation.values["integrated_gradients"]
    with open_page(browser, path.as_uri()) as page:
        choose(page, text.parsed.text)
        other = (text.predicted + 1) % K
        page.select_option("#target", str(other))
        np.testing.assert_allclose(
            read_line(page, "integrated_gradients"), values[:, other], atol=0.011 * np.abs(values).max()
        )
        page.select_option("#target", "all")
        section = page.locator("section[aria-labelledby='title-integrated_gradients']")
        assert section.locator("h4").all_text_contents() == list(network.labels)
        for k in range(K):
            shown = read_line(page, "integrated_gradients", k)
            np.testing.assert_allclose(shown, values[:, k], atol=0.011 * np.abs(values).max())
        assert page.locator("section[aria-labelledby='title-attention'] .coloured").count() == 1


@slow
def test_colours_say_sign_and_size(path, texts, browser):
    text = texts[0]
    values = text.explanation.values["integrated_gradients"][:, text.predicted]
    looks = text.explanation.values["attention"][:, 0]
    read = "nodes => nodes.map((node) => getComputedStyle(node).backgroundColor.match(/\\d+/g).map(Number))"
    with open_page(browser, path.as_uri(), color_scheme="light") as page:
        choose(page, text.parsed.text)
        signed, unsigned = (
            np.array(page.locator(f"section[aria-labelledby='title-{name}'] .unit").evaluate_all(read))
            for name in ("integrated_gradients", "attention")
        )
    assert (values < 0).any()
    assert (values > 0).any()
    strong = np.abs(values) > 0.1 * np.abs(values).max()
    bluer = signed[:, 2] > signed[:, 0]  # purple for the class, orange against it
    assert (bluer == (values > 0))[strong].all()
    assert np.argmin(unsigned[:, 0]) == looks.argmax()
    assert (unsigned[:, 2] >= unsigned[:, 0]).all()  # one hue


@slow
def test_a_token_shows_its_number_in_every_panel_on_hover_and_on_focus(path, texts, browser):
    text = texts[0]
    with open_page(browser, path.as_uri()) as page:
        choose(page, text.parsed.text)
        readouts = page.locator(".readout")
        assert readouts.all_text_contents() == [""] * len(SHOWN)
        page.locator(".unit").nth(2).hover()
        assert all(line.startswith("·so (2): ") for line in readouts.all_text_contents())
        assert page.locator(".is-pointed").count() == len(SHOWN)
        page.mouse.move(1, 1)
        assert readouts.all_text_contents() == [""] * len(SHOWN)
        page.focus(".unit >> nth=0")
        page.keyboard.press("ArrowRight")
        numbers = [float(NUMBER.search(line)[1]) for line in readouts.all_text_contents()]
        methods = [name for name in METHODS if name in SHOWN]
        expected = [text.explanation.values[name][1, text.predicted] for name in methods]
        scales = [np.abs(text.explanation.values[name]).max() for name in methods]
        assert (np.abs(np.array(numbers) - expected) < 0.011 * np.array(scales)).all()
        page.keyboard.press("Enter")
        page.mouse.move(1, 1)
        page.focus("#target")
        assert readouts.first.text_content().startswith("·feel (1): ")  # it stays
        assert page.locator(".unit[aria-pressed=true]").count() == len(SHOWN)


@slow
def test_texts_are_filtered_by_class_and_outcome(path, texts, network, browser):
    with open_page(browser, path.as_uri()) as page:
        listed, count = page.locator(".text-choice > bdi"), page.locator("#count")
        assert listed.all_text_contents() == [TEXTS[3], *TEXTS[:3]]
        for outcome, expected in {"right": [TEXTS[0], TEXTS[2]], "wrong": [TEXTS[1]], "yours": [TEXTS[3]]}.items():
            page.select_option("#filter-outcome", outcome)
            assert listed.all_text_contents() == expected
            assert count.text_content() == f"{len(expected)} of 4"
            assert page.locator(".text-choice[aria-pressed=true] > bdi").text_content() in expected
        page.select_option("#filter-outcome", "all texts")
        for k in range(len(network.labels)):
            page.select_option("#filter-class", str(k))
            assert sorted(listed.all_text_contents()) == sorted(
                text.parsed.text for text in texts if text.predicted == k
            )
        page.select_option("#filter-class", "all")
        choose(page, TEXTS[1])
        true, predicted = network.labels[texts[1].label], network.labels[texts[1].predicted]
        heading = page.locator("#heading").text_content()
        assert heading == f"test 8: predicted {predicted}, which is wrong: it is {true}"


@slow
def test_the_table_has_the_same_numbers(path, texts, browser):
    text = texts[1]
    with open_page(browser, path.as_uri()) as page:
        choose(page, text.parsed.text)
        expected = [read_line(page, name) for name in METHODS if name in SHOWN]
        page.select_option("#view", "table")
        rows = page.locator(".numbers tbody tr")
        shown = [rows.nth(i).locator("td").all_text_contents()[1:] for i in range(rows.count())]
        assert np.array(shown, dtype=float).T.tolist() == expected
        page.select_option("#target", "all")
        assert rows.first.locator("td").count() == 1 + 3 * 4 + 1  # attention knows no class


@slow
def test_the_keyboard_reaches_everything(path, browser):
    name = "['tagName', 'className', 'id'].map((name) => document.activeElement[name]).join(' ')"
    with open_page(browser, path.as_uri()) as page:
        stops = []
        for _ in range(40):
            page.keyboard.press("Tab")
            stops.append(page.evaluate(name))
            if "BODY" in stops[-1]:
                break
        for stop in ("filter-class", "filter-outcome", "text-choice", "SUMMARY", "target", "unit", "view", "method-"):
            assert any(stop in reached for reached in stops), (stop, stops)
        assert sum(reached.startswith("BUTTON unit") for reached in stops) == len(SHOWN)  # one stop a method
        page.focus(".text-choice >> nth=0")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert page.locator(".text-choice[aria-pressed=true] > bdi").text_content() == TEXTS[0]
        page.focus("#method-shapley")
        page.keyboard.press("Space")
        assert page.locator("#title-shapley").count() == 0


@slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_has_no_complaint(path, browser, theme):
    with open_page(browser, path.as_uri(), color_scheme=theme, viewport={"width": 1280, "height": 2000}) as page:
        show_methods(page, METHODS)
        check_accessibility(page)
        page.select_option("#target", "all")
        page.locator(".unit").nth(1).click()
        check_accessibility(page)
        page.select_option("#view", "table")
        check_accessibility(page)


@slow
@pytest.mark.parametrize("text", ["No", HOSTILE, " a b\n" * 60 + "z"], ids=["one token", "hostile", "181 tokens"])
def test_odd_texts_are_drawn(network, tokenizer, tmp_path, browser, text):
    explained = make_text(network, tokenizer, text, "user", 0, None)
    write_page(tmp_path / "x.html", [explained], network.labels, [])
    with open_page(browser, (tmp_path / "x.html").as_uri(), viewport={"width": 390, "height": 800}) as page:
        for unit, n in (("token", len(explained.parsed.ids)), ("word", len(explained.parsed.words))):
            page.select_option("#unit", unit)
            assert page.locator(".coloured").first.locator(".unit").count() == n
            assert all(page.locator(".coloured").first.locator(".unit").all_text_contents())
            assert not scrolls(page)[0]
            boxes = page.locator(".coloured").first.locator(".unit").evaluate_all(SIZES)
            assert np.min(boxes) >= 24
        check_accessibility(page)
        assert page.locator("img, iframe, body script:not([type])").count() == 0
        assert page.locator(".text-choice > bdi").evaluate("node => node.textContent === headgate.data.texts[0].text")


@slow
def test_the_page_fits_a_screen_and_a_phone(path, browser):
    for width, height, across, down in ((1280, 800, False, False), (799, 800, False, True), (390, 800, False, True)):
        with open_page(browser, path.as_uri(), viewport={"width": width, "height": height}) as page:
            assert scrolls(page) == (across, down)
            page.select_option("#view", "table")
            page.select_option("#target", "all")
            assert not scrolls(page)[0]
    with open_page(browser, path.as_uri(), viewport={"width": 1280, "height": 800}) as page:
        boxes = [page.locator(".method").nth(i).bounding_box() for i in (0, 1)]
        assert boxes[0]["y"] == boxes[1]["y"]  # side by side


@slow
def test_the_theme_changes_the_colours(path, browser):
    with open_page(browser, path.as_uri(), color_scheme="light") as page:
        scale = page.locator(".method .scale i").nth(4)  # 0: the ground of the page
        expect(scale).to_have_css("background-color", "rgb(255, 255, 255)")
        page.emulate_media(color_scheme="dark")
        expect(scale).to_have_css("background-color", "rgb(18, 22, 28)")
