import re
from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgba
from matplotlib.patches import FancyArrowPatch, Rectangle
from pictures_on_disk import assert_whole

from experiments.patch import figures
from lab.figures import COLOURS, GREY

TITLE = "one run on a corpus, 100 test texts"
DOT = "a head that stands out."
SIGNS = {"denoise": 1, "noise": -1}
BOTH = tuple(SIGNS)
STREAM, HEADS = ("resid_pre", "attn", "mlp"), ("z", "q", "k", "v", "pattern")
TOKENS, GROUPS = ["changed", "between", "last"], ["the replaced word", "between, mean per token", "the last token"]
CLEAN = ["i", " feel", " so", " happy", " about", " the", " rainy", " day", " in", " the", " town", " today"]
CORRUPT = [*CLEAN[:3], " furious", *CLEAN[4:]]


def cross(**values):
    """One row for each combination of these values."""
    return pd.DataFrame(list(product(*values.values())), columns=list(values))


def pair_cells(layers=6, clean=CLEAN, changed=3, kinds=STREAM, directions=BOTH, seed=0):
    """Cells of a pair with a gap of 5 nats: the difference moves from the changed word to the last token. What belongs
    to resid_mid, to a head or to a position before the changed word is far too large, and must not be seen."""
    rng = np.random.default_rng(seed)
    rows = cross(direction=directions, kind=[*kinds, "resid_mid", "z"], layer=range(layers), position=range(len(clean)))
    depth, position, last = rows["layer"] / layers, rows["position"], len(clean) - 1
    moved = np.select([position == changed, position == last], [1 - depth**2, depth**3], 0)
    added = np.where((position == last) & (rows["layer"] == layers // 2), 0.3, 0)
    share = np.where(rows["kind"] == "resid_pre", moved, added) + rng.normal(0, 0.02, len(rows))
    share = np.where((position < changed) | ~rows["kind"].isin(STREAM), 77, share) * rows["direction"].map(SIGNS)
    head = np.where(rows["kind"] == "z", 3, np.nan)
    return rows.assign(head=head, token=[clean[i] for i in position], effect=5 * share, normalised=share)


def mean_effects(layers=6, heads=8, kinds=(*STREAM, *HEADS), directions=BOTH, seed=0):
    """Effects over all pairs: few heads do much."""
    rng = np.random.default_rng(seed)
    stream = cross(direction=directions, kind=kinds, layer=range(layers), tokens=TOKENS)
    stream = stream[~stream["kind"].isin(HEADS)]
    depth = stream["layer"] / layers
    moved = np.select([stream["tokens"] == "changed", stream["tokens"] == "last"], [1 - depth**2, depth**3], 0.02)
    noise = rng.normal(0, 0.01, len(stream))
    stream = stream.assign(share=np.where(stream["kind"] == "resid_pre", 1, 0.2) * moved + noise)
    single = cross(direction=directions, kind=kinds, layer=range(layers), head=range(heads), tokens=["all"])
    single = single[single["kind"].isin(HEADS)]
    strong = (rng.random((layers, heads)) < 0.08)[single["layer"], single["head"]]
    single = single.assign(share=strong * rng.uniform(-0.1, 0.6, len(single)) + rng.normal(0, 0.01, len(single)))
    rows = pd.concat([stream, single], ignore_index=True)
    share, miss = rows["share"] * rows["direction"].map(SIGNS), rng.normal(0, 0.02, len(rows))
    integrated = (share + miss / 4).where(rows["kind"].isin(["z", "attn", "mlp"]))
    ends = {"share_low": share - 0.04, "share_high": share + 0.03}
    return rows.assign(n=31, share=share, **ends, estimate=0.9 * share + miss, integrated=integrated)


def measure_misses(averages):
    rows = []
    for (direction, kind), part in averages.groupby(["direction", "kind"], sort=False):
        for method, column in (("attribution", "estimate"), ("integrated", "integrated")):
            if part[column].notna().any():
                miss = (part[column] - part["share"]).abs()
                worst = part.loc[miss.idxmax()]
                place = f"{worst['head']:.0f}" if kind in HEADS else worst["tokens"]
                spearman = part["share"].corr(part[column], "spearman")
                rows.append((direction, kind, method, len(part), spearman, miss.max(), f"{worst['layer']}.{place}"))
    return pd.DataFrame(rows, columns=["direction", "kind", "method", "n", "spearman", "worst_miss", "worst_cell"])


def trace_back(layers=6, heads=8, n=20, directions=BOTH, seed=0):
    """Edges back from the logits: four into the logits, three into each head or MLP."""
    rng = np.random.default_rng(seed)
    rows = []
    for direction in directions:
        edges, receivers = {}, ["logits"]
        for receiver in receivers:
            below = layers if receiver == "logits" else int(re.search(r"\d+", receiver)[0])
            entries = {"l": ["logits"], "m": ["mlp"], "h": ["q", "k", "v"]}[receiver[0]]
            for _ in range(4 if receiver == "logits" else 3):
                layer = rng.integers(-1, below)
                part = f"mlp {layer}" if rng.integers(4) == 0 else f"head {layer}.{rng.integers(heads)}"
                sender = "embedding" if layer < 0 else part
                if len(edges) < n:
                    edges[sender, receiver, rng.choice(entries)] = SIGNS[direction] * (rng.exponential(0.12) - 0.02)
                    receivers += [sender] if layer >= 0 and sender not in receivers else []
        rows += [(direction, *edge, share) for edge, share in edges.items()]
    return pd.DataFrame(rows, columns=["direction", "sender", "receiver", "input", "share"])


def turns(layers=6, heads=8, labels=("sadness", "joy", "love", "anger", "fear", "surprise"), seed=0):
    rng = np.random.default_rng(seed)
    rows = cross(**{"from": labels, "to": labels}, layer=range(layers), head=range(heads))
    rows = rows[rows["from"] != rows["to"]]
    effect = (rng.random(len(rows)) < 0.1) * rng.uniform(-0.5, 1.5, len(rows)) + rng.normal(0, 0.03, len(rows))
    return rows.assign(n=rng.integers(5, 40, len(rows)), effect=effect)


def draw_all(folder, seed):
    averages = mean_effects(3, 5, kinds=(*STREAM, "resid_mid", *HEADS), seed=seed)
    figures.draw_pair(pair_cells(3, seed=seed), CORRUPT, folder / "pair.png", TITLE)
    clean = [" extraordinarily", "\n", " 😀", "$ 5 $", *"abcdefghij" * 5]
    figures.draw_pair(pair_cells(7, clean, 0, seed=seed), [" un", *clean[1:]], folder / "long.png", TITLE)
    figures.draw_positions(averages, folder / "positions.png", TITLE)
    figures.draw_heads(
        averages, averages[averages["share"] > 0.3].dropna(subset="head"), DOT, folder / "heads.png", TITLE
    )
    figures.draw_heads(mean_effects(48, 25, ["z"], ["noise"], seed), None, DOT, folder / "many_heads.png", TITLE)
    figures.draw_heads(mean_effects(1, 3, ["z"], ["noise"], seed), None, DOT, folder / "few_heads.png", TITLE)
    figures.draw_estimates(averages, measure_misses(averages), folder / "estimates.png", TITLE)
    figures.draw_paths(trace_back(5, 7, 25, seed=seed), folder / "paths.png", TITLE)
    figures.draw_paths(trace_back(1, 3, 4, ["noise"], seed), folder / "few_paths.png", TITLE)
    figures.draw_between(turns(3, 5, seed=seed), folder / "between.png", TITLE)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_whole_pictures_and_no_state(tmp_path):
    assert_whole(draw_all, tmp_path)
    assert len(list((tmp_path / "first").iterdir())) == 10


def scales(figure):
    return [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]


def panels(figure):
    return {axes.get_title(): axes for axes in figure.axes if axes.get_label() != "<colorbar>"}


def shown(axes):
    return axes.images[0].get_array().filled(np.nan)


def numbers(axes):
    return [text.get_text() for text in axes.texts]


def said(text):
    return " ".join(text.split())


def names(labels):
    return [label.get_text() for label in labels]


@pytest.mark.parametrize(("layers", "n_tokens", "written"), [(6, 12, True), (11, 37, False), (2, 63, False)])
def test_a_pair_stands_by_layer_and_position_from_the_first_changed_token_on(
    tmp_path, saved, layers, n_tokens, written
):
    clean = (CLEAN * 6)[:n_tokens]
    cells = pair_cells(layers, clean).sample(frac=1, random_state=1)
    figures.draw_pair(cells, [*clean[:3], " furious", *clean[4:-1], "!"], tmp_path / "x.png", TITLE)
    [figure], maps = saved, panels(saved[0])
    assert list(maps) == [f"{direction}: {kind}" for direction in BOTH for kind in STREAM]
    ordered = cells.sort_values(["layer", "position"])
    for direction, kind in product(BOTH, STREAM):
        axes = maps[f"{direction}: {kind}"]
        rows = ordered[(ordered["direction"] == direction) & (ordered["kind"] == kind) & (ordered["position"] >= 3)]
        expected = rows["normalised"].to_numpy().reshape(layers, n_tokens - 3)
        np.testing.assert_array_equal(shown(axes), expected)
        assert numbers(axes) == ([f"{value:z.2f}" for value in expected.ravel()] if written else [])
        unchanged = [token.replace(" ", "·") for token in clean[4:-1]]
        last = f"{clean[-1].replace(' ', '·')}/!"
        assert names(axes.get_xticklabels()) == ["·happy/·furious", *unchanged, last]
        assert names(axes.get_yticklabels()) == [str(layer) for layer in range(layers)]
        assert axes.get_xticklabels()[0].get_fontsize() == (8 if n_tokens < 40 else 6.5)
        assert axes.yaxis_inverted()  # layer 0 is at the top
    assert {axes.images[0].get_clim() for axes in maps.values()} == {(-1, 1)}
    assert [axes.get_ylabel() for axes in scales(figure)] == ["effect (share of the gap)"]
    caption = said(figure.get_supxlabel())
    assert "Denoise: a clean cell" in caption
    assert "Noise: a corrupt cell" in caption
    assert "Left out: what stands before the first changed token" in caption


def test_without_a_gap_effects_are_in_nats_and_the_largest_ends_the_scale(tmp_path, saved):
    cells = pair_cells(3).assign(normalised=np.nan)
    cells.loc[(cells["kind"] == "mlp") & (cells["position"] == 7) & (cells["layer"] == 1), "effect"] = -9
    figures.draw_pair(cells, CORRUPT, tmp_path / "x.png", TITLE)
    maps = panels(saved[0])
    assert shown(maps["noise: mlp"])[1, 4] == -9
    assert {axes.images[0].get_clim() for axes in maps.values()} == {(-9, 9)}
    [scale] = scales(saved[0])
    assert (scale.get_ylabel(), scale._colorbar.extend) == ("effect (nats)", "neither")
    assert "Gap:" not in said(saved[0].get_supxlabel())


def test_shares_beyond_the_whole_gap_do_not_turn_others_white(tmp_path, saved):
    cells = pair_cells(3)
    for share in (0.4, 13):
        large = cells.assign(normalised=cells["normalised"].clip(-0.3, 0.3))
        large.loc[(cells["kind"] == "mlp") & (cells["position"] == 7), "normalised"] = share
        figures.draw_pair(large, CORRUPT, tmp_path / "x.png", TITLE)
    clims = [panels(figure)["noise: mlp"].images[0].get_clim() for figure in saved]
    assert clims == [(-0.4, 0.4), (-1, 1)]
    assert [scales(figure)[0]._colorbar.extend for figure in saved] == ["neither", "both"]


def test_cells_that_were_not_measured_are_grey(tmp_path, saved):
    cells = pair_cells(3)
    gaps = (cells["direction"] == "noise") & (cells["position"] == 5)
    columns = ["effect", "normalised"]
    figures.draw_pair(cells[~((cells["kind"] == "attn") & gaps)], CORRUPT, tmp_path / "x.png", TITLE)
    cells.loc[gaps, columns] = np.nan
    figures.draw_pair(cells, CORRUPT, tmp_path / "x.png", TITLE)
    cells[columns] = np.nan
    figures.draw_pair(cells, CORRUPT, tmp_path / "x.png", TITLE)
    for figure in saved[:2]:
        axes = panels(figure)["noise: attn"]
        assert np.isnan(shown(axes)).sum(axis=0).tolist() == [0, 0, 3, *[0] * 6]
        assert to_rgba("#DDDDDD") == axes.get_facecolor()
        assert "nan" not in numbers(axes)
        assert not np.isnan(shown(panels(figure)["denoise: attn"])).any()
    assert all(np.isnan(shown(axes)).all() for axes in panels(saved[2]).values())
    assert {axes.images[0].get_clim() for axes in panels(saved[2]).values()} == {(-1, 1)}


def test_what_was_not_asked_for_has_no_panel(tmp_path, saved):
    averages = mean_effects(1, 3, ["attn", "v"], ["noise"])
    figures.draw_pair(pair_cells(1, kinds=["attn"], directions=["noise"]), CORRUPT, tmp_path / "x.png", TITLE)
    figures.draw_positions(averages, tmp_path / "x.png", TITLE)
    figures.draw_heads(averages, averages[:0], DOT, tmp_path / "x.png", TITLE)
    figures.draw_estimates(averages, measure_misses(averages), tmp_path / "x.png", TITLE)
    figures.draw_paths(trace_back(1, 3, 4, ["noise"]), tmp_path / "x.png", TITLE)
    titles = [["noise: attn"], ["noise: attn"], ["noise: v"], ["attn", "v"], ["noise"]]
    assert [list(panels(figure)) for figure in saved] == titles
    for figure in saved[:3]:
        assert "Noise: a corrupt cell" in said(figure.get_supxlabel())
        assert "Denoise" not in figure.get_supxlabel()


def test_long_tokens_and_line_breaks_stay_on_one_short_line(tmp_path, saved):
    clean = ["a\n", " extraordinarily", " b"]
    figures.draw_pair(pair_cells(2, clean, 0), ["\t", *clean[1:]], tmp_path / "x.png", TITLE)
    for axes in panels(saved[0]).values():
        assert names(axes.get_xticklabels()) == ["a\\n/\\t", "·extraordinar…", "·b"]


def test_positions_have_a_line_for_each_group_of_tokens_with_its_intervals(tmp_path, saved):
    averages = mean_effects(5, 3, kinds=("resid_mid", *STREAM, "z"))
    averages.loc[averages["kind"] == "resid_mid", "share"] = 77  # must not be seen
    figures.draw_positions(averages.sample(frac=1, random_state=1), tmp_path / "x.png", TITLE)
    grid = panels(saved[0])
    assert list(grid) == [f"{direction}: {kind}" for direction in BOTH for kind in STREAM]
    for direction, kind in product(BOTH, STREAM):
        axes = grid[f"{direction}: {kind}"]
        level, *lines = axes.get_lines()
        assert set(level.get_ydata()) == {0}
        assert [line.get_label() for line in lines] == GROUPS
        for i, (line, bars, tokens) in enumerate(zip(lines, axes.collections, TOKENS, strict=True)):
            rows = averages[(averages["direction"] == direction) & (averages["kind"] == kind)]
            rows = rows[rows["tokens"] == tokens].sort_values("layer")
            np.testing.assert_array_equal(line.get_ydata(), rows["share"])
            np.testing.assert_array_equal(np.round(line.get_xdata()), rows["layer"])
            ends = [segment[:, 1] for segment in bars.get_segments()]
            np.testing.assert_array_equal(ends, rows[["share_low", "share_high"]])
            assert line.get_color() == COLOURS[i] == to_hex(bars.get_color()).upper()
        assert axes.get_xlim() == (-0.5, 4.5)
        assert grid[f"{direction}: attn"].get_ylim() == grid[f"{direction}: mlp"].get_ylim()
        assert grid[f"{direction}: attn"].get_ylim() != grid[f"{direction}: resid_pre"].get_ylim()
    assert names(saved[0].legends[0].get_texts()) == GROUPS
    assert saved[0].get_supylabel() == "effect (share of the gap)"


@pytest.mark.parametrize(("layers", "heads", "written"), [(6, 8, True), (12, 12, True), (48, 25, False)])
def test_heads_stand_by_layer_and_head_with_dots_where_they_are_marked(tmp_path, saved, layers, heads, written):
    averages = mean_effects(layers, heads).sample(frac=1, random_state=1)
    marked = averages[averages["kind"].isin(HEADS) & (averages["share"].abs() > 0.2)]
    figures.draw_heads(averages, marked, DOT, tmp_path / "x.png", TITLE)
    [figure], maps = saved, panels(saved[0])
    assert list(maps) == [f"{direction}: {kind}" for direction in BOTH for kind in HEADS]
    ordered = averages.sort_values(["layer", "head"])
    for direction, kind in product(BOTH, HEADS):
        axes = maps[f"{direction}: {kind}"]
        expected = ordered[(ordered["direction"] == direction) & (ordered["kind"] == kind)]["share"].to_numpy()
        np.testing.assert_array_equal(shown(axes), expected.reshape(layers, heads))
        assert numbers(axes) == ([f"{value:z.2f}" for value in expected] if written else [])
        assert names(axes.get_xticklabels())[0] == "0"  # not 0.0
        rows = marked[(marked["direction"] == direction) & (marked["kind"] == kind)]
        dots = [tuple(np.round(at)) for marks in axes.collections for at in marks.get_offsets()]
        assert sorted(dots) == sorted(zip(rows["head"], rows["layer"], strict=True))
    [(low, high)] = {axes.images[0].get_clim() for axes in maps.values()}
    assert low == -high
    assert [axes.get_ylabel() for axes in scales(figure)] == ["effect (share of the gap)"]
    assert f"Dot, {len(marked):,} of {10 * layers * heads:,}: {DOT}" in said(figure.get_supxlabel())


def test_where_no_head_can_have_a_dot_none_is_drawn_or_explained(tmp_path, saved):
    figures.draw_heads(mean_effects(3, 5), None, DOT, tmp_path / "x.png", TITLE)
    assert not any(axes.collections for axes in panels(saved[0]).values())
    assert "Dot" not in saved[0].get_supxlabel()


def test_estimates_stand_beside_exact_effects_with_what_they_miss(tmp_path, saved):
    averages = mean_effects(3, 5)
    misses = measure_misses(averages)
    misses.loc[(misses["kind"] == "q") & (misses["direction"] == "noise"), "spearman"] = np.nan
    figures.draw_estimates(averages, misses, tmp_path / "x.png", TITLE)
    grid = panels(saved[0])
    assert list(grid) == [*STREAM, *HEADS]
    for kind, axes in grid.items():
        diagonal, *marks = axes.get_lines()
        assert (diagonal.get_xy1(), diagonal.get_slope()) == ((0, 0), 1)
        plots = product(zip(BOTH, (COLOURS[0], COLOURS[3]), strict=True), (("estimate", "o"), ("integrated", "x")))
        for mark, ((direction, colour), (column, marker)) in zip(marks, plots, strict=True):
            rows = averages[(averages["direction"] == direction) & (averages["kind"] == kind)]
            np.testing.assert_array_equal(mark.get_xdata(), rows["share"])
            np.testing.assert_array_equal(mark.get_ydata(), rows[column])
            assert (mark.get_color(), mark.get_marker()) == (colour, marker)
        lines = [
            f"{row.direction} {'●' if row.method == 'attribution' else '×'}: "
            f"ρ {'undefined' if np.isnan(row.spearman) else f'{row.spearman:.2f}'}, "
            f"worst {row.worst_miss:.2f} ({row.worst_cell})"
            for row in misses[misses["kind"] == kind].itertuples()
        ]
        assert axes.get_xlabel().split("\n") == lines
        assert len(lines) == (4 if kind in ("attn", "mlp", "z") else 2)
    assert names(saved[0].legends[0].get_texts()) == ["denoise", "noise", "attribution", "integrated"]


def test_a_class_has_the_mean_over_the_classes_that_were_predicted(tmp_path, saved):
    rows = [("no", "yes", 1, 6.0), ("well", "yes", 2, 9.0), ("no", "well", 3, -1.0), ("yes", "well", 5, np.nan)]
    rows += [("yes", "no", 4, np.nan), ("well", "no", 7, np.nan)]
    cells = pd.DataFrame(rows, columns=["from", "to", "n", "effect"]).merge(
        cross(layer=range(2), head=range(3)), "cross"
    )
    cells["effect"] += cells["layer"] + 0.1 * cells["head"]
    figures.draw_between(cells.sort_values(["layer", "head"]), tmp_path / "x.png", TITLE)
    maps = panels(saved[0])
    place = np.arange(2)[:, None] + 0.1 * np.arange(3)
    assert list(maps) == ["no", "well", "yes"]
    np.testing.assert_allclose(shown(maps["yes"]), place + (1 * 6 + 2 * 9) / 3)
    np.testing.assert_allclose(shown(maps["well"]), place - 1)
    assert np.isnan(shown(maps["no"])).all()
    assert len({axes.images[0].get_clim() for axes in maps.values()}) == 1
    assert [axes.get_ylabel() for axes in scales(saved[0])] == ["effect (nats)"]


EDGES = pd.DataFrame(
    [
        ("denoise", "head 3.1", "logits", "logits", 0.5),
        ("denoise", "head 0.2", "head 3.1", "v", -0.125),
        ("denoise", "embedding", "mlp 0", "mlp", 0.25),
        ("denoise", "mlp 0", "head 3.1", "q", np.nan),
        ("noise", "mlp 0", "logits", "logits", -0.5),
    ],
    columns=["direction", "sender", "receiver", "input", "share"],
)


def arrows(axes):
    return [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]


def extents(axes):
    """The box of each node, by its name."""
    boxes = [patch.get_bbox() for patch in axes.patches if isinstance(patch, Rectangle)]
    return dict(zip(numbers(axes)[-len(boxes) :], boxes, strict=True))


def test_paths_are_arrows_with_a_width_a_colour_and_a_label(tmp_path, saved):
    figures.draw_paths(EDGES, tmp_path / "x.png", TITLE)
    denoise, noise = panels(saved[0]).values()
    nodes = ["head 3.1", "head 0.2", "embedding", "mlp 0", "logits"]
    assert numbers(denoise) == ["0.50", "v -0.12", "0.25", "q ?", *nodes]
    assert [arrow.get_linewidth() for arrow in arrows(denoise)] == pytest.approx([5.8, 2.05, 3.3, 0.8])
    colours = [to_hex(arrow.get_edgecolor()).upper() for arrow in arrows(denoise)]
    assert colours == ["#2166AC", "#B2182B", "#2166AC", GREY]
    heights = [extents(denoise)[name].y0 for name in ("embedding", "head 0.2", "mlp 0", "head 3.1", "logits")]
    assert heights == sorted(set(heights))
    assert numbers(noise) == ["-0.50", "mlp 0", "logits"]
    assert len(arrows(noise)) == 1
    for name in ("mlp 0", "logits"):  # as high as in the other panel
        assert extents(noise)[name].y0 == extents(denoise)[name].y0


def test_arrows_run_from_the_top_of_a_box_to_the_bottom_of_another_one(tmp_path, saved):
    edges = trace_back(7, 3, 25)
    figures.draw_paths(edges, tmp_path / "x.png", TITLE)
    for direction, axes in panels(saved[0]).items():
        boxes, rows = extents(axes), edges[edges["direction"] == direction]
        for arrow, sender, receiver in zip(arrows(axes), rows["sender"], rows["receiver"], strict=True):
            (x0, y0), *_, (x1, y1) = arrow._path_original.vertices
            assert boxes[sender].x0 < x0 < boxes[sender].x1
            assert boxes[receiver].x0 < x1 < boxes[receiver].x1
            assert (y0, y1) == pytest.approx((boxes[sender].y1, boxes[receiver].y0))
            for name in boxes.keys() - {sender, receiver}:
                assert not arrow._path_original.intersects_bbox(boxes[name], filled=False)


def test_dot_text_holds_the_same_edges():
    denoise, noise = figures.write_dot(EDGES).split("}\n")[:2]
    assert denoise.startswith("digraph denoise {\n")
    assert noise.startswith("digraph noise {\n")
    pattern = r'^  "(.+)" -> "(.+)" \[label="(.+)", color="(.+)", penwidth=(.+)\];$'
    assert re.findall(pattern, denoise, re.MULTILINE) == [
        ("head 3.1", "logits", "0.50", "#2166AC", "5.80"),
        ("head 0.2", "head 3.1", "v -0.12", "#B2182B", "2.05"),
        ("embedding", "mlp 0", "0.25", "#2166AC", "3.30"),
        ("mlp 0", "head 3.1", "q ?", GREY, "0.80"),
    ]
    assert re.findall(pattern, noise, re.MULTILINE) == [("mlp 0", "logits", "-0.50", "#B2182B", "5.80")]
