import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from experiments.paper import figures

SCORES = pd.DataFrame(
    [
        ("one", "tuned", "seed 0", 0.9, 0.88, 0.92, False),
        ("one", "tuned", "seed 1", 0.91, 0.89, 0.93, False),
        ("one", "published", "theirs", 0.927, np.nan, np.nan, True),
        ("two", "frozen", "seed 0", 0.7, 0.6, 0.8, False),
        ("two", "published", "a range", np.nan, 0.84, 0.86, True),
    ],
    columns=["panel", "kind", "name", "value", "low", "high", "reference"],
)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("panels", [["one", "two"], ["two"]])
def test_a_forest_has_a_panel_for_each_corpus(tmp_path, panels):
    figures.draw_forest(SCORES[SCORES["panel"].isin(panels)], tmp_path / "x.png", "accuracy")
    height, width, _ = imread(tmp_path / "x.png").shape
    assert width == 1500
    assert (height > 450) == (len(panels) == 2)


def test_a_forest_shows_each_score_in_its_row_and_references_across(tmp_path, saved):
    figures.draw_forest(SCORES, tmp_path / "x.png", "accuracy")
    one, two = saved[0].axes
    assert [one.get_title(), two.get_title(), two.get_xlabel()] == ["one", "two", "accuracy"]
    assert [label.get_text() for label in one.get_yticklabels()] == ["seed 0", "seed 1", "theirs"]
    assert one.yaxis_inverted()
    numbers = [text.get_text() for text in one.texts]
    assert numbers == ["0.900 [0.880, 0.920]", "0.910 [0.890, 0.930]", "0.927"]
    assert [text.get_text() for text in two.texts] == ["0.700 [0.600, 0.800]", "0.84 to 0.86"]
    drawn = [(tuple(line.get_xdata()), tuple(line.get_ydata())) for line in one.get_lines()]
    assert ((0.89, 0.93), (1, 1)) in drawn
    assert ((0.91,), (1,)) in drawn
    assert ((0.927, 0.927), (0, 1)) in drawn  # across the panel, in shares of its height
    assert len(drawn) == 6
    assert [band.get_xy()[0] for band in two.patches] == [pytest.approx(0.84)]
    colours = {text: {line.get_color() for line in axes.get_lines()} for text, axes in (("one", one), ("two", two))}
    assert len(colours["one"]) == len(colours["two"]) == 2
    assert len(colours["one"] & colours["two"]) == 1  # published is one kind in both


@pytest.mark.filterwarnings("error")
def test_a_forest_of_many_kinds_and_long_names_leaves_room_for_its_scores(tmp_path, saved):
    """As of four models with two starts each."""
    names = [f"{'a-long-model-name' * 4}-{i}, all weights tuned, from random weights, seed 0" for i in range(9)]
    rows = [("one", name, name, 0.9, 0.88, 0.92, False) for name in names]
    figures.draw_forest(pd.DataFrame(rows, columns=SCORES.columns), tmp_path / "x.png", "accuracy")
    [axes] = saved[0].axes
    assert axes.get_position().width * saved[0].get_figwidth() > 2  # inches
