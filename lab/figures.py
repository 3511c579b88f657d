"""The drawing toolkit: colours, heat maps, grids of panels, and pictures saved whole.

It goes without pyplot, so nothing is kept between two pictures."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import fill as wrapped
from typing import Any, cast

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator

from model.files import written_whole

from .fonts import list_families, without_complaints
from .texts import OVERALL

# Okabe & Ito's colours without the yellow, which is lost on white; classes beyond the seventh change the line style.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
GREY = "#767676"
SIGNED, UNSIGNED = "RdBu", "Blues"  # colour maps of heat maps: around 0, where losses are red, and from 0 on
STYLE = matplotlib.rc_context(
    {
        "font.family": list_families(),
        "font.size": 11,
        "axes.titlesize": 12,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#E6E6E6",
        "legend.edgecolor": "none",
        "text.parse_math": False,  # a label may hold a dollar sign
        "lines.linewidth": 1.8,
        "savefig.dpi": 150,
        "svg.hashsalt": "headgate",  # the same picture is the same file
    }
)


def save(figure: Figure, path: Path) -> None:
    """Save a picture as PNG or SVG, as its suffix says, whole or not at all."""
    form = path.suffix.removeprefix(".")
    with without_complaints(), written_whole(path) as [temporary]:
        if any(axes.get_aspect() != "auto" for axes in figure.axes):
            figure.draw_without_rendering()  # where cells are square, one pass of the layout lets texts overlap
        figure.savefig(temporary, format=form, metadata={"Date": None} if form == "svg" else None)


def save_twice(figure: Figure, folder: Path, name: str) -> None:
    """Save a picture as PNG and as SVG, laid out once."""
    save(figure, folder / f"{name}.png")
    figure.set_layout_engine("none")
    save(figure, folder / f"{name}.svg")


MANY = 8  # panels; more than these are smaller
NUMBER = 0.32  # inches of the smallest cell that holds a number
CELL = 0.5  # inches of the largest cell
TICK = 0.18  # inches from one name of a layer or head to the next


def pivot_heads(rows: pd.DataFrame, values: str) -> pd.DataFrame:
    return rows.pivot(index="layer", columns="head", values=values)


def draw_heat_maps(
    maps: Mapping[str, pd.DataFrame], colours: str, scales: tuple[str, str]
) -> tuple[Figure, list[Axes]]:
    """Draw one heat map each: the first in these colours on a scale of its own; the others, SIGNED, share one."""
    whole, *others = maps.values()
    figure, grid, cell = make_map_panels(len(maps), *whole.shape)
    limits = [find_colour_limit([whole]), *[find_colour_limit(others)] * len(others)]
    for axes, (label, values), limit in zip(grid, maps.items(), limits, strict=True):
        draw_heat_map(axes, values, colours if axes is grid[0] else SIGNED, limit, cell)
        axes.set_title(panel_title(label, len(maps)))
    draw_scale(figure, grid[:1], wrapped(scales[0], 36), location="left")
    draw_scale(figure, grid[1:], scales[1])
    return figure, grid


def draw_heat_map(axes: Axes, values: pd.DataFrame, colours: str, limit: float, cell: float) -> None:
    """Draw a heat map, with numbers where a cell (inches) has room."""
    numbers, legible = values.to_numpy(float), cell >= NUMBER
    ink = np.where(np.abs(numbers) > 0.6 * limit, "white", "black")
    axes.imshow(numbers, cmap=colours, vmin=-limit if colours == SIGNED else 0, vmax=limit)
    step, size = math.ceil(TICK / cell), 11 if legible else 8
    axes.set_xticks(range(0, values.shape[1], step), values.columns[::step], fontsize=size)
    axes.set_yticks(range(0, values.shape[0], step), values.index[::step], fontsize=size)
    axes.set_facecolor("#DDDDDD")
    axes.grid(visible=False)
    if legible:
        for (row, column), value in np.ndenumerate(numbers):
            text = "" if np.isnan(value) else f"{value:z.{1 if limit >= 10 else 2}f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink[row, column])


def mark_cells(axes: Axes, rows: pd.DataFrame, cell: float) -> None:
    """Put a dot on these heads of a heat map; where a cell (inches) has room, beside its number."""
    corner = 0.36 if cell >= NUMBER else 0
    x, y = rows["head"].to_numpy(float) + corner, rows["layer"].to_numpy(float) - corner
    axes.scatter(x, y, s=9, c="black", edgecolors="white", linewidths=0.7)


def draw_scale(figure: Figure, grid: list[Axes], label: str, location: str = "right") -> None:
    """Draw the scale that these heat maps share, with arrows where there are values beyond it."""
    images = [axes.images[0] for axes in grid]
    low, high = images[0].get_clim()
    beyond = any(np.abs(np.ma.filled(cast(np.ma.MaskedArray, image.get_array()), 0)).max() > high for image in images)
    extend = ("both" if low < 0 else "max") if beyond else "neither"
    shrink = 0.8 if len(grid) == 1 else min(0.8, 6 / figure.get_figheight())
    scale = figure.colorbar(images[0], ax=grid, location=location, extend=extend, shrink=shrink, aspect=30, label=label)
    scale.locator = MaxNLocator(6)  # an automatic number would change from one pass of the layout to the next


def find_colour_limit(tables: Iterable[pd.DataFrame]) -> float:
    """Return the value at which the colours end: the largest absolute value or, of very many, the 99th percentile, so
    that one head does not turn all others white; 1 where there is nothing but 0."""
    values = np.abs(np.concatenate([table.to_numpy(float).ravel() for table in tables]))
    values = values[~np.isnan(values)]
    return float(np.quantile(values, 0.99, method="higher")) or 1 if len(values) else 1


def grid_shape(n: int) -> tuple[int, int, float]:
    """Return the rows and columns of n panels, and the width of one in inches."""
    most, width = (4, 3.5) if n <= MANY else (6, 2.6)
    return math.ceil(n / most), min(n, most), width


def add_panels(figure: FigureBase, n: int) -> list[Axes]:
    """Add n panels to a figure, as many in a row as `grid_shape` says."""
    rows, columns, _ = grid_shape(n)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[n:]:
        axes.remove()
    return grid[:n]


def make_panels(n: int, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure of n panels, each `height` inches high."""
    rows, columns, width = grid_shape(n)
    figure = Figure(figsize=(columns * width + 2, rows * height + 0.9), layout="constrained")
    return figure, add_panels(figure, n)


def make_map_panels(n: int, rows: int, columns: int) -> tuple[Figure, list[Axes], float]:
    """Make a figure of n panels for heat maps of this shape; return it, the panels and the size of a cell in inches."""
    cell = min(CELL, (grid_shape(n)[2] - 0.6) / columns)
    figure, grid = make_panels(n, cell * rows + 0.9)
    return figure, grid, cell


def label_token(piece: str) -> str:
    """Return a token as a picture writes it: on one line, spaces as dots, and no more than 14 characters."""
    label = repr(piece)[1:-1].replace(" ", "·")
    return label if len(label) <= 14 else f"{label[:13]}…"


def panel_title(label: str, n: int) -> str:
    """Return the title of one of n panels, on as many lines as it takes."""
    return wrapped("all texts" if label == OVERALL else label, 28 if n <= MANY else 20)


def collect_marks(grid: Iterable[Axes]) -> dict[str, Any]:
    """Return what any of the panels shows, by the name that a legend gives it."""
    return {name: mark for axes in grid for mark, name in zip(*axes.get_legend_handles_labels(), strict=True)}


def add_heading(figure: Figure, title: str, caption: str) -> None:
    """Write a title above and a caption below all panels, in lines that fit in."""
    width = figure.get_figwidth()
    figure.suptitle("\n".join(wrapped(line, int(11 * width)) for line in title.split("\n")), fontsize=12)
    figure.supxlabel(wrapped(caption, int(13 * width)), fontsize=10)
