"""How sure a number is: resampling the texts, permuting their labels, and correcting for many tests."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, false_discovery_control, norm, permutation_test, rankdata, t

LEVEL = 0.05  # a result survives where its p after correction is below this
DRAWS = 1000
CHUNK = 2**18  # weights held at once (2 MB): memory stays flat for any number of texts, and the cache suffices
MANY = 2**15  # texts, of which places are drawn one by one: five times as fast as their multinomial counts
PERMUTATIONS = 99_999
PERMUTED = 2**20  # labels held at once (8 MB): enough rows for a fast matrix product
TIE = 1e-4  # float32 sums of the same values in another order differ by less, as a share
ROUNDING = 1e-6  # and of their squares about the class means, where all squares sum to 1, by less than this


def resamples(n: int, seed: int = 0) -> Iterator[NDArray[np.floating]]:
    """Yield DRAWS resamples of n texts with replacement, in chunks: how often each was drawn, float64 (draws, n).

    The same n and seed give the same resamples, so two quantities that are computed on them are paired."""
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK // n)
    for start in range(0, DRAWS, chunk):
        draws = min(chunk, DRAWS - start)
        if n > MANY:
            yield np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(draws)]).astype(float)
        else:
            yield rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(float)


def bootstrap(
    metrics: Callable[[NDArray[np.floating]], Mapping[str, NDArray[np.floating]]], n: int, seed: int = 0
) -> dict[str, list[float] | None]:
    """Return the 95 % interval of each metric over n texts: name -> [low, high].

    Other texts would have given other numbers; the bootstrap asks how different. It draws n texts with replacement from
    the n at hand, as if they were the whole population, and computes the metric on this new sample, a thousand times.
    The interval holds the middle 95 % of the results (percentile interval: Efron & Tibshirani 1993, ch. 13).

    metrics: takes weights (draws, n) and returns name -> (draws,), NaN in a draw where the metric is undefined (a class
    of which no text was drawn). Such draws are left out; where all are, the interval is None."""
    chunks = [metrics(weights) for weights in resamples(n, seed)]
    intervals = {name: interval(np.concatenate([chunk[name] for chunk in chunks])) for name in chunks[0]}
    return {name: None if np.isnan(ends).any() else ends.tolist() for name, ends in intervals.items()}


def interval(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the middle 95 % of the draws: values (draws, ...) -> (2, ...), low and high.

    Draws that are NaN are left out; where all are NaN, the ends are NaN too."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        return np.nanpercentile(values, [2.5, 97.5], axis=0)


def simultaneous_limits(
    values: NDArray[np.floating], resampled: NDArray[np.floating], n: NDArray[np.integer] | None = None
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return low and high 95 % limits that hold for all values (...) at once, from resampled values (draws, ...).

    Of a hundred intervals that hold with 95 % each, some five do not. Limits for all at once measure each value's
    deviation in standard errors, take the largest over all values in each resample, and let 95 % of these in (max-|t|;
    Romano & Wolf 2005; Montiel Olea & Plagborg-Moeller 2019). Values that move together cost less than Bonferroni.

    n (...): how many texts each value rests on. The bootstrap takes their spread for that of all texts, which for few
    texts is too small. So the reach becomes that of Student's t with n - 1 degrees of freedom at the same p, times
    sqrt(n / (n - 1)). Without n, there are enough texts.

    A value that is NaN, or in no resample defined, has no limits; one that no resample changes has itself as both."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(Degrees of freedom|All-NaN)", RuntimeWarning)
        error = np.nanstd(resampled, axis=0, ddof=1)
        deviation = np.divide(np.abs(resampled - values), error, out=np.zeros(resampled.shape), where=error > 0)
        largest = np.nanmax(deviation.reshape(len(resampled), -1), axis=1)
        reach = np.nanquantile(largest, 1 - LEVEL)
    if n is not None:
        reach = t.isf(norm.sf(reach), n - 1) * np.sqrt(n / (n - 1))
    return values - reach * error, values + reach * error


def compare_with_first(
    scores: NDArray[np.floating], of_texts: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Return how sure it is that other arms differ from the first: low and high 95 % limits of each difference of
    means, and its p, (..., A - 1) each; NaN where there is one seed.

    scores: of A arms with the same S seeds, from 0 to 1, (..., A, S). of_texts: the variance of each difference of
    means over resampled texts, (..., A - 1).

    Other texts and other seeds would have given another difference, so two variances add up. That of the seeds is
    2 / S of the residual mean square of a randomised block design, where each seed is a block (Montgomery 2017,
    Design and Analysis of Experiments, ch. 4): what is left of the scores without the means of arms and seeds. Two or
    three seeds tell little about their own spread, all arms together tell more: it is taken to be the same in each arm.
    The limits are those of Student's t with its (A - 1) (S - 1) degrees of freedom. They are rather too wide than too
    narrow, as the spread of the texts is known better than that. Scores from 0 to 1 differ by 1 at most, and there the
    limits end."""
    A, S = scores.shape[-2:]
    means = scores.mean(axis=-1)
    difference = means[..., 1:] - means[..., :1]
    if S == 1:
        return (np.full(difference.shape, np.nan),) * 3
    of_seeds = scores.mean(axis=-2, keepdims=True) - scores.mean(axis=(-2, -1), keepdims=True)
    residual, freedom = scores - means[..., None] - of_seeds, (A - 1) * (S - 1)
    error = np.sqrt(2 / S * (residual**2).sum(axis=(-2, -1))[..., None] / freedom + of_texts)
    reach = t.isf(LEVEL / 2, freedom) * error
    certain = np.where(difference == 0, 0.0, np.inf)  # neither seeds nor texts change the difference
    p = 2 * t.sf(np.divide(np.abs(difference), error, out=certain, where=error > 0), freedom)
    return np.clip(difference - reach, -1, 1), np.clip(difference + reach, -1, 1), p


def concordance(scores: NDArray[np.floating], seed: int = 0) -> tuple[float, float]:
    """Return Kendall's W of scores (runs, units), and its p: do the runs rank the units alike?

    Each run ranks all units, and W measures how far the units' rank sums lie apart: 1 where all runs agree, near
    1 / runs where they rank at random (Kendall & Babington Smith 1939). For p, the units of each run are shuffled,
    9,999 times: the share of shuffles, the true order counted in, with a W at least as large."""
    runs, units = scores.shape

    def measure_w(*ranks: NDArray[np.floating], axis: int = -1) -> NDArray[np.floating]:
        return 12 * np.var(sum(ranks), axis=axis) / (runs**2 * (units**2 - 1))

    ranks = rankdata(scores, axis=1)
    test = permutation_test(
        tuple(ranks), measure_w, permutation_type="pairings", vectorized=True, alternative="greater", rng=seed
    )
    return float(test.statistic), float(test.pvalue)


def permutation_p(
    values: NDArray[np.floating], targets: NDArray[np.integer], draws: int = PERMUTATIONS, seed: int = 0
) -> NDArray[np.floating]:
    """Test whether texts of a class differ from the rest: values (N, U, K), targets int (N,) -> p float64 (U, K).

    If the labels had nothing to do with the values, any other assignment of the same labels to the texts would do as
    well. So the permutation test shuffles the labels many times and computes the statistic anew each time. p is the
    share of shuffles whose statistic is at least as extreme as that of the true labels, in either direction.

    The statistic of unit u and class c compares the mean of values[:, u, c] over the texts of class c with that over
    all other texts; all u and c share the permutations. It is Welch's t, the difference divided by its standard error:
    so the test is exact where values have nothing to do with the label, and for many texts it also holds where only
    the means are equal and a class spreads more than the others (Janssen 1997; Chung & Romano 2013).
    p = (1 + permutations at least as extreme) / (1 + draws) is never 0 (Phipson & Smyth 2010). It is 1 where no text
    differs from another, NaN for a class of no texts or of all. Raises ValueError where a value is not finite.

    Why so many draws: the smallest p is 1e-5, and GPT-2's 144 heads times 6 classes are 864 tests. Times 864 it is
    0.009, so a real effect can survive `holm`; with 10,000 draws none could."""
    if not np.isfinite(values).all():
        raise ValueError("expected finite values to permute, got NaN or infinity")
    _, U, K = values.shape
    scaled = [_scale(values[:, :, c]) for c in range(K)]
    true = [_compare_means((targets == c)[None], scaled[c]) for c in range(K)]
    extreme = np.zeros((U, K), int)
    for labels in _permute(targets, draws, max(1, PERMUTED // max(len(targets), U)), seed):
        for c in range(K):
            extreme[:, c] += _at_least_as_extreme(_compare_means(labels == c, scaled[c]), true[c]).sum(0)
    n = np.bincount(targets, minlength=K)
    return np.where((n > 0) & (n < len(targets)), (1 + extreme) / (1 + draws), np.nan)


@dataclass(frozen=True)
class _Welch:
    """Welch's t (1947) in parts, for each labelling of the texts and each unit."""

    difference: NDArray[np.floating]  # of the two means, squared: (draws, U)
    error: NDArray[np.floating]  # its standard error, squared: (draws, U)
    rounding: float | np.floating  # by how much `error` may be off


def _at_least_as_extreme(permuted: _Welch, true: _Welch) -> NDArray[np.bool_]:
    """Compare t of permuted labels with that of the true ones, multiplied out because an error may be 0: (draws, U)."""
    least, most = permuted.error - true.rounding, true.error + true.rounding
    return permuted.difference * most >= (1 - TIE) * true.difference * least


def _scale(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Subtract the mean of values (N, U) and divide by the norm, in float32: the squares of each unit then sum to 1.

    A unit whose values are all equal becomes 0."""
    centred = values - values.mean(0, dtype=np.float64)
    norm = np.linalg.norm(centred, axis=0)
    differ = norm > 1e-12 * np.linalg.norm(values, axis=0)  # less is rounding
    return np.divide(centred, norm, out=np.zeros_like(centred), where=differ).astype(np.float32)


def _compare_means(members: NDArray[np.bool_], scaled: NDArray[np.float32]) -> _Welch:
    """Compare the texts of a class, members bool (draws, N), with all others by the values of `_scale`.

    The sums over the others follow from those over the class, as all values sum to 0 and their squares to 1. Where a
    class hardly spreads, only rounding is left of its spread."""
    weights = members.astype(np.float32)
    n = weights[0].sum()
    others = len(scaled) - n
    if not n or not others:
        nothing = np.zeros((len(members), scaled.shape[1]))
        return _Welch(nothing, nothing, 0.0)
    sums, squares = weights @ scaled, weights @ scaled**2
    pairs, other_pairs = max(n - 1, 1) * n, max(others - 1, 1) * others
    spread = (squares - sums**2 / n).clip(0) / pairs + (1 - squares - sums**2 / others).clip(0) / other_pairs
    return _Welch((sums / n + sums / others) ** 2, spread, ROUNDING / pairs + ROUNDING / other_pairs)


def _permute(targets: NDArray[np.integer], draws: int, chunk: int, seed: int) -> Iterator[NDArray[np.integer]]:
    """Yield permutations of targets (N,) as int64 (draws in this chunk, N): numpy shuffles no other size as fast."""
    rng = np.random.default_rng(seed)
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        yield rng.permuted(np.broadcast_to(targets.astype(np.int64), (rows, len(targets))), axis=1)


def mcnemar_p(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Test whether accuracy changed: correct before bool (N,) and after bool (N, U) -> p float64 (U,).

    Texts that are right both times, or wrong both times, say nothing about a change. If accuracy had not changed, each
    of the others would be lost or won by the toss of a fair coin. p is the binomial probability of a split at least as
    uneven as the one seen, in either direction (McNemar 1947, in its exact form); it is 1 where no text changes."""
    lost, won = (before[:, None] & ~after).sum(0), (~before[:, None] & after).sum(0)
    return np.minimum(1, 2 * binom.cdf(np.minimum(lost, won), lost + won, 0.5))


def holm(p: NDArray[np.floating]) -> NDArray[np.floating]:
    """Adjust p (m,) for the number of tests by Holm's method.

    Of a hundred tests with nothing to find, five have p below 0.05 by chance. Holm (1979) multiplies the smallest of m
    p-values by m, the next by m - 1, and so on, and lets none become smaller than the one before. If all tests that are
    then below 0.05 count as discoveries, at most one in twenty such families has any false one.

    NaN stays NaN and is no member of the family."""
    adjusted, defined = np.full(p.shape, np.nan), np.flatnonzero(~np.isnan(p))
    order = defined[np.argsort(p[defined])]
    hypotheses_left = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * hypotheses_left))
    return adjusted


def benjamini_hochberg(p: NDArray[np.floating]) -> NDArray[np.floating]:
    """Adjust p (m,) for the number of tests by the method of Benjamini and Hochberg.

    `holm` guards against a single false discovery, which costs many true ones. Benjamini & Hochberg (1995) guard their
    share instead: the i-th smallest of m p-values is multiplied by m / i, and none may exceed the next larger one. Of
    what is then below 0.05, at most one in twenty is expected to be false.

    NaN stays NaN and is no member of the family."""
    adjusted, defined = np.full(p.shape, np.nan), ~np.isnan(p)
    adjusted[defined] = false_discovery_control(p[defined])
    return adjusted
