"""The tables of `probe.py`: what probes, heads together and the class lens get right, and what ablation says of it.

A verdict, `above`, `below` or `level with`, is about two measurements of the same rows of test: level means that 0 lies
in the 95 % bootstrap interval of the difference of their accuracies, over resampled texts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from lab.activations import Activations, Site
from lab.texts import OVERALL
from lab.units import head_name

from . import lens
from .linear import Task, as_text, at_sites, code_length, from_text, probe, probe_sites, with_intervals

TOGETHER = (1, 2, 4, 8, 16)  # heads side by side, those that do best on val
PLACE = ["network", "reading", "kind", "layer", "head"]  # columns that say where a probe of a property reads
RANDOM, STREAM = "random weights", "best layer"  # rivals: the best place of that network; the best of the same stream
Rows = list[dict[str, Any]]


def probed(
    activations: Activations, chosen: Sequence[Site], task: Task, seed: int, code: bool, advance: Callable[[], object]
) -> Rows:
    """One row per site: `kind, layer, head, n, C, val_accuracy, accuracy, ci_low, ci_high, macro_f1, control,
    selectivity` (None where the task has no control), `correct` (the rows of test that are right), and with `code` the
    `bits` of the labels of val and test, which no fine-tuning has seen, and their `compression` (None without)."""
    unseen, K = np.flatnonzero(task.split != "train"), len(task.names)

    def code_of(x: NDArray[np.float32]) -> float:
        return code_length(x[unseen], task.y[unseen], K, seed)

    scores = probe_sites(activations, chosen, task, advance)
    ends = zip(*with_intervals(np.stack([score.correct for score in scores], axis=1), task.tested), strict=True)
    bits = at_sites(activations, chosen, code_of, lambda: None) if code else [None] * len(chosen)
    uniform = len(unseen) * np.log2(K)
    return [
        {
            **{"kind": site.kind, "layer": site.layer, "head": site.head, "n": len(score.correct), "C": score.C},
            **{"val_accuracy": score.val_accuracy, "accuracy": mean, "ci_low": low, "ci_high": high},
            **{"macro_f1": score.macro_f1, "control": score.control, "selectivity": score.selectivity},
            **{"bits": length, "compression": None if length is None else uniform / length},
            **{"correct": as_text(score.correct)},
        }
        for site, score, (mean, low, high), length in zip(chosen, scores, ends, bits, strict=True)
    ]


def profile(activations: Activations, probes: Rows, task: Task) -> Rows:
    """Heads side by side, those that do best on val first, `n_heads, heads, accuracy, ci_low, ci_high, difference,
    difference_low, difference_high`, the last three against the largest number (Jo & Myaeng 2020, who concatenate the
    best heads to one representation)."""
    heads = sorted((row for row in probes if row["kind"] == "head"), key=lambda row: -row["val_accuracy"])
    numbers = [n for n in TOGETHER if n <= len(heads)]
    best = [Site("head", row["layer"], row["head"]) for row in heads[: numbers[-1]]]
    names = [head_name((site.layer, site.head or 0)) for site in best]
    correct = np.stack([probe(activations.of(*best[:n]), task).correct for n in numbers], axis=1).astype(int)
    measured = [*with_intervals(correct, task.tested), *with_intervals(correct - correct[:, -1:], task.tested)]
    columns = ("accuracy", "ci_low", "ci_high", "difference", "difference_low", "difference_high")
    return [
        {"n_heads": n, "heads": " ".join(names[:n]), **dict(zip(columns, values, strict=True))}
        for n, values in zip(numbers, zip(*measured, strict=True), strict=True)
    ]


def best(rows: pd.DataFrame) -> pd.DataFrame:
    """The one of these rows that does best on val, the first of equals."""
    return rows.iloc[[int(rows["val_accuracy"].argmax())]]


def differences(
    probes: pd.DataFrame, baselines: pd.DataFrame, tested: Mapping[str, NDArray[np.integer]]
) -> pd.DataFrame:
    """How each place stands to its rivals, paired by rows of test: `property, network, reading, kind, layer, head,
    rival, difference, ci_low, ci_high, verdict`.

    `probes` and `baselines` have a column `correct`; `tested` says by property which text each row of test is of. The
    rivals are the baselines, `random weights` (the best place of that network) and, within the residual stream, the
    `best layer` of the same network and reading; the best ones are chosen on val."""
    tables = []
    for what, rows in probes.groupby("property", sort=False):
        text, known = tested[str(what)], baselines[baselines["property"] == what]
        for rival, correct in zip(known["baseline"], known["correct"], strict=True):
            tables.append(_against(rows, rival, correct, text))
        trained, random = (rows[rows["network"] == network] for network in ("trained", "random"))
        if len(random):
            tables.append(_against(trained, RANDOM, best(random)["correct"].item(), text))
        for _, stream in rows[rows["kind"] == "resid"].groupby(["network", "reading"], sort=False):
            tables.append(_against(stream, STREAM, best(stream)["correct"].item(), text))
    return pd.concat(tables, ignore_index=True)


def _against(rows: pd.DataFrame, rival: str, correct: str, text: NDArray[np.integer]) -> pd.DataFrame:
    """`differences` of these rows to one rival."""
    mean, low, high = with_intervals(from_text([*rows["correct"]]) - from_text([correct]), text)
    verdict = np.select([low > 0, high < 0], ["above", "below"], "level with")
    found = rows[["property", *PLACE]].assign(rival=rival, difference=mean, ci_low=low, ci_high=high)
    return found.assign(verdict=verdict)


def agreement(probes: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """Do heads that a probe reads well matter more when they are closed? Spearman's rank correlation over the heads of
    a probe's accuracy with the size of what `ablate.py` measured on test: `property, reading, class, fill, metric,
    spearman, p`. Sizes: the drop of the log-probability over all texts, the absolute change of a specific margin.

    Where there are not three heads, or all have the same size or none, as for a class without texts, spearman and p are
    NaN."""
    heads = probes[(probes["kind"] == "head") & (probes["network"] == "trained")]
    closed = effects[(effects["kind"] == "head") & (effects["split"] == "test")]
    drop = closed[(closed["class"] == OVERALL) & (closed["metric"] == "log_prob")]
    margins = closed[closed["metric"] == "specific_margin"]
    sizes = pd.concat([drop.assign(effect=-drop["effect"]), margins.assign(effect=margins["effect"].abs())])
    rows = []
    for (what, reading), own in heads.groupby(["property", "reading"], sort=False):
        for (label, fill, metric), size in sizes.groupby(["class", "fill", "metric"], sort=False):
            both = own.merge(size, on=["layer", "head"], suffixes=("_probe", ""))[["accuracy", "effect"]].dropna()
            varied = len(both) > 2 and both.nunique().min() > 1
            rho, p = spearmanr(both["accuracy"], both["effect"]) if varied else (np.nan, np.nan)
            key = {"property": what, "reading": reading, "class": label, "fill": fill, "metric": metric}
            rows.append(key | {"spearman": rho, "p": p})
    return pd.DataFrame(rows)


def lens_by_layer(logits: NDArray[np.float32], targets: NDArray[np.integer], labels: Sequence[str]) -> pd.DataFrame:
    """What the class lens gets right, layer by layer, from its logits (N, L + 1, K): `class, layer, n, accuracy,
    ci_low, ci_high, decided`, the last the share of texts whose prediction no longer changes from there on."""
    correct, settled = logits.argmax(2) == targets[:, None], lens.decided(logits)
    tables = []
    for label, own in _groups(targets, labels):
        accuracy, low, high = with_intervals(correct[own], np.arange(own.sum()))
        layer = np.arange(logits.shape[1])
        columns = {"class": label, "layer": layer, "n": own.sum(), "accuracy": accuracy, "ci_low": low, "ci_high": high}
        tables.append(pd.DataFrame(columns | {"decided": (settled[own, None] <= layer).mean(0)}))
    return pd.concat(tables, ignore_index=True)


def contributions(
    values: NDArray[np.float32], parts: Sequence[lens.Part], targets: NDArray[np.integer], labels: Sequence[str]
) -> pd.DataFrame:
    """What each part of the network adds to each class's logit, mean over the texts of a class, from values
    (N, parts, K): `kind, layer, head, class, logit, mean`."""
    names = pd.DataFrame([{"kind": part.kind, "layer": part.layer, "head": part.head} for part in parts])
    names = names.astype({"layer": "Int64", "head": "Int64"})
    tables = []
    for label, own in _groups(targets, labels):
        means = values[own].mean(0, dtype=np.float64)  # (parts, K)
        tables += [
            names.assign(**{"class": label, "logit": logit, "mean": means[:, k]}) for k, logit in enumerate(labels)
        ]
    return pd.concat(tables, ignore_index=True)


def _groups(targets: NDArray[np.integer], labels: Sequence[str]) -> list[tuple[str, NDArray[np.bool_]]]:
    """All texts, and those of each class that has any."""
    classes = [(label, targets == k) for k, label in enumerate(labels)]
    return [(OVERALL, np.ones(len(targets), bool)), *(group for group in classes if group[1].any())]
