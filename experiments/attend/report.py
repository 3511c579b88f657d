"""What attention over all texts looks like: the numbers and tables that `report.md.jinja` shows.

The sentences stand in that file. This one computes what they say."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lab.effects import read_effects
from lab.report import render
from lab.shares import FEWEST, METRIC
from lab.texts import OVERALL
from lab.units import head_name
from model.files import read_json

from .figures import NAMES
from .patterns import LONGEST, PATTERNS, RANDOM, ROWS, judge_heads

TEMPLATE = Path(__file__).with_name("report.md.jinja")
TOP = 4  # heads of a pattern or a class of words
Section = dict[str, Any]


def report(
    about: Sequence[str],
    heads: pd.DataFrame,
    words: pd.DataFrame,
    *,
    missing: Sequence[str],
    ablation: pd.DataFrame | str,
    head: str,
) -> str:
    """Return the page as Markdown, the answer first.

    heads, words: the tables. missing: lines on classes of words that cannot be had. ablation: `read_ablation`. head:
    the one of the pictures, empty where there are none."""
    judged = judge_heads(heads)
    judged = judged.assign(name=_name(judged)).sort_values("excess", ascending=False, kind="stable")
    patterns = [_summarise_pattern(judged[judged["pattern"] == pattern], pattern) for pattern in PATTERNS]
    classes = [_summarise_words(rows) for _, rows in words.groupby("words", sort=False)]
    named = {row["name"] for section in (*patterns, *classes) if section["n"] for row in section["rows"]} | {head}
    return render(
        TEMPLATE,
        about=about,
        patterns=patterns,
        n_heads=len(judged) // len(PATTERNS),
        has_random=bool(judged["random_score"].notna().any()),
        random=RANDOM,
        rows=ROWS,
        longest=LONGEST,
        fewest=FEWEST,
        words=classes,
        missing=missing,
        ablation=ablation if isinstance(ablation, str) else _select(ablation, named),
        head=head,
    )


def _name(table: pd.DataFrame) -> list[str]:
    return [head_name(head) for head in zip(table["layer"], table["head"], strict=True)]


def _summarise_pattern(judged: pd.DataFrame, pattern: str) -> Section:
    """Return the heads that follow a pattern, and the largest score; judged: its rows, the largest excess first."""
    both = judged[judged["both"]]
    return {
        "name": NAMES[pattern],
        "n": int(judged["n"].iloc[0]),
        "lowest": judged["base_rate"].min(),
        "highest": judged["base_rate"].max(),
        "n_both": len(both),
        "rows": both.head(TOP).to_dict("records"),
        "n_texts": int((judged["above"] & ~judged["both"]).sum()),
        "n_random": int((~judged["above"] & judged["random_above"]).sum()),
        "largest": judged.iloc[0].to_dict(),
    }


def _summarise_words(rows: pd.DataFrame) -> Section:
    """Return the heads that look at a class of words most, and where classes of texts differ.

    minus_others: the difference of a class from the texts of the others. That from all texts, its own among them, is
    smaller by the share of the others: of classes of different size only the former can be compared."""
    whole = rows[rows["class"] == OVERALL]
    minus_others = rows["minus_all"] / (1 - rows["n"] / whole["n"].iloc[0])
    rows = rows.assign(name=_name(rows), minus_others=minus_others)
    whole = rows[rows["class"] == OVERALL].sort_values("difference", ascending=False, kind="stable")
    differ = rows[(rows["minus_all_low"] > 0) | (rows["minus_all_high"] < 0)]
    differ = differ.sort_values("minus_others", key=abs, ascending=False, kind="stable")
    return {
        "name": rows["words"].iloc[0],
        "n": int(whole["n"].iloc[0]),
        "n_more": int((whole["ci_low"] > 0).sum()),
        "n_less": int((whole["ci_high"] < 0).sum()),
        "rows": whole.head(TOP).to_dict("records"),
        "n_differ": len(differ),
        "n_compared": int(rows["minus_all_low"].notna().sum()),
        "differ": differ.head(TOP).to_dict("records"),
    }


def read_ablation(run: Path, weights: str) -> pd.DataFrame | str:
    """Return what `make ablate` found of each head on test, the class with the largest share, or why there is nothing.

    weights: SHA-256 of the network, which must be the one that was ablated."""
    folder = run / "ablate"
    if not (folder / "effects.csv").is_file() or not (folder / "study.json").is_file():
        return "The run has no ablation yet: `make ablate` measures what is lost without each head."
    if read_json(folder / "study.json").get("weights") != weights:
        return "The run's ablation is of other weights: run `make ablate` once more."
    effects = read_effects(folder / "effects.csv")
    rows = effects[(effects["kind"] == "head") & (effects["split"] == "test") & (effects["metric"] == METRIC)]
    rows = rows.dropna(subset="share")
    if rows.empty:
        return "The run's ablation closed no heads: run `make ablate` with `--units heads`."
    fill = "mean" if "mean" in set(rows["fill"]) else rows["fill"].iloc[0]
    rows = rows[rows["fill"] == fill].sort_values("share", key=abs, kind="stable")
    return rows.groupby(["layer", "head"]).tail(1)


def _select(ablation: pd.DataFrame, names: set[str]) -> list[dict[Hashable, Any]]:
    """Return what was found of these heads, by layers and heads."""
    rows = ablation.assign(name=_name(ablation)).sort_values(["layer", "head"])
    return rows[rows["name"].isin(names)].to_dict("records")
