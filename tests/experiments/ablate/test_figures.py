from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from pictures_on_disk import assert_whole

from experiments.ablate import figures
from lab.figures import GREY

UNITS = ["kind", "layer", "head", "region"]
LAYER_KINDS = ("heads", "mlp", "layer")
TITLE = "one run on a corpus, 100 test texts"
REGIONS = ["self", "all but self"]
WORDS = ["sentiment", "feel"]


def units(layers, heads):
    rows = [("head", layer, head, "") for layer, head in product(range(layers), range(heads))]
    rows += [(kind, layer, None, "") for kind, layer in product(LAYER_KINDS, range(layers))]
    rows += [(*key, None, region) for key in product(("mask", "cut"), (None, *range(layers))) for region in REGIONS]
    rows += [("mask", layer, None, "last query") for layer in (None, *range(layers))]
    rows += [("words", None, None, region) for name in WORDS for region in (name, f"random, as many as {name}")]
    return pd.DataFrame(rows, columns=UNITS).astype({"layer": "Int64", "head": "Int64"})


def tables(layers, heads, labels, seed=0):
    """Effects and significance; what belongs to val or to the other fill is far too large, and must not be seen."""
    rng = np.random.default_rng(seed)
    measured = [("all", "log_prob"), ("all", "accuracy"), *product(labels, ("specific_margin", "recall"))]
    effects = []
    for (label, metric), split, fill in product(measured, ("val", "test"), ("zero", "mean")):
        rows = units(layers, heads)
        if fill == "mean":
            rows = rows[~rows["kind"].isin(["mask", "cut", "words"])]
        effect = rng.uniform(-1, 1, len(rows)) + 50 * (split == "val" or fill == "mean")
        ends = {"ci_low": effect - 0.1, "ci_high": effect + 0.1}
        effects.append(rows.assign(fill=fill, split=split, metric=metric, effect=effect, **ends, **{"class": label}))
    effects = pd.concat(effects, ignore_index=True)
    significance = effects[(effects["split"] == "test") & (effects["metric"] == "specific_margin")]
    p = np.where(significance["fill"] == "mean", 0, rng.choice([0.01, 0.049, 0.05, 0.5], len(significance)))
    return effects, significance[[*UNITS, "fill", "class"]].assign(p_holm=p)


def curve_table(labels, heads=10):
    orders = ["measured", "gradient", *(f"random {i}" for i in range(3))]
    metrics = [("all", "accuracy"), ("all", "log_prob"), *((label, "recall") for label in labels)]
    return pd.DataFrame(
        [
            (order, closed, label, metric, 0.9 - 0.05 * i - 0.02 * closed)
            for (i, order), closed, (label, metric) in product(enumerate(orders), range(0, heads + 1, 2), metrics)
        ],
        columns=["order", "closed", "class", "metric", "value"],
    )


def interaction_table(labels, names=("0.3", "1.2", "1.10")):
    rows = [
        (first, second, fill, label, (1 if fill == "zero" else 50) * (i + 1) * (-1) ** k / 10)
        for (i, (first, second)), (k, label), fill in product(
            enumerate(combinations(names, 2)), enumerate(labels), ("zero", "mean")
        )
    ]
    return pd.DataFrame(rows, columns=["first", "second", "fill", "class", "interaction"])


def draw_all(folder, seed):
    labels = ["embarrassment and shame", "50 $ and 60 $ | 70 $"]
    effects, significance = tables(3, 5, labels, seed)
    figures.draw_heads(effects, significance, "zero", folder / "heads.png", TITLE)
    figures.draw_layers(effects, significance, "zero", folder / "layers.png", TITLE)
    figures.draw_regions(effects, folder / "regions.png", TITLE)
    figures.draw_words(effects, folder / "words.png", TITLE)
    figures.draw_curves(curve_table(labels, heads=10 + 2 * seed), "zero", 0.3, folder / "curves.png", TITLE)
    names = (("0.3", "1.2", "1.10"), ("0.3", "1.2", "2.4"))[seed]
    figures.draw_interactions(interaction_table(labels, names), "zero", folder / "interactions.png", TITLE)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_whole_pictures_and_no_state(tmp_path):
    assert_whole(draw_all, tmp_path)
    names = sorted(path.stem for path in (tmp_path / "first").iterdir())
    assert names == ["curves", "heads", "interactions", "layers", "regions", "words"]


def scales(figure):
    return [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]


def panels(figure):
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def dots(axes):
    return [tuple(map(round, at)) for marks in axes.collections for at in marks.get_offsets()]


@pytest.mark.parametrize(
    ("layers", "heads", "k"), [(2, 3, 2), (3, 5, 2), (6, 8, 6), (12, 12, 6), (24, 16, 8), (1, 2, 28)]
)
def test_heads_stand_by_layer_and_head_for_all_texts_and_for_each_class_with_dots_where_it_survives(
    tmp_path, saved, layers, heads, k
):
    labels = [f"class {i}" for i in range(k)]
    effects, significance = tables(layers, heads, labels)
    shuffled = effects.sample(frac=1, random_state=1).sort_values("class", kind="stable")
    figures.draw_heads(shuffled, significance.sample(frac=1, random_state=1), "zero", tmp_path / "x.png", TITLE)
    [figure], maps = saved, panels(saved[0])
    assert [axes.get_title() for axes in maps] == ["all texts", *sorted(labels)]
    measured = effects[(effects["kind"] == "head") & (effects["fill"] == "zero") & (effects["split"] == "test")]
    tested = significance[(significance["kind"] == "head") & (significance["fill"] == "zero")]
    survive = tested[tested["p_holm"] < 0.05]
    assert f"{len(survive):,} of {len(tested):,}" in figure.get_supxlabel().replace("\n", " ")
    limits = []
    for axes, label in zip(maps, ["all", *sorted(labels)], strict=True):
        metric = "log_prob" if label == "all" else "specific_margin"
        rows = measured[(measured["class"] == label) & (measured["metric"] == metric)]
        expected = rows.sort_values(["layer", "head"])["effect"].to_numpy().reshape(layers, heads)
        np.testing.assert_array_equal(axes.images[0].get_array(), expected)
        numbers = [f"{value:z.2f}" for value in expected.ravel()] if heads <= 8 else []
        assert [text.get_text() for text in axes.texts] == numbers
        low, high = axes.images[0].get_clim()
        assert low == -high  # 0 is in the middle
        limits.append(high)
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("head", "layer")
        p = survive[survive["class"] == label]
        assert sorted(dots(axes)) == sorted(zip(p["head"], p["layer"], strict=True))
    assert len(scales(figure)) == len(set(limits)) == 2
    assert len(set(limits[1:])) == 1
    title = figure.get_suptitle()
    assert TITLE in title
    assert "fill: zero" in title


def test_a_class_without_texts_is_grey_and_unmarked(tmp_path, saved):
    effects, significance = tables(2, 3, ["no", "yes"])
    effects.loc[(effects["class"] == "yes") & (effects["metric"] == "specific_margin"), "effect"] = np.nan
    significance.loc[significance["class"] == "yes", "p_holm"] = np.nan
    figures.draw_heads(effects, significance, "zero", tmp_path / "x.png", TITLE)
    figures.draw_layers(effects, significance, "zero", tmp_path / "x.png", TITLE)
    empty = panels(saved[0])[2]
    assert empty.images[0].get_array().mask.all()
    assert dots(empty) == []
    assert {text.get_text() for text in empty.texts} == {""}


def test_one_head_does_not_turn_all_others_white(tmp_path, saved):
    effects, significance = tables(12, 12, ["no", "yes"])
    margins = (effects["kind"] == "head") & (effects["metric"] == "specific_margin") & (effects["split"] == "test")
    margins &= effects["fill"] == "zero"
    figures.draw_heads(effects, significance, "zero", tmp_path / "x.png", TITLE)
    effects.loc[effects.index[margins][0], "effect"] = 80
    figures.draw_heads(effects, significance, "zero", tmp_path / "x.png", TITLE)
    effects.loc[margins, "effect"] = 0
    figures.draw_heads(effects, significance, "zero", tmp_path / "x.png", TITLE)
    plain, outlier, nothing = (panels(figure)[1].images[0].get_clim()[1] for figure in saved)
    assert 0.9 < plain <= outlier < 1
    assert nothing == 1
    assert [scales(figure)[1].images == [] for figure in saved]
    assert [figure.axes[-1]._colorbar.extend for figure in saved] == ["both", "both", "neither"]


def test_layers_have_a_line_for_each_part_and_dots_where_it_survives(tmp_path, saved):
    labels = ["no", "yes", "well"]
    effects, significance = tables(4, 2, labels)
    figures.draw_layers(effects, significance, "zero", tmp_path / "x.png", TITLE)
    overall, *by_class = saved[0].axes
    assert [axes.get_title() for axes in saved[0].axes] == ["all texts", *labels]
    tested = significance[significance["kind"].isin(LAYER_KINDS) & (significance["fill"] == "zero")]
    for axes, label in zip(saved[0].axes, ["all", *labels], strict=True):
        lines = [line for line in axes.get_lines() if line.get_marker() == "None" and len(line.get_xdata()) == 4]
        assert [line.get_label() for line in lines] == ["all heads", "MLP", "heads and MLP"]
        marks = [line for line in axes.get_lines() if line.get_marker() == "o"]
        marked = {(kind, x) for kind, line in zip(LAYER_KINDS, marks, strict=True) for x in line.get_xdata()}
        survivors = tested[(tested["class"] == label) & (tested["p_holm"] < 0.05)]
        assert marked == set(zip(survivors["kind"], survivors["layer"], strict=True))
    rows = effects[(effects["kind"] == "mlp") & (effects["class"] == "no") & (effects["metric"] == "specific_margin")]
    rows = rows[(rows["split"] == "test") & (rows["fill"] == "zero")].sort_values("layer")
    np.testing.assert_array_equal(by_class[0].get_lines()[2].get_ydata(), rows["effect"])
    assert len({axes.get_ylim() for axes in by_class}) == 1
    assert overall.get_ylim() != by_class[0].get_ylim()


def test_regions_stand_by_layer_after_all_layers_at_once(tmp_path, saved):
    effects, _ = tables(3, 2, ["no", "yes"])
    figures.draw_regions(effects, tmp_path / "x.png", TITLE)
    masked, cut = panels(saved[0])
    assert (masked.get_title(), cut.get_title()) == ("masked, the rest of the row rescaled", "cut, the rest as it was")
    assert [label.get_text() for label in masked.get_yticklabels()] == ["self", "all but self", "last query"]
    assert [label.get_text() for label in masked.get_xticklabels()] == ["all", "0", "1", "2"]
    rows = effects[(effects["kind"] == "mask") & (effects["region"] == "all but self") & (effects["split"] == "test")]
    rows = rows[rows["metric"] == "log_prob"].sort_values("layer", na_position="first")
    np.testing.assert_array_equal(masked.images[0].get_array()[1], rows["effect"])
    np.testing.assert_array_equal(cut.images[0].get_array().mask, [[False] * 4, [False] * 4, [True] * 4])
    assert masked.images[0].get_clim() == cut.images[0].get_clim()
    assert sum(masked.images[0].get_clim()) == 0


def test_words_stand_beside_as_many_random_tokens(tmp_path, saved):
    effects, _ = tables(1, 2, ["no", "yes"])
    figures.draw_words(effects, tmp_path / "x.png", TITLE)
    assert [label.get_text() for label in saved[0].axes[0].get_yticklabels()] == WORDS
    for axes, metric in zip(saved[0].axes, ("log_prob", "accuracy"), strict=True):
        effect = effects[(effects["kind"] == "words") & (effects["metric"] == metric) & (effects["split"] == "test")]
        effect = effect.set_index("region")
        words, random = (line for line in axes.get_lines() if line.get_marker() == "o")
        np.testing.assert_array_equal(words.get_xdata(), effect.loc[WORDS, "effect"])
        np.testing.assert_array_equal(
            random.get_xdata(), effect.loc[[f"random, as many as {name}" for name in WORDS], "effect"]
        )
        assert (words.get_label(), random.get_label()) == ("words of the class", "as many random tokens")
        assert random.get_color() == GREY != words.get_color()
        ends = [segment[:, 0] for segment in axes.collections[0].get_segments()]
        np.testing.assert_array_equal(ends, effect.loc[WORDS, ["ci_low", "ci_high"]])


def test_curves_show_each_order_and_the_range_of_the_random_ones(tmp_path, saved):
    figures.draw_curves(curve_table(["no", "yes", "well"]), "mean", 0.3, tmp_path / "x.png", TITLE)
    accuracy, *recalls = saved[0].axes
    assert [axes.get_title() for axes in recalls] == ["no", "yes", "well"]
    lines = {line.get_label(): line for line in accuracy.get_lines()}
    assert list(lines) == ["by measured effect", "by gradient", "at random: mean and range", "most frequent class"]
    assert lines["by gradient"].get_ydata()[0] == pytest.approx(0.85)
    assert lines["at random: mean and range"].get_ydata()[0] == pytest.approx(0.75)
    assert set(lines["most frequent class"].get_ydata()) == {0.3}
    band = accuracy.collections[0].get_paths()[0].vertices
    assert band[band[:, 0] == 0][:, 1].min() == pytest.approx(0.7)
    assert band[band[:, 0] == 0][:, 1].max() == pytest.approx(0.8)
    assert accuracy.get_xlabel() == "heads closed, of 10"
    assert all(len(axes.get_lines()) == 3 for axes in recalls)
    assert "fill: mean" in saved[0].get_suptitle()


def test_interactions_are_symmetric_and_empty_on_the_diagonal(tmp_path, saved):
    figures.draw_interactions(interaction_table(["no", "yes"]), "zero", tmp_path / "x.png", TITLE)
    strength, no, yes = panels(saved[0])
    assert [label.get_text() for label in no.get_yticklabels()] == ["0.3", "1.2", "1.10"]  # by number
    expected = np.array([[np.nan, 0.1, 0.2], [0.1, np.nan, 0.3], [0.2, 0.3, np.nan]])
    for axes, values in ((strength, expected), (no, expected), (yes, -expected)):
        np.testing.assert_allclose(axes.images[0].get_array().filled(np.nan), values)
    assert strength.images[0].get_clim() == (0, pytest.approx(0.3))
    assert no.images[0].get_clim() == yes.images[0].get_clim() == (pytest.approx(-0.3), pytest.approx(0.3))
    assert (no.get_title(), yes.get_title()) == ("no", "yes")
