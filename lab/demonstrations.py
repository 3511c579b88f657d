"""Examples for prompts: texts of train that stand in no other split, drawn at random."""

from collections.abc import Iterator, Sequence

import numpy as np

from model import InputError

from .label_words import LabelWords
from .progress import console
from .prompts import Demonstration
from .study import Study


def make_pool(study: Study) -> list[Demonstration]:
    """Return the texts of train that may stand in a prompt, in order; print how many may not, and why.

    Left out are texts of val and test (of the whole splits), texts with two labels, and all but the first of equal
    ones. Texts are equal where they differ in case and spacing alone."""
    train = study.texts["train"]
    held_out = {normalise(text) for split in ("val", "test") for text in study.texts[split].strings}
    classes: dict[str, set[int]] = {}
    for text, target in zip(train.strings, train.targets.tolist(), strict=True):
        classes.setdefault(normalise(text), set()).add(target)
    pool, n_held_out, n_ambiguous, n_repeated = [], 0, 0, 0
    seen: set[str] = set()
    for index, text, target in zip(train.positions.tolist(), train.strings, train.targets.tolist(), strict=True):
        key = normalise(text)
        if key in held_out:
            n_held_out += 1
        elif len(classes[key]) > 1:
            n_ambiguous += 1
        elif key in seen:
            n_repeated += 1
        else:
            seen.add(key)
            pool.append(Demonstration(index, text, target))
    console.print(
        f"Examples come from {len(pool):,} of {len(train):,} texts of train; left out are {n_held_out:,} that stand in "
        f"val or test too, {n_ambiguous:,} with two labels and {n_repeated:,} repetitions"
    )
    return pool


def normalise(text: str) -> str:
    """Return a text without what case and spacing add to it."""
    return " ".join(text.casefold().split())


def draw_demonstrations(
    pool: Sequence[Demonstration], shots: int, draw: int, words: LabelWords, seed: int
) -> tuple[Demonstration, ...]:
    """Return `shots` texts of each of K classes in random order, where class `draw` mod K comes last.

    A draw of more shots holds the texts of the same draw of fewer: of each class they stand first. Raises InputError
    where a class has too few."""
    drawn: list[Iterator[Demonstration]] = []
    for k, label in enumerate(words.labels):
        of_class = [each for each in pool if each.target == k]
        if len(of_class) < shots:
            expected = "as many texts of each class in train that stand in no other split"
            raise InputError(f"--shots {shots}: expected {expected}, got {len(of_class):,} of {label}; take fewer")
        order = np.random.default_rng((seed, draw, k, *b"examples of a class")).permutation(len(of_class))
        drawn.append(iter([of_class[i] for i in order]))
    classes = np.repeat(np.arange(len(drawn)), shots).tolist()
    last = [classes.pop(draw % len(drawn) * shots)] if shots else []
    rng = np.random.default_rng((seed, draw, shots, *b"order of the examples"))
    return tuple(next(drawn[k]) for k in [*rng.permutation(classes).tolist(), *last])
