"""Training runs side by side: their scores in one tidy table, as Markdown, and beside what others published."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd

from data import SPLITS
from model.config import PRESETS

METRICS = ("accuracy", "macro_f1", "weighted_f1", "macro_roc_auc")
COLUMNS = {  # of the Markdown table
    "val accuracy": ("val", "accuracy"),
    "test accuracy": ("test", "accuracy"),
    "test macro-F1": ("test", "macro_f1"),
    "train ROC AUC": ("train", "macro_roc_auc"),
    "test ROC AUC": ("test", "macro_roc_auc"),
}
IN_FULL = ("test accuracy", "test macro-F1")  # each seed with its interval; of the others the mean alone
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
LEGEND = """\
Each run keeps the epoch of best validation macro-F1. Bold: the mean over the seeds; in brackets: the 95 % bootstrap
interval over the texts. ROC AUC: one class against the rest, mean over the classes. Columns without intervals hold
the mean over the seeds. In italics: numbers that others published, not measured here."""


class Measured(NamedTuple):
    """A finished run: its run.json, and its metrics.json with a split `train` that has `n` and `macro_roc_auc`."""

    record: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def corpus(self) -> str:
        return self.record["corpus"]["name"]


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


def markdown(runs: Sequence[Measured], results: pd.DataFrame, command: str) -> str:
    """What was run, and the table of its `tidy` results: one row per corpus and kind of run, baseline and source."""
    table = [["corpus (texts: train / val / test)", "classifier", *COLUMNS], ["---"] * (2 + len(COLUMNS))]
    for corpus, rows in results.groupby("corpus", sort=False):
        first = next(run for run in runs if run.corpus == corpus)
        texts = " / ".join(f"{n:,}" for n in first.record["corpus"]["texts"].values())
        names = {name: baseline["name"] for name, baseline in first.metrics["baselines"].items()}
        start = len(table)
        for kind, own in rows.groupby(["model", "init", "tune"], sort=False):
            model, init, tune = map(str, kind)
            name = f"{start_of(model, init)}, {TUNED[tune]}" if tune else names[model]
            table.append(["", name, *(_cell(own, column) for column in COLUMNS)])
        for model, what, numbers in published(str(corpus), first.record["corpus"]["texts"]["test"]):
            cells = [f"*{numbers[column]}*" if column in numbers else "" for column in COLUMNS]
            table.append(["", f"*{model}: {what}*", *cells])
        table[start][0] = f"{corpus} ({texts})"
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    return "\n".join([*_provenance(runs, command), "", LEGEND, "", *lines, ""])


def _provenance(runs: Sequence[Measured], command: str) -> list[str]:
    """The lines above the table: what these runs start from, and what is needed to make them again."""
    model, init = runs[0].record["model"], runs[0].record["settings"]["init"]
    start = start_of(model["name"], init)
    if init == "pretrained":
        start += f", revision {model['revision'] or 'unknown'}, SHA-256 of the weights {model['sha256']}"
    revisions = {run.corpus: run.record["corpus"].get("revision") for run in runs}
    corpora = [f"{name}, {f'revision {commit}' if commit else 'local files'}" for name, commit in revisions.items()]
    lines = [
        f"- model: {start}",
        f"- corpora: {'; '.join(corpora)}",
        f"- device: {_differing(run.record['device'] for run in runs)}",
        f"- commit: {_differing(run.record['git'] or 'unknown' for run in runs)}",
        f"- versions: {_differing(', '.join(map(' '.join, run.record['versions'].items())) for run in runs)}",
        f"- command: `{command}`",
    ]
    if model["name"] not in PRESETS or not model.get("revision"):  # neither a folder nor random weights have one
        lines += ["", "**These are not results of the official GPT-2 weights.**"]
    return lines


def _differing(values: Iterable[str]) -> str:
    first, *others = dict.fromkeys(values)
    return first + "".join(f"; for some of the runs: {other}" for other in others)


def _cell(rows: pd.DataFrame, column: str) -> str:
    """The scores of one kind of run, or of a baseline, in a column."""
    split, metric = COLUMNS[column]
    rows = rows[(rows["split"] == split) & (rows["metric"] == metric)]
    mean = rows["value"].mean()
    if math.isnan(mean):
        return ""
    if column not in IN_FULL:
        return f"{mean:.3f}"
    scores = [f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]" for row in rows.itertuples()]
    if rows["seed"].isna().all():
        return scores[0]
    seeds = [f"seed {seed}: {score}" for seed, score in zip(rows["seed"], scores, strict=True)]
    return "<br>".join([f"**{mean:.3f}**", *seeds])


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
        panel = {"panel": f"{start_of(model, init)} on {corpus}, {n:,} test texts"}
        for row in own.itertuples():
            kind = TUNED.get(str(row.tune), "baseline")
            name = f"{kind}, seed {row.seed}" if row.tune else BASELINES[str(row.model)]
            score = {"value": row.value, "low": row.ci_low, "high": row.ci_high, "reference": not row.tune}
            rows.append(panel | {"kind": kind, "name": name} | score)
        for other, _, numbers in published(str(corpus), n):
            if "test accuracy" in numbers:
                low, *high = map(float, numbers["test accuracy"].split(" to "))
                score = {"low": low, "high": high[0]} if high else {"value": low}
                rows.append(panel | {"kind": "published", "name": f"{other}, published", "reference": True} | score)
    return pd.DataFrame(rows)
