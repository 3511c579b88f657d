"""What the ablations of a run found: the numbers and tables that `report.md.jinja` shows.

The sentences stand in that file. This one computes what they say, one function for each section of the page."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from lab.compared import UNIT
from lab.fills import DRAWS
from lab.prompted import REFERENCE
from lab.report import render
from lab.shares import FEWEST, FEWEST_VAL, METRIC
from lab.stats import LEVEL, PERMUTATIONS, ROUNDING
from lab.texts import OVERALL
from lab.units import RANDOM

from .importance import KEEP, Smallest
from .learnt import PENALTIES
from .wording import ACTIONS, DONE, KINDS, NOUNS, ORDERS, add_names

TEMPLATE = Path(__file__).with_name("report.md.jinja")
AGREE = 0.5  # halfway from what random sets share to the same set: where seeds agree less, the set is no finding
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
    tested = _join_tests(*(tables[name] for name in ("verdicts", "effects", "significance")))
    by_family = tested.groupby(["kind", "fill"], sort=False)
    families = [_summarise_family(str(kind), str(fill), rows) for (kind, fill), rows in by_family]
    return render(
        TEMPLATE,
        provenance=provenance,
        asked=asked,
        pictures=pictures,
        **CONSTANTS,
        least=least,
        pretrained=pretrained,
        answer=_summarise_answer(families[0], least),
        families=families,
        fills_compared=_compare_fills(tested),
        classes_share_one_margin=_classes_share_one_margin(tested),
        **_summarise_effects(tables["effects"]),
        **_summarise_follow_ups(tables, families[0], majority),
        smallest=smallest,
    )


def _summarise_effects(effects: pd.DataFrame) -> Section:
    """Return the fills, and what regions of the attention maps do."""
    overall = add_names(effects[(effects["split"] == "test") & (effects["class"] == OVERALL)])
    attention = overall[overall["kind"].isin(["mask", "cut"]) & (overall["metric"] == "log_prob")]
    return {
        "fills": set(effects["fill"][~effects["kind"].isin(ACTIONS)]),
        "regions": None if attention.empty else _rank_regions(attention),
    }


def _summarise_follow_ups(tables: Mapping[str, pd.DataFrame], family: Section, majority: float) -> Section:
    """Return what the tables say that not every call makes, by section; None where a table is missing or empty."""
    sections: dict[str, tuple[str, Callable[[pd.DataFrame], Section]]] = {
        "repeated": ("seeds", lambda table: _summarise_seeds(family, table, tables["agreement"])),
        "words": ("words", lambda table: _compare_words(tables["effects"], table)),
        "flips": ("flips", _select_flips),
        "curves": ("curves", lambda table: _count_closed_heads(table, majority)),
        "estimates": ("correlations", _summarise_estimates),
        "gates": ("gates", lambda table: _summarise_gates(table, tables["learnt_sets"])),
        "interactions": ("interactions", _select_interactions),
    }
    return {
        section: None if name not in tables or tables[name].empty else compute(tables[name])
        for section, (name, compute) in sections.items()
    }


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
    paired difference of the two."""
    overall = effects[(effects["split"] == "test") & (effects["class"] == OVERALL) & (effects["kind"] == "words")]
    effect = overall.set_index(["metric", "region"])
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
    """Return, for each class, the learnt set beside other sets on test, and in words what is to be said of which."""
    on_val, on_test = sets[(sets["split"] == "val") & sets["chosen"]].set_index("class"), sets[sets["split"] == "test"]
    by_class = on_test.groupby("class", sort=False)
    rows = [_compare_learnt(gates, on_val.loc[[label]].iloc[0], of_class) for label, of_class in by_class]
    measured = [row for row in rows if row["measured"]]
    compared = [row for row in measured if row["comparable"]]

    def name_classes(chosen: Iterable[Section], condition: Callable[[Section], bool] = lambda row: True) -> list[str]:
        return [row["class"] for row in chosen if condition(row)]

    return {
        "rows": measured,
        "n_heads": len(gates[["layer", "head"]].drop_duplicates()),
        "n_val": on_val["n"].max(),
        "seeds": gates["seed"].nunique(),
        "n_few": on_test["n"][on_test["set"].str.startswith("random")].max(),
        "n_random": max((len(row["random"]) for row in rows), default=0),
        "chosen": {
            "findings": name_classes(compared, lambda row: row["stable"] and row["beats_random"]),
            "unstable": name_classes(compared, lambda row: not row["stable"]),
            "not_better": name_classes(compared, lambda row: not row["beats_random"]),
            "better": name_classes(compared, lambda row: row["difference_low"] > 0),
            "worse": name_classes(compared, lambda row: row["difference_high"] < 0),
            "like": name_classes(compared, lambda row: row["difference_low"] <= 0 <= row["difference_high"]),
            "too_little": name_classes(measured, lambda row: row["too_little"]),
            "alone": name_classes(row for row in measured if not row["comparable"]),
            "unmeasured": name_classes(row for row in rows if not row["measured"]),
        },
    }


def _compare_learnt(gates: pd.DataFrame, on_val: pd.Series, on_test: pd.DataFrame) -> Section:
    """Return what is known of the learnt set of one class: on_val is its row of val, on_test all rows of test.

    `measured`: val and test both say what is kept; `comparable`: there are other sets of its size."""
    by_name, of_class = on_test.set_index("set"), gates[gates["class"] == on_val.name]
    learnt, ranking = by_name.loc["learnt"], by_name.loc["ranking"]
    agreement = _measure_agreement(of_class[of_class["penalty"] == learnt["penalty"]])
    return {
        "class": on_val.name,
        "learnt": learnt,
        "heads": learnt["heads"].split(),
        "none": by_name.loc["none"],
        "ranking": ranking,
        "smallest": by_name.loc["smallest"] if "smallest" in by_name.index else None,
        "random": by_name["kept"][by_name.index.str.startswith("random")],
        "agreement": agreement,
        "spearman": _correlate_seeds(of_class),
        "measured": np.isfinite(on_val["kept"]) and np.isfinite(learnt["kept"]),
        "comparable": np.isfinite(learnt["p_holm"]),
        "stable": agreement >= AGREE,
        "beats_random": learnt["p_holm"] < LEVEL,
        "difference_low": ranking["difference_low"],
        "difference_high": ranking["difference_high"],
        "too_little": on_val["kept"] < KEEP,
    }


def _measure_agreement(gates: pd.DataFrame) -> float:
    """Return how far any two seeds open the same heads: 1 for the same set, 0 for what random sets of their size share.

    It is (J - J0) / (1 - J0): J is the Jaccard index, the heads that both open over those that either opens, J0 its
    mean over random sets, both means over the pairs of seeds. NaN where all seeds open all heads, or none."""
    opened = gates.pivot(index=["layer", "head"], columns="seed", values="open").to_numpy(bool).T
    pairs = list(combinations(opened, 2))
    shared = np.mean([(a & b).sum() / (a | b).sum() if (a | b).any() else 1.0 for a, b in pairs])
    by_chance = np.mean([_expect_overlap(len(a), a.sum(), b.sum()) for a, b in pairs])
    return float((shared - by_chance) / (1 - by_chance)) if by_chance < 1 - ROUNDING else np.nan


def _expect_overlap(n: int, a: int, b: int) -> float:
    """Return the mean Jaccard index of random sets of a and b out of n."""
    both = np.arange(max(0, a + b - n), min(a, b) + 1)
    return float(hypergeom.pmf(both, n, a, b) @ (both / (a + b - both))) if a + b else 1.0


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
