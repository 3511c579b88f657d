from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from pictures_on_disk import assert_whole

from experiments.ablate import figures
from lab.figures import COLOURS, GREY

UNITS = ["kind", "layer", "head", "region"]
LAYER_KINDS = ("heads", "mlp", "layer")
TITLE = "one run on a corpus, 100 test texts"
REGIONS = ["self", "all but self"]
WORDS = ["sentiment", "feel"]
RANDOM = "random, as many as "


def units(layers, heads):
    rows = [("head", layer, head, "") for layer, head in product(range(layers), range(heads))]
    rows += [(kind, layer, None, "") for kind, layer in product(LAYER_KINDS, range(layers))]
    rows += [
        (kind, layer, None, prefix + region)
        for kind, layer, region, prefix in product(("mask", "cut"), (None, *range(layers)), REGIONS, ("", RANDOM))
    ]
    rows += [("mask", layer, None, "last query") for layer in (None, *range(layers))]
    rows += [("words", None, None, prefix + region) for region, prefix in product(WORDS, ("", RANDOM))]
    return pd.DataFrame(rows, columns=UNITS).astype({"layer": "Int64", "head": "Int64"})


def judged(layers, heads, labels, seed=0):
    """Verdicts; what belongs to the other fill is far too large, and must not be seen."""
    rng = np.random.default_rng(seed)
    rows = units(layers, heads).merge(pd.DataFrame({"class": labels}), how="cross")
    rows = rows.merge(pd.DataFrame({"fill": ["zero", "mean"]}), how="cross")
    share = rng.uniform(-0.4, 0.4, len(rows)) + 9 * (rows["fill"] == "mean")
    verdict = np.where(rows["fill"] == "mean", "matters", rng.choice(["matters", "negligible", "open"], len(rows)))
    specific = pd.Series(rng.choice([True, False], len(rows)), dtype="boolean").mask(rows["kind"].isin(LAYER_KINDS))
    limits = {"share_low": share - 0.03, "share_high": share + 0.02}
    return rows.assign(share=share, **limits, verdict=verdict, specific=specific)


def subspaces(layers, labels, draws=4, seed=0):
    """Controls; what belongs to val, to MLPs or to the other fill must not be seen."""
    keys = product(("head", "mlp"), range(layers), range(draws), labels, ("zero", "mean"), ("test", "val"))
    table = pd.DataFrame(list(keys), columns=["kind", "layer", "draw", "class", "fill", "split"])
    seen = (table["kind"] == "head") & (table["fill"] == "zero") & (table["split"] == "test")
    return table.assign(share=np.random.default_rng(seed).uniform(-0.03, 0.03, len(table)) + 9 * ~seen)


def overall(layers, heads, seed=0):
    """Effects over all texts; what belongs to val is far too large, and must not be seen."""
    rng = np.random.default_rng(seed)
    effects = []
    for metric, split in product(("log_prob", "accuracy"), ("val", "test")):
        rows = units(layers, heads)
        effect = rng.uniform(-1, 1, len(rows)) + 50 * (split == "val")
        ends = {"ci_low": effect - 0.1, "ci_high": effect + 0.1}
        columns = {"fill": "zero", "split": split, "metric": metric, "class": "all", "effect": effect}
        effects.append(rows.assign(**columns, **ends))
    return pd.concat(effects, ignore_index=True)


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
    verdicts, effects = judged(3, 5, labels, seed), overall(3, 5, seed)
    figures.draw_heads(verdicts, "zero", folder / "heads.png", TITLE)
    figures.draw_controls(verdicts, subspaces(3, labels, seed=seed), "zero", 0.05, folder / "controls.png", TITLE)
    figures.draw_layers(verdicts, "zero", 0.05, folder / "layers.png", TITLE)
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
    assert names == ["controls", "curves", "heads", "interactions", "layers", "regions", "words"]


def scales(figure):
    return [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]


def panels(figure):
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def dots(axes):
    return sorted(tuple(map(round, at)) for marks in axes.collections for at in marks.get_offsets())


def frames(axes):
    """The cells that have a frame, which lies within."""
    boxes = [patch.get_bbox() for patch in axes.patches if isinstance(patch, Rectangle)]
    assert all(0.8 < box.width < 1 and 0.8 < box.height < 1 for box in boxes)
    return sorted((round((box.x0 + box.x1) / 2), round((box.y0 + box.y1) / 2)) for box in boxes)


def cells(rows):
    return sorted(zip(rows["head"], rows["layer"], strict=True))


def said(text):
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("layers", "heads", "k"), [(2, 3, 2), (3, 5, 2), (6, 8, 6), (12, 12, 6), (24, 16, 8), (1, 2, 28), (2, 3, 1)]
)
def test_heads_stand_by_layer_and_head_for_each_class_with_dots_where_they_matter(tmp_path, saved, layers, heads, k):
    labels = [f"class {i}" for i in range(k)]
    verdicts = judged(layers, heads, labels)
    shuffled = verdicts.sample(frac=1, random_state=1).sort_values("class", kind="stable")
    figures.draw_heads(shuffled, "zero", tmp_path / "x.png", TITLE)
    [figure], maps = saved, panels(saved[0])
    assert sorted(axes.get_title() for axes in maps) == sorted(labels)
    measured = verdicts[(verdicts["kind"] == "head") & (verdicts["fill"] == "zero")]
    matters = measured[measured["verdict"] == "matters"]
    specific = matters[matters["specific"]]
    caption = said(figure.get_supxlabel())
    assert f"Dot: matters, {len(matters):,} of {len(measured):,}: " in caption
    assert f"Frame: specific, {len(specific):,} of these: " in caption
    for axes in maps:
        label = axes.get_title()
        rows = measured[measured["class"] == label].sort_values(["layer", "head"])
        expected = 100 * rows["share"].to_numpy().reshape(layers, heads)
        np.testing.assert_allclose(axes.images[0].get_array(), expected)
        numbers = [f"{value:z.1f}" for value in expected.ravel()] if heads <= 8 else []
        assert [text.get_text() for text in axes.texts] == numbers
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("head", "layer")
        assert dots(axes) == cells(matters[matters["class"] == label])
        assert frames(axes) == cells(specific[specific["class"] == label])
    [(low, high)] = {axes.images[0].get_clim() for axes in maps}  # one scale for all
    assert low == -high  # 0 is in the middle
    assert len(scales(figure)) == 1
    assert scales(figure)[0].get_ylabel() == "change of the class's margin (%)"
    title = figure.get_suptitle()
    assert TITLE in title
    assert "fill: zero" in title


def test_only_a_head_that_matters_has_a_frame(tmp_path, saved):
    verdicts = judged(2, 3, ["no", "yes"]).assign(specific=True, verdict="open")
    figures.draw_heads(verdicts, "zero", tmp_path / "x.png", TITLE)
    assert [frames(axes) for axes in panels(saved[0])] == [[], []]


def test_without_controls_no_frame_is_explained(tmp_path, saved):
    verdicts = judged(2, 3, ["no", "yes"]).assign(specific=pd.NA).astype({"specific": "boolean"})
    figures.draw_heads(verdicts, "zero", tmp_path / "x.png", TITLE)
    assert [frames(axes) for axes in panels(saved[0])] == [[], []]
    assert "Frame" not in saved[0].get_supxlabel()
    assert "Dot: matters" in saved[0].get_supxlabel()


def test_a_class_without_texts_is_grey_and_unmarked(tmp_path, saved):
    verdicts = judged(2, 3, ["no", "yes"])
    empty = verdicts["class"] == "yes"
    verdicts.loc[empty, ["share", "share_low", "share_high"]] = np.nan
    verdicts.loc[empty, "verdict"] = "open"
    figures.draw_heads(verdicts, "zero", tmp_path / "x.png", TITLE)
    figures.draw_layers(verdicts, "zero", 0.05, tmp_path / "x.png", TITLE)
    figures.draw_controls(verdicts, subspaces(2, ["no", "yes"]), "zero", 0.05, tmp_path / "x.png", TITLE)
    other, empty = panels(saved[0])
    assert empty.images[0].get_array().mask.all()
    assert (dots(empty), frames(empty)) == ([], [])
    assert {text.get_text() for text in empty.texts} == {""}
    assert to_rgba("#DDDDDD") == empty.get_facecolor()
    assert empty.images[0].get_clim() == other.images[0].get_clim()
    assert dots(other) != []
    for figure in saved[1:]:
        assert figure.axes[1].get_ylim() == figure.axes[0].get_ylim()


def test_one_head_does_not_turn_all_others_white(tmp_path, saved):
    verdicts = judged(12, 12, ["no", "yes"])
    shown = (verdicts["kind"] == "head") & (verdicts["fill"] == "zero")
    figures.draw_heads(verdicts, "zero", tmp_path / "x.png", TITLE)
    verdicts.loc[verdicts.index[shown][0], "share"] = 80
    figures.draw_heads(verdicts, "zero", tmp_path / "x.png", TITLE)
    verdicts.loc[shown, "share"] = 0
    figures.draw_heads(verdicts, "zero", tmp_path / "x.png", TITLE)
    plain, outlier, nothing = (panels(figure)[0].images[0].get_clim()[1] for figure in saved)
    assert 38 < plain <= outlier < 40
    assert nothing == 1
    assert [figure.axes[-1]._colorbar.extend for figure in saved] == ["both", "both", "neither"]


def test_heads_stand_left_of_their_layer_and_random_subspaces_right_of_it(tmp_path, saved):
    labels = ["no", "yes", "well"]
    verdicts, controls = judged(4, 5, labels), subspaces(4, labels, draws=5)
    figures.draw_controls(verdicts, controls, "zero", 0.025, tmp_path / "x.png", TITLE)
    [figure] = saved
    assert [axes.get_title() for axes in figure.axes] == labels
    heads = verdicts[(verdicts["kind"] == "head") & (verdicts["fill"] == "zero")]
    random = controls[(controls["kind"] == "head") & (controls["fill"] == "zero") & (controls["split"] == "test")]
    for axes, label in zip(figure.axes, labels, strict=True):
        of_class, of_random = heads[heads["class"] == label], random[random["class"] == label]
        [grey] = [line for line in axes.get_lines() if line.get_marker() == "."]
        assert grey.get_color() == GREY
        x = np.asarray(grey.get_xdata(), float)
        np.testing.assert_allclose(x, of_random["layer"] + [0.1, 0.175, 0.25, 0.325, 0.4] * 4)
        np.testing.assert_allclose(grey.get_ydata(), 100 * of_random["share"])
        others, matters = [line for line in axes.get_lines() if line.get_marker() == "o"]
        assert (others.get_color(), matters.get_color()) == (COLOURS[0], COLOURS[3])
        for line, mark in ((others, False), (matters, True)):
            rows = of_class[(of_class["verdict"] == "matters") == mark]
            expected = sorted(zip(rows["layer"] - 0.2, 100 * rows["share"], strict=True))
            np.testing.assert_allclose(sorted(zip(line.get_xdata(), line.get_ydata(), strict=True)), expected)
        levels = [line.get_ydata() for line in axes.get_lines() if line.get_marker() == "None"]
        assert sorted(set(np.ravel(levels))) == [-2.5, 0, 2.5]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    low, high = figure.axes[0].get_ylim()
    assert -50 < low < high < 50
    assert "fill: zero" in said(figure.get_suptitle())


def test_numbers_of_heads_that_matter_do_not_lie_on_each_other(tmp_path, saved):
    verdicts = judged(2, 4, ["no"])
    heads = (verdicts["kind"] == "head") & (verdicts["fill"] == "zero")
    verdicts.loc[heads, "share"] = np.array([-80, -79, -40, -60, 10, 10.1, 60, 50]) / 100
    verdicts.loc[heads, "verdict"] = ["matters"] * 7 + ["open"]
    figures.draw_controls(verdicts, subspaces(2, ["no"]), "zero", 0.05, tmp_path / "x.png", TITLE)
    texts = {(round(text.xy[0] + 0.3), text.get_text()): text.xy[1] for text in saved[0].axes[0].texts}
    expected = {(0, "0"): -80, (0, "3"): -60, (0, "2"): -40, (1, "1"): 10.1, (1, "2"): 60}
    assert texts == pytest.approx(expected)


def test_layers_have_a_line_for_each_part_and_dots_where_it_matters(tmp_path, saved):
    labels = ["no", "yes", "well"]
    verdicts = judged(4, 2, labels)
    figures.draw_layers(verdicts, "zero", 0.025, tmp_path / "x.png", TITLE)
    assert [axes.get_title() for axes in saved[0].axes] == labels
    rows = verdicts[verdicts["kind"].isin(LAYER_KINDS) & (verdicts["fill"] == "zero")]
    for axes, label in zip(saved[0].axes, labels, strict=True):
        lines = [line for line in axes.get_lines() if line.get_marker() == "None" and len(line.get_xdata()) == 4]
        assert [line.get_label() for line in lines] == ["all heads", "MLP", "heads and MLP"]
        marks = [line for line in axes.get_lines() if line.get_marker() == "o"]
        bands = [band.get_paths()[0].vertices for band in axes.collections]
        for kind, line, dotted, band in zip(LAYER_KINDS, lines, marks, bands, strict=True):
            part = rows[(rows["class"] == label) & (rows["kind"] == kind)].sort_values("layer")
            np.testing.assert_allclose(line.get_ydata(), 100 * part["share"])
            matters = part[part["verdict"] == "matters"]
            assert list(dotted.get_xdata()) == list(matters["layer"])
            np.testing.assert_allclose(dotted.get_ydata(), 100 * matters["share"])
            assert band[:, 1].min() == pytest.approx(100 * part["share_low"].min())
            assert band[:, 1].max() == pytest.approx(100 * part["share_high"].max())
        levels = [
            line.get_ydata() for line in axes.get_lines() if len(line.get_xdata()) == 2 and line.get_marker() == "None"
        ]
        assert sorted(set(np.ravel(levels))) == [-2.5, 0, 2.5]
    assert len({axes.get_ylim() for axes in saved[0].axes}) == 1
    matters = (rows["verdict"] == "matters").sum()
    assert f"Dot: matters, {matters} of {len(rows)}: " in said(saved[0].get_supxlabel())
    assert "Frame" not in saved[0].get_supxlabel()


def test_a_report_begins_with_the_pictures_of_heads_that_were_drawn(tmp_path):
    assert figures.name_pictures(tmp_path, "mean") == []
    for name in ("controls_mean.png", "controls_zero.png", "layers_mean.png"):
        (tmp_path / name).touch()
    assert [picture["file"] for picture in figures.name_pictures(tmp_path, "mean")] == ["controls_mean.png"]
    (tmp_path / "heads_mean.png").touch()
    heads, controls = figures.name_pictures(tmp_path, "mean")
    assert (heads["file"], controls["file"]) == ("heads_mean.png", "controls_mean.png")
    assert "dots matter" in heads["text"]
    assert "random subspaces" in controls["text"]


def test_a_class_without_texts_has_the_layers_of_the_others_and_no_lines(tmp_path, saved):
    verdicts = judged(4, 2, ["no", "yes"])
    shares = ["share", "share_low", "share_high"]
    verdicts.loc[verdicts["class"] == "yes", shares] = np.nan
    figures.draw_layers(verdicts, "zero", 0.025, tmp_path / "x.png", TITLE)
    measured, empty = saved[0].axes
    assert empty.get_xlim() == measured.get_xlim() == (-0.3, 3.3)
    assert empty.get_ylim() == measured.get_ylim()


def test_regions_stand_by_layer_after_all_layers_at_once(tmp_path, saved):
    effects = overall(3, 2)
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
    effects = overall(1, 2)
    figures.draw_words(effects, tmp_path / "x.png", TITLE)
    assert [label.get_text() for label in saved[0].axes[0].get_yticklabels()] == WORDS
    for axes, metric in zip(saved[0].axes, ("log_prob", "accuracy"), strict=True):
        effect = effects[(effects["kind"] == "words") & (effects["metric"] == metric) & (effects["split"] == "test")]
        effect = effect.set_index("region")
        words, random = (line for line in axes.get_lines() if line.get_marker() == "o")
        np.testing.assert_array_equal(words.get_xdata(), effect.loc[WORDS, "effect"])
        np.testing.assert_array_equal(random.get_xdata(), effect.loc[[RANDOM + name for name in WORDS], "effect"])
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
