"""What the effects of single cells in single pairs say together: averages with limits, controls, and how good the
estimates are."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from lab.shares import LEAST
from lab.stats import LEVEL, resamples, simultaneous_limits

from .pairs import GAP, Pair

FEWEST = 10  # different clean texts; an average over fewer has no limits
FEWEST_CELLS = 3  # of a map; fewer cannot be ranked, nor can equal ones
PATCH = [  # columns of patch.csv
    *["pair", "direction", "kind", "layer", "head", "position", "token", "metric"],
    *["clean", "corrupt", "patched", "effect", "normalised", "estimate", "integrated"],
]
VALUES = ["effect", "estimate", "integrated"]


def finish_cells(cells: pd.DataFrame, pairs: Sequence[Pair], tokens: Mapping[int, Sequence[str]]) -> pd.DataFrame:
    """Return the measured cells with the columns of patch.csv. tokens: those of the clean text, by pair.

    normalised is the effect over the gap, which is clean minus corrupt: 1 restores all of it (denoise), -1 takes all of
    it away (noise). It is empty where the gap is below GAP, for there a small effect would be a large share."""
    names = {pair.number: " - ".join(pair.names) for pair in pairs}
    gap = cells["clean"] - cells["corrupt"]
    return cells.assign(
        token=["" if pd.isna(at) else tokens[n][at] for n, at in zip(cells["pair"], cells["position"], strict=True)],
        metric=cells["pair"].map(names),
        normalised=(cells["effect"] / gap).where(gap.abs() >= GAP),
    )[PATCH]


def average_cells(
    cells: pd.DataFrame, controls: pd.DataFrame, pairs: Sequence[Pair], kept: pd.DataFrame
) -> pd.DataFrame:
    """Return the average of each cell over the pairs: `direction, kind, layer, head, tokens`, the columns of `average`,
    and `controls, control_share, specific`.

    Texts differ in length, so positions are put together: `changed` is a token that differs between the two texts,
    `last` the last one, `between` one in between (the mean over such tokens of a text); `all` is all together.
    Heads at all positions (kind z) are compared with random subspaces of their size: `specific` says that a head
    matters and does more than 95 % of those of its layer do, in the same direction."""
    by_number = {pair.number: pair for pair in pairs}
    where = [name_tokens(by_number[n], at) for n, at in zip(cells["pair"], cells["position"], strict=True)]
    keys = ["direction", "kind", "layer", "head", "tokens"]
    rows = cells.assign(tokens=where)[lambda table: table["tokens"] != "before"]
    rows = rows.groupby(["pair", *keys], dropna=False, sort=False)[VALUES].agg(lambda x: x.mean(skipna=False))
    averages = average(rows.reset_index(), keys, kept)
    return compare_with_controls(averages, average(controls, ["direction", "layer", "draw"], kept))


def name_tokens(pair: Pair, position: int | None) -> str:
    """Return which tokens of a pair a position belongs to: all, before, changed, between or last."""
    if pd.isna(position):
        return "all"
    if position in pair.positions:
        return "changed"
    if position < min(pair.positions):
        return "before"
    return "last" if position == len(pair.clean_ids) - 1 else "between"


def average(effects: pd.DataFrame, keys: Sequence[str], kept: pd.DataFrame) -> pd.DataFrame:
    """Average effects over pairs: return the keys with `n` (pairs), `share, share_low, share_high, verdict`, and the
    estimates, averaged alike. kept: the rows of pairs.csv that were kept.

    The share is the sum of effects over the sum of gaps, so a pair with a small gap has little weight. Its limits hold
    with 95 % for all rows of one direction (and kind) at once, over other clean texts; pairs of one text are drawn
    together. A verdict is `matters` where they lie beyond LEAST of the gap, `negligible` where they lie within, else
    `open`."""
    groups = effects.groupby(list(keys), dropna=False, sort=False)
    row = groups.ngroup().to_numpy()
    column = effects["pair"].map(kept["pair"].tolist().index).to_numpy()
    gap = kept["gap"].where(kept["gap"].abs() >= GAP).to_numpy()

    def sum_up(values: pd.Series | NDArray[np.floating]) -> NDArray[np.floating]:  # (rows, pairs)
        matrix = np.zeros((groups.ngroups, len(kept)))
        matrix[row, column] = values
        return matrix

    gaps, effect = sum_up(gap[column]), sum_up(effects["effect"])
    table = effects.loc[~effects.duplicated(list(keys)), list(keys)].reset_index(drop=True)
    table = table.assign(n=(gaps != 0).sum(axis=1), share=effect.sum(axis=1) / gaps.sum(axis=1))
    table[["share_low", "share_high"]] = np.nan
    texts, names = pd.factorize(kept["clean"])
    if len(names) >= FEWEST:
        weights = np.concatenate(list(resamples(len(names))))[:, texts]  # (draws, pairs)
        with np.errstate(invalid="ignore"):
            resampled = weights @ effect.T / (weights @ gaps.T)
        for family in table.groupby([key for key in keys if key in ("direction", "kind")]).indices.values():
            limits = simultaneous_limits(table["share"].to_numpy()[family], resampled[:, family])
            table.loc[family, ["share_low", "share_high"]] = np.stack(limits, axis=1)
    matters = (table["share_low"] > LEAST) | (table["share_high"] < -LEAST)
    negligible = (table["share_low"] >= -LEAST) & (table["share_high"] <= LEAST)
    table["verdict"] = np.select([matters, negligible], ["matters", "negligible"], "open")
    estimates = [name for name in VALUES[1:] if name in effects]
    return table.assign(**{name: sum_up(effects[name]).sum(axis=1) / gaps.sum(axis=1) for name in estimates})


def compare_with_controls(averages: pd.DataFrame, random: pd.DataFrame) -> pd.DataFrame:
    """Add `controls, control_share, specific` to averages of cells: how many random subspaces the layer has, what 95 %
    of them do at most in the direction of the head, and whether the head matters and does more. NA for other cells."""
    share = random.groupby(["direction", "layer"])["share"]
    limits = pd.DataFrame({"controls": share.size(), "low": share.quantile(LEVEL), "high": share.quantile(1 - LEVEL)})
    table = averages.merge(limits.reset_index(), on=["direction", "layer"], how="left")
    is_head = (table["kind"] == "z") & (table["tokens"] == "all")
    loses = table["share"] < 0
    limit = table.pop("low").where(loses, table.pop("high")).where(is_head)
    beyond = (table["share"] < limit).where(loses, table["share"] > limit)
    specific = (
        ((table["verdict"] == "matters") & beyond).astype("boolean").mask(limit.isna() | table["share_low"].isna())
    )
    return table.assign(controls=table["controls"].where(is_head), control_share=limit, specific=specific)


def compare_estimates(cells: pd.DataFrame) -> pd.DataFrame:
    """Return how good the estimates are: `direction, kind, positions, method, maps, cells, spearman, worst_miss,
    worst_pair, worst_cell`.

    A map is one pair's cells of one kind: at each position (`each`), or over all together (`all`). Cells that do
    nothing for certain (they lie before the first difference) are left out, for they would agree anyway. spearman: the
    median over maps of the rank correlation with the exact effects. worst_miss: the largest difference from an exact
    effect, as a share of the gap of its pair."""
    measured = cells[cells["effect"].notna() & (cells["effect"] != 0)]
    positions = measured["position"].isna().map({True: "all", False: "each"}).rename("positions")
    rows = []
    for key, group in measured.groupby(["direction", "kind", positions], sort=False):
        for method, column in (("attribution", "estimate"), ("integrated", "integrated")):
            if group[column].notna().any():
                about = dict(zip(("direction", "kind", "positions"), key, strict=True))
                rows.append(about | {"method": method} | rate_estimates(group, column))
    return pd.DataFrame(rows)


def rate_estimates(cells: pd.DataFrame, column: str) -> dict[str, object]:
    """Return how good the estimates in a column are, over the maps of several pairs."""
    maps = [rows[["effect", column]] for _, rows in cells.groupby("pair")]
    differ = [values for values in maps if len(values) >= FEWEST_CELLS and values.nunique().min() > 1]
    ranked = [spearmanr(values).statistic for values in differ]
    miss = (cells[column] - cells["effect"]) * cells["normalised"] / cells["effect"]
    worst = cells.iloc[np.nanargmax(miss.abs())] if miss.notna().any() else None
    return {
        "maps": len(maps),
        "cells": len(cells),
        "spearman": np.median(ranked) if ranked else np.nan,
        "worst_miss": miss.abs().max(),
        "worst_pair": pd.NA if worst is None else worst["pair"],
        "worst_cell": "" if worst is None else name_cell(worst),
    }


def name_cell(cell: pd.Series) -> str:
    """Write a cell as reports do: `z of head 3.1`, `mlp of layer 0 at 4 ( happy)`."""
    place = f"layer {cell['layer']}" if pd.isna(cell["head"]) else f"head {cell['layer']}.{cell['head']}"
    at = "" if pd.isna(cell["position"]) else f" at {cell['position']} ({cell['token'].strip()})"
    return f"{cell['kind']} of {place}{at}"


def compare_sums(cells: pd.DataFrame, others: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """Return `direction, heads_one_by_one, heads_together`: the effects of patching each head alone, summed over all
    heads, and of patching all heads at once, as shares of the gap."""
    alone = cells[(cells["kind"] == "z") & cells["position"].isna()]
    summed = alone.groupby(["pair", "direction"])["effect"].agg(lambda effects: effects.sum(skipna=False)).reset_index()
    joint = others[others["kind"] == "all heads"]
    table = average(summed, ["direction"], kept).rename(columns={"share": "heads_one_by_one"})
    joint_share = average(joint, ["direction"], kept).rename(columns={"share": "heads_together"})
    columns = ["direction", "heads_one_by_one"]
    return table[columns].merge(joint_share[["direction", "heads_together"]], on="direction")
