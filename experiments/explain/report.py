"""What the tables say: the numbers that `report.md.jinja` shows.

The sentences stand in that file. This one computes what they say."""

import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from lab.removals import REMOVALS
from lab.report import render
from lab.stats import LEVEL
from lab.texts import OVERALL

from .attributions import TOLERANCE, Floats
from .choose import LONGEST, OF_USER, Explained
from .figures import name_method
from .judge import RANDOM_NETWORK
from .methods import METHODS
from .rationales import AOPC, KINDS, STEPS
from .words import MOST

TEMPLATE = Path(__file__).with_name("report.md.jinja")
EXAMPLES, TOP = 6, 3  # texts, and words of each
WORDS = 6  # of a class
HIDDEN = 10  # words of which the answer says what happens without them
SANITY = ("follows the network", "partly", "stays", "not judged")
CONSTANTS = {"tolerance": TOLERANCE, "level": LEVEL, "most": MOST, "steps": STEPS, "longest": LONGEST}  # of the page
Section = dict[str, Any]
Row = dict[Hashable, Any]  # of a table


def report(
    about: Sequence[str],
    texts: Sequence[Explained],
    attributions: pd.DataFrame,
    completeness: pd.DataFrame,
    faithfulness: pd.DataFrame,
    judged: pd.DataFrame,
    sanity: pd.DataFrame,
    words: pd.DataFrame,
    compared: pd.DataFrame,
    robustness: pd.DataFrame,
    shuffled: str,
) -> str:
    """Return the page as Markdown, the answer first.

    The tables are those of the files. shuffled: name of the run that was trained on shuffled labels, or empty."""
    best, labels = find_best(judged), list(attributions["class"].drop_duplicates())
    of_corpus = [text for text in texts if text.split != OF_USER]
    return render(
        TEMPLATE,
        about=about,
        counts=count_texts(texts),
        best=best,
        judged=summarise_judged(judged),
        cells=list_cells(faithfulness),
        by_class=list_cells(faithfulness[faithfulness["method"] == best], "class") if best else [],
        removals=REMOVALS,
        sanity=summarise_sanity(sanity),
        shuffled=shuffled,
        words=[summarise_words(words, row) for row in compared.to_dict("records")],
        robustness=robustness[robustness["class"] == OVERALL].to_dict("records"),
        falls=choose_fall(robustness),
        completeness=summarise_completeness(completeness[completeness["split"] != OF_USER]),
        baseline=summarise_baseline(of_corpus, labels),
        examples=list_examples(attributions, texts, labels, best) if best else [],
        **CONSTANTS,
        name_method=name_method,
    )


def count_texts(texts: Sequence[Explained]) -> Section:
    of_user = sum(text.split == OF_USER for text in texts)
    right = sum(text.label == text.predicted for text in texts if text.split != OF_USER)
    return {"test": len(texts) - of_user, "right": right, "of_user": of_user}


def find_best(judged: pd.DataFrame) -> str:
    """Return the best method, or nothing where none is better than random."""
    return "".join(judged["method"][judged["best"]])


def summarise_judged(judged: pd.DataFrame) -> Section:
    """Return all rows, the largest score first; the methods of each verdict, those that are tied, and the control."""
    rows = judged.sort_values("score", ascending=False, kind="stable")
    methods = rows[rows["method"] != RANDOM_NETWORK]
    by_verdict = {str(verdict): part["method"].tolist() for verdict, part in methods.groupby("verdict")}
    best = find_best(judged)
    tied = methods[methods["tied"].astype(bool) & (methods["method"] != best)]["method"].tolist()
    control = rows[rows["method"] == RANDOM_NETWORK].to_dict("records")
    first = rows[rows["method"] == best].to_dict("records")
    return {
        "rows": rows.to_dict("records"),
        "best": first[0] if first else None,
        "tied": tied,
        "unscored": methods["method"][methods["score"].isna()].tolist(),
        "none": by_verdict.get("no better", []),
        "not_judged": by_verdict.get("not judged", []),
        "control": control[0] if control else None,
        "rollout": rows[rows["method"] == "rollout"].to_dict("records")[0],
    }


def list_cells(faithfulness: pd.DataFrame, by: str = "method") -> list[Section]:
    """Return for each method, or each class of one method, `cells`: AOPC in log-odds minus random, by loss and removal.

    By method it is that of all texts."""
    rows = faithfulness[(faithfulness["size"] == AOPC) & faithfulness["metric"].str.endswith("_log_odds")]
    rows = rows[(rows["class"] == OVERALL) == (by == "method")]
    listed = []
    for name, part in rows.groupby(by, sort=False):
        by_cell = {(row["metric"], row["removal"]): row for row in part.to_dict("records")}
        cells = [by_cell[f"{kind}_log_odds", removal] for kind in KINDS for removal in REMOVALS]
        listed.append({"name": name, "n": cells[0]["n"], "cells": cells})
    if by == "method":
        order = {name: i for i, name in enumerate(METHODS)}
        listed.sort(key=lambda row: order.get(str(row["name"]), len(order)))
    return listed


def summarise_sanity(sanity: pd.DataFrame) -> Section | None:
    """Return a row per method with its signed similarities, and the methods of each verdict; None: nothing measured."""
    table = sanity[sanity["similarity"] == "spearman"]
    cascading = table[table["scheme"] == "cascading"]
    if cascading.empty:
        return None
    first, last = (
        cascading[cascading["step"] == step].set_index("method")
        for step in (cascading["step"].min(), cascading["step"].max())
    )
    labels = table[table["scheme"] == "labels"].set_index("method")
    rows = [
        {
            "method": method,
            "verdict": first.loc[method, "verdict"],
            "head": first.loc[method].to_dict(),
            "all": last.loc[method].to_dict(),
            "labels": labels.loc[method].to_dict() if method in labels.index else None,
        }
        for method in METHODS
        if method in first.index
    ]
    by_verdict = {verdict: [row["method"] for row in rows if row["verdict"] == verdict] for verdict in SANITY}
    return {"rows": rows, "by_verdict": by_verdict, "n": int(cascading["n"].iloc[0])}


def summarise_words(words: pd.DataFrame, compared: Row) -> Row:
    """Return what is known of the words of a class: `top`, those that surely speak for it, the largest value first."""
    rows = words[words["class"] == compared["class"]]
    sure = rows[rows["ci_low"] > 0].sort_values("value", ascending=False, kind="stable")
    lists = {name: json.loads(str(compared[name])) for name in ("other_sign", "no_weight")}
    return compared | {
        **lists,
        "top": sure.head(WORDS).to_dict("records"),
        "measured": len(rows),
        "unranked": bool(np.isnan(compared["spearman"])),
        "alike": compared["p_corrected"] < LEVEL and compared["spearman"] > 0,
    }


def choose_fall(robustness: pd.DataFrame) -> list[Row]:
    """Return one row per class, all texts first: that of HIDDEN words or, without it, of the next smaller number."""
    rows = robustness[robustness["k"] <= HIDDEN]
    rows = rows[rows["k"] == rows["k"].max()].drop_duplicates("class")
    return rows.sort_values("class", key=lambda label: label != OVERALL, kind="stable").to_dict("records")


def summarise_completeness(completeness: pd.DataFrame) -> list[Section]:
    """Return for each method how many of its texts add up for every class, and how far the worst is off."""
    rows = []
    for method, part in completeness.groupby("method", sort=False):
        worst = part.groupby(["split", "index"])["share"].max()
        nodes = part["nodes"].dropna()
        row = {"method": method, "n": len(worst), "within": int((worst <= TOLERANCE).sum()), "worst": worst.max()}
        rows.append(row | {"median_nodes": nodes.median(), "most_nodes": nodes.max()})
    return rows


def measure_baseline(texts: Sequence[Explained]) -> Floats:
    """Return the class probabilities of the baselines, (N, K): of texts of the same length made of mean embeddings.

    Their logits are those of the text minus the gap; the logarithms of its probabilities are its logits, up to a
    number that all classes share."""
    logs = [np.log(np.maximum(np.asarray(text.probabilities, dtype=float), 1e-38)) for text in texts]
    gaps = [text.explanation.sums["integrated_gradients"][0] for text in texts]
    return softmax(np.array(logs) - np.array(gaps), axis=1)


def summarise_baseline(texts: Sequence[Explained], labels: Sequence[str]) -> list[Section]:
    """Return for each class the mean, smallest and largest probability of the baseline."""
    p = measure_baseline(texts)
    return [
        {"class": label, "mean": column.mean(), "low": column.min(), "high": column.max()}
        for label, column in zip(labels, p.T, strict=True)
    ]


def list_examples(
    attributions: pd.DataFrame, texts: Sequence[Explained], labels: Sequence[str], method: str
) -> list[Section]:
    """Return the first texts with the words that this method calls most important for the predicted class."""
    rows = attributions[(attributions["method"] == method) & (attributions["word"] != "")]
    examples = []
    for text in texts[:EXAMPLES]:
        of_text = (rows["split"] == text.split) & (rows["index"] == text.index)
        part = rows[of_text & (rows["class"] == labels[text.predicted])]
        groups = part.groupby("group").agg(word=("word", "first"), value=("value", "sum"))
        top = groups[groups["value"] > 0].nlargest(TOP, "value")
        examples.append(
            {
                "text": text.parsed.text,
                "predicted": labels[text.predicted],
                "label": None if text.label is None else labels[text.label],
                "words": top.to_dict("records"),
            }
        )
    return examples
