"""Paired differences between runs on the same test texts: of a model's two starts, and of two models."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import pandas as pd

from lab.metrics import Floats, Ints, resampled_prediction_metrics
from lab.stats import LEVEL, bootstrap, compare_with_first, holm, resamples

from .results import MeasuredRun

COMPARED = {"accuracy": "accuracy", "macro_f1": "macro-F1"}  # metrics that are compared, with their names
JUDGED = "macro_f1"  # the metric by which an epoch is kept; of the others no verdict is given
Start = tuple[str, str]  # model and init
Group = tuple[str, str, str, str]  # corpus, model, init and kind


class Predicted(Protocol):
    """A finished run, as far as it is compared."""

    @property
    def metrics(self) -> dict[str, Any]:
        """Its metrics.json."""

    @property
    def labels(self) -> Sequence[str]: ...

    @property
    def targets(self) -> Ints:
        """Class numbers, int (n,), of the test texts."""

    @property
    def predicted(self) -> Ints:
        """The same as the network predicts them."""


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


def _compare(matched: Sequence[Pair], means: tuple[str, str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each metric: `metric, n, seeds`, the two means over the seeds, `difference, ci_low, ci_high`.

    The 95 % interval is a paired bootstrap over the n texts: each resample of them is the same for every run. So it
    covers that other texts might have been in test, given these seeds. It does not cover the seeds: with others, the
    same texts may give a difference outside of it. means: the names of the two means."""
    runs, references = [pair.run for pair in matched], [pair.reference for pair in matched]
    n = len(references[0].targets)
    intervals = bootstrap(partial(_resampled_differences, runs=runs, references=references), n)
    for metric in COMPARED:
        of_runs = np.mean([pair.run.metrics["test"][metric] for pair in matched])
        of_references = np.mean([pair.reference.metrics["test"][metric] for pair in matched])
        low, high = intervals[metric] or (None, None)
        scores = {means[0]: of_runs, means[1]: of_references, "difference": of_runs - of_references}
        yield {"metric": metric, "n": n, "seeds": len(matched)} | scores | {"ci_low": low, "ci_high": high}


def compare_models(runs: Sequence[MeasuredRun]) -> pd.DataFrame:
    """Return each other model minus the first on test: one row per corpus, model, init, tune and metric; none of a
    single model.

    Columns `corpus, model, first_model, init, tune, metric, n, seeds, mean, first_mean, difference, ci_low, ci_high, p,
    p_holm, verdict`, see `compare_arms` and `add_verdicts`. Models of one corpus, init and tune are judged together."""
    of_model: dict[tuple[str, str, str], dict[str, list[Pair]]] = {}
    for (corpus, model, init, tune), matched in pair_models(runs).items():
        of_model.setdefault((corpus, init, tune), {})[model] = matched
    rows: list[dict[str, Any]] = []
    for (corpus, init, tune), others in of_model.items():
        first = [pair.reference for pair in next(iter(others.values()))]
        key = {"corpus": corpus, "first_model": first[0].model, "init": init, "tune": tune}
        arms = {model: [pair.run for pair in matched] for model, matched in others.items()}
        rows += [key | row for row in compare_arms(first, arms, ("model", "mean", "first_mean"))]
    if not rows:
        return pd.DataFrame()
    frame = add_verdicts(pd.DataFrame(rows))
    names = {"gain": frame["model"], "loss": frame["first_model"]}
    for kind, better in names.items():
        frame.loc[frame["verdict"] == f"clear {kind}", "verdict"] = better + " is better"
    return frame


def compare_arms(
    first: Sequence[Predicted], others: Mapping[str, Sequence[Predicted]], names: tuple[str, str, str]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each metric and each of the others: its name, `metric, n, seeds`, its mean over the seeds and
    that of the first, `difference`, and `ci_low, ci_high, p` of `compare_with_first`.

    first, others: runs of the same seeds, in the same order, on the same texts. names: the columns of the name and of
    the two means."""
    n, arms = len(first[0].targets), [first, *others.values()]
    drawn = [_resample(runs, first) for runs in others.values()]
    for metric in COMPARED:
        scores = np.array([[run.metrics["test"][metric] for run in runs] for runs in arms])
        of_texts = np.array([np.nanvar(each[metric], ddof=1) for each in drawn])
        reference, *means = scores.mean(axis=1)
        for name, mean, low, high, p in zip(others, means, *compare_with_first(scores, of_texts), strict=True):
            key = {names[0]: name, "metric": metric, "n": n, "seeds": len(first)}
            found = {names[1]: mean, names[2]: reference, "difference": mean - reference}
            yield key | found | {"ci_low": low, "ci_high": high, "p": p}


def add_verdicts(frame: pd.DataFrame) -> pd.DataFrame:
    """Add `p_holm` and `verdict` to rows of `compare_arms`: p by Holm's method over all rows of the judged metric."""
    p = holm(frame["p"].where(frame["metric"] == JUDGED).to_numpy(float))
    return frame.assign(p_holm=p, verdict=list(map(judge, frame["metric"], frame["difference"], p)))


def judge(metric: str, difference: float, p: float) -> str:
    """Return the verdict on a difference whose p is corrected for the number of comparisons."""
    if metric != JUDGED:
        return "not judged"
    if np.isnan(p):
        return "not judged: one seed"
    if p >= LEVEL:
        return "no clear difference"
    return "clear gain" if difference > 0 else "clear loss"


def _resample(runs: Sequence[Predicted], references: Sequence[Predicted]) -> dict[str, Floats]:
    """Return `_resampled_differences` on all resamples: metric -> (DRAWS,)."""
    chunks = [_resampled_differences(weights, runs, references) for weights in resamples(len(runs[0].targets))]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in COMPARED}


def _resampled_differences(
    weights: Floats, runs: Sequence[Predicted], references: Sequence[Predicted]
) -> dict[str, Floats]:
    """Return runs minus references on each resample, mean over the seeds: metric -> (draws,). weights: (draws, n)."""
    by_seed = []
    for pair in zip(runs, references, strict=True):
        minuend, subtrahend = (
            resampled_prediction_metrics(weights, run.targets, run.predicted, run.labels) for run in pair
        )
        by_seed.append({name: minuend[name] - subtrahend[name] for name in COMPARED})
    return {name: np.mean([difference[name] for difference in by_seed], axis=0) for name in COMPARED}
