"""Corrections of vectors: what takes out of them what all texts share.

A few dimensions of GPT-2's vectors are so large that every cosine is near 1, whatever the texts say. A correction is
fitted on the vectors of train and applied to all: so it knows nothing of the texts that are measured.

Letters: N texts and C dimensions."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Correction = Callable[[Floats], Floats]  # of vectors (N, C)

ROUNDING = 1e-6  # a smaller standard deviation, as a share of the mean, is none
SHARE_OF_TOP = 100  # of the C directions, one in so many is taken out, at least one


def leave(train: Floats) -> Correction:
    """Change nothing."""
    return lambda x: x


def centre(train: Floats) -> Correction:
    """Subtract the mean of train."""
    mean = train.mean(axis=0, dtype=np.float64)
    return lambda x: x - mean


def standardise(train: Floats) -> Correction:
    """Subtract the mean and divide each dimension by its standard deviation (Timkey & van Schijndel 2021, 2109.04404).

    A dimension that is the same in all texts of train becomes 0 there."""
    mean, deviation = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    deviation = np.where(deviation > ROUNDING * np.abs(mean), deviation, 1)
    return lambda x: (x - mean) / deviation


def take_out_top(train: Floats) -> Correction:
    """Subtract the mean and the C / 100 principal components of most variance (Mu & Viswanath 2018, 1702.01417)."""
    n_top = max(1, train.shape[1] // SHARE_OF_TOP)
    mean = train.mean(axis=0, dtype=np.float64)
    axes = np.linalg.svd(train - mean, full_matrices=False)[2][:n_top]  # (n_top, C)
    return lambda x: (x - mean) - (x - mean) @ axes.T @ axes


CORRECTIONS: dict[str, Callable[[Floats], Correction]] = {
    "none": leave,
    "centre": centre,
    "standardise": standardise,
    "without_top": take_out_top,
}
STANDARD = "standardise"  # what is reduced and clustered: without one, a few dimensions are all
