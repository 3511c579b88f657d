"""Lesson 1: the number of weights, and LayerNorm."""

from typing import Any

import torch
from torch.nn import functional as F

from lessons.checks import check, expect_function, expect_number

C = 256


@check
def check_1(answer: Any) -> str | None:
    if mistake := expect_number(answer):
        return mistake
    matrices, biases, norms = 12 * C * C, 9 * C, 4 * C
    return {
        matrices + biases + norms: None,
        matrices: "these are the four matrices. Each of them has a bias, and there are two LayerNorms.",
        matrices + biases: "the LayerNorms are missing: two of them, each with a weight and a bias of C numbers.",
        matrices + norms: "the biases of the four matrices are missing.",
        matrices + biases + norms // 2: "a LayerNorm has a weight and a bias, and there are two LayerNorms.",
    }.get(
        round(float(answer)),
        f"{answer} is not the number. There are four matrices, c_attn (C to 3 C), c_proj (C to C), c_fc (C to 4 C) and "
        "c_proj (4 C to C), each with a bias, and two LayerNorms. Heads need no weights of their own: they cut C.",
    )


@check
def check_2(answer: Any) -> str | None:
    if mistake := expect_function(answer):
        return mistake
    rng = torch.Generator().manual_seed(0)
    x, weight, bias = torch.randn(3, 5, 7, generator=rng), torch.randn(7, generator=rng), torch.randn(7, generator=rng)
    try:
        result = answer(x, weight, bias, 0.1)
    except TypeError as error:
        return f"it is called as f(x, weight, bias, eps), which failed: {error}."
    expected = F.layer_norm(x, (7,), weight, bias, 0.1)
    if not isinstance(result, torch.Tensor) or result.shape != x.shape:
        return f"expected a tensor of the shape of x, {tuple(x.shape)}, got {getattr(result, 'shape', result)}."
    if torch.allclose(result, expected, atol=1e-5):
        return None
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred**2).mean(dim=-1, keepdim=True)
    of_all = (x - x.mean()) / (x.var(unbiased=False) + 0.1).sqrt()
    mistakes = {
        "nothing is shifted: subtract the mean first.": x / (variance + 0.1).sqrt() * weight + bias,
        "weight and bias are missing.": centred / (variance + 0.1).sqrt(),
        "the bias is missing.": expected - bias,
        "the variance divides by C, not by C - 1.": centred / (variance * 7 / 6 + 0.1).sqrt() * weight + bias,
        "eps belongs under the root, beside the variance.": centred / (variance.sqrt() + 0.1) * weight + bias,
        "eps is missing.": centred / variance.sqrt() * weight + bias,
        "mean and variance are those of one vector: along the last axis.": of_all * weight + bias,
    }
    matching = (mistake for mistake, wrong in mistakes.items() if torch.allclose(result, wrong, atol=1e-5))
    return next(matching, "the numbers differ from those of torch.nn.functional.layer_norm; try a vector of 3 numbers.")
