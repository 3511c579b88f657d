"""The checks of lesson 8: right answers are right, and each typical mistake is told what it is."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, rand_score
from sklearn.metrics.pairwise import cosine_similarity

from lessons.checks.vectors import check_1, check_2

CLASSES, GROUPS = [0, 0, 0, 1, 1, 1], [1, 1, 2, 2, 2, 2]


def say(capsys, check, answer):
    """What a check prints of an answer."""
    check(answer)
    return capsys.readouterr().out.strip()


def test_the_adjusted_rand_index_is_that_of_scikit_learn(capsys):
    right = adjusted_rand_score(CLASSES, GROUPS)
    assert say(capsys, check_1, right) == "Right."
    assert say(capsys, check_1, round(right, 2)) == "Right."


EXPECTED = 6 * 7 / 15  # pairs that share class and group by chance


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (rand_score(CLASSES, GROUPS), "Rand index. Chance"),
        (5 / 6, "purity"),
        (4 / 15, "share of pairs"),
        (4 - EXPECTED, "Divide"),
        ((4 - EXPECTED) / 6.5, "below as well"),
        (4 / 6.5, "neither above"),
        ((4 - EXPECTED) / (15 - EXPECTED), "not all pairs"),
        ((4 - EXPECTED) / (6 - EXPECTED), "not A alone"),
        ((4 - EXPECTED) / (7 - EXPECTED), "not B alone"),
        ((4 - EXPECTED) / (13 - EXPECTED), "half of A + B"),
        ((14 - 18 * 20 / 36) / ((18 + 20) / 2 - 18 * 20 / 36), "paired with themselves"),
        ((8 - 12 * 14 / 36) / ((12 + 14) / 2 - 12 * 14 / 36), "both orders"),
        (-1, "Which of the 15 pairs"),
        (float("nan"), "expected a number, got nan"),
        (float("inf"), "expected a number, got inf"),
        ("many", "expected a number, got str"),
        ([1, 2], "expected a number, got list"),
    ],
)
def test_each_mistake_of_pairs_gets_its_own_sentence(capsys, answer, hint):
    said = say(capsys, check_1, answer)
    assert said.startswith("Not yet: ")
    assert hint in said


def test_cosines_after_centring_are_right_from_numpy_and_from_torch(capsys):
    assert say(capsys, check_2, lambda x: cosine_similarity(x - x.mean(axis=0))) == "Right."

    def with_torch(x):
        unit = torch.nn.functional.normalize(torch.from_numpy(x - x.mean(axis=0)), dim=1)
        return unit @ unit.T

    assert say(capsys, check_2, with_torch) == "Right."


def divide(x, y):
    """Products of rows of x, divided by the lengths of those of y."""
    lengths = np.linalg.norm(y, axis=1)
    return x @ x.T / np.outer(lengths, lengths)


def centre(x):
    return x - x.mean(axis=0)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (cosine_similarity, "nothing is centred"),
        (lambda x: np.corrcoef(x), "over its own dimensions"),
        (lambda x: centre(x) @ centre(x).T, "dot products of centred vectors"),
        (lambda x: x @ x.T, "dot products of vectors as they were"),
        (lambda x: divide(centre(x), x), "before centring"),
        (lambda x: centre(divide_rows(x)) @ centre(divide_rows(x)).T, "Centre first"),
        (lambda x: columns(centre(x)) @ columns(centre(x)).T, "along the last axis"),
        (lambda x: centre(x) @ centre(x).T / np.outer(*[(centre(x) ** 2).sum(axis=1)] * 2), "take the root"),
        (lambda x: divide_rows(centre(x)) @ centre(x).T, "one of the two vectors is missing."),
        (lambda x: centre(x) @ divide_rows(centre(x)).T, "the first one's"),
        (lambda x: cosine_similarity(x - x.mean()), "the mean is a vector"),
        (lambda x: cosine_similarity(centre(x).T), "Rows are texts"),
        (lambda x: cosine_similarity(centre(x)).mean(), "shape (5, 5), got ()"),
        (lambda x: 1 - cosine_similarity(centre(x)), "these are not the cosines"),
        (lambda x: np.full((5, 5), np.nan), "these are not the cosines"),
        (lambda x: "cosines", "expected numbers, got str"),
        (lambda x: None, "returns nothing"),
        (lambda x, mean: x, "called as f(x)"),
        (lambda x: x @ x, "called as f(x)"),
        (np.eye(5), "expected a function, not called yet, got ndarray"),
        ("f", "expected a function, not called yet, got str"),
    ],
)
def test_each_mistake_of_cosines_gets_its_own_sentence(capsys, answer, hint):
    said = say(capsys, check_2, answer)
    assert said.startswith("Not yet: ")
    assert hint in said


def divide_rows(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def columns(x):
    return x / np.linalg.norm(x, axis=0)


def test_no_answer_asks_for_one(capsys):
    assert "in the place of None" in say(capsys, check_1, None)
    assert "in the place of None" in say(capsys, check_2, None)
