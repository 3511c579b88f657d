"""What the ablations of a run found, in plain words: the tables of `ablate.py` as a page of Markdown.

It says nothing that the tables do not hold, and has no section about what was not measured."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from lab.report import label as plain
from lab.report import number, p_value, with_interval
from lab.report import table as markdown_table
from lab.stats import LEVEL, PERMUTATIONS
from lab.texts import OVERALL

from .importance import KEEP, Smallest
from .units import RANDOM
from .wording import CAVEATS, ESTIMATES, FILLS, HOW, KINDS, ORDERS, ZERO, named, title

TOP, FEW, FIRST = 10, 5, 3  # rows of a long table, rows of a short one, and how many are put in words
HIDDEN = {"log_prob": "log-probability", "accuracy": "accuracy"}


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
    """The page; `majority` is the accuracy on test of always naming the most frequent class.

    Columns that are read: `kind, layer, head, region, fill, split, class, metric, effect, ci_low, ci_high` of effects;
    `kind, layer, head, region, fill, class, n, baseline, val_effect, test_effect, ci_low, ci_high, p_holm, p_bh,
    rank` of significance; `kind, layer, head, region, fill, split, class, before, after, share, n` of flips; all
    of the others. What is absent or empty has no section."""
    tested = named(significance)
    overall = named(effects[(effects["split"] == "test") & (effects["class"] == OVERALL)])
    closed = effects[effects["kind"].map(lambda kind: KINDS[kind][1] == "closing")]
    optional = (
        (_flips, flips),
        (partial(_curves, majority=majority), curves),
        (_estimates, correlations),
        (_interactions, interactions),
    )
    sections = [
        ["# What each class needs", "", *(f"- {line}" for line in provenance)],
        [HOW, *_what_was_done(closed["fill"].unique(), tested), "", "## What was found"],
        *(_family(str(kind), str(fill), rows) for (kind, fill), rows in tested.groupby(["kind", "fill"], sort=False)),
        _disagreements(tested),
        [] if words is None else _words(overall[overall["kind"] == "words"], words),
        _regions(overall[overall["kind"].isin(["mask", "cut"]) & (overall["metric"] == "log_prob")]),
        *(section(table) for section, table in optional if table is not None and len(table)),
        [] if smallest is None else _smallest(smallest),
        ["## What this does not mean", "", CAVEATS, *([ZERO] if "zero" in set(closed["fill"]) else [])],
    ]
    return "\n".join(line for section in sections if section for line in [*section, ""])


def _what_was_done(fills: Iterable[str], tested: pd.DataFrame) -> list[str]:
    """What else a reader has to know, of what this page is about."""
    lines = [f"- Fill {fill}: {FILLS[fill]}." for fill in fills]
    if tested["kind"].isin(["mask", "cut"]).any():
        lines.append("- Masked: taken out before the softmax, the rest of the row rescaled. Cut: put to 0 after it.")
    margins = tested.pivot(index=["done", "fill"], columns="class", values="test_effect")
    if margins.shape[1] == 2 and np.allclose(margins.iloc[:, 0], margins.iloc[:, 1]):
        lines.append("- Two classes have one specific margin between them: every unit counts twice in what follows.")
    return lines


def _family(kind: str, fill: str, rows: pd.DataFrame) -> list[str]:
    """Which specific margins of one kind and fill survive, and which do not."""
    rows = rows.dropna(subset="p_holm").sort_values("test_effect", key=abs, ascending=False)
    heading = [f"### {title(kind, fill)}", ""]
    if rows.empty:
        return [*heading, "Nothing could be tested: no class has texts to compare with others."]
    found = rows[rows["p_holm"] < LEVEL]
    n, same = len(found), (np.sign(found["val_effect"]) == np.sign(found["test_effect"])).sum()
    size = f"{rows['unit'].nunique():,} units x {rows['class'].nunique()} classes"
    lines = [f"Of {len(rows):,} tests ({size}), {n:,} survive; by BH it is {(rows['p_bh'] < LEVEL).sum():,}."]
    if n:
        lines[0] += f" Of the {n:,}, {same:,} have the same sign on val."
        lines += ["", *map(_in_words, found.head(FIRST).to_dict("records")), "", *_survivors(found)]
    return [*heading, *lines, "", *_not_found(rows, found), *_alike(found, rows["class"].nunique())]


def _in_words(row: dict[Any, Any]) -> str:
    verb, sign = ("lowers", -1) if row["test_effect"] < 0 else ("raises", 1)
    low, high = sorted((sign * row["ci_low"], sign * row["ci_high"]))
    size = f"{number(abs(row['test_effect']))} [{number(low)}, {number(high)}]"
    return f"- {row['done']} {verb} the margin of {row['class']} on its own texts by {size}, relative to other texts."


def _survivors(found: pd.DataFrame) -> list[str]:
    header = ["unit", "class", "texts", "effect", "of baseline", "p (Holm)", "p (BH)", "effect on val", "rank on val"]
    cells = [
        [
            *(row["unit"], row["class"], f"{row['n']:,}", with_interval(row, "test_effect")),
            f"{row['test_effect'] / row['baseline']:+.0%}" if row["baseline"] > 0 else "",
            *(p_value(row["p_holm"]), p_value(row["p_bh"]), number(row["val_effect"]), f"{row['rank']:,}"),
        ]
        for row in found.head(TOP).to_dict("records")
    ]
    rest = ["", f"The {TOP} largest of {len(found):,}."] if len(found) > TOP else []
    return [markdown_table(header, cells), *rest]


def _not_found(rows: pd.DataFrame, found: pd.DataFrame) -> list[str]:
    """What did not survive, as plainly as what did."""
    without = [label for label in rows["class"].unique() if label not in set(found["class"])]
    best = rows.sort_values("p_holm", kind="stable").head(1).to_dict("records")[0]
    if found.empty:
        lines = [f"Nothing survives. The smallest p is {p_value(best['p_holm'])}: {best['unit']}, {best['class']}."]
    else:
        nothing = f"Nothing survives for {', '.join(without)}." if without else "Each class has some that survive."
        lines = [f"Not significant: the other {len(rows) - len(found):,}. {nothing}"]
    if (least := len(rows) / (PERMUTATIONS + 1)) >= LEVEL:
        lines.append(f"With {PERMUTATIONS:,} permutations, no p of so many tests can be below {p_value(least)}.")
    return lines


def _alike(found: pd.DataFrame, classes: int) -> list[str]:
    """Which units do the same to every class; of two classes, which share one margin, every unit does."""
    signs = np.sign(found["test_effect"]).groupby(found["unit"], sort=False).agg(["size", "nunique"])
    units = signs.index[(signs["size"] == classes) & (signs["nunique"] == 1)]
    if classes <= 2 or not len(units):
        return []
    names = f"{', '.join(units[:TOP])}{' and others' if len(units) > TOP else ''}"
    about = f"{len(units):,} of {signs.index.size:,} units survive for every class with the same sign: {names}."
    return ["", f"{about} Where their shares of the baseline are alike too, it is confidence that changes."]


def _disagreements(tested: pd.DataFrame) -> list[str]:
    """What survives with one fill and not with another, or with opposite signs."""
    effect = tested.pivot(index=["done", "class"], columns="fill", values="test_effect").dropna(thresh=2)
    if effect.empty:
        return []
    p = tested.pivot(index=["done", "class"], columns="fill", values="p_holm")
    survives = p.loc[effect.index] < LEVEL
    signs = np.sign(effect.where(survives))
    opposite = signs.max(axis=1) > signs.min(axis=1)
    some, agreed = survives.any(axis=1), (survives | effect.isna()).all(axis=1) & ~opposite
    lines = [
        f"Of {len(effect):,} specific margins measured with several fills, {some.sum():,} survive with one of them or "
        f"more: {agreed.sum():,} with all and the same sign, {opposite.sum():,} with opposite signs, "
        f"{(some & ~agreed & ~opposite).sum():,} with some of the fills only."
    ]
    chosen = effect[some & ~agreed].assign(opposite=opposite, size=effect.abs().max(axis=1))
    chosen = chosen.sort_values(["opposite", "size"], ascending=False).head(TOP)[effect.columns]
    cells = [
        [*key, *(f"**{number(x)}**" if bold else number(x) for x, bold in zip(row, survives.loc[key], strict=True))]
        for key, row in zip(chosen.index, chosen.to_numpy(), strict=True)
    ]
    if cells:
        about = f"Opposite signs first, then the largest, {TOP} at most; bold: survives."
        lines += ["", about, "", markdown_table(["what", "class", *effect.columns], cells)]
    return ["### Where fills disagree", "", *lines]


def _words(overall: pd.DataFrame, words: pd.DataFrame) -> list[str]:
    """Each class of words against as many random tokens.

    overall: effects over all texts of kind `words`; words: the paired differences, of which class `all` is read."""
    effect = overall.set_index(["region", "metric"])
    differences = words[words["class"] == OVERALL].set_index(["words", "metric"])
    names = differences.index.unique("words")
    cells = []
    for name in names:
        cells.append([name])
        for metric in HIDDEN:
            cells[-1] += [with_interval(effect.loc[region, metric], "effect") for region in (name, RANDOM + name)]
            cells[-1] += [with_interval(differences.loc[name, metric], "difference")]
    header = ["hidden", *(cell for name in HIDDEN.values() for cell in (name, "as many random tokens", "difference"))]
    loss = differences.xs("log_prob", level="metric")
    verdicts = {
        "lowers it more": loss.index[loss["ci_high"] < 0],
        "lowers it less": loss.index[loss["ci_low"] > 0],
        "makes no clear difference (the interval holds 0)": loss.index[(loss["ci_low"] <= 0) & (loss["ci_high"] >= 0)],
    }
    said = "; ".join(f"{', '.join(which)}: {verdict}" for verdict, which in verdicts.items() if len(which))
    about = "The log-probability of the true class, beside hiding as many random tokens of the same texts (paired)"
    return ["### Words against random tokens", "", markdown_table(header, cells), "", f"{about}: {said}."]


def _regions(rows: pd.DataFrame) -> list[str]:
    """Which regions of the attention maps all texts need most, and which not."""
    if rows.empty:
        return []
    worst = rows[rows["effect"] < 0].sort_values("effect").head(FIRST)
    lines = [f"- {row['done']} changes it by {with_interval(row, 'effect')}." for row in worst.to_dict("records")]
    for which, where in (
        ("holds 0", (rows["ci_low"] <= 0) & (rows["ci_high"] >= 0)),
        ("is above 0", rows["ci_low"] > 0),
    ):
        found = rows[where].sort_values("effect", key=abs)["done"]
        names = f": {', '.join(found.head(TOP))}{' and others' if len(found) > TOP else ''}" if len(found) else ""
        lines.append(f"- The interval of {len(found):,} of {len(rows):,} {which}{names}.")
    about = "The mean log-probability of the true class, over all texts:"
    return ["### Regions of the attention maps", "", about, "", *lines]


def _flips(flips: pd.DataFrame) -> list[str]:
    rows = named(flips[flips["split"] == "test"])
    largest = rows.sort_values("share", ascending=False, kind="stable").groupby("kind").head(FEW)
    largest = largest.sort_values("kind", key=lambda kind: kind.map(list(KINDS).index), kind="stable")
    cells = [
        [
            row["done"],
            row["fill"],
            row["class"],
            f"{row['before']} -> {row['after']}",
            f"{row['share']:.1%} of {row['n']:,}",
        ]
        for row in largest.to_dict("records")
    ]
    header = ["what", "fill", "true class", "prediction", "share of its texts"]
    return ["### Where predictions go", "", f"The {FEW} largest of each kind.", "", markdown_table(header, cells)]


def _curves(curves: pd.DataFrame, majority: float) -> list[str]:
    """How many heads can be closed, by each order, before too much of the accuracy is gone."""
    rows = curves[(curves["class"] == OVERALL) & (curves["metric"] == "accuracy")].sort_values("closed")
    whole, points = rows["value"].iloc[0], rows["closed"].unique()
    if whole <= majority:
        about = f"The whole network ({whole:.3f}) gains nothing over the most frequent class ({majority:.3f})."
        return ["### How many heads can be closed", "", about]
    floor = majority + KEEP * (whole - majority)
    kept = {}
    for order, own in rows.groupby("order", sort=False):
        enough = (own["value"] >= floor).cummin()  # before it falls below for the first time
        kept[str(order)] = int(own["closed"][enough].max())
    random = [n for order, n in kept.items() if order not in ORDERS]
    about = (
        f"{KEEP:.0%} of the gain in accuracy over the most frequent class, from {majority:.3f} to {whole:.3f}, is left "
        f"at {floor:.3f}. So many of {points.max()} heads can be closed before accuracy falls below that, measured at "
        f"{', '.join(map(str, points))}:"
    )
    lines = [f"- {name}: {kept[order]}" for order, name in ORDERS.items() if order in kept]
    lines += [f"- at random: {min(random)} to {max(random)}, over {len(random)} orders"] if random else []
    return ["### How many heads can be closed", "", about, "", *lines]


def _smallest(found: Smallest) -> list[str]:
    heads = ", ".join(found["open"]) or "none"
    return [
        f"### The smallest set of heads found for {KEEP:.0%} of the gain",
        "",
        f"{len(found['open'])} of {found['n_heads']} heads, with fill {found['fill']} for all others: {heads}. It was "
        f"found greedily on val, where it keeps {found['kept_val']:.1%} of the gain in accuracy over the most frequent "
        f"class. On test it keeps {found['kept_test']:.1%}: its accuracy is {found['accuracy_test']:.3f}, that of all "
        f"heads {found['accuracy']:.3f}, that of the most frequent class {found['majority']:.3f}. Another search may "
        "find a smaller one.",
    ]


def _estimates(correlations: pd.DataFrame) -> list[str]:
    values = correlations.pivot(index="estimate", columns="class", values="spearman")
    overall, classes = values[OVERALL], values.drop(columns=OVERALL)
    low, high = classes.min(axis=1), classes.max(axis=1)
    cells = [[name, f"{overall[key]:z.2f}", f"{low[key]:z.2f} to {high[key]:z.2f}"] for key, name in ESTIMATES.items()]
    fill = correlations["fill"].iloc[0]
    about = f"Spearman's correlation over the heads, on val, with how much closing each raises the loss, fill {fill}."
    header = ["estimate", "all texts", "over the texts of a class"]
    return ["### Cheap estimates of a head's importance", "", about, "", markdown_table(header, cells)]


def _interactions(table: pd.DataFrame) -> list[str]:
    strongest = table.sort_values("interaction", key=abs, ascending=False).head(FEW)
    apart = ((table["ci_low"] > 0) | (table["ci_high"] < 0)).sum()
    cells = [
        [
            *(f"{row['first']} & {row['second']}", row["fill"], plain(row["class"]), number(row["pair"])),
            *(number(row["first_effect"] + row["second_effect"]), with_interval(row, "interaction")),
        ]
        for row in strongest.to_dict("records")
    ]
    about = (
        "What closing two heads together does to the margin of a class, minus what closing each alone does. The "
        f"intervals of {apart:,} of {len(table):,} leave out 0. They are not corrected: one in twenty would do so by "
        f"chance. The {len(cells)} strongest:"
    )
    header = ["heads", "fill", "class", "together", "sum of each alone", "interaction"]
    return ["### Heads that interact", "", about, "", markdown_table(header, cells)]
