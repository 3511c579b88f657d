"""Training runs side by side as a page of Markdown: what was run, their scores, and their differences."""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from model.config import PRESETS

from .results import COMPARED, TUNED, Measured, Pair, pairs, published, start_of

COLUMNS = {  # of the Markdown table
    "val accuracy": ("val", "accuracy"),
    "test accuracy": ("test", "accuracy"),
    "test macro-F1": ("test", "macro_f1"),
    "train ROC AUC": ("train", "macro_roc_auc"),
    "test ROC AUC": ("test", "macro_roc_auc"),
}
IN_FULL = ("test accuracy", "test macro-F1")  # each seed with its interval; of the others the mean alone
LEGEND = """\
Each run keeps the epoch of best validation macro-F1. Bold: the mean over the seeds; in brackets: the 95 % bootstrap
interval over the texts. ROC AUC: one class against the rest, mean over the classes. Columns without intervals hold
the mean over the seeds. In italics: numbers that others published, not measured here."""
ABOUT_DIFFERENCES = """\
Means over the seeds; in brackets the 95 % bootstrap interval over the texts, paired: it says how far other texts would
move the difference of these runs, and nothing of other seeds. The last column shows how much those matter."""


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
    lines = [*_provenance(runs, command), "", LEGEND, *_undefined(runs), "", *_lines(table), "", *section]
    return "\n".join(lines)


def _undefined(runs: Sequence[Measured]) -> list[str]:
    """A line for each corpus and split that has no text of some class."""
    lines = []
    for name, run in {run.corpus: run for run in runs}.items():
        for split in ("val", "test"):
            missing = [label for label, scores in run.metrics[split]["per_class"].items() if not scores["n"]]
            if missing:
                labels = ", ".join(missing)
                lines.append(f"- {name}: {split} has no text of {labels}; means over the classes leave that out")
    return ["", *lines] if lines else []


def _section(runs: Sequence[Measured], compared: pd.DataFrame) -> list[str]:
    """The lines about the `differences` of these runs."""
    matched = pairs(runs)
    header = ["corpus (test texts)", "what is tuned", "metric", "pretrained", "random", "difference", "each seed's"]
    table = [header, ["---"] * len(header)]
    for row in compared.itertuples():
        corpus, tune, metric = str(row.corpus), str(row.tune), str(row.metric)
        seeds = []
        for pretrained, random in matched[corpus, tune]:
            difference = pretrained.metrics["test"][metric] - random.metrics["test"][metric]
            seeds.append(f"seed {pretrained.record['settings']['seed']}: {difference:+z.3f}")
        scores = [f"{row.pretrained:.3f}", f"{row.random:.3f}"]
        scores += [f"**{row.difference:+z.3f}** [{row.ci_low:+z.3f}, {row.ci_high:+z.3f}]", "<br>".join(seeds)]
        table.append([f"{corpus} ({row.n:,})", TUNED[tune], COMPARED[metric], *scores])
    title = "## Pretrained minus random weights, the same texts and seeds"
    return [title, "", _unlike(matched), "", ABOUT_DIFFERENCES, "", *_lines(table), ""]


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
