"""Raters of known accuracy, to see whether `make agreement` finds what was put in, before any person is asked."""

from pathlib import Path
from typing import Any

import numpy as np

from .answers import SIMULATED, check_answer, open_session, record
from .items import Items
from .protocol import PARTS, Step

MARKED = 3  # words of a text


def simulate_raters(folder: Path, items: Items, n: int, accuracy: float, gain: float = 0.0) -> None:
    """Write the answers of n raters, in the place of those that are simulated already.

    Each predicts the network's class with probability `accuracy`, `gain` more once explanations were read, else any
    other class; prefers `items.method` with that probability; and marks the words that it weighs most for the class,
    each with that probability, else any other word."""
    for path in folder.glob(f"{SIMULATED}*.jsonl"):
        path.unlink()
    for number in range(1, n + 1):
        session = open_session(folder, f"{SIMULATED}{number}", items)
        rng = np.random.default_rng((items.seed, number, *b"simulated rater"))
        for step in session.steps:
            answer = make_answer(items, step, accuracy + gain * (step.part == "after"), rng)
            check_answer(session, step, answer)
            record(session, step, answer, seconds=0.0)


def make_answer(items: Items, step: Step, accuracy: float, rng: np.random.Generator) -> Any:
    """Return an answer to one item that is what it should be with this probability."""
    text, kind = items.texts[step.text], PARTS[step.part].kind
    if kind == "read":
        return "read"
    if kind == "mark":
        return mark_words(np.array(text.values[items.method]), np.flatnonzero(text.real), accuracy, rng)
    as_it_should = rng.random() < accuracy
    if kind == "choose":
        return "left" if (step.left == items.method) == as_it_should else "right"
    others = [label for label in items.labels if label != text.predicted]
    return text.predicted if as_it_should else str(rng.choice(others))


def mark_words(values: np.ndarray, real: np.ndarray, accuracy: float, rng: np.random.Generator) -> list[int]:
    """Return the numbers of MARKED words, or fewer: each is one of those with the largest values, or another one."""
    order = real[np.argsort(-values[real], kind="stable")]
    largest, others = order[:MARKED], rng.permutation(order[MARKED:])
    marked = [int(word) for word in largest if rng.random() < accuracy]
    return sorted(marked + others[: len(largest) - len(marked)].tolist()) or [int(largest[0])]
