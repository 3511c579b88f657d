"""Do two heads do more together than each alone? Effects of pairs minus the sum of the single ones."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lab.effects import Readings
from lab.metrics import Floats, Ints
from lab.stats import interval, resamples


def interactions(
    baseline: Readings,
    singles: Readings,
    pairs: Readings,
    members: Sequence[tuple[int, int]],
    targets: Ints,
    labels: Sequence[str],
) -> pd.DataFrame:
    """One row per pair and class: `pair` (its number), `class, n, pair_effect, first_effect, second_effect,
    interaction, ci_low, ci_high`, in the margin (log-odds) of each class on its own n texts.

    Readings of N texts: baseline of 1 unit, singles of S, pairs of P; members: which two singles a pair is of. Below
    0: the two together cost more than both alone, as if one stood in for the other. The interval is a 95 % paired
    bootstrap over the texts."""
    first, second = np.transpose(members)
    tables = []
    for k, label in enumerate(labels):
        own = targets == k
        if not own.any():
            continue
        single = singles.log_odds[:, own, k] - baseline.log_odds[0, own, k]  # (S, n)
        both = pairs.log_odds[:, own, k] - baseline.log_odds[0, own, k]  # (P, n)
        beyond = both - single[first] - single[second]
        low, high = interval(_resampled_means(beyond))
        columns = {
            "pair": np.arange(len(both)),
            "class": label,
            "n": own.sum(),
            "pair_effect": both.mean(axis=1),
            "first_effect": single.mean(axis=1)[first],
            "second_effect": single.mean(axis=1)[second],
            "interaction": beyond.mean(axis=1),
            "ci_low": low,
            "ci_high": high,
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _resampled_means(values: Floats) -> Floats:
    """values (P, n) -> means on each resample of the n texts, (draws, P)."""
    n = values.shape[1]
    return np.concatenate([weights @ values.T / n for weights in resamples(n)])
