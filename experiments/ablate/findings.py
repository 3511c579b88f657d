"""What comes of the sweeps: the tables of effects, and what is asked next of the heads that matter most."""

from collections.abc import Sequence
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.progress import track

from lab.effects import confirmed, corrected, effects, flips, readings
from lab.progress import console
from lab.sweep import Ablation
from lab.sweeps import Plan, Sweeps
from lab.units import Head, head_name, parse_head

from . import units
from .importance import KEEP, Smallest, closing_orders, counts, gate_gradients, superfluous, tabulate_importance
from .interactions import interactions

NAMES = ["kind", "layer", "head", "region"]  # columns that say which ablation
Logits = NDArray[np.float32]  # (N, U, R, K)


def measured(
    sweeps: Sweeps, plans: Sequence[Plan], logits: dict[tuple[str, str, str], Logits], only: str
) -> dict[str, pd.DataFrame]:
    """The tables `effects`, `significance` and `flips` of these plans, of one class only where `only` names it.

    The tests of one kind and fill, all its units and classes, are one family."""
    labels = sweeps.study.clf.labels
    found: dict[str, list[pd.DataFrame]] = {"effects": [], "significance": [], "flips": []}
    for plan in plans:
        for kind in dict.fromkeys(ablation.kind for own in plan.ablations.values() for ablation in own):
            by_split = {}
            for split, ablations in plan.ablations.items():
                number = [u for u, ablation in enumerate(ablations) if ablation.kind == kind]
                own = np.moveaxis(logits[plan.name, plan.fill, split][:, number], 0, 1)  # (U, N, R, K)
                given = sweeps.baseline(split), own, sweeps.texts[split].targets, labels
                table, flipped = effects(*given, test=split == "test"), flips(*given)
                by_split[split] = corrected(table[table["class"].isin(["all", only])]) if only else table
                name = partial(named, ablations=[ablations[u] for u in number], fill=plan.fill)
                found["effects"].append(name(by_split[split], split=split))
                found["flips"].append(name(flipped[flipped["class"] == only] if only else flipped, split=split))
            if "val" in by_split:
                found["significance"].append(name(confirmed(by_split["val"], by_split["test"])))
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items() if tables}


def named(table: pd.DataFrame, ablations: Sequence[Ablation], fill: str, split: str = "") -> pd.DataFrame:
    """With what the numbers in the column `unit` stand for."""
    names = pd.DataFrame([{name: getattr(ablation, name) for name in NAMES} for ablation in ablations])
    names = names.astype({"layer": "Int64", "head": "Int64"}).assign(fill=fill, **{"split": split} if split else {})
    return names.iloc[table["unit"]].reset_index(drop=True).join(table.drop(columns="unit").reset_index(drop=True))


def words_against_random(sweeps: Sweeps, plan: Plan, logits: Logits, only: str) -> pd.DataFrame:
    """Hiding words of a class against hiding as many random tokens, on test: one row per class of words, class and
    metric, from the plan `words` and its logits (N, U, 1, K).

    Columns `words, class, metric, n, random, hidden, difference, ci_low, ci_high`: hidden minus random, with the 95 %
    paired bootstrap of `effects`. It covers that other texts might have been drawn, not other random tokens."""
    texts, units_of = sweeps.texts["test"], {ablation.region: u for u, ablation in enumerate(plan.ablations["test"])}
    tables = []
    for region, u in units_of.items():
        if (control := units_of.get(units.RANDOM + region)) is not None:
            compared = logits[:, control, 0], logits[None, :, u], texts.targets, sweeps.study.clf.labels
            tables.append(effects(*compared, test=False).assign(words=region))
    table = pd.concat(tables).rename(columns={"baseline": "random", "ablated": "hidden", "effect": "difference"})
    table = table[table["metric"] != "flip_rate"]  # it would count flips from random to hidden, not from the whole
    table = table[table["class"].isin(["all", only])] if only else table
    columns = ["words", "class", "metric", "n", "random", "hidden", "difference", "ci_low", "ci_high"]
    return table[columns].reset_index(drop=True)


def head_importance(sweeps: Sweeps, ablated: Logits, fill: str) -> pd.DataFrame:
    """Cheap estimates beside what closing each head with a fill does to the loss on val; ablated (N, heads, R, K)."""
    study, texts = sweeps.study, sweeps.texts["val"]
    own = np.arange(len(texts.targets)), texts.targets
    before = readings(sweeps.baseline("val")[None, :, None]).log_probs[0][own]  # (N,)
    after = readings(np.moveaxis(ablated, 0, 1)).log_probs[:, *own]  # (L * H, N)
    gradients = study.device.run_on_first(  # the order of heads follows from it, and GPUs may round differently
        lambda: gate_gradients(study.clf, texts.sequences, texts.targets, sweeps.fills(fill, "val"), study.device)
    )
    rises = (before - after).T.reshape(gradients.shape)
    return tabulate_importance(gradients, rises, texts.targets, study.clf.labels).assign(fill=fill)


def curves(sweeps: Sweeps, importance: pd.DataFrame, fill: str) -> pd.DataFrame:
    """Columns `order, closed, fill, class, metric, value`: what is left on test when more and more heads are closed."""
    config, texts = sweeps.study.clf.config, sweeps.texts["test"]
    numbers, orders = counts(config.n_layer * config.n_head), closing_orders(importance, sweeps.seed)
    ablations = [each for order in orders.values() for each in units.closing_one_by_one(config, order, numbers)]
    logits = sweeps.run([Plan("curves", fill, {"test": ablations})])["curves", fill, "test"]
    table = effects(sweeps.baseline("test"), np.moveaxis(logits, 0, 1), texts.targets, sweeps.study.clf.labels, False)
    table = table[table["metric"].isin(["accuracy", "recall", "log_prob"])]
    order, closed = np.divmod(table["unit"].to_numpy(), len(numbers))
    table = table.assign(order=np.array(list(orders))[order], closed=np.array(numbers)[closed], value=table["ablated"])
    return table.assign(fill=fill)[["order", "closed", "fill", "class", "metric", "value"]]


def paired(
    sweeps: Sweeps, chosen: Sequence[str], singles: Logits, fill: str, only: str
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """`measured` of any two of these heads, as layer.head, and their interactions; singles (N, L * H, R, K)."""
    study, n_head = sweeps.study, sweeps.study.clf.config.n_head
    pairs = list(combinations(sorted(parse_head(name) for name in chosen), 2))
    plan = Plan("pairs", fill, {"test": units.each_pair(study.clf.config, pairs)})
    logits = sweeps.run([plan])
    whole = readings(sweeps.baseline("test")[None, :, None])
    single, both = (readings(np.moveaxis(own, 0, 1)) for own in (singles, logits["pairs", fill, "test"]))
    members = [(a * n_head + b, c * n_head + d) for (a, b), (c, d) in pairs]
    table = interactions(whole, single, both, members, sweeps.texts["test"].targets, study.clf.labels)
    names = np.array([[head_name(head) for head in pair] for pair in pairs])[table.pop("pair")]
    table = table.assign(first=names[:, 0], second=names[:, 1], fill=fill).rename(columns={"pair_effect": "pair"})
    return measured(sweeps, [plan], logits, only), table[table["class"] == only] if only else table


def smallest(sweeps: Sweeps, importance: pd.DataFrame, fill: str) -> Smallest | None:
    """A small set of heads, found greedily on val, that keeps 95 % of what accuracy gains over the most frequent class.

    None where the network gains nothing."""
    config = sweeps.study.clf.config

    def accuracy(closed: Sequence[Head], split: str = "val") -> float:
        step = f"smallest-{order.index(closed[-1])}" if closed else "smallest-none"
        plan = Plan(step, fill, {split: units.closing_one_by_one(config, closed, [len(closed)])})
        logits = sweeps.logits(plan, split, lambda texts: None)
        predicted = readings(np.moveaxis(logits, 0, 1)).predicted[0]  # (N, K)
        return float(predicted[np.arange(len(predicted)), sweeps.texts[split].targets].mean())

    order = closing_orders(importance, sweeps.seed)["measured"]
    majority = {split: sweeps.study.majority(texts) for split, texts in sweeps.texts.items()}
    whole = {split: accuracy([], split) for split in majority}
    if any(whole[split] <= majority[split] for split in whole):
        console.print("No smallest set of heads: the network is no better than always naming the most frequent class.")
        return None
    floor = majority["val"] + KEEP * (whole["val"] - majority["val"])
    closed = superfluous(track(order, "smallest set of heads", console=console), accuracy, floor)
    left = {split: accuracy(closed, split) for split in majority}
    kept = {split: (left[split] - majority[split]) / (whole[split] - majority[split]) for split in majority}
    return {
        "fill": fill,
        "open": [head_name(head) for head in sorted(set(order) - set(closed))],
        "n_heads": len(order),
        "majority": majority["test"],
        "accuracy": whole["test"],
        "accuracy_test": left["test"],
        "kept_val": kept["val"],
        "kept_test": kept["test"],
    }
