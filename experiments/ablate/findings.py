"""Tables of ablation effects, and follow-up sweeps on the heads that matter most."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab import units
from lab.compared import Compared, measure_networks, name_units, select_class
from lab.effects import confirm_on_test, count_flips, measure_effects, read_logits
from lab.progress import console, progress_bar
from lab.shares import LEAST, METRIC, fit_temperatures, tabulate_shares
from lab.sweeps import Plan, Sweeps
from lab.units import RANDOM, SUBSPACE, Head, head_name, parse_head

from .importance import KEEP, Smallest, curve_points, find_superfluous, gate_gradients, order_heads, tabulate_importance
from .interactions import measure_interactions
from .verdicts import CONTROLS, tabulate_single_controls

Logits = NDArray[np.float32]  # (N, U, R, K)
LogitsOf = dict[tuple[str, str, str], Logits]  # by plan, fill and split
Tables = dict[str, pd.DataFrame]  # by the name of their file


def compare(sweeps: Sweeps, plan: Plan, logits: LogitsOf, family: Sequence[int]) -> dict[str, Compared]:
    """Return what to compare of a family, the positions of units in a plan, by split; val comes first."""
    return {
        split: Compared(
            sweeps.baseline(split),
            np.moveaxis(logits[plan.name, plan.fill, split][:, family], 0, 1),
            sweeps.texts[split].targets,
        )
        for split in ("val", "test")
    }


def measure_plans(
    sweeps: Sweeps, plans: Sequence[Plan], logits: LogitsOf, only: str | None, least: float = LEAST
) -> Tables:
    """Return the tables `effects`, `flips` and `significance` of these plans, which are made for val and test.

    logits: by plan, fill and split. only: the one class to test and report; None: all. least: the smallest share of a
    class's margin that is of interest. All units and classes of one kind and fill are one family; random cells and
    tokens are a family of their own, which nobody tests."""
    tables: dict[str, list[pd.DataFrame]] = {"effects": [], "significance": [], "flips": []}
    for plan in plans:
        families: dict[tuple[str, bool], list[int]] = {}
        for u, ablation in enumerate(plan.ablations["test"]):
            families.setdefault((ablation.kind, ablation.region.startswith(RANDOM)), []).append(u)
        for (_, is_random), family in families.items():
            measured = measure_family(sweeps, plan, family, logits, only, least, test=not is_random)
            for name, table in measured.items():
                tables[name].append(table)
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items() if parts}


def measure_family(
    sweeps: Sweeps, plan: Plan, family: Sequence[int], logits: LogitsOf, only: str | None, least: float, test: bool
) -> Tables:
    """Return `measure_plans` of a family, the positions of units in a plan; `significance` only with `test`."""
    labels, chosen = sweeps.study.clf.labels, [plan.ablations["test"][u] for u in family]
    by_split = compare(sweeps, plan, logits, family)
    effects, flips = measure_networks(by_split, labels, only, least, test), {}
    for split, networks in by_split.items():
        counted = count_flips(networks.baseline, networks.ablated, networks.targets, labels)
        flips[split] = select_class(counted, only)
    confirmed = {"significance": confirm_on_test(effects["val"], effects["test"], METRIC)} if test else {}
    named = pd.concat(name_units(effects[split], chosen, plan.fill, split) for split in by_split)
    return {
        "effects": named.fillna({"verdict": ""}),
        "flips": pd.concat(name_units(flips[split], chosen, plan.fill, split) for split in by_split),
        **{name: name_units(table, chosen, plan.fill) for name, table in confirmed.items()},
    }


def measure_controls(sweeps: Sweeps, plans: Sequence[Plan], logits: LogitsOf, effects: pd.DataFrame) -> pd.DataFrame:
    """Return what random parts of the network do to each class, `kind, layer, draw, class, fill, split, share, region`.

    plans: random subspaces, in the order of their draws; effects: `measure_plans`, whose random cells and random tokens
    are the controls of regions and of words."""
    labels, tables = sweeps.study.clf.labels, [tabulate_single_controls(effects)]
    for plan in plans:
        ablations = plan.ablations["test"]
        by_split = compare(sweeps, plan, logits, range(len(ablations)))
        val = by_split["val"]
        temperatures = fit_temperatures(val.baseline, val.ablated, val.targets)
        for split, networks in by_split.items():
            arguments = networks.baseline, networks.ablated, networks.targets, labels, temperatures
            table = name_units(tabulate_shares(*arguments), ablations, plan.fill, split)
            tables.append(table.assign(draw=table["region"].str.removeprefix(SUBSPACE).astype(int), region=""))
    table = pd.concat([table[CONTROLS] for table in tables], ignore_index=True)
    return table[table["class"].isin(effects["class"])].reset_index(drop=True)


def compare_words_with_random(sweeps: Sweeps, plan: Plan, logits: Logits, only: str | None) -> pd.DataFrame:
    """Compare hiding the words of a class with hiding as many random tokens, on test: one row per class of words,
    class and metric, from the plan `words` and its logits (N, U, 1, K).

    Columns `words, class, metric, n, random, hidden, difference, ci_low, ci_high`: hidden minus random, with the 95 %
    paired bootstrap of `measure_effects`. It covers that other texts might have been drawn, not other random tokens."""
    texts, labels = sweeps.texts["test"], sweeps.study.clf.labels
    unit_of = {ablation.region: u for u, ablation in enumerate(plan.ablations["test"])}
    tables = []
    for region, u in unit_of.items():
        control = unit_of.get(units.RANDOM + region)
        if control is not None:
            random, hidden = logits[:, control, 0], logits[None, :, u]
            tables.append(measure_effects(random, hidden, texts.targets, labels, test=False).assign(words=region))
    table = pd.concat(tables).rename(columns={"baseline": "random", "ablated": "hidden", "effect": "difference"})
    table = table[table["metric"] != "flip_rate"]  # its flips would be from random to hidden, not from the whole
    columns = ["words", "class", "metric", "n", "random", "hidden", "difference", "ci_low", "ci_high"]
    return select_class(table, only)[columns].reset_index(drop=True)


def estimate_importance(sweeps: Sweeps, ablated: Logits, fill: str) -> pd.DataFrame:
    """Estimate from gradients what closing each head with a fill does to the loss on val, beside what it does.

    ablated: logits (N, heads, R, K) with each head closed. Columns: `tabulate_importance`, and `fill`."""
    study, texts = sweeps.study, sweeps.texts["val"]
    text = np.arange(len(texts))
    before = read_logits(sweeps.baseline("val")[None, :, None]).log_probs[0, text, texts.targets]  # (N,)
    after = read_logits(np.moveaxis(ablated, 0, 1)).log_probs[:, text, texts.targets]  # (L * H, N)
    b, fills = sweeps.baseline_b, sweeps.fills(fill, "val")
    gradients = study.device.run_on_first(  # the order of heads follows from it, and GPUs may round differently
        lambda: gate_gradients(study.clf, texts.sequences, texts.targets, fills, study.device, b)
    )
    rises = (before - after).T.reshape(gradients.shape)
    return tabulate_importance(gradients, rises, texts.targets, study.clf.labels).assign(fill=fill)


def measure_curves(sweeps: Sweeps, importance: pd.DataFrame, fill: str) -> pd.DataFrame:
    """Measure what is left on test as more and more heads are closed: `order, closed, fill, class, metric, value`."""
    config, texts, labels = sweeps.study.clf.config, sweeps.texts["test"], sweeps.study.clf.labels
    numbers = curve_points(config.n_layer * config.n_head)
    ablations, points = [], []
    for order, heads in order_heads(importance, sweeps.seed).items():
        ablations += units.closing_one_by_one(config, heads, numbers)
        points += [{"order": order, "closed": n, "fill": fill} for n in numbers]
    logits = sweeps.run([Plan("curves", fill, {"test": ablations})])["curves", fill, "test"]
    table = measure_effects(sweeps.baseline("test"), np.moveaxis(logits, 0, 1), texts.targets, labels, test=False)
    table = table[table["metric"].isin(["accuracy", "recall", "log_prob"])].rename(columns={"ablated": "value"})
    point_of_row = pd.DataFrame(points).iloc[table["unit"]].set_index(table.index)
    return point_of_row.join(table[["class", "metric", "value"]])


def measure_pairs(
    sweeps: Sweeps, chosen: Sequence[str], singles: Logits, fill: str, only: str | None, least: float = LEAST
) -> tuple[Tables, pd.DataFrame]:
    """Close all pairs of these heads, and return `measure_plans` of them and their `measure_interactions`.

    chosen: heads as layer.head; singles: logits (N, L * H, R, K) with each head closed alone."""
    study, n_head = sweeps.study, sweeps.study.clf.config.n_head
    pairs = list(combinations(sorted(parse_head(name) for name in chosen), 2))
    plan = Plan("pairs", fill, dict.fromkeys(("val", "test"), units.each_pair(study.clf.config, pairs)))
    logits = sweeps.run([plan])
    whole = read_logits(sweeps.baseline("test")[None, :, None])
    single = read_logits(np.moveaxis(singles, 0, 1))
    both = read_logits(np.moveaxis(logits["pairs", fill, "test"], 0, 1))
    members = [(a * n_head + b, c * n_head + d) for (a, b), (c, d) in pairs]
    table = measure_interactions(whole, single, both, members, sweeps.texts["test"].targets, study.clf.labels)
    names = np.array([[head_name(head) for head in pair] for pair in pairs])[table.pop("pair")]
    table = table.assign(first=names[:, 0], second=names[:, 1], fill=fill).rename(columns={"pair_effect": "pair"})
    return measure_plans(sweeps, [plan], logits, only, least), table[table["class"] == only] if only else table


def find_smallest_set(sweeps: Sweeps, importance: pd.DataFrame, fill: str) -> Smallest | None:
    """Find greedily, on val, a small set of heads that keeps 95 % of what accuracy gains over the most frequent class.

    Return None where the network gains nothing."""
    config = sweeps.study.clf.config
    order = order_heads(importance, sweeps.seed)["measured"]

    def measure_accuracy(closed: Sequence[Head], split: str) -> float:
        step = f"smallest-{order.index(closed[-1])}" if closed else "smallest-none"
        plan = Plan(step, fill, {split: units.closing_one_by_one(config, closed, [len(closed)])})
        logits = sweeps.logits(plan, split, lambda texts: None)
        predicted = read_logits(np.moveaxis(logits, 0, 1)).predicted[0]  # (N, K)
        return float(predicted[np.arange(len(predicted)), sweeps.texts[split].targets].mean())

    def measure_next(closed: Sequence[Head]) -> float:
        bar.advance(task)
        return measure_accuracy(closed, "val")

    majority = {split: sweeps.study.majority(texts) for split, texts in sweeps.texts.items()}
    whole = {split: measure_accuracy([], split) for split in majority}
    if any(whole[split] <= majority[split] for split in whole):
        console.print("No smallest set of heads: the network is no better than always naming the most frequent class.")
        return None
    floor = majority["val"] + KEEP * (whole["val"] - majority["val"])
    with progress_bar("heads") as bar:
        task = bar.add_task("smallest set of heads", total=len(order), note="")
        closed = find_superfluous(order, measure_next, floor)
    left = {split: measure_accuracy(closed, split) for split in majority}
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
