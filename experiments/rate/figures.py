"""agreement.png: do people predict better, which method do they choose, whose words do they mark?"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.figures import COLOURS, GREY, STYLE, add_heading, save_twice
from lab.texts import OVERALL

from .items import RANDOM

BEFORE, AFTER = GREY, COLOURS[0]
ROW = 0.34  # inches


@STYLE
def draw_agreement(table: pd.DataFrame, folder: Path, title: str) -> None:
    """Draw agreement.csv as PNG and SVG: a panel each for predictions, choices and marks."""
    marks = table[(table["task"] == "marks") & (table["class"] == OVERALL) & (table["measure"] == "token_f1")]
    classes = table[table["measure"].isin(["accuracy", "preferred"])]["class"].nunique()
    height = max(2 * classes, len(marks)) * ROW + 2
    figure = Figure(figsize=(15, height), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    draw_accuracy(left, table[table["measure"] == "accuracy"])
    draw_choices(middle, table[table["measure"] == "preferred"])
    draw_marks(right, marks)
    caption = "Lines: 95 % limits. A class of few texts has no line."
    add_heading(figure, title, caption)
    save_twice(figure, folder, "agreement")


def draw_accuracy(axes: Axes, rows: pd.DataFrame) -> None:
    for task, colour, shift in (("before", BEFORE, -0.16), ("after", AFTER, 0.16)):
        of_task = rows[rows["task"] == task]
        draw_limits(axes, of_task, of_task["class"], colour, shift, f"{task} explanations were read")
    if len(rows):
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1)
    axes.set_xlabel("share of predictions that are the network's")


def draw_choices(axes: Axes, rows: pd.DataFrame) -> None:
    for i, (method, of_method) in enumerate(rows.groupby("method", sort=False)):
        draw_limits(axes, of_method, of_method["class"], COLOURS[i % len(COLOURS)], 0.2 * i, str(method))
    axes.axvline(0.5, color=GREY, linestyle="--")
    if len(rows):
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1)
    axes.set_xlabel("share of choices for the first method; dashed: either as often")


def draw_marks(axes: Axes, rows: pd.DataFrame) -> None:
    random = rows[rows["method"] == RANDOM]["value"]
    methods = rows[rows["method"] != RANDOM]
    draw_limits(axes, methods, methods["method"].str.replace("_", " "), COLOURS[2], 0, "")
    for value in random:
        axes.axvline(value, color=GREY, linestyle="--")
    axes.set_xlabel("share of the marked words that a method\nranks first (token F1); dashed: random words")


def draw_limits(axes: Axes, rows: pd.DataFrame, names: pd.Series, colour: str, shift: float, label: str) -> None:
    """Draw values with their limits, the first row on top."""
    y = np.arange(len(rows)) + shift
    axes.scatter(rows["value"], y, color=colour, s=34, zorder=3, label=label)
    axes.hlines(y, rows["ci_low"], rows["ci_high"], color=colour)
    if len(rows):
        axes.set_yticks(np.arange(len(rows)), ["all texts" if name == OVERALL else name for name in names])
        axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
