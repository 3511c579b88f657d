"""What the patches found: the numbers and tables that `report.md.jinja` shows.

The sentences stand in that file. This one computes what they say, one function for each section of the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lab.report import render
from lab.shares import FEWEST, LEAST

from .cells import STREAM_KINDS
from .circuit import FOLLOWED
from .estimates import NODES
from .measure import EDGE
from .pairs import GAP
from .tables import name_place

TEMPLATE = Path(__file__).with_name("report.md.jinja")
TOP, FEW = 10, 3  # names and rows of a long list, and rows of one kind or class in a table of several
CONSTANTS = {
    "least": LEAST,
    "fewest": FEWEST,
    "least_gap": GAP,
    "nodes": NODES,
    "top": TOP,
    "followed_at_most": FOLLOWED,
}
TOKENS = ("changed", "between", "last")
Section = dict[str, Any]  # what a section of the page shows, by name


def report(
    about: Sequence[str],
    tables: Mapping[str, pd.DataFrame],
    *,
    pictures: Sequence[Mapping[str, str]],
    estimate_first: int | None,
    layer_norm: str,
    followed: bool,
) -> str:
    """Return the page as Markdown, the answer first.

    tables: those of patch.py, by the names of their files. pictures: `file` and `text` of those that stand below the
    answer. estimate_first: how many cells of each map were patched, None: all. followed: were edges followed back from
    the logits (or those of named nodes measured)?"""
    averages = tables["averages"].assign(cell=tables["averages"].apply(_name_cell, axis=1))
    heads = averages[(averages["kind"] == "z") & (averages["tokens"] == "all")]
    return render(
        TEMPLATE,
        about=about,
        pictures=pictures,
        **CONSTANTS,
        pairs=_summarise_pairs(tables["pairs"]),
        has_limits=averages["share_low"].notna().any(),
        n_controls=int(heads["controls"].max()) if heads["controls"].notna().any() else 0,
        n_heads=len(heads),
        heads=_summarise_heads(heads),
        other_kinds=_list_other_kinds(averages),
        stream=_follow_stream(averages),
        sums=tables["sums"].dropna().to_dict("records"),
        estimates=tables["estimates"].to_dict("records"),
        estimate_first=estimate_first,
        paths=_summarise_paths(tables["edges"]),
        layer_norm=layer_norm,
        followed=followed,
        between=_summarise_between(tables["between"]) if "between" in tables else None,
    )


def _name_cell(row: pd.Series) -> str:
    return name_place(row) if row["tokens"] == "all" else f"{name_place(row)}, {row['tokens']}"


def _summarise_pairs(pairs: pd.DataFrame) -> Section:
    kept, dropped = pairs[pairs["kept"]], pairs[~pairs["kept"]]
    classes = kept.groupby(["clean_class", "corrupt_class"], sort=False).size().sort_values(ascending=False)
    return {
        "n": len(kept),
        "n_candidates": len(pairs),
        "n_texts": kept["clean"].nunique(),
        "n_small": (kept["gap"].abs() < GAP).sum(),
        "n_negative": (kept["gap"] < 0).sum(),
        "gap": kept["gap"].median(),
        "classes": classes.reset_index(name="n").to_dict("records"),
        "why": dropped["why"].value_counts().head(TOP).to_dict(),
        "first": kept.iloc[0].to_dict(),
    }


def _summarise_heads(heads: pd.DataFrame) -> Section | None:
    """Return which heads restore (denoise) and take away (noise), and where these agree; None without shares."""
    if heads["share"].isna().all():
        return None
    heads = heads.dropna(subset="share")
    heads = heads.assign(large=_is_large(heads), small=_is_small(heads))
    rows = heads[heads["large"]].sort_values("share", key=abs, ascending=False, kind="stable")
    helps = rows["share"].where(rows["direction"] == "denoise", -rows["share"]) > 0
    restore, needed = (rows["cell"][helps & (rows["direction"] == name)].tolist() for name in ("denoise", "noise"))
    small = {name: set(heads["cell"][heads["small"] & (heads["direction"] == name)]) for name in ("denoise", "noise")}
    agreement = {
        "both": [cell for cell in restore if cell in needed],
        "only_restore": [cell for cell in restore if cell in small["noise"]],
        "only_needed": [cell for cell in needed if cell in small["denoise"]],
    }
    decided = set().union(*agreement.values())
    largest = heads.sort_values("share", key=abs).groupby("direction").tail(1).sort_values("direction")
    return {
        "n": heads["cell"].nunique(),
        "directions": sorted(heads["direction"].unique()),
        "rows": {str(name): group.head(TOP).to_dict("records") for name, group in rows.groupby("direction")},
        "restore": restore,
        "needed": needed,
        "against": rows["cell"][~helps].unique().tolist(),
        **agreement,
        "undecided": [cell for cell in rows["cell"].unique() if cell in restore + needed and cell not in decided],
        "specific": rows["cell"][rows["specific"].fillna(False)].unique().tolist(),
        "largest": largest.to_dict("records"),
    }


def _is_large(rows: pd.DataFrame) -> pd.Series:
    """Return which shares surely matter or, where there are too few texts to know, are at least LEAST."""
    return (rows["verdict"] == "matters") | (rows["share_low"].isna() & (rows["share"].abs() >= LEAST))


def _is_small(rows: pd.DataFrame) -> pd.Series:
    """Return which shares are surely negligible or, where there are too few texts to know, below LEAST."""
    return (rows["verdict"] == "negligible") | (rows["share_low"].isna() & (rows["share"].abs() < LEAST))


def _list_other_kinds(averages: pd.DataFrame) -> list[Section]:
    """Return, for q, k, v and patterns, the heads with the largest shares, by direction."""
    rows = averages[averages["kind"].isin(["q", "k", "v", "pattern"]) & (averages["tokens"] == "all")]
    rows = rows[_is_large(rows)].sort_values("share", key=abs, ascending=False, kind="stable")
    return [
        {"kind": kind, "direction": direction, "rows": group.head(FEW).to_dict("records")}
        for (kind, direction), group in rows.groupby(["kind", "direction"], sort=False)
    ]


def _follow_stream(averages: pd.DataFrame) -> Section | None:
    """Return the shares of the residual stream, attention and MLPs, by layer, at the changed word, in between and at
    the last token; None where none of them was patched."""
    rows = averages[averages["kind"].isin(STREAM_KINDS) & (averages["tokens"] != "all")]
    if rows["share"].isna().all():
        return None
    shares = rows.assign(column=rows["kind"] + ", " + rows["tokens"])
    wide = shares.pivot(index=["direction", "layer"], columns="column", values="share")
    columns = [f"{kind}, {tokens}" for kind in STREAM_KINDS for tokens in TOKENS if f"{kind}, {tokens}" in wide]
    return {"columns": columns, "rows": wide.reset_index().to_dict("records")}


def _summarise_paths(edges: pd.DataFrame) -> Section:
    rows = edges[edges["strong"]].sort_values("share", key=abs, ascending=False, kind="stable")
    rows = rows.sort_values("direction", kind="stable")
    return {
        "n": len(edges[EDGE].drop_duplicates()),
        "receivers": sorted(edges["receiver"].unique()),
        "rows": rows.to_dict("records"),
    }


def _summarise_between(between: pd.DataFrame) -> Section:
    """Return, for each class, the heads that turn most texts of other classes towards it."""
    sure = between[(between["effect_low"] > 0) | (between["effect_high"] < 0)]
    rows = sure.sort_values("effect", ascending=False, kind="stable").groupby("to", sort=False).head(FEW)
    return {"n": len(between), "n_sure": len(sure), "rows": rows.sort_values("to", kind="stable").to_dict("records")}
