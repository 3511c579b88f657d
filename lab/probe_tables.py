"""The tables of `probe.py`: what probes, heads together and the class lens get right, and what ablation says of it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from . import lens
from .activations import Activations, Site
from .probing import Score, Task, at_sites, code_length, probe, probe_sites
from .stats import interval, resamples
from .units import name
from .wording import OVERALL

TOGETHER = (1, 2, 4, 8, 16)  # heads side by side, those that do best on val
Rows = list[dict[str, Any]]


def probed(
    activations: Activations, chosen: Sequence[Site], task: Task, seed: int, code: bool, advance: Callable[[], object]
) -> Rows:
    """One row per site: `kind, layer, head, n, C, val_accuracy, accuracy, ci_low, ci_high, macro_f1, control,
    selectivity`, and with `code` the `bits` of the labels of val and test, which no fine-tuning has seen, and their
    `compression` (None without)."""
    unseen, K = np.flatnonzero(task.split != "train"), len(task.names)

    def code_of(x: NDArray[np.float32]) -> float:
        return code_length(x[unseen], task.y[unseen], K, seed)

    scores = probe_sites(activations, chosen, task, seed, advance)
    bits = at_sites(activations, chosen, code_of, lambda: None) if code else [None] * len(chosen)
    uniform = len(unseen) * np.log2(K)
    return [
        {
            **{"kind": site.kind, "layer": site.layer, "head": site.head, **_columns(score, task)},
            **{"bits": length, "compression": None if length is None else uniform / length},
        }
        for site, score, length in zip(chosen, scores, bits, strict=True)
    ]


def _columns(score: Score, task: Task) -> dict[str, Any]:
    measured = ("C", "val_accuracy", "accuracy", "ci_low", "ci_high", "macro_f1", "control", "selectivity")
    return {"n": int((task.split == "test").sum()), **{column: getattr(score, column) for column in measured}}


def profile(activations: Activations, probes: Rows, task: Task, seed: int) -> Rows:
    """Heads side by side, those that do best on val first, `n_heads, heads, accuracy, ci_low, ci_high` (Jo & Myaeng
    2020, who concatenate the best heads to one representation)."""
    heads = sorted((row for row in probes if row["kind"] == "head"), key=lambda row: -row["val_accuracy"])
    rows = []
    for n in (n for n in TOGETHER if n <= len(heads)):
        best = [Site("head", row["layer"], row["head"]) for row in heads[:n]]
        score = probe(activations.of(*best), task, seed)
        names = " ".join(name((site.layer, site.head or 0)) for site in best)
        own = {"n_heads": n, "heads": names, "accuracy": score.accuracy}
        rows.append(own | {"ci_low": score.ci_low, "ci_high": score.ci_high})
    return rows


def agreement(probes: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """Do heads that a probe reads well matter more when they are closed? Spearman's rank correlation over the heads of
    a probe's accuracy with the size of what `ablate.py` measured on test: `property, reading, class, fill, metric,
    spearman, p`. Sizes: the drop of the log-probability over all texts, the absolute change of a specific margin."""
    heads = probes[(probes["kind"] == "head") & (probes["network"] == "trained")]
    closed = effects[(effects["kind"] == "head") & (effects["split"] == "test")]
    drop = closed[(closed["class"] == OVERALL) & (closed["metric"] == "log_prob")]
    margins = closed[closed["metric"] == "specific_margin"]
    sizes = pd.concat([drop.assign(effect=-drop["effect"]), margins.assign(effect=margins["effect"].abs())])
    rows = []
    for (what, reading), own in heads.groupby(["property", "reading"], sort=False):
        for (label, fill, metric), size in sizes.groupby(["class", "fill", "metric"], sort=False):
            both = own.merge(size, on=["layer", "head"], suffixes=("_probe", ""))
            rank = spearmanr(both["accuracy"], both["effect"])
            key = {"property": what, "reading": reading, "class": label, "fill": fill, "metric": metric}
            rows.append(key | {"spearman": rank.statistic, "p": rank.pvalue})
    return pd.DataFrame(rows)


def lens_by_layer(logits: NDArray[np.float32], targets: NDArray[np.integer], labels: Sequence[str]) -> pd.DataFrame:
    """What the class lens gets right, layer by layer, from its logits (N, L + 1, K): `class, layer, n, accuracy,
    ci_low, ci_high, decided`, the last the share of texts whose prediction no longer changes from there on."""
    correct, settled = logits.argmax(2) == targets[:, None], lens.decided(logits)
    tables = []
    for label, own in _groups(targets, labels):
        accuracy, low, high = shares(correct[own])
        layer = np.arange(logits.shape[1])
        columns = {"class": label, "layer": layer, "n": own.sum(), "accuracy": accuracy, "ci_low": low, "ci_high": high}
        tables.append(pd.DataFrame(columns | {"decided": (settled[own, None] <= layer).mean(0)}))
    return pd.concat(tables, ignore_index=True)


def shares(correct: NDArray[np.bool_]) -> tuple[NDArray[np.floating], ...]:
    """The share of N texts that are correct in each of M columns, and its 95 % bootstrap interval: three of (M,)."""
    draws = np.concatenate([weights @ correct / len(correct) for weights in resamples(len(correct))])
    return (correct.mean(0), *interval(draws))


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
