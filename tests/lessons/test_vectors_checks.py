"""The checks of lesson 8: right answers are right, and each typical mistake is told what it is."""

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from experiments.embed.quality import recall_neighbours
from lessons.checks.vectors import check_1, check_2


def test_ten_of_twelve_neighbours_less_chance_are_right(say):
    space, in_map = [0, 2, 6, 11, 14, 19], [17, 20, 16, 10, 5, 8]
    right = recall_neighbours(np.array(space)[:, None], np.array(in_map)[:, None], 2) - 2 / 5
    assert right == pytest.approx(10 / 12 - 2 / 5)
    assert say(check_1, right) == "Right."
    assert say(check_1, round(right, 2)) == "Right."


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (10 / 12, "Take chance off"),
        (10, "of the 12 neighbours"),
        (2 / 5 - 10 / 12, "sign"),
        (10 / 12 / (2 / 5), "ratio"),
        ((10 / 12 - 2 / 5) / (3 / 5), "what chance leaves"),
        (43.3, "percentage points"),
        (10 / 12 - 2 / 6, "chance draws from the other texts"),
        (10 / 12 - 1 / 5, "not one"),
        (7 / 12 - 2 / 5, "its own neighbour."),
        (16 / 18 - 2 / 5, "which every map keeps"),
        (1 / 6 - 1 / 5, "for one neighbour"),
        (2 / 12 - 2 / 5, "does not matter"),
        (4 / 6 - 2 / 5, "counts half"),
        (-1, "Of the text at 6"),
        (float("nan"), "expected a number, got nan"),
        (float("inf"), "expected a number, got inf"),
        ("many", "expected a number, got str"),
        ([1, 2], "expected a number, got list"),
    ],
)
def test_each_mistake_of_neighbours_gets_its_own_sentence(answer, hint, assert_mistake):
    assert_mistake(check_1, answer, hint)


def test_cosines_after_centring_are_right_from_numpy_and_from_torch(say):
    assert say(check_2, lambda x: cosine_similarity(x - x.mean(axis=0))) == "Right."

    def with_torch(x):
        unit = torch.nn.functional.normalize(torch.from_numpy(x - x.mean(axis=0)), dim=1)
        return unit @ unit.T

    assert say(check_2, with_torch) == "Right."


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
        (lambda x: cosine_similarity(centre(x) / x.std(axis=0)), "divided by its spread"),
        (lambda x: cosine_similarity(centre(divide_rows(x))), "Once is enough"),
        (lambda x: abs(cosine_similarity(centre(x))), "the sign is lost"),
        (lambda x: cosine_similarity(x - x.mean()), "the mean is a vector"),
        (lambda x: cosine_similarity(centre(x).T), "Rows are texts"),
        (lambda x: cosine_similarity(centre(x)).mean(), "shape (5, 5), got ()"),
        (lambda x: 1 - cosine_similarity(centre(x)), "these are not the cosines"),
        (lambda x: np.full((5, 5), np.nan), "these are not the cosines"),
        (lambda x: "cosines", "expected numbers, got str"),
        (lambda x: None, "returns nothing"),
        (lambda x, mean: x, "called as f(array (5, 7)), which failed"),
        (lambda x: x @ x, "called as f(array (5, 7)), which failed"),
        (np.eye(5), "expected a function, not called yet, got ndarray"),
        ("f", "expected a function, not called yet, got str"),
    ],
)
def test_each_mistake_of_cosines_gets_its_own_sentence(answer, hint, assert_mistake):
    assert_mistake(check_2, answer, hint)


def divide_rows(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def columns(x):
    return x / np.linalg.norm(x, axis=0)


def test_no_answer_asks_for_one(say):
    assert "in the place of None" in say(check_1, None)
    assert "in the place of None" in say(check_2, None)
