"""map.html: its points are those of the tables, everything can be reached, and no text becomes code."""

import base64
import json
import re
from pathlib import Path

import embedded
import numpy as np
import pandas as pd
import pytest
from browser import check_accessibility, open_browser, open_page, scrolls
from embedded import LABELS, make_coordinates, make_documents, make_topics
from matplotlib.image import imread

from experiments.embed import page as embed_page
from experiments.embed.page import write_map

slow = pytest.mark.slow
HOSTILE = (
    "<img src=x onerror=alert(1)> </script><!-- {{ data }} \u2028\u2029 \u202eשלום עולם \u200b 🙂 ሀ <|endoftext|>\n\t"
    "\x00 e\u0301 </title> &lt; ${x} %3C \"'"
)
WIDE = {"width": 1280, "height": 800}
N = 60
PLACES = "(i => Array.from(headgate.decodePlaces(headgate.data.maps[i].places)))"


@pytest.fixture(scope="module")
def documents():
    return make_documents(N)


@pytest.fixture(scope="module")
def coordinates(documents):
    return make_coordinates(documents)


@pytest.fixture(scope="module")
def path(documents, coordinates, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "map.html"
    write_map(path, documents, coordinates, make_topics(documents), LABELS, ["run tests", "corpus none"])
    return path


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


def read_data(path: Path) -> dict:
    content = path.read_text(encoding="utf-8")
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', content, re.DOTALL)
    return json.loads(data)


def select_map(
    coordinates, network, layer, pooling="last", method="tsne", parameters="through the layers"
) -> pd.DataFrame:
    chosen = (coordinates["model"] == network) & (coordinates["layer"] == layer) & (coordinates["pooling"] == pooling)
    return coordinates[chosen & (coordinates["method"] == method) & (coordinates["parameters"] == parameters)]


def check_places(places: np.ndarray, table: pd.DataFrame, documents: pd.DataFrame) -> None:
    """Compare places of 0 .. 1 with x and y of a table: moved and scaled, as much across as up."""
    expected = table.set_index("index").loc[documents["index"], ["x", "y"]].to_numpy()
    low, high = expected.min(axis=0), expected.max(axis=0)
    expected = (expected - (low + high) / 2) / max(high - low) + 0.5
    np.testing.assert_allclose(places, expected, atol=1e-5)
    assert places.min() == 0
    assert places.max() == 1


def wait_until(page, condition: str) -> None:
    """Wait for a frame in which this holds; the policy of the page allows no code of Playwright's to do so."""
    look = f"const look = () => (({condition}) ? done() : requestAnimationFrame(look)); look();"
    page.evaluate(f"() => new Promise((done) => {{ {look} }})")


def point_at(page, text: int) -> None:
    """Move the mouse to a text, once it has arrived."""
    wait_until(page, "headgate.scatter.frame === null")
    x, y = page.evaluate("text => headgate.scatter.find(text)", text)
    box = page.locator("#map").bounding_box()
    page.mouse.move(box["x"] + x, box["y"] + y)


def find_lonely(page, texts) -> int:
    """Return the text of these whose next neighbour is furthest, so that a mouse hits it."""
    wait_until(page, "headgate.scatter.frame === null")
    at = np.array(page.evaluate(f"Array.from({{ length: {N} }}, (_, text) => headgate.scatter.find(text))"))
    distances = np.linalg.norm(at[:, None] - at, axis=-1) + 1e9 * np.eye(len(at))
    return max(texts, key=lambda text: distances[text].min())


def list_bright(page) -> list[int]:
    return page.evaluate(
        "headgate.data.texts.map((_, text) => text).filter((text) => headgate.scatter.look.bright(text))"
    )


# Without a browser


def test_the_page_holds_every_map_in_steps_of_a_65534th(path, documents, coordinates):
    maps = read_data(path)["maps"]
    assert len(maps) == 2 * 2 * 5 + 2 * 3
    shown = {(each["network"], each["layer"], each["pooling"], each["method"]): each["places"] for each in maps}
    for layer in range(5):
        places = shown["fine-tuned", layer, "mean_without_first", "tsne through the layers"]
        steps = np.frombuffer(base64.b64decode(places), "<u2").reshape(N, 2)
        check_places(steps / 65534, select_map(coordinates, "fine-tuned", layer, "mean_without_first"), documents)
    mds = np.frombuffer(base64.b64decode(shown["pretrained", 4, "last", "mds"]), "<u2").reshape(N, 2)
    assert (mds[1::2] == 65535).all()  # it has every second text
    table = select_map(coordinates, "pretrained", 4, method="mds", parameters="")
    check_places(mds[::2] / 65534, table, documents[::2])


def test_places_are_those_worked_out_by_hand():
    """x spans 4, y spans 2: y gets the middle half."""
    places = np.array([[-1.0, 3.0], [3.0, 5.0], [np.nan, np.nan], [1.0, 4.0]])
    steps = np.frombuffer(base64.b64decode(embed_page.pack_places(places)), "<u2").reshape(4, 2)
    assert steps.tolist() == [[0, 16384], [65534, 49150], [65535, 65535], [32767, 32767]]
    zeros = np.frombuffer(base64.b64decode(embed_page.pack_places(np.zeros((2, 2)))), "<u2")
    assert zeros.tolist() == [32767] * 4


def test_texts_keep_what_the_tables_say_of_them(path, documents):
    data = read_data(path)
    assert data["texts"] == documents["text"].tolist()
    assert [LABELS[k] for k in data["label"]] == documents["label"].tolist()
    assert [LABELS[k] for k in data["predicted"]] == documents["predicted"].tolist()
    assert [data["tokens"][k] for k in data["last_token"]] == documents["last_token"].tolist()
    assert data["length"] == documents["length"].tolist()
    clusters = {(each["network"], each["method"]): each["of"] for each in data["clusters"]}
    assert set(clusters) == {(network, method) for network in embedded.NETWORKS for method in embedded.CLUSTERINGS}
    assert clusters["fine-tuned", "hdbscan"] == documents["cluster_hdbscan"].tolist()
    assert clusters["pretrained", "kmeans"] == documents["pretrained_cluster_kmeans"].tolist()
    assert data["left_out"] == ""


def test_it_begins_where_most_maps_are_in_the_fine_tuned_network(path):
    data = read_data(path)
    start = {name: value for name, value in data["maps"][data["start"]].items() if name != "places"}
    assert start == {"network": "fine-tuned", "layer": 4, "pooling": "last", "method": "tsne through the layers"}


def test_it_begins_with_t_sne_where_no_map_goes_through_the_layers(documents, coordinates, tmp_path):
    """Texts are reduced at a pooling that has no maps of all layers."""
    elsewhere = coordinates["method"].ne("tsne") | coordinates["parameters"].eq("perplexity 30")
    coordinates = coordinates.assign(pooling=coordinates["pooling"].mask(elsewhere, "mean"))
    write_map(tmp_path / "x.html", documents, coordinates, make_topics(documents), LABELS, [])
    data = read_data(tmp_path / "x.html")
    start = data["maps"][data["start"]]
    assert (start["network"], start["pooling"], start["method"]) == ("fine-tuned", "mean", "tsne perplexity 30")


def test_words_of_topics_stand_in_the_order_of_their_ranks(documents, coordinates, tmp_path):
    topics = make_topics(documents).sample(frac=1, random_state=0)
    topics.loc[topics["cluster"] == "1", "null_npmi"] = np.nan
    write_map(tmp_path / "x.html", documents, coordinates, topics, LABELS, [])
    lists = read_data(tmp_path / "x.html")["topics"]
    assert len(lists) == (3 + 2 * 3) * 2  # of classes and of both networks' clusters, by two methods; none of LDA
    chosen = {"grouping": "cluster", "network": "pretrained", "cluster": "1", "method": "log_odds"}
    [topic] = [each for each in lists if chosen.items() <= each.items()]
    assert topic["words"] == list(embedded.WORDS["fear"])
    assert topic["scores"] == [10, 5, 3.333, 2.5, 2]
    assert (topic["npmi"], topic["null_npmi"]) == (0.25, None)


def test_hostile_text_stays_data(coordinates, tmp_path):
    documents = make_documents(N)
    documents["text"] = HOSTILE
    documents["last_token"] = "</script>"
    write_map(tmp_path / "x.html", documents, coordinates, make_topics(documents), LABELS, [HOSTILE])
    content = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert content.count("</script") == 2
    assert "<img" not in content
    assert "<!--" not in content
    data = read_data(tmp_path / "x.html")
    assert data["texts"][0] == HOSTILE
    assert data["about"] == [HOSTILE]


def test_two_thousand_long_texts_in_56_maps_take_less_than_3_mb(tmp_path, capsys):
    documents = make_documents(2_100)
    documents["text"] = [f"{i} <é> " + "long 🙂 " * 2_000 for i in range(2_100)]
    write_map(tmp_path / "x.html", documents, make_coordinates(documents, 14), make_topics(documents), LABELS, [])
    data = read_data(tmp_path / "x.html")
    assert len(data["texts"]) == 2_000
    assert len(data["maps"]) == 56 + 6
    assert 1_000_000 < (tmp_path / "x.html").stat().st_size < 3_000_000
    cut = len(data["texts"][0])
    assert data["texts"][0] == documents["text"][0][: cut - 1] + "…"
    line = f"100 of 2,100 texts are left out; 2,000 texts are cut after {cut} characters"
    assert data["left_out"].startswith(f"map.html: {line}")
    assert " ".join(capsys.readouterr().out.split()) == data["left_out"]
    assert data["texts"][-1].startswith("2099 ")  # drawn from all of them


def test_a_page_that_cannot_be_small_says_so(documents, coordinates, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(embed_page, "MOST_BYTES", 50_000)
    write_map(tmp_path / "x.html", documents, coordinates, make_topics(documents), LABELS, [])
    assert max(map(len, read_data(tmp_path / "x.html")["texts"])) == 40
    assert f"map.html has {(tmp_path / 'x.html').stat().st_size / 1e6:.1f} MB" in capsys.readouterr().out


# In a browser


def test_the_map_shows_the_places_of_the_tables(path, documents, coordinates, browser):
    with open_page(browser, path.as_uri(), viewport=WIDE) as page:
        data = read_data(path)
        places = np.array(page.evaluate(f"{PLACES}({data['start']})")).reshape(N, 2)
        check_places(places, select_map(coordinates, "fine-tuned", 4), documents)
        at = np.array(page.evaluate(f"Array.from({{ length: {N} }}, (_, text) => headgate.scatter.find(text))"))
        assert np.corrcoef(at[:, 0], places[:, 0])[0, 1] == pytest.approx(1)
        assert np.corrcoef(at[:, 1], places[:, 1])[0, 1] == pytest.approx(-1)  # pixels are counted downwards
        assert (np.ptp(at, axis=0) / np.ptp(places, axis=0)).round(3).std() == 0  # one scale


@slow
def test_network_layer_pooling_and_method_are_switched(path, browser):
    heading = "fine-tuned, layer {}: t-SNE through the layers"
    with open_page(browser, path.as_uri(), viewport=WIDE) as page:
        title = page.locator("#heading")
        assert title.text_content() == heading.format("4, after ln_f, last token")
        page.focus("#layer")
        page.keyboard.press("ArrowLeft")
        assert title.text_content() == heading.format("3, before ln_f, last token")
        page.focus("#reset")
        for _ in range(5):
            page.keyboard.press("ArrowLeft")
        assert title.text_content() == heading.format("0, embeddings, last token")
        page.select_option("#pooling", "mean_without_first")
        assert title.text_content() == heading.format("0, embeddings, mean without the first token")
        page.select_option("#method", "pca")  # which is at the chosen place alone
        assert title.text_content() == "fine-tuned, layer 4, after ln_f, last token: PCA"
        assert "most variance" in page.locator("#note").text_content()
        page.get_by_role("button", name="pretrained").click()
        assert title.text_content() == "pretrained, layer 4, after ln_f, last token: PCA"
        page.select_option("#method", "mds")
        assert page.locator("#note").text_content().endswith(f"{N // 2} of {N} texts are in this map.")
        page.focus("#reset")
        page.keyboard.press("ArrowLeft")
        assert title.text_content() == "pretrained, layer 3, before ln_f, last token: t-SNE through the layers"
        assert "means nothing" in page.locator("#note").text_content()


@slow
def test_points_travel_unless_motion_is_unwelcome(path, browser):
    for motion, frames in (("no-preference", 5), ("reduce", 1)):
        with open_page(browser, path.as_uri(), viewport=WIDE, reduced_motion=motion) as page:
            page.evaluate(
                "window.drawn = []; const draw = headgate.scatter.draw;"
                "headgate.scatter.draw = function () { drawn.push(this.places[0]); draw.call(this); }; 0"
            )
            first = page.evaluate("headgate.scatter.places[0]")
            page.select_option("#pooling", "mean_without_first")
            wait_until(page, "headgate.scatter.frame === null")
            places, last = page.evaluate("drawn"), page.evaluate("headgate.state.places[0]")
            assert places[-1] == last != first
            between = {place for place in places if min(first, last) < place < max(first, last)}
            assert len(between) >= frames if motion == "no-preference" else not between


@slow
def test_a_text_is_read_by_pointing_at_it(path, documents, browser):
    with open_page(browser, path.as_uri(), viewport=WIDE) as page:
        wrong = documents.index[documents["label"] != documents["predicted"]]
        text = find_lonely(page, wrong)
        point_at(page, text)
        row, tip = documents.loc[text], page.locator("#tip")
        assert tip.locator(".text").text_content() == row["text"]
        words = ", ".join(embedded.WORDS[row["label"]][:3])
        cluster = f"cluster {row['cluster_kmeans']}: {words}"
        line = f"label {row['label']}, predicted {row['predicted']}, {cluster}, last token ·{row['last_token'].strip()}"
        assert tip.locator(".quiet").text_content() == line
        box, field = tip.bounding_box(), page.locator("#field").bounding_box()
        assert box["x"] >= field["x"]
        assert box["x"] + box["width"] <= field["x"] + field["width"]
        page.mouse.down()
        page.mouse.up()
        details = page.locator("#details")
        assert details.locator("h2").first.text_content() == f"Text test {row['index']}"
        assert details.locator("dd").all_text_contents()[:2] == [row["label"], f"{row['predicted']}, wrong"]
        assert details.locator("h2").nth(1).text_content() == row["label"]  # the group of its colour
        assert list_bright(page) == documents.index[documents["label"] == row["label"]].tolist()
        page.mouse.move(1, 1)
        assert not tip.is_visible()


@slow
def test_a_group_of_the_legend_shows_its_words_sizes_and_classes(path, documents, browser):
    with open_page(browser, path.as_uri(), viewport=WIDE) as page:
        page.select_option("#colour", "kmeans")
        entries = page.locator("#legend button")
        assert entries.nth(1).locator("bdi").text_content() == "cluster 1: afraid, nervous, shaky"
        entries.nth(1).click()
        details, members = page.locator("#details"), documents.index[documents["cluster_kmeans"] == 1]
        share = round(100 * len(members) / N)
        assert details.locator("p").first.text_content() == f"{len(members)} texts, {share} % of all"
        assert details.locator(".shares bdi").all_text_contents() == ["fear"]
        assert details.locator("li bdi").all_text_contents() == list(embedded.WORDS["fear"])
        assert "Coherence (NPMI) 0.25; of random words -0.10" in details.text_content()
        assert details.locator("li .number").all_text_contents() == ["10", "5", "3.33", "2.5", "2"]
        page.select_option("#words", "c_tfidf")
        assert details.locator("li bdi").all_text_contents() == list(embedded.REST[:5])
        assert list_bright(page) == members.tolist()
        assert "not in this picture" in page.locator("#colour-note").text_content()
        page.get_by_role("button", name="pretrained").click()  # it has other clusters
        assert details.locator("li").count() == 0
        sizes = documents["pretrained_cluster_kmeans"].value_counts().sort_index()
        assert page.locator("#legend .number").all_text_contents() == [str(size) for size in sizes]
        for kind, first in (("hdbscan", "noise"), ("prediction", "anger")):  # words are not of what is predicted
            page.select_option("#colour", kind)
            assert page.locator("#legend bdi").first.text_content() == first
            entries.first.click()
            assert "Words are listed for labels and for the clusters of k-means" in details.text_content()
            assert details.locator("li").count() == 0


@slow
def test_colours_say_what_the_legend_says(path, documents, browser):
    read = "Array.from(document.querySelectorAll('#legend > *'), (row) => [row.querySelector('bdi').textContent, "
    read += "row.querySelector('path').getAttribute('fill'), row.querySelector('.number')?.textContent])"
    of_text = "headgate.data.texts.map((_, text) => headgate.scatter.look.colour(text))"
    wrong = documents["label"] != documents["predicted"]
    expected = {
        "label": documents["label"],
        "prediction": documents["predicted"],
        "right or wrong": np.where(wrong, "wrong", "right"),
        "hdbscan": ["noise" if k < 0 else f"cluster {k}" for k in documents["cluster_hdbscan"]],
    }
    with open_page(browser, path.as_uri(), viewport=WIDE) as page:
        for kind, names in expected.items():
            page.select_option("#colour", kind)
            legend = page.evaluate(read)
            colours = {name: colour for name, colour, _ in legend}
            assert len(set(colours.values())) == len(legend)
            assert page.evaluate(of_text) == [colours[name] for name in names]
            assert {name: int(n) for name, _, n in legend} == pd.Series(names).value_counts().to_dict()
        assert colours["noise"] == "#b4bbc3"
        page.select_option("#colour", "last token")
        names = [name for name, _, _ in page.evaluate(read)]
        counts = documents["last_token"].value_counts()
        assert len(names) == 13
        assert names[-1] == "others"
        assert counts[f" {names[0][1:]}"] == counts.iloc[0]
        page.select_option("#colour", "length")
        reds = [int(re.findall(r"\d+", colour)[0]) for colour in page.evaluate(of_text)]
        by_length = pd.Series(reds).groupby(documents["length"]).mean()  # of the scale from pale to strong blue
        assert by_length.is_monotonic_decreasing
        assert page.locator("#legend button").count() == 0


@slow
def test_search_keeps_what_has_the_words_and_counts_it(path, documents, browser):
    with open_page(browser, path.as_uri(), viewport=WIDE) as page:
        page.fill("#search", "FURIOUS")
        matching = documents.index[documents["text"].str.contains("furious")].tolist()
        assert 0 < len(matching) < N
        assert list_bright(page) == matching
        assert page.locator("#matches").text_content() == f"{len(matching)} of {N} texts"
        page.fill("#search", ".*")
        assert page.locator("#matches").text_content() == f"0 of {N} texts"
        page.fill("#search", "")
        assert page.locator("#matches").text_content() == ""
        assert len(list_bright(page)) == N


@slow
def test_the_map_is_zoomed_and_dragged_and_put_back(path, browser):
    find = "headgate.scatter.find(0)"
    with open_page(browser, path.as_uri(), viewport=WIDE) as page:
        first = np.array(page.evaluate(find))
        point_at(page, 0)
        page.mouse.wheel(0, -500)
        wait_until(page, "headgate.scatter.view.zoom > 1.5")
        np.testing.assert_allclose(page.evaluate(find), first, atol=1.5)  # what is under the mouse stays there
        page.mouse.down()
        box = page.locator("#map").bounding_box()
        page.mouse.move(box["x"] + first[0] + 40, box["y"] + first[1] - 30, steps=4)
        page.mouse.up()
        np.testing.assert_allclose(page.evaluate(find), first + np.array([40, -30]), atol=1.5)
        assert page.evaluate("headgate.state.text") is None  # dragging chooses nothing
        page.click("#reset")
        np.testing.assert_allclose(page.evaluate(find), first, atol=0.01)
        for button, zoom in (("#zoom-in", 1.5), ("#zoom-out", 1)):
            page.click(button)
            assert page.evaluate("headgate.scatter.view.zoom") == pytest.approx(zoom)


@slow
def test_the_keyboard_reaches_everything(path, documents, browser):
    with open_page(browser, path.as_uri(), viewport=WIDE) as page:
        stops = []
        for _ in range(30):
            page.keyboard.press("Tab")
            stops.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        wanted = {"layer", "pooling", "method", "colour", "search", "zoom-in", "reset", "save", "map", "details"}
        assert wanted <= set(stops)
        page.fill("#search", "furious")
        matching = documents.index[documents["text"].str.contains("furious")].tolist()
        page.focus("#map")
        for text in [*matching, matching[-1]]:
            page.keyboard.press("ArrowDown")
            assert page.evaluate("headgate.state.pointed") == text
            assert page.locator("#spoken").text_content().startswith(documents["text"][text])
        page.keyboard.press("Enter")
        assert page.evaluate("headgate.state.text") == matching[-1]
        spoken, label = page.locator("#spoken").text_content(), documents["label"][matching[-1]]
        assert spoken.startswith(f"Chosen: {documents['text'][matching[-1]]}")
        assert spoken.endswith(f"Group {label}, {sum(documents['label'] == label)} texts.")
        page.keyboard.press("+")
        assert page.evaluate("headgate.scatter.view.zoom") == 1.5
        page.keyboard.press("Escape")
        assert page.evaluate("[headgate.state.text, headgate.state.group]") == [None, None]
        assert page.locator("#spoken").text_content() == "Nothing is chosen."
        page.focus("#legend button >> nth=0")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        assert page.locator("#legend button[aria-pressed=true] bdi").text_content() == "fear"
        assert page.evaluate("document.activeElement.textContent").startswith("fear")


@slow
def test_keys_stay_at_a_text_through_the_layers_and_bring_it_into_view(path, browser):
    inside = "(([x, y]) => x >= 0 && y >= 0 && x <= scatter.canvas.clientWidth && y <= scatter.canvas.clientHeight)"
    inside = f"(({{ scatter }}) => {inside}(scatter.find(headgate.state.pointed)))(headgate)"
    with open_page(browser, path.as_uri(), viewport=WIDE) as page:
        page.focus("#map")
        for key in [*["ArrowDown"] * 3, "ArrowLeft", "ArrowDown"]:
            page.keyboard.press(key)
        assert page.evaluate("headgate.state.pointed") == 3
        wait_until(page, "headgate.scatter.frame === null")
        tip, field = page.locator("#tip"), page.locator("#field").bounding_box()
        page.evaluate("headgate.scatter.zoom(30, [0, 0])")
        assert not tip.is_visible()  # its point is out of sight
        for _ in range(5):
            page.keyboard.press("ArrowDown")
            assert page.evaluate(inside)
            box = tip.bounding_box()
            assert box["x"] >= field["x"]
            assert box["x"] + box["width"] <= field["x"] + field["width"]


@slow
def test_a_finger_chooses_a_text_that_can_be_read_beside_it(path, documents, browser):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with open_page(browser, path.as_uri(), **phone) as page:
        text = find_lonely(page, range(N))
        page.evaluate("headgate.scatter.canvas.scrollIntoView()")
        (x, y), box = page.evaluate("text => headgate.scatter.find(text)", text), page.locator("#map").bounding_box()
        page.touchscreen.tap(box["x"] + x, box["y"] + y)
        wait_until(page, "headgate.state.text !== null")
        tip = page.locator("#tip")
        assert tip.is_visible()
        assert tip.locator(".text").text_content() == documents["text"][text]
        assert tip.bounding_box()["width"] > 150 or len(documents["text"][text]) < 20


@slow
def test_what_is_not_in_the_group_fades(path, documents, browser):
    """The alpha of the pixels in the middle of two points."""
    read = """(texts => {
        const { canvas } = headgate.scatter;
        const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const places = texts.map((text) => headgate.scatter.find(text).map(Math.round));
        return places.map(([x, y]) => data[4 * (y * width + x) + 3]);
    })"""
    with open_page(browser, path.as_uri(), viewport=WIDE) as page:
        page.locator("#legend button", has_text="fear").click()
        fear = documents["label"] == "fear"
        texts = [find_lonely(page, documents.index[chosen]) for chosen in (fear, ~fear)]
        bright, faded = page.evaluate(f"{read}({texts})")
        assert bright > 200
        assert 0 < faded < 100


@slow
def test_many_classes_have_the_same_marks_everywhere(tmp_path, browser):
    labels = [f"class {k}" for k in range(20)]
    documents = make_documents(200, labels)
    write_map(tmp_path / "x.html", documents, make_coordinates(documents), make_topics(documents), labels, [])
    read = "(rows => Array.from(document.querySelectorAll(rows), (row) => [row.querySelector('bdi').textContent,"
    read += " row.querySelector('path').getAttribute('fill'), row.querySelector('path').getAttribute('d')]))"
    with open_page(browser, (tmp_path / "x.html").as_uri(), viewport=WIDE) as page:
        legend = page.evaluate(f"{read}('#legend button')")
        assert len({(colour, shape) for _, colour, shape in legend}) == 20
        page.select_option("#colour", "hdbscan")
        page.locator("#legend button").last.click()  # noise: of many classes
        shares = page.evaluate(f"{read}('.shares .name')")
        assert len(shares) > 8
        assert all(row in legend for row in shares)
        bars = page.evaluate("Array.from(document.querySelectorAll('.bar'), (bar) => bar.style.background)")
        colours = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for _, colour, _ in shares]
        assert bars == [f"rgb{colour}" for colour in colours]


@slow
def test_the_picture_is_the_map_with_its_legend(path, tmp_path, browser):
    with open_page(browser, path.as_uri(), viewport=WIDE, color_scheme="dark") as page:
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "map.png")
        width, height = page.evaluate("[headgate.scatter.canvas.clientWidth, headgate.scatter.canvas.clientHeight]")
    picture = imread(tmp_path / "map.png")
    assert picture.shape[:2] == (2 * (height + 40), 2 * (width + 240))
    assert picture[0, 0, :3].tolist() == [1, 1, 1]  # light, whatever the page is
    blue = (
        np.abs(picture[..., :3] - np.array([0, 0x72, 0xB2]) / 255).max(axis=-1) < 0.12
    )  # points are a little transparent
    assert blue[:, : 2 * width].any()
    assert blue[:, 2 * width :].any()


@slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_has_no_complaint(path, browser, theme):
    with open_page(browser, path.as_uri(), color_scheme=theme, viewport=WIDE) as page:
        check_accessibility(page)
        page.select_option("#colour", "kmeans")
        page.focus("#map")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        check_accessibility(page)
        page.select_option("#colour", "length")
        check_accessibility(page)


@slow
def test_hostile_texts_are_shown_as_they_are(coordinates, tmp_path, browser):
    documents = make_documents(N)
    documents["text"] = HOSTILE
    documents["last_token"] = "\u202e</b>"
    topics = make_topics(documents).assign(word=HOSTILE)
    write_map(tmp_path / "x.html", documents, coordinates, topics, LABELS, [HOSTILE])
    with open_page(browser, (tmp_path / "x.html").as_uri(), viewport={"width": 390, "height": 800}) as page:
        page.select_option("#colour", "kmeans")
        page.focus("#map")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        whole = page.locator("#details .text bdi")
        assert whole.evaluate("node => node.textContent === headgate.data.texts[0]")
        assert page.locator("img, iframe, body script:not([type])").count() == 0
        assert not scrolls(page)[0]
        check_accessibility(page)


@slow
@pytest.mark.parametrize("n", [1, 2])
def test_one_text_is_a_map(n, tmp_path, browser):
    documents = make_documents(n)
    coordinates = make_coordinates(documents).assign(x=0.0, y=0.0)
    write_map(tmp_path / "x.html", documents, coordinates, make_topics(documents), LABELS, [])
    with open_page(browser, (tmp_path / "x.html").as_uri(), viewport=WIDE) as page:
        middle = page.evaluate("[headgate.scatter.canvas.clientWidth / 2, headgate.scatter.canvas.clientHeight / 2]")
        assert page.evaluate("headgate.scatter.find(0)") == pytest.approx(middle, abs=0.1)
        for kind in ("prediction", "right or wrong", "last token", "length", "kmeans", "hdbscan"):
            page.select_option("#colour", kind)
            assert page.locator("#legend > *").count() >= 1


@slow
def test_the_page_fits_a_screen_and_a_phone(path, browser):
    for width, height, across, down in ((1280, 800, False, False), (900, 800, False, False), (390, 800, False, True)):
        with open_page(browser, path.as_uri(), viewport={"width": width, "height": height}) as page:
            assert scrolls(page) == (across, down)
            page.locator("#legend button").first.click()
            assert not scrolls(page)[0]
            assert page.evaluate("headgate.scatter.canvas.width === headgate.scatter.canvas.clientWidth")
    for width, height in ((390, 844), (640, 400)):  # the map can be looked at while the layer is switched
        with open_page(browser, path.as_uri(), viewport={"width": width, "height": height}) as page:
            field, layer = page.locator("#field").bounding_box(), page.locator("#layer").bounding_box()
            assert 0 < layer["y"] + layer["height"] - field["y"] < height
    phone = {"viewport": {"width": 390, "height": 800}, "device_scale_factor": 3}
    with open_page(browser, path.as_uri(), **phone) as page:  # sharp
        assert page.evaluate("headgate.scatter.canvas.width === 3 * headgate.scatter.canvas.clientWidth")
