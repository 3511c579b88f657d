"""Lesson 8: the adjusted Rand index of six texts, and cosines after centring."""

from typing import Any

import numpy as np
from sklearn.preprocessing import normalize

from experiments.embed.corrections import Floats, centre
from lessons.checks import check, expect_function, expect_number

PAIRS, IN_CLASSES, IN_GROUPS, BOTH = 15, 6, 7, 4  # of six texts: all, and those that share a class, a group, both
EXPECTED, MOST = IN_CLASSES * IN_GROUPS / PAIRS, (IN_CLASSES + IN_GROUPS) / 2


@check
def check_1(answer: Any) -> str | None:
    if mistake := expect_number(answer):
        return mistake
    mistakes = {
        BOTH / PAIRS: "this is the share of pairs that are together in both. Compare it with chance.",
        (PAIRS - IN_CLASSES - IN_GROUPS + 2 * BOTH) / PAIRS: "this is the Rand index. Chance is not taken off yet.",
        5 / 6: "this is the purity, which counts texts and knows no chance. Count pairs.",
        BOTH - EXPECTED: "this is how far the pairs are above chance. Divide by how far they could be.",
        (BOTH - EXPECTED) / MOST: "chance is taken off above the line only. Take it off below as well.",
        BOTH / MOST: "chance is not taken off, neither above the line nor below.",
        (BOTH - EXPECTED) / (PAIRS - EXPECTED): "not all pairs can be together in both: the most is (A + B) / 2.",
        (BOTH - EXPECTED) / (IN_CLASSES - EXPECTED): "the most is (A + B) / 2, not A alone.",
        (BOTH - EXPECTED) / (IN_CLASSES + IN_GROUPS - EXPECTED): "the most is half of A + B.",
        (BOTH - EXPECTED) / (IN_GROUPS - EXPECTED): "the most is (A + B) / 2, not B alone.",
        4 / 9: "texts are paired with themselves. Only pairs of two different texts count.",
        2 / 5: "pairs were counted in both orders. Then there are 30 of them, and a text is no pair with itself.",
    }
    if abs(float(answer) - (BOTH - EXPECTED) / (MOST - EXPECTED)) < 0.006:
        return None
    matching = (mistake for wrong, mistake in mistakes.items() if abs(float(answer) - wrong) < 0.006)
    counts = "Which of the 15 pairs share a class (A), which share a group (B), and which share both (S)?"
    return next(matching, f"{answer} is not the number. {counts}")


@check
def check_2(answer: Any) -> str | None:
    if mistake := expect_function(answer):
        return mistake
    x = np.random.default_rng(0).normal(1.0, [1, 2, 3, 1, 2, 3, 5], (5, 7))  # (N, C), different primes
    try:
        result = answer(x.copy())
    except Exception as error:  # whatever the student's code raises
        return (
            f"it is called as f(x), with x an array of shape {x.shape}, which failed: {type(error).__name__}: {error}."
        )
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
    return next(matching, "these are not the cosines. Is that of a text with itself 1? Try two texts of two numbers.")


def list_mistakes(x: Floats) -> dict[str, Floats]:
    """Return what comes out for x (N, C), (N, N) each, by the mistake that was made; none: the empty string."""
    centred, own = centre(x)(x), x - x.mean(axis=1, keepdims=True)
    lengths, unit = np.linalg.norm(centred, axis=1), normalize(x)
    return {
        "": normalize(centred) @ normalize(centred).T,
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
