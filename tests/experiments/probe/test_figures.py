from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from pictures_on_disk import assert_whole
from scipy.special import softmax

from experiments.probe import figures
from lab.figures import COLOURS

TITLE = "one run on a corpus, 100 test texts"
READINGS = {"emotion": ("last", "mean"), "part of speech": ("word",), "negated": ("word",)}
WORDS = {"emotion": "bag of words", "part of speech": "word type", "negated": "word type"}
MAJORITIES = {"emotion": 0.3, "part of speech": 0.25, "negated": 0.9}


def probe_table(layers, heads, seed=0):
    """Random weights, of emotion and part of speech, come first and do better than any trained network."""
    rng = np.random.default_rng(seed)
    places = [
        *(("resid", layer, None) for layer in range(layers + 1)),
        *(("head", layer, head) for layer, head in product(range(layers), range(heads))),
        *(("mlp", layer, None) for layer in range(layers)),
    ]
    rows = [
        (name, network, reading, *place, MAJORITIES[name] + rng.uniform(0, 0.1) + 0.1 * (network == "random"))
        for network, name in product(("random", "trained"), READINGS)
        for reading, place in product(READINGS[name], places)
        if network == "trained" or name != "negated"
    ]
    table = pd.DataFrame(rows, columns=["property", "network", "reading", "kind", "layer", "head", "accuracy"])
    table = table.astype({"layer": "Int64", "head": "Int64"})
    return table.assign(ci_low=table["accuracy"] - 0.02, ci_high=table["accuracy"] + 0.03)


def baseline_table():
    rows = [(name, "most frequent class", value) for name, value in MAJORITIES.items()]
    rows += [(name, baseline, MAJORITIES[name] + 0.05) for name, baseline in WORDS.items()]
    return pd.DataFrame(rows, columns=["property", "baseline", "accuracy"])


def profile_table(numbers=(1, 2, 4, 8), slope=0.01):
    rows = [
        (name, reading, n, MAJORITIES[name] + slope * np.log2(n) + 0.005 * (reading == "mean"))
        for name in READINGS
        for reading, n in product(READINGS[name], numbers)
    ]
    table = pd.DataFrame(rows, columns=["property", "reading", "n_heads", "accuracy"])
    return table.assign(ci_low=table["accuracy"] - 0.02, ci_high=table["accuracy"] + 0.03)


def lens_table(layers, labels, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        (label, layer, accuracy, accuracy - 0.05, min(accuracy + 0.05, 1), decided)
        for label in ("all", *labels)
        for layer, accuracy, decided in zip(
            range(layers + 1),
            np.sort(rng.uniform(0.1, 0.95, layers + 1)),
            [*np.sort(rng.uniform(0, 1, layers)), 1],
            strict=True,
        )
    ]
    return pd.DataFrame(rows, columns=["class", "layer", "accuracy", "ci_low", "ci_high", "decided"])


def contribution_table(layers, heads, labels, seed=0):
    rng = np.random.default_rng(seed)
    parts = [
        ("embedding", None, None),
        *(("head", layer, head) for layer, head in product(range(layers), range(heads))),
        *((kind, layer, None) for kind, layer in product(("attention bias", "mlp"), range(layers))),
        ("final bias", None, None),
    ]
    classes = ("all", *labels)
    rows = [(*part, label, logit, rng.normal()) for part in parts for label, logit in product(classes, labels)]
    table = pd.DataFrame(rows, columns=["kind", "layer", "head", "class", "logit", "mean"])
    return table.astype({"layer": "Int64", "head": "Int64"})


def text_lens(layers, tokens, labels, seed=0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(tokens, layers + 1, len(labels))).cumsum(1).astype(np.float32)
    return [f" word{t}" for t in range(tokens)], labels[0], logits


def draw_all(folder, layers, heads, labels, seed=0):
    probes, baselines = probe_table(layers, heads, seed), baseline_table()
    figures.draw_layers(probes, baselines, folder / "layers.png", TITLE)
    figures.draw_heads(probes, baselines, folder / "heads.png", TITLE)
    figures.draw_profiles(profile_table(slope=0.01 + 0.01 * seed), baselines, folder / "profiles.png", TITLE)
    figures.draw_lens(lens_table(layers, labels, seed), folder / "lens.png", TITLE)
    contributions = contribution_table(layers, heads, labels, seed)
    figures.draw_contributions(contributions, labels, folder / "contributions.png", TITLE)
    chosen = [text_lens(layers, tokens, labels, seed + tokens) for tokens in (5, 11, 3)]
    chosen[0][0][0] = "\N{FACE WITH TEARS OF JOY}"  # which no font here has
    figures.draw_texts(chosen, labels, folder / "texts.png", TITLE)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_whole_pictures_and_no_state(tmp_path):
    labels = ["embarrassment and shame", "50 $ and 60 $ | 70 $"]
    assert_whole(lambda folder, seed: draw_all(folder, 3, 5, labels, seed), tmp_path)
    names = sorted(path.stem for path in (tmp_path / "first").iterdir())
    assert names == ["contributions", "heads", "layers", "lens", "profiles", "texts"]


def panels(figure):
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def said(figure):
    """The title of a whole picture, on one line."""
    return " ".join(figure.get_suptitle().split())


def lines(axes):
    return {line.get_label().replace("\n", " "): line for line in axes.get_lines()}


def test_layers_have_a_curve_for_each_network_and_reading_and_a_line_for_each_baseline(tmp_path, saved):
    probes = probe_table(4, 3)
    figures.draw_layers(probes.sample(frac=1, random_state=0), baseline_table(), tmp_path / "x.png", TITLE)
    drawn = {axes.get_title(): axes for axes in saved[0].axes}
    assert set(drawn) == set(READINGS)
    last, mean = "last token of the text or word", "mean over the tokens of the text"
    with_random = {last, f"random weights, {last}"}
    for name, curves in (
        ("emotion", {*with_random, mean, f"random weights, {mean}"}),
        ("part of speech", with_random),
        ("negated", {last}),
    ):
        drawn_lines = lines(drawn[name])
        assert set(drawn_lines) == {*curves, "most frequent class", WORDS[name]}
        assert set(drawn_lines["most frequent class"].get_ydata()) == {MAJORITIES[name]}
        assert drawn[name].get_xlabel() == "layer"
        assert len(drawn[name].collections) == len(curves)
    stream = probes[(probes["kind"] == "resid") & (probes["network"] == "trained") & (probes["property"] == "emotion")]
    rows = stream[stream["reading"] == "mean"]
    curve = lines(drawn["emotion"])[mean]
    np.testing.assert_array_equal(curve.get_xdata(), range(5))
    np.testing.assert_array_equal(curve.get_ydata(), rows["accuracy"])
    assert (curve.get_linestyle(), lines(drawn["emotion"])[last].get_linestyle()) == ("--", "-")
    bands = [band.get_paths()[0].vertices[:, 1] for band in drawn["emotion"].collections]
    expected = rows["ci_low"].min(), rows["ci_high"].max()
    assert any((band.min(), band.max()) == pytest.approx(expected) for band in bands)
    shown = [text.get_text().replace("\n", " ") for text in saved[0].legends[0].get_texts()]
    assert sorted(shown) == sorted(
        [*with_random, mean, f"random weights, {mean}", "most frequent class", "word type", "bag of words"]
    )


def test_profiles_go_by_number_of_heads(tmp_path, saved):
    figures.draw_profiles(profile_table().sample(frac=1, random_state=0), baseline_table(), tmp_path / "x.png", TITLE)
    axes = {axes.get_title(): axes for axes in saved[0].axes}["emotion"]
    curve = lines(axes)["mean over the tokens of the text"]
    np.testing.assert_array_equal(curve.get_xdata(), [1, 2, 4, 8])
    np.testing.assert_allclose(curve.get_ydata(), [0.305, 0.315, 0.325, 0.335])
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "heads")
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "4", "8"]
    assert set(lines(axes)["bag of words"].get_ydata()) == {0.35}


@pytest.mark.parametrize(("layers", "heads"), [(2, 3), (12, 12), (24, 16)])
def test_heads_show_what_is_above_the_most_frequent_class_at_the_last_token(tmp_path, saved, layers, heads):
    probes = probe_table(layers, heads)
    figures.draw_heads(probes.sample(frac=1, random_state=1), baseline_table(), tmp_path / "x.png", TITLE)
    maps = {axes.get_title().split("\n")[0]: axes for axes in panels(saved[0])}
    assert set(maps) == set(READINGS)
    low, high = maps["negated"].images[0].get_clim()
    assert maps["negated"].get_title() == f"negated\n0.90 (white) to {0.9 + high:.2f}"
    limits = set()
    for name, axes in maps.items():
        rows = probes[(probes["kind"] == "head") & (probes["network"] == "trained") & (probes["property"] == name)]
        rows = rows[rows["reading"] != "mean"]
        expected = rows["accuracy"].to_numpy().reshape(layers, heads) - MAJORITIES[name]
        np.testing.assert_allclose(axes.images[0].get_array(), expected, atol=1e-12)
        low, high = axes.images[0].get_clim()
        assert low == 0
        limits.add(high)
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("head", "layer")
        assert len(axes.texts) == (layers * heads if heads < 8 else 0)
    assert len(limits) == 3


def test_a_property_that_no_head_reads_stays_white(tmp_path, saved):
    probes = probe_table(2, 3)
    probes.loc[probes["property"] == "negated", "accuracy"] = 0.6
    figures.draw_heads(probes, baseline_table(), tmp_path / "x.png", TITLE)
    axes = {axes.get_title().split("\n")[0]: axes for axes in panels(saved[0])}["negated"]
    assert axes.images[0].get_clim() == (0, 1)
    assert {text.get_text() for text in axes.texts} == {"-0.30"}


@pytest.mark.parametrize("k", [2, 28])
def test_the_lens_has_a_panel_for_all_texts_and_for_each_class(tmp_path, saved, k):
    labels = [f"class {i}" for i in range(k)]
    table = lens_table(4, labels)
    figures.draw_lens(table, tmp_path / "x.png", TITLE)
    assert [axes.get_title() for axes in saved[0].axes] == ["all texts", *labels]
    for axes, label in zip(saved[0].axes, ["all", *labels], strict=True):
        rows = table[table["class"] == label]
        drawn = lines(axes)
        np.testing.assert_array_equal(drawn["right class"].get_ydata(), rows["accuracy"])
        np.testing.assert_array_equal(drawn["decided: stays so up to the end"].get_ydata(), rows["decided"])
        assert axes.get_ylim() == (0, 1.02)


def test_contributions_stand_beside_those_of_the_mlps(tmp_path, saved):
    table = contribution_table(2, 3, ["no", "yes", "well"])
    table = table[table["class"] != "well"]  # no test text of it
    figures.draw_contributions(table.sample(frac=1, random_state=0), ["no", "yes", "well"], tmp_path / "x.png", TITLE)
    mean, no, yes = panels(saved[0])
    assert [axes.get_title() for axes in (mean, no, yes)] == ["mean over the classes", "no", "yes"]

    def expected(label, kind, layer, head):
        rows = table[(table["class"] == label) & (table["kind"] == kind) & (table["layer"] == layer)]
        added = (rows if head is None else rows[rows["head"] == head]).set_index("logit")["mean"]
        return added[label] - added.drop(label).mean()

    places = [("mlp", None), ("head", 0), ("head", 1), ("head", 2)]
    values = {
        label: np.array([[expected(label, kind, layer, head) for kind, head in places] for layer in range(2)])
        for label in ("no", "yes")
    }
    np.testing.assert_allclose(no.images[0].get_array(), values["no"])
    np.testing.assert_allclose(yes.images[0].get_array(), values["yes"])
    np.testing.assert_allclose(mean.images[0].get_array(), (values["no"] + values["yes"]) / 2)
    assert [label.get_text() for label in no.get_xticklabels()] == ["MLP", "0", "1", "2"]
    low, high = no.images[0].get_clim()
    assert low == -high
    assert yes.images[0].get_clim() == (low, high) != mean.images[0].get_clim()


def test_a_text_names_the_likeliest_class_in_its_colour(tmp_path, saved):
    labels = ["embarrassment\nand shame", "yes", "no"]
    pieces, label, logits = [" one", "\n"], "yes", np.zeros((2, 3, 3), np.float32)
    logits[0, 0, 1] = 9
    logits[0, 2, 2] = 0.5
    figures.draw_texts([(pieces, label, logits)], labels, tmp_path / "x.png", TITLE)
    axes = saved[0].axes[0]
    assert axes.get_title() == "a text of yes"
    assert "of each class at most one short text, classified right" in said(saved[0])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["·one", "\\n"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "2"]
    assert [text.get_text() for text in axes.texts[:3]] == ["yes", "embarrassm…", "no"]
    cells = np.asarray(axes.images[0].get_array())
    for column, k in ((0, 1), (1, 0), (2, 2)):
        strength = softmax(logits[0, column])[k]
        colour = np.array(to_rgb(COLOURS[k]))
        np.testing.assert_allclose(cells[0, column], strength * colour + (1 - strength), atol=1e-6)


@pytest.mark.parametrize(("layers", "shown"), [(1, [0, 1]), (12, list(range(13))), (48, list(range(0, 49, 4)))])
def test_of_many_layers_and_tokens_some_are_shown_and_always_the_last(tmp_path, saved, layers, shown):
    pieces, label, logits = text_lens(layers, 43, ["no", "yes"])
    figures.draw_texts([(pieces, label, logits)] * 3, ["no", "yes"], tmp_path / "x.png", TITLE)
    assert len(saved[0].axes) == 3
    axes = saved[0].axes[2]
    assert [int(text.get_text()) for text in axes.get_xticklabels()] == shown
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"·word{t}" for t in range(3, 43)]
    assert "its last 40 of 43 tokens" in axes.get_title().replace("\n", " ")
    names = [text.get_text() for text in axes.texts]
    expected = np.array(["no", "yes"])[logits[3:, shown].argmax(-1)].ravel()
    assert names == list(expected)
