"""Means over texts, with limits that hold for all methods at once.

Letters: n texts, M methods, D resamples of the texts."""

import numpy as np

from lab.stats import resamples, simultaneous_limits

from .attributions import Floats

LIMITED = 5  # texts that limits rest on at least


def average(values: Floats) -> Floats:
    """Return the mean over texts (n, ...), NaN for none."""
    return values.mean(axis=0) if len(values) else np.full(values.shape[1:], np.nan)


def resample_means(values: Floats) -> Floats:
    """Return the means of values (n, ...) on resamples of the n texts: (D, ...)."""
    n = len(values)
    drawn = np.concatenate([weights @ values.reshape(n, -1) for weights in resamples(n)]) / n
    return drawn.reshape(-1, *values.shape[1:])


def limit_means(values: Floats) -> tuple[Floats, Floats]:
    """Return limits of the means of values (n, ..., M), which hold for all M at once; NaN for few texts."""
    low, high = np.full((2, *values.shape[1:]), np.nan)
    if len(values) >= LIMITED:
        means, drawn, n = values.mean(axis=0), resample_means(values), np.full(values.shape[-1], len(values))
        for cell in np.ndindex(values.shape[1:-1]):
            low[cell], high[cell] = simultaneous_limits(means[cell], drawn[:, *cell], n)
    return low, high
