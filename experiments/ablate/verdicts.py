"""Which units matter to a class, and which of them do more than random parts of the same size."""

import pandas as pd

from lab.compared import UNIT
from lab.shares import METRIC
from lab.stats import LEVEL
from lab.units import RANDOM

CONTROLS = ["kind", "layer", "draw", "class", "fill", "split", "share", "region"]  # columns of controls.csv
SINGLE = ["mask", "cut", "words"]  # kinds whose units have a single control, drawn anew for every text


def tabulate_single_controls(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of controls.csv for units whose control is an ablation of its own, random for every text."""
    rows = effects[(effects["metric"] == METRIC) & effects["region"].str.startswith(RANDOM)]
    return rows.assign(draw=0, region=rows["region"].str.removeprefix(RANDOM))[CONTROLS]


def judge_units(effects: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """Return one row per unit, fill and class, on test: `kind, layer, head, region, fill, class, n, share, share_low,
    share_high, verdict, controls, control_share, specific`.

    Closing anything of some size changes something. So a unit is compared with random parts of its size: `specific`
    says that it matters to the class and changes more of the margin than they do, in the same direction.

    `control_share` is what it has to exceed: of a head's layer, 95 % of the `controls` random subspaces do less in this
    direction; of a region or a class of words, it is the share of the one control, and the whole interval of the unit
    must lie beyond. Units without a control of their size (all heads of a layer, its MLP, both, pairs of heads) are
    neither specific nor not: NA."""
    rows = effects[(effects["metric"] == METRIC) & (effects["split"] == "test")]
    rows = rows[~rows["region"].str.startswith(RANDOM)]
    rows = rows[[*UNIT, "fill", "class", "n", "share", "share_low", "share_high", "verdict"]]
    controls = controls[(controls["split"] == "test") & (controls["kind"] != "mlp")]  # of a head's size, not an MLP's
    key = ["kind", "layer", "region", "fill", "class"]
    share = controls.groupby(key, dropna=False)["share"]
    low, high = share.quantile(LEVEL, "lower"), share.quantile(1 - LEVEL, "higher")
    limits = pd.DataFrame({"controls": share.size(), "low": low, "high": high})
    rows = rows.merge(limits.reset_index(), on=key, how="left")
    loses = rows["share"] < 0
    rows["control_share"] = rows.pop("low").where(loses, rows.pop("high"))
    single = rows["kind"].isin(SINGLE)
    nearest = rows["share"].where(~single, rows["share_high"].where(loses, rows["share_low"]))
    exceeds = (nearest < rows["control_share"]).where(loses, nearest > rows["control_share"])
    specific = (rows["verdict"] == "matters") & exceeds
    return rows.assign(specific=specific.astype("boolean").mask(rows["controls"].isna()))
