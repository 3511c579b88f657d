"""What repeats over runs of one model and corpus that were fine-tuned with other seeds."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from lab.compared import UNIT
from lab.runs import identity
from lab.stats import concordance
from lab.study import Study
from model import InputError

MAY_DIFFER = {"seed", "run", "device", "precision", "compile", "recompute"}  # settings of runs that are compared


def check_alike(studies: Sequence[Study]) -> None:
    """Raise InputError unless the runs were trained alike, but for their seed."""
    for first, second in combinations(studies, 2):
        before, now = describe_training(first), describe_training(second)
        changed = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
        runs_named = f"--run: {first.run} and {second.run}"
        if changed - MAY_DIFFER:
            names = ", ".join(sorted(changed - MAY_DIFFER))
            raise InputError(f"{runs_named} differ in their {names}; expected runs that differ in their seed alone")
        if "seed" not in changed:
            raise InputError(f"{runs_named} have the same seed; expected runs with different seeds")


def describe_training(study: Study) -> dict[str, Any]:
    """Return the settings of a run, with the content of its corpus, its texts and the weights it started from."""
    corpus = sorted(study.record["corpus"]["sha256"].values())
    texts = {f"texts of {split}": texts.sha256 for split, texts in study.texts.items()}
    try:
        return identity(study.run, study.record) | {"corpus": corpus} | texts
    except KeyError as error:
        raise InputError(f"{study.run}: its run.json does not say {error}; compare runs of one version") from None


def compare_seeds(verdicts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return what tables of `judge_units`, one for each run, have in common: one row per unit, fill and class.

    Columns `kind, layer, head, region, fill, class, runs, mean_share, sd_share, matters_in, specific_in`: the mean
    share over the runs, its standard deviation (n - 1), and in how many runs the unit matters or is specific."""
    key = [*UNIT, "fill", "class"]
    together = pd.concat(verdicts).assign(matters=lambda table: table["verdict"] == "matters")
    groups = together.groupby(key, dropna=False, sort=False)
    table = groups.agg(
        runs=("share", "size"),
        mean_share=("share", "mean"),
        sd_share=("share", "std"),
        matters_in=("matters", "sum"),
        specific_in=("specific", lambda specific: specific.sum(min_count=1)),
    )
    return table.reset_index().astype({"specific_in": "Int64"})


def measure_agreement(verdicts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return whether runs rank units alike by their share: one row per kind, fill and class, `kind, fill, class, runs,
    units, w, p`, with `concordance` (Kendall's W). Units without a share in some run are left out."""
    rows = []
    together = pd.concat([table.assign(run=i) for i, table in enumerate(verdicts)])
    for (kind, fill, label), group in together.groupby(["kind", "fill", "class"], sort=False):
        shares = group.pivot_table(index="run", columns=UNIT, values="share", dropna=False)
        scores = shares.to_numpy(float)[:, np.isfinite(shares.to_numpy(float)).all(axis=0)]
        if scores.shape[1] > 1:
            w, p = concordance(scores)
            rows.append((kind, fill, label, *scores.shape, w, p))
    return pd.DataFrame(rows, columns=["kind", "fill", "class", "runs", "units", "w", "p"])
