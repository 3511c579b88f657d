"""Measure cells and edges of all pairs, in both directions, with a progress bar, and keep what is done on disk."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal, TypeVar, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab.device import Device
from lab.kept import read_result, write_result
from lab.memory import halve_until_it_fits
from lab.progress import console, forecast, progress_bar
from lab.sweep import Ablation
from lab.sweeps import AGREEMENT
from lab.units import SUBSPACE
from model import GPT2Config, InputError, Trace

from .cells import HEAD_KINDS, Cell, Kind, Metric, patch_all_heads, patch_cells, patch_subspaces, record
from .estimates import estimate_cells, integrate_cells, look_up
from .pairs import Pair
from .paths import Edge, LayerNormName, estimate_edges, patch_edges
from .subject import Subject

Direction = Literal["denoise", "noise"]
CELL = ["kind", "layer", "head", "position"]
EDGE = ["sender", "receiver", "input"]
Result = TypeVar("Result")
RANDOM, ALL_HEADS = "random subspace", "all heads"  # kinds of what is patched beside cells
ROUNDING = 1e-6  # of the metric: a patch that changes it by less has changed nothing


@dataclass(frozen=True, eq=False)
class Runs:
    """A pair in one direction: the run that is patched (base), and the one that gives the cells (source).

    `denoise`: the corrupt text is patched with cells of the clean one; `noise`: the other way. Nothing runs before it
    is asked for: a result that was kept needs no run."""

    subject: Subject
    pair: Pair
    direction: Direction

    @cached_property
    def metric(self) -> Metric:
        return Metric.between(self.subject.model, self.pair.answers)

    @property
    def base_ids(self) -> list[int]:
        return self.pair.corrupt_ids if self.direction == "denoise" else self.pair.clean_ids

    @property
    def source_ids(self) -> list[int]:
        return self.pair.clean_ids if self.direction == "denoise" else self.pair.corrupt_ids

    @cached_property
    def base(self) -> Trace:
        return record(self.metric.trunk, self.base_ids)

    @cached_property
    def source(self) -> Trace:
        return record(self.metric.trunk, self.source_ids)

    def read_base(self) -> float:
        """Return the metric of the base run as it is."""
        return float(self.metric.read(self.base.resid_pre[-1]))

    def read_source(self) -> float:
        """Return the metric of the source run."""
        return float(self.metric.read(self.source.resid_pre[-1]))


def keep(runs: Runs, name: str, depends: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
    """Return the result of a pair and direction that is on disk under this name and depends on the same; else compute
    it and write it."""
    pair = hash_all([runs.pair])
    path = runs.subject.folder / f"pair {pair[:12]} {runs.direction} {name}.json".replace(" ", "-")
    identity = {**runs.subject.identity, **depends, "pair": pair}
    if (result := read_result(path, identity)) is None:
        write_result(path, identity, result := compute())
    return result


def map_runs(
    subject: Subject, directions: Sequence[Direction], title: str, compute: Callable[[Runs], Result]
) -> list[Result]:
    """Return what `compute` makes of every pair in every direction, with a progress bar of this title."""
    results = []
    with progress_bar("pairs") as bar:
        task = bar.add_task(title, total=len(subject.pairs) * len(directions), note="")
        for pair in subject.pairs:
            for direction in directions:
                results.append(compute(Runs(subject, pair, direction)))
                bar.advance(task)
    return results


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
    estimate = partial(estimate_pair, kinds=kinds, positions=positions)
    return pd.concat(map_runs(subject, directions, "estimates", estimate), ignore_index=True)


def estimate_pair(runs: Runs, kinds: Sequence[Kind], positions: bool) -> pd.DataFrame:
    """Return the rows of `estimate_all` of one pair and direction."""
    cells = list_cells(runs.subject.config, len(runs.base_ids), kinds, positions)

    def compute() -> dict[str, Any]:
        first_order = estimate_cells(runs.metric, runs.base_ids, runs.source)
        integrated = integrate_cells(runs.metric, runs.base_ids, runs.source, runs.subject.device.tokens)
        return {
            "base": runs.read_base(),
            "source": runs.read_source(),
            "estimate": [look_up(first_order, cell) for cell in cells],
            "integrated": [look_up(integrated, cell) if cell.kind in integrated else None for cell in cells],
        }

    kept = keep(runs, "estimates", {"kinds": list(kinds), "positions": positions}, compute)
    base, source = ("corrupt", "clean") if runs.direction == "denoise" else ("clean", "corrupt")
    table = pd.DataFrame([asdict(cell) for cell in cells], columns=CELL).astype({"head": "Int64", "position": "Int64"})
    table = table.assign(pair=runs.pair.number, direction=runs.direction)
    table[[base, source]] = kept["base"], kept["source"]
    return table.assign(estimate=kept["estimate"], integrated=np.array(kept["integrated"], float))


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
    a table of what is no cell: `pair, direction, kind, layer, draw, patched, effect`, of kind RANDOM (subspaces of a
    head's size, the controls) and ALL_HEADS (together, at all positions)."""
    by_run = dict(list(cells[chosen].groupby(["pair", "direction"])))
    directions = cells["direction"].unique().tolist()
    tables = map_runs(
        subject,
        directions,
        "patches",
        lambda runs: patch_pair(runs, by_run[runs.pair.number, runs.direction], controls),
    )
    patched = pd.concat(tables)
    is_cell = ~patched["kind"].isin([RANDOM, ALL_HEADS])
    check_change(patched[is_cell])
    effects = patched.loc[is_cell, ["patched", "effect"]].reindex(cells.index)
    return cells.join(effects), patched[~is_cell].drop(columns=["head", "position"]).reset_index(drop=True)


def patch_pair(runs: Runs, cells: pd.DataFrame, controls: Sequence[Ablation]) -> pd.DataFrame:
    """Return these cells of one pair and direction, by their index, then the controls and all heads together: CELL,
    `pair, direction, draw, patched, effect`."""
    to_patch = [make_cell(cell) for cell in cells[CELL].itertuples(index=False)]
    subspaces = [cast(tuple[int, Tensor], (control.layer, control.subspace)) for control in controls]
    length = len(runs.base_ids)

    def patch(tokens: int) -> list[float]:
        cells_patched = patch_cells(runs.metric, runs.base, runs.source, to_patch, tokens)
        random = patch_subspaces(runs.metric, runs.base, runs.source, subspaces, tokens)
        return [*cells_patched.tolist(), *random.tolist(), patch_all_heads(runs.metric, runs.base, runs.source)]

    def compute() -> dict[str, Any]:
        patched, _ = halve_until_it_fits(patch, runs.subject.device.tokens, len(cells) * length, length)
        return {"base": runs.read_base(), "patched": patched}

    depends = {"cells": hash_all(to_patch), "controls": [control.name for control in controls]}
    result = keep(runs, "patches", depends, compute)
    patched = np.array(result["patched"])
    draws = [int(control.region.removeprefix(SUBSPACE)) for control in controls]
    others = pd.DataFrame({"kind": [RANDOM] * len(controls) + [ALL_HEADS], "draw": pd.array([*draws, None], "Int64")})
    others["layer"] = pd.array([*(control.layer for control in controls), None], "Int64")
    table = pd.concat([cells[CELL], others])
    about = {"pair": runs.pair.number, "direction": runs.direction}
    return table.assign(**about, patched=patched, effect=patched - result["base"])


def make_cell(row: Any) -> Cell:
    head, position = (None if pd.isna(value) else int(value) for value in (row.head, row.position))
    return Cell(row.kind, int(row.layer), head, position)


def hash_all(items: Sequence[object]) -> str:
    """Return the SHA-256 of what these are, in order."""
    return hashlib.sha256(repr(items).encode()).hexdigest()


def check_change(patched: pd.DataFrame) -> None:
    """Raise InputError where no patch of a kind changes anything in any pair: then nothing was patched.

    What heads look at may really be the same (in one layer, the query of a last token that is in both texts): of q, k
    and patterns this is only said. patched: a row per patch, with `kind, patched, effect`."""
    for kind, rows in patched.groupby("kind", sort=False):
        if rows["effect"].abs().max() > ROUNDING * rows["patched"].abs().max():
            continue
        line = f"no patch of {kind} changes the logits in any pair"
        if kind not in ("q", "k", "pattern"):
            raise InputError(f"{line}: the two texts do not differ for it; take others, or leave it out with --kinds")
        console.print(line)


def measure_edges(
    subject: Subject, directions: Sequence[Direction], name: str, edges: Sequence[Edge], layer_norm: LayerNormName
) -> pd.DataFrame:
    """Return one row per pair, direction and edge: the columns of paths.csv. `name` says which edges these are."""
    measure = partial(measure_pair_edges, name=name, edges=edges, layer_norm=layer_norm)
    return pd.concat(map_runs(subject, directions, f"edges {name}", measure), ignore_index=True)


def measure_pair_edges(runs: Runs, name: str, edges: Sequence[Edge], layer_norm: LayerNormName) -> pd.DataFrame:
    """Return the rows of `measure_edges` of one pair and direction."""
    length = len(runs.base_ids)

    def compute() -> dict[str, list[float]]:
        patch = partial(patch_edges, runs.metric, runs.base, runs.source, edges, layer_norm)
        patched, _ = halve_until_it_fits(patch, runs.subject.device.tokens, len(edges) * length, length)
        estimate = estimate_edges(runs.metric, runs.base_ids, runs.source, edges, layer_norm)
        return {"effect": (patched - runs.read_base()).tolist(), "estimate": estimate.tolist()}

    kept = keep(runs, f"edges {name} {layer_norm}", {"edges": hash_all(edges)}, compute)
    ends = pd.DataFrame([(str(edge.sender), str(edge.receiver), edge.input) for edge in edges], columns=EDGE)
    table = ends.assign(pair=runs.pair.number, direction=runs.direction, layer_norm=layer_norm, **kept)
    return table[["pair", "direction", *EDGE, "layer_norm", "effect", "estimate"]]


def forecast_patches(subject: Subject, cells: pd.DataFrame, controls: int) -> str:
    """Say how long it takes to patch these cells, and so many controls of each layer for each pair and direction, if
    none was patched by an earlier call: by the time of some patches of the first pair."""
    L, lengths = subject.config.n_layer, {pair.number: len(pair.clean_ids) for pair in subject.pairs}
    work = ((L - cells["layer"]) * cells["pair"].map(lengths)).sum()  # layers times tokens
    work += controls * L * (L + 1) / 2 * sum(lengths.values()) * cells["direction"].nunique()
    runs = Runs(subject, subject.pairs[0], "denoise")
    some = [Cell("z", layer, 0) for layer in range(L)] * 2
    for _ in range(2):  # the first time also pays for start-up
        started = time.perf_counter()
        patch_cells(runs.metric, runs.base, runs.source, some, subject.device.tokens)
        seconds = time.perf_counter() - started
    rate = sum(L - cell.layer for cell in some) * len(runs.base_ids) / seconds
    return forecast(f"{len(cells):,} patches, before the edges, take", work, rate, subject.device)


def check_device(subject: Subject) -> None:
    """Raise InputError where patches of heads do not do on this device what they do on the CPU."""
    if subject.device.device.type == "cpu":
        return
    on_cpu = replace(subject, model=deepcopy(subject.model).cpu(), device=Device(torch.device("cpu"), "fp32"))
    cells = [Cell(kind, layer, 0) for kind in HEAD_KINDS for layer in range(subject.config.n_layer)]
    expected, came = (
        patch_cells(runs.metric, runs.base, runs.source, cells, runs.subject.device.tokens)
        for runs in (Runs(each, subject.pairs[0], "denoise") for each in (on_cpu, subject))
    )
    off = (came - expected).abs().max() / expected.abs().max()
    if not off < AGREEMENT["fp32"]:
        raise InputError(f"{subject.device} patches otherwise than the CPU, off by {off:.1%}; try --device cpu")
