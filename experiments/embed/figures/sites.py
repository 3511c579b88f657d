"""What is known and how directions are spread, site by site, in the networks side by side.

`title` names the run and its texts; each function adds what is shown, so that each picture can be understood alone."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill as wrapped

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.figures import STYLE, add_heading, collect_marks, save_twice

from ..clustering import DIMS
from ..corrections import STANDARD
from ..sites import LABEL_DRAWS, TOKEN
from .names import NETWORKS, POOLINGS, name_layer

WIDTH = 10.5  # inches of a picture, so that it can be read at 1,000 pixels
SHOWN = ("last", "mean_without_first")  # poolings


@STYLE
def draw_classes(folder: Path, sites: pd.DataFrame, title: str) -> None:
    """Draw AMI and the AUC of probes by layer, a column of panels for each of two poolings: classes.png, classes.svg.

    sites: see `tabulate_sites`."""
    figure = Figure(figsize=(WIDTH, 6.9), layout="constrained")
    grid = figure.subplots(2, len(SHOWN), sharex=True, sharey="row")
    for (above, below), pooling in zip(grid.T, SHOWN, strict=True):
        of_pooling = sites[sites["pooling"] == pooling]
        rows = of_pooling[of_pooling["correction"] == STANDARD]
        null = rows.groupby("layer")["null_ami"].max()
        above.fill_between(null.index, 0, null, color="#BBBBBB", label="classes permuted")
        draw_networks(above, rows, "ami")
        draw_networks(below, rows, "probe_auc")
        below.axhline(0.5, color="black", linestyle=":", linewidth=1.2, label="AUC of chance")
        above.set_title(POOLINGS[pooling])
        name_layers(below, sites)
    grid[0, 0].set_ylabel("clusters: AMI with the classes")
    grid[1, 0].set_ylabel("probe: macro ROC AUC")
    add_legend(figure, [grid[0, 0], grid[1, 0]])
    caption = (
        f"Vectors are standardised. Clusters: k-means with as many clusters as classes, in {DIMS} principal "
        "components of the test texts; AMI is 0 by chance and 1 for the classes themselves. Grey: of permuted "
        f"classes, at most, in {LABEL_DRAWS} draws for each network. Probe: logistic regression on train, measured on "
        "test. Layer 0 is the sum of the embeddings."
    )
    add_heading(figure, f"{title}\nwhat stands out without labels, and what can be read with them", caption)
    save_twice(figure, folder, "classes")


@STYLE
def draw_spread(folder: Path, sites: pd.DataFrame, words: pd.DataFrame, title: str) -> None:
    """Draw anisotropy and adjusted self-similarity by layer, with and without position 0: spread.png, spread.svg.

    sites, words: see `tabulate_sites` and `tabulate_words`; words of the corpus may be missing."""
    tokens = sites[(sites["pooling"] == TOKEN) & (sites["correction"] == "none")]
    of_corpus = words[words["cue_side"].isna()]
    mean = of_corpus.groupby(["model", "layer"], as_index=False)[["self_similarity", "adjusted"]].mean()
    mean = mean.merge(tokens[["model", "layer", "anisotropy"]])
    mean["adjusted_with_first"] = mean["self_similarity"] - mean["anisotropy"]
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    for axes, rows, without_first, with_first in (
        (left, tokens, "anisotropy_without_first", "anisotropy"),
        (right, mean, "adjusted", "adjusted_with_first"),
    ):
        draw_networks(axes, rows, without_first, "{}")
        draw_networks(axes, rows, with_first, "{} with position 0", "--")
        axes.axhline(0, color="black", linewidth=0.8)
        name_layers(axes, sites)
    left.set_title("random tokens: anisotropy")
    left.set_ylabel("mean cosine of two tokens")
    right.set_title("words: self-similarity, less anisotropy")
    right.set_ylabel("mean cosine of two occurrences, less that")
    if mean.empty:
        right.text(0.5, 0.5, "no word is frequent enough", ha="center", transform=right.transAxes)
    add_legend(figure, [left])
    caption = (
        "Vectors as the network emits them. Left: tokens of different texts. Right: mean over the most frequent words "
        "of the corpus, whose occurrences are never at position 0; only what is taken off differs. Solid lines leave "
        "position 0 out."
    )
    add_heading(figure, f"{title}\nhow alike all vectors are, and a word's occurrences beyond that", caption)
    save_twice(figure, folder, "spread")


def draw_networks(axes: Axes, rows: pd.DataFrame, column: str, label: str = "{}", line: str = "-") -> None:
    """Draw a column by layer, a line for each network of which there are rows; label: what a legend calls it."""
    for network, (colour, mark) in NETWORKS.items():
        of_network = rows[rows["model"] == network].sort_values("layer")
        if len(of_network):
            axes.plot(of_network["layer"], of_network[column], line + mark, color=colour, markersize=4.5)
            axes.lines[-1].set_label(label.format(network))


def name_layers(axes: Axes, sites: pd.DataFrame) -> None:
    """Write the layers below a panel; of many, some and the last two."""
    last = sites["layer"].max()
    shown = [*range(0, last - 1, max(1, -(-last // 8))), last - 1, last]
    names = [name_layer(layer, last).removeprefix("layer ").replace(" ", "\n") for layer in shown]
    axes.set_xticks(shown, names)
    axes.set_xlabel("layer")


def add_legend(figure: Figure, grid: Sequence[Axes]) -> None:
    """Add one legend of what any of the panels shows, beside them."""
    marks = collect_marks(grid)
    names = [wrapped(text, 16) for text in marks]
    figure.legend(list(marks.values()), names, loc="outside right center", fontsize=10, handlelength=2.4)
