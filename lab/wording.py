"""What ablations are called in pictures and reports, and how numbers and labels are written there, as Markdown."""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from .fills import DRAWS
from .units import RANDOM

LEVEL = 0.05  # of p after correction: what is below it survives
OVERALL = "all"  # the class that stands for all texts
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


def plain(label: str) -> str:
    """A label, on one line, that Markdown shows as it is."""
    return re.sub(r"([\\`*_|$<>\[\]~])", r"\\\1", " ".join(label.split()))


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows by name, for a column may be called `class`."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are Markdown."""
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]


def number(value: float) -> str:
    """Two decimals, or two digits of what is smaller than 0.1; empty where it is undefined."""
    if pd.isna(value):
        return ""
    return f"{value:z.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:#.2g}"


def sure(row: Any, name: str) -> str:
    """A number of a row, and its interval."""
    return f"{number(row[name])} [{number(row['ci_low'])}, {number(row['ci_high'])}]"


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
