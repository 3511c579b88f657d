"""In which order a rater sees the items: forward simulation after Hase & Bansal (2020), then choices, then marks.

A rater reads examples with their predictions, predicts other texts, reads the same examples with an explanation, and
predicts the other half. Explanations are never shown on a text that is to be predicted, so they cannot give it away."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .items import Items

Kind = Literal["read", "predict", "choose", "mark"]
TWICE = 0.1  # share of choices that come a second time


@dataclass(frozen=True)
class Part:
    title: str
    kind: Kind
    instruction: str


PREDICT = "Which class does the network predict? That may be another one than the right one."
PARTS: Mapping[str, Part] = {
    "examples": Part("Get to know the network", "read", "Read the text, and which class the network predicts for it."),
    "before": Part("Predict the network", "predict", PREDICT),
    "explained": Part("The same texts, explained", "read", "Read the text, its class, and which words weighed most."),
    "after": Part("Predict the network again", "predict", PREDICT),
    "choices": Part("Compare explanations", "choose", "Which one shows better why the network predicts this class?"),
    "marks": Part("Mark the words", "mark", "Which words make the network predict this class? Mark at least one."),
}


@dataclass(frozen=True)
class Step:
    """One item as a rater sees it. name: as before-3; left, right: methods, the only one on the left."""

    name: str
    part: str
    text: int  # place in the items
    left: str = ""
    right: str = ""


def plan_steps(items: Items, seed: int, swapped: bool) -> list[Step]:
    """Return all steps of one rater in order. seed: of the order and of the sides; swapped: which half of the pairs
    comes first, so that over several raters each text is predicted before and after."""
    rng = np.random.default_rng((seed, *b"order of a rater"))
    first, second = zip(*(pair[::-1] if swapped else pair for pair in items.pairs), strict=True)
    choices = rng.permutation(items.choices).tolist()
    texts = {
        "examples": items.examples,
        "before": rng.permutation(first).tolist(),
        "explained": items.examples,
        "after": rng.permutation(second).tolist(),
        "choices": choices + choices[: math.ceil(TWICE * len(choices))],
        "marks": rng.permutation(items.marked).tolist(),
    }
    steps = []
    for part in PARTS:
        for number, text in enumerate(texts[part], start=1):
            shown = {"explained": [items.method], "choices": [items.method, items.against]}.get(part, [])
            steps.append(Step(f"{part}-{number}", part, text, *rng.permutation(shown).tolist()))
    return steps
