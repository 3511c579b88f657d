"""What ablations are called in pictures and reports."""

from typing import Any

import pandas as pd

from lab.units import RANDOM

KINDS = {
    "head": "Heads",
    "heads": "All heads of a layer",
    "mlp": "MLPs",
    "layer": "Whole layers",
    "pair": "Pairs of heads",
    "mask": "Attention masked before the softmax",
    "cut": "Attention cut after the softmax",
    "words": "Words hidden",
}
NOUNS = {  # one, and several
    "head": ("head", "heads"),
    "heads": ("attention layer", "attention layers"),
    "mlp": ("MLP", "MLPs"),
    "layer": ("layer", "layers"),
    "pair": ("pair of heads", "pairs of heads"),
    "mask": ("region of the attention maps", "regions of the attention maps"),
    "cut": ("region of the attention maps", "regions of the attention maps"),
    "words": ("class of words", "classes of words"),
}
ACTIONS = {"mask": "Masking", "cut": "Cutting", "words": "Hiding"}  # units of all other kinds are closed, with a fill
DONE = {"mask": "masked", "cut": "cut", "words": "hidden"}  # the same
ORDERS = {"measured": "by measured effect", "gradient": "by gradient"}


def add_names(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table that has columns `kind, layer, head, region` with two more: the name of the `unit`, and the
    `ablation`, which says what was done to it and which no two ablations share."""
    keys = zip(table["kind"], table["layer"], table["head"], table["region"], strict=True)
    units = [_name_unit(*key) for key in keys]
    ablations = [f"{ACTIONS.get(kind, 'Closing')} {unit}" for kind, unit in zip(table["kind"], units, strict=True)]
    return table.assign(unit=units, ablation=ablations)


def _name_unit(kind: str, layer: Any, head: Any, region: str) -> str:
    where = "all layers" if pd.isna(layer) else f"layer {layer}"
    if kind == "words":
        return region.replace("random, ", "random tokens, ") if region.startswith(RANDOM) else f"words: {region}"
    names = {
        "head": f"head {layer}.{head}",
        "heads": f"all heads of {where}",
        "mlp": f"the MLP of {where}",
        "layer": f"all of {where}",
        "pair": f"heads {region}",
    }
    return names.get(kind, f"{region} in {where}")
