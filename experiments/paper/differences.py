"""Paired differences between runs on the same test texts: of a model's two starts, and of two models."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from lab.metrics import Floats, resampled_prediction_metrics
from lab.stats import bootstrap

from .results import MeasuredRun

COMPARED = {"accuracy": "accuracy", "macro_f1": "macro-F1"}  # metrics that are compared, with their names
Start = tuple[str, str]  # model and init
Group = tuple[str, str, str, str]  # corpus, model, init and kind


@dataclass(frozen=True, eq=False)
class Pair:
    """Two runs that differ in their model alone or in their start alone: corpus, kind and seed are the same."""

    run: MeasuredRun
    reference: MeasuredRun  # what is subtracted

    def subtract(self, metric: str) -> float:
        return self.run.metrics["test"][metric] - self.reference.metrics["test"][metric]


def pair_starts(runs: Sequence[MeasuredRun]) -> dict[Group, list[Pair]]:
    """Pair each pretrained run with that from random weights of the same model, by seed; none without both starts."""
    return _pair(runs, lambda run: (run.model, "random") if run.init == "pretrained" else None)


def pair_models(runs: Sequence[MeasuredRun]) -> dict[Group, list[Pair]]:
    """Pair each run of any other model with that of the first model, by seed; none of a single model."""
    first = runs[0].model
    return _pair(runs, lambda run: (first, run.init) if run.model != first else None)


def _pair(
    runs: Sequence[MeasuredRun], name_reference: Callable[[MeasuredRun], Start | None]
) -> dict[Group, list[Pair]]:
    """Pair each run with the one that differs in model and init alone, which are given; none where that is missing."""
    by_start = {((run.model, run.init), run.corpus, run.kind, run.seed): run for run in runs}
    matched: dict[Group, list[Pair]] = {}
    for run in runs:
        start = name_reference(run)
        reference = by_start.get((start, run.corpus, run.kind, run.seed)) if start else None
        if reference:
            matched.setdefault((run.corpus, run.model, run.init, run.kind), []).append(Pair(run, reference))
    return matched


def compare_starts(runs: Sequence[MeasuredRun]) -> pd.DataFrame:
    """Return pretrained minus random weights on test: one row per corpus, model, tune and metric; none without both.

    Columns `corpus, model, tune, metric, n, seeds, pretrained, random, difference, ci_low, ci_high`, see `_compare`."""
    rows: list[dict[str, Any]] = []
    for (corpus, model, _, tune), matched in pair_starts(runs).items():
        key = {"corpus": corpus, "model": model, "tune": tune}
        rows += [key | row for row in _compare(matched, ("pretrained", "random"))]
    return pd.DataFrame(rows)


def compare_models(runs: Sequence[MeasuredRun]) -> pd.DataFrame:
    """Return each other model minus the first on test: one row per corpus, model, init, tune and metric; none of a
    single model.

    Columns `corpus, model, first_model, init, tune, metric, n, seeds, mean, first_mean, difference, ci_low, ci_high,
    clear`, see `_compare`, and of the last `is_clear`."""
    rows: list[dict[str, Any]] = []
    for (corpus, model, init, tune), matched in pair_models(runs).items():
        key = {"corpus": corpus, "model": model, "first_model": matched[0].reference.model, "init": init, "tune": tune}
        for row in _compare(matched, ("mean", "first_mean")):
            of_seeds = [pair.subtract(row["metric"]) for pair in matched]
            rows.append(key | row | {"clear": is_clear(row["ci_low"], row["ci_high"], of_seeds)})
    return pd.DataFrame(rows)


def is_clear(low: float | None, high: float | None, of_seeds: Sequence[float]) -> bool:
    """Return whether an interval excludes 0, and each seed's difference lies on the same side of 0 as it."""
    if low is None or high is None:
        return False
    return (low > 0 and min(of_seeds) > 0) or (high < 0 and max(of_seeds) < 0)


def _compare(matched: Sequence[Pair], means: tuple[str, str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each metric: `metric, n, seeds`, the two means over the seeds, `difference, ci_low, ci_high`.

    The 95 % interval is a paired bootstrap over the n texts: each resample of them is the same for every run. So it
    covers that other texts might have been in test, given these seeds. It does not cover the seeds: with others, the
    same texts may give a difference outside of it. means: the names of the two means."""
    n = len(matched[0].reference.targets)
    intervals = bootstrap(partial(_resampled_differences, pairs=matched), n)
    for metric in COMPARED:
        of_runs = np.mean([pair.run.metrics["test"][metric] for pair in matched])
        of_references = np.mean([pair.reference.metrics["test"][metric] for pair in matched])
        low, high = intervals[metric] or (None, None)
        scores = {means[0]: of_runs, means[1]: of_references, "difference": of_runs - of_references}
        yield {"metric": metric, "n": n, "seeds": len(matched)} | scores | {"ci_low": low, "ci_high": high}


def _resampled_differences(weights: Floats, pairs: Sequence[Pair]) -> dict[str, Floats]:
    """Return run minus reference on each resample, mean over the seeds: metric -> (draws,). weights: (draws, n)."""
    labels = pairs[0].reference.record["corpus"]["labels"]
    by_seed = []
    for pair in pairs:
        minuend, subtrahend = (
            resampled_prediction_metrics(weights, run.targets, run.predicted, labels)
            for run in (pair.run, pair.reference)
        )
        by_seed.append({name: minuend[name] - subtrahend[name] for name in COMPARED})
    return {name: np.mean([difference[name] for difference in by_seed], axis=0) for name in COMPARED}
