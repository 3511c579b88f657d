"""The same texts reduced by each method, and what each map is worth beside a map of nothing.

`title` names the run and its texts; each function adds what is shown."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lab.figures import COLOURS, STYLE, add_heading, collect_marks, make_panels, save_twice

from .names import NETWORKS, name_layer, name_vectors

NAMES = {
    "pca": "PCA",
    "random_projection": "random projection",
    "mds": "MDS",
    "tsne": "t-SNE",
    "umap": "UMAP",
    "autoencoder": "auto-encoder",
    "variational_autoencoder": "variational a.-e.",
}
MARKERS = "o^sDvP"  # of classes beyond the seventh, beyond the fourteenth, ...
SIZE = 7  # of a point, in square points
SCORES = {  # as bars are headed
    "trustworthiness": "trustworthiness",
    "continuity": "continuity",
    "knn_recall_15": "recall of 15\nneighbours",
    "spearman": "rank correlation\nof distances",
    "stress1": "stress-1\n(less is better)",
    "class_knn": "class by 15\nneighbours",
}
WIDTH = 12.5  # inches of the bars
Row = dict[Hashable, Any]  # of the table `reductions`


@STYLE
def draw_reductions(
    folder: Path,
    reductions: pd.DataFrame,
    coordinates: pd.DataFrame,
    classes: Mapping[int, str],
    labels: Sequence[str],
    title: str,
) -> None:
    """Draw all maps of the same texts, a picture for each network; classes: that of each text, by its index."""
    for network, scores in reductions[reductions["dims"] == 2].groupby("model", sort=False):
        figure, grid = make_panels(len(scores), 3.1)
        for axes, row in zip(grid, scores.to_dict("records"), strict=True):
            points = coordinates[
                (coordinates["model"] == network)
                & (coordinates["method"] == row["method"])
                & (coordinates["parameters"] == row["parameters"])
            ]
            draw_points(axes, points, classes, labels)
            axes.set_title(describe_map(row), fontsize=9)
        add_classes(figure, labels)
        place = f"{name_layer(scores['layer'].iloc[0], coordinates['layer'].max())}, {name_vectors(scores)}"
        about = f"{title}\n{network} network, {place}: the same texts reduced by each method"
        caption = (
            "Beside each score, in brackets: the same method on permuted columns, which have no structure. Trust, "
            "cont.: trustworthiness and continuity at 15 neighbours; recall: share of the 15 nearest texts kept; "
            f"class: accuracy of the 15 nearest texts, {write_number(scores['class_knn_full'].max())} in all "
            "dimensions. R²: share of the variance that can be restored, of the texts that the method was fitted on. "
            "Distances between groups and their sizes mean nothing in t-SNE and UMAP."
        )
        add_heading(figure, about, caption)
        save_twice(figure, folder, f"reductions-{network}")


def draw_points(
    axes: Axes, points: pd.DataFrame, classes: Mapping[int, str], labels: Sequence[str], size: float = SIZE
) -> None:
    """Draw a point for each text, coloured by class, at the same scale in both directions."""
    number = np.array([labels.index(classes[index]) for index in points["index"]], int)
    for beyond, marker in enumerate(MARKERS):
        rows = number // len(COLOURS) % len(MARKERS) == beyond
        colours = [COLOURS[k % len(COLOURS)] for k in number[rows]]
        x, y = points["x"][rows], points["y"][rows]
        axes.scatter(x, y, s=size, c=colours, marker=marker, alpha=0.7, linewidths=0, rasterized=True)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xticks=[], yticks=[])
    axes.spines[["top", "right"]].set_visible(True)
    axes.spines[:].set_color("#CCCCCC")


def add_classes(figure: Figure, labels: Sequence[str]) -> None:
    """Add the legend of `draw_points`, beside the panels, and make room for it where classes are many or long."""
    marks = [
        Line2D([], [], linestyle="", marker=MARKERS[k // len(COLOURS) % len(MARKERS)], color=COLOURS[k % len(COLOURS)])
        for k in range(len(labels))
    ]
    width, height = figure.get_size_inches()
    wider = 0.08 * max(0, max(map(len, labels)) - 14)
    figure.set_size_inches(width + wider, max(height, 0.22 * len(labels) + 1.8))
    figure.legend(marks, list(labels), loc="outside right center", fontsize=9)


def describe_map(row: Row) -> str:
    """Return the lines above a map: its method and its scores, beside those of the null."""

    def beside(score: str) -> str:
        return f"{write_number(row[score])} ({write_number(row[f'null_{score}'])})"

    method = ", ".join(filter(None, [NAMES[row["method"]], row["parameters"].split(",")[0]]))
    restored = "" if np.isnan(row["reconstruction"]) else f", R² {write_number(row['reconstruction'])}"
    return (
        f"{method}{restored}\ntrust {beside('trustworthiness')}  cont. {beside('continuity')}\n"
        f"recall {beside('knn_recall_15')}  class {beside('class_knn')}"
    )


def write_number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"


@STYLE
def draw_quality(folder: Path, reductions: pd.DataFrame, title: str) -> None:
    """Draw the scores of all methods as bars, a colour for each network, with a mark where the null is."""
    networks = list(reductions["model"].unique())
    methods = list(dict.fromkeys(map(name_method, reductions.to_dict("records"))))
    figure = Figure(figsize=(WIDTH, 0.22 * len(methods) * len(networks) + 2.6), layout="constrained")
    grid = list(figure.subplots(1, len(SCORES), sharey=True))
    for axes, (score, heading) in zip(grid, SCORES.items(), strict=True):
        for k, network in enumerate(networks):
            rows = reductions[reductions["model"] == network]
            height, (colour, _) = 0.8 / len(networks), NETWORKS[network]
            y = (
                np.array([methods.index(name_method(row)) for row in rows.to_dict("records")])
                + (k + 0.5) * height
                - 0.4
            )
            axes.barh(y, rows[score], height * 0.9, color=colour, label=network)
            axes.plot(rows[f"null_{score}"], y, "|", color="black", markersize=9, markeredgewidth=2, label="null")
            if score == "class_knn":
                full = rows["class_knn_full"].max()
                axes.axvline(full, color=colour, linestyle=":", label=f"{network},\nall dimensions")
        axes.set_title(heading, fontsize=10)
        axes.set_xlim(min(0, axes.get_xlim()[0]), 1)
        axes.grid(axis="y", visible=False)
    grid[0].set_yticks(range(len(methods)), methods)
    grid[0].set_ylim(len(methods) - 0.5, -0.5)
    marks = collect_marks(grid)
    figure.legend(list(marks.values()), list(marks), loc="outside right center", fontsize=10)
    caption = (
        "Bars: what is left of the space in each map. Black marks: the same method on permuted columns, which have no "
        "structure: what is not beyond them is the method's, not the texts'."
    )
    place = f"layer {reductions['layer'].iloc[0]}, {name_vectors(reductions)}"
    add_heading(figure, f"{title}\nscores of the reductions, {place}", caption)
    save_twice(figure, folder, "quality")


def name_method(row: Row) -> str:
    """Return the method of a row as the bars call it."""
    dims = f"{row['dims']} dims" if row["dims"] != 2 else ""
    return ", ".join(filter(None, [NAMES[row["method"]], row["parameters"].split(",")[0], dims]))
