"""Pictures of what single cells of a network carry from a clean into a corrupt text, and the other way round.

Each function draws one picture from the tables of `patch.py`. `title` names the run and its texts; the function adds
what is shown and what the marks mean, so that each picture can be understood alone. Red is loss."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from textwrap import fill as wrapped
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.path import Path as Curve
from matplotlib.ticker import MaxNLocator
from scipy.interpolate import CubicHermiteSpline

from lab import figures
from lab.figures import (
    CELL,
    COLOURS,
    GREY,
    NUMBER,
    SIGNED,
    STYLE,
    add_heading,
    draw_heat_map,
    draw_scale,
    find_colour_limit,
    grid_shape,
    label_token,
    make_map_panels,
    make_panels,
    mark_cells,
    panel_title,
    pivot_heads,
)

from .cells import HEAD_KINDS, STREAM_KINDS
from .layout import BOX, Item, Layout, lay_out, rank_depths
from .paths import HEAD_INPUTS

DIRECTIONS = {
    "denoise": "Denoise: a clean cell in the corrupt run; what is positive restores.",
    "noise": "Noise: a corrupt cell in the clean run; what is negative takes away.",
}
TOKENS = {"changed": "the replaced word", "between": "between, mean per token", "last": "the last token"}
METHODS = {"attribution": ("estimate", "o", "●"), "integrated": ("integrated", "x", "×")}  # column, marker, its sign
EFFECT = "effect (share of the gap)"
GAP_NOTE = "Gap: the logit difference of the two classes, clean minus corrupt."
LOSS, GAIN = "#B2182B", "#2166AC"  # of the map SIGNED
DIRECTION_COLOURS = {"denoise": COLOURS[0], "noise": COLOURS[3]}
LEVEL, HALF = 0.48, 0.13  # inches from one level to the next, and half the height of a box
WIDEST = 60  # tokens of a picture


@STYLE
def draw_pair(cells: pd.DataFrame, corrupt_tokens: Sequence[str], path: Path, title: str) -> None:
    """Draw one pair: layers by positions from the first changed token on, for each kind of cell and direction.

    cells: columns `direction, kind, layer, position, token, effect, normalised`, some of STREAM_KINDS;
    corrupt_tokens: the T tokens of the corrupt text."""
    rows = cells[cells["kind"].isin(STREAM_KINDS)].astype({"layer": int, "position": int})
    normalised = rows["normalised"].notna().any()
    clean = dict(zip(rows["position"].to_list(), rows["token"].to_list(), strict=True))
    first = min((position for position, token in clean.items() if token != corrupt_tokens[position]), default=0)
    labels = [_label_pair(clean[i], corrupt_tokens[i]) for i in sorted(clean) if i >= first]
    shown = rows[rows["position"] >= first]
    if len(labels) > WIDEST:
        largest_effects = shown["effect"].abs().groupby(shown["position"]).max().nlargest(WIDEST)
        shown = shown[shown["position"].isin(largest_effects.index)]
        labels = [_label_pair(clean[i], corrupt_tokens[i]) for i in sorted(set(shown["position"]))]
    maps = _pivot_maps(shown, STREAM_KINDS, "position", "normalised" if normalised else "effect")
    n_layers, n_tokens = next(iter(maps.values())).shape
    width, height = np.clip(5.5 / n_tokens, 0.13, 0.4), np.clip(4 / n_layers, 0.18, 0.36)
    largest = np.abs(np.nan_to_num([*maps.values()])).max()  # few cells matter: no quantile
    limit = min(largest, 1) if normalised else largest
    figure, grid = _draw_maps(maps, limit or 1, (width, height), EFFECT if normalised else "effect (nats)")
    for axes, values in zip(grid, maps.values(), strict=True):
        size = 8 if width > 0.16 else 6.5
        axes.set_xticks(range(n_tokens), labels, rotation=90, fontsize=size)
        axes.set_yticks(range(n_layers), values.index, fontsize=8)
        axes.set_aspect("auto")
    caption = f"{_explain_directions(shown)} {GAP_NOTE if normalised else ''} clean/corrupt: where the texts differ. "
    caption += "Left out: what stands before the first changed token; nothing changes there."
    if len(labels) == WIDEST:
        caption += f" Of the rest, the {WIDEST} tokens with the largest effects."
    add_heading(figure, f"{title}\none cell of one text put in the place of the other text's", caption)
    figures.save(figure, path)


def _label_pair(clean: str, corrupt: str) -> str:
    return label_token(clean) if clean == corrupt else f"{label_token(clean)}/{label_token(corrupt)}"


@STYLE
def draw_positions(averages: pd.DataFrame, path: Path, title: str) -> None:
    """Draw the mean effect over pairs by layer, for each kind of cell and direction a panel, and a line for the
    replaced word, the tokens after it and the last one, with 95 % intervals.

    averages: columns `direction, kind, layer, tokens, share, share_low, share_high`, some of STREAM_KINDS."""
    rows = averages[averages["kind"].isin(STREAM_KINDS)].sort_values("layer")
    keys = _list_panels(rows, STREAM_KINDS)
    figure, grid = _make_grid(keys, 3.6, 2.6)
    for axes, (direction, kind) in zip(grid, keys, strict=True):
        part = rows[(rows["direction"] == direction) & (rows["kind"] == kind)]
        if kind == "mlp" and (direction, "attn") in keys:
            axes.sharey(grid[keys.index((direction, "attn"))])
        axes.axhline(0, color=GREY, linewidth=1)
        for i, (tokens, name) in enumerate(TOKENS.items()):
            line, colour = part[part["tokens"] == tokens], COLOURS[i]
            x = line["layer"] + 0.12 * (i - 1)
            axes.plot(x, line["share"], ".-", color=colour, label=name)
            axes.vlines(x, line["share_low"], line["share_high"], color=colour, linewidth=1)
        axes.set(title=f"{direction}: {kind}", xlabel="layer", xlim=(-0.5, rows["layer"].max() + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.supylabel(EFFECT, fontsize=11)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right center")
    caption = f"{_explain_directions(rows)} {GAP_NOTE} Upright lines: 95 % limits "
    caption += "for all of one kind at once. Each row: one scale for attn and mlp."
    add_heading(figure, f"{title}\none cell of one text put in the place of the other text's, all pairs", caption)
    figures.save(figure, path)


@STYLE
def draw_heads(averages: pd.DataFrame, marked: pd.DataFrame | None, dot: str, path: Path, title: str) -> None:
    """Draw layers by heads the mean effect over pairs, for each kind of cell and direction, on one scale.

    averages: columns `direction, kind, layer, head, share`, some of HEAD_KINDS; marked: columns `direction, kind,
    layer, head`, one row for each head with a dot, None: no head can have one; `dot` says what a dot means."""
    rows = averages[averages["kind"].isin(HEAD_KINDS)].astype({"layer": int, "head": int})
    maps = _pivot_maps(rows, HEAD_KINDS, "head", "share")
    n_heads = next(iter(maps.values())).shape[1]
    cell = min(CELL, max(2.9 / n_heads, NUMBER if n_heads <= 12 else 0))
    figure, grid = _draw_maps(maps, find_colour_limit(maps.values()), (cell, cell), EFFECT)
    for axes, (direction, kind) in zip(grid, maps, strict=True):
        axes.set_xlabel("head")
        if marked is not None:
            mark_cells(axes, marked[(marked["direction"] == direction) & (marked["kind"] == kind)], cell)
    caption = f"{_explain_directions(rows)} {GAP_NOTE}"
    if marked is not None:
        caption += f" Dot, {len(marked):,} of {len(rows):,}: {dot}"
    add_heading(figure, f"{title}\none head of one text put in the place of the other text's, all positions", caption)
    figures.save(figure, path)


@STYLE
def draw_estimates(averages: pd.DataFrame, estimates: pd.DataFrame, path: Path, title: str) -> None:
    """Draw estimated by exact effects, a panel for each kind of cell.

    averages: columns `direction, kind, share, estimate, integrated`; estimates: columns `direction, kind, method,
    spearman, worst_miss, worst_cell`."""
    kinds = list(averages["kind"].unique())
    figure, grid = make_panels(len(kinds), 3.6)
    for axes, kind in zip(grid, kinds, strict=True):
        rows = averages[averages["kind"] == kind]
        axes.axline((0, 0), slope=1, color=GREY, linewidth=1)
        for direction, colour in DIRECTION_COLOURS.items():
            points = rows[rows["direction"] == direction]
            for column, marker, _ in METHODS.values():
                axes.plot(points["share"], points[column], marker, color=colour, markersize=4, alpha=0.6)
        lines = [_describe_estimate(row) for row in estimates[estimates["kind"] == kind].to_dict("records")]
        axes.set_title(panel_title(kind, len(kinds)))
        axes.set_xlabel("\n".join(wrapped(line, int(17 * grid_shape(len(kinds))[2])) for line in lines), fontsize=8)
    figure.supylabel("estimate (share of the gap)", fontsize=11)
    marks = {name: ("s", colour) for name, colour in DIRECTION_COLOURS.items()}
    marks |= {method: (marker, "black") for method, (_, marker, _) in METHODS.items()}
    handles = [Line2D([], [], marker=marker, linestyle="", color=colour) for marker, colour in marks.values()]
    figure.legend(handles, list(marks), loc="outside right center")
    caption = (
        f"Horizontal: exact effects. {GAP_NOTE} Below each panel, of single pairs: the median of Spearman's ρ, and "
    )
    caption += "the largest miss with its cell."
    add_heading(figure, f"{title}\nestimates from gradients beside exact effects, means over pairs", caption)
    figures.save(figure, path)


def _describe_estimate(row: Mapping[Hashable, Any]) -> str:
    spearman = "undefined" if pd.isna(row["spearman"]) else f"{row['spearman']:.2f}"
    worst = f"worst {row['worst_miss']:.2f} ({row['worst_cell']})"
    return f"{row['direction']} {METHODS[row['method']][2]}: ρ {spearman}, {worst}"


@STYLE
def draw_between(between: pd.DataFrame, path: Path, title: str) -> None:
    """Draw layers by heads how far each head turns the answer towards a class, a panel for each class.

    between: columns `layer, head, from, to, n, effect`."""
    rows = between.dropna(subset="effect")
    sums = rows.assign(effect=rows["effect"] * rows["n"]).groupby(["to", "layer", "head"])[["effect", "n"]].sum()
    means = (sums["effect"] / sums["n"]).rename("effect").reset_index()
    shape = sorted(between["layer"].unique()), sorted(between["head"].unique())
    maps = {
        label: pivot_heads(means[means["to"] == label], "effect").reindex(index=shape[0], columns=shape[1])
        for label in _list_present(between["to"], dict.fromkeys([*between["from"], *between["to"]]))
    }
    figure, grid, cell = make_map_panels(len(maps), len(shape[0]), len(shape[1]))
    limit = find_colour_limit(maps.values())
    for axes, (label, values) in zip(grid, maps.items(), strict=True):
        draw_heat_map(axes, values, SIGNED, limit, cell)
        axes.set(title=panel_title(label, len(maps)), xlabel="head", ylabel="layer")
    draw_scale(figure, grid, "effect (nats)")
    caption = "Effect on the logit of the class minus the logit of the predicted one, over the texts for which another "
    caption += "class is predicted; minus the effect of the mean of the predicted class."
    add_heading(figure, f"{title}\neach head at the last token emits its mean over the texts of a class", caption)
    figures.save(figure, path)


@STYLE
def draw_paths(edges: pd.DataFrame, path: Path, title: str) -> None:
    """Draw the edges of each direction as a graph, from the embedding at the bottom to the logits at the top.

    edges: columns `direction, sender, receiver, input, share`."""
    parts = _style_edges(edges)
    depths = rank_depths([*edges["sender"], *edges["receiver"]])  # one height for a layer in both directions
    layouts = [lay_out(part, depths) for part in parts.values()]
    widths, height = [layout.width for layout in layouts], LEVEL * (2 * len(depths) - 1)
    figure = Figure(figsize=(max(6.5, 1.1 * sum(widths) + 0.5), 1.1 * height + 1.6), layout="constrained")
    grid = figure.subplots(1, len(parts), squeeze=False, width_ratios=widths)[0]
    for axes, (direction, part), layout in zip(grid, parts.items(), layouts, strict=True):
        axes.set(title=direction, xlim=(0, layout.width), ylim=(-LEVEL, height), aspect="equal")
        axes.axis("off")
        _draw_graph(axes, part, layout)
    caption = f"{_explain_directions(edges)} {GAP_NOTE} Number and width of an arrow: the share of the gap that "
    caption += "the sender brings to this input of the receiver alone. q, k, v: inputs of a head."
    add_heading(figure, f"{title}\nthe strongest edges", caption)
    figures.save(figure, path)


def write_dot(edges: pd.DataFrame) -> str:
    """Return the same edges as DOT text, one digraph for each direction."""
    text = ""
    for direction, part in _style_edges(edges).items():
        text += f"digraph {direction} {{\n  rankdir=BT; node [shape=box];\n"
        for row in part.to_dict("records"):
            style = f'label="{row["label"]}", color="{row["colour"]}", penwidth={row["width"]:.2f}'
            text += f'  "{row["sender"]}" -> "{row["receiver"]}" [{style}];\n'
        text += "}\n"
    return text


def _style_edges(edges: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the edges of each direction, with the columns `label, colour` and `width` (points) of their arrows."""
    share, entry = edges["share"], edges["input"]
    number = share.map(lambda value: "?" if pd.isna(value) else f"{value:z.2f}").astype(str)
    colour = np.where(share.isna(), GREY, np.where(share < 0, LOSS, GAIN))
    width = 0.8 + 5 * (share.abs() / share.abs().max()).fillna(0)
    label = number.where(~entry.isin(HEAD_INPUTS), entry + " " + number)
    styled = edges.assign(label=label, colour=colour, width=width)
    return {name: styled[edges["direction"] == name] for name in _list_present(edges["direction"], DIRECTIONS)}


def _draw_graph(axes: Axes, edges: pd.DataFrame, layout: Layout) -> None:
    """Draw boxes, arrows and their labels."""
    box = dict(boxstyle="square,pad=0", facecolor="white", edgecolor="none")
    for row, chain, label in zip(edges.to_dict("records"), layout.chains, layout.labels, strict=True):
        curve, style = _make_curve(chain, layout), dict(color=row["colour"], linewidth=row["width"])
        axes.add_patch(FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=9, **style))
        at = layout.x[label], LEVEL * layout.levels[label]
        axes.text(*at, row["label"], ha="center", va="center", fontsize=8, bbox=box, zorder=3)
    for name, level in layout.levels.items():
        if isinstance(name, str):
            width, centre = (BOX - 0.1, layout.x[name]) if name in layout.x else (layout.width, layout.width / 2)
            corner = centre - width / 2, LEVEL * level - HALF
            axes.add_patch(Rectangle(corner, width, 2 * HALF, facecolor="#F2F2F2", edgecolor="black", zorder=2))
            axes.text(centre, LEVEL * level, name, ha="center", va="center", fontsize=9, zorder=3)


def _make_curve(chain: list[Item], layout: Layout) -> Curve:
    """Return the way of an edge from the top of its sender to the bottom of its receiver, upright beside boxes."""
    points = [(layout.x[item], LEVEL * layout.levels[item]) for item in chain[1:-1]]
    ends = []
    for item, (x, _), side in ((chain[0], points[0], 1), (chain[-1], points[-1], -1)):
        centre = layout.x.get(item, x)
        ends.append((centre + 0.4 * BOX * np.tanh((x - centre) / BOX), LEVEL * layout.levels[item] + side * HALF))
    x, y = np.array([ends[0], *points, ends[1]]).T
    slopes = np.gradient(x, y)
    slopes[[0, *range(2, len(x) - 1, 2), -1]] = 0  # at the levels of boxes
    heights = np.linspace(y[0], y[-1], 8 * len(y))
    return Curve(np.stack([CubicHermiteSpline(y, x, slopes)(heights), heights], axis=-1))


def _draw_maps(
    maps: Mapping[tuple[str, str], pd.DataFrame], limit: float, cell: tuple[float, float], scale: str
) -> tuple[Figure, list[Axes]]:
    """Draw a heat map for each direction and kind on one scale; cell: width and height (inches)."""
    n_layers, n_columns = next(iter(maps.values())).shape
    figure, grid = _make_grid(maps, cell[0] * n_columns + 0.8, cell[1] * n_layers + 1)
    for axes, ((direction, kind), values) in zip(grid, maps.items(), strict=True):
        draw_heat_map(axes, values, SIGNED, limit, cell[0])
        axes.set(title=f"{direction}: {kind}", ylabel="layer")
    draw_scale(figure, grid, scale)
    return figure, grid


def _pivot_maps(
    rows: pd.DataFrame, kinds: Sequence[str], columns: str, values: str
) -> dict[tuple[str, str], pd.DataFrame]:
    """Return layers by columns for each panel, all of one shape."""
    wide, layers = rows.pivot(index=["direction", "kind", "layer"], columns=columns, values=values), set(rows["layer"])
    return {
        panel: wide.reindex(pd.MultiIndex.from_product([*zip(panel), sorted(layers)])).droplevel([0, 1])
        for panel in _list_panels(rows, kinds)
    }


def _list_panels(rows: pd.DataFrame, kinds: Sequence[str]) -> list[tuple[str, str]]:
    """Return direction and kind of each panel: those that the rows have, a line of panels for each direction."""
    return list(product(_list_present(rows["direction"], DIRECTIONS), _list_present(rows["kind"], kinds)))


def _list_present(values: pd.Series, names: Iterable[str]) -> list[str]:
    return [name for name in names if name in set(values)]


def _make_grid(panels: Iterable[tuple[str, str]], width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure of a panel (inches) for each direction and kind, a row for each direction."""
    directions, kinds = ({panel[i] for panel in panels} for i in (0, 1))
    shape = len(directions), len(kinds)
    figure = Figure(figsize=(max(6.5, shape[1] * width + 1.6), shape[0] * max(2.4, height) + 1.2), layout="constrained")
    return figure, list(figure.subplots(*shape, squeeze=False).flat)


def _explain_directions(rows: pd.DataFrame) -> str:
    return " ".join(DIRECTIONS[direction] for direction in _list_present(rows["direction"], DIRECTIONS))


def name_pictures(folder: Path) -> list[dict[str, str]]:
    """Return `file` and `text` of the pictures that the report begins with: those of them that are in the folder."""
    texts = {
        "heads.png": "What each head restores (denoise) or takes away (noise), as a share of the gap",
        "positions.png": "Residual stream, attention and MLPs by layer: at the changed token, after it, at the last",
        "paths.png": "The strongest edges",
    }
    return [{"file": name, "text": text} for name, text in texts.items() if (folder / name).is_file()]
