"""Networks with something taken out beside the whole one, on val and test: everything that effects.csv says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .effects import correct_p_values, measure_effects
from .shares import LEAST, fit_temperatures, measure_shares, tabulate_shares
from .sweep import Ablation
from .texts import OVERALL

UNIT = ["kind", "layer", "head", "region"]


@dataclass(frozen=True, eq=False)
class Compared:
    """The logits of the whole network and of U ablated ones, on the texts of one split."""

    baseline: NDArray[np.floating]  # (N, K)
    ablated: NDArray[np.floating]  # (U, N, R, K)
    targets: NDArray[np.integer]  # (N,)


def measure_networks(
    by_split: Mapping[str, Compared],
    labels: Sequence[str],
    only: str | None = None,
    least: float = LEAST,
    test: bool = True,
) -> dict[str, pd.DataFrame]:
    """Return `measure_effects`, and with it the shares of the margins once confidence is set aside, by split.

    by_split: val, whose texts fit the temperatures, and test. only: the one class to report; None: all. least: the
    smallest share of a class's margin that is of interest. test: permutation tests on test."""
    val, effects = by_split["val"], {}
    temperatures = fit_temperatures(val.baseline, val.ablated, val.targets)
    for split, networks in by_split.items():
        arguments = networks.baseline, networks.ablated, networks.targets, labels
        permute = test and split == "test"
        measured = correct_p_values(select_class(measure_effects(*arguments, test=permute), only))
        if split == "test":
            shares = measure_shares(*arguments, temperatures, least, only, permute)
        else:  # val, which the temperatures fit, has no limits
            shares = select_class(tabulate_shares(*arguments, temperatures), only)
        effects[split] = pd.concat([measured, shares]).sort_values("unit", kind="stable")
    return effects


def select_class(table: pd.DataFrame, only: str | None) -> pd.DataFrame:
    """Select the rows of all texts and of the class `only`; all rows where `only` is None."""
    return table[table["class"].isin([OVERALL, only])] if only else table


def name_units(table: pd.DataFrame, ablations: Sequence[Ablation], fill: str, split: str = "") -> pd.DataFrame:
    """Replace the numbers in the column `unit` by what they stand for: kind, layer, head, region, fill and split."""
    names = pd.DataFrame([{name: getattr(ablation, name) for name in UNIT} for ablation in ablations])
    names = names.astype({"layer": "Int64", "head": "Int64"}).assign(fill=fill)
    if split:
        names["split"] = split
    names = names.iloc[table["unit"]].reset_index(drop=True)
    return names.join(table.drop(columns="unit").reset_index(drop=True))
