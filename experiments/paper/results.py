"""Training runs side by side: their scores in one tidy table, their differences, and what others published."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from data import SPLITS, Corpus
from lab.metrics import Floats, Ints, resampled_prediction_metrics
from lab.stats import bootstrap
from model.config import InputError

METRICS = ("accuracy", "macro_f1", "weighted_f1", "macro_roc_auc")
BASELINES = {"bag_of_words": "best bag of words", "majority": "most frequent class"}
TUNED = {"all": "all weights tuned", "head": "head alone tuned"}
AUC = "reported train/test ROC AUC, of a model not known to us"
OFFICIAL = {"emotion": 2000, "rotten_tomatoes": 1066}  # how many texts test has, by the corpus's title
PUBLISHED = (  # the corpus's title, the model, what its numbers are, and they by column
    ("emotion", "GPT-2 124M, all weights", "self-reported, model card tingtone/jq_emo_gpt", {"val accuracy": "0.947"}),
    (
        "emotion",
        "DistilBERT",
        "verified by the hub, model card bhadresh-savani/distilbert-base-uncased-emotion",
        {"test accuracy": "0.927", "test macro-F1": "0.8825"},
    ),
    (
        "rotten_tomatoes",
        "DistilBERT",
        "self-reported on several model cards, in part as test",
        {"test accuracy": "0.84 to 0.86"},
    ),
    ("rotten_tomatoes", "tuned", AUC, {"train ROC AUC": "0.980", "test ROC AUC": "0.911"}),
    ("rotten_tomatoes", "frozen", AUC, {"train ROC AUC": "0.918", "test ROC AUC": "0.882"}),
)
Pair = tuple["Measured", "Measured"]  # from pretrained and from random weights; corpus, tune and seed are the same
COMPARED = {"accuracy": "accuracy", "macro_f1": "macro-F1"}  # metrics whose difference is told, with their names


class Measured(NamedTuple):
    """A finished run: its run.json, and its metrics.json with a split `train` that has `n` and `macro_roc_auc`.

    `targets` and `predicted` are class numbers, int (n,), of the test texts in their order.
    """

    record: dict[str, Any]
    metrics: dict[str, Any]
    targets: Ints
    predicted: Ints

    @property
    def corpus(self) -> str:
        return self.record["corpus"]["name"]


def read_predicted(path: Path, corpus: Corpus) -> Ints:
    """The `predicted` of `Measured`, from a run's predictions.csv. InputError unless it is about these test texts."""
    own, columns = corpus.split("test"), ["split", "text", "label", "predicted"]
    try:
        table = pd.read_csv(path, usecols=columns, dtype=str, keep_default_na=False)  # a label may be "nan", or "1"
    except ValueError:
        table = pd.DataFrame(columns=columns)
    table = table[table["split"] == "test"]
    predicted = pd.Index(corpus.labels).get_indexer(pd.Index(table["predicted"]))
    if any(list(table[name]) != list(own[name]) for name in ("text", "label")) or (predicted < 0).any():
        raise InputError(f"{path}: expected the test texts of {corpus.name}; move {path.parent} away, it is made anew")
    return predicted


def tidy(runs: Sequence[Measured]) -> pd.DataFrame:
    """One row per run, split and metric; after the runs of a corpus, which stand together, its baselines.

    Columns `model, init, corpus, tune, seed, split, metric, n, value, ci_low, ci_high`. A baseline has its name as
    its model, and no init, tune and seed.
    """
    rows: list[dict[str, Any]] = []
    for corpus, same in groupby(runs, key=lambda run: run.corpus):
        first, *others = same
        for run in (first, *others):
            settings = run.record["settings"]
            key = {"model": settings["model"], "init": settings["init"], "corpus": corpus}
            rows += _scores(key | {"tune": settings["tune"], "seed": settings["seed"]}, run.metrics)
        for name in BASELINES:
            key = {"model": name, "init": "", "corpus": corpus, "tune": "", "seed": None}
            rows += _scores(key, first.metrics["baselines"][name])
    return pd.DataFrame(rows).astype({"seed": "Int64"})


def _scores(key: dict[str, Any], metrics: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for split in SPLITS:
        measured = metrics.get(split, {})
        for metric in METRICS:
            if metric in measured:
                low, high = measured.get("intervals", {}).get(metric) or (None, None)
                value = {"n": measured["n"], "value": measured[metric], "ci_low": low, "ci_high": high}
                yield key | {"split": split, "metric": metric} | value


def differences(runs: Sequence[Measured]) -> pd.DataFrame:
    """Pretrained minus random weights on test: one row per corpus, tune and metric; no rows unless both are there.

    Columns `corpus, tune, metric, n, seeds, pretrained, random, difference, ci_low, ci_high`: means over the seeds, and
    the 95 % interval of their difference. It is a paired bootstrap over the n texts: each resample of them is the same
    for every run. So it covers that other texts might have been in test, given these seeds. It does not cover the
    seeds: with others, the same texts may give a difference outside of it.
    """
    rows: list[dict[str, Any]] = []
    for (corpus, tune), same in pairs(runs).items():
        n = len(same[0][0].targets)
        intervals = bootstrap(partial(_resampled_differences, pairs=same), n)
        for metric in COMPARED:
            pretrained, random = np.mean([[run.metrics["test"][metric] for run in pair] for pair in same], axis=0)
            key = {"corpus": corpus, "tune": tune, "metric": metric, "n": n, "seeds": len(same)}
            low, high = intervals[metric] or (None, None)
            means = {"pretrained": pretrained, "random": random, "difference": pretrained - random}
            rows.append(key | means | {"ci_low": low, "ci_high": high})
    return pd.DataFrame(rows)


def pairs(runs: Sequence[Measured]) -> dict[tuple[str, str], list[Pair]]:
    """By corpus and tune, the two runs of each seed; nothing unless both starts are there."""
    kind = itemgetter("init", "tune", "seed")
    by_kind = {(*kind(run.record["settings"]), run.corpus): run for run in runs}
    found: dict[tuple[str, str], list[Pair]] = {}
    for (init, tune, seed, corpus), run in by_kind.items():
        if init == "pretrained" and ("random", tune, seed, corpus) in by_kind:
            found.setdefault((corpus, tune), []).append((run, by_kind["random", tune, seed, corpus]))
    return found


def _resampled_differences(weights: Floats, pairs: Sequence[Pair]) -> dict[str, Floats]:
    """Pretrained minus random on each resample, weights float (draws, n), mean over the seeds: metric -> (draws,)."""
    labels = pairs[0][0].record["corpus"]["labels"]
    measured = [
        [resampled_prediction_metrics(weights, run.targets, run.predicted, labels) for run in pair] for pair in pairs
    ]
    return {name: np.mean([one[name] - other[name] for one, other in measured], axis=0) for name in COMPARED}


def published(corpus: str, n: int) -> list[tuple[str, str, dict[str, str]]]:
    """What others report on a corpus, if it is the official one with `n` texts on test; the columns of PUBLISHED."""
    return [row[1:] for row in PUBLISHED if row[0] == title(corpus) and n == OFFICIAL[row[0]]]


def title(corpus: str) -> str:
    """A corpus's name without owner and folder: emotion, for dair-ai/emotion/split on the hub."""
    return "/".join(corpus.split("/")[1:2]) or corpus


def start_of(model: str, init: str) -> str:
    """What a run starts from, in words."""
    return f"{model} from random weights" if init == "random" else model


def accuracies_on_test(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of `figures.forest`: accuracy on test in these `tidy` results, and what others published of it."""
    rows: list[dict[str, Any]] = []
    accuracy = results[(results["split"] == "test") & (results["metric"] == "accuracy")]
    for corpus, own in accuracy.groupby("corpus", sort=False):
        model, init, n = own[["model", "init", "n"]].iloc[0]
        both = {"pretrained", "random"} <= set(own["init"])
        panel = {"panel": f"{model if both else start_of(model, init)} on {corpus}, {n:,} test texts"}
        for row in own.itertuples():
            random = ", from random weights" if both and row.init == "random" else ""
            kind = TUNED.get(str(row.tune), "baseline") + random
            name = f"{kind}, seed {row.seed}" if row.tune else BASELINES[str(row.model)]
            score = {"value": row.value, "low": row.ci_low, "high": row.ci_high, "reference": not row.tune}
            rows.append(panel | {"kind": kind, "name": name} | score)
        for other, _, numbers in published(str(corpus), n):
            if "test accuracy" in numbers:
                low, *high = map(float, numbers["test accuracy"].split(" to "))
                score = {"low": low, "high": high[0]} if high else {"value": low}
                rows.append(panel | {"kind": "published", "name": f"{other}, published", "reference": True} | score)
    return pd.DataFrame(rows)
