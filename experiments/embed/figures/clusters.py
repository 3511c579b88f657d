"""Clusters beside classes, beside each other, and beside chance.

`title` names the run and its texts; each function adds what is shown, so that each picture can be understood alone."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill as wrapped
from textwrap import shorten

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.cluster.hierarchy import dendrogram

from lab.figures import (
    COLOURS,
    GREY,
    NUMBER,
    STYLE,
    UNSIGNED,
    add_heading,
    collect_marks,
    draw_heat_map,
    draw_scale,
    save_twice,
)

from ..clustering import METHODS
from ..clusters import NULL_COLUMNS, SWEEP
from .names import NETWORKS

WIDTH = 11  # inches
NULL_MARKS = {"permuted": ("permuted vectors", "|"), "cloud": ("one cloud", "x")}  # name and mark
SCORES = {  # columns of the scores
    "silhouette": "silhouette",
    "ami": "AMI with the classes",
    "coverage": "texts in clusters",
    "stability_subsample": "stability",
}
SWEPT = {"k": "clusters", "coverage": "texts in clusters", "silhouette": "silhouette", "ami": "AMI with the classes"}
MOST_CLUSTERS = 30  # of a heat map


@STYLE
def draw_crosstab(folder: Path, crosstab: pd.DataFrame, title: str) -> None:
    """Draw the share of each class in each cluster by k-means, a panel for each network: side by side, or one below the
    other where classes are so many that numbers have no room."""
    of_kmeans = crosstab[crosstab["method"] == "kmeans"]
    rows = of_kmeans[of_kmeans["cluster"] < MOST_CLUSTERS]
    panels, labels = dict(list(rows.groupby("model", sort=False))), list(rows["class"].unique())
    shape, height, cell = (1, len(panels)), 0.5 * rows["cluster"].nunique(), (WIDTH / len(panels) - 2.6) / len(labels)
    if stacked := cell < NUMBER:
        shape, height, cell = (len(panels), 1), 0.2 * len(rows) / len(labels), (WIDTH - 4) / len(labels)
    figure = Figure(figsize=(WIDTH, height + 2.4), layout="constrained")
    grid = list(figure.subplots(*shape, squeeze=False, sharex=stacked).flat)
    for axes, (model, of_model) in zip(grid, panels.items(), strict=True):
        draw_shares(axes, of_model, labels, cell, stacked)
        axes.set_title(model)
    if stacked:
        draw_scale(figure, grid, "share of the cluster's texts")
    n_clusters = of_kmeans["cluster"].nunique()
    largest = f"The {MOST_CLUSTERS} largest of {n_clusters} clusters. " if n_clusters > MOST_CLUSTERS else ""
    caption = largest + (
        "A cell is the share of a cluster's texts that have the class; each row sums to 1. Names are the three words "
        "with the highest log-odds against all other texts. Clusters that have nothing to do with the classes have "
        "rows alike."
    )
    add_heading(figure, f"{title}\nclusters by k-means, and the classes of their texts", caption)
    save_twice(figure, folder, "crosstab")


def draw_shares(axes: Axes, rows: pd.DataFrame, labels: Sequence[str], cell: float, short: bool) -> None:
    """Draw clusters by classes, each cell so many inches wide; `short` names take one line."""
    shares = rows.pivot(index="cluster", columns="class", values="share")[labels]
    sizes, names = rows.groupby("cluster")["n"].sum(), rows.groupby("cluster")["name"].first()
    draw_heat_map(axes, shares, UNSIGNED, 1, cell)
    lines = [f"{shorten(names[i], 44, placeholder='…')}, {sizes[i]} texts" for i in shares.index]
    if not short:
        lines = [f"{wrapped(names[i], 26)}\n{sizes[i]} texts" for i in shares.index]
    axes.set_aspect("auto")
    axes.set_yticks(range(len(shares)), lines, fontsize=8 if short else 9)
    axes.set_xticks(range(len(labels)), labels, fontsize=9, rotation=45, ha="right", rotation_mode="anchor")


@STYLE
def draw_dendrogram(folder: Path, merges: pd.DataFrame, k: int, title: str) -> None:
    """Draw the dendrogram of each network, cut into k clusters; merges: as `merges.py` lists them."""
    panels = dict(list(merges.groupby("model", sort=False)))
    n_leaves = max((nodes["leaves"] == 1).sum() for nodes in panels.values())
    n_clusters = min(k, n_leaves)
    figure = Figure(figsize=(WIDTH, 0.21 * n_leaves + 2), layout="constrained")
    for axes, (model, nodes) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        draw_tree(axes, nodes.set_index("node"), k)
        axes.set(title=str(model), xlabel="distance of what is joined (Ward)")
    caption = (
        "The last merges by Ward's method; a leaf is a group of texts that are joined already, with its most frequent "
        f"class, behind the number of its cluster: there are {n_clusters}, in {min(n_clusters, len(COLOURS))} colours; "
        "grey: joins them. Heights of two networks do not compare."
    )
    add_heading(figure, f"{title}\nwhich groups of texts are nearest to each other", caption)
    save_twice(figure, folder, "dendrogram")


def draw_tree(axes: Axes, nodes: pd.DataFrame, k: int) -> None:
    """Draw one dendrogram from left (the root) to right."""
    leaves, joins = nodes[nodes["left"].isna()], nodes[nodes["left"].notna()]
    clusters = number_clusters(nodes, k)
    colours = {node: COLOURS[(cluster - 1) % len(COLOURS)] if cluster else GREY for node, cluster in clusters.items()}
    names = [
        f"{clusters[int(node)]}: {label} {share:.0%} of {size}"
        for node, label, share, size in leaves[["label", "share", "size"]].itertuples()
    ]
    order, places = [0], np.array([5])
    if len(joins):
        table = joins[["left", "right", "height", "leaves"]].to_numpy(float)
        tree = dendrogram(table, no_plot=True, link_color_func=lambda node: colours[node])
        for y, x, colour in zip(tree["icoord"], tree["dcoord"], tree["color_list"], strict=True):
            axes.plot(x, y, color=colour, linewidth=1.4)
        order, places = [int(i) for i in tree["ivl"]], 10 * np.arange(len(leaves)) + 5
    ends = [colours[i] for i in order]  # a cluster of one leaf has no line but this
    axes.scatter(np.zeros(len(order)), places, c=ends, marker="s", s=26, clip_on=False, zorder=3)
    axes.set_yticks(places, [names[i] for i in order], fontsize=8)
    axes.yaxis.tick_right()
    axes.set_xlim(nodes["height"].max() * 1.03 or 1, 0)
    axes.tick_params(axis="y", length=0, pad=6)
    axes.spines[["left", "right"]].set_visible(False)
    axes.grid(axis="y", visible=False)


def number_clusters(nodes: pd.DataFrame, k: int) -> dict[int, int]:
    """Return the cluster of each node: 1 .. k from top to bottom of the picture, 0 above the cut.

    nodes: by number, as `merges.py` lists them; the last one is the root."""
    pairs = nodes[["right", "left"]].dropna().astype(int)  # the left one is drawn below
    joined = dict(zip(pairs.index.tolist(), pairs.to_numpy().tolist(), strict=True))
    tops = [len(nodes) - 1]
    while len(tops) < k and max(tops) in joined:  # the highest has the largest number
        at = tops.index(max(tops))
        tops[at : at + 1] = joined[tops[at]]
    clusters = dict.fromkeys(range(len(nodes)), 0)
    for cluster, top in enumerate(tops, 1):
        below = [top]
        while below:
            node = below.pop()
            clusters[node] = cluster
            below += joined.get(node, ())
    return clusters


@STYLE
def draw_scores(folder: Path, clusters: pd.DataFrame, title: str) -> None:
    """Draw the scores of each method and network, and those of vectors without groups."""
    rows = clusters[(clusters["method"] != SWEEP) & clusters["noise"].isin(["none", "one class"])]
    models = [model for model in NETWORKS if model in set(rows["model"])]
    figure = Figure(figsize=(WIDTH, 0.5 * len(METHODS) + 2.6), layout="constrained")
    grid = figure.subplots(1, len(SCORES), sharey=True)
    for axes, (column, name) in zip(grid, SCORES.items(), strict=True):
        for i, model in enumerate(models):
            of_model = rows[rows["model"] == model].set_index("method").reindex(METHODS)
            y, (colour, mark) = np.arange(len(METHODS)) + 0.3 * (i - (len(models) - 1) / 2), NETWORKS[model]
            axes.plot(of_model[column], y, mark, color=colour, label=model)
            nulls = {"silhouette": NULL_COLUMNS, "ami": {"permuted": "null_ami"}}.get(column, {})
            for kind, null in nulls.items():
                about, null_mark = NULL_MARKS[kind]
                axes.plot(of_model[null], y, null_mark, color=colour, markersize=9, label=f"{model},\n{about}")
        axes.set_xlabel(name)
        axes.set_xlim(min(-0.05, *axes.get_xlim()), max(1.05, *axes.get_xlim()))
        axes.grid(axis="y", visible=False)
    grid[0].set_yticks(
        range(len(METHODS)), [method.replace("_", " ").replace("kmeans", "k-means") for method in METHODS]
    )
    grid[0].set_ylim(len(METHODS) - 0.5, -0.5)
    marks = collect_marks(grid)
    figure.legend(list(marks.values()), list(marks), loc="outside right upper", fontsize=9)
    caption = (
        "Silhouette: of the texts in clusters; no mark where there are no two. AMI: 0 by chance, 1 for the same "
        "groups; noise counts as one class. Stability: adjusted Rand index between 80 % subsamples. Permuted "
        "vectors and those of one cloud have no groups; marks are means over the draws with two clusters at least."
    )
    add_heading(figure, f"{title}\nclusters by six methods, beside chance", caption)
    save_twice(figure, folder, "clusters")


@STYLE
def draw_sweep(folder: Path, clusters: pd.DataFrame, title: str) -> None:
    """Draw what HDBSCAN finds by its smallest cluster, a line for each network; nothing where it was not swept."""
    rows = clusters[clusters["method"] == SWEEP]
    if rows.empty:
        return
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    grid: Sequence[Axes] = list(figure.subplots(1, len(SWEPT)))
    for axes, (column, name) in zip(grid, SWEPT.items(), strict=True):
        for model, of_model in rows.groupby("model", sort=False):
            colour, mark = NETWORKS[str(model)]
            axes.plot(of_model["parameters"].astype(int), of_model[column], f"{mark}-", color=colour, label=model)
        axes.set(title=name, xlabel="smallest cluster, texts")
        axes.set_ylim(min(0, axes.get_ylim()[0]), max(1, axes.get_ylim()[1]))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=column == "k"))
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=10)
    caption = (
        "AMI and silhouette: of the texts in clusters alone, however few they are. No silhouette: no two clusters."
    )
    add_heading(figure, f"{title}\nHDBSCAN by its smallest cluster", caption)
    save_twice(figure, folder, "hdbscan")
