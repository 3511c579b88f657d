"""The picture of several runs side by side."""

from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.figures import COLOURS, STYLE, save


@STYLE
def draw_forest(scores: pd.DataFrame, path: Path, xlabel: str) -> None:
    """Forest plot: one row per score with its interval, in panels; a reference goes on as a line through its panel.

    scores: from top to bottom, columns `panel, kind, name, value, low, high, reference`. `kind` is the colour,
    `reference` a bool. NaN: no interval where `low` and `high` are, and a range where `value` is.
    """
    panels = list(scores.groupby("panel", sort=False))
    heights = [len(rows) for _, rows in panels]
    width = max(10, 4.3 + 0.09 * scores["name"].str.len().max())  # or long names leave no room
    figure = Figure(figsize=(width, 0.33 * sum(heights) + 0.8 * len(panels) + 0.4), layout="constrained")
    colours = dict(zip(scores["kind"].unique(), cycle(COLOURS), strict=False))
    grid = figure.subplots(len(panels), height_ratios=heights, squeeze=False).flat
    for axes, (title, rows) in zip(grid, panels, strict=True):
        for y, row in enumerate(rows.itertuples()):
            _score(axes, y, row, colours[row.kind])
        axes.set(title=title, yticks=range(len(rows)), yticklabels=rows["name"], ylim=(len(rows) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    axes.set_xlabel(xlabel)
    save(figure, path)


def _score(axes: Axes, y: int, row: Any, colour: str) -> None:
    """A row of a forest plot, with its numbers at the right."""
    measured, bounded = pd.notna(row.value), pd.notna(row.low)
    texts = [f"{row.value:.3f}"] if measured else []
    if bounded:
        axes.plot([row.low, row.high], [y, y], color=colour, marker="|")
        texts.append(f"[{row.low:.3f}, {row.high:.3f}]" if measured else f"{row.low:.2f} to {row.high:.2f}")
    if measured:
        axes.plot(row.value, y, "o", color=colour)
    if row.reference and measured:
        axes.axvline(row.value, color=colour, linestyle="--", linewidth=1, zorder=1)
    elif row.reference:
        axes.axvspan(row.low, row.high, color=colour, alpha=0.15, linewidth=0)
    axes.text(1.02, y, " ".join(texts), transform=axes.get_yaxis_transform(), va="center", fontsize=10)
