"""What ablations are called in pictures and reports, and how numbers and labels are written there, as Markdown."""

from typing import Any

import pandas as pd

from lab.fills import DRAWS
from lab.report import label as plain
from lab.stats import LEVEL

from .units import RANDOM

KINDS = {
    "head": ("Heads", "closing"),
    "heads": ("All heads of a layer", "closing"),
    "mlp": ("MLPs", "closing"),
    "layer": ("Whole layers", "closing"),
    "pair": ("Pairs of heads", "closing"),
    "mask": ("Attention masked before the softmax", "masking"),
    "cut": ("Attention cut after the softmax", "cutting"),
    "words": ("Words hidden", "hiding"),
}
ORDERS = {"measured": "by measured effect", "gradient": "by gradient"}

FILLS = {
    "zero": "a closed head or MLP emits zeros",
    "mean": "a closed head or MLP emits its mean over the tokens of the training texts",
    "resample": "a closed head or MLP emits what it made of a random training text of about the same length; "
    f"{DRAWS} different ones for each text, averaged per text. The intervals hold these {DRAWS} fixed",
    "class_mean": "a closed head or MLP emits its mean over the training texts of all classes but one, the class that "
    "the whole network predicts for the text. The true class is not used: a fill that knew it would give it away",
}
ESTIMATES = {
    "absolute": "absolute gradient of the gate",
    "normalised": "the same, over the norm of its layer",
    "signed": "gradient of the gate, with its sign",
}
HOW = f"""\
## How to read this

- An effect is what is measured with something taken out, minus what is measured with the network as it is: below 0 is
  a loss. Log-probabilities and margins are in nats.
- The margin of a class is its log-odds against all other classes. Its **specific margin** is the mean margin over its
  own texts minus the mean of the same margin over all other texts. It is the primary measure: taking something out
  also shifts bias and confidence for every text, which moves recall and log-probability even in a model that knows
  nothing. What all texts share cancels out here. Scale does not: what makes all logits larger or smaller changes the
  specific margin of every class by the same share of its baseline. That is confidence, not a class: compare shares.
- Units are ranked on val and confirmed on test, which had no say in the ranking; numbers are of test where nothing
  else is said. p is of a permutation of the labels, corrected by Holm over the units times classes of one kind and
  fill, which are one family. *Survives* means p < {LEVEL} after that. Benjamini and Hochberg's p (BH), less strict,
  stands beside it. Tables begin with the largest effects on test, which flatters those: val stands beside them. All
  other numbers are descriptive.
- Brackets hold 95 % paired bootstrap intervals over the texts. They say how far other texts would move a number, and
  nothing of other seeds of fine-tuning: look at three seeds at least before naming a head."""
CAVEATS = """\
- Heads can stand in for one another: one whose closing changes nothing may still take part. Effects do not add up.
- Significance is about these texts and this run. What does not survive is not shown to have no effect."""
ZERO = "- Zero is not neutral: moving a bias from one weight to another changes nothing but what a head's zero means."


def named(table: pd.DataFrame) -> pd.DataFrame:
    """A table with columns `kind, layer, head, region`, and two more: the `unit`, and what was `done` to it, which no
    two ablations share. Labels (`class, before, after`) become Markdown."""
    units = [_unit(*key) for key in zip(*(table[name] for name in ("kind", "layer", "head", "region")), strict=True)]
    done = [f"{KINDS[kind][1].capitalize()} {unit}" for kind, unit in zip(table["kind"], units, strict=True)]
    labels = {name: table[name].map(plain) for name in ("class", "before", "after") if name in table}
    return table.assign(unit=units, done=done, **labels)


def _unit(kind: str, layer: Any, head: Any, region: str) -> str:
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


def title(kind: str, fill: str) -> str:
    """The heading of what was found for one kind; only what is closed has a fill."""
    name, verb = KINDS[kind]
    return f"{name}, fill {fill}" if verb == "closing" else name
