"""Measure what an ablation does to each class, and how sure that is.

An ablated network is compared with the whole one on the same texts, so everything here is paired by text. An effect is
ablated minus baseline.

Letters: U units that were ablated one at a time, N texts, R draws (the donors of a resample ablation, else 1), K
classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .metrics import Floats, Ints
from .output import read_csv
from .stats import benjamini_hochberg, holm, interval, mcnemar_p, permutation_p, resamples
from .texts import OVERALL

RATIOS = ("recall", "precision", "f1")
TEXT = ("kind", "region", "fill", "split", "class", "metric", "verdict")  # columns of effects.csv; others: numbers
UNITS = 160  # handled at once: GPT-2's 144 heads fit, which the permutation test likes, and memory stays flat


@dataclass(frozen=True)
class Readings:
    """What logits say about each text, mean over the draws: float64 (U, N, K) each."""

    log_probs: Floats
    log_odds: Floats  # of a class against the rest: log p - log(1 - p), its logit minus the logsumexp of the others
    predicted: Floats  # share of draws in which the class is the most probable one


@dataclass(frozen=True)
class Quantities:
    """What metrics add up over texts, for the baseline and then the U units: by text, axes (N, 1 + U), or summed over
    the texts of each class, axes (draws, K, 1 + U)."""

    predicted: Floats  # (..., K)
    log_odds: Floats  # (..., K)
    log_prob: Floats  # of the true class
    flipped: Floats  # 1 where the prediction differs from the baseline's, mean over the draws


def read_logits(logits: Floats) -> Readings:
    """Read logits float (U, N, R, K). Raises ValueError where one is not finite."""
    units = [_read_unit(unit) for unit in logits]
    return Readings(
        log_probs=np.stack([unit.log_probs for unit in units]),
        log_odds=np.stack([unit.log_odds for unit in units]),
        predicted=np.stack([unit.predicted for unit in units]),
    )


def _read_unit(logits: Floats) -> Readings:
    """Read logits (N, R, K) of one unit: (N, K) each."""
    if not np.isfinite(logits).all():
        raise ValueError("expected finite logits, got NaN or infinity")
    x = np.moveaxis(logits, -1, 0).astype(np.float64)  # (K, N, R)
    log_probs = x - np.logaddexp.reduce(x, axis=0)
    others = [np.logaddexp.reduce(np.delete(x, k, axis=0), axis=0) for k in range(len(x))]
    predicted = x.argmax(0) == np.arange(len(x))[:, None, None]
    return Readings(log_probs.mean(-1).T, (x - np.stack(others)).mean(-1).T, predicted.mean(-1).T)


def measure_effects(
    baseline: Floats, ablated: Floats, targets: Ints, labels: Sequence[str], test: bool
) -> pd.DataFrame:
    """Return one row per unit, class and metric: `unit, class, metric, n, baseline, ablated, effect, ci_low, ci_high,
    p, p_corrected`.

    baseline: logits float (N, K); ablated: logits float (U, N, R, K); targets: int (N,); labels: K names.

    Class `all` has `accuracy, macro_f1, log_prob, flip_rate`; each label `recall, precision, f1, log_prob, margin,
    specific_margin, flip_rate`. `log_prob`: mean log-probability of the true class. `margin`: mean log-odds of the
    class over its n texts. `specific_margin`: the margin minus the mean of the same log-odds over all other texts; a
    shift towards or away from the class on every text does not change it. `flip_rate`: share of predictions that
    differ from the baseline's. A ratio with denominator 0 is 0, a mean over no texts NaN.

    The interval is a 95 % paired bootstrap over texts: baseline and all units share each resample. It covers that
    other texts might have been drawn, not other seeds of training. With `test`, p is `permutation_p` of the change of
    the specific margin and, where R is 1, `mcnemar_p` of accuracy; `correct_p_values` makes p_corrected.
    Raises ValueError where shapes do not fit, targets are not in 0..K-1 or logits are not finite."""
    _check(baseline, ablated, targets, labels)
    starts = range(0, len(ablated), UNITS)
    blocks = [_measure_block(baseline, ablated[start : start + UNITS], targets, labels, test) for start in starts]
    table = pd.concat(blocks, ignore_index=True)
    table.insert(0, "unit", np.repeat(np.arange(len(ablated)), len(table) // len(ablated)))
    return correct_p_values(table)


def read_effects(path: Path) -> pd.DataFrame:
    """Read effects.csv."""
    return read_csv(path, TEXT).astype({"layer": "Int64", "head": "Int64"})


def correct_p_values(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with `p_corrected`: `holm` of `p`, where all rows of a metric (units and classes) are one
    family."""
    return table.assign(p_corrected=table.groupby("metric")["p"].transform(lambda p: holm(p.to_numpy())))


def confirm_on_test(val: pd.DataFrame, test: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rank units and classes by one metric on val and test them on test: one row for each of two tables of
    `measure_effects` or `measure_shares`.

    Columns `unit, class, n, baseline, val_effect, test_effect, ci_low, ci_high, p, p_holm, p_bh, rank`. Rank 1 has the
    largest effect on val, in either direction. All other columns come from test, which had no say in the ranking. The
    p-values of all rows are one family for `holm` and `benjamini_hochberg`."""
    key = ["unit", "class"]
    val, test = (table[table["metric"] == metric] for table in (val, test))
    val_effects = val[[*key, "effect"]].rename(columns={"effect": "val_effect"})
    table = test.rename(columns={"effect": "test_effect"}).merge(val_effects, on=key, how="left", validate="one_to_one")
    p = table["p"].to_numpy()
    table = table.assign(p_holm=holm(p), p_bh=benjamini_hochberg(p))
    table = table.sort_values("val_effect", key=abs, ascending=False, kind="stable", ignore_index=True)
    columns = ["n", "baseline", "val_effect", "test_effect", "ci_low", "ci_high", "p", "p_holm", "p_bh"]
    return table.assign(rank=table.index + 1)[[*key, *columns, "rank"]]


def count_flips(baseline: Floats, ablated: Floats, targets: Ints, labels: Sequence[str]) -> pd.DataFrame:
    """Count which predictions change into which, from the arguments of `measure_effects`: `unit, class, before, after,
    share, n`.

    `class` is the true label. The whole network predicts `before` for `share` of its n texts and the ablated one
    `after`, mean over the draws. Only changes that occur have a row."""
    _check(baseline, ablated, targets, labels)
    K, n = len(labels), np.bincount(targets, minlength=len(labels))
    groups = np.eye(K * K)[targets * K + baseline.argmax(1)].T  # (true, before) x texts
    moved = np.stack([(groups @ _read_unit(unit).predicted).reshape(K, K, K) for unit in ablated])
    moved[:, :, range(K), range(K)] = 0  # the prediction stays
    unit, true, before, after = np.nonzero(moved)
    names = np.array(labels)
    return pd.DataFrame(
        {
            "unit": unit,
            "class": names[true],
            "before": names[before],
            "after": names[after],
            "share": moved[unit, true, before, after] / n[true],
            "n": n[true],
        }
    )


def _measure_block(baseline: Floats, ablated: Floats, targets: Ints, labels: Sequence[str], test: bool) -> pd.DataFrame:
    """Return `measure_effects` of a few units, without `unit` and `p_corrected`."""
    U, N, R, K = ablated.shape
    before, after = read_logits(baseline[None, :, None]), read_logits(ablated)
    texts = _read_texts(before, after, targets)
    whole = _resample_metrics(np.ones((1, N)), texts, targets, labels)  # each text once
    classes, metrics = np.array(list(whole)).T
    values = np.stack([*whole.values()], axis=-1)[0]  # (1 + U, metrics)
    values[np.isnan(values) & np.isin(metrics, RATIOS)] = 0
    changes = []
    for weights in resamples(N):
        drawn = np.stack([*_resample_metrics(weights, texts, targets, labels).values()], axis=-1)
        changes.append(drawn[:, 1:] - drawn[:, :1])  # (draws, U, metrics)
    low, high = interval(np.concatenate(changes))
    p = np.full((U, len(metrics)), np.nan)
    if test:
        change = (after.log_odds - before.log_odds).transpose(1, 0, 2)
        p[:, metrics == "specific_margin"] = permutation_p(change, targets)
    if test and R == 1:
        correct = baseline.argmax(1) == targets
        still_correct = after.predicted[:, np.arange(N), targets].T > 0
        p[:, metrics == "accuracy"] = mcnemar_p(correct, still_correct)[:, None]
    n = {OVERALL: N} | dict(zip(labels, np.bincount(targets, minlength=K), strict=True))
    columns = {
        "class": classes,
        "metric": metrics,
        "n": np.array([n[label] for label in classes]),
        "baseline": values[0],
        "ablated": values[1:],
        "effect": values[1:] - values[0],
        "ci_low": low,
        "ci_high": high,
        "p": p,
    }
    return pd.DataFrame({name: np.broadcast_to(column, p.shape).ravel() for name, column in columns.items()})


def _read_texts(before: Readings, after: Readings, targets: Ints) -> Quantities:
    """Return what the metrics add up, by text."""
    log_probs = np.concatenate([before.log_probs, after.log_probs])  # (1 + U, N, K)
    predicted = np.concatenate([before.predicted, after.predicted])
    return Quantities(
        predicted=predicted.swapaxes(0, 1),
        log_odds=np.concatenate([before.log_odds, after.log_odds]).swapaxes(0, 1),
        log_prob=log_probs[:, np.arange(len(targets)), targets].T,
        flipped=(1 - (predicted * before.predicted).sum(-1)).T,
    )


def _sum_by_class(weights: Floats, texts: Quantities, targets: Ints) -> Quantities:
    """Sum over the texts of each class, on each resample: weights (draws, N) -> axes (draws, K, 1 + U)."""
    K = texts.predicted.shape[-1]
    sums = []  # for each class (draws, 1 + U, 2K + 2), in one matrix product
    for k in range(K):
        chosen = targets == k
        log_prob, flipped = texts.log_prob[chosen, :, None], texts.flipped[chosen, :, None]
        together = np.concatenate([texts.predicted[chosen], texts.log_odds[chosen], log_prob, flipped], axis=-1)
        sums.append(np.tensordot(weights[:, chosen], together, 1))
    predicted, log_odds, log_prob, flipped = np.split(np.stack(sums, axis=1), [K, 2 * K, 2 * K + 1], axis=-1)
    return Quantities(predicted, log_odds, log_prob[..., 0], flipped[..., 0])


@np.errstate(invalid="ignore")  # 0 / 0 is NaN: undefined in this draw
def _resample_metrics(
    weights: Floats, texts: Quantities, targets: Ints, labels: Sequence[str]
) -> dict[tuple[str, str], Floats]:
    """Compute all metrics on each resample: weights (draws, N) -> (draws, 1 + U) by class and metric.

    As in `lab.metrics`, macro-F1 skips a class without texts and predictions."""
    N, K = len(targets), len(labels)
    sums = _sum_by_class(weights, texts, targets)
    n = np.stack([weights[:, targets == k].sum(1) for k in range(K)], axis=-1)[:, None]  # (draws, 1, class)
    log_prob, flipped = sums.log_prob.swapaxes(1, 2), sums.flipped.swapaxes(1, 2)  # (draws, 1 + U, class), as below
    hits, claimed = np.einsum("dkuk->duk", sums.predicted), sums.predicted.sum(1)
    inside = np.einsum("dkuk->duk", sums.log_odds)  # log-odds of each class summed over its own texts
    outside = sums.log_odds.sum(1) - inside
    margin, f1 = inside / n, 2 * hits / (n + claimed)
    metrics = {
        (OVERALL, "accuracy"): hits.sum(-1) / N,
        (OVERALL, "macro_f1"): np.nanmean(f1, axis=-1),
        (OVERALL, "log_prob"): log_prob.sum(-1) / N,
        (OVERALL, "flip_rate"): flipped.sum(-1) / N,
    }
    per_class = {
        "recall": hits / n,
        "precision": np.nan_to_num(hits / claimed),
        "f1": f1,
        "log_prob": log_prob / n,
        "margin": margin,
        "specific_margin": margin - outside / (N - n),
        "flip_rate": flipped / n,
    }
    for k, label in enumerate(labels):
        metrics |= {(label, name): values[..., k] for name, values in per_class.items()}
    return metrics


def _check(baseline: Floats, ablated: Floats, targets: Ints, labels: Sequence[str]) -> None:
    N, K = len(targets), len(labels)
    if baseline.shape != (N, K) or ablated.ndim != 4 or ablated.shape[1::2] != (N, K) or not ablated.size:
        expected = f"baseline ({N}, {K}) and ablated (units, {N}, draws, {K})"
        raise ValueError(f"expected logits {expected}, got {baseline.shape} and {ablated.shape}")
    if targets.min() < 0 or targets.max() >= K:
        raise ValueError(f"expected targets in 0..{K - 1}, got {np.unique(targets)}")
