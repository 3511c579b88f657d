"""Does a vector know which sense of its word is meant, and is it still like the word's static vector?"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from data.senses import LEFT, RIGHT
from lab.figures import STYLE, add_heading, save_twice

from ..words import DRAWS
from .sites import WIDTH, add_legend, draw_networks, name_layers

SIDES = {LEFT: "cue before the word", RIGHT: "cue behind the word (control)"}
STATIC = {"similarity_to_wte": "cosine with the row of wte", "similarity_to_mean": "cosine with the mean of others"}


@STYLE
def draw_senses(folder: Path, words: pd.DataFrame, title: str) -> None:
    """Draw sense accuracy by layer for both cue sides, and similarity to static vectors: senses.png, senses.svg.

    words: see `tabulate_words`. Nothing is drawn where no word has senses."""
    ambiguous = words[words["cue_side"].notna()]
    if ambiguous.empty:
        return
    mean = ambiguous.groupby(["model", "layer", "cue_side"], as_index=False)[
        ["sense_accuracy", "null_accuracy", "similarity_to_wte", "similarity_to_mean"]
    ].mean()
    figure = Figure(figsize=(WIDTH, 7.6), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True)
    for axes, (side, shown) in zip(grid[0], SIDES.items(), strict=True):
        rows = mean[mean["cue_side"] == side]
        draw_networks(axes, rows, "sense_accuracy")
        draw_networks(axes, rows, "null_accuracy", "{}, senses permuted", ":")
        axes.set_title(f"which sense: {shown}")
        axes.set_ylim(-0.02, 1.02)
    grid[0, 0].set_ylabel("sense accuracy, mean over words")
    for axes, (column, shown) in zip(grid[1], STATIC.items(), strict=True):
        draw_networks(axes, mean[mean["cue_side"] == LEFT], column)
        axes.set_title(f"how static: {shown}")
        name_layers(axes, ambiguous)
    grid[1, 0].set_ylabel("mean cosine, cue before the word")
    add_legend(figure, list(grid[0]))
    n_words, n = ambiguous["word"].nunique(), ambiguous["n"].max()
    caption = (
        f"{n_words} words of several senses, {n} sentences each. An occurrence goes to the sense whose others point "
        f"into its direction; dotted: the mean of {DRAWS} permutations of the senses. The network reads from left to "
        "right: behind the word a cue comes too late, so the control must be at chance."
    )
    add_heading(figure, f"{title}\nwhat a word's vector knows of its sense, and of the word itself", caption)
    save_twice(figure, folder, "senses")
