"""What is left with the heads that were learnt to be open, beside other sets of as many heads.

A gate that is partly open is no ablation. So the sweep measures the sets with every gate open or closed. Val, from
which the gates were learnt, chooses one seed's set for each penalty, and the penalty; test has no say. What a set keeps
is counted in the log-loss of its question: 0 is a guess by the frequencies of the classes in train, 1 is the whole
network. Where that is not surely better than the guess, nothing is measured, and all of it is NaN."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import chain
from math import comb
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from lab import units
from lab.effects import read_logits
from lab.stats import LEVEL, holm, interval, resamples
from lab.sweeps import Logits, Plan, Sweeps
from lab.texts import OVERALL, Texts
from lab.units import Head, head_name, parse_head

from .importance import KEEP, Smallest
from .learnt import find_questions, guess, question_losses

FEW = 200  # texts of test, at most, on which random sets are measured: there are many of these sets
TIE = 1e-5  # nats: sets whose losses differ by less are as good as each other
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


def collect_sets(gates: pd.DataFrame) -> dict[tuple[str, float, int], Heads]:
    """Return the heads that are open, by class, penalty and seed."""
    sets: dict[tuple[str, float, int], Heads] = {}
    for key, of_one in gates.groupby(["class", "penalty", "seed"], sort=False):
        opened = of_one[of_one["open"] == 1]
        sets[cast(tuple[str, float, int], key)] = frozenset(
            zip(opened["layer"].tolist(), opened["head"].tolist(), strict=True)
        )
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
    sweeps: Sweeps, gates: pd.DataFrame, singles: Logits, fill: str, smallest: Smallest | None = None
) -> pd.DataFrame:
    """Return what is left with the learnt sets: on val with each penalty, on test with the one chosen for each class.

    Beside the learnt set, on test, stand `none` (all heads closed), and sets of as many heads: `ranking`, those that
    add most to the same loss when closed alone, on val, and `random 0` and so on, see `measure_random`; for `all` also
    the `smallest` set, where it was searched for. singles: logits (N, L * H, R, K) of val with each head closed alone.

    Columns `class, penalty, seed, chosen, split, set`, those of `tabulate_sets`, and on test `p` and `p_holm`."""
    columns, n_head = find_questions(sweeps, None), sweeps.study.clf.config.n_head
    on_val = choose_sets(sweeps, gates, fill, columns)
    chosen = on_val[on_val["chosen"]].set_index("class")
    learnt = {str(label): parse_heads(names) for label, names in chosen["heads"].items()}
    others: dict[str, dict[str, Heads]] = {}
    for label, heads in learnt.items():
        rises = measure_losses(singles, sweeps.texts["val"].targets, columns[label]).mean(axis=1)
        others[label] = {"none": frozenset(), "ranking": rank_heads(rises, n_head, len(heads))}
    if smallest and OVERALL in others:
        others[OVERALL]["smallest"] = frozenset(parse_head(name) for name in smallest["open"])
    on_test = compare_sets(sweeps, "test", fill, learnt, others, columns)
    kept = on_test[on_test["set"] == "learnt"].set_index("class")["kept"]
    measured = [label for label in learnt if np.isfinite(kept[label] + chosen["kept"][label])]
    few = measure_random(sweeps, {label: learnt[label] for label in measured}, fill, columns)
    on_test = add_random(on_test, few).join(chosen[["penalty", "seed"]], on="class")
    table = pd.concat([on_val, on_test.assign(split="test", chosen=True)], ignore_index=True)
    first = ["class", "penalty", "seed", "chosen", "split", "set"]
    return table[[*first, *(name for name in table if name not in first)]]


def choose_sets(sweeps: Sweeps, gates: pd.DataFrame, fill: str, columns: Mapping[str, int]) -> pd.DataFrame:
    """Return what is kept on val with each penalty, by the set of one seed, and which penalty is chosen for a class.

    Of the seeds' sets the one is taken with the lowest objective: its loss and the price of its open heads. A vote on
    each head could make a set that no seed has learnt. Then the highest penalty with which KEEP is kept is chosen, else
    the lowest."""
    sets, prices = collect_sets(gates), gates.groupby(["class", "penalty"])["price"].first()
    logits, tables = run_sets(sweeps, "gates-path", fill, "val", sets.values()), []
    for label in gates["class"].unique():
        question, keys = ask(sweeps, "val", columns[label]), [key for key in sets if key[0] == label]
        losses = measure_losses(stack_sets([sets[key] for key in keys], logits), question.targets, question.column)
        asked = [prices[label, penalty] * len(sets[label, penalty, seed]) for _, penalty, seed in keys]
        paths = pd.DataFrame(keys, columns=["class", "penalty", "seed"]).assign(objective=losses.mean(axis=1) + asked)
        best = paths.loc[paths.groupby("penalty")["objective"].idxmin()].reset_index(drop=True)
        path = [sets[label, penalty, seed] for penalty, seed in zip(best["penalty"], best["seed"], strict=True)]
        table = best[["class", "penalty", "seed"]].join(tabulate_sets(question, path, logits))
        enough = table["penalty"][table["kept"] >= KEEP]
        chosen = table["penalty"].min() if enough.empty else enough.max()
        tables.append(table.assign(split="val", set="learnt", chosen=table["penalty"] == chosen))
    return pd.concat(tables, ignore_index=True)


def compare_sets(
    sweeps: Sweeps,
    split: str,
    fill: str,
    learnt: Mapping[str, Heads],
    others: Mapping[str, Mapping[str, Heads]],
    columns: Mapping[str, int],
) -> pd.DataFrame:
    """Return `class, set` and `tabulate_sets` of the learnt set of each class and of other sets, by their names."""
    logits = run_sets(
        sweeps, "gates-sets", fill, split, chain(learnt.values(), *(sets.values() for sets in others.values()))
    )
    tables = []
    for label, heads in learnt.items():
        sets = {"learnt": heads, **others[label]}
        table = tabulate_sets(ask(sweeps, split, columns[label]), list(sets.values()), logits)
        tables.append(table.assign(set=list(sets), **{"class": label}))
    return pd.concat(tables, ignore_index=True)


def rank_heads(rises: Floats, n_head: int, n: int) -> Heads:
    """Return the n heads whose closing raises the loss most: rises (L * H,)."""
    return frozenset((int(u) // n_head, int(u) % n_head) for u in np.argsort(-rises, kind="stable")[:n])


def measure_random(sweeps: Sweeps, learnt: Mapping[str, Heads], fill: str, columns: Mapping[str, int]) -> pd.DataFrame:
    """Return `compare_sets` of random sets, on FEW texts of test.

    A set has as many others as Holm's method asks for, 20 for each question: if they all keep less, it is below LEVEL.
    They differ from each other and from the learnt set. Where there are no more of this size, all are taken, and where
    all heads are open, or none, there is no other; classes of the same size share their sets."""
    config, rng = sweeps.study.clf.config, np.random.default_rng((sweeps.seed, *b"random sets"))
    every = [(layer, head) for layer in range(config.n_layer) for head in range(config.n_head)]
    learnt = {label: heads for label, heads in learnt.items() if 0 < len(heads) < len(every)}
    if not learnt:
        return pd.DataFrame(columns=["class", "set", "log_loss"])
    number = round(1 / LEVEL) * len(learnt)
    drawn = {n: draw_sets(every, n, number + 1, rng) for n in sorted({len(heads) for heads in learnt.values()})}
    others = {}
    for label, heads in learnt.items():
        different = [each for each in drawn[len(heads)] if each != heads][:number]
        others[label] = {f"random {i}": each for i, each in enumerate(different)}
    return compare_sets(shorten(sweeps), "few", fill, learnt, others, columns)


def draw_sets(heads: Sequence[Head], n: int, number: int, rng: np.random.Generator) -> list[Heads]:
    """Draw so many different sets of n heads; all there are, where there are no more."""
    drawn: dict[Heads, None] = {}
    while len(drawn) < min(number, comb(len(heads), n)):
        drawn[frozenset(heads[i] for i in rng.choice(len(heads), n, replace=False))] = None
    return list(drawn)


def shorten(sweeps: Sweeps) -> Sweeps:
    """Return sweeps over FEW texts of test, the split `few`; a label prior of val then comes from FEW texts of it."""

    def draw(texts: Texts) -> Texts:
        rng = np.random.default_rng((sweeps.seed, *b"few texts"))
        return texts.select(np.sort(rng.permutation(len(texts))[:FEW]))

    few = copy(sweeps)
    few.texts = {"few": draw(sweeps.texts["test"])}
    if sweeps.neutral == "val":
        few.texts["few-val"], few.neutral = draw(sweeps.texts["val"]), "few-val"
    return few


def add_random(table: pd.DataFrame, few: pd.DataFrame) -> pd.DataFrame:
    """Return a table of sets and the random ones of `measure_random`, with `p` and `p_holm` of each learnt set.

    p is the share of sets, the learnt one counted in, whose loss is not higher than that of the learnt one, all on few
    texts; p_holm by Holm's method over the classes. NaN where there are no random sets."""
    p = {  # the learnt set is the first one of its class
        label: (losses <= losses.iloc[0] + TIE).mean()
        for label, losses in few["log_loss"].groupby(few["class"], sort=False)
    }
    corrected = pd.DataFrame({"p": p, "p_holm": dict(zip(p, holm(np.array([*p.values()])), strict=True))}, dtype=float)
    of_learnt = corrected.reindex(table["class"].where(table["set"] == "learnt")).set_index(table.index)
    return pd.concat([table.join(of_learnt), few[few["set"] != "learnt"]], ignore_index=True)


def parse_heads(names: str) -> Heads:
    return frozenset(parse_head(name) for name in names.split())


def stack_sets(sets: Sequence[Heads], logits_of: Mapping[Heads, Logits]) -> Logits:
    """Return the logits of these sets, (N, sets, R, K)."""
    return np.stack([logits_of[heads] for heads in sets], axis=1)


def tabulate_sets(question: Question, sets: list[Heads], logits_of: dict[Heads, Logits]) -> pd.DataFrame:
    """Return one row per set: `open, heads, n, accuracy, recall, specific_margin, log_loss, kept, kept_low, kept_high,
    difference, difference_low, difference_high`.

    `open`: how many heads; `kept`: see above; `difference`: what the first set keeps more than this one. Intervals are
    a 95 % bootstrap over the texts, paired; all of these are NaN where the whole network gains nothing over the guess,
    or nothing in more than 2.5 % of the resamples. `recall` and `specific_margin`, the mean log-odds of the class over
    its own texts minus that over all others, are NaN for `all`, and where the class has no texts."""
    targets, k = question.targets, question.column - 1
    logits = stack_sets(sets, logits_of)
    losses = measure_losses(logits, targets, question.column)
    kept = question.share_kept(losses, np.ones((1, len(targets))))[0]
    drawn = np.concatenate([question.share_kept(losses, weights) for weights in resamples(len(targets))])
    readings, own = read_logits(np.moveaxis(logits, 0, 1)), targets == k
    right = readings.predicted[:, np.arange(len(targets)), targets]  # (sets, N)
    recall = right[:, own].mean(axis=1) if own.any() else np.nan
    margin: Floats | float = np.nan
    if own.any() and not own.all():
        margin = readings.log_odds[:, own, k].mean(axis=1) - readings.log_odds[:, ~own, k].mean(axis=1)
    if np.isnan(kept).any() or (np.isnan(drawn).mean(axis=0) > LEVEL / 2).any():
        kept, drawn = np.full_like(kept, np.nan), np.full_like(drawn, np.nan)
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
