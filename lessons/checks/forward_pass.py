"""Lesson 1: the number of parameters, and LayerNorm."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lessons.checks import call, check, expect_floats, expect_number, is_close

C, LAYERS = 256, 6
EPS = 0.1


@check
def check_1(answer: Any) -> str | None:
    if mistake := expect_number(answer):
        return mistake
    attention, mlp = 4 * C * C, 8 * C * C
    matrices, biases, norms = attention + mlp, 9 * C, 4 * C
    right = matrices + biases + norms
    return {
        right: None,
        LAYERS * right: f"that is all {LAYERS} blocks; the question is about one.",
        matrices: "these are the matrices alone. Is nothing added after each product, and what else has a block?",
        matrices + biases: "the LayerNorms are missing.",
        matrices + norms: "the biases of the matrices are missing.",
        matrices + biases + norms // 2: "a LayerNorm has a weight and a bias, and a block has two LayerNorms.",
        right - 3 * C: "the bias of queries, keys and values is missing.",
        right - C * C - C: "a map is missing: what brings the heads' results, side by side, back to the stream?",
        right + C * C + C: "there is a map too many of C to C.",
    }.get(round(float(answer)), find_missing_part(round(float(answer))))


def find_missing_part(number: int) -> str:
    """Say which part of a block alone has this number of parameters, or how to count them."""
    for n_norms in (0, C, 2 * C, 4 * C):
        if number in (4 * C * C + n_norms, 4 * C * C + 4 * C + n_norms):
            return "that is the attention alone; the MLP is missing."
        if number in (8 * C * C + n_norms, 8 * C * C + 5 * C + n_norms):
            return "that is the MLP alone; the attention is missing."
    return (
        f"{number} is not the number. List the parts of a block in model/gpt2.py. A map of m to n numbers has a matrix "
        "and a bias; heads have no parameters of their own, they share those of the block."
    )


@check
def check_2(answer: Any) -> str | None:
    rng = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(7, generator=rng), torch.randn(7, generator=rng)
    for shape in ((3, 5, 7), (5, 7)):
        x = torch.randn(shape, generator=rng)
        result, mistake = call(answer, x, weight, bias, EPS)
        if mistake:
            return f"{mistake} Has an axis got lost? keepdim=True keeps it." if "must match" in mistake else mistake
        if mistake := expect_floats(result, shape) or find_wrong_norm(result, x, weight, bias):
            return f"x {shape}: {mistake}"
    return None


def find_wrong_norm(result: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> str | None:
    """Return what is wrong with the LayerNorm of x (..., C) with eps = EPS; None where it is right."""
    expected = F.layer_norm(x, weight.shape, weight, bias, EPS)
    if is_close(result, expected):
        return None
    centred, variance = x - x.mean(dim=-1, keepdim=True), x.var(dim=-1, keepdim=True, correction=0)
    std = x.std(dim=-1, keepdim=True)
    divided = {
        "your variance divides by C - 1, LayerNorm's by C.": centred / (std**2 + EPS).sqrt(),
        "eps belongs under the root, beside the variance.": centred / (variance.sqrt() + EPS),
        "your std divides by C - 1, LayerNorm's by C; and eps belongs under the root.": centred / (std + EPS),
        "the root is missing.": centred / (variance + EPS),
        f"eps is missing; here it is {EPS}.": centred / variance.sqrt(),
        f"this has an eps of its own; take the argument, here {EPS}.": centred / (variance + 1e-5).sqrt(),
        "eps is missing, and your variance divides by C - 1, LayerNorm's by C.": centred / std,
        "nothing is shifted: subtract the mean first.": x / (variance + EPS).sqrt(),
        "nothing is divided: after the mean comes the variance.": centred,
    }
    for axes in ((0,), (1,), tuple(range(x.dim()))):
        deviation = (x.var(axes, keepdim=True, correction=0) + EPS).sqrt()
        mistake = f"mean and variance are those of axes {axes}; take each vector's, the last axis."
        divided[mistake] = (x - x.mean(axes, keepdim=True)) / deviation
    normed = centred / (variance + EPS).sqrt()
    mistakes = {"weight and bias are missing.": normed, "the bias is missing.": normed * weight}
    mistakes |= {"the weight is missing.": normed + bias}
    mistakes |= {mistake: wrong * weight + bias for mistake, wrong in divided.items()}
    found = next((mistake for mistake, wrong in mistakes.items() if is_close(result, wrong)), None)
    return found or describe_norm((result.to(x) - bias) / weight)


def describe_norm(plain: Tensor) -> str:
    """Say what the vectors (..., C) of a wrong LayerNorm are like before weight and bias."""
    vector = plain.flatten(0, -2)[0]
    return (
        "before weight and bias, each vector should have mean 0 and a variance a little below 1; "
        f"your first has {vector.mean():.2f} and {vector.var(correction=0):.2f}."
    )
