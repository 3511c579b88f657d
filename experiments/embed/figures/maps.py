"""The same texts from layer to layer: t-SNE at the sites, one network above the other.

`title` names the run and its texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lab.figures import STYLE, add_heading, save_twice

from ..reductions import PERPLEXITY
from .names import name_layer, name_vectors
from .reductions import add_classes, draw_points

SHOWN = 8  # layers at most
CELL = 1.45  # inches of a map


@STYLE
def draw_layers(
    folder: Path,
    maps: pd.DataFrame,
    classes: Mapping[int, str],
    labels: Sequence[str],
    title: str,
    pooling: str = "last",
) -> None:
    """Draw the maps of one pooling, a row for each network; classes: that of each text, by its index."""
    rows = maps[maps["pooling"] == pooling]
    networks, last = list(rows["model"].unique()), rows["layer"].max()
    shown = np.unique(np.linspace(0, last, min(last + 1, SHOWN)).round().astype(int))
    figure = Figure(figsize=(CELL * len(shown) + 1.8, CELL * len(networks) + 1.5), layout="constrained")
    grid = figure.subplots(len(networks), len(shown), squeeze=False)
    for of_network, network in zip(grid, networks, strict=True):
        for axes, layer in zip(of_network, shown, strict=True):
            points = rows[(rows["model"] == network) & (rows["layer"] == layer)]
            draw_points(axes, points, classes, labels, size=3)
        of_network[0].set_ylabel(network)
    for axes, layer in zip(grid[0], shown, strict=True):
        axes.set_title(name_layer(layer, last), fontsize=10)
    add_classes(figure, labels)
    caption = (
        f"Perplexity {PERPLEXITY:g}, less where fewer than {3 * PERPLEXITY + 1:g} texts differ. Each map starts from "
        "that of the layer before. Distances between groups and their sizes mean nothing in t-SNE."
    )
    at = "at some layers" if len(shown) <= last else "at every layer"
    add_heading(figure, f"{title}\nt-SNE of the same texts {at}: {name_vectors(rows)}", caption)
    save_twice(figure, folder, "maps")
