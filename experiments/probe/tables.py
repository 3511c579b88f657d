"""The tables of `probe.py`: what probes, heads together and the class lens get right, and how ablation compares.

A verdict, `above`, `below` or `level with`, compares two measurements of the same rows of test: level means that the
95 % bootstrap interval of the difference of their accuracies, over resampled texts, contains 0."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from lab.activations import Activations, Site
from lab.contributions import Component
from lab.texts import OVERALL
from lab.units import head_name

from .lens import settled_layer
from .linear import Task, bootstrap_means, code_length, decode_correct, encode_correct, map_sites, probe, probe_sites

TOGETHER = (1, 2, 4, 8, 16)  # numbers of heads side by side, those that do best on val
PLACE = ["network", "reading", "kind", "layer", "head"]  # columns that say where a probe of a property reads
RANDOM, STREAM = "random weights", "best layer"  # rivals: the best place of that network; the best of the same stream
Rows = list[dict[str, Any]]


def score_sites(
    activations: Activations, chosen: Sequence[Site], task: Task, seed: int, coded: bool, advance: Callable[[], object]
) -> Rows:
    """Probe each site: one row with `kind, layer, head, n, C, val_accuracy, accuracy, ci_low, ci_high, macro_f1,
    control, selectivity` (None where the task has no control), `bits, compression` and `correct` (the rows of test that
    are right).

    `bits` is the code length of the labels of val and test, which no fine-tuning has seen; None unless `coded`."""
    unseen, K = np.flatnonzero(task.split != "train"), len(task.names)

    def measure_bits(x: NDArray[np.float32]) -> float:
        return code_length(x[unseen], task.y[unseen], K, seed)

    scores = probe_sites(activations, chosen, task, advance)
    means, lows, highs = bootstrap_means(np.stack([score.correct for score in scores], axis=1), task.tested)
    bits = map_sites(activations, chosen, measure_bits, lambda: None) if coded else [None] * len(chosen)
    uniform_bits = len(unseen) * np.log2(K)
    rows = []
    for i, (site, score, length) in enumerate(zip(chosen, scores, bits, strict=True)):
        row = asdict(site) | {"n": len(score.correct), "C": score.C, "val_accuracy": score.val_accuracy}
        row |= {"accuracy": means[i], "ci_low": lows[i], "ci_high": highs[i], "macro_f1": score.macro_f1}
        row |= {"control": score.control, "selectivity": score.selectivity, "bits": length}
        row["compression"] = None if length is None else uniform_bits / length
        rows.append(row | {"correct": encode_correct(score.correct)})
    return rows


def profile_heads(activations: Activations, probes: Rows, task: Task) -> Rows:
    """Probe the heads that do best on val side by side: `n_heads, heads, accuracy, ci_low, ci_high, difference,
    difference_low, difference_high`, the last three against the largest number.

    So do Jo & Myaeng 2020, who concatenate the best heads to one representation."""
    ranked = sorted((row for row in probes if row["kind"] == "head"), key=lambda row: -row["val_accuracy"])
    numbers = [n for n in TOGETHER if n <= len(ranked)]
    heads = [Site("head", row["layer"], row["head"]) for row in ranked]
    names = [head_name((row["layer"], row["head"])) for row in ranked]
    correct = np.stack([probe(activations.of(*heads[:n]), task).correct for n in numbers], axis=1).astype(int)
    means, lows, highs = bootstrap_means(correct, task.tested)
    gaps, gap_lows, gap_highs = bootstrap_means(correct - correct[:, -1:], task.tested)
    rows = []
    for i, n in enumerate(numbers):
        row = {"n_heads": n, "heads": " ".join(names[:n])}
        row |= {"accuracy": means[i], "ci_low": lows[i], "ci_high": highs[i]}
        rows.append(row | {"difference": gaps[i], "difference_low": gap_lows[i], "difference_high": gap_highs[i]})
    return rows


def best(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the row that does best on val, the first of equals, as a table of one row."""
    return rows.iloc[[int(rows["val_accuracy"].argmax())]]


def differences(
    probes: pd.DataFrame, baselines: pd.DataFrame, tested: Mapping[str, NDArray[np.integer]]
) -> pd.DataFrame:
    """Compare each place with its rivals, paired by rows of test: `property, network, reading, kind, layer, head,
    rival, difference, ci_low, ci_high, verdict`.

    `probes` and `baselines` have a column `correct`; `tested` numbers, by property, the text that each row of test
    comes from. The rivals are the baselines, `random weights` (the best place of that network) and, within the residual
    stream, the `best layer` of the same network and reading; the best are chosen on val."""
    tables = []
    for what, rows in probes.groupby("property", sort=False):
        text, rivals = tested[str(what)], baselines[baselines["property"] == what]
        for rival, correct in zip(rivals["baseline"], rivals["correct"], strict=True):
            tables.append(_compare(rows, rival, correct, text))
        trained, random = (rows[rows["network"] == network] for network in ("trained", "random"))
        if len(random):
            tables.append(_compare(trained, RANDOM, best(random)["correct"].item(), text))
        for _, stream in rows[rows["kind"] == "resid"].groupby(["network", "reading"], sort=False):
            tables.append(_compare(stream, STREAM, best(stream)["correct"].item(), text))
    return pd.concat(tables, ignore_index=True)


def _compare(rows: pd.DataFrame, rival: str, correct: str, text: NDArray[np.integer]) -> pd.DataFrame:
    """Return the `differences` of these rows to one rival."""
    mean, low, high = bootstrap_means(decode_correct([*rows["correct"]]) - decode_correct([correct]), text)
    verdict = np.select([low > 0, high < 0], ["above", "below"], "level with")
    places = rows[["property", *PLACE]]
    return places.assign(rival=rival, difference=mean, ci_low=low, ci_high=high, verdict=verdict)


def agreement(probes: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """Correlate, over the heads, the accuracy of a head's probe with the size of what closing the head changes on test:
    `property, reading, class, fill, metric, spearman, p`.

    Do heads that a probe reads well matter more when they are closed? The sizes, from `ablate.py`: the drop of the
    log-probability over all texts, and the absolute change of a specific margin. Spearman's rank correlation and p are
    NaN where fewer than three heads have a size, as for a class without texts, or where all have the same."""
    heads = probes[(probes["kind"] == "head") & (probes["network"] == "trained")]
    closed = effects[(effects["kind"] == "head") & (effects["split"] == "test")]
    drop = closed[(closed["class"] == OVERALL) & (closed["metric"] == "log_prob")]
    margins = closed[closed["metric"] == "specific_margin"]
    sizes = pd.concat([drop.assign(effect=-drop["effect"]), margins.assign(effect=margins["effect"].abs())])
    rows = []
    for (what, reading), accuracies in heads.groupby(["property", "reading"], sort=False):
        for (label, fill, metric), size in sizes.groupby(["class", "fill", "metric"], sort=False):
            both = accuracies.merge(size, on=["layer", "head"], suffixes=("_probe", ""))
            both = both[["accuracy", "effect"]].dropna()
            varied = len(both) > 2 and both.nunique().min() > 1
            rho, p = spearmanr(both["accuracy"], both["effect"]) if varied else (np.nan, np.nan)
            key = {"property": what, "reading": reading, "class": label, "fill": fill, "metric": metric}
            rows.append(key | {"spearman": rho, "p": p})
    return pd.DataFrame(rows)


def lens_by_layer(logits: NDArray[np.float32], targets: NDArray[np.integer], labels: Sequence[str]) -> pd.DataFrame:
    """Score the logits (N, L + 1, K) of the class lens at each layer: `class, layer, n, accuracy, ci_low, ci_high,
    decided`, the last the share of texts whose prediction no longer changes from there on."""
    correct, settled = logits.argmax(2) == targets[:, None], settled_layer(logits)
    layers = np.arange(logits.shape[1])
    tables = []
    for label, members in _groups(targets, labels):
        n = members.sum()
        accuracy, low, high = bootstrap_means(correct[members], np.arange(n))
        columns = {"class": label, "layer": layers, "n": n, "accuracy": accuracy, "ci_low": low, "ci_high": high}
        tables.append(pd.DataFrame(columns | {"decided": (settled[members, None] <= layers).mean(0)}))
    return pd.concat(tables, ignore_index=True)


def contributions(
    values: NDArray[np.float32], components: Sequence[Component], targets: NDArray[np.integer], labels: Sequence[str]
) -> pd.DataFrame:
    """Average over the texts of a class what each component adds to each logit, values (N, components, K): `kind,
    layer, head, class, logit, mean`."""
    names = pd.DataFrame(map(asdict, components)).astype({"layer": "Int64", "head": "Int64"})
    tables = []
    for label, members in _groups(targets, labels):
        means = values[members].mean(0, dtype=np.float64)  # (components, K)
        for k, logit in enumerate(labels):
            tables.append(names.assign(**{"class": label, "logit": logit, "mean": means[:, k]}))
    return pd.concat(tables, ignore_index=True)


def contrast_classes(contributions: pd.DataFrame) -> pd.DataFrame:
    """Return what each component adds to the logit of a class, minus the mean of what it adds to the other logits:
    `kind, layer, head, class, inside, outside`, `inside` over the texts of the class, `outside` the mean of that over
    the other classes. Reads the columns of `contributions`; rows of class `all` are ignored."""
    component = ["kind", "layer", "head"]
    rows, K = contributions[contributions["class"] != OVERALL], contributions["logit"].nunique()
    total = rows.groupby([*component, "class"], dropna=False)["mean"].transform("sum")
    rows = rows.assign(inside=(K * rows["mean"] - total) / (K - 1))
    same = rows["class"] == rows["logit"]
    inside = rows.loc[same, [*component, "class", "inside"]]
    outside = rows[~same].groupby([*component, "logit"], dropna=False)["inside"].mean().rename("outside").reset_index()
    return inside.merge(outside.rename(columns={"logit": "class"}), on=[*component, "class"], how="left")


def _groups(targets: NDArray[np.integer], labels: Sequence[str]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return all texts, and those of each class that has any, as bool (N,) by name."""
    classes = [(label, targets == k) for k, label in enumerate(labels)]
    return [(OVERALL, np.ones(len(targets), bool)), *(group for group in classes if group[1].any())]
