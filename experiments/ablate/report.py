"""What the ablations of a run found: the numbers and tables that `report.md.jinja` shows.

The sentences stand in that file. This one computes what they say, one function for each section of the page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab.fills import DRAWS
from lab.report import number, render
from lab.stats import LEVEL, PERMUTATIONS
from lab.texts import OVERALL
from lab.units import RANDOM

from .importance import KEEP, Smallest
from .wording import ACTIONS, KINDS, ORDERS, add_names

TEMPLATE = Path(__file__).with_name("report.md.jinja")
TOP, FEW, FIRST = 10, 5, 3  # rows of a long table, rows of a short one, and how many are put in words
CONSTANTS = {"level": LEVEL, "permutations": PERMUTATIONS, "draws": DRAWS, "keep": KEEP, "top": TOP, "few": FEW}
Section = dict[str, Any]  # what a section of the page shows, by name


def report(
    provenance: Sequence[str],
    majority: float,
    effects: pd.DataFrame,
    significance: pd.DataFrame,
    *,
    words: pd.DataFrame | None = None,
    flips: pd.DataFrame | None = None,
    curves: pd.DataFrame | None = None,
    correlations: pd.DataFrame | None = None,
    interactions: pd.DataFrame | None = None,
    smallest: Smallest | None = None,
) -> str:
    """Return the page as Markdown. `majority` is the accuracy on test of always naming the most frequent class.

    Columns that are read: `kind, layer, head, region, fill, split, class, metric, effect, ci_low, ci_high` of effects;
    `kind, layer, head, region, fill, class, n, baseline, val_effect, test_effect, ci_low, ci_high, p_holm, p_bh,
    rank` of significance; `kind, layer, head, region, fill, split, class, before, after, share, n` of flips; all
    of the others. A table that is None or empty has no section."""
    tested = add_names(significance)
    overall = add_names(effects[(effects["split"] == "test") & (effects["class"] == OVERALL)])
    attention = overall[overall["kind"].isin(["mask", "cut"]) & (overall["metric"] == "log_prob")]
    families = tested.groupby(["kind", "fill"], sort=False)
    return render(
        TEMPLATE,
        provenance=provenance,
        **CONSTANTS,
        fills=set(effects["fill"][~effects["kind"].isin(ACTIONS)]),
        attention_is_tested=tested["kind"].isin(["mask", "cut"]).any(),
        classes_share_one_margin=_classes_share_one_margin(tested),
        families=[_summarise_family(str(kind), str(fill), rows) for (kind, fill), rows in families],
        fills_compared=_compare_fills(tested),
        words=_if_measured(lambda table: _compare_words(overall[overall["kind"] == "words"], table), words),
        regions=_if_measured(_rank_regions, attention),
        flips=_if_measured(_select_flips, flips),
        curves=_if_measured(lambda table: _count_closed_heads(table, majority), curves),
        estimates=_if_measured(_summarise_estimates, correlations),
        interactions=_if_measured(_select_interactions, interactions),
        smallest=smallest,
    )


def _if_measured(compute: Callable[[pd.DataFrame], Section], table: pd.DataFrame | None) -> Section | None:
    return None if table is None or table.empty else compute(table)


def _classes_share_one_margin(tested: pd.DataFrame) -> bool:
    margins = tested.pivot(index=["ablation", "fill"], columns="class", values="test_effect")
    return margins.shape[1] == 2 and np.allclose(margins.iloc[:, 0], margins.iloc[:, 1])


def _summarise_family(kind: str, fill: str, rows: pd.DataFrame) -> Section:
    """Return which specific margins of one kind and fill survive, the largest first, and which do not."""
    title = KINDS[kind] if kind in ACTIONS else f"{KINDS[kind]}, fill {fill}"
    rows = rows.dropna(subset="p_holm").sort_values("test_effect", key=abs, ascending=False)
    if rows.empty:
        return {"title": title, "n_tests": 0}
    survivors = rows[rows["p_holm"] < LEVEL]
    top = survivors.head(TOP).to_dict("records")
    return {
        "title": title,
        "n_tests": len(rows),
        "n_units": rows["unit"].nunique(),
        "n_classes": rows["class"].nunique(),
        "n_survivors": len(survivors),
        "n_survivors_bh": (rows["p_bh"] < LEVEL).sum(),
        "n_same_sign": (np.sign(survivors["val_effect"]) == np.sign(survivors["test_effect"])).sum(),
        "first": [row | _drop_sign(row) for row in top[:FIRST]],
        "top": top,
        "classes_without": [label for label in rows["class"].unique() if label not in set(survivors["class"])],
        "smallest_p": rows.sort_values("p_holm", kind="stable").iloc[0].to_dict(),
        "smallest_possible_p": len(rows) / (PERMUTATIONS + 1),
        "n_units_surviving": survivors["unit"].nunique(),
        "units_alike": _find_units_alike(survivors, rows["class"].nunique()),
    }


def _drop_sign(row: dict[Any, Any]) -> dict[str, float]:
    sign = -1 if row["test_effect"] < 0 else 1
    low, high = sorted((sign * row["ci_low"], sign * row["ci_high"]))
    return {"change": sign * row["test_effect"], "ci_low": low, "ci_high": high}


def _find_units_alike(survivors: pd.DataFrame, n_classes: int) -> list[str]:
    """Return the units that do the same to every class; none where two classes share one margin."""
    if n_classes <= 2:
        return []
    signs = np.sign(survivors["test_effect"]).groupby(survivors["unit"], sort=False).agg(["size", "nunique"])
    return list(signs.index[(signs["size"] == n_classes) & (signs["nunique"] == 1)])


def _compare_fills(tested: pd.DataFrame) -> Section | None:
    """Return what survives with one fill and not with another, or with opposite signs; None if there is one fill."""
    effect = tested.pivot(index=["ablation", "class"], columns="fill", values="test_effect").dropna(thresh=2)
    if effect.empty:
        return None
    p = tested.pivot(index=["ablation", "class"], columns="fill", values="p_holm")
    survives = p.loc[effect.index] < LEVEL
    signs = np.sign(effect.where(survives))
    opposite = signs.max(axis=1) > signs.min(axis=1)
    some, agreed = survives.any(axis=1), (survives | effect.isna()).all(axis=1) & ~opposite
    order = pd.DataFrame({"opposite": opposite, "size": effect.abs().max(axis=1)})[some & ~agreed]
    rows = []
    for ablation, label in order.sort_values(["opposite", "size"], ascending=False).head(TOP).index:
        numbers = effect.loc[(ablation, label)].map(number)
        bold = numbers.where(~survives.loc[(ablation, label)], "**" + numbers + "**")
        rows.append({"ablation": ablation, "class": label, "effects": list(bold)})
    return {
        "n": len(effect),
        "n_some": some.sum(),
        "n_agreed": agreed.sum(),
        "n_opposite": opposite.sum(),
        "n_only_some": (some & ~agreed & ~opposite).sum(),
        "fills": list(effect.columns),
        "rows": rows,
    }


def _compare_words(effects: pd.DataFrame, words: pd.DataFrame) -> Section:
    """Return, for each class of words, the effect of hiding them, that of hiding as many random tokens, and the
    paired difference of the two. effects: over all texts, of kind `words`."""
    effect = effects.set_index(["metric", "region"])
    difference = words[words["class"] == OVERALL].set_index(["metric", "words"])
    rows: list[Section] = []
    for name in difference.index.unique("words"):
        rows.append({"name": name})
        for metric in ("log_prob", "accuracy"):
            rows[-1][metric] = {
                "words": effect.loc[(metric, name)],
                "random": effect.loc[(metric, RANDOM + name)],
                "difference": difference.loc[(metric, name)],
            }
    loss = difference.loc["log_prob"]
    more, less = loss["ci_high"] < 0, loss["ci_low"] > 0
    return {"rows": rows, "more": loss.index[more], "less": loss.index[less], "unclear": loss.index[~more & ~less]}


def _rank_regions(rows: pd.DataFrame) -> Section:
    """Return which regions of the attention maps all texts need most, and which they do not need."""
    by_size = rows.sort_values("effect", key=abs)
    return {
        "n": len(rows),
        "worst": rows[rows["effect"] < 0].sort_values("effect").head(FIRST).to_dict("records"),
        "unclear": list(by_size["ablation"][(by_size["ci_low"] <= 0) & (by_size["ci_high"] >= 0)]),
        "above_0": list(by_size["ablation"][by_size["ci_low"] > 0]),
    }


def _select_flips(flips: pd.DataFrame) -> Section:
    rows = add_names(flips[flips["split"] == "test"])
    largest = rows.sort_values("share", ascending=False, kind="stable").groupby("kind").head(FEW)
    largest = largest.sort_values("kind", key=lambda kind: kind.map(list(KINDS).index), kind="stable")
    return {"rows": largest.to_dict("records")}


def _count_closed_heads(curves: pd.DataFrame, majority: float) -> Section:
    """Return how many heads can be closed, by each order, before too much of the accuracy is gone."""
    rows = curves[(curves["class"] == OVERALL) & (curves["metric"] == "accuracy")].sort_values("closed")
    whole, points = rows["value"].iloc[0], rows["closed"].unique()
    floor = majority + KEEP * (whole - majority)
    closed = {}
    for order, curve in rows.groupby("order", sort=False):
        enough = (curve["value"] >= floor).cummin()  # before it falls below for the first time
        closed[order] = curve["closed"][enough].max()
    return {
        "majority": majority,
        "whole": whole,
        "floor": floor,
        "n_heads": points.max(),
        "points": points,
        "by_order": {name: closed[order] for order, name in ORDERS.items() if order in closed},
        "at_random": [n for order, n in closed.items() if order not in ORDERS],
    }


def _summarise_estimates(correlations: pd.DataFrame) -> Section:
    """Return each estimate's correlation over all texts, and its range over the classes."""
    values = correlations.pivot(index="estimate", columns="class", values="spearman")
    classes = values.drop(columns=OVERALL)
    table = pd.DataFrame({"overall": values[OVERALL], "low": classes.min(axis=1), "high": classes.max(axis=1)})
    return {"fill": correlations["fill"].iloc[0], "by_name": table.to_dict("index")}


def _select_interactions(interactions: pd.DataFrame) -> Section:
    strongest = interactions.sort_values("interaction", key=abs, ascending=False).head(FEW)
    return {
        "n": len(interactions),
        "n_apart": ((interactions["ci_low"] > 0) | (interactions["ci_high"] < 0)).sum(),
        "rows": strongest.assign(alone=strongest["first_effect"] + strongest["second_effect"]).to_dict("records"),
    }
