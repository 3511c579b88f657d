import base64
import csv
import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from browser import check_accessibility, open_browser, open_page, scrolls
from playwright.sync_api import expect

from experiments.attend import page as attend_page
from experiments.attend.page import MOST_BYTES, ShownText, attend, record_text, render_page, write_page
from model import GPT2LM, GPT2Config, InputError, Tokenizer, Trace

slow = pytest.mark.slow
TEXT = "I feel so happy today that I could sing"
HOSTILE = (
    "<img src=x onerror=alert(1)> </script><!-- {{ data }} \u2028\u2029 \u202eשלום עולם \u200b 🙂 ሀ <|endoftext|>\n\t"
    "\x00 \ud800 e\u0301 </title> &lt; ${x} %3C"
)
VIEWS = ("lines", "heads", "matrix", "neurons", "table")
READ_MAP = "(map) => headgate.recording.labels.map((_, i) => headgate.recording.labels.map((_, j) => map.at(i, j)))"
READ_MAPS = """(recording) => {
  const rows = [];
  for (let layer = 0; layer < recording.layers; layer += 1)
    for (let head = 0; head < recording.heads; head += 1)
      for (let i = 0; i < recording.labels.length; i += 1)
        rows.push(recording.labels.map((_, j) => recording.map(layer, head).at(i, j)));
  return rows;
}"""
READ_NEURONS = """name => {
  const { recording } = headgate;
  const rows = [];
  for (let layer = 0; layer < recording.layers; layer += 1)
    for (let head = 0; head < recording.heads; head += 1)
      recording.labels.forEach((_, i) => rows.push(Array.from(recording.neuron(layer, head, i)[name])));
  return rows;
}"""


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load("gpt2-mini")


@pytest.fixture(scope="module")
def network(reference):
    """A random classifier of transformers with a whole vocabulary, and what our loader makes of it."""
    return reference("GPT2ForSequenceClassification", vocab_size=50257, n_positions=256)


@pytest.fixture(scope="module")
def neo(reference):
    """The same of a GPT-Neo, whose layer 1 sees fewer keys than TEXT has."""
    return reference("GPTNeoForSequenceClassification", vocab_size=50257, max_position_embeddings=256)


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def corpus(network, tokenizer, tmp_path_factory):
    """The page of two texts of each of two classes, with q and k of the first three alone."""
    clf = network.ours
    texts = []
    for text, right in [(TEXT, True), ("You are what you eat", False), ("No", True), ("Let it be, let it be", False)]:
        shown = record_text(clf, tokenizer, text)
        wrong = next(label for label in clf.labels if label != shown.predicted)
        texts.append(record_text(clf, tokenizer, text, label=shown.predicted if right else wrong))
    path = tmp_path_factory.mktemp("corpus") / "attention.html"
    neurons = sum(attend_page.count_neuron_bytes(text.recording) * 15 for text in texts[:3])
    maps = sum(attend_page.count_map_bytes(text.recording) for text in texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attend_page, "MOST_BYTES", neurons + maps)
        write_page(path, texts, ["run tests", "corpus none"])
    return path


def read_data(content: str) -> dict:
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', content, re.DOTALL)
    return json.loads(data)


def open_view(page, view: str) -> None:
    page.click(f"#attention-tab-{view}")


def save(tmp_path: Path, page) -> str:
    path = tmp_path / "page.html"
    page.save(path)
    return path.as_uri()


# Without a browser


def test_a_text_without_tokens_or_with_too_many_is_refused_in_one_line(network, tokenizer, clf):
    with pytest.raises(InputError, match=r"^text: expected at least one token, got none; write a word$"):
        attend(network.ours, tokenizer, "")
    with pytest.raises(InputError, match=r"^text: expected at most 256 tokens, .* got 257; shorten it$"):
        attend(network.ours, tokenizer, " a" * 257)
    recording = record_text(network.ours, tokenizer, " a" * 256).recording
    long = ShownText(recording, "", {"a": 1.0}, "a")
    long.recording.tokens.append(long.recording.tokens[0])
    with pytest.raises(InputError, match="got 257"):
        render_page([long], [])


def test_a_network_with_a_short_context_says_so(tokenizer):
    config = GPT2Config(1, 2, 8, n_ctx=5, vocab_size=50257)
    with pytest.raises(InputError, match=r"at most 5 tokens, .* got 6"):
        attend(GPT2LM(config), tokenizer, " a" * 6)


def test_the_page_tells_what_the_network_predicts(network, tokenizer):
    ids = torch.tensor([tokenizer.encode(TEXT)])
    expected = network.hf(ids).logits[0].double().softmax(dim=-1).tolist()
    data = read_data(attend(network.ours, tokenizer, TEXT).content)
    [text] = data["texts"]
    assert [name for name, _ in text["probabilities"]] == list(network.ours.labels)
    assert [p for _, p in text["probabilities"]] == pytest.approx(expected, abs=1e-5)
    assert text["predicted"] == network.ours.labels[int(np.argmax(expected))]
    assert text["text"] == TEXT
    assert data["predicts"] == "class"


def test_a_language_model_shows_its_next_tokens(tokenizer):
    torch.manual_seed(0)
    lm = GPT2LM(GPT2Config(1, 2, 8, n_ctx=9, vocab_size=50257)).eval()
    with torch.no_grad():
        lm.trunk.wte.weight.normal_()
        p = lm(torch.tensor([tokenizer.encode("You are")]))[0, -1].double().softmax(dim=-1)
    data = read_data(attend(lm, tokenizer, "You are").content)
    shown = [p for _, p in data["texts"][0]["probabilities"]]
    assert shown == pytest.approx(sorted(p.tolist(), reverse=True)[:8])
    assert data["predicts"] == "next token"
    assert data["texts"][0]["predicted"] == tokenizer.decode([int(p.argmax())])


def test_the_network_stays_as_it_was(network, tokenizer):
    torch.manual_seed(0)
    clf = type(network.ours)(
        GPT2Config(2, 5, 35, n_ctx=64, vocab_size=50257, dropout=0.5, attn_dropout=0.5), ["a", "b"]
    )
    clf.train()
    clf.trunk.h[1].eval()
    modes = [module.training for module in clf.modules()]
    weights = {name: value.clone() for name, value in clf.state_dict().items()}
    seed = torch.get_rng_state()
    first, second = (attend(clf, tokenizer, TEXT).content for _ in range(2))
    assert first == second  # no dropout
    assert [module.training for module in clf.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in clf.state_dict().items())
    assert torch.equal(torch.get_rng_state(), seed)


def test_a_failure_inside_restores_the_mode_too(network, tokenizer, monkeypatch):
    clf = network.ours
    monkeypatch.setattr(attend_page, "record_attention", lambda *_: 1 / 0)
    clf.train()
    with pytest.raises(ZeroDivisionError):
        record_text(clf, tokenizer, TEXT)
    assert clf.training
    clf.eval()


def test_a_notebook_shows_a_page_of_its_own(network, tokenizer, tmp_path):
    page = attend(network.ours, tokenizer, HOSTILE)
    shown = page._repr_html_()
    [(sandbox, source)] = re.findall(r'^<iframe [^>]*sandbox="([^"]*)" srcdoc="([^"]*)"></iframe>$', shown)
    assert sandbox == "allow-scripts allow-downloads"  # not allow-same-origin
    assert html.unescape(source) == page.content
    page.save(tmp_path / "x.html")
    assert (tmp_path / "x.html").read_text(encoding="utf-8") == page.content


def test_hostile_text_stays_data(network, tokenizer):
    content = attend(network.ours, tokenizer, HOSTILE).content
    assert content.count("</script") == 2
    assert "<img" not in content
    assert "<!--" not in content
    assert read_data(content)["texts"][0]["text"] == HOSTILE


def test_a_page_stays_below_its_limit(network, tokenizer, monkeypatch):
    texts = [record_text(network.ours, tokenizer, TEXT + " again" * n) for n in range(6)]
    monkeypatch.setattr(attend_page, "MOST_BYTES", 75_000)
    content = render_page(texts, ["about"])
    data = read_data(content)
    assert len(content) - len(render_page(texts[:1], [])) < 75_000
    sizes = [len(json.dumps(text["recording"])) for text in data["texts"]]
    neurons = [len(text["recording"]["neurons"]["heads"]) for text in data["texts"]]
    assert neurons[0] == 15  # the first comes first
    assert 0 in neurons  # and the last ones say that they have none
    assert set(neurons) <= {0, 15}
    assert sum(sizes) < 75_000 + 6 * 1500  # names of tokens and heads are not counted
    assert data["about"] == ["about"]


def test_the_limit_leaves_room_for_the_page_itself(network, tokenizer):
    page = render_page([record_text(network.ours, tokenizer, "No")], [])
    assert len(page) + MOST_BYTES < 5_000_000


def test_texts_that_do_not_fit_are_left_out_and_page_and_terminal_say_so(
    network, tokenizer, tmp_path, monkeypatch, capsys
):
    texts = [record_text(network.ours, tokenizer, " a" * 60)]
    texts += [record_text(network.ours, tokenizer, TEXT, label) for label in (None, "a", "a")]
    monkeypatch.setattr(attend_page, "MOST_BYTES", 20_000)
    write_page(tmp_path / "x.html", texts, ["about"])
    data = read_data((tmp_path / "x.html").read_text(encoding="utf-8"))
    assert len(data["texts"]) == 1  # the first one always stays
    line = "3 of 4 texts are left out, as the page would be too large; 1 of them without a label: shorten them"
    assert data["left_out"].startswith(line)
    assert " ".join(capsys.readouterr().out.split()) == data["left_out"]
    assert read_data(render_page(texts[:1] + texts[2:], []))["left_out"].endswith("too large")
    write_page(tmp_path / "x.html", texts[:1], [])
    assert read_data((tmp_path / "x.html").read_text(encoding="utf-8"))["left_out"] == ""
    assert capsys.readouterr().out == ""


def test_a_notebook_is_warned_of_a_large_page(network, tokenizer, monkeypatch, capsys):
    size = len(attend(network.ours, tokenizer, TEXT).content)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(attend_page, "LARGE", size)
    attend(network.ours, tokenizer, TEXT)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(attend_page, "LARGE", size - 1)
    attend(network.ours, tokenizer, TEXT)
    out = " ".join(capsys.readouterr().out.split())
    assert (
        out == "This page adds 0 MB to the notebook; to write it to a file instead: attend(...).save('attention.html')"
    )


@slow
def test_what_is_left_out_stands_under_the_list(network, tokenizer, tmp_path, monkeypatch, browser):
    texts = [record_text(network.ours, tokenizer, TEXT, "a") for _ in range(40)]
    monkeypatch.setattr(attend_page, "MOST_BYTES", 35 * attend_page.count_map_bytes(texts[0].recording))
    path = tmp_path / "attention.html"
    write_page(path, texts, ["about"])
    with open_page(browser, path.as_uri(), viewport={"width": 1280, "height": 800}) as page:
        line, texts_box = page.locator("#left-out"), page.locator("#texts").bounding_box()
        assert line.text_content() == "5 of 40 texts are left out, as the page would be too large"
        box = line.bounding_box()
        assert texts_box["y"] + texts_box["height"] <= box["y"] < 800 - box["height"]  # in sight, however long the list
        assert scrolls(page) == (False, False)


def test_of_a_large_text_the_heads_that_look_around_keep_q_and_k(network, tokenizer, monkeypatch):
    text = record_text(network.ours, tokenizer, TEXT)
    one = attend_page.count_neuron_bytes(text.recording)
    monkeypatch.setattr(attend_page, "MOST_BYTES", attend_page.count_map_bytes(text.recording) + 3 * one + one // 2)
    [shown] = read_data(render_page([text], []))["texts"]
    T = len(text.recording.tokens)
    around = {}
    for layer in range(3):
        for head in range(5):
            w = text.recording.weights[layer, head, -1].tolist()
            around[layer, head] = sum(w[1 : T - 1])
    best = sorted(around, key=lambda head: -around[head])
    assert [tuple(head) for head in shown["recording"]["neurons"]["heads"]] == sorted(best[:3])
    assert tuple(shown["look"]) == best[0]


# In a browser


@slow
@pytest.mark.parametrize("kind", ["network", "neo"])
def test_the_weights_of_the_page_are_those_of_transformers(request, kind, tokenizer, tmp_path, browser):
    network = request.getfixturevalue(kind)
    ids = torch.tensor([tokenizer.encode(TEXT)])
    T = ids.shape[1]
    with torch.no_grad():
        expected = torch.stack(network.hf(ids, output_attentions=True).attentions)[:, 0].double().numpy()
    assert expected[..., 1:, :].max(axis=-1).std() > 0.1  # no head that looks everywhere alike
    trace = Trace("scores")
    network.ours(ids, trace=trace)
    scores = trace.stacked("scores")[0].detach().numpy().reshape(-1, T)
    with open_page(browser, save(tmp_path, attend(network.ours, tokenizer, TEXT))) as page:
        exact = np.array(page.evaluate(READ_NEURONS, "weights"))
        shown = np.array(page.evaluate(f"({READ_MAPS})(headgate.recording)"))
        rounded = np.array(
            page.evaluate(
                "(() => { const packed = headgate.data.texts[0].recording;"
                " const maps = { ...packed, neurons: { heads: [], q: '', k: '' } };"
                f" return ({READ_MAPS})(headgate.decodeRecording(maps)); }})()"
            )
        )
        np.testing.assert_allclose(np.array(page.evaluate(READ_NEURONS, "score")), scores, atol=1e-4)
    expected = expected.reshape(-1, T)
    np.testing.assert_allclose(exact, expected, atol=1e-5)
    np.testing.assert_allclose(shown, expected, atol=1e-5)
    np.testing.assert_allclose(rounded, expected, atol=0.5 / 255 + 1e-6)
    assert np.abs(rounded - expected).max() > 1e-4  # the bytes, not q and k


@slow
def test_every_view_draws_what_it_says(corpus, browser):
    with open_page(browser, corpus.as_uri(), viewport={"width": 1280, "height": 800}) as page:
        T = page.evaluate("headgate.recording.tokens.length")
        assert page.locator(".strip-token").count() == T
        assert page.locator(".view .line-token").count() == 2 * T
        weights = page.evaluate(f"({READ_MAP})(headgate.panel.scene().map)")[-1]
        strong = [f"{w:.2f}" for w in weights if w >= 0.05]
        assert page.locator(".view svg text").filter(has_text=re.compile(r"^\d\.\d\d$")).all_text_contents() == strong
        open_view(page, "heads")
        assert page.locator(".thumbnail").count() == 15
        open_view(page, "matrix")
        assert page.locator(".matrix-label").count() == 2 * T
        pen = "document.querySelector('.matrix canvas').getContext('2d')"
        shades = page.evaluate(f"[...{pen}.getImageData(0, {T - 1}, {T}, 1).data]")
        blues = np.array(shades).reshape(T, 4)[:, 0]  # the red channel falls as the weight rises
        assert (np.argsort(blues, kind="stable") == np.argsort(-np.array(weights), kind="stable"))[:2].all()
        open_view(page, "neurons")
        assert page.locator(".neurons svg > g").count() == T
        assert page.locator(".neurons svg rect").count() > 2 * 7 * T
        open_view(page, "table")
        cells = page.locator(".numbers tbody tr td:nth-child(3)").all_text_contents()
        assert [float(cell) for cell in cells] == pytest.approx(weights, abs=5.1e-5)
        page.click("text=Every query of this head")
        expect(page.locator(".more-rows").first.locator("tbody tr")).to_have_count(T)
        page.click("text=All heads at this query")
        expect(page.locator(".more-rows").last.locator("tbody tr")).to_have_count(15)


@slow
def test_a_thumbnail_opens_its_head(corpus, browser):
    with open_page(browser, corpus.as_uri()) as page:
        open_view(page, "heads")
        page.click("[aria-label='Open head 2.3']")
        state = page.evaluate("headgate.panel.state")
        assert (state["layer"], state["head"], state["view"]) == (2, 3, "lines")
        assert page.locator(".readout").text_content().startswith("Head 2.3:")


@slow
def test_a_token_shows_only_its_lines(corpus, browser):
    with open_page(browser, corpus.as_uri()) as page:
        others = page.locator(".view svg > g").nth(0)
        assert others.get_attribute("opacity") == "1"
        page.hover("[data-spot='key 1']")
        assert others.get_attribute("opacity") == "0"
        assert "is looked at by" in page.locator(".readout").text_content()
        page.locator(".strip-token").nth(4).hover()
        assert others.get_attribute("opacity") == "0"
        page.mouse.move(1, 1)
        assert others.get_attribute("opacity") == "1"
        page.click("[data-spot='query 3']")
        assert page.evaluate("headgate.panel.state.query") == 3
        assert page.locator(".strip-token[aria-pressed=true]").text_content() == page.evaluate(
            "headgate.recording.labels[3]"
        )


@slow
def test_the_keyboard_reaches_everything(corpus, browser):
    name = "['class', 'id'].map((name) => document.activeElement.getAttribute(name)).join(' ')"
    name = f"document.activeElement.tagName + ' ' + {name}"
    with open_page(browser, corpus.as_uri()) as page:
        stops = []
        for _ in range(30):
            page.keyboard.press("Tab")
            stops.append(page.evaluate(name))
            if "BODY" in stops[-1]:
                break
        for stop in (
            "text-choice",
            "SUMMARY",
            "SELECT",
            "INPUT",
            "save",
            "strip-token",
            "attention-tab-lines",
            "line-token",
        ):
            assert any(stop in reached for reached in stops), (stop, stops)
        page.focus(".text-choice")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert (
            page.locator(".text-choice[aria-pressed=true]").text_content()
            != page.locator(".text-choice").first.text_content()
        )
        page.locator(".text-choice").first.press("Enter")
        page.focus("[data-spot='query 8']")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")
        assert page.evaluate("headgate.panel.state.query") == 7
        page.keyboard.press("ArrowRight")  # to the keys
        assert page.evaluate("document.activeElement.dataset.spot") == "key 7"
        page.focus("#attention-tab-lines")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("headgate.panel.state.view") == "heads"
        page.keyboard.press("Tab")
        before = page.evaluate("document.activeElement.dataset.spot").split()
        page.keyboard.press("ArrowUp" if before[1] != "0" else "ArrowDown")
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        state = page.evaluate("headgate.panel.state")
        assert (state["view"], state["head"]) == ("lines", 0)
        assert state["layer"] != int(before[1])
        assert "attention-tab-lines" in page.evaluate(name)
        open_view(page, "matrix")
        page.focus(".matrix-body")
        page.keyboard.press("Home")
        weight = page.evaluate(f"headgate.recording.map({state['layer']}, 0).at(7, 0).toFixed(3)")
        assert page.locator(".readout").text_content().endswith(f"looks at \u2068I\u2069 (0): {weight}")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")
        assert page.evaluate("headgate.panel.state.query") == 6
        assert "matrix-body" in page.evaluate(name)  # still there after it was drawn anew
        open_view(page, "neurons")
        page.focus(".neurons")
        page.keyboard.press("End")
        assert "dimension 6: q" in page.locator(".readout").text_content()


@slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_has_no_complaint(corpus, browser, theme):
    with open_page(browser, corpus.as_uri(), color_scheme=theme) as page:
        for view in VIEWS:
            open_view(page, view)
            check_accessibility(page)


@slow
@pytest.mark.parametrize("text", ["No", HOSTILE, " a b\n" * 85 + "z"], ids=["one token", "hostile", "256 tokens"])
def test_odd_texts_are_drawn(network, tokenizer, tmp_path, browser, text):
    shown = attend(network.ours, tokenizer, text)
    T = len(tokenizer.encode(text))
    assert (T in (1, 256)) or text == HOSTILE
    with open_page(browser, save(tmp_path, shown), viewport={"width": 1280, "height": 800}) as page:
        for view in VIEWS:
            open_view(page, view)
            assert page.locator(".view > *").count() > 0
            assert page.locator(".missing").count() == 0
            check_accessibility(page)
        assert page.locator(".strip-token").count() == T
        assert page.locator("img, iframe, body script:not([type])").count() == 0
        assert page.locator("#whole-text").evaluate("node => node.textContent === headgate.data.texts[0].text")
        assert scrolls(page) == (False, False)


@slow
def test_without_the_first_token_every_row_sums_to_one(corpus, browser):
    with open_page(browser, corpus.as_uri()) as page:
        page.check("text=without the first token")
        rows = page.evaluate(f"({READ_MAP})(headgate.panel.scene().map)")
        state = page.evaluate("headgate.panel.state")
        plain = page.evaluate(f"({READ_MAP})(headgate.recording.map({state['layer']}, {state['head']}))")
    assert state["withoutFirst"] is True
    for i, (row, weights) in enumerate(zip(rows, plain, strict=True)):
        expected = [0.0] + [w / sum(weights[1:]) if i else 0.0 for w in weights[1:]]
        assert row == pytest.approx(expected)


@slow
@pytest.mark.parametrize(("kind", "window", "title"), [("network", 99, "sum / √D: score"), ("neo", 5, "sum: score")])
def test_the_patterns_of_a_head_stand_beside_uniform_attention(
    request, kind, window, title, tokenizer, tmp_path, browser
):
    network = request.getfixturevalue(kind)
    with open_page(browser, save(tmp_path, attend(network.ours, tokenizer, TEXT))) as page:
        page.select_option(".attention-bar select >> nth=0", "1")  # which is local in `neo`
        line = page.locator(".patterns").text_content()
        weights = page.evaluate(f"({READ_MAP})(headgate.panel.scene().map)")
        open_view(page, "neurons")
        assert page.locator(".neurons svg text").filter(has_text="sum").all_text_contents() == [title]
    scores = {"previous": [], "first": [], "itself": [], "last 4": []}
    for i, row in enumerate(weights[1:], start=1):
        keys = {"previous": [i - 1], "first": [0], "itself": [i], "last 4": range(max(0, i - 3), i + 1)}
        seen = range(max(0, i - window + 1), i + 1)
        for name, some in keys.items():
            scores[name].append((sum(row[key] for key in some), len({*some} & {*seen}) / len(seen)))
    assert line.startswith("Over all queries: ")
    parts = [re.fullmatch(r"(.+) (\S+) \(uniform (\S+)\)", part) for part in line.split(": ")[1].split(", ")]
    assert [part[1] for part in parts] == [*scores]
    shown = [[float(part[2]), float(part[3])] for part in parts]
    np.testing.assert_allclose(shown, [np.mean(both, axis=0) for both in scores.values()], atol=0.00501)


@slow
def test_what_moved_is_shown_where_asked_for(corpus, browser):
    data = read_data(corpus.read_text(encoding="utf-8"))["texts"][0]["recording"]
    with open_page(browser, corpus.as_uri()) as page:
        page.select_option(".attention-bar select >> nth=2", "moved")
        shown = page.evaluate("headgate.panel.scene().map.at(3, 1)")
        state = page.evaluate("headgate.panel.state")
    T = len(data["tokens"])
    index = data["maps"]["heads"].index([state["layer"], state["head"]])
    assert state["moved"] is True
    assert shown == base64.b64decode(data["maps"]["moved"])[index * T * (T + 1) // 2 + 3 * 4 // 2 + 1] / 255


@slow
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_saved_as_a_file(corpus, browser, view):
    with open_page(browser, corpus.as_uri(), color_scheme="dark") as page:
        open_view(page, view)
        weights = page.evaluate(f"({READ_MAP})(headgate.panel.scene().map)")[-1]
        rows = list(csv.reader(io.StringIO(download(page, "CSV").decode())))
        assert len({len(row) for row in rows}) == 1
        assert len(rows) > len(weights)
        if view == "table":
            assert page.is_disabled("text=SVG")
            assert [float(row[2]) for row in rows[1:]] == pytest.approx(weights, abs=5.1e-5)
            return
        svg = ElementTree.fromstring(download(page, "SVG"))
        png = download(page, "PNG")
    width, height = int(svg.get("width")), int(svg.get("height"))
    space = "{http://www.w3.org/2000/svg}"
    assert svg.tag == f"{space}svg"
    assert svg.find(f"{space}rect").get("fill") == "#ffffff"  # light, although the page is dark
    assert not svg.findall(".//*[@style]")
    assert any((text.text or "").strip() for text in svg.iter(f"{space}text"))
    assert png.startswith(b"\x89PNG")
    assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == (2 * width, 2 * height)


def download(page, name: str) -> bytes:
    with page.expect_download() as event:
        page.click(f".saves button:text-is('{name}')")
    assert event.value.suggested_filename.endswith(name.lower())
    return Path(event.value.path()).read_bytes()


@slow
def test_another_text_brings_its_own_prediction(corpus, browser):
    texts = read_data(corpus.read_text(encoding="utf-8"))["texts"]
    with open_page(browser, corpus.as_uri()) as page:
        for number, text in enumerate(texts):
            page.locator(".text-choice").filter(has_text=re.compile("^" + re.escape(text["text"]))).click()
            shown = page.locator(".bars .number").all_text_contents()
            assert shown == [f"{p:.3f}" for _, p in text["probabilities"]]
            marked = page.locator(".bars .is-true").text_content()
            assert marked == f"{text['label']} (true)"
            assert page.evaluate("headgate.panel.state.query") == len(text["recording"]["tokens"]) - 1
            open_view(page, "neurons")
            missing = page.locator(".missing").all_text_contents()
            assert bool(missing) == (number == 3)
        assert "make attend ARGS=\"--text '...'\"" in missing[0]
        assert page.is_disabled("text=PNG")


@slow
@pytest.mark.parametrize("width", [1280, 390])
def test_long_names_of_classes_leave_room_for_the_bars(network, tokenizer, tmp_path, browser, width):
    shown = record_text(network.ours, tokenizer, TEXT)
    for label in (" ".join(["many words"] * 12), 120 * "x", "שלום עולם"):
        probabilities = {label: 0.75, "glad": 0.25}
        texts = [replace(shown, probabilities=probabilities, predicted=label, label="glad", note="wrong")] * 2
        path = tmp_path / "attention.html"
        write_page(path, texts, ["about"])
        with open_page(browser, path.as_uri(), viewport={"width": width, "height": 800}) as page:
            bars = [page.locator(".bars .bar").nth(k).bounding_box()["width"] for k in (0, 1)]
            assert bars[0] > 40
            assert bars[0] == pytest.approx(3 * bars[1], abs=3)
            assert not scrolls(page)[0]
            assert page.locator(".outcome bdi").all_text_contents() == [label, label]


@slow
def test_two_pages_stand_in_one_notebook(network, tokenizer, tmp_path, browser):
    shown = [attend(network.ours, tokenizer, text)._repr_html_() for text in (TEXT, "Nobody looks")]
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><title>x</title>{shown[0]}{shown[1]}<script>window.mine = 1;</script>")
    with open_page(browser, notebook.as_uri()) as page:
        for number, words in enumerate(("happy", "looks")):
            frame = page.frame_locator("iframe").nth(number)
            frame.locator("#attention-tab-heads").click()
            assert frame.locator(".thumbnail").count() == 15
            assert words in frame.locator(".strip").text_content()
        inside = page.frames[1]
        assert (
            inside.evaluate("(() => { try { return parent.mine ?? 'nothing'; } catch { return 'closed'; } })()")
            == "closed"
        )
        with page.expect_download() as event:
            page.frame_locator("iframe").first.locator("text=PNG").click()
        assert Path(event.value.path()).read_bytes().startswith(b"\x89PNG")


@slow
def test_the_page_fits_a_screen_and_a_phone(network, tokenizer, tmp_path, browser):
    text = TEXT + " and dance and shout and laugh all night long, dear"
    texts = [record_text(network.ours, tokenizer, text + " friend" * n, label=network.ours.labels[0]) for n in range(9)]
    assert len(tokenizer.encode(text)) == 20
    path = tmp_path / "attention.html"
    write_page(path, texts, ["about"])
    with open_page(browser, path.as_uri(), viewport={"width": 1280, "height": 800}) as page:
        for view in VIEWS:
            open_view(page, view)
            assert scrolls(page) == (False, False)
            if view in ("lines", "heads", "matrix", "neurons"):
                inside = page.evaluate(
                    "(({ scrollHeight, clientHeight }) => scrollHeight <= clientHeight)(headgate.panel.box)"
                )
                assert inside, view
    for width in (390, 799):
        with open_page(browser, path.as_uri(), viewport={"width": width, "height": 800}) as page:
            for view in VIEWS:
                open_view(page, view)
                assert scrolls(page) == (False, True)
            boxes = [page.locator(name).bounding_box() for name in ("header", "aside", "main")]
            assert boxes[0]["y"] < boxes[1]["y"] < boxes[2]["y"]  # one column
            assert {box["x"] for box in boxes} == {0}


@slow
def test_the_theme_changes_the_pictures(corpus, browser):
    with open_page(browser, corpus.as_uri(), color_scheme="light") as page:
        ground = page.locator(".view svg > rect").first
        assert ground.get_attribute("fill") == "#ffffff"
        page.emulate_media(color_scheme="dark")
        expect(ground).to_have_attribute("fill", "#12161c")
