"""Pictures of the tables, as PNG and as SVG: are the methods faithful, do they follow the network, which words matter?

`title` names the run and its texts; each function adds what is shown, so that each picture can be understood alone."""

import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill as wrapped

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.figures import COLOURS, GREY, STYLE, add_heading, collect_marks, label_token, panel_title, save_twice
from lab.removals import REMOVALS
from lab.texts import OVERALL

from .judge import GREEDY, RANDOM_NETWORK
from .methods import METHODS
from .rationales import AOPC, KINDS

MARKS = dict(zip(REMOVALS, zip(COLOURS, "os^", strict=False), strict=True))  # removal: its colour and mark
NAMES = {GREEDY: "search (bound)", RANDOM_NETWORK: "random network"}
WIDTH = 10.5  # inches of a picture, so that it can be read at 1,000 pixels
TOP = 10  # words of a class
MOST_TICKS = 9


def draw(folder: Path, results: dict[str, pd.DataFrame], title: str) -> None:
    """Draw every table of which there are rows, by the names of their files."""
    draw_faithfulness(results["faithfulness"], folder, title)
    draw_sizes(results["faithfulness"], folder, title)
    if len(results["sanity"]):
        draw_sanity(results["sanity"], folder, title)
    if len(results["words"]):
        draw_words(results["words"], folder, title)
    if len(results["robustness"]):
        draw_robustness(results["robustness"], folder, title)


def name_method(method: str) -> str:
    return NAMES.get(method, method.replace("_", " "))


def make_grid(n: int, height: float, most: int = 4) -> tuple[Figure, list[Axes]]:
    """Make a figure of n panels of the same scales, each `height` inches high, at most so many in a row."""
    rows, columns = math.ceil(n / most), min(n, most)
    figure = Figure(figsize=(WIDTH, rows * height + 1.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in list(grid.flat)[n:]:
        axes.remove()
    for axes in list(grid.flat)[max(0, n - columns) : n]:
        axes.tick_params(labelbottom=True)  # also above a place that is empty
    return figure, list(grid.flat)[:n]


def add_legend(figure: Figure, grid: Sequence[Axes]) -> None:
    """Add one legend of everything that any of the panels shows, beside them."""
    marks = collect_marks(grid)
    names = [wrapped(name, 15) for name in marks]
    figure.legend(list(marks.values()), names, loc="outside right center", fontsize=10, handlelength=1.6)


@STYLE
def draw_faithfulness(faithfulness: pd.DataFrame, folder: Path, title: str) -> None:
    """Draw how far each method is from random rationales: comprehensiveness and sufficiency, a mark per removal."""
    table = faithfulness[(faithfulness["size"] == AOPC) & (faithfulness["class"] == OVERALL)]
    methods = [name for name in (GREEDY, *METHODS, RANDOM_NETWORK) if name in set(table["method"])]
    figure = Figure(figsize=(WIDTH, 0.42 * len(methods) + 2.4), layout="constrained")
    grid = list(figure.subplots(1, 2, sharey=True))
    for axes, kind, better in zip(grid, KINDS, ("right", "left"), strict=True):
        for i, (removal, (colour, mark)) in enumerate(MARKS.items()):
            rows = table[(table["metric"] == f"{kind}_log_odds") & (table["removal"] == removal)]
            rows = rows.set_index("method").reindex(methods)
            y = np.arange(len(methods)) + 0.24 * (i - 1)
            axes.hlines(y, rows["ci_low"], rows["ci_high"], color=colour, linewidth=1.4)
            fill = [("white" if circular is True else colour) for circular in rows["circular"]]
            axes.scatter(rows["difference"], y, s=34, c=fill, edgecolors=colour, marker=mark, zorder=3)
            axes.scatter([], [], s=34, c=colour, marker=mark, label=removal)
        axes.axvline(0, color=GREY, linewidth=1)
        axes.set_title(f"{kind}: better to the {better}")
        axes.set_xlabel("log-odds, minus those of random tokens")
        axes.grid(axis="y", visible=False)
        for row in range(0, len(methods), 2):
            axes.axhspan(row - 0.5, row + 0.5, color="#F4F4F4", zorder=0)
    grid[0].set_yticks(range(len(methods)), [name_method(name) for name in methods])
    grid[0].set_ylim(len(methods) - 0.5, -0.5)
    add_legend(figure, grid)
    caption = (
        "What the predicted class loses when a method's tokens are removed (left) or kept alone (right): mean over "
        "sizes and texts, 95 % limits for all methods at once. Hollow: the removal that made the method. Search: it "
        "saw the answer."
    )
    add_heading(figure, f"{title}\nare the tokens that a method names the ones that count?", caption)
    save_twice(figure, folder, "faithfulness")


@STYLE
def draw_sizes(faithfulness: pd.DataFrame, folder: Path, title: str) -> None:
    """Draw comprehensiveness above random by the share of tokens removed, a panel per method."""
    table = faithfulness[(faithfulness["metric"] == "comprehensiveness_log_odds") & (faithfulness["class"] == OVERALL)]
    table = table[table["size"].str.endswith("%")]
    shares = sorted(set(table["size"]), key=lambda size: float(size.rstrip("%")))
    methods = [name for name in (*METHODS, RANDOM_NETWORK) if name in set(table["method"])]
    figure, grid = make_grid(len(methods), 1.9)
    for axes, method in zip(grid, methods, strict=True):
        for removal, (colour, mark) in MARKS.items():
            rows = table[table["removal"] == removal]
            for name, line, about in ((GREEDY, ":", f"search, {removal}"), (method, "-", removal)):
                curve = rows[rows["method"] == name].set_index("size").reindex(shares)
                settings = {"marker": mark, "markersize": 4} if name == method else {"linewidth": 1.2}
                axes.plot(range(len(shares)), curve["difference"], line, color=colour, label=about, **settings)
                if name == method:
                    band = curve["ci_low"], curve["ci_high"]
                    axes.fill_between(range(len(shares)), *band, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(0, color=GREY, linewidth=1)
        axes.set_title(name_method(method), fontsize=11)
        axes.set_xticks(range(len(shares)), shares, fontsize=9)
    figure.supylabel("log-odds lost, minus random", fontsize=11)
    add_legend(figure, grid)
    caption = "Across: the share of a text's tokens that is removed, rounded up. 0: no better than random tokens."
    add_heading(figure, f"{title}\ncomprehensiveness by size of the rationale", caption)
    save_twice(figure, folder, "sizes")


@STYLE
def draw_sanity(sanity: pd.DataFrame, folder: Path, title: str) -> None:
    """Draw how alike the explanations stay while the network is randomised from the top, a panel per method."""
    table = sanity[sanity["similarity"] == "spearman"]
    cascading, alone = (table[table["scheme"] == scheme] for scheme in ("cascading", "independent"))
    parts = cascading.sort_values("step")["part"].drop_duplicates().tolist()
    methods = [name for name in METHODS if name in set(cascading["method"])]
    figure, grid = make_grid(len(methods), 2.0, most=5)
    x = np.arange(len(parts))
    for axes, method in zip(grid, methods, strict=True):
        rows = cascading[cascading["method"] == method].set_index("part").reindex(parts)
        single = alone[alone["method"] == method].set_index("part").reindex(parts)
        level = "two random networks"
        axes.fill_between(x, rows["random_low"], rows["random_high"], color=GREY, alpha=0.3, linewidth=0)
        axes.plot(x, rows["random"], "--", color=GREY, linewidth=1.2, label=level)
        axes.plot(x, single["value"], "D", color=COLOURS[1], markersize=4, label="this part alone is random")
        axes.fill_between(x, rows["ci_low"], rows["ci_high"], color=COLOURS[0], alpha=0.2, linewidth=0)
        axes.plot(x, rows["value"], "o-", color=COLOURS[0], markersize=4, label="this part and all before it")
        for value in table[(table["scheme"] == "labels") & (table["method"] == method)]["value"]:
            axes.plot([x[-1] + 1], [value], "*", color=COLOURS[3], markersize=9, label="trained on shuffled labels")
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_title(f"{name_method(method)}\n{rows['verdict'].iloc[0]}", fontsize=10)
        step = math.ceil(len(parts) / MOST_TICKS)
        axes.set_xticks(x[::step], parts[::step], rotation=90, fontsize=9)
    grid[0].set_ylim(top=1.08)
    figure.supylabel("Spearman correlation with ours", fontsize=11)
    add_legend(figure, grid)
    caption = "Across: the part whose weights become random, from the top of the network down. 1: nothing changed."
    add_heading(figure, f"{title}\ndo the explanations change when the network does?", caption)
    save_twice(figure, folder, "sanity")


@STYLE
def draw_words(words: pd.DataFrame, folder: Path, title: str) -> None:
    """Draw the top words of each class, and their weights in a bag of words beside."""
    panels = list(words.groupby("class", sort=False))
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(WIDTH, 2.9 * rows + 1.5), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, (label, table) in zip(grid, panels, strict=False):
        top = table[table["value"] > 0].nlargest(TOP, "value")
        y = np.arange(len(top))
        axes.hlines(y, top["ci_low"], top["ci_high"], color=COLOURS[0], linewidth=1.4)
        axes.plot(top["value"], y, "o", color=COLOURS[0], label="network: what hiding the word takes")
        axes.plot(top["bag_of_words"], y, "D", color=COLOURS[1], markersize=5, label="bag of words: its weight")
        axes.set_yticks(y, [label_token(word) for word in top["word"]], fontsize=10)
        axes.set_ylim(max(len(top), 2) - 0.5, -0.5)
        axes.axvline(0, color=GREY, linewidth=1)
        axes.set_title(panel_title(str(label), len(panels)))
        axes.tick_params(labelbottom=True)
    add_legend(figure, grid)
    caption = (
        "Logits of the class over the mean of all classes. Means over occurrences, 95 % limits for all words of a "
        "class at once. A word without a diamond is unknown to the bag of words."
    )
    add_heading(figure, f"{title}\nthe words that speak for each class", caption)
    save_twice(figure, folder, "words")


@STYLE
def draw_robustness(robustness: pd.DataFrame, folder: Path, title: str) -> None:
    """Draw accuracy by the number of words hidden, a panel per class."""
    panels = sorted(robustness.groupby("class", sort=False), key=lambda panel: panel[0] != OVERALL)  # all texts first
    figure, grid = make_grid(len(panels), 2.1)
    for axes, (label, table) in zip(grid, panels, strict=True):
        for removal, (colour, mark) in MARKS.items():
            rows = table[table["removal"] == removal].sort_values("k")
            if rows.empty:
                continue
            k = ["0", *map(str, rows["k"])]
            whole = [rows["whole"].iloc[0]]
            axes.plot(k, [*whole, *rows["value"]], f"{mark}-", color=colour, label=f"important words ({removal})")
            axes.plot(k, [*whole, *rows["random"]], f"{mark}--", color=GREY, label=f"random words ({removal})")
            bag = [rows["bag_of_words_whole"].iloc[0], *rows["bag_of_words"]]
            axes.plot(k, bag, "D:", color=COLOURS[1], markersize=5, label="bag of words, without them")
        axes.set_title(panel_title(str(label), len(panels)), fontsize=11)
        axes.set_ylim(-0.03, 1.03)
    figure.supylabel("accuracy", fontsize=11)
    add_legend(figure, grid)
    caption = "Across: how many of the most important words of the class are hidden. Random: as many others per text."
    add_heading(figure, f"{title}\nhow robust is the classifier without its words?", caption)
    save_twice(figure, folder, "robustness")
