"""What the checks of lesson 5 say about right answers and typical mistakes."""

import math

import pytest
import torch

from lessons.checks.probes import check_1, check_2


@pytest.mark.parametrize("answer", [0.02, 0.90 - 0.88, torch.tensor(0.02)])
def test_accuracy_minus_control_is_right(answer, say):
    assert say(check_1, answer) == "Right."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (-0.02, "in this order"),
        (0.05, "most frequent label"),
        (0.03, "where is the probe"),
        (0.90 / 0.88, "ratio"),
        ((0.90 - 0.88) / 0.12, "control task left"),
        (2, "percentage points"),
        (5, "percentage points"),
        (-3, "percentage points"),
        (0.5, "0.5 is not the selectivity"),
        (math.nan, "expected a number, got nan"),
        ("little", "expected a number, got str"),
        (None, "in the place of None"),
    ],
)
def test_each_wrong_selectivity_gets_its_sentence(answer, words, assert_mistake):
    assert_mistake(check_1, answer, words)


def along(x, d):
    """The part of x - mean along a direction, by a loop."""
    mean = x.mean(dim=0)
    return torch.stack([((row - mean) * d).sum() / (d * d).sum() * d for row in x])


def remove_in_place(x, d):
    x -= along(x, d)
    return x


def test_what_is_left_beside_the_direction_is_right(say):
    assert say(check_2, lambda x, d: x - along(x, d)) == "Right."
    assert say(check_2, lambda x, d: (x - along(x, d)).numpy()) == "Right."
    assert say(check_2, lambda x, d: (x - along(x, d)).double()) == "Right."
    assert say(check_2, remove_in_place) == "Right."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, d: x, "nothing is removed"),
        (lambda x, d: x - torch.outer((x - x.mean(0)) @ d, d), "not normalised"),
        (lambda x, d: x - torch.outer((x - x.mean(0)) @ d, d) / d.norm(), "normalised once"),
        (along, "return what is left"),
        (lambda x, d: x.mean(0) + along(x, d), "with the mean; return what is left"),
        (lambda x, d: x - torch.outer(x @ d, d) / d.norm() ** 2, "the mean is forgotten"),
        (lambda x, d: x - torch.outer(x @ d, d), "not normalised, and the mean is forgotten"),
        (lambda x, d: x - x.mean(0) - along(x, d), "add it again"),
        (lambda x, d: x + along(x, d), "sign"),
        (lambda x, d: x * torch.nan, "the numbers differ"),
        (lambda x, d: x[:, 0], "expected a tensor of shape (5, 7), got (5,)"),
        (lambda x: x, "which failed"),
        (lambda x, d: d @ x, "which failed"),
        (lambda x, d: None, "expected a tensor, got NoneType"),
        (torch.ones(5, 7), "expected a function"),
        ("remove", "expected a function"),
        (None, "in the place of None"),
    ],
)
def test_each_wrong_removal_gets_its_sentence(answer, words, assert_mistake):
    assert_mistake(check_2, answer, words)
