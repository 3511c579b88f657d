"""Pictures of planted answers: legible, in two formats, and with the numbers of the tables."""

from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from prompted_tables import (
    LABELS,
    SHARES,
    make_all,
    make_answers,
    make_correlations,
    make_curve,
    make_effects,
    make_texts,
    tabulate,
)

from experiments.prompt import figures as drawn
from experiments.prompt.judge import judge
from experiments.prompt.tables import choose, tabulate_predictions
from lab import figures

TEXTS = make_texts()
TITLE = "gpt2-mini on emotion: 300 test texts"
NONE = pd.DataFrame()


@pytest.fixture
def unsaved(monkeypatch):
    """Pictures are not drawn, which takes seconds; returns the figures by the names of their files."""
    seen = {}
    monkeypatch.setattr(figures, "save", lambda figure, path: seen.setdefault(path.name, figure))
    return seen


def tables(answers):
    scores, targets = tabulate(answers, TEXTS), TEXTS["test"].targets
    references = {"majority": np.full(len(targets), 2), "bag_of_words": targets, "classifier": targets}
    chosen, _ = judge(answers, scores, references, targets, LABELS, SHARES)
    return LABELS, scores, chosen, tabulate_predictions(answers, choose(scores), TEXTS, LABELS, SHARES)


@pytest.mark.slow
def test_every_table_is_drawn_twice_and_legibly(tmp_path, legible):
    drawn.draw(tmp_path, TITLE, *tables(make_all(TEXTS, 2.0)), make_curve(), make_effects(), make_correlations())
    names = ("corrections", "shares", "confusion", "curve", "orders", "heads")
    assert set(legible) == {f"{name}.{end}" for name in names for end in ("png", "svg")}
    for name in names:
        height, width = imread(tmp_path / f"{name}.png").shape[:2]
        assert 1000 < width < 2100
        assert height > 400
        assert ElementTree.parse(tmp_path / f"{name}.svg").getroot().tag.endswith("svg")


def test_what_was_not_asked_has_no_picture(tmp_path, legible):
    drawn.draw(tmp_path, TITLE, *tables(make_answers(TEXTS, 2.0)), NONE, NONE, NONE)
    assert set(legible) == {
        f"{name}.{end}" for name in ("corrections", "shares", "confusion") for end in ("png", "svg")
    }


@pytest.mark.slow
def test_large_networks_and_many_classes_stay_legible(tmp_path, legible):
    labels = [f"a class of a long name {k}" for k in range(9)]
    effects = pd.concat(
        [make_effects(24, 16, k).assign(**{"class": label}) for k, label in enumerate(labels)]
    ).drop_duplicates(["correction", "layer", "head", "class"])
    correlations = pd.concat([make_correlations().assign(**{"class": label}) for label in ("all", *labels)])
    drawn.draw_heads(effects, correlations.drop_duplicates(["correction", "class"]), tmp_path, TITLE)
    answered = pd.DataFrame({"split": "test", "label": labels, "predicted": labels, "direct": labels[:1] * 9})
    drawn.draw_confusion(answered, labels, tmp_path, TITLE)
    assert set(legible) == {f"{name}.{end}" for name in ("heads", "confusion") for end in ("png", "svg")}


def test_dots_bars_and_cells_are_those_of_the_tables(tmp_path, unsaved):
    answers = make_all(TEXTS, 2.0)
    labels, scores, chosen, predictions = tables(answers)
    test = scores[scores["split"] == "test"]
    drawn.draw_corrections(test, chosen, NONE, tmp_path, TITLE)
    zero = unsaved["corrections.svg"].axes[0]
    dots = next(line for line in zero.lines if line.get_label() == "one prompt")
    single = test[(test["shots"] == 0) & (test["template"] != "all") & (test["prior"] == "uniform")]
    assert sorted(dots.get_xdata()) == sorted(single["macro_f1"])
    lines = {line.get_label(): line.get_xdata()[0] for line in zero.lines if len(line.get_xdata()) == 2}
    assert lines["fine-tuned run"] == 1
    drawn.draw_shares(test, chosen, predictions, labels, tmp_path, TITLE)
    widths = [[bar.get_width() for bar in bars] for bars in unsaved["shares.svg"].axes[0].containers]
    np.testing.assert_allclose(np.sum(widths, axis=0), 1)
    assert [row[0] for row in widths] == pytest.approx([(TEXTS["test"].targets == k).mean() for k in range(3)])
    drawn.draw_confusion(predictions, labels, tmp_path, TITLE)
    direct, corrected = (axes.images[0].get_array() for axes in unsaved["confusion.svg"].axes[:2])
    rows = predictions[(predictions["split"] == "test") & (predictions["label"] == "fear")]
    assert direct[1, 2] == pytest.approx((rows["direct"] == "joy").mean())
    assert corrected[1, 1] == pytest.approx((rows["predicted"] == "fear").mean())


def test_orders_are_sorted_and_the_curve_is_the_mean(tmp_path, unsaved):
    _, scores, chosen, _ = tables(make_all(TEXTS, 2.0))
    test = scores[scores["split"] == "test"]
    drawn.draw_orders(test, LABELS, tmp_path, TITLE)
    direct = np.concatenate([dots.get_offsets() for dots in unsaved["orders.svg"].axes[0].collections[1:]])
    direct = direct[direct[:, 0].argsort()]
    assert len(direct) == 6
    assert (np.diff(direct[:, 1]) >= 0).all()
    drawn.draw_curve(test, chosen, make_curve(), tmp_path, TITLE)
    lines = {line.get_label(): line for line in unsaved["curve.svg"].axes[0].lines}
    assert lines["probe of the frozen network"].get_ydata() == pytest.approx([0.34, 0.44, 0.54, 0.77])
    batch = test[(test["correction"] == "batch") & (test["prior"] == "uniform") & (test["template"] == "feeling")]
    means = [batch[(batch["shots"] == 0)]["macro_f1"].mean()]
    means += [
        batch[(batch["shots"] == k) & batch["draw"].str.isdigit() & (batch["order"] == "0")]["macro_f1"].mean()
        for k in (1, 4)
    ]
    assert lines["prompt, batch correction"].get_ydata() == pytest.approx(means)
    assert lines["prompt, batch correction"].get_xdata().tolist() == [drawn.NO_SHOTS, 1, 4]


def test_heads_are_where_their_layer_and_number_say(tmp_path, unsaved):
    effects, correlations = make_effects(2, 4), make_correlations()
    drawn.draw_heads(effects, correlations, tmp_path, TITLE)
    axes = unsaved["heads.svg"].axes
    assert axes[1].get_title() == "anger\nrank corr. 0.61"

    def find(correction, label):
        return effects[(effects["correction"] == correction) & (effects["class"] == label)].set_index(["layer", "head"])

    assert axes[1].images[0].get_array()[1, 3] == find("batch", "anger")["effect"][1, 3]
    assert axes[5].images[0].get_array()[1, 3] == find("classifier", "anger")["effect"][1, 3]
    mean = np.mean([abs(find("batch", label)["effect"][0, 2]) for label in LABELS])
    assert axes[0].images[0].get_array()[0, 2] == pytest.approx(mean)
