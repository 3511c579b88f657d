"""The checks of lesson 3: right answers are right, and each typical mistake is told what it is."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from lessons.checks.classifier import check_1, check_2


def by_loop(x, lengths, n):
    return torch.stack([text[:length][-n:].mean(dim=0) for text, length in zip(x, lengths.tolist(), strict=True)])


def only_short_ones_wrong(x, lengths, n):
    return by_loop(x, lengths, n) * (lengths > 2)[:, None]


def at(x, positions):
    return x[torch.arange(len(x)), positions]


def early(x, lengths, n):
    return by_loop(x, lengths - 1, n)


def padding(x, lengths, n):
    return x[:, -n:].mean(dim=1)


def by_n(x, lengths, n):
    return torch.stack([text[:length][-n:].sum(dim=0) / n for text, length in zip(x, lengths.tolist(), strict=True)])


def from_n_on(x, lengths, n):
    return torch.stack([text[:length][:n].mean(dim=0) for text, length in zip(x, lengths.tolist(), strict=True)])


def of_all(x, lengths, n):
    return by_loop(x, lengths, 7)


def fail(x, lengths, n):
    raise RuntimeError("no such shape")


def in_place(x, lengths, n):
    x[torch.arange(x.shape[1]) < (lengths - n)[:, None]] = 0
    x[torch.arange(x.shape[1]) >= lengths[:, None]] = 0
    return x.sum(dim=1) / lengths.clamp_(max=n)[:, None]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_plain_loop_is_right_in_any_float(dtype, capsys):
    check_1(by_loop)
    check_1(in_place)
    check_1(lambda x, lengths, n: by_loop(x.to(dtype), lengths, n))
    assert capsys.readouterr().out == "Right.\n" * 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (padding, "n = 1: these are the last columns, which in short texts are padding"),
        (lambda x, lengths, n: x[:, -1], "these are the last columns"),
        (early, "n = 1: you are one place too early"),
        (lambda x, lengths, n: at(x, lengths), "behind the last token of a full row there is nothing"),
        (lambda x, lengths, n: x[:, lengths - 1], "a slice `:` takes all rows for each text"),
        (lambda x, lengths, n: at(x, lengths - 1), "n = 3: only the last real token is in it"),
        (of_all, "n = 1: that is the mean of all real tokens"),
        (lambda x, lengths, n: x.mean(dim=1), "padding included"),
        (from_n_on, "these are the first tokens"),
        (by_n, "n = 3: a text of fewer tokens than n is divided by n"),
        (lambda x, lengths, n: by_n(x, lengths, n) * n, "n = 3: that is the sum"),
        (only_short_ones_wrong, "the text of 2 tokens, in 7 columns, is wrong"),
        (lambda x, lengths, n: by_loop(x, lengths, n) * math.nan, "the text of 5 tokens, in 7 columns, is wrong"),
        (lambda x, lengths, n: x, "expected a tensor of shape (4, 5), got (4, 7, 5)"),
        (lambda x, lengths, n: by_loop(x, lengths, n).tolist(), "expected a tensor, got list"),
        (lambda x, lengths, n: by_loop(x, lengths, n).numpy(), "expected a tensor, got a numpy array"),
        (lambda x, lengths, n: by_loop(x, lengths, n).long(), "expected a tensor of floats, got torch.int64"),
        (lambda x, lengths: x, "it is called as f(tensor (4, 7, 5), tensor (4,), 1)"),
        (fail, "which failed: RuntimeError: no such shape"),
        (torch.ones(4, 5), "expected a function, not called yet, got Tensor"),
        ("mean", "expected a function"),
        (math.nan, "expected a function"),
    ],
)
def test_a_wrong_mean_is_told_what_is_wrong(answer, words, assert_mistake):
    assert_mistake(check_1, answer, words)


def test_macro_f1_is_the_one_of_scikit_learn(capsys):
    true = np.repeat([0, 1, 2], [8, 4, 4])
    predicted = np.repeat([0, 1, 2, 0, 1, 0, 1, 2], [6, 1, 1, 2, 2, 1, 1, 2])
    check_2(f1_score(true, predicted, average="macro"))
    check_2(0.592)
    check_2(torch.tensor(0.5924))
    assert capsys.readouterr().out == "Right.\n" * 3
    check_2(f1_score(true, predicted, average="weighted"))
    check_2(f1_score(true, predicted, average="micro"))
    weighted, micro = capsys.readouterr().out.splitlines()
    assert "classes count alike" in weighted
    assert "that is the accuracy" in micro


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (0.583, "the mean recall"),
        (0.611, "the mean precision"),
        (0.597, "make the F1 of each class first"),
        (1.777, "the sum over the three classes"),
        (0.706, "the F1 of one class"),
        (0.5, "the F1 of one class"),
        (59.24, "expected a share between 0 and 1"),
        (0.1, "0.1 is not it"),
        (0.59, "0.59 is near, but give three decimals"),
        (10**400, "too large"),
        (math.nan, "expected a number, got nan"),
        ("a half", "expected a number, got str"),
        ([0.5, 0.6], "expected a number, got list"),
        (np.ones(2), "expected a number, got ndarray"),
    ],
)
def test_another_number_is_told_what_it_is(answer, words, assert_mistake):
    assert_mistake(check_2, answer, words)


def test_no_answer_is_no_mistake(capsys):
    check_1(None)
    check_2(None)
    assert capsys.readouterr().out == "Not yet: put your answer in the place of None.\n" * 2
