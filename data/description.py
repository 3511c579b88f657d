"""What a corpus holds and what is odd about it: as numbers, and as text for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from rich.text import Text

from .corpus import Corpus
from .splits import SPLITS


def describe_corpus(corpus: Corpus, lengths: Mapping[str, Sequence[int] | NDArray[np.integer]]) -> dict[str, Any]:
    """Return the counts, lengths and label noise of a corpus, ready for JSON.

    `lengths` has the number of tokens of each text, by split and in its order. Each `count` is of distinct texts;
    `duplicates` are texts that come more than once in a split. `examples` lists the places, file:line, of up to 5
    texts, up to 5 each. `relabelled`: how many of the texts in two splits have two labels.
    """
    by_text = _group_by_text(corpus.examples)
    shared, relabelled = by_text["splits"] > 1, by_text["labels"] > 1
    return {
        "splits": {split: _describe_split(corpus, split, lengths[split]) for split in SPLITS},
        "in_two_splits": _count_and_show(by_text[shared]) | {"relabelled": int((shared & relabelled).sum())},
        "under_two_labels": _count_and_show(by_text[relabelled]),
    }


def _describe_split(corpus: Corpus, split: str, lengths: Sequence[int] | NDArray[np.integer]) -> dict[str, Any]:
    examples = corpus.split(split)
    tokens = pd.Series(lengths, index=examples.index)  # raises unless there is one length per text
    return {
        "texts": len(examples),
        "classes": examples["label"].value_counts().reindex(corpus.labels, fill_value=0).to_dict(),
        "tokens": {
            "mean": round(float(tokens.mean()), 1),
            "median": float(tokens.median()),
            "p95": round(float(tokens.quantile(0.95)), 1),
            "max": int(tokens.max()),
        },
        "duplicates": _count_and_show(_group_by_text(examples)),
    }


def _group_by_text(examples: pd.DataFrame) -> pd.DataFrame:
    """Return one row per text that comes more than once: `copies, splits, labels` are numbers, `places` a list of
    file:line."""
    repeated = examples[pd.Series(pd.factorize(examples["text"])[0], examples.index).duplicated(keep=False)]
    place = repeated["file"] + ":" + repeated["line"].astype(str)
    return (
        repeated.assign(place=place)
        .groupby("text", sort=False)
        .agg(copies=("place", "size"), splits=("split", "nunique"), labels=("label", "nunique"), places=("place", list))
    )


def _count_and_show(texts: pd.DataFrame) -> dict[str, Any]:
    return {"count": len(texts), "examples": [places[:5] for places in texts["places"].head(5)]}


def render_description(description: dict[str, Any]) -> Group:
    """Render the result of `describe_corpus` for rich: a table and two sentences."""
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
    relabelled = f"{shared['relabelled']} of them relabelled"
    return Group(
        table,
        Text(f"{shared['count']} texts in two splits, {relabelled}{_render_places(shared)}"),
        Text(f"{conflicts['count']} texts under two labels{_render_places(conflicts)}"),
    )


def _render_places(texts: dict[str, Any]) -> str:
    return "".join(f"\n  {' = '.join(places)}" for places in texts["examples"])
