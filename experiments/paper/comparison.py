"""The page's tables of differences between starts and between models, and what the models are besides their weights."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import torch

from lab.report import label, p_value
from model import GPT2, GPT2Config

from .differences import COMPARED, Pair, pair_models, pair_starts
from .results import TUNED, MeasuredRun, distinct, name_start

SHAPE = {  # settings of a shape, in words
    "n_layer": "number of layers",
    "n_head": "heads per layer",
    "n_embd": "width",
    "n_ctx": "tokens at most",
    "vocab_size": "vocabulary",
    "layer_norm_epsilon": "epsilon of the LayerNorms",
    "scale_scores": "division of attention scores by the root of a head's width",
    "qkv_bias": "bias of q, k and v",
    "windows": "how far back a local layer sees",
}
TRAINING = {"lr": "learning rate", "dropout": "dropout"}  # the same of a training


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
    interval = f"**{row['difference']:+z.3f}**"
    if pd.notna(row["ci_low"]):
        interval += f" [{row['ci_low']:+z.3f}, {row['ci_high']:+z.3f}]"
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
    """Return in words in which settings of shape and training models differ; none of a single model.

    The rates of dropout in a checkpoint's shape are those of its pretraining, a training has its own."""
    if count_models(runs) == 1:
        return []
    shapes = [run.record["model"]["shape"] for run in runs]
    differing = [words for name, words in SHAPE.items() if len(distinct(each.get(name) for each in shapes)) > 1]
    for name, words in TRAINING.items():
        values: dict[tuple[str, str], set[float]] = {}
        for run in runs:
            values.setdefault((run.kind, run.init), set()).add(run.settings[name])
        differing += [words] * any(len(of_kind) > 1 for of_kind in values.values())
    return differing


def model_difference_rows(differences: pd.DataFrame, runs: Sequence[MeasuredRun]) -> Iterator[list[str]]:
    """Yield the rows of the table of each model minus the first. differences: of `compare_models`."""
    matched = pair_models(runs)
    for _, row in differences.iterrows():
        pairs = matched[row["corpus"], row["model"], row["init"], row["tune"]]
        corpus, tuned = f"{label(row['corpus'])} ({row['n']:,})", TUNED[row["tune"]] + name_start(row["init"])
        models = f"{label(row['model'])} minus {label(row['first_model'])}"
        means = [f"{row['mean']:.3f}", f"{row['first_mean']:.3f}"]
        cells, p = difference_cells(row, pairs), "" if pd.isna(row["p_holm"]) else p_value(row["p_holm"])
        yield [corpus, models, tuned, COMPARED[row["metric"]], *means, *cells, p, label(row["verdict"])]
