"""How much does each head look at the previous token, the first, itself ...? On texts, and on random tokens.

A score is the share of a query's attention that goes to certain keys, mean over the queries of a text, then over texts.
Even a head that attends to all keys alike gives some of it to each: that is the base rate, on the very same queries."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch
from lab.texts import OVERALL
from lab.units import BANDS

from .averages import average, group_texts, tabulate_heads

PATTERNS = ("previous", "first", "self", "local", "induction", "duplicate")
LOCAL = BANDS[0]  # keys, the query's own included
RANDOM = "random tokens"  # stands for a class in the table
ROWS, LONGEST = 32, 50  # rows of random tokens, and the most that a row has, each said twice
Floats = NDArray[np.floating]


def find_keys(ids: Tensor, lengths: Tensor) -> Tensor:
    """Return the keys of each pattern: ids int64 (B, T), lengths (B,) -> bool (B, T, T, P), query x key.

    The first query is left out, for it can only attend to itself. duplicate: earlier keys with the token of the query.
    induction: keys behind such a token, where an induction head reads what came next (Olsson et al. 2022)."""
    B, T = ids.shape
    key = torch.arange(T, device=ids.device)
    query = key[:, None]
    same = ids[:, :, None] == ids[:, None, :]  # (B, T, T)
    behind = torch.zeros_like(same)
    behind[:, :, 1:] = same[:, :, :-1]
    keys = {
        "previous": key == query - 1,
        "first": (key == 0).expand(T, T),
        "self": key == query,
        "local": key > query - LOCAL,
        "induction": behind,
        "duplicate": same & (key < query),
    }
    stacked = torch.stack([keys[pattern].expand(B, T, T) for pattern in PATTERNS], dim=-1)
    queries = (query >= 1) & (query < lengths[:, None, None])  # (B, T, 1)
    return stacked & (queries & (key <= query))[..., None]


def choose_patterns(batch: Batch) -> Tensor:
    """Return how much of each weight the score of each pattern takes, float32 (B, T, T, P): the mean over the queries
    that have a key of the pattern takes the same of each."""
    keys = find_keys(batch.ids, batch.lengths)
    n_queries = keys.any(dim=2).sum(dim=1)  # (B, P)
    return keys / n_queries[:, None, None].clamp(min=1)


def measure_base_rates(sequences: Sequence[list[int]]) -> Floats:
    """Return the scores of uniform attention, 1 / (i + 1) of query i to each key: float64 (N, P), NaN where no query of
    a text has a key of the pattern."""
    rates = np.full((len(sequences), len(PATTERNS)), np.nan)
    for n, ids in enumerate(sequences):
        keys = find_keys(torch.tensor([ids]), torch.tensor([len(ids)]))[0].sum(dim=1).numpy()  # (T, P)
        has_key = keys > 0
        of_query = keys / np.arange(1, len(ids) + 1)[:, None]
        rates[n] = np.divide(of_query.sum(0), has_key.sum(0), out=rates[n], where=has_key.any(0))
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
    scores: Floats,
    rates: Floats,
    targets: NDArray[np.integer],
    labels: Sequence[str],
    random_scores: Floats,
    random_rates: Floats,
) -> pd.DataFrame:
    """Return heads.csv, one row per pattern, class and head: scores (N, L, H, P), rates (N, P), targets (N,).

    n: texts that have a query with a key of the pattern. Limits hold with 95 % for all heads and classes of a pattern
    at once; for all heads at once on random tokens, which have rows instead of texts and are drawn by themselves."""
    groups = group_texts(targets, len(labels))
    tables = []
    for p, pattern in enumerate(PATTERNS):
        tables.append(_tabulate(pattern, [OVERALL, *labels], scores[..., p], rates[:, p], groups))
        if len(random_rates):
            every = np.ones((1, len(random_rates)), dtype=bool)
            tables.append(_tabulate(pattern, [RANDOM], random_scores[..., p], random_rates[:, p], every))
    return pd.concat(tables, ignore_index=True)


def _tabulate(
    pattern: str, names: Sequence[str], scores: Floats, rates: Floats, groups: NDArray[np.bool_]
) -> pd.DataFrame:
    """Return the rows of one pattern: scores (N, L, H), rates (N,), groups (G, N)."""
    N, L, H = scores.shape
    counted = ~np.isnan(rates)
    means = average(scores.reshape(N, L * H).astype(float), groups & counted)
    low, high = means.limits()
    base_rate = [rates[group & counted].mean() if n else np.nan for group, n in zip(groups, means.n, strict=True)]
    columns = {
        "class": np.array(names, dtype=object)[:, None],
        "pattern": pattern,
        "n": means.n[:, None],
        "score": means.value,
        "base_rate": np.array(base_rate)[:, None],
        "ci_low": low,
        "ci_high": high,
    }
    return tabulate_heads(columns, len(groups), L, H)


def judge_heads(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pattern and head over all texts, with `excess`, the score minus the base rate, and `above`: is
    the score surely above? The same on random tokens: `random_score, random_excess, random_above`.

    Texts are of words that belong together. What a head also does on random tokens, it does whatever they say. Scores
    of the two are not compared, as random rows are longer; each is compared with its base rate."""
    judged = table.assign(excess=table["score"] - table["base_rate"], above=table["ci_low"] > table["base_rate"])
    on_texts, on_random = (judged[judged["class"] == name].drop(columns="class") for name in (OVERALL, RANDOM))
    columns = {name: f"random_{name}" for name in ("score", "excess", "above")}
    keys = ["pattern", "layer", "head"]
    joined = on_texts.merge(on_random[[*keys, *columns]].rename(columns=columns), on=keys, how="left")
    return joined.assign(random_above=joined["random_above"].eq(True))
