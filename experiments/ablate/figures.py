"""Pictures of what closing each part of a network does to each class, on the test texts.

Each function draws one picture from the tables of `ablate.py`. `title` names the run and its texts; the function adds
what is shown, the fill and what the marks mean, so that each picture can be understood alone. Red is loss."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import fill as wrapped

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from lab import figures
from lab.figures import (
    COLOURS,
    GREY,
    MANY,
    NUMBER,
    SIGNED,
    STYLE,
    UNSIGNED,
    add_heading,
    add_panels,
    draw_heat_map,
    draw_heat_maps,
    draw_scale,
    find_colour_limit,
    grid_shape,
    make_map_panels,
    make_panels,
    mark_cells,
    panel_title,
    pivot_heads,
)
from lab.texts import OVERALL
from lab.units import RANDOM, head_name

from .wording import ORDERS

LAYER_PARTS = {"heads": "all heads", "mlp": "MLP", "layer": "heads and MLP"}  # by kind
ATTENTION_KINDS = {"mask": "masked, the rest of the row rescaled", "cut": "cut, the rest as it was"}
METRICS = {"log_prob": "change of the log-probability\nof the true class (nats)", "accuracy": "change of the accuracy"}
LOG_PROB = "change of the log-probability of the true class (nats)"
SHARE = "change of the class's margin (%)"
SHARES = ["share", "share_low", "share_high"]


@STYLE
def draw_heads(verdicts: pd.DataFrame, fill: str, path: Path, title: str) -> None:
    """Draw layers by heads, on one scale, what closing each head does to each class.

    verdicts: columns `kind, layer, head, fill, class, share, verdict, specific`."""
    rows = _select_percent(verdicts, ["head"], fill)
    panels = {str(label): of_class for label, of_class in rows.groupby("class", sort=False)}
    maps = {label: pivot_heads(of_class, "share") for label, of_class in panels.items()}
    figure, grid, cell = make_map_panels(len(maps), *next(iter(maps.values())).shape)
    limit = find_colour_limit(maps.values())
    for axes, (label, values) in zip(grid, maps.items(), strict=True):
        draw_heat_map(axes, values, SIGNED, limit, cell)
        axes.set(title=panel_title(label, len(maps)), xlabel="head", ylabel="layer")
        _mark_cells(axes, panels[label], cell)
    draw_scale(figure, grid, SHARE)
    add_heading(figure, f"{title}\neach head closed alone, confidence set aside, fill: {fill}", _explain_marks(rows))
    figures.save(figure, path)


def _mark_cells(axes: Axes, rows: pd.DataFrame, cell: float) -> None:
    """Put a dot on the heads that matter, and a frame around those that are specific."""
    matters = rows[rows["verdict"] == "matters"]
    x, y = matters["head"].to_numpy(float), matters["layer"].to_numpy(float)
    corner = 0.36 if cell >= NUMBER else 0
    axes.scatter(x + corner, y - corner, s=9, c="black", edgecolors="white", linewidths=0.7)
    specific = matters["specific"].fillna(False).to_numpy(bool)
    for head, layer in zip(x[specific], y[specific], strict=True):
        axes.add_patch(Rectangle((head - 0.46, layer - 0.46), 0.92, 0.92, fill=False, linewidth=1.6, zorder=3))


@STYLE
def draw_controls(
    verdicts: pd.DataFrame, controls: pd.DataFrame, fill: str, least: float, path: Path, title: str
) -> None:
    """Draw the heads of each layer beside random subspaces of that layer, for each class.

    verdicts: as in `draw_heads`; controls: columns `kind, layer, draw, class, fill, split, share`, shares of test."""
    heads = _select_percent(verdicts, ["head"], fill)
    random = _select_percent(controls[controls["split"] == "test"], ["head"], fill)
    labels = list(heads["class"].unique())
    figure, grid = make_panels(len(labels), 3.2)
    for axes, label in zip(grid, labels, strict=True):
        of_class, of_random = heads[heads["class"] == label], random[random["class"] == label]
        spread = of_random.groupby("layer")["draw"].transform(lambda draw: draw / max(1, draw.max()))
        axes.plot(of_random["layer"] + 0.1 + 0.3 * spread, of_random["share"], ".", color=GREY, markersize=3)
        for colour, matters in ((COLOURS[0], False), (COLOURS[3], True)):
            shown = of_class[(of_class["verdict"] == "matters") == matters]
            axes.plot(shown["layer"] - 0.2, shown["share"], "o", color=colour, markersize=4.5)
        _draw_least(axes, least)
        axes.set(title=panel_title(label, len(labels)), xlabel="layer", xlim=(-0.9, of_class["layer"].max() + 0.6))
        axes.xaxis.set_major_locator(MaxNLocator(12 if len(labels) <= MANY else 6, integer=True))
    _share_limits(grid)
    for axes, label in zip(grid, labels, strict=True):
        _number_heads(axes, heads[(heads["class"] == label) & (heads["verdict"] == "matters")])
    figure.supylabel(SHARE, fontsize=11)
    caption = "Left of each layer: its heads; those that matter are red, with their number where there is room. Right "
    caption += "of it, in grey: random subspaces of what its heads emit, each as wide as a head. Dotted: the least "
    caption += "change of interest."
    heading = f"{title}\neach head closed alone, beside random parts of its size, confidence set aside, fill: {fill}"
    add_heading(figure, heading, caption)
    figures.save(figure, path)


def _number_heads(axes: Axes, rows: pd.DataFrame) -> None:
    """Write the numbers of heads beside their dots, the largest shares first; none that would lie on another one."""
    low, high = axes.get_ylim()
    apart = 0.055 * (high - low)
    for _, of_layer in rows.sort_values("share", key=abs, ascending=False, kind="stable").groupby("layer"):
        heights: list[float] = []
        for head, share in zip(of_layer["head"], of_layer["share"], strict=True):
            if all(abs(share - height) > apart for height in heights):
                at = (of_layer["layer"].iloc[0] - 0.3, share)
                axes.annotate(str(head), at, ha="right", va="center", fontsize=8)
                heights.append(share)


@STYLE
def draw_layers(verdicts: pd.DataFrame, fill: str, least: float, path: Path, title: str) -> None:
    """Draw what closing the heads of each layer, its MLP or both does to each class, with simultaneous 95 % limits.

    verdicts: columns `kind, layer, fill, class, share, share_low, share_high, verdict`."""
    rows = _select_percent(verdicts, LAYER_PARTS, fill)
    labels = list(rows["class"].unique())
    figure, grid = make_panels(len(labels), 2.8)
    for axes, label in zip(grid, labels, strict=True):
        for colour, (kind, name) in zip(COLOURS, LAYER_PARTS.items(), strict=False):
            part = rows[(rows["kind"] == kind) & (rows["class"] == label)].set_index("layer")
            axes.plot(part.index, part["share"], color=colour, label=name)
            axes.fill_between(part.index, part["share_low"], part["share_high"], color=colour, alpha=0.15, linewidth=0)
            matters = part["share"][part["verdict"] == "matters"]
            axes.plot(matters.index, matters, "o", markersize=5, color=colour)
        _draw_least(axes, least)
        last = rows["layer"].max()  # of all classes: one without texts has no line
        axes.set(title=panel_title(label, len(labels)), xlabel="layer", xlim=(-0.3, last + 0.3))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _share_limits(grid)
    figure.supylabel(SHARE, fontsize=11)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right center")
    caption = f"Bands: 95% limits, for all at once. Dotted: the least change of interest. {_explain_marks(rows)}"
    add_heading(figure, f"{title}\nparts of each layer closed, confidence set aside, fill: {fill}", caption)
    figures.save(figure, path)


def _draw_least(axes: Axes, least: float) -> None:
    """Draw 0, and the least shares of interest."""
    axes.axhline(0, color=GREY, linewidth=1)
    for sign in (-1, 1):
        axes.axhline(100 * sign * least, color=GREY, linewidth=1, linestyle=":")


def _share_limits(grid: list[Axes]) -> None:
    """Give all panels the same limits."""
    limits = np.array([axes.get_ylim() for axes in grid])
    for axes in grid:
        axes.set_ylim(limits[:, 0].min(), limits[:, 1].max())


@STYLE
def draw_regions(effects: pd.DataFrame, path: Path, title: str) -> None:
    """Draw regions of the attention maps by layer, masked before the softmax and cut after it. The first column is all
    layers at once. effects: columns `kind, layer, region, split, class, metric, effect`."""
    rows = _select_test(effects, ATTENTION_KINDS)
    rows = rows[(rows["class"] == OVERALL) & (rows["metric"] == "log_prob") & ~rows["region"].str.startswith(RANDOM)]
    rows = rows.assign(layer=rows["layer"].fillna(-1))
    names, columns = rows["region"].unique(), sorted(rows["layer"].unique())
    cell = max(0.36, 2.8 / len(columns))
    figure = Figure(figsize=(3.5 + 2 * cell * len(columns), 0.3 * len(names) + 1.9), layout="constrained")
    grid = figure.subplots(1, len(ATTENTION_KINDS), sharey=True)
    for axes, (kind, kind_title) in zip(grid, ATTENTION_KINDS.items(), strict=True):
        values = rows[rows["kind"] == kind].pivot(index="region", columns="layer", values="effect")
        values = values.reindex(index=names, columns=columns).rename(columns={-1: "all"})
        draw_heat_map(axes, values, SIGNED, find_colour_limit([rows[["effect"]]]), cell)
        axes.set(title=kind_title, xlabel="layer", aspect="auto")
    draw_scale(figure, list(grid), wrapped(LOG_PROB, 36))
    add_heading(figure, f"{title}\nattention without a region", "all: in all layers at once. Grey: not measured.")
    figures.save(figure, path)


@STYLE
def draw_words(effects: pd.DataFrame, path: Path, title: str) -> None:
    """Draw what hiding each class of words does, and hiding as many random tokens, with 95 % intervals.

    effects: columns `kind, region, split, class, metric, effect, ci_low, ci_high`."""
    rows = _select_test(effects, ["words"])
    rows = rows[rows["class"] == OVERALL].set_index(["metric", "region"])
    names = [name for name in rows.index.unique("region") if not name.startswith(RANDOM)]
    figure = Figure(figsize=(11, 0.5 * len(names) + 2), layout="constrained")
    grid = figure.subplots(1, len(METRICS), sharey=True)
    y = np.arange(len(names))
    for axes, (metric, xlabel) in zip(grid, METRICS.items(), strict=True):
        for colour, label, prefix, shift in (
            (COLOURS[0], "words of the class", "", -0.13),
            (GREY, "as many random tokens", RANDOM, 0.13),
        ):
            shown = rows.loc[metric].reindex([prefix + name for name in names])
            axes.plot(shown["effect"], y + shift, "o", color=colour, label=label)
            axes.hlines(y + shift, shown["ci_low"], shown["ci_high"], color=colour)
        axes.axvline(0, color="black", linewidth=1)
        axes.set(xlabel=xlabel, yticks=y, yticklabels=names, ylim=(len(names) - 0.5, -0.5))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(visible=False, axis="y")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right center")
    add_heading(figure, f"{title}\nwords hidden from all queries, by class of words", "Lines: 95% intervals.")
    figures.save(figure, path)


@STYLE
def draw_curves(table: pd.DataFrame, fill: str, majority: float, path: Path, title: str) -> None:
    """Draw the accuracy, and the recall of each class, by the number of heads closed, in each order.

    table: columns `order, closed, class, metric, value`; `majority` is the accuracy of always naming the most
    frequent class."""
    recalls = table[table["metric"] == "recall"]
    labels = list(recalls["class"].unique())
    rows, columns, width = grid_shape(len(labels))
    figure = Figure(figsize=(max(8, columns * width), 3.6 + 2 * rows), layout="constrained")
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=(3.6, 2 * rows)))
    axes = top.subplots()
    accuracy = table[(table["class"] == OVERALL) & (table["metric"] == "accuracy")]
    _draw_orders(axes, accuracy)
    axes.axhline(majority, color="black", linestyle=":", linewidth=1, label="most frequent class")
    axes.set(xlabel=f"heads closed, of {accuracy['closed'].max()}", ylabel="accuracy", ylim=(0, 1.02))
    top.legend(loc="outside right center")
    for axes, label in zip(add_panels(bottom, len(labels)), labels, strict=True):
        _draw_orders(axes, recalls[recalls["class"] == label])
        axes.set(title=panel_title(label, len(labels)), ylim=(0, 1.02))
    bottom.supylabel("recall", fontsize=11)
    heading = f"{title}\nheads closed one after another, those that matter least first, fill: {fill}"
    add_heading(figure, heading, "Below: recall of each class, as many heads closed. Dots: measured.")
    figures.save(figure, path)


@STYLE
def draw_interactions(table: pd.DataFrame, fill: str, path: Path, title: str) -> None:
    """Draw heads by heads how two interact: the mean over the classes of the absolute value, then each class.

    table: columns `first, second, fill, class, interaction`; heads are named layer.head."""
    rows = table[table["fill"] == fill]
    rows = pd.concat([rows, rows.rename(columns={"first": "second", "second": "first"})])
    names = sorted(rows["first"].unique(), key=lambda name: [int(number) for number in name.split(".")])
    maps = {"mean over the classes, absolute": _square(rows.assign(interaction=rows["interaction"].abs()), names)}
    maps |= {str(label): _square(of_class, names) for label, of_class in rows.groupby("class", sort=False)}
    figure, grid = draw_heat_maps(maps, UNSIGNED, ("absolute interaction (nats)", "interaction (nats)"))
    for axes in grid:
        axes.tick_params(axis="x", rotation=90)
    meaning = "Interaction: what two heads closed together do to the margin of the class, minus what each does alone."
    add_heading(figure, f"{title}\npairs of heads (layer.head) closed, fill: {fill}", f"{meaning} Not tested.")
    figures.save(figure, path)


@STYLE
def draw_gates(importance: pd.DataFrame, sets: pd.DataFrame, fill: str, path: Path, title: str) -> None:
    """Draw layers by heads how probable it is that a learnt gate is open, for each class; dots: the learnt set.

    importance: columns `layer, head, class, learnt`; sets: columns `class, chosen, split, set, heads`."""
    rows = importance[importance["learnt"].notna()]
    panels = {str(label): of_class for label, of_class in rows.groupby("class", sort=False)}
    learnt = sets[(sets["split"] == "test") & (sets["set"] == "learnt")].set_index("class")["heads"]
    figure, grid, cell = make_map_panels(len(panels), *pivot_heads(next(iter(panels.values())), "learnt").shape)
    for axes, (label, of_class) in zip(grid, panels.items(), strict=True):
        draw_heat_map(axes, pivot_heads(of_class, "learnt"), UNSIGNED, 1, cell)
        axes.set(title=panel_title(label, len(panels)), xlabel="head", ylabel="layer")
        names = [head_name(head) for head in zip(of_class["layer"], of_class["head"], strict=True)]
        mark_cells(axes, of_class[np.isin(names, learnt[label].split())], cell)
    draw_scale(figure, grid, "probability of being open")
    caption = (
        "Mean over all penalties and seeds. Dot: in the learnt set, with the penalty and of the seed that val chose."
    )
    add_heading(
        figure, f"{title}\ngates of all heads, learnt together, each open head at a price, fill: {fill}", caption
    )
    figures.save(figure, path)


def _explain_marks(rows: pd.DataFrame) -> str:
    matters = rows["verdict"] == "matters"
    text = f"Dot: matters, {matters.sum():,} of {len(rows):,}: the 95% limits, for all at once, lie beyond the least "
    text += "change of interest."
    if rows["specific"].notna().any():
        number = rows.loc[matters, "specific"].fillna(False).sum()
        text += f" Frame: specific, {number:,} of these: they do more than 95% of the random subspaces of their layer."
    return text


def _select_percent(table: pd.DataFrame, kinds: Iterable[str], fill: str) -> pd.DataFrame:
    """Return the rows of these kinds with this fill, shares in percent, ordered by layer."""
    rows = table[table["kind"].isin(list(kinds)) & (table["fill"] == fill)].sort_values("layer", kind="stable")
    shares = [name for name in SHARES if name in rows]
    return rows.assign(**(100 * rows[shares]))


def _select_test(effects: pd.DataFrame, kinds: Iterable[str], fill: str = "") -> pd.DataFrame:
    """Return the effects on test of these kinds of ablations, with this fill or, where none is named, with any."""
    rows = effects[(effects["split"] == "test") & effects["kind"].isin(list(kinds))]
    return rows[rows["fill"] == fill] if fill else rows


def _square(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return heads by heads the mean interaction of these rows."""
    return rows.pivot_table(index="first", columns="second", values="interaction").reindex(index=names, columns=names)


def _draw_orders(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw values by the number of closed heads; of the random orders their mean, and the range as a band."""
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for colour, (order, name) in zip(COLOURS, ORDERS.items(), strict=False):
        curve = rows[rows["order"] == order]
        axes.plot(curve["closed"], curve["value"], ".-", color=colour, label=name)
    random = rows[~rows["order"].isin(ORDERS)].groupby("closed")["value"]
    mean = random.mean()
    axes.plot(mean.index, mean, ".-", color=GREY, label="at random: mean and range")
    axes.fill_between(mean.index, random.min(), random.max(), color=GREY, alpha=0.2, linewidth=0)


def draw_all(
    folder: Path, tables: Mapping[str, pd.DataFrame], majority: float, least: float, titles: Mapping[str, str]
) -> None:
    """Draw one picture for each kind of units and fill, and those of the follow-up questions that were asked.

    titles: of pictures of `test` and of `val`."""
    effects, verdicts, controls, title = tables["effects"], tables["verdicts"], tables["controls"], titles["test"]
    for kind, fill in effects[["kind", "fill"]].drop_duplicates().itertuples(index=False):
        if kind == "head":
            draw_heads(verdicts, fill, folder / f"heads_{fill}.png", title)
            if "head" in set(controls["kind"]):
                draw_controls(verdicts, controls, fill, least, folder / f"controls_{fill}.png", title)
        elif kind == "layer":
            draw_layers(verdicts, fill, least, folder / f"layers_{fill}.png", title)
        elif kind == "mask":
            draw_regions(effects, folder / "regions.png", title)
        elif kind == "words":
            draw_words(effects, folder / "words.png", title)
        elif kind == "pair":
            draw_interactions(tables["interactions"], fill, folder / "interactions.png", title)
    fill = effects.loc[effects["kind"] == "head", "fill"].iloc[0] if "importance" in tables else ""
    if "curves" in tables:
        draw_curves(tables["curves"], fill, majority, folder / "curves.png", title)
    if "gates" in tables:
        draw_gates(tables["importance"], tables["learnt_sets"], fill, folder / "gates.png", titles["val"])


def name_pictures(folder: Path, fill: str) -> list[dict[str, str]]:
    """Return `file` and `text` of the pictures that a report begins with: those of heads that are in the folder."""
    texts = {
        f"heads_{fill}.png": "What closing each head does to each class: dots matter, frames are specific",
        f"controls_{fill}.png": "The heads of each layer beside random subspaces of the same size",
    }
    return [{"file": name, "text": text} for name, text in texts.items() if (folder / name).is_file()]
