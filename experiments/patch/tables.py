"""What the effects of single cells in single pairs say together: averages with limits, controls, and how good the
estimates are."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from lab.shares import FEWEST, LEAST, judge_limits
from lab.stats import LEVEL, resamples, simultaneous_limits
from lab.units import head_name

from .measure import ALL_HEADS, RANDOM
from .pairs import GAP, Pair

FEWEST_CELLS = 3  # of a map; fewer cannot be ranked
PATCH = [  # columns of patch.csv
    *["pair", "direction", "kind", "layer", "head", "position", "token", "metric"],
    *["clean", "corrupt", "patched", "effect", "normalised", "estimate", "integrated"],
]
VALUES = ["effect", "estimate", "integrated"]
Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


def finish_cells(cells: pd.DataFrame, pairs: Sequence[Pair], tokens: Mapping[int, Sequence[str]]) -> pd.DataFrame:
    """Return the measured cells with the columns of patch.csv. tokens: those of the clean text, by pair.

    normalised is the effect over the gap, which is clean minus corrupt: 1 restores all of it (denoise), -1 takes all of
    it away (noise). It is empty where the gap is below GAP, for there a small effect would be a large share."""
    names = {pair.number: " - ".join(pair.names) for pair in pairs}
    gap = cells["clean"] - cells["corrupt"]
    return cells.assign(
        token=["" if pd.isna(at) else tokens[n][at] for n, at in zip(cells["pair"], cells["position"], strict=True)],
        metric=cells["pair"].map(names),
        normalised=normalise(cells["effect"], gap),
    )[PATCH]


def normalise(effects: pd.Series, gap: pd.Series) -> pd.Series:
    """Return effects as shares of their gaps, NaN where the gap is below GAP."""
    return (effects / gap).where(gap.abs() >= GAP)


def average_cells(
    cells: pd.DataFrame, controls: pd.DataFrame, pairs: Sequence[Pair], kept: pd.DataFrame
) -> pd.DataFrame:
    """Return the average of each cell over the pairs: `direction, kind, layer, head, tokens`, the columns of `average`,
    and `controls, control_share, specific`.

    Texts differ in length, so positions are put together: `changed` is a token that differs between the two texts,
    `last` the last one, `between` one in between (the mean over such tokens of a text), `changed and last` one from
    which nothing has to be carried on; `all` is all together.
    Heads at all positions (kind z) are compared with random subspaces of their size: `specific` says that a head
    matters and does more than 95 % of those of its layer do, in the same direction."""
    by_number = {pair.number: pair for pair in pairs}
    where = [name_tokens(by_number[n], at) for n, at in zip(cells["pair"], cells["position"], strict=True)]
    keys = ["direction", "kind", "layer", "head", "tokens"]
    rows = cells.assign(tokens=where)[lambda table: table["tokens"] != "before"]
    groups = rows.groupby(["pair", *keys], dropna=False, sort=False)[VALUES]
    rows = groups.mean().where(groups.count().eq(groups.size(), axis=0))  # none where a token was not patched
    averages = average(rows.reset_index(), keys, kept)
    random = average(controls[controls["kind"] == RANDOM], ["direction", "layer", "draw"], kept)
    return compare_with_controls(averages, random)


def name_tokens(pair: Pair, position: int | None) -> str:
    """Return which tokens of a pair a position belongs to, see `average_cells`."""
    if pd.isna(position):
        return "all"
    if position < min(pair.positions):
        return "before"
    is_last = position == len(pair.clean_ids) - 1
    if position in pair.positions:
        return "changed and last" if is_last else "changed"
    return "last" if is_last else "between"


def average(effects: pd.DataFrame, keys: Sequence[str], kept: pd.DataFrame) -> pd.DataFrame:
    """Average effects over pairs: return the keys with `n` (pairs), `share, share_low, share_high, verdict`, and the
    estimates, averaged alike. kept: the rows of pairs.csv that were kept.

    The share is the sum of effects over the sum of gaps, so a pair with a small gap has little weight. Its limits hold
    with 95 % for all rows of one direction (and kind) at once, over other clean texts; pairs of one text are drawn
    together, and a row of fewer than FEWEST texts has none. The verdict is that of `judge_limits`, with LEAST of the
    gap; there is none where a pair lacks the effect."""
    groups = effects.groupby(list(keys), dropna=False, sort=False)
    row = groups.ngroup().to_numpy()
    column = effects["pair"].map(kept["pair"].tolist().index).to_numpy()
    gap = kept["gap"].where(kept["gap"].abs() >= GAP).to_numpy()

    def spread(values: pd.Series | NDArray[np.floating]) -> NDArray[np.floating]:
        """Return values of the rows of `effects` as a matrix, rows of the result by pairs; 0 where there is none."""
        matrix = np.zeros((groups.ngroups, len(kept)))
        matrix[row, column] = values
        return matrix

    gaps, effect = spread(gap[column]), spread(effects["effect"])
    table = effects.loc[~effects.duplicated(list(keys)), list(keys)].reset_index(drop=True)
    table = table.assign(n=(gaps != 0).sum(axis=1), share=effect.sum(axis=1) / gaps.sum(axis=1))
    family = table.groupby([key for key in keys if key in ("direction", "kind")]).ngroup().to_numpy()
    table["share_low"], table["share_high"] = limit_shares(effect, gaps, pd.factorize(kept["clean"])[0], family)
    verdict = judge_limits(table["share_low"].to_numpy(), table["share_high"].to_numpy(), LEAST)
    table["verdict"] = np.where(table["share"].isna(), "", verdict)
    estimates = [name for name in VALUES[1:] if name in effects]
    return table.assign(**{name: spread(effects[name]).sum(axis=1) / gaps.sum(axis=1) for name in estimates})


def limit_shares(effect: Floats, gaps: Floats, texts: Ints, family: Ints) -> tuple[Floats, Floats]:
    """Return the limits of summed effects over summed gaps (rows, pairs), for all rows of a family at once.

    texts: the number of the clean text of each pair; family: that of each row. NaN for rows of fewer than FEWEST texts:
    the bootstrap would draw the same few again and again, and call them sure."""
    low, high = np.full((2, len(gaps)), np.nan)
    of_text = np.eye(texts.max() + 1)[texts]  # (pairs, texts)
    n = ((gaps != 0) @ of_text > 0).sum(axis=1)  # texts of each row
    enough = n >= FEWEST
    if enough.any():
        weights = np.concatenate(list(resamples(of_text.shape[1])))[:, texts]  # (draws, pairs)
        with np.errstate(invalid="ignore"):
            resampled = weights @ effect.T / (weights @ gaps.T)
        share = effect.sum(axis=1) / gaps.sum(axis=1)
        for number in np.unique(family[enough]):
            rows = np.flatnonzero(enough & (family == number))
            low[rows], high[rows] = simultaneous_limits(share[rows], resampled[:, rows], n[rows])
    return low, high


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
                rows.append(about | {"method": method} | rate_estimates(group, column, name_cell))
    return pd.DataFrame(rows)


def compare_edge_estimates(paths: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of `compare_estimates` for edges: those of one pair and direction are a map."""
    gap = paths["pair"].map(kept.set_index("pair")["gap"])
    measured = paths.assign(normalised=normalise(paths["effect"], gap))[paths["effect"] != 0]
    about = {"kind": "edge", "positions": "all", "method": "attribution"}
    return pd.DataFrame(
        {"direction": direction} | about | rate_estimates(rows, "estimate", name_edge)
        for direction, rows in measured.groupby("direction", sort=False)
    )


def rate_estimates(measured: pd.DataFrame, column: str, name: Callable[[pd.Series], str]) -> dict[str, object]:
    """Return how good the estimates in a column are, over the maps of several pairs; `name` says what a row is."""
    maps = [rows[["effect", column]] for _, rows in measured.groupby("pair")]
    differ = [values for values in maps if len(values) >= FEWEST_CELLS and values.nunique().min() > 1]
    ranked = [spearmanr(values).statistic for values in differ]
    miss = (measured[column] - measured["effect"]) * measured["normalised"] / measured["effect"]
    worst = measured.iloc[np.nanargmax(miss.abs())] if miss.notna().any() else None
    return {
        "maps": len(maps),
        "cells": len(measured),
        "spearman": np.median(ranked) if ranked else np.nan,
        "worst_miss": miss.abs().max(),
        "worst_pair": pd.NA if worst is None else worst["pair"],
        "worst_cell": "" if worst is None else name(worst),
    }


def name_edge(edge: pd.Series) -> str:
    return f"{edge['sender']} to {edge['receiver']}, {edge['input']}"


def name_cell(cell: pd.Series) -> str:
    """Write a cell as reports do: `z of head 3.1`, `mlp of layer 0 at 4 ( happy)`."""
    at = "" if pd.isna(cell["position"]) else f" at {cell['position']} ({cell['token'].strip()})"
    return f"{cell['kind']} of {name_place(cell)}{at}"


def name_place(cell: pd.Series) -> str:
    """Write where a cell is: `head 3.1`, or `layer 0` where it is no head's."""
    return f"layer {cell['layer']}" if pd.isna(cell["head"]) else f"head {head_name((cell['layer'], cell['head']))}"


def compare_sums(cells: pd.DataFrame, others: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """Return `direction, heads_one_by_one, heads_together`: the effects of patching each head alone, summed over all
    heads, and of patching all heads at once, as shares of the gap."""
    alone = cells[(cells["kind"] == "z") & cells["position"].isna()]
    summed = alone.groupby(["pair", "direction"])["effect"].agg(lambda effects: effects.sum(skipna=False)).reset_index()
    joint = others[others["kind"] == ALL_HEADS]
    table = average(summed, ["direction"], kept).rename(columns={"share": "heads_one_by_one"})
    joint_share = average(joint, ["direction"], kept).rename(columns={"share": "heads_together"})
    columns = ["direction", "heads_one_by_one"]
    return table[columns].merge(joint_share[["direction", "heads_together"]], on="direction")
