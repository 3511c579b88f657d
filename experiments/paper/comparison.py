"""The page's tables of differences between starts and between models, and what the models are besides their weights."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch

from lab.report import label
from model import GPT2, GPT2Config

from .differences import COMPARED, Pair, pair_models, pair_starts
from .results import TUNED, MeasuredRun, distinct, name_start


def start_difference_rows(differences: pd.DataFrame, runs: Sequence[MeasuredRun]) -> Iterator[list[str]]:
    """Yield the rows of the table of pretrained minus random weights. differences: of `compare_starts`."""
    matched = pair_starts(runs)
    for _, row in differences.iterrows():
        means = [f"{row['pretrained']:.3f}", f"{row['random']:.3f}"]
        pairs = matched[row["corpus"], row["model"], "pretrained", row["tune"]]
        corpus = f"{label(row['corpus'])} ({row['n']:,})"
        of_run = [label(row["model"]), TUNED[row["tune"]], COMPARED[row["metric"]]]
        yield [corpus, *of_run, *means, *difference_cells(row, pairs)]


def difference_cells(row: pd.Series, pairs: Sequence[Pair]) -> list[str]:
    """Return a difference with its interval, and that of each seed."""
    interval = f"**{row['difference']:+z.3f}** [{row['ci_low']:+z.3f}, {row['ci_high']:+z.3f}]"
    seeds = [f"seed {pair.run.seed}: {pair.subtract(row['metric']):+z.3f}" for pair in pairs]
    return [interval, "<br>".join(seeds)]


def model_rows(runs: Sequence[MeasuredRun]) -> list[list[str]]:
    """Return the table of what the models are besides their weights; no rows of a single model."""
    shapes = {run.model: run.record["model"]["shape"] for run in runs} if count_models(runs) > 1 else {}
    return [
        [
            label(model),
            f"{count_weights(shape):,}",
            f"{shape['n_layer']} x {shape['n_head']}",
            *(f"{shape[name]:,}" for name in ("n_embd", "n_ctx", "vocab_size")),
        ]
        for model, shape in shapes.items()
    ]


def count_models(runs: Sequence[MeasuredRun]) -> int:
    return len({run.model for run in runs})


def count_weights(shape: dict[str, Any]) -> int:
    """Count the weights of a network without a head."""
    config = GPT2Config(**shape | {"windows": tuple(shape.get("windows", ()))})
    with torch.device("meta"):
        return sum(weight.numel() for weight in GPT2(config).parameters())


def list_differing(runs: Sequence[MeasuredRun]) -> list[str]:
    """Return the settings of shape and training in which models differ; none of a single model."""
    if count_models(runs) == 1:
        return []
    shapes = [run.record["model"]["shape"] for run in runs]
    names = distinct(name for shape in shapes for name in shape)  # a GPT-2 has fewer than a GPT-Neo
    differing = [name for name in names if len(distinct(each.get(name) for each in shapes)) > 1]
    rates: dict[tuple[str, str], set[float]] = {}
    for run in runs:
        rates.setdefault((run.kind, run.init), set()).add(run.record["settings"]["lr"])
    return differing + ["lr"] * any(len(of_kind) > 1 for of_kind in rates.values())


def model_difference_rows(differences: pd.DataFrame, runs: Sequence[MeasuredRun]) -> Iterator[list[str]]:
    """Yield the rows of the table of each model minus the first. differences: of `compare_models`."""
    matched = pair_models(runs)
    for _, row in differences.iterrows():
        pairs = matched[row["corpus"], row["model"], row["init"], row["tune"]]
        corpus, tuned = f"{label(row['corpus'])} ({row['n']:,})", TUNED[row["tune"]] + name_start(row["init"])
        models = f"{label(row['model'])} minus {label(row['first_model'])}"
        means = [f"{row['mean']:.3f}", f"{row['first_mean']:.3f}"]
        better = row["model"] if row["difference"] > 0 else row["first_model"]
        verdict = f"{label(better)} is better" if row["clear"] else "no clear difference"
        yield [corpus, models, tuned, COMPARED[row["metric"]], *means, *difference_cells(row, pairs), verdict]
