"""What closing a part of the model does to each class, and how sure that is.

An ablation is measured against the whole model on the same texts, so everything here is paired by text. Effects are
ablated minus baseline.

Letters: U units that were ablated one at a time, N texts, R draws (the donors of a resample ablation, else 1),
K classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from .metrics import Floats, Ints
from .stats import benjamini_hochberg, holm, interval, mcnemar_p, permutation_p, resamples

OVERALL = ("accuracy", "macro_f1", "log_prob", "flip_rate")  # of class `all`
PER_CLASS = ("recall", "precision", "f1", "log_prob", "margin", "specific_margin", "flip_rate")
RATIOS = ("recall", "precision", "f1")
TEXT = ("kind", "region", "fill", "split", "class", "metric")  # columns of effects.csv; the others hold numbers
UNITS = 160  # handled at once: GPT-2's 144 heads fit, which the permutation test likes, and memory stays flat


class Readings(NamedTuple):
    """What logits say about each text, mean over the draws: float64 (U, N, K) each.

    `log_odds` of a class against the rest: log p - log(1 - p), its logit minus the logsumexp of the others.
    `predicted`: the share of draws in which the class is the most probable one.
    """

    log_probs: Floats
    log_odds: Floats
    predicted: Floats


def readings(logits: Floats) -> Readings:
    """logits float (U, N, R, K), finite."""
    return Readings(*map(np.stack, zip(*map(_of_unit, logits), strict=True)))


def _of_unit(logits: Floats) -> Readings:
    if not np.isfinite(logits).all():
        raise ValueError("expected finite logits, got NaN or infinity")
    x = np.moveaxis(logits, -1, 0).astype(np.float64)  # (K, N, R)
    log_probs = x - np.logaddexp.reduce(x, axis=0)
    log_odds = [own - np.logaddexp.reduce(np.delete(x, k, axis=0), axis=0) for k, own in enumerate(x)]
    predicted = x.argmax(0) == np.arange(len(x))[:, None, None]
    return Readings(*(np.mean(reading, axis=-1).T for reading in (log_probs, log_odds, predicted)))


def effects(baseline: Floats, ablated: Floats, targets: Ints, labels: Sequence[str], test: bool) -> pd.DataFrame:
    """One row per unit, class and metric: `unit, class, metric, n, baseline, ablated, effect, ci_low, ci_high, p,
    p_corrected`, from logits float baseline (N, K) and ablated (U, N, R, K), targets int (N,) and labels, K names.

    Class `all` has `accuracy, macro_f1, log_prob, flip_rate`; each label `recall, precision, f1, log_prob, margin,
    specific_margin, flip_rate`. `log_prob`: mean log-probability of the true class. `margin`: mean log-odds of the
    class over its n texts; `specific_margin`: that minus the mean of the same log-odds over all other texts, which a
    shift towards or away from the class on every text leaves as it is. `flip_rate`: share of predictions that differ
    from the baseline's. A ratio with nothing below the line is 0, a mean over no texts NaN.

    The interval is a 95 % paired bootstrap over texts: each resample is the same for baseline and all units; it covers
    that other texts might have been drawn, not other seeds of training. With `test`, p is `permutation_p` of the
    change of the specific margin and, where R is 1, `mcnemar_p` of accuracy; p_corrected is `holm` over all units and
    classes, or over all units.
    """
    _check(baseline, ablated, targets, labels)
    starts = range(0, len(ablated), UNITS)
    blocks = [_block(baseline, ablated[start : start + UNITS], targets, labels, test) for start in starts]
    table = pd.concat(blocks, ignore_index=True)
    table.insert(0, "unit", np.repeat(np.arange(len(ablated)), len(table) // len(ablated)))
    return corrected(table)


def read_effects(path: Path) -> pd.DataFrame:
    """effects.csv: an empty number is NaN, and text stays as it is written, also where a class is called nan or 1."""
    empty = dict.fromkeys(pd.read_csv(path, nrows=0).columns.difference([*TEXT]), "")
    table = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), na_values=empty, keep_default_na=False)
    return table.astype({"layer": "Int64", "head": "Int64"})


def corrected(table: pd.DataFrame) -> pd.DataFrame:
    """With `p_corrected`: Holm's correction of `p` over all rows of the same metric, one family."""
    return table.assign(p_corrected=table.groupby("metric")["p"].transform(lambda p: holm(p.to_numpy())))


def confirmed(val: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Specific margins, ranked on val and confirmed on test: one row per unit and class of two tables of `effects`.

    Columns `unit, class, n, baseline, val_effect, test_effect, ci_low, ci_high, p, p_holm, p_bh, rank`. Rank 1 has the
    largest effect on val, in either direction; all else is of test, which had no say in the choice. The p-values of all
    rows are one family for `holm` and `benjamini_hochberg`.
    """
    key = ["unit", "class"]
    ranked, own = (table[table["metric"] == "specific_margin"] for table in (val, test))
    ranked = ranked[[*key, "effect"]].rename(columns={"effect": "val_effect"})
    table = own.rename(columns={"effect": "test_effect"}).merge(ranked, on=key, how="left", validate="one_to_one")
    p = table["p"].to_numpy()
    table = table.assign(p_holm=holm(p), p_bh=benjamini_hochberg(p))
    table = table.sort_values("val_effect", key=abs, ascending=False, kind="stable", ignore_index=True)
    measured = ["n", "baseline", "val_effect", "test_effect", "ci_low", "ci_high", "p", "p_holm", "p_bh"]
    return table.assign(rank=table.index + 1)[[*key, *measured, "rank"]]


def flips(baseline: Floats, ablated: Floats, targets: Ints, labels: Sequence[str]) -> pd.DataFrame:
    """Which predictions change into which, of the logits of `effects`: `unit, class, before, after, share, n`.

    `class` is the true label; `share` of its n texts, mean over the draws, is predicted `before` by the whole model
    and `after` by the ablated one. One row for each of these that occurs.
    """
    _check(baseline, ablated, targets, labels)
    K, n = len(labels), np.bincount(targets, minlength=len(labels))
    groups = np.eye(K * K)[targets * K + baseline.argmax(1)].T  # (true, before) x texts
    moved = np.stack([(groups @ _of_unit(unit).predicted).reshape(K, K, K) for unit in ablated])
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


def _block(baseline: Floats, ablated: Floats, targets: Ints, labels: Sequence[str], test: bool) -> pd.DataFrame:
    """`effects` of a few units, without `unit` and `p_corrected`."""
    U, N, R, K = ablated.shape
    before, after = readings(baseline[None, :, None]), readings(ablated)
    texts = _per_text(before, after, targets)
    classes = np.array(["all"] * len(OVERALL) + [label for label in labels for _ in PER_CLASS])
    metrics = np.array(OVERALL + PER_CLASS * K)
    values = _resampled(np.ones((1, N)), texts, targets)[0]  # (1 + U, metrics)
    values[np.isnan(values) & np.isin(metrics, RATIOS)] = 0
    draws = [_resampled(weights, texts, targets) for weights in resamples(N)]
    low, high = interval(np.concatenate([draw[:, 1:] - draw[:, :1] for draw in draws]))
    p = np.full((U, len(metrics)), np.nan)
    if test:
        change = (after.log_odds - before.log_odds).transpose(1, 0, 2)
        p[:, metrics == "specific_margin"] = permutation_p(change, targets)
    if test and R == 1:
        correct = baseline.argmax(1) == targets
        p[:, 0] = mcnemar_p(correct, after.predicted[:, np.arange(N), targets].T > 0)
    counts = np.bincount(targets, minlength=K)
    columns = {
        "class": classes,
        "metric": metrics,
        "n": np.concatenate([np.repeat(N, len(OVERALL)), np.repeat(counts, len(PER_CLASS))]),
        "baseline": values[0],
        "ablated": values[1:],
        "effect": values[1:] - values[0],
        "ci_low": low,
        "ci_high": high,
        "p": p,
    }
    return pd.DataFrame({name: np.broadcast_to(column, p.shape).ravel() for name, column in columns.items()})


def _per_text(before: Readings, after: Readings, targets: Ints) -> Floats:
    """All that the metrics add up over texts: (N, 1 + U, 2K + 2), the baseline first. Last axis: the predicted shares
    and the log-odds of each class, the log-probability of the true one, and the share of flipped predictions."""
    log_probs, log_odds, predicted = map(np.concatenate, zip(before, after, strict=True))  # (1 + U, N, K) each
    own = log_probs[:, np.arange(len(targets)), targets, None]
    flipped = 1 - (predicted * before.predicted).sum(-1, keepdims=True)
    return np.concatenate([predicted, log_odds, own, flipped], axis=-1).swapaxes(0, 1)


@np.errstate(invalid="ignore")  # 0 / 0 is NaN: undefined in this draw
def _resampled(weights: Floats, texts: Floats, targets: Ints) -> Floats:
    """All metrics on each resample: weights (draws, N), texts of `_per_text` -> (draws, 1 + U, 4 + 7K), OVERALL and
    then PER_CLASS for each class. As in `lab.metrics`, macro-F1 skips a class without texts and predictions."""
    K, N = texts.shape[2] // 2 - 1, len(texts)
    sums = np.stack([np.tensordot(weights[:, targets == k], texts[targets == k], 1) for k in range(K)], axis=1)
    confusion, log_odds = sums[..., :K], sums[..., K : 2 * K]  # (draws, true class, 1 + U, class)
    log_prob, flipped = np.moveaxis(sums[..., 2 * K :], (1, 3), (3, 0))  # (draws, 1 + U, true class)
    n = np.stack([weights[:, targets == k].sum(1) for k in range(K)], axis=-1)[:, None]  # (draws, 1, class)
    hits, own = (np.einsum("dkuk->duk", table) for table in (confusion, log_odds))  # (draws, 1 + U, class)
    claimed, margin = confusion.sum(1), own / n
    precision, f1 = np.nan_to_num(hits / claimed), 2 * hits / (n + claimed)
    specific_margin = margin - (log_odds.sum(1) - own) / (N - n)
    overall = [hits.sum(-1) / N, np.nanmean(f1, axis=-1), log_prob.sum(-1) / N, flipped.sum(-1) / N]
    per_class = [hits / n, precision, f1, log_prob / n, margin, specific_margin, flipped / n]
    by_class = np.stack(per_class, axis=-1)
    return np.concatenate([np.stack(overall, axis=-1), by_class.reshape(*by_class.shape[:2], -1)], axis=-1)


def _check(baseline: Floats, ablated: Floats, targets: Ints, labels: Sequence[str]) -> None:
    N, K = len(targets), len(labels)
    if baseline.shape != (N, K) or ablated.ndim != 4 or ablated.shape[1::2] != (N, K) or not ablated.size:
        expected = f"baseline ({N}, {K}) and ablated (units, {N}, draws, {K})"
        raise ValueError(f"expected logits {expected}, got {baseline.shape} and {ablated.shape}")
    if targets.min() < 0 or targets.max() >= K:
        raise ValueError(f"expected targets in 0..{K - 1}, got {np.unique(targets)}")
