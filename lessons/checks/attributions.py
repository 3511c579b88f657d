"""Lesson 7: comprehensiveness beyond random, and integrated gradients."""

from typing import Any

import torch
from torch import Tensor

from lessons.checks import call, check, expect_number

WHOLE, WITHOUT, RANDOM = 90, 70, 60  # per cent, of the class
S, T, C = 5, 3, 7


@check
def check_1(answer: Any) -> str | None:
    if mistake := expect_number(answer):
        return mistake
    above = ((WHOLE - WITHOUT) - (WHOLE - RANDOM)) / 100
    mistakes = {
        (WHOLE - WITHOUT) / 100: "this is the comprehensiveness. How much of it do random tokens reach as well?",
        (WHOLE - RANDOM) / 100: "this is what random tokens lose. How much do the marked ones lose beyond that?",
        -above: "the sign: the more is lost without the marked tokens, the larger the number.",
        WITHOUT / 100: "this is what is left without the marked tokens. How much is lost?",
        RANDOM / 100: "this is what is left without random tokens. How much is lost?",
        (WHOLE - WITHOUT + WHOLE - RANDOM) / 100: "beyond means a difference: you added the two losses.",
        100 * above: "write it as a share, not in per cent.",
        (WHOLE - WITHOUT) / (WHOLE - RANDOM): "this is a ratio. Beyond means a difference of probabilities.",
        (WHOLE - WITHOUT) / WHOLE: "do not divide by what the class has at first: probability lost is a difference.",
        100 * above / WHOLE: "do not divide by what the class has at first: probability lost is a difference.",
    }
    if abs(float(answer) - above) < 0.004:
        return None
    matching = (mistake for value, mistake in mistakes.items() if abs(float(answer) - value) < 0.004)
    generic = f"{float(answer):.3g} is not it. What is lost without the marked tokens, and what without random ones?"
    return next(matching, generic)


@check
def check_2(answer: Any) -> str | None:
    rng = torch.Generator().manual_seed(0)
    gradients, x, baseline = (torch.randn(shape, generator=rng) for shape in ((S, T, C), (T, C), (T, C)))
    result, mistake = call(answer, gradients, x, baseline)
    if mistake:
        return f"f(gradients, x, baseline): {mistake}"
    if not isinstance(result, Tensor):
        return f"expected a tensor of the {T} tokens' values, ({T},), got {type(result).__name__}."
    by_number = gradients.mean(dim=0) * (x - baseline)  # (T, C)
    shapes = {
        (T, C): "one value for each number of an embedding: a token's value is their sum.",
        (C,): "the wrong axis: sum over the numbers of an embedding (C), not over the tokens.",
        (S, T): "one row for each point of the way: take the mean over the points.",
        (S, T, C): "neither points nor numbers are summed up: mean over the first axis, sum over the last.",
        (): "one number for the whole text: keep the tokens apart.",
    }
    if result.shape != (T,):
        return shapes.get(tuple(result.shape), f"expected the shape ({T},), got {tuple(result.shape)}.")
    expected = by_number.sum(dim=-1)
    mistakes = {
        "the points of the way are summed: take their mean, or more points would give larger values.": S * expected,
        "the way is missing: multiply the gradients with x - baseline.": gradients.mean(dim=0).sum(dim=-1),
        "multiply with the whole way, x - baseline, not with x.": (gradients.mean(dim=0) * x).sum(dim=-1),
        "the sign: the way leads from the baseline to x.": -expected,
        "one gradient, near x: nearly gradient x input. Take the mean of all.": multiply(gradients[-1], x - baseline),
        "this is the gradient near the baseline alone. Take the mean of all.": multiply(gradients[0], x - baseline),
        "all points weigh the same: they are middles of pieces, no ends of them.": multiply(
            torch.trapezoid(gradients, dx=1 / (S - 1), dim=0), x - baseline
        ),
        "the numbers of an embedding are averaged: sum them, or the values do not add up to the gap.": expected / C,
        "a value has a sign: a token may speak against the class.": expected.abs(),
        "the length has no sign: sum over the numbers of an embedding.": by_number.norm(dim=-1),
    }
    if torch.allclose(result.to(expected), expected, atol=1e-5):
        return None
    matching = (m for m, wrong in mistakes.items() if torch.allclose(result.to(wrong), wrong, atol=1e-5))
    return next(matching, "the numbers differ. Do they add up to the gap where the gradient grows evenly on the way?")


def multiply(gradient: Tensor, way: Tensor) -> Tensor:
    """Return the product of two tensors (T, C), summed over the numbers of an embedding: (T,)."""
    return (gradient * way).sum(dim=-1)
