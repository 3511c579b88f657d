"""Which units matter to a class, and which of them do more than random parts of the same size."""

import pandas as pd

from lab.shares import METRIC
from lab.stats import LEVEL
from lab.units import RANDOM

UNIT = ["kind", "layer", "head", "region"]
CONTROLS = ["kind", "layer", "draw", "class", "fill", "split", "share", "region"]  # columns of controls.csv
PAIRED = ["mask", "cut", "words"]  # kinds whose units have one control each, drawn anew for every text


def tabulate_paired_controls(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of controls.csv for units whose control is an ablation of its own, random for every text."""
    rows = effects[(effects["metric"] == METRIC) & effects["region"].str.startswith(RANDOM)]
    return rows.assign(draw=0, region=rows["region"].str.removeprefix(RANDOM))[CONTROLS]


def judge_units(effects: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Return one row per unit, fill and class, on test: `kind, layer, head, region, fill, class, n, share, share_low,
    share_high, verdict, controls, control_share, specific`.

    Closing anything of some size changes something. So a unit is compared with random parts of its size: `specific`
    says that it matters to the class and does more to it than they do, in either direction.

    `control_share` is how much that is: of a head's layer, 95 % of its `controls` random subspaces do less; of a region
    or a class of words, its one control does so much, and both limits of the unit must lie beyond it. Units without a
    control of their size (all heads of a layer, its MLP, both, pairs of heads) are neither specific nor not: NA."""
    rows = effects[(effects["metric"] == METRIC) & (effects["split"] == "test")]
    rows = rows[~rows["region"].str.startswith(RANDOM)]
    rows = rows[[*UNIT, "fill", "class", "n", "share", "share_low", "share_high", "verdict"]]
    controls = controls[controls["split"] == "test"].assign(control=lambda table: table["share"].abs())
    controls = controls[controls["kind"] != "mlp"]  # of a head's size, not of an MLP's
    key = ["kind", "layer", "region", "fill", "class"]
    of_unit = controls.groupby(key, dropna=False)["control"].agg(controls="size", control_share=_upper_quantile)
    rows = rows.merge(of_unit.reset_index(), on=key, how="left")
    nearer_limit = rows["share_low"].where(rows["share"] > 0, -rows["share_high"])
    at_least = nearer_limit.where(rows["kind"].isin(PAIRED), rows["share"].abs())
    specific = (rows["verdict"] == "matters") & (at_least > rows["control_share"])
    return rows.assign(specific=specific.astype("boolean").mask(rows["controls"].isna()))


def _upper_quantile(shares: pd.Series) -> float:
    return float(shares.quantile(1 - LEVEL))
