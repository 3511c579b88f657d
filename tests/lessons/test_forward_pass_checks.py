"""The checks of lesson 1: right answers are right, and each typical mistake is told what it is."""

import math
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lessons.checks.forward_pass import check_1, check_2
from model import load_lm

C = 256


def normalise(x, weight, bias, eps, axis=-1):
    """LayerNorm in float64, written by hand."""
    centred = x.double() - x.double().mean(dim=axis, keepdim=True)
    return centred / ((centred**2).mean(dim=axis, keepdim=True) + eps) ** 0.5 * weight + bias


def of_library(x, weight, bias, eps):
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def in_place(x, weight, bias, eps):
    x -= x.mean(dim=-1, keepdim=True)
    x /= (x.var(dim=-1, keepdim=True, correction=0) + eps).sqrt()
    return x.mul_(weight).add_(bias)


def by(divide):
    """LayerNorm that divides the centred vectors by a function of (them, eps)."""

    def layer_norm(x, weight, bias, eps):
        centred = x - x.mean(dim=-1, keepdim=True)
        return centred / divide(centred, eps) * weight + bias

    return layer_norm


def var(x, correction=0):
    return x.var(dim=-1, keepdim=True, correction=correction)


def fail(x, weight, bias, eps):
    return normalize(x)  # noqa: F821


def test_the_parameters_of_a_block_are_those_of_the_model(capsys):
    block = load_lm("gpt2-mini").trunk.h[0]
    n = sum(parameter.numel() for parameter in block.parameters())
    check_1(n)
    check_1(float(n))
    check_1(np.int64(n))
    assert capsys.readouterr().out == "Right.\n" * 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (12 * C * C, "these are the matrices alone"),
        (12 * C * C + 9 * C, "the LayerNorms are missing"),
        (12 * C * C + 4 * C, "the biases of the matrices are missing"),
        (12 * C * C + 11 * C, "a block has two LayerNorms"),
        (6 * (12 * C * C + 13 * C), "all 6 blocks"),
        (12 * C * C + 10 * C, "the bias of queries, keys and values"),
        (11 * C * C + 12 * C, "a map is missing"),
        (4 * C * C + 4 * C, "the attention alone"),
        (4 * C * C + 6 * C, "the attention alone"),
        (8 * C * C + 5 * C, "the MLP alone"),
        (8 * C * C + 7 * C, "the MLP alone"),
        (12345, "12345 is not the number"),
        (-1, "-1 is not the number"),
        (10**400, "too large"),
        (math.nan, "expected a number, got nan"),
        ("many", "expected a number, got str"),
        (torch.ones(2), "expected a number, got Tensor"),
    ],
)
def test_another_number_is_told_what_it_is(answer, words, assert_mistake):
    assert_mistake(check_1, answer, words)


def test_what_helps_does_not_give_the_answer_away(capsys):
    check_1(1)
    out = capsys.readouterr().out
    assert not re.search("3 C|4 C|c_attn|c_fc|c_proj|two", out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_layer_norm_is_right_in_any_float_and_in_place(dtype, capsys):
    check_2(of_library)
    check_2(in_place)
    check_2(lambda *arguments: normalise(*arguments).to(dtype))
    assert capsys.readouterr().out == "Right.\n" * 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (by(lambda x, eps: (var(x, 1) + eps) ** 0.5), "your variance divides by C - 1, LayerNorm's by C"),
        (by(lambda x, eps: var(x) ** 0.5 + eps), "x (3, 5, 7): eps belongs under the root"),
        (
            by(lambda x, eps: x.std(dim=-1, keepdim=True) + eps),
            "your std divides by C - 1, LayerNorm's by C; and eps belongs under the root",
        ),
        (by(lambda x, eps: var(x) + eps), "the root is missing"),
        (by(lambda x, eps: var(x) ** 0.5), "eps is missing; here it is 0.1"),
        (by(lambda x, eps: (var(x) + 1e-5) ** 0.5), "eps"),
        (lambda x, weight, bias, eps: F.layer_norm(x, (7,), weight, bias), "eps"),
        (by(lambda x, eps: x.std(dim=-1, keepdim=True)), "eps is missing, and your variance divides by C - 1"),
        (by(lambda x, eps: 1), "nothing is divided"),
        (by(lambda x, eps: (var(x) + eps) ** 0.5 * 2), "mean 0 and a variance a little below 1; your first has"),
        (lambda x, weight, bias, eps: x / (var(x) + eps) ** 0.5 * weight + bias, "nothing is shifted"),
        (lambda x, weight, bias, eps: normalise(x, weight, 0, eps), "the bias is missing"),
        (lambda x, weight, bias, eps: normalise(x, 1, bias, eps), "the weight is missing"),
        (lambda x, weight, bias, eps: normalise(x, 1, 0, eps), "weight and bias are missing"),
        (lambda *arguments: normalise(*arguments, axis=0), "those of axes (0,)"),
        (lambda *arguments: normalise(*arguments, axis=1), "those of axes (1,)"),
        (lambda *arguments: normalise(*arguments, axis=(0, 1, 2)), "those of axes (0, 1, 2)"),
        (lambda *arguments: normalise(*arguments, axis=2), "which failed: IndexError"),  # x (5, 7) has no axis 2
        (lambda x, weight, bias, eps: (x - x.mean(-1)) * weight, "keepdim=True keeps it"),
        (lambda *arguments: normalise(*arguments) * math.nan, "your first has nan"),
        (lambda x, weight, bias, eps: torch.zeros(3, 5, 7), "mean 0 and a variance"),
        (lambda *arguments: normalise(*arguments).numpy(), "expected a tensor, got a numpy array"),
        (lambda *arguments: normalise(*arguments).long(), "expected a tensor of floats"),
        (lambda *arguments: normalise(*arguments)[0], "expected a tensor of shape (3, 5, 7), got (5, 7)"),
        (lambda *arguments: None, "expected a tensor, got NoneType"),
        (lambda x: x, "f(tensor (3, 5, 7), tensor (7,), tensor (7,), 0.1), which failed: TypeError"),
        (fail, "NameError: name 'normalize' is not defined"),
        (torch.nn.LayerNorm, "which failed"),
        (torch.ones(3, 5, 7), "expected a function, not called yet, got Tensor"),
        ("mean", "expected a function"),
    ],
)
def test_a_wrong_layer_norm_is_told_what_is_wrong(answer, words, assert_mistake):
    assert_mistake(check_2, answer, words)


def test_no_answer_is_no_mistake(capsys):
    check_1(None)
    check_2(None)
    assert capsys.readouterr().out == "Not yet: put your answer in the place of None.\n" * 2
