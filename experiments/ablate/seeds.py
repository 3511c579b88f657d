"""What repeats over runs that were fine-tuned with other seeds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lab.stats import concordance

from .verdicts import UNIT


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
