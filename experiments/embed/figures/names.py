"""How all pictures call networks, layers, poolings and corrections."""

import pandas as pd

from lab.figures import COLOURS, GREY

from ..spaces import PRETRAINED, RANDOM, TUNED

NETWORKS = {PRETRAINED: (COLOURS[0], "o"), TUNED: (COLOURS[3], "s"), RANDOM: (GREY, "^")}  # colour and mark
POOLINGS = {
    "last": "last token",
    "mean": "mean of all tokens",
    "mean_without_first": "mean without the first token",
    "weighted": "mean weighted by position",
}
CORRECTIONS = {
    "none": "as they are",
    "centre": "centred",
    "standardise": "standardised",
    "without_top": "without the top components",
}


def name_layer(layer: int, last: int) -> str:
    """Return what a layer is called, where `last` is after ln_f."""
    return {last: "after ln_f", last - 1: "before ln_f"}.get(layer, f"layer {layer}")


def name_vectors(rows: pd.DataFrame) -> str:
    """Return the pooling and the correction of the vectors that these rows are about, the same in all of them."""
    return f"{POOLINGS[rows['pooling'].iloc[0]]}, {CORRECTIONS[rows['correction'].iloc[0]]}"
