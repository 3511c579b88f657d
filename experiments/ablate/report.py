"""What the ablations of a run found: the numbers and tables that `report.md.jinja` shows.

The sentences stand in that file. This one computes what they say, one function for each section of the page."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab.compared import UNIT
from lab.fills import DRAWS
from lab.prompted import REFERENCE
from lab.report import render
from lab.shares import FEWEST, FEWEST_VAL, METRIC
from lab.stats import LEVEL, PERMUTATIONS
from lab.texts import OVERALL
from lab.units import RANDOM

from .importance import KEEP, Smallest
from .learnt import PENALTIES
from .wording import ACTIONS, DONE, KINDS, NOUNS, ORDERS, add_names

TEMPLATE = Path(__file__).with_name("report.md.jinja")
AGREE = 0.8  # sets of different seeds share at least so much, or else the learnt set is no finding
TOP, FEW, FIRST = 10, 5, 3  # rows of a long table, rows of a short one, and how many are put in words
CONSTANTS = {
    "level": LEVEL,
    "permutations": PERMUTATIONS,
    "fewest": FEWEST,
    "fewest_val": FEWEST_VAL,
    "draws": DRAWS,
    "reference": REFERENCE,
    "keep": KEEP,
    "agree": AGREE,
    "penalties": PENALTIES,
    "top": TOP,
    "few": FEW,
    "nouns_of": NOUNS,
    "done": DONE,
}
Section = dict[str, Any]  # what a section of the page shows, by name


def report(
    provenance: Sequence[str],
    tables: Mapping[str, pd.DataFrame],
    *,
    asked: str = "",
    pictures: Sequence[Mapping[str, str]] = (),
    majority: float,
    pretrained: bool,
    least: float,
    smallest: Smallest | None = None,
) -> str:
    """Return the page as Markdown, the answer first: what `verdicts` say of its first kind of units and fill.

    asked: what was ablated, where it is a prompt; pictures: `file` and `text` of those that stand below the answer;
    majority: the accuracy on test of always naming the most frequent class; pretrained: whether the runs started from
    the same weights; least: the smallest share of a class's margin that is of interest.

    Tables, by the name of their file: `verdicts, effects, significance`, and those of `seeds, agreement, words, flips,
    curves, correlations, gates, learnt_sets, interactions` that were made. A section of an empty table is left out."""
    verdicts, effects, significance = (tables[name] for name in ("verdicts", "effects", "significance"))
    overall = add_names(effects[(effects["split"] == "test") & (effects["class"] == OVERALL)])
    words = overall[overall["kind"] == "words"]
    attention = overall[overall["kind"].isin(["mask", "cut"]) & (overall["metric"] == "log_prob")]
    tested = _join_tests(verdicts, effects, significance)
    by_family = tested.groupby(["kind", "fill"], sort=False)
    families = [_summarise_family(str(kind), str(fill), rows) for (kind, fill), rows in by_family]

    def summarise(name: str, compute: Callable[[pd.DataFrame], Section]) -> Section | None:
        return None if name not in tables or tables[name].empty else compute(tables[name])

    return render(
        TEMPLATE,
        provenance=provenance,
        asked=asked,
        pictures=pictures,
        **CONSTANTS,
        least=least,
        pretrained=pretrained,
        fills=set(effects["fill"][~effects["kind"].isin(ACTIONS)]),
        classes_share_one_margin=_classes_share_one_margin(tested),
        answer=_summarise_answer(families[0], least),
        repeated=summarise("seeds", lambda table: _summarise_seeds(families[0], table, tables["agreement"])),
        families=families,
        fills_compared=_compare_fills(tested),
        words=summarise("words", lambda table: _compare_words(words, table)),
        regions=None if attention.empty else _rank_regions(attention),
        flips=summarise("flips", _select_flips),
        curves=summarise("curves", lambda table: _count_closed_heads(table, majority)),
        estimates=summarise("correlations", _summarise_estimates),
        gates=summarise("gates", lambda table: _summarise_gates(table, tables["learnt_sets"])),
        interactions=summarise("interactions", _select_interactions),
        smallest=smallest,
    )


def _join_tests(verdicts: pd.DataFrame, effects: pd.DataFrame, significance: pd.DataFrame) -> pd.DataFrame:
    """Return the verdicts with names, the share on val (`val_share`) and the corrected p-values."""
    key = [*UNIT, "fill", "class"]
    val = effects[(effects["split"] == "val") & (effects["metric"] == METRIC)].rename(columns={"share": "val_share"})
    tested = add_names(verdicts).merge(significance[[*key, "p_holm", "p_bh"]], how="left", on=key)
    return tested.merge(val[[*key, "val_share"]], how="left", on=key)


def _summarise_answer(family: Section, least: float) -> Section:
    """Return what the first sentences of the page say of a family of units."""
    rows = family["rows"]
    matters, is_open = rows[rows["verdict"] == "matters"], rows[rows["verdict"] == "open"]
    verdicts = rows.groupby("unit", sort=False)["verdict"].agg(set)
    reach = (is_open["share_high"] - is_open["share_low"]) / 2
    return {
        "n_units": len(verdicts),
        "n_matter": matters["unit"].nunique(),
        "n_negligible": sum(verdict == {"negligible"} for verdict in verdicts),
        "by_class": {label: list(group["unit"]) for label, group in matters.groupby("class", sort=False)},
        "classes_without": [label for label in rows["class"].unique() if label not in set(matters["class"])],
        "n_effects": len(rows),
        "n_effects_matter": len(matters),
        "n_compared": matters["controls"].notna().sum(),
        "specific": matters[matters["specific"].fillna(False)].to_dict("records"),
        "n_open": len(is_open),
        "n_without_limits": reach.isna().sum(),
        "reach": reach.median(),
        "factor": (reach.median() / least) ** 2,
    }


def _summarise_seeds(family: Section, seeds: pd.DataFrame, agreement: pd.DataFrame) -> Section:
    """Return what of a family of units repeats over the runs."""
    rows = add_names(seeds[(seeds["kind"] == family["kind"]) & (seeds["fill"] == family["fill"])])
    of_family = (agreement["kind"] == family["kind"]) & (agreement["fill"] == family["fill"])
    matter = rows[rows["matters_in"] > 0]
    matter = matter.sort_values(["matters_in", "mean_share"], key=abs, ascending=False, kind="stable")
    in_all = matter[matter["matters_in"] == matter["runs"]]
    return {
        "runs": rows["runs"].max(),
        "n_some": len(matter),
        "in_all": in_all.to_dict("records"),
        "n_specific_in_all": (in_all["specific_in"] == in_all["runs"]).sum(),
        "top": matter.head(TOP).to_dict("records"),
        "agreement": agreement[of_family].to_dict("records"),
    }


def _classes_share_one_margin(tested: pd.DataFrame) -> bool:
    shares = tested.pivot(index=["ablation", "fill"], columns="class", values="share")
    return shares.shape[1] == 2 and np.allclose(shares.iloc[:, 0], shares.iloc[:, 1], equal_nan=True)


def _summarise_family(kind: str, fill: str, rows: pd.DataFrame) -> Section:
    """Return what matters of the units of one kind, with one fill, the largest shares first."""
    rows = rows.sort_values("share", key=abs, ascending=False, kind="stable")
    matters = rows[rows["verdict"] == "matters"]
    return {
        "kind": kind,
        "fill": fill,
        "title": KINDS[kind] if kind in ACTIONS else f"{KINDS[kind]}, fill {fill}",
        "rows": rows,
        "n_tests": len(rows),
        "n_units": rows["unit"].nunique(),
        "n_classes": rows["class"].nunique(),
        "counts": {"matters": 0, "negligible": 0, "open": 0} | rows["verdict"].value_counts().to_dict(),
        "n_specific": matters["specific"].sum(),
        "n_controls": 0 if rows["controls"].isna().all() else int(rows["controls"].max()),  # of each unit
        "top": matters.head(TOP).to_dict("records"),
        "n_survivors": (rows["p_holm"] < LEVEL).sum(),
        "n_survivors_bh": (rows["p_bh"] < LEVEL).sum(),
        "smallest_possible_p": len(rows) / (PERMUTATIONS + 1),
    }


def _compare_fills(tested: pd.DataFrame) -> Section | None:
    """Return what matters with one fill and not with another, or with opposite signs; None if there is one fill."""
    share = tested.pivot(index=["ablation", "class"], columns="fill", values="share").dropna(thresh=2)
    if share.empty:
        return None
    verdict = tested.pivot(index=["ablation", "class"], columns="fill", values="verdict")
    matters = verdict.loc[share.index] == "matters"
    signs = np.sign(share.where(matters))
    opposite = signs.max(axis=1) > signs.min(axis=1)
    some, agreed = matters.any(axis=1), (matters | share.isna()).all(axis=1) & ~opposite
    order = pd.DataFrame({"opposite": opposite, "size": share.abs().max(axis=1)})[some & ~agreed]
    rows = []
    for ablation, label in order.sort_values(["opposite", "size"], ascending=False).head(TOP).index:
        percent = share.loc[(ablation, label)].map("{:+.1%}".format)
        bold = percent.where(~matters.loc[(ablation, label)], "**" + percent + "**")
        rows.append({"ablation": ablation, "class": label, "shares": list(bold)})
    return {
        "n": len(share),
        "n_some": some.sum(),
        "n_agreed": agreed.sum(),
        "n_opposite": opposite.sum(),
        "n_only_some": (some & ~agreed & ~opposite).sum(),
        "fills": list(share.columns),
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
    rows = rows[~rows["region"].str.startswith(RANDOM)]
    by_size = rows.sort_values("effect", key=abs)
    return {
        "n": len(rows),
        "worst": rows[rows["effect"] < 0].sort_values("effect").head(FIRST).to_dict("records"),
        "unclear": list(by_size["ablation"][(by_size["ci_low"] <= 0) & (by_size["ci_high"] >= 0)]),
        "above_0": list(by_size["ablation"][by_size["ci_low"] > 0]),
    }


def _select_flips(flips: pd.DataFrame) -> Section:
    rows = add_names(flips[(flips["split"] == "test") & ~flips["region"].str.startswith(RANDOM)])
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


def _summarise_gates(gates: pd.DataFrame, sets: pd.DataFrame) -> Section:
    """Return, for each class, the learnt set beside other sets on test, and how far the seeds agree on it."""
    rows = []
    for label, measured in sets[sets["split"] == "test"].groupby("class", sort=False):
        by_name, of_class = measured.set_index("set"), gates[gates["class"] == label]
        random = by_name["kept"][by_name.index.str.startswith("random")]
        learnt, ranking = by_name.loc["learnt"], by_name.loc["ranking"]
        row = {"class": label, "learnt": learnt, "ranking": ranking, "heads": learnt["heads"].split()}
        row |= {"random": random, "smallest": by_name.loc["smallest"] if "smallest" in by_name.index else None}
        row |= {"jaccard": _measure_overlap(of_class[of_class["penalty"] == learnt["penalty"]])}
        row |= {"spearman": _correlate_seeds(of_class), "enough": _learnt_on_val(sets, str(label)) >= KEEP}
        row |= {"stable": row["jaccard"] >= AGREE, "beats_random": learnt["kept"] > random.max()}
        row |= {"beats_ranking": ranking["difference_low"] > 0, "loses_to_ranking": ranking["difference_high"] < 0}
        rows.append(row)
    return {
        "rows": rows,
        "n_heads": len(gates[["layer", "head"]].drop_duplicates()),
        "seeds": gates["seed"].nunique(),
        "n_random": int(sets["set"].str.startswith("random").groupby(sets["class"]).sum().max()),
        "chosen": {
            name: [row["class"] for row in rows if chosen(row)]
            for name, chosen in {
                "found": lambda row: row["stable"] and row["beats_random"],
                "unstable": lambda row: not row["stable"],
                "not_better": lambda row: not row["beats_random"],
                "better": lambda row: row["beats_ranking"],
                "worse": lambda row: row["loses_to_ranking"],
                "like": lambda row: not row["beats_ranking"] and not row["loses_to_ranking"],
                "too_little": lambda row: not row["enough"],
            }.items()
        },
    }


def _learnt_on_val(sets: pd.DataFrame, label: str) -> float:
    """Return what the chosen set of a class keeps on val."""
    return float(sets["kept"][(sets["class"] == label) & (sets["split"] == "val") & sets["chosen"]].iloc[0])


def _measure_overlap(gates: pd.DataFrame) -> float:
    """Return the mean Jaccard index of the open heads of any two seeds: those that both share, over those of either."""
    opened = gates.pivot(index=["layer", "head"], columns="seed", values="open").to_numpy(bool).T
    pairs = [((a & b).sum(), (a | b).sum()) for a, b in combinations(opened, 2)]
    return float(np.mean([both / either if either else 1.0 for both, either in pairs]))


def _correlate_seeds(gates: pd.DataFrame) -> float:
    """Return Spearman's correlation of the probability of being open, mean over the penalties, of any two seeds."""
    mean = gates.groupby(["layer", "head", "seed"])["probability"].mean().unstack()
    between = mean.corr("spearman").to_numpy()
    return float(between[np.triu_indices(len(between), 1)].mean())


def _select_interactions(interactions: pd.DataFrame) -> Section:
    strongest = interactions.sort_values("interaction", key=abs, ascending=False).head(FEW)
    return {
        "n": len(interactions),
        "n_apart": ((interactions["ci_low"] > 0) | (interactions["ci_high"] < 0)).sum(),
        "rows": strongest.assign(alone=strongest["first_effect"] + strongest["second_effect"]).to_dict("records"),
    }
