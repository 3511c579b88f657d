"""Classification metrics, each with its 95 % bootstrap interval.

The point estimates are scikit-learn's. The intervals need every metric on a thousand resamples of the texts, so the
`resampled_` functions compute them for all draws at once, from weights (draws, N): how often each text was drawn.
The tests hold the two together.

Letters: N texts, K classes."""

from collections.abc import Callable, Sequence
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
Resampled = Callable[[Floats], dict[str, Floats]]  # weights (draws, N) -> metrics by name, (draws,) each


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
    metrics["intervals"] = bootstrap(prepare_metrics(targets, probabilities, labels), len(targets))
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
    intervals = bootstrap(prepare_prediction_metrics(targets, predicted, labels), len(targets))
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
    return prepare_metrics(targets, probabilities, labels)(weights)


def prepare_metrics(targets: Ints, probabilities: Floats, labels: Sequence[str]) -> Resampled:
    """Return `resampled_metrics` as a function of the weights alone: what all resamples share is computed once."""
    of_predictions = prepare_prediction_metrics(targets, probabilities.argmax(1), labels)
    of_classes = [_prepare_ranking(targets == k, probabilities[:, k]) for k in range(len(labels))]
    likelihood = _normalise(probabilities)[np.arange(len(targets)), targets]
    losses = -np.log(np.maximum(likelihood, np.finfo(np.float64).eps))
    texts = _read_confidence(targets, probabilities)
    gaps = _group(texts["bin"].to_numpy(), CALIBRATION_BINS, (texts["correct"] - texts["confidence"]).to_numpy())

    def resample(weights: Floats) -> dict[str, Floats]:
        metrics, n = of_predictions(weights), weights.sum(1)
        rankings = [rank(weights) for rank in of_classes]
        for name in rankings[0]:
            by_class = np.stack([ranking[name] for ranking in rankings], axis=1)
            metrics |= {f"per_class.{label}.{name}": by_class[:, k] for k, label in enumerate(labels)}
            defined = ~np.isnan(by_class)
            metrics[f"macro_{name}"] = _divide(np.nansum(by_class, axis=1), defined.sum(1), empty=np.nan)
        metrics["log_loss"] = weights @ losses / n
        metrics["ece"] = np.abs(gaps @ weights.T).sum(0) / n
        return metrics

    return resample


def resampled_prediction_metrics(
    weights: Floats, targets: Ints, predicted: Ints, labels: Sequence[str]
) -> dict[str, Floats]:
    """Return `prediction_metrics` on each resample, weights float (draws, N): name -> (draws,), NaN where undefined."""
    return prepare_prediction_metrics(targets, predicted, labels)(weights)


def prepare_prediction_metrics(targets: Ints, predicted: Ints, labels: Sequence[str]) -> Resampled:
    """Return `resampled_prediction_metrics` as a function of the weights alone."""
    K = len(labels)
    cells = _group(targets * K + predicted, K * K, np.ones(len(targets)))

    def resample(weights: Floats) -> dict[str, Floats]:
        confusion = (cells @ weights.T).T.reshape(-1, K, K)
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

    return resample


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


def _prepare_ranking(positive: NDArray[np.bool_], scores: Floats) -> Resampled:
    """Return `ranking_metrics` on each resample as a function of the weights: a threshold falls through the scores,
    equal ones pass it together. Only those of positive texts matter to either."""
    order = np.argsort(-scores)
    among = np.flatnonzero(positive[order])  # (P,), places of the positive texts in this order
    begins = np.flatnonzero(np.diff(scores[order], prepend=np.inf))  # (thresholds,), where the texts of each begin
    reached, last = np.unique(np.searchsorted(begins, among, side="right")[::-1], return_index=True)
    starts, ends, last = begins[reached - 1], np.append(begins, len(order))[reached], len(among) - 1 - last

    def resample(weights: Floats) -> dict[str, Floats]:
        passed = np.zeros((len(weights), len(order) + 1))  # (draws, N + 1), texts before each place
        passing = weights.take(order, axis=1)  # much faster than weights[:, order]
        np.cumsum(passing, axis=1, out=passed[:, 1:])
        # From here on, (draws, thresholds that positive texts have).
        hits = passing.take(among, axis=1).cumsum(axis=1).take(last, axis=1)
        new_hits, above = np.diff(hits, prepend=0), passed.take(ends, axis=1)
        new_false_alarms = above - passed.take(starts, axis=1) - new_hits
        n_positive = new_hits.sum(1)
        n_negative = passed[:, -1] - n_positive
        below = n_negative[:, None] - (above - hits) + new_false_alarms / 2  # half of the tied pairs count
        return {
            "roc_auc": _divide((new_hits * below).sum(1), n_positive * n_negative, empty=np.nan),
            "average_precision": _divide((new_hits * _divide(hits, above)).sum(1), n_positive, empty=np.nan),
        }

    return resample


def _read_confidence(targets: Ints, probabilities: Floats) -> pd.DataFrame:
    """Return `bin, correct, confidence` of each text; bin m holds confidences in (m/15, (m + 1)/15]."""
    confidence = probabilities.max(1)
    edges = np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS
    bins = np.digitize(confidence, edges, right=True)
    return pd.DataFrame({"bin": bins, "correct": probabilities.argmax(1) == targets, "confidence": confidence})


def _group(groups: Ints, n_groups: int, values: Floats) -> csr_array:
    """Return the matrix (n_groups, N) that sums weight * value over the texts of each group."""
    return csr_array((values, (groups, np.arange(len(groups)))), shape=(n_groups, len(groups)))


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
