"""Does the query that tells the class look at certain words more than at others of the same text?

The class is read at the last token. Of its attention, the mass on the tokens of a class of words is compared with the
mass on as many random tokens of the same text. The first token is left out of both: nearly every head rests there."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch
from lab.texts import OVERALL

from .averages import average, average_groups, group_texts, tabulate_heads

ANY, ELSEWHERE = "any but the first", "neither the first nor itself"  # tokens, besides the classes of words
MINUS_ALL = ("minus_all", "minus_all_low", "minus_all_high")
Floats = NDArray[np.floating]
Members = Mapping[str, Sequence[NDArray[np.bool_]]]  # by class of words, one bool (T,) for each text


def name_masses(members: Members) -> list[str]:
    return [*members, ANY, ELSEWHERE]


def choose_words(batch: Batch, members: Members) -> dict[str, Tensor]:
    """Return how much of each weight the masses take, float32 (B, T, T) each: all that the last query gives to each
    class of words, to ANY token and ELSEWHERE."""
    B, T = batch.ids.shape
    shares = {name: torch.zeros(B, T, T) for name in name_masses(members)}
    for row, (i, length) in enumerate(zip(batch.index.tolist(), batch.lengths.tolist(), strict=True)):
        for name, texts in members.items():
            shares[name][row, length - 1, 1:length] = torch.from_numpy(texts[i][1:]).float()
        shares[ANY][row, length - 1, 1:length] = 1
        shares[ELSEWHERE][row, length - 1, 1 : length - 1] = 1
    return {name: share.to(batch.ids.device) for name, share in shares.items()}


def tabulate_words(
    masses: Mapping[str, Floats],
    members: Members,
    lengths: NDArray[np.integer],
    windows: Sequence[int],
    targets: NDArray[np.integer],
    labels: Sequence[str],
) -> pd.DataFrame:
    """Return words.csv, one row per class of words, class and head: masses (N, L, H) of `name_masses`; lengths,
    targets (N,); windows: by layer, the last tokens that the last query may see, (L,).

    `random` is the mean mass over all draws of as many tokens of the text, the first left out: m of T - 1 tokens get
    m / (T - 1) of what they get together. Of a text that is longer than a layer's window, both m and T count what the
    last query may see. n: texts with such a word, others do not count. `minus_all` is the
    difference of a class minus that of all texts. Limits hold with 95 % for all heads, and all classes, of a class of
    words at once."""
    N, L, H = masses[ANY].shape
    by_head = {name: values.reshape(N, L * H).astype(float) for name, values in masses.items()}
    tables = []
    for words, texts in members.items():
        groups = group_texts(targets, len(labels)) & np.array([text[1:].any() for text in texts])
        m = np.array([[text[1:][-window:].sum() for window in windows] for text in texts])  # (N, L)
        share = m / np.minimum(lengths[:, None] - 1, windows).clip(1)
        mass, random = by_head[words], share.repeat(H, axis=1) * by_head[ANY]
        difference = average(mass - random, groups)
        minus_all = dict(zip(MINUS_ALL, difference.minus_first(), strict=True))
        low, high = difference.limits()
        columns = {
            "class": np.array([OVERALL, *labels], dtype=object)[:, None],
            "words": words,
            "n": difference.n[:, None],
            "mass": average_groups(mass, groups),
            "random": average_groups(random, groups),
            "difference": difference.value,
            "ci_low": low,
            "ci_high": high,
            **{name: np.pad(x, ((1, 0), (0, 0)), constant_values=np.nan) for name, x in minus_all.items()},
        }
        tables.append(tabulate_heads(columns, len(groups), L, H))
    return pd.concat(tables, ignore_index=True)
