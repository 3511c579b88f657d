"""The pictures of a pretraining."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lab.figures import COLOURS, GREY, STYLE, save


@STYLE
def draw_loss_curves(log: pd.DataFrame, path: Path, title: str) -> None:
    """Draw a language model's losses by tokens read; a line marks the lowest held-out loss, whose weights were kept.

    log: one row per evaluation and split, of which one is `held-out`; columns `tokens, split, loss`. The loss before
    the first token is left out: that of a uniform guess would flatten all that follows.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    held_out = log[log["split"] == "held-out"].sort_values("loss")
    for colour, (split, rows) in zip(COLOURS, log[log["tokens"] > 0].groupby("split"), strict=False):
        axes.plot(rows["tokens"] / 1e6, rows["loss"], marker="o", markersize=3, color=colour, label=split)
    loss, millions = held_out["loss"].iloc[0], held_out["tokens"].iloc[0] / 1e6
    name = f"kept: {loss:.3f} at {millions:.3g} M tokens"
    axes.axvline(millions, color=GREY, linestyle=":", label=name)
    axes.set(title=title, xlabel="tokens read (millions)", ylabel="cross-entropy of the next token (nats)")
    axes.legend()
    save(figure, path)


@STYLE
def draw_heads(table: pd.DataFrame, path: Path) -> None:
    """Draw maps of layers by heads: a row for each kind of weights and a column for each score.

    table: one row per head and kind; columns `layer, head, previous_token, induction, loss_increase, weights`."""
    kinds = list(table.groupby("weights", sort=False))
    height = 3.3 * table["layer"].nunique() / table["head"].nunique() + 0.7  # of a map with square cells, in inches
    figure = Figure(figsize=(13, height * len(kinds)), layout="constrained")
    grid = figure.subplots(len(kinds), len(HEAD_SCORES), squeeze=False)
    for column, (score, (title, colours)) in zip(grid.T, HEAD_SCORES.items(), strict=True):
        high = table[score].abs().max()
        low = -high if table[score].min() < 0 else 0
        for axes, (kind, rows) in zip(column, kinds, strict=True):
            scores = rows.pivot(index="layer", columns="head", values=score)
            image = axes.imshow(scores, cmap=colours, vmin=low, vmax=high)
            for (layer, head), value in np.ndenumerate(scores):
                colour = "white" if abs(value) > 0.6 * high else "black"
                axes.text(head, layer, f"{value:z.2f}", ha="center", va="center", color=colour, fontsize=8)
            axes.set(title=f"{title}\n{kind} weights", xlabel="head", ylabel="layer")
            axes.set(xticks=scores.columns, yticks=scores.index)
            axes.grid(visible=False)
        figure.colorbar(image, ax=column, shrink=0.6)
    save(figure, path)


HEAD_SCORES = {  # column of the table: title and colours
    "previous_token": ("Looks at the previous token", "Blues"),
    "induction": ("Looks at what followed last time", "Blues"),
    "loss_increase": ("Loss increase when closed (nats)", "RdBu_r"),
}
