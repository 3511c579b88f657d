"""What a regulariser gains over none: differences paired by seed and text, their intervals, and a verdict by rule."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.paper.differences import COMPARED, JUDGED, add_verdicts, compare_arms
from experiments.paper.figures import draw_forest
from lab.metrics import Ints
from lab.report import label, p_value, table
from lab.stats import LEVEL

REFERENCE = "none"  # the arm that the others are compared with
HEADER = ("corpus", "train texts", "arm", "hidden", "none", "with it", "difference", "by seed", "p by Holm", "verdict")


@dataclass(frozen=True, eq=False)
class Measured:
    """A finished run."""

    corpus: str
    texts: int  # of train
    arm: str
    share: float  # of the (query, key) pairs, or of all heads' outputs, that its regulariser hides on average
    seed: int
    metrics: dict[str, Any]  # its metrics.json
    labels: tuple[str, ...]
    targets: Ints  # class numbers, int (n,), of the test texts
    predicted: Ints  # the same as the network predicts them


def tidy(measured: Sequence[Measured]) -> pd.DataFrame:
    """Return one row per run: `corpus, texts, arm, share, seed`, and accuracy and macro-F1 on val and test."""
    return pd.DataFrame(
        {name: getattr(run, name) for name in ("corpus", "texts", "arm", "share", "seed")}
        | {f"{split}_{metric}": run.metrics[split][metric] for split in ("val", "test") for metric in COMPARED}
        for run in measured
    )


def differences(measured: Sequence[Measured]) -> pd.DataFrame:
    """Return each arm minus none on test: one row per corpus, number of train texts, metric and arm.

    Columns `corpus, texts, arm, metric, n, seeds, value, none, difference, ci_low, ci_high, p, share, by_seed, p_holm,
    verdict`. `none`, `value` and `difference` are means over the seeds, `by_seed` has the difference of each; the rest
    is that of `compare_arms` and `add_verdicts`. All arms of a corpus and a number of texts are judged together."""
    rows: list[dict[str, Any]] = []
    for (corpus, texts), group in groupby(measured, key=lambda run: (run.corpus, run.texts)):
        arms: dict[str, list[Measured]] = {}
        for run in group:
            arms.setdefault(run.arm, []).append(run)
        none = arms.pop(REFERENCE)
        assert all([run.seed for run in arm] == [run.seed for run in none] for arm in arms.values())
        for row in compare_arms(none, arms, ("arm", "value", "none")):
            arm = arms[row["arm"]]
            by_seed = " ".join(f"{subtract(*pair, row['metric']):+.4f}" for pair in zip(arm, none, strict=True))
            rows.append({"corpus": corpus, "texts": texts} | row | {"share": arm[0].share, "by_seed": by_seed})
    return add_verdicts(pd.DataFrame(rows))


def subtract(run: Measured, reference: Measured, metric: str) -> float:
    return run.metrics["test"][metric] - reference.metrics["test"][metric]


def report(frame: pd.DataFrame, command: str) -> str:
    """Return a page of Markdown about `differences`: the answer in a sentence, the rule, and a table by metric, that of
    the judged one first."""
    judged, others = frame[frame["metric"] == JUDGED], frame[frame["metric"] != JUDGED]
    comparisons = "1 comparison" if len(judged) == 1 else f"{len(judged)} comparisons"
    rule = (
        f"The rule: a difference of {COMPARED[JUDGED]} on test is clear where its p, corrected by Holm's method for "
        f"{comparisons}, is below {LEVEL}. Each interval holds with 95 %, by itself, over other seeds and other texts."
    )
    page = [f"# Does it help to regularise attention? `{command}`", describe(judged), rule]
    page.append(f"## {COMPARED[JUDGED]} on test\n\n{table(HEADER, map(write_row, judged.to_dict('records')))}")
    for metric, rows in others.groupby("metric", sort=False):
        cells = (write_row(row)[:-2] for row in rows.to_dict("records"))
        page.append(f"## {COMPARED[str(metric)]} on test, which is not judged\n\n{table(HEADER[:-2], cells)}")
    return "\n\n".join(page) + "\n"


def write_row(row: dict[Any, Any]) -> list[str]:
    """Return the cells of a row of `differences`."""
    difference, p = f"{row['difference']:+z.3f}", "" if np.isnan(row["p_holm"]) else p_value(row["p_holm"])
    if not np.isnan(row["ci_low"]):
        difference += f" [{row['ci_low']:+z.3f}, {row['ci_high']:+z.3f}]"
    scores = [f"{row['share']:.1%}", f"{row['none']:.3f}", f"{row['value']:.3f}", difference, row["by_seed"], p]
    return [label(row["corpus"]), f"{row['texts']:,}", row["arm"], *scores, row["verdict"]]


def describe(judged: pd.DataFrame) -> str:
    """Return the answer in words, from the rows of one metric."""
    if (judged["seeds"] == 1).all():
        return "There is one seed: nothing is judged."
    sentences = []
    for verdict in ("clear gain", "clear loss"):
        rows = judged[judged["verdict"] == verdict]
        where = "; ".join(f"{row.arm} on {row.texts:,} texts of {row.corpus}" for row in rows.itertuples())
        sentences.append(f"A {verdict}: {where}." if where else f"No arm has a {verdict}.")
    return " ".join(sentences)


def draw(frame: pd.DataFrame, model: str, path: Path) -> None:
    """Draw the differences of `JUDGED` with their intervals, a panel for each corpus and number of train texts."""
    rows: list[dict[str, Any]] = []
    judged = frame[frame["metric"] == JUDGED]
    for (corpus, texts), group in judged.groupby(["corpus", "texts"], sort=False):
        n, seeds = group[["n", "seeds"]].iloc[0]
        panel = {"panel": f"{model} on {texts:,} texts of {corpus}: {n:,} test texts, seeds: {seeds}"}
        rows.append(panel | {"kind": REFERENCE, "name": REFERENCE, "value": 0.0, "reference": True})
        for row in group.itertuples():
            score = {"value": row.difference, "low": row.ci_low, "high": row.ci_high, "reference": False}
            rows.append(panel | {"kind": str(row.arm).split("-")[0], "name": row.arm} | score)
    scores = pd.DataFrame(rows, columns=["panel", "kind", "name", "value", "low", "high", "reference"])
    draw_forest(scores, path, f"{COMPARED[JUDGED]} on test minus that without a regulariser, with its 95 % interval")
