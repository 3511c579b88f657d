"""How time grows with texts, tokens, layers and heads, for fine-tuning and for the sweep, beside transformers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from lab import figures
from lab.device import Device
from lab.figures import COLOURS, STYLE
from model import GPT2Classifier, GPT2Config, save

from .contestants import Job, sweep_headgate, sweep_hooks, train_headgate, train_hf
from .slices import BATCH, draw_texts
from .turns import Contestant, take_turns

CODES: dict[str, dict[str, Contestant]] = {
    "fine-tuning": {"headgate": train_headgate, "Trainer": train_hf},
    "head sweep": {"headgate": sweep_headgate, "transformers, hooks": sweep_hooks},
}
AXES = {"texts": "texts", "tokens": "tokens per text", "layers": "layers", "heads": "heads closed, one by one"}


@dataclass(frozen=True)
class Point:
    """The size of one task to time."""

    texts: int
    tokens: int  # per text
    layers: int
    heads: int  # to close; fine-tuning closes none


def vary(base: Point, factors: Sequence[float]) -> dict[tuple[str, int], Point]:
    """Return, by dimension and value, the base with that dimension multiplied by each factor."""
    points = {}
    for dimension, factor in product(AXES, factors):
        value = round(factor * getattr(base, dimension))
        points[dimension, value] = replace(base, **{dimension: value})
    return points


def measure_scaling(folder: Path, device: Device, quick: bool) -> pd.DataFrame:
    """Time each point. Returns the shortest of its timed chunks, as `task, code, dimension, value, seconds`."""
    width = GPT2Config.preset("gpt2-mini").n_embd
    many = 16 if device.device.type == "cuda" else 1
    base, repeats = (Point(16 * many, 16, 2, 4), 3) if quick else (Point(64 * many, 32, 6, 12), 2)
    all_points, rows = vary(base, (0.5, 1, 2) if quick else (0.5, 1, 2, 4)), []
    for layers in {point.layers for point in all_points.values()}:
        torch.manual_seed(0)
        save(GPT2Classifier(GPT2Config(layers, 8, width), list("abc")), folder / f"{layers} layers")
    for task, codes in CODES.items():
        points = {key: point for key, point in all_points.items() if task == "head sweep" or key[0] != "heads"}
        distinct = list(dict.fromkeys(points.values()))  # the base occurs once in each dimension
        jobs = [[make_job(point, task, folder, device, repeats)] * len(codes) for point in distinct]
        outcomes = dict(zip(distinct, take_turns(list(codes.values()), jobs), strict=True))
        for (dimension, value), point in points.items():
            for code, outcome in zip(codes, outcomes[point], strict=True):
                rows.append((task, code, dimension, value, min(outcome.seconds[1:])))
    return pd.DataFrame(rows, columns=["task", "code", "dimension", "value", "seconds"])


def make_job(point: Point, task: str, folder: Path, device: Device, repeats: int) -> Job:
    """Return a job on texts of random tokens: one batch to warm up, then `repeats` chunks of all texts."""
    chunk = [np.arange(start, min(start + BATCH, point.texts)) for start in range(0, point.texts, BATCH)]
    heads = tuple(sorted((number % point.layers, number // point.layers) for number in range(point.heads)))
    texts, chunks = draw_texts(point.texts, point.tokens), [chunk[:1], *[chunk] * repeats]
    return Job(str(folder / f"{point.layers} layers"), device, texts, chunks, heads if task == "head sweep" else ())


def fit_power(values: pd.Series, seconds: pd.Series) -> float:
    """Return the power of `values` with which the seconds grow, fitted by least squares."""
    return float(np.polyfit(np.log(values), np.log(seconds), 1)[0])


@STYLE
def draw_scaling(scaling: pd.DataFrame, path: Path, title: str) -> None:
    """Draw a panel for each task and dimension, both axes logarithmic; the legends show the slopes."""
    figure = Figure(figsize=(14, 7), layout="constrained")
    grid = figure.subplots(len(CODES), len(AXES), sharey="row")
    for axes, (task, dimension) in zip(grid.flat, product(CODES, AXES), strict=True):
        panel = scaling[(scaling["task"] == task) & (scaling["dimension"] == dimension)]
        if panel.empty:  # fine-tuning closes no heads: this panel holds the legend of all
            lines = [axes.plot([], marker="o", color=colour)[0] for colour in COLOURS[:2]]
            axes.legend(lines, ["headgate", "transformers: the Trainer,\nor hooks on c_proj"], loc="center")
            axes.set_axis_off()
            continue
        for colour, (_, rows) in zip(COLOURS, panel.groupby("code", sort=False), strict=False):
            label = f"slope {fit_power(rows['value'], rows['seconds']):.2f}"
            axes.plot(rows["value"], rows["seconds"], marker="o", color=colour, label=label)
        axes.set(title=task, xlabel=AXES[dimension], xscale="log", yscale="log")
        axes.xaxis.set(major_locator=FixedLocator(sorted(set(panel["value"]))), minor_locator=NullLocator())
        axes.legend(loc="upper left")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    for axes in grid[:, 0]:
        axes.set_ylabel("seconds")
    figure.suptitle(f"How time grows; {title}")
    figures.save(figure, path)
