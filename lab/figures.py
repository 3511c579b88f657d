"""Every picture of a training run: drawn without pyplot, so nothing is kept between two of them, and saved whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from model.files import written_whole

from .metrics import CALIBRATION_BINS, calibration_bins, expected_calibration_error, ranking_metrics

# Okabe & Ito's colours without the yellow, which is lost on white; classes beyond the seventh change the line style.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
LINES = ("-", "--", ":")
GREY = "#767676"
MAX_ANNOTATED = 20  # classes; beyond, the cells of a confusion matrix are too small for text
HEAD_SCORES = {  # column of the table: title and colours
    "previous_token": ("Looks at the previous token", "Blues"),
    "induction": ("Looks at what followed last time", "Blues"),
    "loss_increase": ("Loss increase when closed (nats)", "RdBu_r"),
}
STYLE = matplotlib.rc_context(
    {
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#E6E6E6",
        "legend.edgecolor": "none",
        "text.parse_math": False,  # a label may hold a dollar sign
        "lines.linewidth": 1.8,
        "savefig.dpi": 150,
    }
)


@STYLE
def learning_curves(log: pd.DataFrame, best_epoch: int, path: Path) -> None:
    """Loss, accuracy and macro-F1 by epoch; `best_epoch` is the one that was kept.

    log: one row per epoch and split (train, val); columns `epoch, split, loss, accuracy, macro_f1`, NaN where not
    measured.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _curves(left, log, {"loss": "-"})
    _curves(right, log, {"accuracy": "-", "macro_f1": "--"})
    left.set(title="Loss", ylabel="cross-entropy (nats)", ylim=(0, None))
    right.set(title="Accuracy and macro-F1", ylabel="score")
    for axes in (left, right):
        axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.legend()
    save(figure, path)


@STYLE
def loss_curves(log: pd.DataFrame, path: Path, title: str) -> None:
    """A language model's losses by tokens read; a line marks the lowest held-out one, whose weights were kept.

    log: one row per evaluation and split, of which one is `held-out`; columns `tokens, split, loss`. What was measured
    before the first token is left out: a uniform guess would flatten all that follows.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    held_out = log[log["split"] == "held-out"].sort_values("loss")
    for colour, (split, rows) in zip(COLOURS, log[log["tokens"] > 0].groupby("split"), strict=False):
        axes.plot(rows["tokens"] / 1e6, rows["loss"], marker="o", markersize=3, color=colour, label=split)
    loss, millions = held_out["loss"].iloc[0], held_out["tokens"].iloc[0] / 1e6
    name = f"kept: {loss:.3f} at {millions:.3g} M tokens"
    axes.axvline(millions, color=GREY, linestyle=":", label=name)
    axes.set(title=title, xlabel="tokens read (millions)", ylabel="cross-entropy of the next token (nats)")
    axes.legend()
    save(figure, path)


@STYLE
def heads(table: pd.DataFrame, path: Path) -> None:
    """Layers by heads, a row of maps for each kind of weights and a column for each score.

    table: one row per head and kind; columns `layer, head, previous_token, induction, loss_increase, weights`."""
    kinds = list(table.groupby("weights", sort=False))
    height = 3.3 * table["layer"].nunique() / table["head"].nunique() + 0.7  # of a map with square cells, in inches
    figure = Figure(figsize=(13, height * len(kinds)), layout="constrained")
    grid = figure.subplots(len(kinds), len(HEAD_SCORES), squeeze=False)
    for column, (score, (title, colours)) in zip(grid.T, HEAD_SCORES.items(), strict=True):
        high = table[score].abs().max()
        low = -high if table[score].min() < 0 else 0
        for axes, (kind, rows) in zip(column, kinds, strict=True):
            scores = rows.pivot(index="layer", columns="head", values=score)
            image = axes.imshow(scores, cmap=colours, vmin=low, vmax=high)
            for (layer, head), value in np.ndenumerate(scores):
                colour = "white" if abs(value) > 0.6 * high else "black"
                axes.text(head, layer, f"{value:z.2f}", ha="center", va="center", color=colour, fontsize=8)
            axes.set(title=f"{title}\n{kind} weights", xlabel="head", ylabel="layer")
            axes.set(xticks=scores.columns, yticks=scores.index)
            axes.grid(visible=False)
        figure.colorbar(image, ax=column, shrink=0.6)
    save(figure, path)


@STYLE
def confusion_matrix(matrix: Sequence[Sequence[int]], labels: Sequence[str], path: Path, title: str) -> None:
    """Counts of texts (K, K), true classes as rows; the colour is the share of the row."""
    counts = np.asarray(matrix)
    K = len(labels)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 0.6 * min(max(K, 5), MAX_ANNOTATED) + 1.5  # inches
    figure = Figure(figsize=(side + 1.3, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(title=title, xlabel="predicted", ylabel="true", xticks=range(K), yticks=range(K), yticklabels=labels)
    axes.set_xticklabels(labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.grid(visible=False)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    if K <= MAX_ANNOTATED:
        size = 11 if K <= 4 else 8.5
        for (row, column), count in np.ndenumerate(counts):
            share = shares[row, column]
            colour = "white" if share > 0.5 else "black"
            axes.text(column, row, f"{count}\n{share:.1%}", ha="center", va="center", color=colour, fontsize=size)
    save(figure, path)


@STYLE
def roc_and_precision_recall(
    targets: NDArray[np.integer], probabilities: NDArray[np.floating], labels: Sequence[str], path: Path, title: str
) -> None:
    """One curve per class against the rest, with its area: targets int (N,), probabilities float (N, K)."""
    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="chance")
    for k, label in enumerate(labels):
        positive, scores = targets == k, probabilities[:, k]
        if not 0 < positive.sum() < len(positive):
            continue  # no curve without both kinds of text
        ranking = ranking_metrics(positive, scores)
        style = {"color": COLOURS[k % len(COLOURS)], "linestyle": LINES[k // len(COLOURS) % len(LINES)]}
        name = f"{label}  AUC {ranking['roc_auc']:.3f}  AP {ranking['average_precision']:.3f}"
        false_positives, true_positives, _ = roc_curve(positive, scores)
        precision, recall, _ = precision_recall_curve(positive, scores)
        left.plot(false_positives, true_positives, label=name, **style)
        right.plot(recall, precision, drawstyle="steps-post", **style)
        right.axhline(positive.mean(), linewidth=1, alpha=0.4, **style)
    left.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    right.set(
        title="Precision and recall (thin: chance)",
        xlabel="recall",
        ylabel="precision",
        ylim=left.get_ylim(),
        aspect="equal",
    )
    figure.legend(loc="outside right center")
    figure.suptitle(title)
    save(figure, path)


@STYLE
def calibration(targets: NDArray[np.integer], probabilities: NDArray[np.floating], path: Path, title: str) -> None:
    """Reliability diagram (Guo et al. 2017, fig. 1) of targets int (N,) and probabilities float (N, K)."""
    bins = calibration_bins(targets, probabilities)
    figure = Figure(figsize=(6, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="perfect calibration")
    filled = bins.dropna()
    above.plot(
        filled["confidence"], filled["accuracy"], "o-", color=COLOURS[0], clip_on=False, label="texts by confidence"
    )
    above.set(title=f"{title}\nECE {expected_calibration_error(bins):.3f}", ylabel="accuracy", ylim=(0, 1.03))
    above.legend(loc="upper left")
    width = 1 / CALIBRATION_BINS
    # by numpy: under `python -O` pandas 3 adds 0.5 to a RangeIndex as if it were 0
    bars = below.bar((bins.index.to_numpy() + 0.5) * width, bins["count"], width=0.9 * width, color=COLOURS[0])
    below.bar_label(bars, fontsize=8)
    below.set(xlabel="confidence (probability of the predicted class)", ylabel="texts", xlim=(0, 1))
    below.margins(y=0.2)
    save(figure, path)


@STYLE
def forest(scores: pd.DataFrame, path: Path, xlabel: str) -> None:
    """Forest plot: one row per score with its interval, in panels; a reference goes on as a line through its panel.

    scores: from top to bottom, columns `panel, kind, name, value, low, high, reference`. `kind` is the colour,
    `reference` a bool. NaN: no interval where `low` and `high` are, and a range where `value` is.
    """
    panels = list(scores.groupby("panel", sort=False))
    heights = [len(rows) for _, rows in panels]
    figure = Figure(figsize=(10, 0.33 * sum(heights) + 0.8 * len(panels) + 0.4), layout="constrained")
    colours = dict(zip(scores["kind"].unique(), COLOURS, strict=False))
    grid = figure.subplots(len(panels), height_ratios=heights, squeeze=False).flat
    for axes, (title, rows) in zip(grid, panels, strict=True):
        for y, row in enumerate(rows.itertuples()):
            _score(axes, y, row, colours[row.kind])
        axes.set(title=title, yticks=range(len(rows)), yticklabels=rows["name"], ylim=(len(rows) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    axes.set_xlabel(xlabel)
    save(figure, path)


def _score(axes: Axes, y: int, row: Any, colour: str) -> None:
    """A row of a forest plot, with its numbers at the right."""
    measured, bounded = pd.notna(row.value), pd.notna(row.low)
    texts = [f"{row.value:.3f}"] if measured else []
    if bounded:
        axes.plot([row.low, row.high], [y, y], color=colour, marker="|")
        texts.append(f"[{row.low:.3f}, {row.high:.3f}]" if measured else f"{row.low:.2f} to {row.high:.2f}")
    if measured:
        axes.plot(row.value, y, "o", color=colour)
    if row.reference and measured:
        axes.axvline(row.value, color=colour, linestyle="--", linewidth=1, zorder=1)
    elif row.reference:
        axes.axvspan(row.low, row.high, color=colour, alpha=0.15, linewidth=0)
    axes.text(1.02, y, " ".join(texts), transform=axes.get_yaxis_transform(), va="center", fontsize=10)


def _curves(axes: Axes, log: pd.DataFrame, metrics: dict[str, str]) -> None:
    """One line per split (colour) and metric (line style), of what was measured."""
    for metric, line in metrics.items():
        for colour, (split, rows) in zip(COLOURS, log.groupby("split"), strict=False):
            measured = rows.dropna(subset=metric)
            if len(measured):
                name = f"{split} {metric.replace('_f1', '-F1')}"
                axes.plot(measured["epoch"], measured[metric], line, marker="o", color=colour, label=name)


def save(figure: Figure, path: Path) -> None:
    """As a PNG, whole or not at all."""
    if any(axes.get_aspect() != "auto" for axes in figure.axes):
        figure.draw_without_rendering()  # where cells are square, one pass of the layout lets texts overlap
    with written_whole(path) as [temporary]:
        figure.savefig(temporary, format="png")
