"""Draw where a network knows what: probes by layer and by head, the class lens, and what each component adds.

The tables are those of `tables.py`. `title` names the run and its texts; each function adds what is shown and what the
marks mean, so that each picture can be understood alone.
"""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill as wrapped

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.special import softmax

from lab import figures
from lab.figures import (
    CELL,
    COLOURS,
    GREY,
    SIGNED,
    STYLE,
    UNSIGNED,
    add_heading,
    draw_heat_map,
    draw_heat_maps,
    find_colour_limit,
    grid_shape,
    make_panels,
    panel_title,
    pivot_heads,
)

from .sources import BAG_OF_WORDS, MAJORITY, WORD_TYPE
from .tables import contrast_classes

READINGS = {  # line style and name
    "last": ("-", "last token of the text or word"),
    "word": ("-", "last token of the text or word"),
    "mean": ("--", "mean over the tokens of the text"),
}
NETWORKS = {"trained": (COLOURS[0], ""), "random": (COLOURS[1], "random weights, ")}  # colour and prefix
BASELINES = {MAJORITY: ("black", ":"), BAG_OF_WORDS: (GREY, "-."), WORD_TYPE: (COLOURS[2], "-.")}
ADDED = "own logit minus the others' mean"
SHOWN_LAYERS, SHOWN_TOKENS = 13, 40  # of one text, at most
CELL_WIDTH, CELL_HEIGHT = 0.75, 0.2  # inches, for the name of a class in small print
LONGEST = 11  # characters of a class that fit in a cell
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


@STYLE
def draw_layers(probes: pd.DataFrame, baselines: pd.DataFrame, path: Path, title: str) -> None:
    """Draw accuracy on the residual stream by layer, a panel for each property, with random weights and baselines.

    probes: columns `property, network, reading, kind, layer, accuracy, ci_low, ci_high`; baselines: `property,
    baseline, accuracy`."""
    rows = probes[probes["kind"] == "resid"].sort_values("layer", kind="stable")
    figure, grid = _draw_by_property(rows, "layer", baselines)
    for axes in grid:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    about = f"{title}\nprobes of the residual stream before each layer, and after the last"
    add_heading(figure, about, "Bands: 95 % intervals. A probe says what can be read there, not what is used.")
    figures.save(figure, path)


@STYLE
def draw_profiles(profiles: pd.DataFrame, baselines: pd.DataFrame, path: Path, title: str) -> None:
    """Draw accuracy by number of heads, a panel for each property.

    profiles: columns `property, reading, n_heads, accuracy, ci_low, ci_high`; baselines as in `draw_layers`."""
    rows = profiles.assign(network="trained").sort_values("n_heads", kind="stable")
    figure, grid = _draw_by_property(rows, "n_heads", baselines)
    numbers = sorted(rows["n_heads"].unique())
    for axes in grid:
        axes.set_xscale("log", base=2)
        axes.set_xticks(numbers, numbers)
        axes.set_xlabel("heads")
    about = f"{title}\nprobes of the best heads of each property, side by side"
    add_heading(figure, about, "Heads are ranked by the accuracy of each alone on val. Bands: 95 % intervals.")
    figures.save(figure, path)


@STYLE
def draw_heads(probes: pd.DataFrame, baselines: pd.DataFrame, path: Path, title: str) -> None:
    """Draw a map of layers by heads for each property, on its own scale: accuracy above the most frequent class.

    probes: columns `property, network, reading, kind, layer, head, accuracy`; baselines as in `draw_layers`."""
    rows = probes[(probes["kind"] == "head") & (probes["network"] == "trained") & (probes["reading"] != "mean")]
    majority = baselines[baselines["baseline"] == MAJORITY].set_index("property")["accuracy"]
    maps = {str(name): pivot_heads(accuracies, "accuracy") for name, accuracies in rows.groupby("property", sort=False)}
    n_layer, n_head = next(iter(maps.values())).shape
    _, columns, width = grid_shape(len(maps))
    cell = min(CELL, (width + 2 / columns - 0.6) / n_head)  # there is no scale in the 2 inches beside the panels
    figure, grid = make_panels(len(maps), cell * n_layer + 1.2)
    for axes, (name, accuracy) in zip(grid, maps.items(), strict=True):
        lowest, gain = majority[name], accuracy - majority[name]
        limit = find_colour_limit([gain.clip(lower=0)])
        draw_heat_map(axes, gain, UNSIGNED, limit, cell)
        scale = f"{lowest:.2f} (white) to {lowest + limit:.2f}" if (gain > 0).any(axis=None) else "none is better"
        axes.set(title=f"{panel_title(name, len(maps))}\n{scale}", xlabel="head", ylabel="layer")
    caption = (
        "Accuracy of a probe of each head's output at the last token; white: no better than the most frequent class. "
        "The number in a cell says how far above that the probe is."
    )
    add_heading(figure, f"{title}\nprobes of each head alone", caption)
    figures.save(figure, path)


@STYLE
def draw_lens(lens: pd.DataFrame, path: Path, title: str) -> None:
    """Draw the accuracy of the class lens by layer, and the share of texts that are decided, over all and by class.

    lens: columns `class, layer, accuracy, ci_low, ci_high, decided`."""
    panels = list(lens.sort_values("layer", kind="stable").groupby("class", sort=False))
    figure, grid = make_panels(len(panels), 2.6)
    for axes, (label, rows) in zip(grid, panels, strict=True):
        _draw_curve(axes, rows, "layer", COLOURS[0], "-", "right class")
        axes.plot(rows["layer"], rows["decided"], "--", color=COLOURS[1], label="decided: stays\nso up to the end")
        axes.set(title=panel_title(str(label), len(panels)), xlabel="layer", ylim=(0, 1.02))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    grid[0].set_ylabel("share of the texts")
    _add_legend(figure, grid)
    about = f"{title}\nclass lens: the trained head on the residual stream before each layer, and after the last"
    add_heading(
        figure, about, "At the last token. Band: 95 % interval. The head was trained on what leaves the last layer."
    )
    figures.save(figure, path)


@STYLE
def draw_contributions(table: pd.DataFrame, labels: Sequence[str], path: Path, title: str) -> None:
    """Draw a map of layers by heads for each class, MLPs beside them: what each adds directly towards that class.

    table: columns `kind, layer, head, class, logit, mean`; labels: the classes, in order."""
    rows = contrast_classes(table[table["kind"].isin(["head", "mlp"])])
    rows = rows.assign(head=rows["head"].fillna(-1))  # the MLPs
    panels = {"mean over the classes": rows.groupby(["layer", "head"])[["inside"]].mean().reset_index()}
    panels |= {label: rows[rows["class"] == label] for label in labels if label in set(rows["class"])}
    maps = {name: pivot_heads(added, "inside").rename(columns={-1: "MLP"}) for name, added in panels.items()}
    figure, grid = draw_heat_maps(maps, SIGNED, (ADDED, ADDED))
    for axes in grid:
        axes.axvline(0.5, color="black", linewidth=1)  # between the MLPs and the heads
        axes.set(xlabel="head", ylabel="layer")
    about = f"{title}\nwhat each head and MLP adds to the logit of a text's class, at the last token"
    caption = (
        "Mean over the texts of each class. Direct: through the final LayerNorm, its scale frozen; not through later "
        "layers. The embedding and the biases are not shown."
    )
    add_heading(figure, about, caption)
    figures.save(figure, path)


@STYLE
def draw_texts(
    chosen: Sequence[tuple[Sequence[str], str, NDArray[np.floating]]],
    labels: Sequence[str],
    path: Path,
    title: str,
) -> None:
    """Draw the class lens of each text, tokens by layers: the likeliest class, in a stronger colour if it is likelier.

    chosen: for each text the pieces of its T tokens, its label, and the logits of the lens, float (T, L + 1, K)."""
    last = chosen[0][2].shape[1] - 1
    shown = np.unique(np.linspace(0, last, min(last + 1, SHOWN_LAYERS)).round().astype(int))
    columns = min(2, len(chosen))
    heights = [CELL_HEIGHT * min(len(pieces), SHOWN_TOKENS) + 0.7 for pieces, _, _ in chosen]
    rows = [max(heights[i : i + columns]) for i in range(0, len(chosen), columns)]
    figure = Figure(figsize=(columns * (CELL_WIDTH * len(shown) + 1.4), sum(rows) + 1.2), layout="constrained")
    grid = list(figure.subplots(len(rows), columns, squeeze=False, height_ratios=rows).flat)
    for axes in grid[len(chosen) :]:
        axes.remove()
    for axes, (pieces, label, logits) in zip(grid, chosen, strict=False):
        _draw_text(axes, pieces, logits[:, shown], labels)
        end = f", its last {SHOWN_TOKENS} of {len(pieces)} tokens" if len(pieces) > SHOWN_TOKENS else ""
        axes.set_title(wrapped(f"a text of {label}{end}", 60))
        axes.set_xticks(range(len(shown)), shown)
        axes.set_xlabel("layer")
    about = f"{title}\nclass lens at every token; of each class at most one short text, classified right"
    caption = (
        "The likeliest class by the residual stream before each layer; the stronger a colour, the likelier. "
        f"Layer {last}: after the last; its lowest row is the answer."
    )
    add_heading(figure, about, caption)
    figures.save(figure, path)


def _draw_text(axes: Axes, pieces: Sequence[str], logits: NDArray[np.floating], labels: Sequence[str]) -> None:
    """Draw one text: logits (T, layers, K)."""
    probabilities = softmax(logits[-SHOWN_TOKENS:], axis=-1)
    predicted, strength = probabilities.argmax(-1), probabilities.max(-1)
    colours = np.array([to_rgb(COLOURS[k % len(COLOURS)]) for k in range(len(labels))])
    cells = 1 - strength[..., None] * (1 - colours[predicted])
    ink = np.where(cells @ LUMINANCE < 0.4, "white", "black")
    axes.imshow(cells, aspect="auto")
    for (row, column), k in np.ndenumerate(predicted):
        name = " ".join(labels[k].split())
        name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        axes.text(column, row, name, ha="center", va="center", fontsize=7, color=ink[row, column])
    tokens = [repr(piece)[1:-1].replace(" ", "·") for piece in pieces[-SHOWN_TOKENS:]]
    axes.set_yticks(range(len(tokens)), tokens, fontsize=8)
    axes.grid(visible=False)


def _draw_by_property(rows: pd.DataFrame, x: str, baselines: pd.DataFrame) -> tuple[Figure, list[Axes]]:
    """Draw a panel for each property: accuracy by column x for each network and reading, and a line per baseline."""
    names = list(rows["property"].unique())
    figure, grid = make_panels(len(names), 3)
    for axes, name in zip(grid, names, strict=True):
        probes = rows[rows["property"] == name]
        for (network, reading), curve in probes.groupby(["network", "reading"], sort=False):
            (colour, prefix), (line, where) = NETWORKS[str(network)], READINGS[str(reading)]
            _draw_curve(axes, curve, x, colour, line, prefix + where)
        for row in baselines[baselines["property"] == name].itertuples():
            colour, line = BASELINES[row.baseline]
            axes.axhline(row.accuracy, color=colour, linestyle=line, linewidth=1.2, label=row.baseline)
        axes.set(title=panel_title(name, len(names)), xlabel=x)
    grid[0].set_ylabel("accuracy")
    _add_legend(figure, grid)
    return figure, grid


def _draw_curve(axes: Axes, rows: pd.DataFrame, x: str, colour: str, line: str, name: str) -> None:
    """Draw accuracy by column x, with its interval as a band."""
    axes.plot(rows[x], rows["accuracy"], line, marker=".", color=colour, label=wrapped(name, 20))
    axes.fill_between(rows[x], rows["ci_low"], rows["ci_high"], color=colour, alpha=0.15, linewidth=0)


def _add_legend(figure: Figure, grid: Sequence[Axes]) -> None:
    """Add one legend of everything that any of the panels shows."""
    marks = {name: mark for axes in grid for mark, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(marks.values()), list(marks), loc="outside right center")
