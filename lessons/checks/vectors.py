"""Lesson 8: the neighbours that a map keeps, and cosines after centring."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import normalize

from experiments.embed.corrections import Floats, centre
from lessons.checks import call, check, expect_number

IN_SPACE, IN_MAP = np.array([0, 2, 6, 11, 14, 19]), np.array([17, 20, 16, 10, 5, 8])  # six texts on two lines
HINT = "Try three texts of two numbers: the mean vector goes, then each is divided by its own length, nothing else."
CHANCE = 2 / 5  # two neighbours among five others


@check
def check_1(answer: Any) -> str | None:
    if mistake := expect_number(answer):
        return mistake
    others, itself = [[rank(x)[:, start : start + 2] for x in (IN_SPACE, IN_MAP)] for start in (1, 0)]
    kept, kept_of_three = share(*others), share(*(rank(x)[:, :3] for x in (IN_SPACE, IN_MAP)))
    mistakes = {
        kept: "this is the share that the map keeps. Take chance off.",
        12 * kept: "this is how many of the 12 neighbours are kept. Divide, and take chance off.",
        CHANCE - kept: "the sign is wrong: it is the share kept minus that of chance.",
        kept / CHANCE: "this is a ratio. Take the difference.",
        (kept - CHANCE) / (1 - CHANCE): "the difference is enough; do not divide it by what chance leaves.",
        100 * (kept - CHANCE): "these are percentage points. Give a share of 1.",
        kept - 2 / 6: "chance draws from the other texts only: a text is not its own neighbour.",
        kept - 1 / 5: "chance draws two neighbours, too, not one.",
        share(*itself) - CHANCE: "a text is counted as its own neighbour.",
        kept_of_three - CHANCE: "a text is counted as its own neighbour, which every map keeps.",
        share(*(rank(x)[:, 1:2] for x in (IN_SPACE, IN_MAP))) - 1 / 5: "this is for one neighbour. Take two of each.",
        float((others[0] == others[1]).mean()) - CHANCE: "which of the two is nearer does not matter.",
        float((np.sort(others[0]) == np.sort(others[1])).all(axis=1).mean()) - CHANCE: "one kept of two counts half.",
    }
    if abs(float(answer) - (kept - CHANCE)) < 0.006:
        return None
    matching = (mistake for wrong, mistake in mistakes.items() if abs(float(answer) - wrong) < max(0.006, 0.01 * wrong))
    return next(matching, f"{answer} is not the number. Of the text at 6, which two are nearest? And in the map?")


def rank(x: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return the numbers of all texts on a line (N,), nearest first, from each: itself, then the others (N, N)."""
    return abs(x[:, None] - x).argsort(axis=1)


def share(in_space: NDArray[np.integer], in_map: NDArray[np.integer]) -> float:
    """Return the share of neighbours (N, k) that are among those of the map (N, k)."""
    return float((in_space[:, :, None] == in_map[:, None]).any(axis=2).mean())


@check
def check_2(answer: Any) -> str | None:
    x = np.random.default_rng(0).normal(1.0, [1, 2, 3, 1, 2, 3, 5], (5, 7))  # (N, C), different primes
    result, mistake = call(answer, x)
    if mistake:
        return mistake
    if result is None:
        return "the function returns nothing: end it with return."
    try:
        result = np.asarray(result, dtype=float)
    except (TypeError, ValueError):
        return f"expected numbers, got {type(result).__name__}."
    n, width = x.shape
    if result.shape != (n, n):
        other = " Rows are texts: compare these." if result.shape == (width, width) else ""
        return f"expected a cosine for each pair of {n} texts, shape ({n}, {n}), got {result.shape}.{other}"
    wrong = list_mistakes(x)
    if np.allclose(result, wrong.pop(""), atol=1e-6):
        return None
    matching = (mistake for mistake, values in wrong.items() if np.allclose(result, values, atol=1e-6))
    return next(matching, f"these are not the cosines. {HINT}")


def list_mistakes(x: Floats) -> dict[str, Floats]:
    """Return what comes out for x (N, C), (N, N) each, by the mistake that was made; none: the empty string."""
    centred, own = centre(x)(x), x - x.mean(axis=1, keepdims=True)
    scaled = normalize(centred / x.std(axis=0))
    lengths, unit = np.linalg.norm(centred, axis=1), normalize(x)
    return {
        "": normalize(centred) @ normalize(centred).T,
        "each dimension is divided by its spread as well. Only the mean vector goes.": scaled @ scaled.T,
        "vectors get length 1 twice, before and after centring. Once is enough, after it.": (
            normalize(centre(unit)(unit)) @ normalize(centre(unit)(unit)).T
        ),
        "the sign is lost: a cosine may be negative.": abs(normalize(centred) @ normalize(centred).T),
        "nothing is centred: subtract the mean of the texts first.": unit @ unit.T,
        "each vector is centred over its own dimensions. Subtract the mean vector, taken over the texts.": (
            normalize(own) @ normalize(own).T
        ),
        "these are dot products of centred vectors. A cosine divides by both lengths.": centred @ centred.T,
        "these are dot products of vectors as they were. Centre them, and divide by both lengths.": x @ x.T,
        "the lengths are taken before centring. Take those of the centred vectors.": (
            centred @ centred.T / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(x, axis=1))
        ),
        "vectors are centred after they were given length 1. Centre first.": centre(unit)(unit) @ centre(unit)(unit).T,
        "dimensions are divided by their lengths, not texts: a length is taken along the last axis.": (
            normalize(centred, axis=0) @ normalize(centred, axis=0).T
        ),
        "the lengths are squared: take the root of the sum of squares.": (
            centred @ centred.T / np.outer(lengths**2, lengths**2)
        ),
        "the length of one of the two vectors is missing.": normalize(centred) @ centred.T,
        "the length of one of the two vectors is missing, the first one's.": centred @ normalize(centred).T,
        "one number is subtracted from all: the mean is a vector, taken over the texts.": (
            normalize(x - x.mean()) @ normalize(x - x.mean()).T
        ),
    }
