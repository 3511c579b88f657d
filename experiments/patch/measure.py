"""Measure cells and edges of all pairs, in both directions, with a progress bar, and keep what is done on disk."""

import hashlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from lab.kept import read_result, write_result
from lab.progress import forecast, progress_bar
from lab.sweep import Ablation
from lab.units import SUBSPACE
from model import GPT2Config, InputError, Trace

from .cells import HEAD_KINDS, Cell, Kind, Metric, patch_all_heads, patch_cells, patch_subspaces, record
from .estimates import estimate_cells, integrate_cells, look_up
from .pairs import Pair
from .paths import Edge, LayerNormName, estimate_edges, patch_edges
from .subject import Subject

Direction = Literal["denoise", "noise"]
CELL = ["kind", "layer", "head", "position"]
ROUNDING = 1e-6  # of the metric: a patch that changes it by less has changed nothing


@dataclass(frozen=True, eq=False)
class Runs:
    """A pair in one direction: the run that is patched (base), and the one that gives the cells (source)."""

    subject: Subject
    pair: Pair
    direction: Direction
    metric: Metric
    base_ids: list[int]
    base: Trace
    source: Trace

    @property
    def unpatched(self) -> dict[str, float]:
        """The metric of both texts as they are: `clean` and `corrupt`."""
        of_base, of_source = (float(self.metric.read(run.resid_pre[-1])) for run in (self.base, self.source))
        return dict(zip(NAMES[self.direction], (of_base, of_source), strict=True))

    def keep(self, name: str, depends: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """Return the result that is on disk under this name and depends on the same; else compute it and write it."""
        path = self.subject.folder / f"{self.pair.number}-{self.direction}-{name}.json"
        texts = {"texts": [self.pair.clean_ids, self.pair.corrupt_ids], "answers": list(self.pair.answers)}
        identity = {**self.subject.identity, **texts, **depends}
        if (result := read_result(path, identity)) is None:
            write_result(path, identity, result := compute())
        return result


NAMES = {"denoise": ("corrupt", "clean"), "noise": ("clean", "corrupt")}  # of the base and the source


def run_pair(subject: Subject, pair: Pair, direction: Direction) -> Runs:
    """Run both texts of a pair. `denoise`: the corrupt text is patched with cells of the clean one; `noise`: the clean
    text with cells of the corrupt one."""
    metric = Metric.between(subject.model, pair.answers)
    ids = {"clean": pair.clean_ids, "corrupt": pair.corrupt_ids}
    base_ids, source_ids = (ids[name] for name in NAMES[direction])
    base, source = record(metric.trunk, base_ids), record(metric.trunk, source_ids)
    return Runs(subject, pair, direction, metric, base_ids, base, source)


def each_run(subject: Subject, directions: Sequence[Direction], title: str) -> Generator[Runs]:
    """Yield every pair in every direction, with a progress bar of this title, which ends when this is closed."""
    with progress_bar("pairs") as bar:
        task = bar.add_task(title, total=len(subject.pairs) * len(directions), note="")
        for pair in subject.pairs:
            for direction in directions:
                yield run_pair(subject, pair, direction)
                bar.advance(task)


def list_cells(config: GPT2Config, T: int, kinds: Sequence[Kind], positions: bool) -> list[Cell]:
    """List the cells of a text of T tokens: by layer and position; of kinds that each head has, by layer and head, over
    all positions together, and with `positions` at each position, too."""
    cells = []
    for kind in kinds:
        for layer in range(config.n_layer):
            if kind in HEAD_KINDS:
                at = [None, *range(T)] if positions else [None]
                cells += [Cell(kind, layer, head, position) for head in range(config.n_head) for position in at]
            else:
                cells += [Cell(kind, layer, None, position) for position in range(T)]
    return cells


def estimate_all(
    subject: Subject, directions: Sequence[Direction], kinds: Sequence[Kind], positions: bool
) -> pd.DataFrame:
    """Return one row per pair, direction and cell: `pair, direction, kind, layer, head, position, clean, corrupt,
    estimate, integrated`. The last two estimate the effect, NaN where there is no such estimate."""
    tables = []
    with closing(each_run(subject, directions, "estimates")) as every_run:
        for runs in every_run:
            cells = list_cells(subject.config, len(runs.base_ids), kinds, positions)
            depends = {"kinds": list(kinds), "positions": positions}
            estimates = runs.keep("estimates", depends, partial(estimate_pair, runs, cells))
            table = pd.DataFrame([asdict(cell) for cell in cells], columns=CELL).astype(
                {"head": "Int64", "position": "Int64"}
            )
            table = table.assign(
                **runs.unpatched, **{name: np.array(values, float) for name, values in estimates.items()}
            )
            tables.append(table.assign(pair=runs.pair.number, direction=runs.direction))
    return pd.concat(tables, ignore_index=True)


def estimate_pair(runs: Runs, cells: Sequence[Cell]) -> dict[str, list[float | None]]:
    """Return both estimates of each cell; None where there is none."""
    first_order = estimate_cells(runs.metric, runs.base_ids, runs.source)
    integrated = integrate_cells(runs.metric, runs.base_ids, runs.source)
    return {
        "estimate": [look_up(first_order, cell) for cell in cells],
        "integrated": [look_up(integrated, cell) if cell.kind in integrated else None for cell in cells],
    }


def choose_by_estimate(cells: pd.DataFrame, most: int) -> pd.Series:
    """Return which cells of `estimate_all` have the largest estimates: bool, `most` of each map.

    A map is one kind of cells of one pair and direction. Over all positions together, all pairs choose the same heads:
    those with the largest sum of estimates."""
    everywhere = cells["position"].isna()
    sums = cells.groupby(["direction", "kind", "layer", "head", everywhere], dropna=False)["estimate"].transform("sum")
    size = sums.where(everywhere, cells["estimate"]).abs()
    maps = [cells["pair"], cells["direction"], cells["kind"], everywhere]
    return size.groupby(maps).rank(ascending=False, method="first") <= most


def patch_all(
    subject: Subject, cells: pd.DataFrame, chosen: pd.Series, controls: Sequence[Ablation]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Patch the chosen cells of `estimate_all`. Return the table with `patched` and `effect`, NaN where not chosen, and
    a table of what is no cell: `pair, direction, kind, layer, draw, effect`, of kind `random subspace` (of a head's
    size, the controls) and `all heads` (together, at all positions)."""
    patched, others = pd.Series(np.nan, cells.index), []
    by_run = dict(list(cells[chosen].groupby(["pair", "direction"])))
    with closing(each_run(subject, cells["direction"].unique().tolist(), "patches")) as every_run:
        for runs in every_run:
            rows = by_run[runs.pair.number, runs.direction]
            run_cells = [make_cell(row) for row in rows[CELL].itertuples(index=False)]
            depends = {"cells": hash_all(run_cells), "controls": [control.name for control in controls]}
            result = runs.keep("patches", depends, partial(patch_pair, runs, run_cells, controls))
            base = runs.unpatched[NAMES[runs.direction][0]]
            check_change(runs, np.array(result["cells"]) - base)
            patched[rows.index] = result["cells"]
            table = tabulate_others(controls, np.array([*result["controls"], result["all_heads"]]) - base)
            others.append(table.assign(pair=runs.pair.number, direction=runs.direction))
    unpatched = cells["corrupt"].where(cells["direction"] == "denoise", cells["clean"])
    return cells.assign(patched=patched, effect=patched - unpatched), pd.concat(others, ignore_index=True)


def make_cell(row: Any) -> Cell:
    head, position = (None if pd.isna(value) else int(value) for value in (row.head, row.position))
    return Cell(row.kind, int(row.layer), head, position)


def hash_all(items: Sequence[object]) -> str:
    """Return the SHA-256 of what these are, in order."""
    return hashlib.sha256(repr(items).encode()).hexdigest()


def tabulate_others(controls: Sequence[Ablation], effects: NDArray[np.floating]) -> pd.DataFrame:
    """Return a row for each control and, last, one for all heads together: `kind, layer, draw, effect`."""
    draws = [int(control.region.removeprefix(SUBSPACE)) for control in controls]
    columns = {
        "kind": ["random subspace"] * len(controls) + ["all heads"],
        "layer": pd.array([*(control.layer for control in controls), None], "Int64"),
        "draw": pd.array([*draws, None], "Int64"),
        "effect": effects,
    }
    return pd.DataFrame(columns)


def patch_pair(runs: Runs, cells: Sequence[Cell], controls: Sequence[Ablation]) -> dict[str, Any]:
    """Return the metric of the base run with each cell, each control, and all heads from the source run."""
    tokens, patched = runs.subject.device.tokens, (runs.metric, runs.base, runs.source)
    subspaces = [cast(tuple[int, Tensor], (control.layer, control.subspace)) for control in controls]
    return {
        "cells": patch_cells(*patched, cells, tokens).tolist(),
        "controls": patch_subspaces(*patched, subspaces, tokens).tolist(),
        "all_heads": patch_all_heads(*patched),
    }


def check_change(runs: Runs, effects: NDArray[np.floating]) -> None:
    """Raise InputError where no patch changes anything, for then nothing was patched."""
    if not np.abs(effects).max(initial=0) > ROUNDING * max(map(abs, runs.unpatched.values())):
        raise InputError(
            f"pair {runs.pair.number}, {runs.direction}: no patch changes the logits; the two texts do not differ for "
            "what was patched: take other texts, or more --kinds"
        )


def measure_edges(
    subject: Subject, directions: Sequence[Direction], name: str, edges: Sequence[Edge], layer_norm: LayerNormName
) -> pd.DataFrame:
    """Return one row per pair, direction and edge: the columns of paths.csv. `name` says which edges these are."""
    tables = []
    with closing(each_run(subject, directions, f"edges {name}")) as every_run:
        for runs in every_run:
            depends = {"edges": hash_all(edges), "layer_norm": layer_norm}
            result = runs.keep(f"edges {name}", depends, partial(measure_pair_edges, runs, edges, layer_norm))
            about = {"pair": runs.pair.number, "direction": runs.direction, "layer_norm": layer_norm}
            ends = pd.DataFrame([(str(edge.sender), str(edge.receiver), edge.input) for edge in edges], columns=EDGE)
            tables.append(ends.assign(**about, **result))
    return pd.concat(tables, ignore_index=True)[["pair", "direction", *EDGE, "layer_norm", "effect", "estimate"]]


EDGE = ["sender", "receiver", "input"]


def measure_pair_edges(runs: Runs, edges: Sequence[Edge], layer_norm: LayerNormName) -> dict[str, list[float]]:
    """Return the effect of each edge, and its estimate."""
    patched = patch_edges(runs.metric, runs.base, runs.source, edges, layer_norm, runs.subject.device.tokens)
    effect = patched - runs.unpatched[NAMES[runs.direction][0]]
    estimate = estimate_edges(runs.metric, runs.base_ids, runs.source, edges, layer_norm)
    return {"effect": effect.tolist(), "estimate": estimate.tolist()}


def forecast_patches(subject: Subject, cells: pd.DataFrame) -> str:
    """Say how long the patches of these cells take, by the time of some of the first pair."""
    lengths = cells["pair"].map({pair.number: len(pair.clean_ids) for pair in subject.pairs})
    work = ((subject.config.n_layer - cells["layer"]) * lengths).sum()  # layers times tokens
    runs, L = run_pair(subject, subject.pairs[0], "denoise"), subject.config.n_layer
    some = [Cell("z", layer, 0) for layer in range(L)] * 2
    for _ in range(2):  # the first time also pays for start-up
        started = time.perf_counter()
        patch_cells(runs.metric, runs.base, runs.source, some, subject.device.tokens)
        seconds = time.perf_counter() - started
    rate = sum(L - cell.layer for cell in some) * len(runs.base_ids) / seconds
    return forecast(f"{len(cells):,} patches take", work, rate, subject.device)
