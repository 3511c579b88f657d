"""What the networks of a paper say without a head: prompt.py is run, its scores are read, and others' stand beside."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lab.output import read_csv
from lab.report import label

from .plan import Run, run_script
from .results import OFFICIAL, title

PROMPT = Path(__file__).parents[2] / "prompt.py"
CHOSEN, SCORES = Path("prompt/chosen.csv"), Path("prompt/scores.csv")  # in the folder of a run: what prompt.py writes
TEXTS = 300  # of val and of test at most
WAYS = {  # of chosen.csv
    "direct": "no examples, no correction",
    "zero_shot": "no examples, corrected",
    "few_shot": "examples, corrected, mean over draws",
}
HEADER = ["corpus (test texts)", "model", "prompt", "chosen on val", "macro-F1", "over draws: sd, worst", "accuracy"]
ASKED = ["shots", "template", "verbalizer", "correction", "prior"]  # columns of both: a way to ask
MEANS = ["val_accuracy", "val_macro_f1", "test_roc_auc"]
TEXT = ("way", "template", "verbalizer", "correction", "prior", "metric")  # columns of chosen.csv; others: numbers
SCORES_TEXT = ("model", *TEXT[1:5], "draw", "order", "last_class", "split")  # of scores.csv


@dataclass(frozen=True)
class PublishedPrompt:
    """An accuracy of prompting that others report, in percent as they write it. Examples: of all classes together."""

    corpus: str  # its title
    network: str
    prompt: str
    accuracy: str
    source: str


IDAICL = "Zhou et al. 2024, IDAICL, table"
NOTEBOOK = "Hands-On Large Language Models, notebook of chapter 4"
PUBLISHED = (
    PublishedPrompt("rotten_tomatoes", "GPT-2 124M", "4 examples, mean (sd) of 5 seeds", "55.4 (7.4)", f"{IDAICL} 8"),
    PublishedPrompt("rotten_tomatoes", "GPT-2 124M", "8 examples, mean (sd) of 5 seeds", "57.5 (9.7)", f"{IDAICL} 8"),
    PublishedPrompt("rotten_tomatoes", "GPT-2 124M", "12 examples, mean (sd) of 5 seeds", "59.3 (5.6)", f"{IDAICL} 8"),
    PublishedPrompt("rotten_tomatoes", "GPT-2 124M", "16 examples, mean (sd) of 5 seeds", "59.9 (6.6)", f"{IDAICL} 8"),
    PublishedPrompt("rotten_tomatoes", "GPT-2 355M", "4, 8, 12, 16 examples", "50.5, 52.4, 55.2, 57.6", f"{IDAICL} 8"),
    PublishedPrompt("rotten_tomatoes", "GPT-2 774M", "0, 1, 4 examples", "58.9, 54.3, 59.3", f"{IDAICL} 3"),
    PublishedPrompt("rotten_tomatoes", "GPT-2 1.5B", "8 examples", "64.9", f"{IDAICL} 9"),
    PublishedPrompt("rotten_tomatoes", "GPT-2 1.5B", "8 examples, contextual calibration", "74.5", f"{IDAICL} 9"),
    PublishedPrompt("rotten_tomatoes", "GPT-2 1.5B", "8 examples, domain-context calibration", "80.9", f"{IDAICL} 9"),
    PublishedPrompt("rotten_tomatoes", "GPT-Neo 2.7B", "8 examples", "70.6", f"{IDAICL} 9"),
    PublishedPrompt("rotten_tomatoes", "GPT-Neo 2.7B", "8 examples, contextual calibration", "78.2", f"{IDAICL} 9"),
    PublishedPrompt("rotten_tomatoes", "GPT-Neo 2.7B", "8 examples, domain-context calibration", "84.6", f"{IDAICL} 9"),
    PublishedPrompt("rotten_tomatoes", "Flan-T5-small", "no examples", "84", NOTEBOOK),
    PublishedPrompt("rotten_tomatoes", "ChatGPT 3.5", "no examples", "91", NOTEBOOK),
)


def list_asked(planned: Sequence[Run]) -> list[Run]:
    """Return the run of each corpus and model whose start is asked without a head: that of seed 0 with all weights
    tuned. All of a model that are pretrained start from the same weights."""
    first = [run for run in planned if run.settings.init == "pretrained" and run.settings.seed == 0]
    return [run for run in first if run.kind == "all"]


def ask(run: Run) -> None:
    """Ask the network that a run starts from by prompt.py, in another process, unless that is done.

    prompt.py takes up what an earlier call has computed. Raises as `run_script`."""
    if not is_asked(run):
        settings = run.settings
        options = {"run": run.folder.name, "model": settings.model, "texts": str(TEXTS)}
        options |= {"device": settings.device, "precision": settings.precision}
        run_script(PROMPT, [word for name, value in options.items() for word in (f"--{name}", value)], run.folder)


def is_asked(run: Run) -> bool:
    """Return whether the last call of prompt.py, anybody's, was about the network that a run starts from, and about as
    many texts as `ask` wants."""
    if not all((run.folder / table).is_file() for table in (CHOSEN, SCORES)):
        return False
    scores = read_csv(run.folder / SCORES, SCORES_TEXT)
    wanted = {(run.settings.model, split, min(TEXTS, len(run.corpus.split(split)))) for split in ("val", "test")}
    return {*scores[["model", "split", "n"]].itertuples(index=False, name=None)} == wanted


def read_prompts(asked: Sequence[Run]) -> pd.DataFrame:
    """Return what prompt.py chose for each of these runs, after columns `corpus, model`; no rows where none was asked.

    Behind it `val_accuracy, val_macro_f1, test_roc_auc`, means over the draws; none of ensembles and references."""
    tables = []
    for run in asked:
        chosen = read_csv(run.folder / CHOSEN, TEXT).astype({"shots": "Int64"})
        chosen = chosen.assign(corpus=run.corpus.name, model=run.settings.model)
        chosen = chosen.merge(average_scores(run), "left", on=ASKED)
        chosen.loc[~chosen["way"].isin(WAYS), MEANS] = math.nan  # an ensemble of draws is asked like its members
        tables.append(chosen)
    key = ["corpus", "model"]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=key)
    return table[[*key, *table.columns.drop(key)]]


def average_scores(run: Run) -> pd.DataFrame:
    """Return the MEANS of each way to ask, after the columns of ASKED: over its random draws where it has examples."""
    scores = read_csv(run.folder / SCORES, SCORES_TEXT)
    drawn_or_none = scores["draw"].str.isdigit() | (scores["draw"] == "")  # others: ensembles, orders of one draw
    means = scores[drawn_or_none].groupby([*ASKED, "split"])[["accuracy", "macro_f1", "auc"]].mean().unstack("split")
    columns = [means["accuracy", "val"], means["macro_f1", "val"], means["auc", "test"]]
    return pd.concat(columns, axis=1, keys=MEANS).reset_index()


def choose_prompt(prompts: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the way to ask that is best on val by macro-F1, of those of one corpus and model, by metric;
    none where nothing was asked."""
    asked = prompts[prompts["val_macro_f1"].notna()]
    best = asked[asked["val_macro_f1"] == asked["val_macro_f1"].max()].head(1)  # the first of equals
    return asked.merge(best[["way", "shots"]]).set_index("metric")


def list_prompts(prompts: pd.DataFrame) -> Iterator[list[str]]:
    """Yield the rows of the table of prompts, by HEADER, corpus by corpus, and there model by model."""
    f1, accuracy = (prompts[prompts["metric"] == metric] for metric in ("macro_f1", "accuracy"))
    both = f1.merge(accuracy, on=["corpus", "model", "way", "shots"], suffixes=("", "_accuracy"))
    for (corpus, model), rows in both[both["way"].isin(WAYS)].groupby(["corpus", "model"], sort=False):
        for i, row in enumerate(rows.to_dict("records")):
            yield [
                "" if i else f"{label(str(corpus))} ({row['n']:,})",
                "" if i else label(str(model)),
                describe_way(row),
                describe_prompt(row),
                f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]",
                f"{row['sd']:.3f}, {row['worst']:.3f}" if row["draws"] > 1 else "",
                f"{row['value_accuracy']:.3f} [{row['ci_low_accuracy']:.3f}, {row['ci_high_accuracy']:.3f}]",
            ]


def describe_way(row: Mapping[Any, Any]) -> str:
    shots = f"{row['shots']:.0f} of each class: " if row["shots"] else ""
    return shots + WAYS[row["way"]]


def describe_prompt(row: Mapping[Any, Any]) -> str:
    correction = row["correction"].replace("_", " ")
    return f"{label(row['template'])}, {row['verbalizer']}, {correction}, {row['prior']} prior"


def list_published(corpora: Sequence[tuple[str, int]]) -> list[list[str]]:
    """Return what others published on these corpora, by name and number of test texts, where they are the official."""
    official = {title(corpus) for corpus, n in corpora if OFFICIAL.get(title(corpus)) == n}
    return [
        [label(each.corpus), each.network, each.prompt, f"*{each.accuracy}*", each.source]
        for each in PUBLISHED
        if each.corpus in official
    ]
