"""Pictures of what closing each part of a network does to each class, on the test texts.

Each function draws one picture from the tables of `ablate.py`. `title` names the run and its texts; the function adds
what is shown, the fill and what the marks mean, so that each picture can be understood alone. Red is loss."""

from collections.abc import Iterable
from pathlib import Path
from textwrap import fill as wrapped

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lab import figures
from lab.figures import COLOURS, GREY, STYLE, by_head, colour_limit, frame, heat_maps, panel_grid, short
from lab.stats import LEVEL
from lab.texts import OVERALL

from .units import RANDOM
from .wording import ORDERS

LAYER_PARTS = {"heads": "all heads", "mlp": "MLP", "layer": "heads and MLP"}  # by kind
ATTENTION_KINDS = {"mask": "masked, the rest of the row rescaled", "cut": "cut, the rest as it was"}
METRICS = {"log_prob": "change of the log-probability\nof the true class (nats)", "accuracy": "change of the accuracy"}
LOG_PROB = "change of the log-probability of the true class (nats)"
MARGIN = "change of the specific margin (nats)"


@STYLE
def heads(effects: pd.DataFrame, significance: pd.DataFrame, fill: str, path: Path, title: str) -> None:
    """Draw layers by heads: the log-probability over all texts, then the specific margin of each class, on one scale.

    effects: columns `kind, layer, head, fill, split, class, metric, effect`; significance: `kind, layer, head, fill,
    class, p_holm`."""
    panels = _split_panels(_select_test(effects, ["head"], fill))
    maps = {label: by_head(rows, "effect") for label, rows in panels.items()}
    tested = significance[(significance["kind"] == "head") & (significance["fill"] == fill)]
    p = {str(label): by_head(rows, "p_holm") for label, rows in tested.groupby("class")}
    figure, grid = heat_maps(maps, "RdBu", (LOG_PROB, MARGIN), p)
    for axes in grid:
        axes.set(xlabel="head", ylabel="layer")
    frame(figure, f"{title}\neach head closed alone, fill: {fill}", _explain_dots(tested))
    figures.save(figure, path)


@STYLE
def layers(effects: pd.DataFrame, significance: pd.DataFrame, fill: str, path: Path, title: str) -> None:
    """Draw what closing the heads of each layer, its MLP or both does, with 95 % intervals; panels as in `heads`.

    effects: columns `kind, layer, fill, split, class, metric, effect, ci_low, ci_high`; significance: `kind, layer,
    fill, class, p_holm`."""
    panels = _split_panels(_select_test(effects, LAYER_PARTS, fill))
    tested = significance[significance["kind"].isin(LAYER_PARTS) & (significance["fill"] == fill)]
    p = tested.set_index(["kind", "layer", "class"])["p_holm"]
    figure, grid = panel_grid(len(panels), 2.8)
    for axes, (label, rows) in zip(grid, panels.items(), strict=True):
        for colour, (kind, name) in zip(COLOURS, LAYER_PARTS.items(), strict=False):
            part = rows[rows["kind"] == kind].set_index("layer")
            axes.plot(part.index, part["effect"], color=colour, label=name)
            axes.fill_between(part.index, part["ci_low"], part["ci_high"], color=colour, alpha=0.15, linewidth=0)
            survives = [p.get((kind, layer, label), 1) < LEVEL for layer in part.index]
            axes.plot(part.index[survives], part["effect"][survives], "o", markersize=5, color=colour)
        axes.axhline(0, color=GREY, linewidth=1)
        axes.set(title=short(label, len(panels)), xlabel="layer")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    limits = np.array([axes.get_ylim() for axes in grid[1:]])
    for axes in grid[1:]:
        axes.set_ylim(limits.min(), limits.max())
    grid[0].set_ylabel(wrapped(LOG_PROB, 30))
    grid[1].set_ylabel(wrapped(MARGIN, 20))
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right center")
    caption = f"Bands: 95 % intervals. {_explain_dots(tested)}"
    frame(figure, f"{title}\nparts of each layer closed, fill: {fill}", caption)
    figures.save(figure, path)


@STYLE
def regions(effects: pd.DataFrame, path: Path, title: str) -> None:
    """Draw regions of the attention maps by layer, masked before the softmax and cut after it. The first column is all
    layers at once. effects: columns `kind, layer, region, split, class, metric, effect`."""
    rows = _select_test(effects, ATTENTION_KINDS)
    rows = rows[(rows["class"] == OVERALL) & (rows["metric"] == "log_prob")]
    rows = rows.assign(layer=rows["layer"].fillna(-1))
    names, columns = rows["region"].unique(), sorted(rows["layer"].unique())
    cell = max(0.36, 2.8 / len(columns))
    figure = Figure(figsize=(3.5 + 2 * cell * len(columns), 0.3 * len(names) + 1.9), layout="constrained")
    grid = figure.subplots(1, len(ATTENTION_KINDS), sharey=True)
    for axes, (kind, panel_title) in zip(grid, ATTENTION_KINDS.items(), strict=True):
        values = rows[rows["kind"] == kind].pivot(index="region", columns="layer", values="effect")
        values = values.reindex(index=names, columns=columns).rename(columns={-1: "all"})
        figures.heat_map(axes, values, "RdBu", colour_limit([rows[["effect"]]]), cell, None)
        axes.set(title=panel_title, xlabel="layer", aspect="auto")
    figures.bar(figure, list(grid), wrapped(LOG_PROB, 36))
    frame(figure, f"{title}\nattention without a region", "all: in all layers at once. Grey: not measured.")
    figures.save(figure, path)


@STYLE
def words(effects: pd.DataFrame, path: Path, title: str) -> None:
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
    frame(figure, f"{title}\nwords hidden from all queries, by class of words", "Lines: 95 % intervals.")
    figures.save(figure, path)


@STYLE
def curves(table: pd.DataFrame, fill: str, majority: float, path: Path, title: str) -> None:
    """Draw the accuracy, and the recall of each class, by the number of heads closed, in each order.

    table: columns `order, closed, class, metric, value`; `majority` is the accuracy of always naming the most
    frequent class."""
    recalls = table[table["metric"] == "recall"]
    labels = list(recalls["class"].unique())
    rows, columns, width = figures.layout(len(labels))
    figure = Figure(figsize=(max(8, columns * width), 3.6 + 2 * rows), layout="constrained")
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=(3.6, 2 * rows)))
    axes = top.subplots()
    accuracy = table[(table["class"] == OVERALL) & (table["metric"] == "accuracy")]
    _draw_orders(axes, accuracy)
    axes.axhline(majority, color="black", linestyle=":", linewidth=1, label="most frequent class")
    axes.set(xlabel=f"heads closed, of {accuracy['closed'].max()}", ylabel="accuracy", ylim=(0, 1.02))
    top.legend(loc="outside right center")
    for axes, label in zip(figures._wrap(bottom, len(labels)), labels, strict=True):
        _draw_orders(axes, recalls[recalls["class"] == label])
        axes.set(title=short(label, len(labels)), ylim=(0, 1.02))
    bottom.supylabel("recall", fontsize=11)
    heading = f"{title}\nheads closed one after another, those that matter least first, fill: {fill}"
    frame(figure, heading, "Below: recall of each class, as many heads closed. Dots: measured.")
    figures.save(figure, path)


@STYLE
def interactions(table: pd.DataFrame, fill: str, path: Path, title: str) -> None:
    """Draw heads by heads how two interact: the mean over the classes of the absolute value, then each class.

    table: columns `first, second, fill, class, interaction`; heads are named layer.head."""
    rows = table[table["fill"] == fill]
    rows = pd.concat([rows, rows.rename(columns={"first": "second", "second": "first"})])
    names = sorted(rows["first"].unique(), key=lambda name: [int(number) for number in name.split(".")])
    maps = {"mean over the classes, absolute": _square(rows.assign(interaction=rows["interaction"].abs()), names)}
    maps |= {str(label): _square(of_class, names) for label, of_class in rows.groupby("class", sort=False)}
    figure, grid = heat_maps(maps, "Blues", ("absolute interaction (nats)", "interaction (nats)"), {})
    for axes in grid:
        axes.tick_params(axis="x", rotation=90)
    meaning = "Interaction: what two heads closed together do to the margin of the class, minus what each does alone."
    frame(figure, f"{title}\npairs of heads (layer.head) closed, fill: {fill}", f"{meaning} Not tested.")
    figures.save(figure, path)


def _explain_dots(tested: pd.DataFrame) -> str:
    survive = f"{(tested['p_holm'] < LEVEL).sum():,} of {len(tested):,}"
    return f"Dot: p < {LEVEL} after Holm's correction, {survive}; the log-probability over all texts is not tested."


def _select_test(effects: pd.DataFrame, kinds: Iterable[str], fill: str = "") -> pd.DataFrame:
    """Return the effects on test of these kinds of ablations, with this fill or, where none is named, with any."""
    rows = effects[(effects["split"] == "test") & effects["kind"].isin(list(kinds))]
    return rows[rows["fill"] == fill] if fill else rows


def _split_panels(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the log-probability over all texts, and then the specific margin of each class."""
    margins = rows[rows["metric"] == "specific_margin"]
    overall = rows[(rows["class"] == OVERALL) & (rows["metric"] == "log_prob")]
    return {OVERALL: overall} | {str(label): of_class for label, of_class in margins.groupby("class", sort=False)}


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
