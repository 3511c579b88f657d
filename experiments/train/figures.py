"""The pictures of a fine-tuning."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from lab.figures import COLOURS, GREY, STYLE, UNSIGNED, save
from lab.metrics import CALIBRATION_BINS, calibration_bins, expected_calibration_error, ranking_metrics


@STYLE
def draw_learning_curves(log: pd.DataFrame, best_epoch: int, path: Path) -> None:
    """Draw loss, accuracy and macro-F1 by epoch; `best_epoch` is the one that was kept.

    log: one row per epoch and split (train, val); columns `epoch, split, loss, accuracy, macro_f1`, NaN where not
    measured. Where the language model learnt, too, `lm_loss` has a third panel; epochs up to 0 adapted it.
    """
    panels = 3 if "lm_loss" in log else 2
    figure = Figure(figsize=(5 * panels, 4), layout="constrained")
    left, right, *third = figure.subplots(1, panels)
    _curves(left, log, {"loss": "-"})
    _curves(right, log, {"accuracy": "-", "macro_f1": "--"})
    left.set(title="Loss", ylabel="cross-entropy (nats)", ylim=(0, None))
    right.set(title="Accuracy and macro-F1", ylabel="score")
    for axes in third:
        _curves(axes, log, {"lm_loss": "-"})
        axes.set(title="Loss of the next token", ylabel="cross-entropy (nats)")
    for axes in (left, right, *third):
        axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.legend()
    save(figure, path)


@STYLE
def draw_confusion_matrix(matrix: Sequence[Sequence[int]], labels: Sequence[str], path: Path, title: str) -> None:
    """Draw counts of texts (K, K), true classes as rows; the colour is the share of the row."""
    counts = np.asarray(matrix)
    K = len(labels)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 0.6 * min(max(K, 5), MAX_ANNOTATED) + 1.5  # inches
    figure = Figure(figsize=(side + 1.3, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap=UNSIGNED, vmin=0, vmax=1)
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
def draw_roc_and_precision_recall(
    targets: NDArray[np.integer], probabilities: NDArray[np.floating], labels: Sequence[str], path: Path, title: str
) -> None:
    """Draw a curve per class against the rest, with its area: targets int (N,), probabilities float (N, K)."""
    many, longest = len(labels) > MANY_CURVES, max(map(len, labels))
    size = (12 + 0.08 * longest, max(5, 0.21 * len(labels) + 1))  # inches: the legend has a line for each class
    figure = Figure(figsize=size, layout="constrained")
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
    figure.legend(loc="outside right center", fontsize=9 if many else 11)
    figure.suptitle(title)
    save(figure, path)


@STYLE
def draw_calibration(targets: NDArray[np.integer], probabilities: NDArray[np.floating], path: Path, title: str) -> None:
    """Draw the reliability diagram (Guo et al. 2017, fig. 1) of targets int (N,) and probabilities float (N, K)."""
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


def _curves(axes: Axes, log: pd.DataFrame, metrics: dict[str, str]) -> None:
    """Draw a line per split (colour) and metric (line style) through the epochs that were measured."""
    for metric, line in metrics.items():
        for colour, (split, rows) in zip(COLOURS, log.groupby("split"), strict=False):
            measured = rows.dropna(subset=metric)
            if len(measured):
                name = f"{split} {metric.replace('_f1', '-F1')}"
                axes.plot(measured["epoch"], measured[metric], line, marker="o", color=colour, label=name)


LINES = ("-", "--", ":", "-.")
MANY_CURVES = 14  # classes; beyond, the legend is in smaller print
MAX_ANNOTATED = 20  # classes; beyond, the cells of a confusion matrix are too small for text
