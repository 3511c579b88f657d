"""What is left with the heads that were learnt to be open, beside other sets of as many heads.

Gates that are partly open are no ablation. So the sets are measured by the sweep with every gate open or closed, on
texts that the gates have not seen: val chooses the penalty, test has no say. How much of the network a set keeps is
counted in its question's log-loss: all of it is from a guess by the frequencies of train down to the whole network."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from lab import units
from lab.stats import interval, resamples
from lab.sweeps import Logits, Plan, Sweeps
from lab.units import Head, head_name, parse_head

from .importance import KEEP, Smallest, order_heads
from .learnt import find_questions, guess, question_losses

Heads = frozenset[Head]
Floats = NDArray[np.floating]
COLUMNS = "class penalty chosen split set open heads n accuracy recall specific_margin log_loss kept kept_low kept_high"


def agree_on_sets(gates: pd.DataFrame) -> dict[tuple[str, float], Heads]:
    """Return the heads that are open in more than half of the seeds, by class and penalty."""
    share = gates.groupby(["class", "penalty", "layer", "head"], sort=False)["open"].mean()
    sets: dict[tuple[str, float], Heads] = {}
    for (label, penalty), of_setting in share.groupby(["class", "penalty"], sort=False):
        heads = of_setting.index[of_setting > 0.5]
        sets[label, penalty] = frozenset((layer, head) for _, _, layer, head in heads)
    return sets


def measure_sets(
    sweeps: Sweeps,
    gates: pd.DataFrame,
    singles: Logits,
    importance: pd.DataFrame,
    fill: str,
    smallest: Smallest | None = None,
) -> pd.DataFrame:
    """Return what is left with the learnt sets: on val for each penalty, on test for the chosen one of each class.

    The chosen penalty is the highest with which KEEP is kept on val, else the lowest. Beside it, on test, stand sets of
    as many heads: the first of the `ranking` by what closing each head alone adds to the same loss on val, and the last
    of the `random` orders of `order_heads`; for `all` the `smallest` set, where it was searched for.

    singles: logits (N, L * H, R, K) of val with each head closed alone. Columns `class, penalty, chosen, split, set,
    open, heads, n, accuracy, recall, specific_margin, log_loss, kept, kept_low, kept_high, difference, difference_low,
    difference_high`. `difference`: what the learnt set keeps more than this one; intervals are a 95 % bootstrap."""
    questions, learnt = find_questions(sweeps, None), agree_on_sets(gates)
    scores = {split: Scores(sweeps, split) for split in ("val", "test")}
    on_val = close_others(sweeps, "gates-path", fill, "val", learnt.values())
    rows, compared = [], {}
    for label in gates["class"].unique():
        path = {penalty: heads for (name, penalty), heads in learnt.items() if name == label}
        named = {str(penalty): heads for penalty, heads in path.items()}
        table = scores["val"].tabulate(questions[label], label, named, on_val)
        table = table.assign(penalty=list(path), set="learnt", split="val", **{"class": label})
        enough = table["penalty"][table["kept"] >= KEEP]
        penalty = table["penalty"].min() if enough.empty else enough.max()
        rows.append(table.assign(chosen=table["penalty"] == penalty))
        ranked = rank_heads(scores["val"], singles, questions[label], sweeps)
        n = len(path[penalty])
        compared[label, penalty] = {"learnt": path[penalty], "ranking": frozenset(ranked[:n])}
        orders = order_heads(importance, sweeps.seed).items()
        compared[label, penalty] |= {name: frozenset(order[len(order) - n :]) for name, order in orders if "random" in name}
    if smallest and ("all" in gates["class"].unique()):
        pass
    return pd.concat(rows)
