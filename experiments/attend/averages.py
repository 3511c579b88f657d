"""Means over the texts of each class, with limits that hold for all heads at once.

Letters: N texts, G groups of texts, U heads, S resamples of the texts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.shares import FEWEST
from lab.stats import resamples, simultaneous_limits

ROUNDING = 1e-9  # a head that is the same in all texts would else differ by rounding, and by many standard errors
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Means:
    """Means over groups of texts, NaN for a group without any."""

    n: NDArray[np.integer]  # (G,), texts of each
    value: Floats  # (G, U)
    resampled: Floats  # (S, G, U)

    def limits(self) -> tuple[Floats, Floats]:
        """Return low and high 95 % limits for all G x U at once."""
        return limit(self.value, self.resampled, self.n)

    def minus_first(self) -> tuple[Floats, Floats, Floats]:
        """Return how far the other groups are from the first, on the same resamples, with such limits: (G - 1, U) each.

        The first group holds the others: a difference between a class and all texts shrinks as the class grows."""
        difference = self.value[1:] - self.value[:1]
        return difference, *limit(difference, self.resampled[:, 1:] - self.resampled[:, :1], self.n[1:])


def group_texts(targets: NDArray[np.integer], n_classes: int) -> NDArray[np.bool_]:
    """Return which texts are of which group, bool (1 + K, N): all of them, and then each class."""
    return np.concatenate([np.ones((1, len(targets)), dtype=bool), targets == np.arange(n_classes)[:, None]])


def average(values: Floats, groups: NDArray[np.bool_]) -> Means:
    """Return the means of values (N, U) over groups of texts, bool (G, N)."""
    resampled = np.concatenate(
        [average_groups(values, groups * weights[:, None]) for weights in resamples(len(values))]
    )
    return Means(groups.sum(axis=1), average_groups(values, groups), resampled)


def average_groups(values: Floats, weights: NDArray[Any]) -> Floats:
    """Return the means of values (N, U) over groups of texts, which count weights (..., G, N) times: (..., G, U)."""
    with np.errstate(invalid="ignore"):
        return weights @ values / weights.sum(axis=-1, keepdims=True)


def limit(values: Floats, resampled: Floats, n: NDArray[np.integer]) -> tuple[Floats, Floats]:
    """Return `simultaneous_limits` of values (G, U), resampled (S, G, U), of groups of n (G,) texts.

    Groups of fewer than FEWEST texts have none: the bootstrap would draw the same few texts again and again."""
    low, high = np.full((2, *values.shape), np.nan)
    enough = n >= FEWEST
    if enough.any():
        values, resampled = values[enough], resampled[:, enough]
        resampled = np.where(np.abs(resampled - values) < ROUNDING, values, resampled)
        low[enough], high[enough] = simultaneous_limits(values, resampled, n[enough, None])
    return low, high


def tabulate_heads(columns: Mapping[str, Any], n_groups: int, L: int, H: int) -> pd.DataFrame:
    """Return one row per group and head, `layer, head` and these columns: scalars, (G, 1) or (G, L * H) each."""
    layer, head = np.divmod(np.arange(L * H), H)
    rows = {"layer": layer, "head": head} | dict(columns)
    return pd.DataFrame({name: np.broadcast_to(rows[name], (n_groups, L * H)).ravel() for name in rows})
