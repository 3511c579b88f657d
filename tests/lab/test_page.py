import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from browser import open_browser, open_page
from tiny import random_classifier

from lab.attention import Recording, list_tokens, pack, record_attention
from lab.page.bundle import PAGE, PANEL, STYLE, bundle, join_modules, write_data
from model import masks

MODULES = sorted({*PAGE.glob("*.js")} - {PAGE / "requests.js"})  # a page in one file asks no server
TEMPLATE = """<!doctype html><html lang="en"><head><title>t</title><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}"><style>{{ style }}</style></head>
<body><script type="application/json" id="data">{{ data }}</script>
<script type="module">{{ script }}</script></body></html>"""


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


def make_page(folder: Path, module: str, data: object = None) -> Path:
    """Write a page that holds the modules of the panel and one more."""
    (folder / "template.html").write_text(TEMPLATE, encoding="utf-8")
    (folder / "last.js").write_text(module, encoding="utf-8")
    page = folder / "page.html"
    page.write_text(bundle(folder / "template.html", [*PANEL, folder / "last.js"], [STYLE], data), encoding="utf-8")
    return page


def test_the_panel_has_all_modules_and_they_are_small():
    assert sorted(PANEL) == MODULES
    for path in MODULES:
        source = path.read_text(encoding="utf-8")
        assert source.startswith("//"), path
        assert source.count("\n") <= 250, path
        assert max(map(len, source.splitlines())) <= 120, path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_module_turns_text_into_code(path):
    source = re.sub(r"^\s*//.*", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "fetch("):
        assert word not in source
    assert set(re.findall(r"https?://[^\"'` ]+", source)) <= {"http://www.w3.org/2000/svg"}


def test_modules_become_one_script():
    modules = {
        "a.js": "// A\nexport const one = 1;\nexport function add(x) {\n  return x + one;\n}\n",
        "b.js": 'import {\n  add,\n  one,\n} from "./a.js";\nexport class B {}\nexport async function wait() {}\n',
    }
    script = join_modules(modules)
    assert script == (
        "// A\nconst one = 1;\nfunction add(x) {\n  return x + one;\n}\n\nclass B {}\nasync function wait() {}\n"
    )


@pytest.mark.parametrize(
    ("modules", "complaint"),
    [
        ({"a.js": "const x = 1;\n", "b.js": "function x() {}\n"}, "b.js: x is a top-level name of a.js too"),
        ({"b.js": 'import { x } from "./a.js";\n'}, "imports x from a.js"),
        ({"a.js": "const x = 1;\n", "b.js": 'import { y } from "./a.js";\n'}, "imports y from a.js"),
        ({"a.js": "export default 1;\n"}, "only named imports"),
        ({"a.js": 'import * as x from "./b.js";\n'}, "only named imports"),
        ({"a.js": 'const x = "</SCRIPT>";\n'}, "cannot hold </SCRIPT"),
        ({"a.js": "const x = 1 <!--x;\n"}, "cannot hold <!--"),
    ],
)
def test_modules_that_cannot_be_joined_are_refused(modules, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        join_modules(modules)


def test_the_policy_names_what_stands_in_the_page(tmp_path):
    page = make_page(tmp_path, "const x = 1;\n").read_text(encoding="utf-8")
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    [script] = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    for content in (style, script):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert "unsafe" not in page


def test_data_cannot_leave_its_script():
    data = {"text": "</script><!-- \u2028\u2029 é 🙂 \ud800 &"}
    written = write_data(data)
    assert written.isascii()
    assert "<" not in written
    assert json.loads(written) == data
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_data(float("nan"))


@pytest.mark.slow
def test_a_script_that_the_policy_does_not_name_never_runs(tmp_path, browser):
    page = make_page(tmp_path, "window.ran = 1;\n")
    page.write_text(page.read_text(encoding="utf-8").replace("window.ran = 1", "window.ran = 2"), encoding="utf-8")
    with (  # the browser says why
        pytest.raises(AssertionError, match="Content Security Policy"),
        open_page(browser, page.as_uri()) as opened,
    ):
        assert opened.evaluate("window.ran") is None


@pytest.mark.slow
def test_tokens_are_shown_as_people_can_read_them(tmp_path, browser):
    module = 'import { labelTokens, showToken } from "./tokens.js";\nwindow.tested = { labelTokens, showToken };\n'
    pieces = {
        " the": "·the",
        "  ": "··",
        "\n": "↵",
        "\t\r": "⇥␍",
        "\u200b": "U+200B",
        "a\u2028b": "aU+2028b",
        "\u202e": "U+202E",
        "\xa0": "U+00A0",
        "\x00": "U+0000",
        "\ud83d": "U+D83D",
        "\u0301": "◌\u0301",
        "": "(empty)",
        "<b>": "<b>",
        "·": "·",
    }
    shared = [("a", 0, 1), (" 🙂", 1, 3), ("🙂", 2, 3), ("🙂", 2, 3), ("b", 3, 4)]
    tokens = [{"piece": piece, "start": start, "end": end} for piece, start, end in shared]
    with open_page(browser, make_page(tmp_path, module).as_uri()) as page:
        for piece, label in pieces.items():
            assert page.evaluate("codes => tested.showToken(String.fromCharCode(...codes))", units(piece)) == label
        labels = page.evaluate("tokens => tested.labelTokens(tokens)", tokens)
    assert labels == ["a", "·🙂 1/3", "🙂 2/3", "🙂 3/3", "b"]


def units(text: str) -> list[int]:
    """Return the UTF-16 code units of a text: Playwright cannot send half a character."""
    return memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H").tolist()


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_can_be_told_apart(tmp_path, browser, theme):
    module = (
        'import { classColour, diverging, palette, sequential, shade } from "./colours.js";\n'
        "const steps = Array.from({ length: 21 }, (_, step) => step / 20);\n"
        "window.tested = { sequential: steps.map((w) => sequential(w)), shade: steps.map((w) => shade(w)),\n"
        "  diverging: steps.map((w) => diverging(2 * w - 1)), palette: palette(), light: sequential(0, 'light'),\n"
        "  classes: steps.slice(0, 10).map((_, k) => classColour(k)) };\n"
    )
    with open_page(browser, make_page(tmp_path, module).as_uri(), color_scheme=theme) as page:
        colours = page.evaluate("tested")
    sequence = [luminance(colour) for colour in colours["sequential"]]
    assert sequence == sorted(sequence, reverse=theme == "light")  # stronger all the way
    ink = luminance(colours["palette"]["ink"])
    assert min(contrast(ink, luminance(colour)) for colour in colours["shade"]) >= 4.5  # text stands on it
    assert contrast(luminance(colours["palette"]["quiet"]), luminance(colours["palette"]["ground"])) >= 4.5
    assert colours["diverging"][10] == colours["sequential"][0]  # zero is the background
    assert contrast(luminance(colours["diverging"][0]), luminance(colours["diverging"][10])) >= 3
    assert contrast(luminance(colours["diverging"][20]), luminance(colours["diverging"][10])) >= 3
    assert colours["light"] == "rgb(255, 255, 255)"  # whatever the theme
    assert len(set(colours["classes"])) == 9
    assert colours["classes"][8] == colours["classes"][9]  # no class has the colour of another that has one


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    if colour.startswith("#"):
        channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    else:
        channels = [int(number) for number in re.findall(r"\d+", colour)]
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


@pytest.mark.slow
def test_a_panel_shows_what_is_packed_and_asks_for_the_rest(tmp_path, browser, tiny):
    ids = torch.arange(1, 8)[None]
    clf = random_classifier(tiny, list("abcd"))
    gone = torch.zeros(1, 7, dtype=torch.bool)
    gone[0, [0, 3]] = True
    tokens = list_tokens([(f" t{i}", 3 * i, 3 * i + 3) for i in range(7)])
    with torch.inference_mode():
        mask = masks.hide_tokens(gone)
        recording = record_attention(clf.trunk, clf.trunk.embed(ids), tokens, {"attn_mask": mask}, [0, 3])
    module = (
        'import { decodeRecording } from "./recording.js";\nimport { AttentionPanel } from "./attention.js";\n'
        "const asked = [];\nconst main = document.createElement('main');\ndocument.body.append(main);\n"
        "const onHead = (...head) => asked.push(head);\nconst onView = (view) => asked.push(view);\n"
        "const panel = new AttentionPanel(main, { onHead, onView, missing: 'not yet' });\n"
        "const json = JSON.parse(document.getElementById('data').textContent);\n"
        "panel.show(decodeRecording(json));\nwindow.tested = { panel, asked };\n"
    )
    data = pack(recording, maps=[(1, 2), (2, 4)], neurons=[(1, 2)])
    with open_page(browser, make_page(tmp_path, module, data).as_uri()) as page:
        for query in range(7):
            weights = page.evaluate(f"Array.from(tested.panel.recording.neuron(1, 2, {query}).weights)")
            assert weights == pytest.approx(recording.weights[1, 2, query].tolist(), abs=1e-6)
            masked = page.evaluate(f"tested.panel.recording.neuron(1, 2, {query}).masked")
            assert masked == [key > query or key in (0, 3) for key in range(7)]
            row = page.evaluate(
                f"[0, 1, 2, 3, 4, 5, 6].map((key) => tested.panel.recording.map(2, 4).at({query}, key))"
            )
            assert row == pytest.approx(recording.weights[2, 4, query].tolist(), abs=0.002)
        elsewhere = {head: recording.weights[*head, -1, 1:6].sum().item() for head in ((1, 2), (2, 4))}
        state = page.evaluate("tested.panel.state")
        assert (state["layer"], state["head"]) == max(elsewhere, key=lambda head: elsewhere[head])
        assert (state["query"], state["view"]) == (6, "lines")
        assert page.locator(".strip-token.is-hidden").all_text_contents() == ["·t0", "·t3"]
        page.evaluate("tested.panel.show(tested.panel.recording, { layer: 2, head: 4, query: 5 })")
        page.click("#attention-tab-neurons")
        assert page.locator(".missing").text_content() == "not yet"
        page.click("#attention-tab-heads")
        page.click("[aria-label='Open head 0.1']")
        assert "not here" in page.locator(".missing").text_content()
        assert page.evaluate("tested.asked") == ["neurons", "heads", [0, 1], "lines"]
        assert page.evaluate("tested.panel.state.query") == 5


SHOW = (
    'import { decodeRecording } from "./recording.js";\nimport { AttentionPanel } from "./attention.js";\n'
    "const main = document.createElement('main');\ndocument.body.append(main);\n"
    "const panel = new AttentionPanel(main);\nwindow.tested = { panel };\n"
    "panel.show(decodeRecording(JSON.parse(document.getElementById('data').textContent)));\n"
)


def planted_recording() -> Recording:
    """Four tokens; each query of head 0.0 looks at the token before, each of head 0.1 at the first."""
    weights = torch.zeros(1, 2, 4, 4)
    weights[0, :, 0, 0] = 1
    weights[0, 0, [1, 2, 3], [0, 1, 2]] = 1
    weights[0, 1, 1:, 0] = 1
    tokens = list_tokens([(name, i, i + 1) for i, name in enumerate("abcd")])
    return Recording(tokens, weights, weights, torch.zeros(1, 2, 4, 3), torch.zeros(1, 2, 4, 3), 3**-0.5, [4])


@pytest.mark.slow
def test_lines_run_from_queries_to_keys_and_rows_of_a_matrix_are_queries(tmp_path, browser):
    """Of head 0.1, which looks at the first token: read off what is drawn, on the page and in the file."""
    expected = {(0, 0), (1, 0), (2, 0), (3, 0)}
    with open_page(browser, make_page(tmp_path, SHOW, pack(planted_recording(), neurons=[])).as_uri()) as page:
        page.evaluate("tested.panel.show(tested.panel.recording, { layer: 0, head: 1, query: 3, view: 'lines' })")
        on_page, saved = (
            page.evaluate(f"Array.from({svg}.querySelectorAll('path'), (path) => path.getAttribute('d'))")
            for svg in ("document.querySelector('.view svg')", "tested.panel.picture()")
        )
        for paths in (on_page, saved):
            ends = [[float(number) for number in re.findall(r"[\d.]+", path)] for path in paths]
            top = min(end[1] for end in ends)
            step = (max(end[1] for end in ends) - top) / 3
            assert len(ends) == 4
            assert {(round((end[1] - top) / step), round((end[-1] - top) / step)) for end in ends} == expected
            assert all(end[0] < end[-2] for end in ends)  # queries stand left
        shades = page.locator(".strip-token").evaluate_all("(tokens) => tokens.map((token) => token.style.background)")
        assert shades[0] != shades[1] == shades[2] == shades[3]  # the last query looks at the first token alone
        page.click("#attention-tab-matrix")
        cells = page.evaluate(
            "Array.from(tested.panel.picture().querySelectorAll('rect')).slice(1)"
            ".map((cell) => ['x', 'y', 'width'].map((name) => Number(cell.getAttribute(name))))"
        )
        left, top = (min(cell[axis] for cell in cells) for axis in (0, 1))
        assert {((y - top) / side, (x - left) / side) for x, y, side in cells} == expected


@pytest.mark.slow
def test_a_thumbnail_has_queries_as_rows_and_tells_where_its_head_looks(tmp_path, browser):
    recording = planted_recording()
    red = """(canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.width);
      const middle = (index) => Math.floor(((index + 0.5) * canvas.width) / 4);
      return [0, 1, 2, 3].map((row) => [0, 1, 2, 3].map((column) =>
        data[4 * (middle(row) * canvas.width + middle(column))]));
    }"""
    saved = f"""async (head) => {{
      const image = new Image();
      image.src = tested.panel.picture().querySelectorAll("image")[head].getAttribute("href");
      await image.decode();
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = image.width;
      canvas.getContext("2d").drawImage(image, 0, 0);
      return ({red})(canvas);
    }}"""
    with open_page(browser, make_page(tmp_path, SHOW, pack(recording, neurons=[])).as_uri()) as page:
        page.click("#attention-tab-heads")
        for head in (0, 1):
            strong = (recording.weights[0, head] > 0).tolist()
            shown = page.locator(".thumbnail canvas").nth(head).evaluate(red)
            assert [[value < 128 for value in row] for row in shown] == strong
            assert [[value < 128 for value in row] for row in page.evaluate(saved, head)] == strong
        readout = page.locator(".readout")
        page.hover("[aria-label='Open head 0.0']")
        assert plain(readout) == "Head 0.0: d (3) looks at c 1.00"
        page.mouse.move(1, 700)
        page.focus("[aria-label='Open head 0.1']")
        assert plain(readout) == "Head 0.1: d (3) looks at a 1.00"


def plain(readout) -> str:
    """Return a line of the panel without the marks that isolate its tokens."""
    return readout.text_content().replace("\u2068", "").replace("\u2069", "")


@pytest.mark.slow
def test_a_number_stands_behind_its_token_also_where_that_is_read_from_the_right(tmp_path, browser, tiny):
    clf = random_classifier(tiny, list("ab"))
    tokens = list_tokens([("אבג", 0, 3), (" דה", 3, 6), ("ו", 6, 7)])
    recording = record_attention(clf.trunk, clf.trunk.embed(torch.tensor([[1, 2, 3]])), tokens, {})
    module = (
        'import { decodeRecording } from "./recording.js";\nimport { AttentionPanel } from "./attention.js";\n'
        "const main = document.createElement('main');\ndocument.body.append(main);\n"
        "const panel = new AttentionPanel(main);\n"
        "panel.show(decodeRecording(JSON.parse(document.getElementById('data').textContent)), { query: 2 });\n"
    )
    measure = """(readout) => Array.from(readout.textContent.matchAll(/([אבגדהו]+)[^0-9]+([0-9.]+)/g), (match) => {
      const edges = [match[1], match[2]].map((part) => {
        const range = document.createRange();
        const start = match.index + match[0].indexOf(part);
        range.setStart(readout.firstChild, start);
        range.setEnd(readout.firstChild, start + part.length);
        return range.getBoundingClientRect();
      });
      return edges[1].left - edges[0].right;
    })"""
    with open_page(browser, make_page(tmp_path, module, pack(recording)).as_uri()) as page:
        gaps = page.locator(".readout").evaluate(measure)
        assert len(gaps) >= 3  # the query with its position, and keys with their weights
        assert min(gaps) > 0
        page.click("#attention-tab-matrix")
        page.hover(".matrix-body canvas", position={"x": 3, "y": 3})
        gaps = page.locator(".readout").evaluate(measure)
        assert len(gaps) == 2
        assert min(gaps) > 0
