"""What answers show, in numbers: agreement, accuracy with limits, what a share of choices can show, marked words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, hypergeom, norm
from sklearn.metrics import average_precision_score

from lab.shares import FEWEST
from lab.stats import LEVEL, bootstrap, resamples, simultaneous_limits

POWER = 0.8
Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
MISSING = -1  # in a table of answers


@dataclass(frozen=True)
class Value:
    """A number with 95 % limits, NaN where there are none, and a line that says why, or what it is."""

    value: float
    low: float = np.nan
    high: float = np.nan
    note: str = ""


def count_pairs(answers: Ints, K: int) -> Floats:
    """Return the coincidences of each item: answers int (N, R) in 0 .. K-1 or MISSING -> float (N, K, K).

    Each pair of answers to an item counts twice, over the number of its answers less one, as Krippendorff weighs them:
    all together they count as many as there are answers. An item with one answer has no pair."""
    counts = (answers[:, :, None] == np.arange(K)).sum(axis=1)  # (N, K)
    n = counts.sum(axis=1)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(K)
    return pairs / np.maximum(n - 1, 1)[:, None, None]


def measure_alpha(coincidences: Floats, ordinal: bool = False) -> Floats:
    """Return Krippendorff's alpha: coincidences (..., K, K), summed over items -> (...). NaN where all answers are
    equal, or none has a partner.

    1 minus the disagreement seen over that of answers dealt at random (Krippendorff 2018, ch. 12). Two different
    classes disagree by 1; two ranks by the square of the number of answers between them, each end counted half."""
    n_of, K = coincidences.sum(axis=-1), coincidences.shape[-1]
    n = n_of.sum(axis=-1)[..., None, None]
    distance = np.broadcast_to(1 - np.eye(K), coincidences.shape)
    if ordinal:
        middle = np.cumsum(n_of, axis=-1) - n_of / 2  # answers below the middle of each rank
        distance = (middle[..., :, None] - middle[..., None, :]) ** 2
    seen = (coincidences * distance).sum(axis=(-1, -2))
    by_chance = (n_of[..., :, None] * n_of[..., None, :] * distance / np.maximum(n - 1, 1)).sum(axis=(-1, -2))
    return 1 - np.divide(seen, by_chance, out=np.full_like(seen, np.nan), where=by_chance > 0)


class Agreement(NamedTuple):
    alpha: Value
    equal: Value  # share of pairs of answers


def measure_agreement(coincidences: Floats, ordinal: bool = False) -> Agreement:
    """Return alpha and the share of pairs that agree, of coincidences (N, K, K), with limits over the N items."""
    K = coincidences.shape[-1]
    coincidences = coincidences[coincidences.sum(axis=(1, 2)) > 0]
    n = len(coincidences)
    if not n:
        nothing = Value(np.nan, note="undefined: no item has answers of two raters")
        return Agreement(nothing, nothing)
    flat = coincidences.reshape(n, -1)

    def measure(weights: Floats) -> dict[str, Floats]:
        sums = (weights @ flat).reshape(-1, K, K)
        return {
            "alpha": measure_alpha(sums, ordinal),
            "equal": np.trace(sums, axis1=1, axis2=2) / sums.sum(axis=(1, 2)),
        }

    alpha, equal = limit(measure, n)
    if np.isnan(alpha.value):
        alpha = Value(np.nan, note="undefined: all answers are equal")
    return Agreement(alpha, equal)


def limit(measure: Callable[[Floats], dict[str, Floats]], n: int) -> list[Value]:
    """Return metrics of n items with bootstrap limits. measure: takes weights (draws, n), returns name -> (draws,)."""
    values = measure(np.ones((1, n)))
    if n < FEWEST:
        return [Value(float(value[0]), note=f"fewer than {FEWEST} items: no limits") for value in values.values()]
    limits = bootstrap(measure, n)
    return [Value(float(value[0]), *(limits[name] or (np.nan, np.nan))) for name, value in values.items()]


def measure_kappa(answers: Ints) -> Value:
    """Return Cohen's kappa, the mean over pairs of raters; answers: int (N, R), or MISSING.

    1 where both always agree, 0 where as often as the same answers dealt at random: here in counts, times n squared."""
    by_class = (answers[:, :, None] == np.arange(answers.max(initial=0) + 1)).astype(float)  # (N, R, K)
    kappas = [np.empty(0)]
    for i in range(1, answers.shape[1]):
        common = np.einsum("nk,nrl->rkl", by_class[:, i], by_class[:, :i], optimize=True)
        n, same = common.sum(axis=(1, 2)), np.trace(common, axis1=1, axis2=2)
        by_chance = (common.sum(axis=1) * common.sum(axis=2)).sum(axis=1)
        known = n**2 > by_chance  # one class alone has no kappa
        kappas.append((n * same - by_chance)[known] / (n**2 - by_chance)[known])
    each = np.concatenate(kappas)
    if not len(each):
        return Value(np.nan, note="undefined: no two raters with different answers to common items")
    return Value(float(each.mean()), note=f"{len(each)} pairs of raters, {each.min():.2f} to {each.max():.2f}")


def measure_share(hits: Floats) -> Value:
    """Return the share of hits (N, R), 0 or 1, or NaN where there is no answer.

    Where each item has one answer, its limits are exact binomial ones (Clopper & Pearson 1934). Answers of several
    raters to one item are not independent: then they are the wider of these, and of those over items."""
    n_of = (~np.isnan(hits)).sum(axis=1)
    if not n_of.any():
        return Value(np.nan, note="no answers")
    test = binomtest(int(np.nansum(hits)), int(n_of.sum()))
    exact = test.proportion_ci(1 - LEVEL, method="exact")
    if n_of.max() == 1:
        return Value(test.statistic, exact.low, exact.high, "exact binomial limits")
    over = average(hits)
    return Value(over.value, np.minimum(over.low, exact.low), np.maximum(over.high, exact.high), over.note)


def count_needed(share: float) -> float:
    """Return how many independent choices tell this share from 0.5 with POWER, two-sided at 5 %; not rounded up.

    By the normal approximation: the exact test, which errs on the safe side, has a few points less power."""
    spread = norm.isf(LEVEL / 2) / 2 + norm.isf(1 - POWER) * np.sqrt(share * (1 - share))
    return float((spread / (share - 0.5)) ** 2)


def find_detectable(n: int) -> float:
    """Return the smallest share above 0.5 that the exact test tells from 0.5 with POWER in n independent choices; 1
    where it can tell none."""
    least = int(binom.isf(LEVEL / 2, n, 0.5)) + 1  # hits that are significant
    if least > n:
        return 1.0
    return float(brentq(lambda share: binom.sf(least - 1, n, share) - POWER, 0.5, 1))


def average(values: Floats) -> Value:
    """Return the mean over items, each as often as it was answered: values (N, R), NaN where there is no answer."""
    values = values[~np.isnan(values).all(axis=1)]
    sums, counts = np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1)
    if not len(values):
        return Value(np.nan, note="no answers")
    [value] = limit(lambda weights: {"mean": (weights @ sums) / (weights @ counts)}, len(values))
    return value


def average_together(columns: Sequence[Floats]) -> list[Value]:
    """Return the mean of each column of values (n,), with limits that hold for all at once, on the same items where
    columns are equally long. NaN is no value; columns of fewer than FEWEST have no limits."""
    means = np.array([np.nanmean(column) if (~np.isnan(column)).any() else np.nan for column in columns])
    n = np.array([(~np.isnan(column)).sum() for column in columns])
    enough = np.flatnonzero(n >= FEWEST)
    low, high = np.full((2, len(columns)), np.nan)
    if len(enough):
        resampled = np.column_stack([resample_mean(columns[i]) for i in enough.tolist()])
        low[enough], high[enough] = simultaneous_limits(means[enough], resampled, n[enough])
    few = f"fewer than {FEWEST} items: no limits"
    return [Value(*row, "" if i in enough else few) for i, row in enumerate(zip(means, low, high, strict=True))]


def resample_mean(values: Floats) -> Floats:
    """Return the mean of values (n,) in each resample; NaN is no value."""
    weights, known = np.concatenate(list(resamples(len(values)))), ~np.isnan(values)
    return (weights[:, known] @ values[known]) / np.maximum(weights[:, known].sum(axis=1), 1)


def compare_marks(values: Floats, marked: NDArray[np.bool_]) -> dict[str, float]:
    """Return how a method's values float (n,) rank the words that a rater marked, bool (n,): `token_f1, iou, auprc`.

    As many words as were marked are taken, those with the largest values, ties in order (DeYoung et al. 2020)."""
    top = np.zeros(len(values), dtype=bool)
    top[np.argsort(-values, kind="stable")[: marked.sum()]] = True
    common = (top & marked).sum()
    return {
        "token_f1": float(common / marked.sum()),
        "iou": float(common / (top | marked).sum() >= 0.5),
        "auprc": float(average_precision_score(marked, values)),
    }


def expect_random(n: int, k: int) -> dict[str, float]:
    """Return what `compare_marks` gives on average over all orders of n words, of which k are marked.

    How many marked words are taken is hypergeometrically distributed. A marked word at place i has (i - 1) (k - 1) /
    (n - 1) others before it on average, which gives the precision there."""
    i = np.arange(1, n + 1)
    precision = (1 + (i - 1) * (k - 1) / max(n - 1, 1)) / i
    enough = np.ceil(2 * k / 3)  # common words, for half of all that are marked or taken
    iou = float(hypergeom.sf(enough - 1, n, k, k))
    return {"token_f1": k / n, "iou": iou, "auprc": float(precision.mean())}
