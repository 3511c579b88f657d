"""Training runs side by side as a page of Markdown: the values and tables of `report.md.jinja`."""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from lab.report import label, render
from model.config import PRESETS

from .comparison import list_differing, model_difference_rows, model_rows, start_difference_rows
from .prompts import HEADER as PROMPT_HEADER
from .prompts import choose_prompt, describe_prompt, describe_way, list_prompts, list_published
from .results import BASELINES, TUNED, MeasuredRun, distinct, name_start, published, start_of

COLUMNS = {  # of the table of scores: split and metric
    "val accuracy": ("val", "accuracy"),
    "test accuracy": ("test", "accuracy"),
    "test macro-F1": ("test", "macro_f1"),
    "train ROC AUC": ("train", "macro_roc_auc"),
    "test ROC AUC": ("test", "macro_roc_auc"),
}
IN_FULL = (
    "test accuracy",
    "test macro-F1",
    "test ROC AUC",
)  # each seed with its interval; of the others the mean alone


def report(
    runs: Sequence[MeasuredRun],
    results: pd.DataFrame,
    differences: pd.DataFrame,
    model_differences: pd.DataFrame,
    prompts: pd.DataFrame,
    command: str,
) -> str:
    """Return the page about these runs, their `tidy` results, what `compare_starts` and `compare_models` made of them,
    and what was read by `read_prompts`; the last three may be empty."""
    first: dict[str, MeasuredRun] = {}  # run of each corpus
    for run in runs:
        first.setdefault(run.corpus, run)
    groups = results.groupby("corpus", sort=False)
    return render(
        Path(__file__).with_name("report.md.jinja"),
        **describe_runs(runs),
        revisions={corpus: run.record["corpus"].get("revision") for corpus, run in first.items()},
        skipped={corpus: run.record["corpus"].get("skipped", {}) for corpus, run in first.items()},
        command=command,
        splits_without_a_class=[split for run in first.values() for split in find_splits_without_a_class(run)],
        columns=["seeds", *COLUMNS],
        scores=[row for corpus, rows in groups for row in score_rows(first[str(corpus)], rows, prompts)],
        bags=[sentence for corpus, rows in groups for sentence in compare_models_with_bag(str(corpus), rows)],
        without_label_words=list_without_label_words(runs),
        settings=settings_rows(runs),
        prompts=list(list_prompts(prompts)) if len(prompts) else [],
        prompt_header=PROMPT_HEADER,
        published_prompts=list_published(
            [(run.corpus, run.record["corpus"]["texts"]["test"]) for run in first.values()]
        ),
        differences=list(start_difference_rows(differences, runs)),
        models=model_rows(runs),
        differing=list_differing(runs),
        model_differences=list(model_difference_rows(model_differences, runs)),
    )


def describe_runs(runs: Sequence[MeasuredRun]) -> dict[str, list[Any]]:
    """Return what the runs start from and what made them, each once: names and values of the template."""
    records = [run.record for run in runs]
    return {
        "starts": distinct(map(describe_start, records)),
        "inits": distinct(run.init for run in runs),
        "official": distinct(map(is_official, records)),
        "devices": distinct(record["device"] for record in records),
        "commits": distinct(record["git"] or "unknown" for record in records),
        "versions": distinct(", ".join(map(" ".join, record["versions"].items())) for record in records),
    }


def describe_start(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a run starts from, and the revision and SHA-256 of its weights unless these are random."""
    model = record["model"]
    pretrained = model if record["settings"]["init"] == "pretrained" else {}
    name = start_of(model["name"], record["settings"]["init"])
    return {"name": name, "revision": pretrained.get("revision"), "sha256": pretrained.get("sha256")}


def is_official(record: dict[str, Any]) -> bool:
    """Does a run start from published weights? Neither a folder nor random weights have a revision."""
    return record["model"]["name"] in PRESETS and bool(record["model"].get("revision"))


def find_splits_without_a_class(run: MeasuredRun) -> Iterator[dict[str, Any]]:
    """Yield the splits of a run's corpus that have no text of some classes, and the labels of these."""
    for split in ("val", "test"):
        absent = [name for name, scores in run.metrics[split]["per_class"].items() if not scores["n"]]
        if absent:
            yield {"corpus": run.corpus, "name": split, "labels": absent}


def score_rows(run: MeasuredRun, results: pd.DataFrame, prompts: pd.DataFrame) -> list[list[str]]:
    """Return a corpus's part of the table of scores, with a heading for each of several models.

    run: any of this corpus; results: the `tidy` rows of all; prompts: of all corpora."""
    texts = run.record["corpus"]["texts"]
    of_networks = results[results["tune"] != ""]
    models, rows = list(of_networks.groupby("model", sort=False)), []
    for model, of_model in models:
        if len(models) > 1:
            rows.append(["", f"**{label(str(model))}**", "", *[""] * len(COLUMNS)])
        rows += classifier_rows(of_model)
        if len(prompts):
            rows += prompt_rows(prompts[(prompts["corpus"] == run.corpus) & (prompts["model"] == model)])
    rows += classifier_rows(results[results["tune"] == ""])
    for other in published(run.corpus, texts["test"]):
        cells = [f"*{other.scores[column]}*" if column in other.scores else "" for column in COLUMNS]
        rows.append(["", f"*{other.model}: {other.source}*", "", *cells])
    rows[0][0] = f"{label(run.corpus)} ({' / '.join(f'{n:,}' for n in texts.values())})"
    return rows


def classifier_rows(results: pd.DataFrame) -> Iterator[list[str]]:
    """Yield a row for each classifier, over its seeds."""
    for kind, of_kind in results.groupby(["model", "init", "tune"], sort=False):
        chosen = of_kind["chosen"].iloc[0]
        name = ": ".join(filter(None, [name_classifier(*map(str, kind)), chosen]))
        seeds = str(of_kind["seed"].nunique() or "")
        yield ["", name, seeds, *(score_cell(of_kind, column) for column in COLUMNS)]


def name_classifier(model: str, init: str, tune: str) -> str:
    """Return what the page calls a classifier."""
    return f"{label(start_of(model, init))}, {TUNED[tune]}" if tune else BASELINES[model]


def prompt_rows(prompts: pd.DataFrame) -> list[list[str]]:
    """Return the row of the prompt that is best on val, of those of one corpus and model; none where nothing was
    asked."""
    best = choose_prompt(prompts)
    if best.empty:
        return []
    f1, accuracy = (best.loc[metric].to_dict() for metric in ("macro_f1", "accuracy"))
    name = f"prompt, {describe_way(f1)}: {describe_prompt(f1)} ({f1['n']:,} test texts)"
    scores = {
        "val accuracy": f"{f1['val_accuracy']:.3f}",
        "test accuracy": with_limits(accuracy["value"], accuracy["ci_low"], accuracy["ci_high"]),
        "test macro-F1": with_limits(f1["value"], f1["ci_low"], f1["ci_high"]),
        "test ROC AUC": "" if math.isnan(f1["test_roc_auc"]) else f"{f1['test_roc_auc']:.3f}",
    }
    draws = f"{f1['draws']} draws" if f1["draws"] > 1 else ""
    return [["", name, draws, *(scores.get(column, "") for column in COLUMNS)]]


def compare_models_with_bag(corpus: str, results: pd.DataFrame) -> list[str]:
    """Return the sentence of `compare_with_bag` for each model. results: `tidy`, of this corpus."""
    models = results[results["tune"] != ""]["model"].unique()
    if len(models) == 1:
        return [compare_with_bag(corpus, results)]
    return [
        compare_with_bag(f"{corpus}, {model}", results[(results["model"] == model) | (results["tune"] == "")])
        for model in models
    ]


def compare_with_bag(name: str, results: pd.DataFrame) -> str:
    """Return a sentence that says what the bag of words beats by macro-F1 on test, and what beats it: where their
    intervals do not overlap, whatever the seed. results: `tidy`, of one corpus and model, which have this name."""
    scores = results[(results["split"] == "test") & (results["metric"] == "macro_f1")]
    bag = scores[scores["model"] == "bag_of_words"].iloc[0]
    verdicts: dict[str, list[str]] = {"better than": [], "worse than": [], "not told apart by these texts from": []}
    better, worse, neither = verdicts.values()
    for kind, of_seeds in scores[scores["tune"] != ""].groupby(["model", "init", "tune"], sort=False):
        below, above = of_seeds["ci_high"] < bag["ci_low"], of_seeds["ci_low"] > bag["ci_high"]
        verdict = better if below.all() else worse if above.all() else neither
        verdict.append(f"{TUNED[str(kind[2])]}{name_start(str(kind[1]))} ({of_seeds['value'].mean():.3f})")
    said = "; ".join(f"{verdict} {' or '.join(names)}" for verdict, names in verdicts.items() if names)
    score = with_limits(bag["value"], bag["ci_low"], bag["ci_high"])
    return f"{label(name)}: the best bag of words, {score}, is {said}"


def score_cell(results: pd.DataFrame, column: str) -> str:
    """Return the scores of one kind of run, or of a baseline, in a column."""
    split, metric = COLUMNS[column]
    rows = results[(results["split"] == split) & (results["metric"] == metric)]
    mean = rows["value"].mean()
    if math.isnan(mean):
        return ""
    if column not in IN_FULL:
        return f"{mean:.3f}"
    scores = [with_limits(*row) for row in zip(rows["value"], rows["ci_low"], rows["ci_high"], strict=True)]
    if rows["seed"].isna().all():
        return scores[0]
    seeds = [f"seed {seed}: {score}" for seed, score in zip(rows["seed"], scores, strict=True)]
    return "<br>".join([f"**{mean:.3f}**", *seeds])


def with_limits(value: float, low: float, high: float) -> str:
    return f"{value:.3f}" if math.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def list_without_label_words(runs: Sequence[MeasuredRun]) -> list[str]:
    """Return each corpus and model of which pretrained runs answer in no label words, in words."""
    there = {(run.corpus, run.model, run.kind) for run in runs}
    starts = distinct((run.corpus, run.model) for run in runs if run.init == "pretrained")
    return [f"{corpus}, {model}" for corpus, model in starts if (corpus, model, "words") not in there]


def settings_rows(runs: Sequence[MeasuredRun]) -> list[list[str]]:
    """Return the table of settings that follow from corpus, model, start and what is tuned, in the order of TUNED."""
    rows = {}
    for run in runs:
        rates = [f"{run.settings[name]:g}" for name in ("epochs", "lr", "dropout", "lm_weight")]
        key = run.corpus, run.model, run.kind, run.init
        rows[key] = [label(run.corpus), label(run.model), TUNED[run.kind], run.init, *rates]
    corpora, models = (distinct(getattr(run, name) for run in runs) for name in ("corpus", "model"))
    keys = product(corpora, models, TUNED, ("pretrained", "random"))
    return [rows[key] for key in keys if key in rows]
