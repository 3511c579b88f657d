"""Classification metrics, each with its 95 % bootstrap interval.

The point estimates are scikit-learn's. The intervals need every metric on a thousand resamples of the texts, so the
`resampled_` functions compute them for all draws at once, from weights (draws, N): how often each text was drawn.
The tests hold the two together.

Letters: N texts, K classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)

from .stats import bootstrap

CALIBRATION_BINS = 15

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


def classification_metrics(targets: Ints, probabilities: Floats, labels: Sequence[str]) -> dict[str, Any]:
    """Return `prediction_metrics` of the most probable class, and metrics of the probabilities themselves.

    targets int (N,), probabilities float (N, K), labels K names. Adds `macro_roc_auc` and `macro_average_precision`
    (one class against the rest, averaged over the classes where they are defined), `log_loss` (nats) and `ece`
    (`expected_calibration_error`). JSON-able: None where a metric is undefined. Raises ValueError where targets or
    probabilities do not fit the labels.

    Resampling noise only ever adds to a calibration error, so the interval of a small `ece` lies high."""
    _check(targets, labels, probabilities.shape, (len(targets), len(labels)))
    probabilities = probabilities.astype(np.float64)
    metrics = _point_estimates(targets, probabilities.argmax(1), labels)
    rankings = [ranking_metrics(targets == k, probabilities[:, k]) for k in range(len(labels))]
    for class_metrics, ranking in zip(metrics["per_class"].values(), rankings, strict=True):
        class_metrics |= ranking
    for name in rankings[0]:
        defined = [value for ranking in rankings if (value := ranking[name]) is not None]
        metrics[f"macro_{name}"] = float(np.mean(defined)) if defined else None
    metrics["log_loss"] = float(log_loss(targets, _normalise(probabilities), labels=range(len(labels))))
    metrics["ece"] = expected_calibration_error(calibration_bins(targets, probabilities))
    metrics["intervals"] = bootstrap(lambda w: resampled_metrics(w, targets, probabilities, labels), len(targets))
    return metrics


def prediction_metrics(targets: Ints, predicted: Ints, labels: Sequence[str]) -> dict[str, Any]:
    """Return metrics of predicted classes: targets and predicted int (N,), labels K names. JSON-able.

    `n, accuracy, balanced_accuracy, macro_f1, weighted_f1`, `per_class[label]` (one class against the rest),
    `confusion_matrix` (K, K) with true classes as rows, and `intervals`: {"accuracy": [low, high],
    "per_class.joy.f1": ...}. The precision of a class that is never predicted is 0. A metric that the texts leave
    undefined is None: recall without texts of the class, specificity without texts of others, F1 without texts and
    predictions. Balanced accuracy and macro-F1 are means over the classes where recall and F1 are defined; so are their
    intervals, in draws that leave a rare class out. Raises ValueError where targets or predictions do not fit."""
    _check(targets, labels, predicted.shape, targets.shape)
    intervals = bootstrap(lambda w: resampled_prediction_metrics(w, targets, predicted, labels), len(targets))
    return _point_estimates(targets, predicted, labels) | {"intervals": intervals}


def ranking_metrics(positive: NDArray[np.bool_], scores: Floats) -> dict[str, float | None]:
    """Return `roc_auc` and `average_precision` of scores float (N,), where positive, bool (N,), is the truth.

    ROC AUC is None without texts of both kinds, average precision without positive ones."""
    return {
        "roc_auc": float(roc_auc_score(positive, scores)) if 0 < positive.sum() < len(positive) else None,
        "average_precision": float(average_precision_score(positive, scores)) if positive.any() else None,
    }


def calibration_bins(targets: Ints, probabilities: Floats) -> pd.DataFrame:
    """Group texts by confidence, the top class's probability, in 15 bins of equal width (Guo et al. 2017, section 2).

    Return one row per bin: `count`, `accuracy` and mean `confidence`, the last two NaN in an empty bin."""
    texts = _read_confidence(targets, probabilities).groupby("bin")
    table = texts.agg(count=("correct", "size"), accuracy=("correct", "mean"), confidence=("confidence", "mean"))
    return table.reindex(range(CALIBRATION_BINS)).fillna({"count": 0}).astype({"count": int})


def expected_calibration_error(bins: pd.DataFrame) -> float:
    """Return how far confidence is from accuracy, on average over `calibration_bins`.

    A classifier is calibrated if it gets 80 % right of the texts of which it is 80 % sure. No single text can show
    that, so texts of similar confidence share a bin, and the bin's mean confidence is compared with its accuracy. The
    error is the mean distance of the two, weighted by the bin's count (Guo et al. 2017, eq. 3); mistakes in both
    directions cancel within a bin, not between bins."""
    return float((bins["count"] * (bins["accuracy"] - bins["confidence"]).abs()).sum() / bins["count"].sum())


def resampled_metrics(
    weights: Floats, targets: Ints, probabilities: Floats, labels: Sequence[str]
) -> dict[str, Floats]:
    """Return `classification_metrics` on each resample, weights float (draws, N): name -> (draws,), NaN where
    undefined."""
    metrics = resampled_prediction_metrics(weights, targets, probabilities.argmax(1), labels)
    n = weights.sum(1)
    rankings = [_resampled_ranking(weights, targets == k, probabilities[:, k]) for k in range(len(labels))]
    for name in rankings[0]:
        by_class = np.stack([ranking[name] for ranking in rankings], axis=1)
        metrics |= {f"per_class.{label}.{name}": by_class[:, k] for k, label in enumerate(labels)}
        defined = ~np.isnan(by_class)
        metrics[f"macro_{name}"] = _divide(np.nansum(by_class, axis=1), defined.sum(1), empty=np.nan)
    likelihood = _normalise(probabilities)[np.arange(len(targets)), targets]
    metrics["log_loss"] = weights @ -np.log(np.maximum(likelihood, np.finfo(np.float64).eps)) / n
    texts = _read_confidence(targets, probabilities)
    gaps = _sum_groups(
        weights, texts["bin"].to_numpy(), CALIBRATION_BINS, (texts["correct"] - texts["confidence"]).to_numpy()
    )
    metrics["ece"] = np.abs(gaps).sum(1) / n
    return metrics


def resampled_prediction_metrics(
    weights: Floats, targets: Ints, predicted: Ints, labels: Sequence[str]
) -> dict[str, Floats]:
    """Return `prediction_metrics` on each resample, weights float (draws, N): name -> (draws,), NaN where undefined."""
    K = len(labels)
    confusion = _sum_groups(weights, targets * K + predicted, K * K, np.ones(len(targets))).reshape(-1, K, K)
    n = weights.sum(1, keepdims=True)  # (draws, 1)
    hits = confusion.diagonal(axis1=1, axis2=2)  # (draws, K), like all that follows
    true, claimed = confusion.sum(2), confusion.sum(1)
    recall, f1 = _divide(hits, true, empty=np.nan), _divide(2 * hits, true + claimed, empty=np.nan)
    per_class = {
        "precision": _divide(hits, claimed),
        "recall": recall,
        "specificity": _divide(n - true - claimed + hits, n - true, empty=np.nan),
        "f1": f1,
    }
    metrics = {
        "accuracy": hits.sum(1) / n[:, 0],
        "balanced_accuracy": np.nanmean(recall, axis=1),
        "macro_f1": np.nanmean(f1, axis=1),
        "weighted_f1": np.nansum(f1 * true, axis=1) / n[:, 0],
    }
    for k, label in enumerate(labels):
        metrics |= {f"per_class.{label}.{name}": values[:, k] for name, values in per_class.items()}
    return metrics


def _point_estimates(targets: Ints, predicted: Ints, labels: Sequence[str]) -> dict[str, Any]:
    classes = range(len(labels))
    confusion = confusion_matrix(targets, predicted, labels=classes)
    precision, recall, f1, n = precision_recall_fscore_support(targets, predicted, labels=classes, zero_division=0)
    occurs = n + confusion.sum(0) > 0  # as a label, or as a prediction
    return {
        "n": len(targets),
        "accuracy": float((targets == predicted).mean()),
        "balanced_accuracy": float(recall[n > 0].mean()),
        "macro_f1": float(f1[occurs].mean()),
        "weighted_f1": float(np.average(f1, weights=n)),
        "per_class": {
            label: {
                "n": int(n[k]),
                "precision": float(precision[k]),
                "recall": float(recall[k]) if n[k] else None,
                "specificity": float(recall_score(targets != k, predicted != k)) if n[k] < len(targets) else None,
                "f1": float(f1[k]) if occurs[k] else None,
            }
            for k, label in enumerate(labels)
        },
        "confusion_matrix": confusion.tolist(),
    }


def _resampled_ranking(weights: Floats, positive: NDArray[np.bool_], scores: Floats) -> dict[str, Floats]:
    """Return `ranking_metrics` on each resample: a threshold falls through the scores, equal ones pass it together."""
    order = np.argsort(-scores)
    last_of_ties = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    weights = weights[:, order]
    above = np.cumsum(weights, axis=1)[:, last_of_ties]  # (draws, thresholds)
    hits = np.cumsum(weights * positive[order], axis=1)[:, last_of_ties]
    false_alarms = above - hits
    new_hits = np.diff(hits, prepend=0)
    new_false_alarms = np.diff(false_alarms, prepend=0)
    area = (new_false_alarms * (hits - new_hits / 2)).sum(1)  # trapezoids: half of the tied pairs count
    precision_sum = (new_hits * _divide(hits, above)).sum(1)
    return {
        "roc_auc": _divide(area, hits[:, -1] * false_alarms[:, -1], empty=np.nan),
        "average_precision": _divide(precision_sum, hits[:, -1], empty=np.nan),
    }


def _read_confidence(targets: Ints, probabilities: Floats) -> pd.DataFrame:
    """Return `bin, correct, confidence` of each text; bin m holds confidences in (m/15, (m + 1)/15]."""
    confidence = probabilities.max(1)
    edges = np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS
    bins = np.digitize(confidence, edges, right=True)
    return pd.DataFrame({"bin": bins, "correct": probabilities.argmax(1) == targets, "confidence": confidence})


def _sum_groups(weights: Floats, groups: Ints, n_groups: int, values: Floats) -> Floats:
    """Sum weight * value over the texts of each group: weights (draws, N) -> (draws, n_groups)."""
    members = csr_array((values, (groups, np.arange(len(groups)))), shape=(n_groups, len(groups)))
    return (members @ weights.T).T


def _divide(a: Floats, b: NDArray[Any], empty: float = 0.0) -> Floats:
    """Return a / b, and `empty` where b is 0."""
    return np.divide(a, b, out=np.full(a.shape, empty), where=b > 0)


def _normalise(probabilities: Floats) -> Floats:
    """Make rows sum to 1 in float64 too: a float32 softmax is off by more than scikit-learn allows."""
    return probabilities / probabilities.sum(1, keepdims=True)


def _check(targets: Ints, labels: Sequence[str], shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise ValueError(f"expected predictions of shape {expected} for {len(labels)} labels, got {shape}")
    if not len(targets) or targets.min() < 0 or targets.max() >= len(labels):
        raise ValueError(f"expected at least one target, all in 0..{len(labels) - 1}, got {np.unique(targets)}")
