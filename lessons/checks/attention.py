"""Lesson 2: a causal mask with a window, and a masked key beside one that is cut."""

from typing import Any

import torch
from torch import Tensor

from lessons.checks import call, check, expect_number, expect_tensor
from model import masks


@check
def check_1(answer: Any) -> str | None:
    for T, w in ((7, 3), (5, 1), (4, 9)):
        result, mistake = call(answer, T, w)
        if mistake:
            return mistake
        if mistake := expect_tensor(result, (T, T)):
            return f"f({T}, {w}): {mistake}"
        if result.dtype != torch.bool:
            return f"expected bool, True where a query may look, got {result.dtype}; compare with something."
        if not torch.equal(result, expected := masks.band(T, w)[0, 0, 0]):
            return f"f({T}, {w}): {find_wrong_window(result, expected)}"
    return None


def find_wrong_window(result: Tensor, expected: Tensor) -> str:
    """Say how a mask bool (T, T) differs from the expected one; they do."""
    T, last = len(result), int(expected[-1].sum())
    if torch.equal(result, ~expected):
        return "True means that a query may look there; yours is True where it may not."
    if torch.equal(result, expected.T):
        return "rows are queries, columns are keys; yours are the other way round."
    if result.triu(1).any():
        query, key = result.triu(1).nonzero()[0].tolist()
        return f"query {query} may look at key {key}, which comes later."
    if not result.diagonal().all():
        return "a query may look at its own key too, which is the last one of its window."
    if torch.equal(result, torch.ones(T, T, dtype=torch.bool).tril()):
        return "each query sees all keys before it; the window is missing."
    if (seen := int(result[-1].sum())) != last:
        return f"the last query sees {seen} keys, its own counted in, where {last} are expected."
    return "some rows are right and others are not; print it, and count the keys of each query."


@check
def check_2(answer: Any) -> str | None:
    try:
        masked, cut = answer
    except (TypeError, ValueError):
        return f"expected a pair of two numbers, (masked, cut), got {type(answer).__name__}."
    if mistake := expect_number(masked) or expect_number(cut):
        return f"the pair (masked, cut): {mistake}"
    masked, cut = float(masked), float(cut)
    if is_near((masked, cut), (1.8, 0.9)):
        return None
    mistakes = {
        (0.9, 1.8): "these two are the wrong way round: what makes up for a cut?",
        (0.9, 0.9): "a mask acts before the softmax: the weights that are left sum to 1 again.",
        (1.8, 1.8): "nothing makes up for a cut: the weights that are left stay as they were.",
        (3.9, 3.9): "that is what the head emits with all three keys in sight.",
    }
    if pair := next((pair for pair in mistakes if is_near((masked, cut), pair)), None):
        return mistakes[pair]
    if is_near((cut,), (0.9,)):
        of_masked = {
            2.0: "the two keys that are left do not get the same weight: they keep their ratio.",
            0.45: "the weights that are left sum to 1/2. Divide by that; do not multiply with it.",
            3.9: "the first key still counts in the masked one.",
        }
        found = next((text for wrong, text in of_masked.items() if is_near((masked,), (wrong,))), None)
        return found or "the cut one is right. For the masked one, make the weights that are left sum to 1."
    if is_near((masked,), (1.8,)):
        return "the masked one is right. A cut sets one weight to 0 and leaves the others."
    return "neither is right. Without the first key, which weights are left, and what do they sum to?"


def is_near(numbers: tuple[float, ...], others: tuple[float, ...]) -> bool:
    """Return whether numbers differ from others by rounding only."""
    return all(abs(number - other) < 0.01 for number, other in zip(numbers, others, strict=True))
