"""Pictures of what prompts answer, as PNG and as SVG.

`title` names the run and its texts; each function adds what is shown, so that each picture can be understood alone. All
scores are those of test."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill as wrapped
from typing import get_args

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lab.figures import (
    CELL,
    COLOURS,
    GREY,
    NUMBER,
    SIGNED,
    STYLE,
    UNSIGNED,
    add_heading,
    draw_heat_map,
    draw_scale,
    find_colour_limit,
    panel_title,
    pivot_heads,
    save_twice,
)
from lab.texts import OVERALL

from .heads import CLASSIFIER as CLASSIFIER_HEADS
from .judge import BAG, CLASSIFIER, MAJORITY, ZERO_SHOT
from .priors import Correction
from .scoring import ALL, NEAREST, ORDERED
from .tables import list_orders, list_shots

WIDTH = 10.5  # inches of a picture, so that it can be read at 1,000 pixels
CORRECTIONS: tuple[str, ...] = get_args(Correction)
REFERENCES = {  # by the way of the table: its name, colour and line
    MAJORITY: ("most frequent class", "#000000", ":"),
    BAG: ("bag of words", COLOURS[3], "--"),
    CLASSIFIER: ("fine-tuned run", COLOURS[2], "-."),
}
PROBE, TUNED = "probe", "fine_tuned"  # methods of the curve
MOST_CLASSES = 6  # whose heads have panels, beside those of all classes
HATCHES = ("", "///", "...")  # of classes beyond the seventh
NO_SHOTS = 0.4  # where an axis of logarithms shows none


def draw(
    folder: Path,
    title: str,
    labels: Sequence[str],
    scores: pd.DataFrame,
    chosen: pd.DataFrame,
    predictions: pd.DataFrame,
    curve: pd.DataFrame,
    effects: pd.DataFrame,
    correlations: pd.DataFrame,
) -> None:
    """Draw every table of which there are rows: corrections, shares, curve, confusion, orders, heads."""
    test = scores[scores["split"] == "test"]
    draw_corrections(test, chosen, curve, folder, title)
    draw_shares(test, chosen, predictions, labels, folder, title)
    draw_confusion(predictions, labels, folder, title)
    if len(curve) or list_shots(test):
        draw_curve(test, chosen, curve, folder, title)
    if len(list_orders(test)):
        draw_orders(test, labels, folder, title)
    if len(effects):
        draw_heads(effects, correlations, folder, title)


def name(word: str) -> str:
    return word.replace("_", " ")


def select_main(test: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the uniform prior and of all words together; where a class has one word, or for the channel,
    those of the first words."""
    uniform = test[test["prior"] == "uniform"]
    has_all = "all words" in set(uniform["verbalizer"])
    first = uniform["verbalizer"] == "first word"
    return uniform[~first | (uniform["correction"] == "channel")] if has_all else uniform


def read_references(chosen: pd.DataFrame, curve: pd.DataFrame) -> dict[str, tuple[float, str, str]]:
    """Return macro-F1, colour and line by the name of what reads no prompt; the probe is that of most texts."""
    rows = chosen[chosen["metric"] == "macro_f1"].set_index("way")["value"]
    references = {shown: (rows[way], colour, line) for way, (shown, colour, line) in REFERENCES.items() if way in rows}
    if len(curve):
        most = curve[curve["method"] == PROBE].sort_values("n_train").iloc[-1]
        references["probe on all of train"] = most["macro_f1"], COLOURS[1], "--"
    return references


@STYLE
def draw_corrections(test: pd.DataFrame, chosen: pd.DataFrame, curve: pd.DataFrame, folder: Path, title: str) -> None:
    """Draw macro-F1 by correction, a dot per template or draw, a panel for each number of shots."""
    main = select_main(test)
    panels = {0: "no examples"} | {shots: f"{shots} of each class" for shots in list_shots(test)}
    corrections = [each for each in CORRECTIONS if each in set(main["correction"])]
    figure = Figure(figsize=(WIDTH, 0.42 * len(corrections) + 2.9), layout="constrained")
    grid = list(figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False).flat)
    for axes, (shots, about) in zip(grid, panels.items(), strict=True):
        rows = main[(main["shots"] == shots) & (main["draw"] != ORDERED)]
        together, nearest = (rows["template"] == ALL) | (rows["draw"] == ALL), rows["draw"] == NEAREST
        marks = {"one prompt": ("o", 5, COLOURS[0], rows[~together & ~nearest])}
        marks |= {"nearest examples": ("^", 6, COLOURS[5], rows[nearest])}
        marks |= {"all of them together": ("D", 6, COLOURS[4], rows[together])}
        for shown, (mark, size, colour, of_mark) in marks.items():
            if len(of_mark):
                y = np.array([corrections.index(each) for each in of_mark["correction"]])
                y = y + 0.18 * (of_mark.groupby("correction").cumcount().to_numpy() % 3 - 1) * (mark != "D")
                axes.plot(of_mark["macro_f1"], y, mark, color=colour, alpha=0.7, markersize=size, label=shown)
        for shown, (value, colour, line) in read_references(chosen, curve).items():
            axes.axvline(value, color=colour, linestyle=line, linewidth=1.5, label=shown)
        axes.set_title(panel_title(about, len(panels)), fontsize=11)
        axes.set_xlim(0, 1)
        axes.set_xlabel("macro-F1")
        axes.grid(axis="y", visible=False)
    grid[0].set_yticks(range(len(corrections)), [name(each) for each in corrections])
    grid[0].set_ylim(len(corrections) - 0.5, -0.5)
    add_legend(figure, grid)
    caption = (
        "A dot for each template without examples, else for each draw of examples. These are all that were asked, not "
        "those that val chose. Batch transductive sees the test texts, without their labels."
    )
    add_heading(figure, f"{title}\nmacro-F1 on test by label-prior correction", caption)
    save_twice(figure, folder, "corrections")


def add_legend(figure: Figure, grid: Sequence[Axes]) -> None:
    """Add one legend of everything that any of the panels shows, beside them."""
    marks = {text: mark for axes in grid for mark, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    names = [wrapped(text, 16) for text in marks]
    figure.legend(list(marks.values()), names, loc="outside right center", fontsize=10, handlelength=1.8)


def colour_classes(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return a colour and a hatch for each class."""
    return {label: (COLOURS[k % 7], HATCHES[k // 7 % len(HATCHES)]) for k, label in enumerate(labels)}


@STYLE
def draw_shares(
    test: pd.DataFrame,
    chosen: pd.DataFrame,
    predictions: pd.DataFrame,
    labels: Sequence[str],
    folder: Path,
    title: str,
) -> None:
    """Draw how often each class is predicted under each correction of the prompt that val chose, beside the truth."""
    way = chosen[chosen["way"] == ZERO_SHOT].iloc[0]
    rows = test[(test["shots"] == 0) & (test["template"] == way["template"])]
    rows = rows[(rows["verbalizer"] == way["verbalizer"]) | (rows["correction"] == "channel")]
    true = predictions[predictions["split"] == "test"]["label"].value_counts(normalize=True)
    bars = {"true": [true.get(label, 0.0) for label in labels]}
    for correction in CORRECTIONS:
        for row in rows[rows["correction"] == correction].to_dict("records"):
            if row["prior"] == "train" and correction != way["correction"]:
                continue
            prior = "\nwith the prior of train" if row["prior"] == "train" else ""
            bars[name(correction) + prior] = [row[f"predicted_share_{label}"] for label in labels]
    figure = Figure(figsize=(WIDTH, 0.4 * len(bars) + 2), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(bars))
    for label, (colour, hatch) in colour_classes(labels).items():
        width = np.array([each[list(labels).index(label)] for each in bars.values()])
        axes.barh(range(len(bars)), width, left=left, color=colour, hatch=hatch, edgecolor="white", label=label)
        left += width
    axes.axhline(0.5, color="black", linewidth=1)
    axes.set_yticks(range(len(bars)), list(bars))
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.grid(axis="y", visible=False)
    add_legend(figure, [axes])
    axes.set_xlabel("share of the test texts")
    caption = "A correction pulls towards equal shares, whether or not it reads the texts."
    add_heading(figure, f"{title}\nclasses predicted without examples, template {way['template']}", caption)
    save_twice(figure, folder, "shares")


@STYLE
def draw_confusion(predictions: pd.DataFrame, labels: Sequence[str], folder: Path, title: str) -> None:
    """Draw which classes the chosen prompt takes for which, as it answers and corrected."""
    rows = predictions[predictions["split"] == "test"]
    maps = {
        shown: pd.crosstab(rows["label"], rows[column], normalize="index").reindex(
            index=list(labels), columns=list(labels), fill_value=0.0
        )
        for shown, column in (("as the network answers", "direct"), ("as val chose", "predicted"))
    }
    cell = min(CELL, (WIDTH / 2 - 2) / len(labels))
    figure = Figure(figsize=(WIDTH, cell * len(labels) + 3.2), layout="constrained")
    grid = list(figure.subplots(1, 2, sharey=True))
    for axes, (shown, values) in zip(grid, maps.items(), strict=True):
        draw_heat_map(axes, values, UNSIGNED, 1.0, cell)
        axes.set_title(shown)
        axes.set_xticks(axes.get_xticks(), [text.get_text() for text in axes.get_xticklabels()], rotation=90)
        axes.set_xlabel("predicted")
    grid[0].set_ylabel("true class")
    draw_scale(figure, grid, "share of the texts of the class")
    caption = "Without examples. A column that is dark from top to bottom is a class that is named whatever the text."
    add_heading(figure, f"{title}\nconfusion of the prompt that val chose", caption)
    save_twice(figure, folder, "confusion")


@STYLE
def draw_curve(test: pd.DataFrame, chosen: pd.DataFrame, curve: pd.DataFrame, folder: Path, title: str) -> None:
    """Draw macro-F1 by the number of examples per class: in a prompt, and to learn from without one."""
    figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    axes = figure.subplots()
    main = select_main(test)
    draws = main[main["draw"].str.isdigit()]
    of_template = main[main["template"].isin(draws["template"])] if len(draws) else main
    zero = of_template[(of_template["shots"] == 0) & (of_template["draw"] == "")]
    prompts = pd.concat([zero, draws[draws["shots"].isin(list_shots(test))]])
    lines = {
        "prompt, direct": (prompts[prompts["correction"] == "direct"], COLOURS[5], "o:"),
        "prompt, batch correction": (prompts[prompts["correction"] == "batch"], COLOURS[0], "o-"),
    }
    if len(curve):
        lines |= {
            "probe of the frozen network": (curve[curve["method"] == PROBE], COLOURS[1], "s-"),
            "fine-tuned on these texts": (curve[curve["method"] == TUNED], COLOURS[2], "^-"),
        }
    for shown, (rows, colour, line) in lines.items():
        by_shots = rows.groupby("shots")["macro_f1"].agg(["mean", "min", "max"])
        x = np.maximum(by_shots.index.to_numpy(float), NO_SHOTS)
        axes.plot(x, by_shots["mean"], line, color=colour, label=shown)
        axes.fill_between(x, by_shots["min"], by_shots["max"], color=colour, alpha=0.18, linewidth=0)
    for shown, (value, colour, line) in read_references(chosen, curve.iloc[:0]).items():
        axes.axhline(value, color=colour, linestyle=line, linewidth=1.3, label=f"{shown}, all of train")
    ticks = sorted({float(shots) for rows, *_ in lines.values() for shots in rows["shots"]})
    axes.set_xscale("log")
    axes.set_xticks([max(shots, NO_SHOTS) for shots in ticks], [f"{shots:,.0f}" for shots in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, 1)
    axes.set(xlabel="examples of each class", ylabel="macro-F1 on test")
    add_legend(figure, [axes])
    caption = "Bands: from the worst to the best draw. At 0 and in prompts: the template that val chose."
    add_heading(figure, f"{title}\nwhat labelled examples give, in a prompt and without one", caption)
    save_twice(figure, folder, "curve")


@STYLE
def draw_orders(test: pd.DataFrame, labels: Sequence[str], folder: Path, title: str) -> None:
    """Draw macro-F1 of all orders of the same examples, from the worst to the best without a correction."""
    rows = list_orders(select_main(test))
    shots, template = rows[["shots", "template"]].iloc[0]
    order = rows[rows["correction"] == "direct"].sort_values("macro_f1", kind="stable")["order"].tolist()
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    grid = list(figure.subplots(1, 2, sharey=True))
    for axes, correction in zip(grid, ("direct", "batch"), strict=True):
        table = rows[rows["correction"] == correction].drop_duplicates("order").set_index("order").loc[order]
        x = np.arange(len(table))
        axes.vlines(x, table["ci_low"], table["ci_high"], color=GREY, linewidth=1)
        for label, (colour, _) in colour_classes(labels).items():
            last = (table["last_class"] == label).to_numpy()
            axes.scatter(x[last], table["macro_f1"][last], s=42, color=colour, label=f"{label} last", zorder=3)
        axes.set_title("direct" if correction == "direct" else "batch correction, in the same order")
        axes.set_xticks([])
        axes.grid(axis="x", visible=False)
    grid[0].set_ylabel("macro-F1 on test")
    grid[0].set_ylim(bottom=0)
    add_legend(figure, grid)
    caption = "Grey: 95 % limits of each over the texts. From left to right: from the worst order to the best, direct."
    heading = f"{title}\nthe same examples, {shots} of each class, in {len(order)} orders, template {template}"
    add_heading(figure, heading, caption)
    save_twice(figure, folder, "orders")


@STYLE
def draw_heads(effects: pd.DataFrame, correlations: pd.DataFrame, folder: Path, title: str) -> None:
    """Draw what closing each head does to each class, in a corrected prompt (above) and in the classifier (below).

    effects: rows of test, `correction, layer, head, class, effect`; those of the classifier have it as correction."""
    rows = effects[(effects["split"] == "test") & (effects["metric"] == "specific_margin")]
    corrected = choose_correction(rows)
    sides = {"prompt": rows[rows["correction"] == corrected]}
    sides |= {"classifier": rows[rows["correction"] == CLASSIFIER_HEADS]}
    classes = list(sides["prompt"]["class"].drop_duplicates())[:MOST_CLASSES]
    maps = {side: {label: make_map(table, label) for label in (OVERALL, *classes)} for side, table in sides.items()}
    shape = maps["prompt"][OVERALL].shape
    columns = len(classes) + 1
    width = max(WIDTH, 1.9 * columns)
    cell = (width - 1.5) / columns / shape[1] * 0.85
    figure = Figure(figsize=(width, 2 * (cell * shape[0] + 0.6) + 1.6), layout="constrained")
    grid = figure.subplots(2, columns, sharex="row", sharey="row")
    rank = correlations[correlations["correction"] == corrected].set_index("class")["spearman"].dropna()
    for row, (side, tables) in zip(grid, maps.items(), strict=True):
        limit = find_colour_limit(tables.values())
        for axes, (label, values) in zip(row, tables.items(), strict=True):
            draw_heat_map(axes, values, SIGNED, limit, min(cell, NUMBER - 0.01))
            shown = "mean of absolutes" if label == OVERALL else panel_title(label, 9)
            line = f"\nrank corr. {rank[label]:.2f}" if side == "prompt" and label in rank and label != OVERALL else ""
            axes.set_title(shown + line, fontsize=10)
        row[0].set_ylabel(f"{side}\nlayer")
        row[0].set_xlabel("head")
        draw_scale(figure, list(row), "specific margin (nats)")
    caption = (
        "Ablated minus whole, fill mean: red is loss. First: mean of the absolute values over the classes. The "
        "scales of the two rows differ. Rank correlation: of the heads of the map with those of the map below."
    )
    mean = f"; rank correlation, mean over the classes: {rank[OVERALL]:.2f}" if OVERALL in rank else ""
    heading = f"{title}\nheads in the prompt ({name(corrected)} correction) and in the classifier{mean}"
    add_heading(figure, heading, caption)
    save_twice(figure, folder, "heads")


def choose_correction(rows: pd.DataFrame) -> str:
    """Return the correction that is drawn: batch where it was measured, else the last of them but direct."""
    measured = [each for each in CORRECTIONS if each in set(rows["correction"])]
    return "batch" if "batch" in measured else measured[-1]


def make_map(rows: pd.DataFrame, label: str) -> pd.DataFrame:
    """Return layers by heads of a class; of all, the mean of the absolute values."""
    if label != OVERALL:
        return pivot_heads(rows[rows["class"] == label], "effect")
    absolute = rows.assign(effect=rows["effect"].abs()).groupby(["layer", "head"])["effect"].mean().reset_index()
    return pivot_heads(absolute, "effect")
