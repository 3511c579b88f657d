import numpy as np
import pytest

from experiments.rate.answers import read_raters, read_session
from experiments.rate.figures import draw_agreement
from experiments.rate.simulate import simulate_raters
from experiments.rate.tables import tabulate_agreement


def test_each_panel_shows_its_rows_of_the_table(tmp_path, items, saved):
    simulate_raters(tmp_path, items, 3, 0.8)
    table = tabulate_agreement([read_session(tmp_path / f"{name}.jsonl") for name in read_raters(tmp_path)])
    draw_agreement(table, tmp_path, "a run")
    assert {path.name for path in tmp_path.glob("agreement.*")} == {"agreement.png", "agreement.svg"}
    accuracy, choices, marks = saved[0].axes
    for axes, measure in ((accuracy, "accuracy"), (choices, "preferred"), (marks, "token_f1")):
        rows = table[(table["measure"] == measure) & (table["method"] != "random")]
        rows = rows[rows["class"] == "all"] if measure == "token_f1" else rows
        drawn = np.concatenate([points.get_offsets()[:, 0] for points in axes.collections[::2]])
        assert sorted(drawn) == pytest.approx(sorted(rows["value"]))
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["all texts", "joy", "nan", "1"]
    random = table[(table["measure"] == "token_f1") & (table["method"] == "random") & (table["class"] == "all")]
    assert marks.lines[0].get_xdata()[0] == pytest.approx(random["value"].item())


def test_a_table_without_choices_and_marks_is_drawn(tmp_path, items, saved):
    simulate_raters(tmp_path, items, 1, 0.8)
    table = tabulate_agreement([read_session(tmp_path / "sim-1.jsonl")])
    draw_agreement(table[table["task"] == "before"], tmp_path, "a run")
    assert len(saved[0].axes) == 3
