"""Where the boxes, arrows and labels of a graph of paths stand, none on another one."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

BOX, LABEL, PASS = 0.95, 0.7, 0.3  # inches: widths of a node, a label, and an edge that passes
ENDS = ("embedding", "logits")  # as wide as the graph
STRAIGHT, SWEEPS = 2, 20  # how much more an edge is kept straight than near to its nodes; sweeps over all levels

Item = str | tuple[int, int]  # a node, or the number of an edge and a level that it passes


@dataclass
class Layout:
    """Where the parts of a graph stand: x in inches from its left edge, levels counted from the lowest."""

    chains: list[list[Item]]  # of each edge, what it runs through: its sender, a place on each level, its receiver
    labels: list[Item]  # of each edge, the place of its label
    x: dict[Item, float]  # centres; ENDS are as wide as the graph, and have none
    levels: dict[Item, int]
    width: float


def lay_out(edges: pd.DataFrame, depths: list[float]) -> Layout:
    """Return where boxes, edges and labels stand, none on another one: layers of items (Sugiyama et al. 1981).

    Even levels hold nodes, one for each of `depths`; odd ones hold labels. An edge has a place where it passes a level.
    """
    nodes = dict.fromkeys([*edges["sender"], *edges["receiver"]])
    levels: dict[Item, int] = {node: 2 * depths.index(_find_depth(node)) for node in nodes}
    widths: dict[Item, float] = dict.fromkeys([node for node in nodes if node not in ENDS], BOX)
    chains: list[list[Item]] = []
    labels: list[Item] = []
    for i, (sender, receiver) in enumerate(zip(edges["sender"], edges["receiver"], strict=True)):
        between = range(levels[sender] + 1, levels[receiver])
        passed: list[Item] = [(i, level) for level in between]
        levels |= zip(passed, between, strict=True)
        labels.append(min(passed[::2], key=lambda item: sum(levels[label] == levels[item] for label in labels)))
        widths |= dict.fromkeys(passed, PASS) | {labels[-1]: LABEL}
        chains.append([sender, *passed, receiver])
    x = _place_items(chains, levels, widths)
    left = min(x[item] - widths[item] / 2 for item in x)
    x = {item: centre - left for item, centre in x.items()}
    return Layout(chains, labels, x, levels, max(3, *(x[item] + widths[item] / 2 for item in x)))


def rank_depths(nodes: Iterable[str]) -> list[float]:
    """Return the depths of these nodes in order, each once."""
    return sorted({_find_depth(name) for name in nodes})


def _find_depth(name: str) -> float:
    """Return where a node comes in the forward pass: the heads of a layer before its MLP."""
    if name in ENDS:
        return -1 if name == ENDS[0] else math.inf
    part, place = name.split(" ")
    return int(place.split(".")[0]) + (0.5 if part == "mlp" else 0)


def _place_items(chains: list[list[Item]], levels: dict[Item, int], widths: dict[Item, float]) -> dict[Item, float]:
    """Return x (inches) of each item that has a width: as near to its neighbours as the others of its level let it."""
    neighbours: dict[Item, list[Item]] = {item: [] for item in widths}
    for one, two in [pair for chain in chains for pair in pairwise(chain) if not set(pair) & set(ENDS)]:
        straight = 1 if isinstance(one, str) or isinstance(two, str) else STRAIGHT
        neighbours[one] += straight * [two]
        neighbours[two] += straight * [one]
    x = dict.fromkeys(widths, 0.0)
    rows = [[item for item in widths if levels[item] == level] for level in sorted({levels[item] for item in widths})]
    for row in SWEEPS * (rows + rows[::-1]):
        wanted = np.array([np.mean([x[item] for item in neighbours[centre]] or x[centre]) for centre in row])
        order = np.argsort(wanted, kind="stable")
        width, weights = np.array([(widths[item], len(neighbours[item]) + 1) for item in row])[order].T
        apart = np.cumsum(width) - width / 2  # the least distances
        placed = isotonic_regression(wanted[order] - apart, weights=weights).x + apart
        x |= {row[i]: float(at) for i, at in zip(order, placed, strict=True)}
    return x
