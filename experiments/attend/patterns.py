"""How much does each head look at the previous token, the first, itself ...? On texts, and on random tokens.

A score is the share of a query's attention that goes to certain keys, mean over the queries of a text, then over texts.
Even a head that attends alike to all keys that it may see gives some of it to each: that is the base rate, on the very
same queries."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch
from lab.texts import OVERALL
from lab.units import BANDS

from .averages import average, average_groups, group_texts, tabulate_heads

PATTERNS = ("previous", "first", "self", "local", "induction", "duplicate")
LOCAL = BANDS[0]  # keys, the query's own included
RANDOM = "random tokens"  # stands for a class in the table
ROWS, LONGEST = 32, 50  # rows of random tokens, and the most that a row has, each said twice
ROUNDING = 1e-6  # a sum of attention in float32 that differs from uniform attention by less does not differ
Floats = NDArray[np.floating]


def find_keys(ids: Tensor, lengths: Tensor) -> dict[str, Tensor]:
    """Return the keys of each pattern: ids int64 (B, T), lengths (B,) -> bool (B, T, T) each, query x key.

    The first query is left out, for it can only attend to itself. duplicate: earlier keys with the token of the query.
    induction: keys behind such a token, where an induction head reads what came next (Olsson et al. 2022)."""
    key = torch.arange(ids.shape[1], device=ids.device)
    query = key[:, None]
    same = ids[:, :, None] == ids[:, None, :]  # (B, T, T)
    behind = torch.zeros_like(same)
    behind[:, :, 1:] = same[:, :, :-1]
    keys = {
        "previous": key == query - 1,
        "first": key == 0,
        "self": key == query,
        "local": key > query - LOCAL,
        "induction": behind,
        "duplicate": same & (key < query),
    }
    counted = (query >= 1) & (query < lengths[:, None, None]) & (key <= query)  # (B, T, T)
    return {pattern: keys[pattern] & counted for pattern in PATTERNS}


def choose_patterns(batch: Batch) -> dict[str, Tensor]:
    """Return how much of each weight the score of each pattern takes, float32 (B, T, T) each: the mean over the queries
    that have a key of the pattern takes the same of each."""
    keys = find_keys(batch.ids, batch.lengths)
    n_queries = {pattern: each.any(dim=2).sum(dim=1)[:, None, None] for pattern, each in keys.items()}
    return {pattern: each / n_queries[pattern].clamp(min=1) for pattern, each in keys.items()}


def measure_base_rates(sequences: Sequence[list[int]], windows: Sequence[int]) -> dict[str, Floats]:
    """Return the scores of uniform attention, the same to each key that a query may see: by pattern, float64 (N, L).

    They are NaN where no query of a text has a key of the pattern. windows: by layer, the keys up to a query that it
    may see."""
    rates = {pattern: np.full((len(sequences), len(windows)), np.nan) for pattern in PATTERNS}
    for n, ids in enumerate(sequences):
        position = np.arange(len(ids))
        distance = position[:, None] - position  # query x key
        for pattern, keys in find_keys(torch.tensor([ids]), torch.tensor([len(ids)])).items():
            if not keys.any():
                continue
            of_pattern = keys[0].numpy()
            for window in {*windows}:
                visible = (of_pattern & (distance < window)).sum(axis=1) / np.minimum(position + 1, window)
                rates[pattern][n, np.equal(windows, window)] = visible[of_pattern.any(axis=1)].mean()
    return rates


def draw_random_tokens(sequences: Sequence[list[int]], n_ctx: int, seed: int) -> list[list[int]]:
    """Draw ROWS rows from the tokens of the texts, none twice within a row, and say each row twice.

    A row has LONGEST tokens, or as many as there are or fit twice into n_ctx; no rows where that is not even 2."""
    kinds = np.unique(np.concatenate(sequences))
    T = min(LONGEST, n_ctx // 2, len(kinds))
    rng = np.random.default_rng((seed, *RANDOM.encode()))
    rows = [rng.choice(kinds, T, replace=False).tolist() for _ in range(ROWS)] if T >= 2 else []
    return [row + row for row in rows]


def tabulate_patterns(
    scores: Mapping[str, Floats],
    rates: Mapping[str, Floats],
    targets: NDArray[np.integer],
    labels: Sequence[str],
    random_scores: Mapping[str, Floats],
    random_rates: Mapping[str, Floats],
) -> pd.DataFrame:
    """Return heads.csv, one row per pattern, class and head: by pattern scores (N, L, H) and rates (N, L); targets
    (N,).

    n: texts that have a query with a key of the pattern. `ci_low`, `ci_high`: limits of the score; `excess`: the score
    minus the base rate, which moves with the texts too, with limits on the same resamples. Limits hold with 95 % for
    all heads and classes of a pattern at once; for all heads at once on random tokens, which have rows instead of texts
    and are drawn by themselves."""
    groups = group_texts(targets, len(labels))
    tables = []
    for pattern in PATTERNS:
        tables.append(_tabulate(pattern, [OVERALL, *labels], scores[pattern], rates[pattern], groups))
        if n_rows := len(random_rates[pattern]):
            every = np.ones((1, n_rows), dtype=bool)
            tables.append(_tabulate(pattern, [RANDOM], random_scores[pattern], random_rates[pattern], every))
    return pd.concat(tables, ignore_index=True)


def _tabulate(
    pattern: str, names: Sequence[str], scores: Floats, rates: Floats, groups: NDArray[np.bool_]
) -> pd.DataFrame:
    """Return the rows of one pattern: scores (N, L, H), rates (N, L), groups (G, N)."""
    N, L, H = scores.shape
    groups = groups & ~np.isnan(rates).any(axis=1)
    by_text, uniform = scores.reshape(N, L * H).astype(float), np.nan_to_num(rates).repeat(H, axis=1)
    difference = by_text - uniform
    means, excess = average(by_text, groups), average(difference * (np.abs(difference) > ROUNDING), groups)
    (low, high), (excess_low, excess_high) = means.limits(), excess.limits()
    columns = {
        "class": np.array(names, dtype=object)[:, None],
        "pattern": pattern,
        "n": means.n[:, None],
        "score": means.value,
        "base_rate": average_groups(uniform, groups),
        "ci_low": low,
        "ci_high": high,
        "excess": excess.value,
        "excess_low": excess_low,
        "excess_high": excess_high,
    }
    return tabulate_heads(columns, len(groups), L, H)


def judge_heads(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pattern and head over all texts, with `above`: is the score surely above the base rate? The
    same on random tokens: `random_score, random_excess, random_above`. `both`: is it above on texts, and on random
    tokens where there are any?

    Texts are of words that belong together. What a head also does on random tokens, it does whatever they say. Scores
    of the two are not compared, as random rows are longer; each is compared with its base rate."""
    judged = table.assign(above=table["excess_low"] > 0)
    on_texts, on_random = (judged[judged["class"] == name].drop(columns="class") for name in (OVERALL, RANDOM))
    columns = {name: f"random_{name}" for name in ("score", "excess", "above")}
    keys = ["pattern", "layer", "head"]
    joined = on_texts.merge(on_random[[*keys, *columns]].rename(columns=columns), on=keys, how="left")
    random_above = joined["random_above"].eq(True)
    return joined.assign(random_above=random_above, both=joined["above"] & (random_above | on_random.empty))
