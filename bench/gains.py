"""What a regulariser gains over none: differences paired by seed and text, their intervals, and a verdict by rule."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from experiments.paper.differences import COMPARED
from experiments.paper.figures import draw_forest
from lab.metrics import Ints, resampled_prediction_metrics
from lab.report import label, p_value, table
from lab.stats import LEVEL, holm, resamples

REFERENCE = "none"  # the arm that the others are compared with
HEADER = ("corpus", "train texts", "arm", "hidden", "none", "with it", "difference", "by seed", "p by Holm", "verdict")
JUDGED = "macro_f1"  # the metric by which an epoch is kept


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
    """Return each arm minus none on test: one row per corpus, number of train texts, arm and metric.

    Columns `corpus, texts, arm, share, metric, n, seeds, none, value, difference, ci_low, ci_high, p, by_seed, p_holm,
    verdict`. `none`, `value` and `difference` are means over the seeds, `by_seed` has the difference of each. p_holm is
    p by Holm's method over all rows of a metric."""
    rows: list[dict[str, Any]] = []
    for (corpus, texts), group in groupby(measured, key=lambda run: (run.corpus, run.texts)):
        arms: dict[str, list[Measured]] = {}
        for run in group:
            arms.setdefault(run.arm, []).append(run)
        for arm, of_arm in arms.items():
            key = {"corpus": corpus, "texts": texts, "arm": arm, "share": of_arm[0].share}
            if arm != REFERENCE:
                rows += [key | row for row in compare(of_arm, arms[REFERENCE])]
    frame = pd.DataFrame(rows)
    frame["p_holm"] = frame.groupby("metric")["p"].transform(lambda p: holm(p.to_numpy(float)))
    return frame.assign(verdict=list(map(judge, frame["difference"], frame["p_holm"])))


def compare(arm: Sequence[Measured], none: Sequence[Measured]) -> Iterator[dict[str, Any]]:
    """Yield the row of each metric for runs of the same seeds, in the same order, on the same texts."""
    n, S = len(arm[0].targets), len(arm)
    assert [run.seed for run in arm] == [run.seed for run in none]
    chunks: dict[str, list[Any]] = {metric: [] for metric in COMPARED}
    for weights in resamples(n):
        scores = [
            [resampled_prediction_metrics(weights, run.targets, run.predicted, run.labels) for run in pair]
            for pair in zip(arm, none, strict=True)
        ]
        for metric, chunk in chunks.items():
            chunk.append(np.mean([ours[metric] - theirs[metric] for ours, theirs in scores], axis=0))
    for metric, chunk in chunks.items():
        value, reference = (np.array([run.metrics["test"][metric] for run in runs]) for runs in (arm, none))
        by_seed = value - reference
        low, high, p = interval(by_seed, float(np.nanvar(np.concatenate(chunk), ddof=1)), n)
        means = {"none": reference.mean(), "value": value.mean(), "difference": by_seed.mean()}
        sure = {"ci_low": low, "ci_high": high, "p": p, "by_seed": " ".join(f"{each:+.4f}" for each in by_seed)}
        yield {"metric": metric, "n": n, "seeds": S} | means | sure


def interval(by_seed: np.ndarray, of_texts: float, n: int) -> tuple[float, float, float]:
    """Return the 95 % interval of a mean difference, low and high, and its p; NaN where there is one seed.

    by_seed: the differences (S,); of_texts: the variance of their mean over resampled texts, of which there are n.

    Other texts and other seeds would have given another difference, so the two variances add up: that of the texts, by
    the bootstrap, and that of the seeds' mean, from their spread. Few seeds tell little about their spread: the
    interval is that of Student's t, with the degrees of freedom that a sum of two variances has (Satterthwaite 1946).
    It is rather too wide than too narrow, for the spread of the seeds holds some of the texts' as well."""
    S, mean = len(by_seed), float(by_seed.mean())
    if S == 1:
        return np.nan, np.nan, np.nan
    of_seeds = float(by_seed.var(ddof=1)) / S
    variance = of_texts + of_seeds
    if not variance:  # all predictions are the same
        return mean, mean, 1.0
    freedom = variance**2 / (of_texts**2 / (n - 1) + of_seeds**2 / (S - 1))
    error = np.sqrt(variance)
    reach = t.isf(LEVEL / 2, freedom) * error
    return mean - reach, mean + reach, float(2 * t.sf(abs(mean) / error, freedom))


def judge(difference: float, p: float) -> str:
    """Return the verdict on a difference whose p is corrected for the number of comparisons."""
    if np.isnan(p):
        return "not judged: one seed"
    if p >= LEVEL:
        return "no clear difference"
    return "clear gain" if difference > 0 else "clear loss"


def report(frame: pd.DataFrame, command: str) -> str:
    """Return a page of Markdown about `differences`: the answer in a sentence, the rule, and a table by metric."""
    judged = frame[frame["metric"] == JUDGED]
    page = [f"# Does it help to regularise attention? `{command}`", describe(judged)]
    page.append(
        f"The rule: a difference of {COMPARED[JUDGED]} on test is clear where its p, corrected by Holm's method for "
        f"{len(judged)} comparisons, is below {LEVEL}. Intervals hold with 95 %, each by itself, over texts and seeds."
    )
    for metric, rows in frame.groupby("metric", sort=False):
        lines = list(map(write_row, rows.to_dict("records")))
        page.append(f"## {COMPARED[str(metric)]} on test\n\n{table(HEADER, lines)}")
    return "\n\n".join(page) + "\n"


def write_row(row: dict[Any, Any]) -> list[str]:
    """Return the cells of a row of `differences`."""
    difference, p = f"{row['difference']:+.3f}", "-"
    if not np.isnan(row["ci_low"]):
        difference, p = f"{difference} [{row['ci_low']:+.3f}, {row['ci_high']:+.3f}]", p_value(row["p_holm"])
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
