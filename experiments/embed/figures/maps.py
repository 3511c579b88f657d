"""The same texts from layer to layer: t-SNE at every site, one network above the other.

`title` names the run and its texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lab.figures import STYLE, add_heading, save_twice

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
    networks, n_layers = list(rows["model"].unique()), rows["layer"].max() + 1
    shown = np.unique(np.linspace(0, n_layers - 1, min(n_layers, SHOWN)).round().astype(int))
    figure = Figure(figsize=(CELL * len(shown) + 1.8, CELL * len(networks) + 1.5), layout="constrained")
    grid = figure.subplots(len(networks), len(shown), squeeze=False)
    for of_network, network in zip(grid, networks, strict=True):
        for axes, layer in zip(of_network, shown, strict=True):
            points = rows[(rows["model"] == network) & (rows["layer"] == layer)]
            draw_points(axes, points, classes, labels, size=3)
        of_network[0].set_ylabel(network)
    for axes, layer in zip(grid[0], shown, strict=True):
        axes.set_title("after ln_f" if layer == n_layers - 1 else f"layer {layer}", fontsize=10)
    add_classes(figure, labels)
    place = f"{pooling}, {rows['correction'].iloc[0]}".replace("_", " ")
    caption = (
        f"{rows['parameters'].iloc[0].split(',')[0].capitalize()}. Each map starts from that of the layer before. "
        "Distances between groups and their sizes mean nothing in t-SNE."
    )
    add_heading(figure, f"{title}\nt-SNE of the same texts at every layer: {place}", caption)
    save_twice(figure, folder, "maps")
