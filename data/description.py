"""What a corpus holds and what is odd about it: as numbers, and for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from .corpus import Corpus
from .splits import SPLITS


def describe(corpus: Corpus, lengths: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Counts, lengths and label noise of a corpus, ready for JSON.

    `lengths` gives the number of tokens of each text, per split and in its order. Every `count` but those of
    classes counts different texts; `duplicates` are those that stand more than once in a split. `examples` holds up
    to 5 of them, each as a list of up to 5 places, file:line. `relabelled` of those in two splits bear two labels.
    """
    by_text = _by_text(corpus.examples)
    shared, relabelled = by_text["splits"] > 1, by_text["labels"] > 1
    return {
        "splits": {split: _describe_split(corpus, split, lengths[split]) for split in SPLITS},
        "in_two_splits": _noted(by_text[shared]) | {"relabelled": int((shared & relabelled).sum())},
        "under_two_labels": _noted(by_text[relabelled]),
    }


def _describe_split(corpus: Corpus, split: str, lengths: Sequence[int]) -> dict[str, Any]:
    examples = corpus.split(split)
    tokens = pd.Series(lengths, index=examples.index)  # raises where there is not one length per text
    by_text = _by_text(examples)
    return {
        "texts": len(examples),
        "classes": examples["label"].value_counts().reindex(corpus.labels, fill_value=0).to_dict(),
        "tokens": {
            "mean": round(float(tokens.mean()), 1),
            "median": float(tokens.median()),
            "p95": round(float(tokens.quantile(0.95)), 1),
            "max": int(tokens.max()),
        },
        "duplicates": _noted(by_text[by_text["copies"] > 1]),
    }


def _by_text(examples: pd.DataFrame) -> pd.DataFrame:
    place = examples["file"] + ":" + examples["line"].astype(str)
    return (
        examples.assign(place=place)
        .groupby("text", sort=False)
        .agg(copies=("place", "size"), splits=("split", "nunique"), labels=("label", "nunique"), places=("place", list))
    )


def _noted(texts: pd.DataFrame) -> dict[str, Any]:
    return {"count": len(texts), "examples": [places[:5] for places in texts["places"].head(5)]}


def report(description: dict[str, Any]) -> Group:
    """What `describe` found, as a table and two findings, to be printed by rich."""
    splits = description["splits"]
    table = Table("", *splits, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    rows = {"texts": [part["texts"] for part in splits.values()]}
    for label in splits["train"]["classes"]:
        rows[f"  {label}"] = [part["classes"][label] for part in splits.values()]
    for measure in ("mean", "median", "p95", "max"):
        rows[f"tokens, {measure}"] = [part["tokens"][measure] for part in splits.values()]
    rows["duplicates"] = [part["duplicates"]["count"] for part in splits.values()]
    for name, numbers in rows.items():
        table.add_row(Text(name), *(f"{number:,}" for number in numbers))  # Text: a label may look like markup
    shared, conflicts = description["in_two_splits"], description["under_two_labels"]
    return Group(
        table,
        Text(f"{shared['count']} texts in two splits, {shared['relabelled']} of them relabelled{_places(shared)}"),
        Text(f"{conflicts['count']} texts under two labels{_places(conflicts)}"),
    )


def _places(noted: dict[str, Any]) -> str:
    return "".join(f"\n  {' = '.join(places)}" for places in noted["examples"])
