"""Do two heads do more together than each alone? The effect of closing both, minus the two single effects."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lab.effects import Readings
from lab.metrics import Ints
from lab.stats import interval, resamples


def measure_interactions(
    baseline: Readings,
    singles: Readings,
    pairs: Readings,
    members: Sequence[tuple[int, int]],
    targets: Ints,
    labels: Sequence[str],
) -> pd.DataFrame:
    """Return one row per pair and class: `pair` (its number), `class, n, pair_effect, first_effect, second_effect,
    interaction, ci_low, ci_high`, in the margin (log-odds) of each class on its own n texts.

    If two heads did independent things to the log-odds, closing both would cost what closing each alone costs, added
    up. The interaction is the rest, as in a two-way analysis of variance: the pair's effect minus the two single ones.
    Below 0, the two together cost more than both alone, as if one stood in for the other.

    baseline, singles, pairs: readings of 1, S and P units; members: the two singles of each pair. The interval is a
    95 % paired bootstrap over the texts of the class. A class without texts has no row."""
    first, second = np.transpose(members)
    tables = []
    for k, label in enumerate(labels):
        if not (chosen := targets == k).any():
            continue
        single = singles.log_odds[:, chosen, k] - baseline.log_odds[0, chosen, k]  # (S, n)
        both = pairs.log_odds[:, chosen, k] - baseline.log_odds[0, chosen, k]  # (P, n)
        beyond = both - single[first] - single[second]
        n = int(chosen.sum())
        low, high = interval(np.concatenate([weights @ beyond.T / n for weights in resamples(n)]))
        rows = {
            "pair": np.arange(len(both)),
            "class": label,
            "n": n,
            "pair_effect": both.mean(axis=1),
            "first_effect": single.mean(axis=1)[first],
            "second_effect": single.mean(axis=1)[second],
            "interaction": beyond.mean(axis=1),
            "ci_low": low,
            "ci_high": high,
        }
        tables.append(pd.DataFrame(rows))
    return pd.concat(tables, ignore_index=True)
