"""How sure a number is: resampling the texts, permuting their labels, and correcting for many tests."""

import warnings
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, false_discovery_control

DRAWS = 1000
CHUNK = 2**18  # weights held at once (2 MB): memory stays flat for any number of texts, and the cache suffices
PERMUTATIONS = 99_999
PERMUTED = 2**20  # labels held at once (8 MB): enough rows for a fast matrix product
TIE = 1e-4  # float32 sums of the same values in another order differ by less, as a share
ROUNDING = 1e-6  # and of their squares about the class means, where all squares sum to 1, by less than this


def resamples(n: int, seed: int = 0) -> Iterator[NDArray[np.floating]]:
    """DRAWS resamples of n texts with replacement, as float64 (draws in this chunk, n): how often each text was drawn.

    The same n and seed give the same resamples, so what is compared on them is compared in pairs.
    """
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK // n)
    for start in range(0, DRAWS, chunk):
        yield rng.multinomial(n, np.full(n, 1 / n), size=min(chunk, DRAWS - start)).astype(float)


def bootstrap(
    metrics: Callable[[NDArray[np.floating]], Mapping[str, NDArray[np.floating]]], n: int, seed: int = 0
) -> dict[str, list[float] | None]:
    """95 % percentile intervals (Efron & Tibshirani 1993, ch. 13) of metrics over n texts: name -> [low, high].

    `metrics` takes weights (draws, n) and returns name -> (draws,), NaN in a draw where the metric is undefined
    (a class of which no text was drawn). Such draws are left out; where all are, the interval is None.
    """
    chunks = [metrics(weights) for weights in resamples(n, seed)]
    intervals = {name: interval(np.concatenate([chunk[name] for chunk in chunks])) for name in chunks[0]}
    return {name: None if np.isnan(ends).any() else ends.tolist() for name, ends in intervals.items()}


def interval(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """95 % percentile interval over draws: values (draws, ...) -> (2, ...), low and high.

    Draws that are NaN are left out; where all are, so are the ends.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        return np.nanpercentile(values, [2.5, 97.5], axis=0)


def permutation_p(
    values: NDArray[np.floating], targets: NDArray[np.integer], draws: int = PERMUTATIONS, seed: int = 0
) -> NDArray[np.floating]:
    """Two-sided permutation test of class means: values (N, U, K), targets int (N,) -> p float64 (U, K).

    What is tested for unit u and class c: the mean of values[:, u, c] over the texts of class c, minus that over all
    other texts. The null distribution permutes the labels of the texts, in the same way for every u and c. The
    statistic is Welch's t, the difference by its standard error: so the test is exact where values have nothing to do
    with the label, and for many texts also holds where only the means are equal and a class spreads more than the
    others (Janssen 1997; Chung & Romano 2013). p = (1 + permutations at least as extreme) / (1 + draws), never 0
    (Phipson & Smyth 2010). It is 1 where no text differs from another, NaN for a class of no texts or of all.

    Why so many draws: the smallest p is 1e-5, and GPT-2's 144 heads times 6 classes are 864 tests. Times 864 it is
    0.009, so a real effect can survive `holm`; with 10,000 draws none could.
    """
    if not np.isfinite(values).all():
        raise ValueError("expected finite values to permute, got NaN or infinity")
    _, U, K = values.shape
    scaled = [_scaled(values[:, :, c]) for c in range(K)]
    observed = [_difference((targets == c)[None], scaled[c]) for c in range(K)]
    extreme = np.zeros((U, K), int)
    for labels in _permuted(targets, draws, max(1, PERMUTED // max(len(targets), U)), seed):
        for c, (difference, error, rounding) in enumerate(observed):
            permuted = _difference(labels == c, scaled[c])  # squares, (draws in this chunk, U) each; no division by 0
            at_least = permuted[0] * (error + rounding) >= (1 - TIE) * difference * (permuted[1] - rounding)
            extreme[:, c] += at_least.sum(0)
    n = np.bincount(targets, minlength=K)
    return np.where((n > 0) & (n < len(targets)), (1 + extreme) / (1 + draws), np.nan)


def _scaled(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """values (N, U) about their mean, in float32, the squares of each unit summing to 1; all 0 where they are equal."""
    centred = values - values.mean(0, dtype=np.float64)
    norm = np.linalg.norm(centred, axis=0)
    differ = norm > 1e-12 * np.linalg.norm(values, axis=0)  # less is rounding
    return np.divide(centred, norm, out=np.zeros_like(centred), where=differ).astype(np.float32)


def _difference(own: NDArray[np.bool_], scaled: NDArray[np.float32]) -> tuple[NDArray[np.floating], ...]:
    """Difference of two means and its standard error (Welch 1947), both squared, (draws, U) each, and the rounding of
    the latter, ().

    own bool (draws, N): which texts are of the class. The sums over the others follow from those over the class, as
    all values sum to 0 and their squares to 1. Where a class hardly spreads, only rounding is left of its spread."""
    weights = own.astype(np.float32)
    n = weights[0].sum()
    others = len(scaled) - n
    if not n or not others:
        return np.zeros((len(own), scaled.shape[1])), np.zeros((len(own), scaled.shape[1])), np.zeros(())
    sums, squares = weights @ scaled, weights @ scaled**2
    pairs, other_pairs = max(n - 1, 1) * n, max(others - 1, 1) * others
    spread = (squares - sums**2 / n).clip(0) / pairs + (1 - squares - sums**2 / others).clip(0) / other_pairs
    return (sums / n + sums / others) ** 2, spread, np.asarray(ROUNDING / pairs + ROUNDING / other_pairs)


def _permuted(targets: NDArray[np.integer], draws: int, chunk: int, seed: int) -> Iterator[NDArray[np.integer]]:
    """Permutations of targets (N,) as int64 (draws in this chunk, N): numpy shuffles no other size as fast."""
    rng = np.random.default_rng(seed)
    for start in range(0, draws, chunk):
        rows = min(chunk, draws - start)
        yield rng.permuted(np.broadcast_to(targets.astype(np.int64), (rows, len(targets))), axis=1)


def mcnemar_p(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Exact two-sided test of McNemar (1947): correct before (N,) and after (N, U), bool -> p float64 (U,).

    Of the texts that change sides, as many should be lost as won: a fair coin each. 1 where none does.
    """
    lost, won = (before[:, None] & ~after).sum(0), (~before[:, None] & after).sum(0)
    return np.minimum(1, 2 * binom.cdf(np.minimum(lost, won), lost + won, 0.5))


def holm(p: NDArray[np.floating]) -> NDArray[np.floating]:
    """p (m,) adjusted by Holm (1979): below 0.05, at most one in twenty such families has any false discovery.

    NaN stays NaN and is no member of the family.
    """
    adjusted, defined = np.full(p.shape, np.nan), np.flatnonzero(~np.isnan(p))
    order = defined[np.argsort(p[defined])]
    hypotheses_left = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * hypotheses_left))
    return adjusted


def benjamini_hochberg(p: NDArray[np.floating]) -> NDArray[np.floating]:
    """p (m,) adjusted by Benjamini & Hochberg (1995): of those below 0.05, one in twenty is expected to be false.

    NaN stays NaN and is no member of the family.
    """
    adjusted, defined = np.full(p.shape, np.nan), ~np.isnan(p)
    adjusted[defined] = false_discovery_control(p[defined])
    return adjusted


LEVEL = 0.05  # of p after correction: what is below it survives
