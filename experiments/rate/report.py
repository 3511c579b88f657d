"""What the raters' answers say: the numbers that `report.md.jinja` shows. The sentences stand in that file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lab.report import render
from lab.texts import OVERALL

from .items import RANDOM
from .tables import MARKS

TEMPLATE = Path(__file__).with_name("report.md.jinja")


def report(about: Sequence[str], table: pd.DataFrame, simulated: bool) -> str:
    """Return the page as Markdown, the answer first. table: agreement.csv."""
    overall = table[table["class"] == OVERALL]
    marks = overall[(overall["task"] == "marks") & (overall["method"] != "")]
    better = marks[marks["measure"] == "token_f1_minus_random"].sort_values("value", ascending=False, kind="stable")
    return render(
        TEMPLATE,
        about=about,
        simulated=simulated,
        before=pick(overall, "before", "paired_accuracy"),
        after=pick(overall, "after", "paired_accuracy"),
        effect=pick(overall, "after", "effect"),
        classes=list_classes(table),
        choices=[
            {name: pick(rows, "choices", name) for name in ("preferred", "detectable_share", "self_agreement")}
            for _, rows in overall[overall["task"] == "choices"].groupby("method", sort=False)
        ],
        better=better.to_dict("records"),
        marks=list_marks(marks),
        agreement=list_agreement(overall),
    )


def pick(table: pd.DataFrame, task: str, measure: str) -> dict[Any, Any] | None:
    """Return the first row of a task and measure, or None."""
    rows = table[(table["task"] == task) & (table["measure"] == measure)]
    return rows.iloc[0].to_dict() if len(rows) else None


def list_classes(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return for each class what was predicted of it before and after."""
    return [
        {
            "class": label,
            "before": pick(rows, "before", "accuracy"),
            "after": pick(rows, "after", "accuracy"),
            "effect": pick(rows, "after", "effect"),
        }
        for label, rows in table[table["task"].isin(["before", "after"])].groupby("class", sort=False)
    ]


def list_marks(marks: pd.DataFrame) -> list[dict[str, Any]]:
    """Return for each method how well it ranks the marked words; random comes last."""
    rows = []
    for method, of_method in marks.groupby("method", sort=False):
        rows.append({"method": method} | {name: pick(of_method, "marks", name) for name in MARKS})
    return sorted(rows, key=lambda row: row["method"] == RANDOM)


def list_agreement(overall: pd.DataFrame) -> list[dict[str, Any]]:
    """Return for each task, and for choices each comparison, how far raters agree."""
    rows = []
    for (task, method), alike in overall.groupby(["task", "method"], sort=False):
        names = ("alpha_nominal", "percent_agreement", "kappa", "alpha_ordinal")
        measures = {name: pick(alike, str(task), name) for name in names}
        if measures["alpha_nominal"]:
            rows.append({"task": task, "method": method} | measures)
    return rows
