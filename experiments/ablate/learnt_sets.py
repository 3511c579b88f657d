"""What is left with the heads that were learnt to be open, beside other sets of as many heads.

A gate that is partly open is no ablation. So the sweep measures the sets with every gate open or closed, on texts that
the gates have not seen: val chooses the penalty, and test has no say. What a set keeps is counted in the log-loss of
its question: 0 is a guess by the frequencies of the classes in train, 1 is the whole network."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from lab import units
from lab.effects import read_logits
from lab.stats import interval, resamples
from lab.sweeps import Logits, Plan, Sweeps
from lab.texts import OVERALL
from lab.units import Head, head_name, parse_head

from .importance import KEEP, Smallest, order_heads
from .learnt import find_questions, guess, question_losses

Heads = frozenset[Head]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Question:
    """What is asked of the texts of a split: their class (column 0 of `question_losses`), or whether they are of one
    class (1 + its number). `whole` and `guessed` are the losses (N,) of the whole network and of the guess."""

    column: int
    targets: NDArray[np.integer]
    whole: Floats
    guessed: Floats

    def share_kept(self, losses: Floats, weights: Floats) -> Floats:
        """Return what losses (sets, N) keep of the gain over the guess: (draws, sets) for weights (draws, N). NaN where
        the whole network gains nothing."""
        floor = weights @ self.guessed
        gained = (floor - weights @ self.whole)[:, None]
        kept = floor[:, None] - weights @ losses.T
        return np.divide(kept, gained, out=np.full(kept.shape, np.nan), where=gained > 0)


def ask(sweeps: Sweeps, split: str, column: int) -> Question:
    texts, K = sweeps.texts[split], len(sweeps.study.clf.labels)
    constant = np.broadcast_to(np.log(guess(sweeps.study.texts["train"], K)), (len(texts), 1, 1, K))
    whole = sweeps.baseline(split)[:, None, None]
    losses = [measure_losses(logits, texts.targets, column)[0] for logits in (whole, constant)]
    return Question(column, texts.targets, *losses)


def measure_losses(logits: Logits, targets: NDArray[np.integer], column: int) -> Floats:
    """Return the losses (U, N) of one question from logits (N, U, R, K), mean over the draws."""
    N, U, R = logits.shape[:3]
    classes = torch.from_numpy(np.asarray(targets))
    losses = np.empty((U, R, N))
    for u, r in np.ndindex(U, R):
        scores = torch.from_numpy(np.array(logits[:, u, r], dtype=np.float64))
        losses[u, r] = question_losses(scores, classes)[:, column].numpy()
    return losses.mean(axis=1)


def agree_on_sets(gates: pd.DataFrame) -> dict[str, dict[float, Heads]]:
    """Return the heads that are open in more than half of the seeds, by class and penalty."""
    share = gates.groupby(["class", "penalty", "layer", "head"], sort=False)["open"].mean()
    sets: dict[str, dict[float, Heads]] = {}
    for label, penalty in share.droplevel(["layer", "head"]).index.unique():
        of_setting = share[label, penalty]
        sets.setdefault(label, {})[penalty] = frozenset(of_setting.index[of_setting > 0.5])
    return sets


def run_sets(sweeps: Sweeps, name: str, fill: str, split: str, sets: Iterable[Heads]) -> dict[Heads, Logits]:
    """Return the logits (N, R, K) of a split with these heads open and all others closed, by set."""
    config, different = sweeps.study.clf.config, list(dict.fromkeys(sets))
    every = {(layer, head) for layer in range(config.n_layer) for head in range(config.n_head)}
    ablations = []
    for heads in different:
        closed = sorted(every - heads)
        ablations += units.closing_one_by_one(config, closed, [len(closed)])
    logits = sweeps.run([Plan(name, fill, {split: ablations})])[name, fill, split]
    return {heads: logits[:, u] for u, heads in enumerate(different)}


def measure_sets(
    sweeps: Sweeps,
    gates: pd.DataFrame,
    singles: Logits,
    importance: pd.DataFrame,
    fill: str,
    smallest: Smallest | None = None,
) -> pd.DataFrame:
    """Return what is left with the learnt sets: on val with each penalty, on test with the one chosen for each class.

    The highest penalty with which KEEP is kept on val is chosen, else the lowest. Beside the learnt set, on test, stand
    sets of as many heads: `ranking`, those that add most to the same loss when closed alone, on val, and `random 0` and
    so on; for `all` also the `smallest` set, where it was searched for. singles: logits (N, L * H, R, K) of val with
    each head closed alone.

    Columns `class, penalty, chosen, split, set`, and those of `tabulate_sets`."""
    paths, columns = agree_on_sets(gates), find_questions(sweeps, None)
    on_val = run_sets(sweeps, "gates-path", fill, "val", [heads for path in paths.values() for heads in path.values()])
    tables, compared = [], {}
    for label, path in paths.items():
        question = ask(sweeps, "val", columns[label])
        table = tabulate_sets(question, list(path.values()), on_val).assign(penalty=list(path), set="learnt")
        enough = table["penalty"][table["kept"] >= KEEP]
        penalty = table["penalty"].min() if enough.empty else enough.max()
        chosen = table["penalty"] == penalty
        tables.append(table.assign(split="val", chosen=chosen, **{"class": label}))
        rises = measure_losses(singles, question.targets, question.column).mean(axis=1)
        compared[label, penalty] = compare_with(path[penalty], rises, importance, sweeps.seed)
    if smallest and OVERALL in paths:
        (overall,) = (sets for (label, _), sets in compared.items() if label == OVERALL)
        overall["smallest"] = frozenset(parse_head(name) for name in smallest["open"])
    on_test = run_sets(
        sweeps, "gates-sets", fill, "test", [heads for sets in compared.values() for heads in sets.values()]
    )
    for (label, penalty), sets in compared.items():
        table = tabulate_sets(ask(sweeps, "test", columns[label]), list(sets.values()), on_test)
        tables.append(table.assign(penalty=penalty, set=list(sets), split="test", chosen=True, **{"class": label}))
    first = ["class", "penalty", "chosen", "split", "set"]
    table = pd.concat(tables, ignore_index=True)
    return table[[*first, *(name for name in table if name not in first)]]


def compare_with(heads: Heads, rises: Floats, importance: pd.DataFrame, seed: int) -> dict[str, Heads]:
    """Return a learnt set and others of as many heads, by name. rises (L * H,): the loss, each head closed alone."""
    n, orders = len(heads), order_heads(importance, seed)
    overall = importance[importance["class"] == OVERALL].iloc[np.argsort(-rises, kind="stable")[:n]]
    ranking = frozenset(zip(overall["layer"].tolist(), overall["head"].tolist(), strict=True))
    random = {name: frozenset(order[len(order) - n :]) for name, order in orders.items() if "random" in name}
    return {"learnt": heads, "ranking": ranking, **random}


def tabulate_sets(question: Question, sets: list[Heads], logits_of: dict[Heads, Logits]) -> pd.DataFrame:
    """Return one row per set: `open, heads, n, accuracy, recall, specific_margin, log_loss, kept, kept_low, kept_high,
    difference, difference_low, difference_high`.

    `open`: how many heads; `kept`: see above; `difference`: what the first set keeps more than this one. Intervals are
    a 95 % bootstrap over the texts, paired. `recall` and `specific_margin`, the mean log-odds of the class over its own
    texts minus that over all others, are NaN for `all`, and where the class has no texts."""
    targets, k = question.targets, question.column - 1
    logits = np.stack([logits_of[heads] for heads in sets], axis=1)  # (N, sets, R, K)
    losses = measure_losses(logits, targets, question.column)
    kept = question.share_kept(losses, np.ones((1, len(targets))))[0]
    drawn = np.concatenate([question.share_kept(losses, weights) for weights in resamples(len(targets))])
    readings, own = read_logits(np.moveaxis(logits, 0, 1)), targets == k
    right = readings.predicted[:, np.arange(len(targets)), targets]  # (sets, N)
    recall = right[:, own].mean(axis=1) if own.any() else np.nan
    margin: Floats | float = np.nan
    if own.any() and not own.all():
        margin = readings.log_odds[:, own, k].mean(axis=1) - readings.log_odds[:, ~own, k].mean(axis=1)
    low, high = interval(drawn)
    difference_low, difference_high = interval(drawn[:, :1] - drawn)
    columns = {
        "open": [len(heads) for heads in sets],
        "heads": [" ".join(map(head_name, sorted(heads))) for heads in sets],
        "n": len(targets),
        "accuracy": right.mean(axis=1),
        "recall": recall,
        "specific_margin": margin,
        "log_loss": losses.mean(axis=1),
        "kept": kept,
        "kept_low": low,
        "kept_high": high,
        "difference": kept[0] - kept,
        "difference_low": difference_low,
        "difference_high": difference_high,
    }
    return pd.DataFrame(columns)
