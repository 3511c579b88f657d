"""Training runs side by side: their scores in one tidy table, and what others published."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from data import SPLITS, Corpus
from lab.metrics import Ints
from lab.runs import EARLIER
from model.config import InputError

T = TypeVar("T")
METRICS = ("accuracy", "macro_f1", "weighted_f1", "macro_roc_auc")
BASELINES = {"bag_of_words": "best bag of words", "majority": "most frequent class"}
TUNED = {  # what is tuned of a network, or fitted on it, in the order of tables and pictures
    "frozen": "frozen features + logistic regression",
    "wte": "mean of wte + logistic regression",
    "head": "head alone tuned",
    "2": "last two blocks tuned",
    "all": "all weights tuned",
    "words": "label words, all weights tuned",
}
OFFICIAL = {"emotion": 2000, "rotten_tomatoes": 1066}  # number of test texts, by the corpus's title


@dataclass(frozen=True)
class Published:
    """Scores that others report, as they write them, by the column of results.md."""

    corpus: str  # its title
    model: str
    source: str
    scores: dict[str, str]


DISTILBERT = "verified by the hub, model card bhadresh-savani/distilbert-base-uncased-emotion"
LECTURE = (
    'Zhang 2024, lecture "Interpreting contextual embeddings", whose slide does not say split, seed, pooling, '
    "classifier and epochs"
)
TOMATOES = "self-reported on several model cards, in part as test"
PUBLISHED = (
    Published(
        "emotion",
        "GPT-2 124M, all weights",
        "self-reported, model card tingtone/jq_emo_gpt",
        {"val accuracy": "0.947"},
    ),
    Published("emotion", "DistilBERT", DISTILBERT, {"test accuracy": "0.927", "test macro-F1": "0.8825"}),
    Published("rotten_tomatoes", "DistilBERT", TOMATOES, {"test accuracy": "0.84 to 0.86"}),
    Published(
        "rotten_tomatoes",
        "DistilBERT, frozen features",
        LECTURE,
        {"train ROC AUC": "0.918097", "test ROC AUC": "0.882378"},
    ),
    Published(
        "rotten_tomatoes", "DistilBERT, fine-tuned", LECTURE, {"train ROC AUC": "0.980089", "test ROC AUC": "0.911010"}
    ),
)


@dataclass(frozen=True, eq=False)
class MeasuredRun:
    """A finished run."""

    record: dict[str, Any]  # its run.json
    metrics: dict[str, Any]  # its metrics.json, and a split `train` that has `n` and `macro_roc_auc`
    targets: Ints  # class numbers, int (n,), of the test texts in their order
    predicted: Ints  # the same as the network predicts them

    @property
    def settings(self) -> dict[str, Any]:
        """The options of train.py; one that is younger than the run has the value that stands for its absence."""
        return EARLIER | self.record["settings"]

    @property
    def corpus(self) -> str:
        return self.record["corpus"]["name"]

    @property
    def labels(self) -> list[str]:
        return self.record["corpus"]["labels"]

    @property
    def model(self) -> str:
        return self.settings["model"]

    @property
    def init(self) -> str:
        return self.settings["init"]

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    @property
    def kind(self) -> str:
        """What was tuned, see TUNED."""
        return name_kind(self.settings["head"], self.settings["tune"])


@dataclass(frozen=True, eq=False)
class Fitted:
    """What scikit-learn fitted: on features of a network, or on words."""

    model: str  # the network; of words a name of BASELINES
    init: str  # none of words
    corpus: str
    kind: str  # of TUNED; none of words
    seed: int | None  # of random weights
    chosen: str  # on val, in words
    metrics: dict[str, Any]  # train, val and test, as of a `MeasuredRun`


def read_predicted(path: Path, corpus: Corpus) -> Ints:
    """Read the `predicted` of `MeasuredRun` from a predictions.csv. Raises InputError where its texts are others."""
    examples, columns = corpus.split("test"), ["split", "text", "label", "predicted"]
    try:
        table = pd.read_csv(path, usecols=columns, dtype=str, keep_default_na=False)  # a label may be "nan", or "1"
    except ValueError:
        table = pd.DataFrame(columns=columns)
    table = table[table["split"] == "test"]
    predicted = pd.Index(corpus.labels).get_indexer(pd.Index(table["predicted"]))
    if any(list(table[name]) != list(examples[name]) for name in ("text", "label")) or (predicted < 0).any():
        raise InputError(f"{path}: expected the test texts of {corpus.name}; move {path.parent} away, it is made anew")
    return predicted


def name_kind(head: str, tune: str | int) -> str:
    """Return what options of train.py tune, as TUNED calls it."""
    return "words" if head == "words" else str(tune)


def tidy(runs: Sequence[MeasuredRun], fitted: Sequence[Fitted] = ()) -> pd.DataFrame:
    """Return one row per classifier, split and metric. The runs of a corpus stand together.

    Columns `model, init, corpus, tune, seed, split, metric, n, value, ci_low, ci_high, chosen`. Corpus by corpus, model
    by model and start by start in the order of TUNED, then the baselines. These have their name as their model, and no
    init, tune and seed. `chosen` says which place or which bag of words was best on val.
    """
    rows: list[dict[str, Any]] = []
    for corpus, group in groupby(runs, key=lambda run: run.corpus):
        of_corpus = list(group)
        classifiers = [*(each for each in fitted if each.corpus == corpus), *map(_describe_run, of_corpus)]
        described = {each.model for each in classifiers}
        for name in BASELINES.keys() - described:
            metrics = of_corpus[0].metrics["baselines"][name]
            chosen = "" if name == "majority" else metrics["name"]
            classifiers.append(Fitted(name, "", str(corpus), "", None, chosen, metrics))
        starts = [(run.model, run.init) for run in of_corpus]
        for each in sorted(classifiers, key=partial(_rank, starts=starts)):
            rows += _scores(each)
    return pd.DataFrame(rows).astype({"seed": "Int64"})


def _describe_run(run: MeasuredRun) -> Fitted:
    return Fitted(run.model, run.init, run.corpus, run.kind, run.seed, "", run.metrics)


def _rank(classifier: Fitted, starts: Sequence[tuple[str, str]]) -> tuple[int, int]:
    """Return its place in tables: by model and start, then by kind; baselines come last."""
    if not classifier.init:
        return len(starts), list(BASELINES).index(classifier.model)
    return starts.index((classifier.model, classifier.init)), list(TUNED).index(classifier.kind)


def _scores(classifier: Fitted) -> Iterator[dict[str, Any]]:
    """Yield a row for each split and metric that was measured."""
    key = {name: getattr(classifier, name) for name in ("model", "init", "corpus")}
    key |= {"tune": classifier.kind, "seed": classifier.seed}
    metrics = classifier.metrics
    for split in SPLITS:
        measured = metrics.get(split, {})
        for metric in METRICS:
            if metric in measured:
                low, high = measured.get("intervals", {}).get(metric) or (None, None)
                value = {"n": measured["n"], "value": measured[metric], "ci_low": low, "ci_high": high}
                yield key | {"split": split, "metric": metric} | value | {"chosen": classifier.chosen}


def published(corpus: str, n: int) -> list[Published]:
    """Return what others report on a corpus, if it is the official one with `n` test texts."""
    return [row for row in PUBLISHED if row.corpus == title(corpus) and n == OFFICIAL[row.corpus]]


def title(corpus: str) -> str:
    """Return a corpus's name without owner and folder: emotion, for dair-ai/emotion/split on the hub."""
    return "/".join(corpus.split("/")[1:2]) or corpus


def base_name(model: str) -> str:
    """Return a model's name without owner and folders."""
    return os.path.basename(os.path.abspath(model))


def start_of(model: str, init: str) -> str:
    """Return in words what a run starts from."""
    return model + name_start(init)


def name_start(init: str) -> str:
    """Return what is said of random weights; of a checkpoint's nothing."""
    return " from random weights" if init == "random" else ""


def accuracies_on_test(results: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `figures.draw_forest`: accuracy on test in these `tidy` results, and what others published.

    The rows of a single model or start do not name it, for the panel does."""
    rows: list[dict[str, Any]] = []
    accuracies = results[(results["split"] == "test") & (results["metric"] == "accuracy")]
    for corpus, of_corpus in accuracies.groupby("corpus", sort=False):
        starts = of_corpus[of_corpus["tune"] != ""][["model", "init"]].drop_duplicates()
        n, several, both = of_corpus["n"].iloc[0], starts["model"].nunique() > 1, starts["init"].nunique() > 1
        model, init = starts.iloc[0]
        panel = {"panel": f"{corpus}, {n:,} test texts"}
        if not several:
            panel = {"panel": f"{model if both else start_of(model, init)} on {panel['panel']}"}
        for row in of_corpus.itertuples(index=False):
            of_model = f"{base_name(str(row.model))}, " if several else ""
            start = ", from random weights" if row.init == "random" and (both or several) else ""
            seed = "" if row.seed is pd.NA else f", seed {row.seed!s}"
            name = f"{of_model}{TUNED[str(row.tune)]}{start}{seed}" if row.tune else BASELINES[str(row.model)]
            score = {"value": row.value, "low": row.ci_low, "high": row.ci_high, "reference": not row.tune}
            rows.append(panel | {"kind": f"{of_model}{row.init}" if row.tune else "baseline", "name": name} | score)
        for other in published(str(corpus), n):
            if accuracy := other.scores.get("test accuracy"):
                low, *high = map(float, accuracy.split(" to "))
                score = {"low": low, "high": high[0]} if high else {"value": low}
                name = f"{other.model}, published"
                rows.append(panel | {"kind": "published", "name": name, "reference": True} | score)
    return pd.DataFrame(rows)


def distinct(values: Iterable[T]) -> list[T]:
    """Return each value once, in order."""
    seen: list[T] = []
    for value in values:
        if value not in seen:
            seen.append(value)
    return seen
