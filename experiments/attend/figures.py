"""Pictures of attention in one text, and of the tables over all texts, as PNG and as SVG.

Each function draws one picture; `title` names the run and its texts. The views of a text are those of the page:
lines, matrix, all heads, neurons."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lab.attention import Recording
from lab.figures import (
    COLOURS,
    GREY,
    SIGNED,
    STYLE,
    UNSIGNED,
    add_heading,
    draw_heat_map,
    draw_scale,
    find_colour_limit,
    label_token,
    make_map_panels,
    mark_cells,
    panel_title,
    pivot_heads,
    save_twice,
)
from lab.shares import FEWEST
from lab.texts import OVERALL
from lab.units import Head, head_name

from .patterns import LOCAL, PATTERNS, RANDOM, judge_heads

LINE = 0.2  # inches from one token to the next
FAINTEST = 1 / 255  # weight of a line that could still be seen
ALLOWED, MASKED = "#DEEBF7", "#BDBDBD"
NAMES = {
    "previous": "previous token",
    "first": "first token",
    "self": "itself",
    "local": f"the last {LOCAL} tokens",
    "induction": "induction",
    "duplicate": "the same token, earlier",
}


def draw_views(recording: Recording, head: Head, folder: Path, title: str, suffix: str = "") -> None:
    """Draw all views of one text: its lines, matrix and neurons of one head, and all heads."""
    name = head_name(head)
    draw_lines(recording, head, folder, f"view_lines_{name}{suffix}", title)
    draw_matrix(recording, head, folder, f"view_matrix_{name}{suffix}", title)
    draw_neurons(recording, head, folder, f"view_neurons_{name}{suffix}", title)
    draw_all_heads(recording, folder, f"view_heads{suffix}", title)


def label_tokens(recording: Recording) -> list[str]:
    return [label_token(token["piece"]) for token in recording.tokens]


@STYLE
def draw_lines(recording: Recording, head: Head, folder: Path, name: str, title: str) -> None:
    """Draw one head as lines from each query to the keys it attends to, as strong as the weight."""
    labels, weights = label_tokens(recording), recording.weights[head].numpy()
    T = len(labels)
    figure = Figure(figsize=(6.5, LINE * T + 1.6), layout="constrained")
    axes = figure.subplots()
    query, key = np.nonzero(weights >= FAINTEST)
    alpha = weights[query, key].clip(0, 1)
    colours = np.array([to_rgba(COLOURS[3] if i == T - 1 else COLOURS[0]) for i in query])
    colours[:, 3] = alpha
    segments = np.stack([np.column_stack([np.zeros(len(query)), query]), np.column_stack([np.ones(len(key)), key])], 1)
    axes.add_collection(LineCollection(list(segments), colors=colours, linewidths=1 + 1.5 * alpha))
    for x, side in ((-0.02, "right"), (1.02, "left")):
        for i, label in enumerate(labels):
            weight = "bold" if i == T - 1 and side == "right" else "normal"
            axes.text(x, i, label, ha=side, va="center", fontsize=9, fontweight=weight)
    axes.set(xlim=(-0.4, 1.4), ylim=(T - 0.4, -0.8))
    axes.axis("off")
    caption = (
        "Left: queries; right: keys. Strength of a line: the weight. Orange: the last query, which tells the class."
    )
    add_heading(figure, f"{title}\nhead {head_name(head)}", caption)
    save_twice(figure, folder, name)


@STYLE
def draw_matrix(recording: Recording, head: Head, folder: Path, name: str, title: str) -> None:
    """Draw the weights of one head, queries by keys; keys after the query are left empty."""
    labels = label_tokens(recording)
    T = len(labels)
    side = np.clip(0.22 * T, 3.5, 14)
    figure = Figure(figsize=(side + 2.6, side + 2.2), layout="constrained")
    axes = figure.subplots()
    step = int(np.ceil(T / (side / 0.14)))  # a label needs as much
    axes.imshow(mask_future(recording.weights[head].numpy()), cmap=UNSIGNED, vmin=0, vmax=1)
    axes.set_xticks(range(0, T, step), labels[::step], rotation=90, fontsize=8)
    axes.set_yticks(range(0, T, step), labels[::step], fontsize=8)
    axes.set(xlabel="key", ylabel="query")
    axes.grid(visible=False)
    draw_scale(figure, [axes], "weight")
    add_heading(figure, f"{title}\nhead {head_name(head)}", "Each row sums to 1. Keys after the query do not exist.")
    save_twice(figure, folder, name)


def mask_future(weights: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return weights (..., T, T) with NaN where a key comes after the query."""
    return np.where(np.tri(weights.shape[-1], dtype=bool), weights, np.nan)


@STYLE
def draw_all_heads(recording: Recording, folder: Path, name: str, title: str) -> None:
    """Draw the weights of all heads, layers by heads."""
    L, H, T, _ = recording.weights.shape
    gap = max(1, round(0.08 * T))  # cells between two maps
    maps = np.full((L, T + gap, H, T + gap), np.nan)
    maps[:, :T, :, :T] = mask_future(recording.weights.numpy()).swapaxes(1, 2)
    side = np.clip(11 / H, 0.6, 1.2)
    figure = Figure(figsize=(max(6.5, H * side + 1.8), L * side + 1.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(maps.reshape(L * (T + gap), -1)[:-gap, :-gap], cmap=UNSIGNED, vmin=0, vmax=1)
    centres = (T - 1) / 2 + (T + gap) * np.arange(max(L, H))
    axes.set_xticks(centres[:H], map(str, range(H)))
    axes.set_yticks(centres[:L], map(str, range(L)))
    axes.set(xlabel="head", ylabel="layer")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    draw_scale(figure, [axes], "weight")
    caption = f"In each: {T} queries from top to bottom, and as many keys from left to right."
    add_heading(figure, f"{title}\nall heads", caption)
    save_twice(figure, folder, name)


@STYLE
def draw_neurons(recording: Recording, head: Head, folder: Path, name: str, title: str) -> None:
    """Draw how the last query of one head comes to its weights: q, k, their product, score, mask, softmax."""
    labels, T = label_tokens(recording), len(recording.tokens)
    product, scores, allowed, weights = explain_query(recording, head, T - 1)
    q, k = (x[head].double().numpy() for x in (recording.q, recording.k))
    figure = Figure(figsize=(12, LINE * (T + 4) + 2.4), layout="constrained")
    grid = figure.subplots(2, 5, height_ratios=[3, T], width_ratios=[3, 3, 1.6, 0.3, 1.6], squeeze=False)
    for unused in [*grid[0, 2:], grid[0, 1]]:
        unused.remove()
    limits = [np.abs(x).max() or 1 for x in (np.concatenate([q[-1:], k]), product)]
    panels = ((grid[0, 0], q[-1:], limits[0], "q of the last token"), (grid[1, 0], k, limits[0], "k of each token"))
    for axes, values, limit, heading in (*panels, (grid[1, 1], product, limits[1], "q times k")):
        axes.imshow(values, cmap=SIGNED, vmin=-limit, vmax=limit, aspect="auto")
        axes.set(title=heading, xticks=[], yticks=[])
        axes.grid(visible=False)
    grid[1, 0].set_yticks(range(T), labels, fontsize=8)
    grid[0, 0].set_yticks([0], labels[-1:], fontsize=8)
    _draw_bars(grid[1, 2], scores, "score: sum" if recording.scale == 1 else f"score: sum / √{q.shape[1]}")
    grid[1, 3].imshow(allowed[:, None], cmap=ListedColormap([MASKED, ALLOWED]), vmin=0, vmax=1, aspect="auto")
    grid[1, 3].set_title("mask", fontsize=10)
    grid[1, 3].set(xticks=[], yticks=[])
    grid[1, 3].grid(visible=False)
    _draw_bars(grid[1, 4], weights, "softmax: weight")
    caption = (
        f"Columns of q, k and their product: the {q.shape[1]} neurons of the head; blue is positive, red negative. "
    )
    caption += "Mask: light may be attended to, grey not."
    add_heading(figure, f"{title}\nhead {head_name(head)}, last query", caption)
    save_twice(figure, folder, name)


def _draw_bars(axes: Axes, values: NDArray[np.floating], title: str) -> None:
    axes.barh(range(len(values)), values, color=np.where(values < 0, GREY, COLOURS[0]))
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set(ylim=(len(values) - 0.5, -0.5), yticks=[])
    axes.set_title(title)
    axes.tick_params(axis="x", labelsize=8)


def explain_query(
    recording: Recording, head: Head, query: int
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.bool_], NDArray[np.floating]]:
    """Return q times k (T, D), the scores (T,), which keys are allowed (T,) and the weights (T,) of one query."""
    product = recording.q[head][query].double() * recording.k[head].double()
    scores, key = product.sum(dim=-1) * recording.scale, torch.arange(len(product))
    allowed = (key <= query) & (key > query - recording.windows[head[0]])
    allowed[list(recording.hidden)] = False
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(dim=0).nan_to_num()  # no key: all 0
    return product.numpy(), scores.numpy(), allowed.numpy(), weights.numpy()


@STYLE
def draw_patterns(heads: pd.DataFrame, folder: Path, title: str) -> None:
    """Draw layers by heads how far each score is above its base rate, a panel for each pattern; heads: heads.csv."""
    judged = judge_heads(heads)
    has_random = RANDOM in set(heads["class"])
    caption = f"Score minus that of uniform attention, all texts. Dot, {judged['both'].sum():,} of {len(judged):,}: "
    caption += f"surely above it, on texts{' and on random tokens said twice' if has_random else ''}."
    panels, dots = {}, {}
    for pattern in PATTERNS:
        rows = judged[judged["pattern"] == pattern]
        name = NAMES[pattern] + (" (too few texts for dots)" if rows["n"].iloc[0] < FEWEST else "")
        panels[name], dots[name] = rows, rows[rows["both"]]
    _draw_maps(
        panels,
        dots,
        "excess",
        "score above the base rate",
        folder,
        "patterns",
        f"{title}\nwhere each head looks",
        caption,
    )


@STYLE
def draw_words(words: pd.DataFrame, folder: Path, title: str) -> None:
    """Draw layers by heads how much more mass the last query puts on words of a class than on random ones, a panel for
    each class; words: words.csv."""
    rows = words[words["class"] == OVERALL]
    panels = {str(name): part for name, part in rows.groupby("words", sort=False)}
    dots = {name: part[part["ci_low"] > 0] for name, part in panels.items()}
    caption = "Mass of the last query on words of a class, minus the mean over as many random tokens of the same text; "
    caption += "the first token is left out. Dot: surely more."
    _draw_maps(
        panels,
        dots,
        "difference",
        "mass above random tokens",
        folder,
        "words",
        f"{title}\nthe words that the last query looks at",
        caption,
    )


def _draw_maps(
    panels: dict[str, pd.DataFrame],
    dots: dict[str, pd.DataFrame],
    column: str,
    scale: str,
    folder: Path,
    name: str,
    title: str,
    caption: str,
) -> None:
    maps = {label: pivot_heads(rows, column) for label, rows in panels.items()}
    figure, grid, cell = make_map_panels(len(maps), *next(iter(maps.values())).shape)
    limit = find_colour_limit(maps.values())
    for axes, (label, values) in zip(grid, maps.items(), strict=True):
        draw_heat_map(axes, values, SIGNED, limit, cell)
        mark_cells(axes, dots[label], cell)
        axes.set(title=panel_title(label, len(maps)), xlabel="head", ylabel="layer")
    draw_scale(figure, grid, scale)
    add_heading(figure, title, caption)
    save_twice(figure, folder, name)
