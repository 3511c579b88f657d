"""Training runs side by side: their scores in one tidy table, as Markdown, and beside what others published."""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from data import SPLITS, Corpus
from model.config import PRESETS, InputError

from .metrics import Floats, Ints, resampled_prediction_metrics
from .stats import bootstrap

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
Pair = tuple["Measured", "Measured"]  # from pretrained and from random weights; corpus, tune and seed are the same
COMPARED = {"accuracy": "accuracy", "macro_f1": "macro-F1"}  # metrics whose difference is told, with their names
ABOUT_DIFFERENCES = """\
Means over the seeds; in brackets the 95 % bootstrap interval over the texts, paired: it says how far other texts would
move the difference of these runs, and nothing of other seeds. The last column shows how much those matter."""


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
    for (corpus, tune), pairs in _pairs(runs).items():
        n = len(pairs[0][0].targets)
        intervals = bootstrap(partial(_resampled_differences, pairs=pairs), n)
        for metric in COMPARED:
            pretrained, random = np.mean([[run.metrics["test"][metric] for run in pair] for pair in pairs], axis=0)
            key = {"corpus": corpus, "tune": tune, "metric": metric, "n": n, "seeds": len(pairs)}
            low, high = intervals[metric] or (None, None)
            means = {"pretrained": pretrained, "random": random, "difference": pretrained - random}
            rows.append(key | means | {"ci_low": low, "ci_high": high})
    return pd.DataFrame(rows)


def _pairs(runs: Sequence[Measured]) -> dict[tuple[str, str], list[Pair]]:
    """By corpus and tune, the two runs of each seed; nothing unless both starts are there."""
    kind = itemgetter("init", "tune", "seed")
    by_kind = {(*kind(run.record["settings"]), run.corpus): run for run in runs}
    pairs: dict[tuple[str, str], list[Pair]] = {}
    for (init, tune, seed, corpus), run in by_kind.items():
        if init == "pretrained" and ("random", tune, seed, corpus) in by_kind:
            pairs.setdefault((corpus, tune), []).append((run, by_kind["random", tune, seed, corpus]))
    return pairs


def _resampled_differences(weights: Floats, pairs: Sequence[Pair]) -> dict[str, Floats]:
    """Pretrained minus random on each resample, weights float (draws, n), mean over the seeds: metric -> (draws,)."""
    labels = pairs[0][0].record["corpus"]["labels"]
    measured = [
        [resampled_prediction_metrics(weights, run.targets, run.predicted, labels) for run in pair] for pair in pairs
    ]
    return {name: np.mean([one[name] - other[name] for one, other in measured], axis=0) for name in COMPARED}


def markdown(runs: Sequence[Measured], results: pd.DataFrame, compared: pd.DataFrame, command: str) -> str:
    """What was run, the table of its `tidy` results, a row per corpus and kind of classifier, and its `differences`."""
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
    section = [] if compared.empty else _section(runs, compared)
    return "\n".join([*_provenance(runs, command), "", LEGEND, "", *_lines(table), "", *section])


def _section(runs: Sequence[Measured], compared: pd.DataFrame) -> list[str]:
    """The lines about the `differences` of these runs."""
    pairs = _pairs(runs)
    header = ["corpus (test texts)", "what is tuned", "metric", "pretrained", "random", "difference", "each seed's"]
    table = [header, ["---"] * len(header)]
    for row in compared.itertuples():
        corpus, tune, metric = str(row.corpus), str(row.tune), str(row.metric)
        seeds = []
        for pretrained, random in pairs[corpus, tune]:
            difference = pretrained.metrics["test"][metric] - random.metrics["test"][metric]
            seeds.append(f"seed {pretrained.record['settings']['seed']}: {difference:+z.3f}")
        scores = [f"{row.pretrained:.3f}", f"{row.random:.3f}"]
        scores += [f"**{row.difference:+z.3f}** [{row.ci_low:+z.3f}, {row.ci_high:+z.3f}]", "<br>".join(seeds)]
        table.append([f"{corpus} ({row.n:,})", TUNED[tune], COMPARED[metric], *scores])
    title = "## Pretrained minus random weights, the same texts and seeds"
    return [title, "", _unlike(pairs), "", ABOUT_DIFFERENCES, "", *_lines(table), ""]


def _unlike(pairs: dict[tuple[str, str], list[Pair]]) -> str:
    """In one line, how the two starts were trained, by what was tuned."""
    told = {}
    for (_, tune), same in pairs.items():
        one, other = (run.record["settings"] for run in same[0])
        epochs, lr, dropout = (f"{one[name]:g} and {other[name]:g}" for name in ("epochs", "lr", "dropout"))
        epochs = f"the same epochs ({one['epochs']})" if one["epochs"] == other["epochs"] else f"epochs {epochs}"
        told[tune] = f"{TUNED[tune]}, {epochs}, learning rate {lr}, dropout {dropout}"
    return f"Pretrained and random weights, each with its own defaults: {'; '.join(told.values())}."


def _lines(table: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]


def _provenance(runs: Sequence[Measured], command: str) -> list[str]:
    """The lines above the table: what these runs start from, and what is needed to make them again."""
    starts = dict.fromkeys(map(_start, runs))
    revisions = {run.corpus: run.record["corpus"].get("revision") for run in runs}
    corpora = [f"{name}, {f'revision {commit}' if commit else 'local files'}" for name, commit in revisions.items()]
    lines = [
        f"- model: {'; '.join(starts)}",
        f"- corpora: {'; '.join(corpora)}",
        f"- device: {_differing(run.record['device'] for run in runs)}",
        f"- commit: {_differing(run.record['git'] or 'unknown' for run in runs)}",
        f"- versions: {_differing(', '.join(map(' '.join, run.record['versions'].items())) for run in runs)}",
        f"- command: `{command}`",
    ]
    # neither a folder nor random weights have a revision
    official = [run.record["model"]["name"] in PRESETS and bool(run.record["model"].get("revision")) for run in runs]
    if not all(official):
        which = "Not all of these are" if any(official) else "These are not"
        lines += ["", f"**{which} results of the official GPT-2 weights.**"]
    return lines


def _start(run: Measured) -> str:
    """What it starts from, with what tells these weights from others."""
    model, init = run.record["model"], run.record["settings"]["init"]
    start = start_of(model["name"], init)
    if init == "pretrained":
        start += f", revision {model['revision'] or 'unknown'}, SHA-256 of the weights {model['sha256']}"
    return start


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
