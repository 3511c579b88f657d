"""Pictures of explanations: legible, in two formats, and with the numbers of the tables."""

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from explained import BEST, LABELS, make_faithfulness, make_results, make_robustness, make_sanity, make_words
from matplotlib.image import imread

from experiments.explain import figures as drawn

NAMES = ("faithfulness", "sizes", "sanity", "words", "robustness")


@pytest.mark.slow
def test_every_table_is_drawn_twice_and_legibly(tmp_path, legible):
    drawn.draw(tmp_path, make_results(BEST), "run emotion-0, corpus emotion: 48 test texts")
    for name in NAMES:
        height, width = imread(tmp_path / f"{name}.png").shape[:2]
        assert 1000 < width < 1800
        assert height > 400
        assert ElementTree.parse(tmp_path / f"{name}.svg").getroot().tag.endswith("svg")
    assert set(legible) == {f"{name}.{end}" for name in NAMES for end in ("png", "svg")}


@pytest.mark.slow
def test_tables_without_rows_have_no_picture(tmp_path, legible):
    results = make_results({})
    results |= {name: results[name].iloc[:0] for name in ("sanity", "words", "robustness")}
    drawn.draw(tmp_path, results, "run")
    assert set(legible) == {f"{name}.{end}" for name in ("faithfulness", "sizes") for end in ("png", "svg")}


@pytest.mark.slow
def test_many_classes_of_long_names_and_deep_networks_stay_legible(tmp_path, legible):
    labels = [f"a class of a very long name, number {k}" for k in range(11)]
    words, robustness = (
        pd.concat([table[table["class"] == LABELS[0]].assign(**{"class": label}) for label in labels])
        for table in (make_words(), make_robustness())
    )
    words = words.assign(word=words["word"] + " $long_word" * 3)
    parts = ["head", *(f"block {layer}" for layer in reversed(range(24))), "embeddings"]
    sanity = make_sanity()
    row = sanity[(sanity["scheme"] == "cascading") & (sanity["part"] == "head")]
    sanity = pd.concat([row.assign(part=part, step=step) for step, part in enumerate(parts, start=1)])
    drawn.draw(tmp_path, make_results(BEST) | {"words": words, "robustness": robustness, "sanity": sanity}, "run")
    assert len(legible) == 2 * len(NAMES)


def test_a_method_stands_where_its_difference_is_and_is_hollow_where_it_judges_itself(tmp_path, legible):
    drawn.draw_faithfulness(make_faithfulness(BEST), tmp_path, "run")
    figure = legible["faithfulness.png"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    for axes, sign in zip(figure.axes, (1, -1), strict=True):
        marks = [mark for mark in axes.collections if len(mark.get_offsets()) == len(names)]
        for mark, removal in zip(marks, ("hide", "delete", "fill"), strict=True):
            x, y = np.asarray(mark.get_offsets()).T
            assert np.abs(y - np.arange(len(names))).max() < 0.4  # in its own row
            assert x[names.index("shapley")] == pytest.approx(sign * 4 * 0.75)
            assert x[names.index("search (bound)")] == pytest.approx(sign * 4)
            white = {name for name, fill in zip(names, mark.get_facecolors(), strict=True) if fill[:3].min() == 1}
            assert f"leave one out {removal}" in white
            assert ("shapley" in white) == (removal == "fill")
            assert "attention" not in white


@pytest.mark.slow
def test_few_texts_have_no_limits_and_are_drawn_all_the_same(tmp_path, legible):
    results = make_results(BEST)
    for name in ("faithfulness", "sanity", "words", "robustness"):
        results[name] = results[name].assign(ci_low=np.nan, ci_high=np.nan)
    results["sanity"] = results["sanity"].assign(random_low=np.nan, random_high=np.nan)
    results["words"] = results["words"].assign(bag_of_words=np.nan)
    drawn.draw(tmp_path, results, "run")
    assert len(legible) == 2 * len(NAMES)


def test_the_curve_of_accuracy_starts_at_the_whole_text(tmp_path, legible):
    drawn.draw_robustness(make_robustness(), tmp_path, "run")
    first = legible["robustness.png"].axes[0]
    assert first.get_title() == "all texts"
    curves = {line.get_label(): np.asarray(line.get_ydata(), float) for line in first.lines}
    np.testing.assert_allclose(curves["important words (hide)"], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    np.testing.assert_allclose(curves["random words (hide)"], [0.9, 0.89, 0.88, 0.87, 0.86, 0.85])
    np.testing.assert_allclose(curves["bag of words, without them"], [0.88, 0.85, 0.75, 0.65, 0.55, 0.45])
