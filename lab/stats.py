"""How sure a number is: resampling the texts."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
CHUNK = 2**18  # weights held at once (2 MB): memory stays flat for any number of texts, and the cache suffices


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
    return {name: _interval(np.concatenate([chunk[name] for chunk in chunks])) for name in chunks[0]}


def _interval(values: NDArray[np.floating]) -> list[float] | None:
    defined = values[~np.isnan(values)]
    return np.percentile(defined, [2.5, 97.5]).tolist() if len(defined) else None
