"""The checks of lesson 2: right answers are right, and each typical mistake is told what it is."""

import math

import pytest
import torch

from lessons.checks.attention import check_1, check_2
from model import masks


def ones(T):
    return torch.ones(T, T, dtype=torch.bool)


def band(T, w):
    return masks.band(T, w)[0, 0, 0]


def wrong_in_the_middle(T, w):
    mask = band(T, w)
    mask[3, 0] = True  # of (7, 3): one key too many
    return mask


def fail(T, w):
    raise RuntimeError("no such size")


def test_two_ways_to_write_the_window_are_right(capsys):
    check_1(lambda T, w: ones(T).tril() & ones(T).triu(1 - w))
    check_1(lambda T, w: ones(T).tril() ^ ones(T).tril(-w))
    assert capsys.readouterr().out == "Right.\nRight.\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda T, w: band(T, w + 1), "the last query sees 4 keys, its own counted in, where 3 are expected"),
        (lambda T, w: band(T, max(1, w - 1)), "the last query sees 2 keys"),
        (lambda T, w: band(T, w).T, "the other way round"),
        (lambda T, w: ~band(T, w), "yours is True where it may not"),
        (lambda T, w: ones(T).triu(1 - w), "query 0 may look at key 1, which comes later"),
        (lambda T, w: ones(T).triu(1 - w) & ones(T).tril(w - 1), "which comes later"),
        (lambda T, w: ones(T).tril(-1) & ones(T).triu(-w), "its own key too"),
        (lambda T, w: ones(T).tril(), "the window is missing"),
        (wrong_in_the_middle, "some rows are right"),
        (lambda T, w: band(T, 3), "f(5, 1): the last query sees 3 keys"),
        (lambda T, w: band(T, w).float(), "expected bool, True where a query may look, got torch.float32"),
        (masks.band, "expected a tensor of shape (7, 7), got (1, 1, 1, 7, 7)"),
        (lambda T, w: None, "f(7, 3): expected a tensor, got NoneType"),
        (lambda T, w: band(T, w).numpy(), "expected a tensor, got a numpy array"),
        (lambda T: ones(T), "it is called as f(7, 3)"),
        (fail, "which failed: RuntimeError: no such size"),
        (band(7, 3), "expected a function, not called yet, got Tensor"),
        ("tril", "expected a function"),
        (math.nan, "expected a function"),
    ],
)
def test_a_wrong_window_is_told_what_is_wrong(answer, words, assert_mistake):
    assert_mistake(check_1, answer, words)


@pytest.mark.parametrize("answer", [(1.8, 0.9), [1.8, 0.9], torch.tensor([1.8, 0.9]), (9 / 5, 9 / 10)])
def test_the_masked_and_the_cut_key_are_right(answer, capsys):
    check_2(answer)
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((0.9, 1.8), "the wrong way round"),
        ((0.9, 0.9), "a mask acts before the softmax"),
        ((1.8, 1.8), "nothing makes up for a cut"),
        ((3.9, 3.9), "with all three keys in sight"),
        ((2.0, 0.9), "do not get the same weight"),
        ((0.45, 0.9), "do not multiply"),
        ((3.9, 0.9), "the first key still counts"),
        ((7.0, 0.9), "the cut one is right"),
        ((1.8, 4.0), "the masked one is right"),
        ((5.0, 6.0), "neither is right"),
        ((math.nan, 0.9), "the pair (masked, cut): expected a number, got nan"),
        ((1.8, 10**400), "too large"),
        (1.8, "expected a pair of two numbers"),
        ("ab", "expected a number, got str"),
        ((1.8, 0.9, 0.1), "expected a pair of two numbers"),
        (torch.ones(2, 2), "expected a number, got Tensor"),
    ],
)
def test_a_wrong_pair_is_told_what_is_wrong(answer, words, assert_mistake):
    assert_mistake(check_2, answer, words)


def test_no_answer_is_no_mistake(capsys):
    check_1(None)
    check_2(None)
    assert capsys.readouterr().out == "Not yet: put your answer in the place of None.\n" * 2
