"""Lesson 4: how many random parts do as much, and a gate that closes the heads of a layer."""

from itertools import product
from typing import Any

import torch

from lab.units import Head
from lessons.checks import check, expect_number

DRAWS, AS_MUCH = 39, 3  # random subspaces, and those of them that take as much as the head
L, H, LAYER = 6, 8, 2


@check
def check_1(answer: Any) -> str | None:
    if mistake := expect_number(answer):
        return mistake
    n, m = DRAWS, AS_MUCH
    mistakes = {
        (m + 1) / (n + 1): None,
        m / n: "the head is missing. If it were nothing special, it would be one more draw: count it in, twice.",
        (m + 1) / n: "the head is counted among those that take as much, but not among all draws.",
        m / (n + 1): "the head is counted among all draws, but not among those that take as much.",
        2 * (m + 1) / (n + 1): "this is two-sided. The question has one direction: who takes as much or more?",
        1 - (m + 1) / (n + 1): "this is the share of those that take less.",
        (m + 1): "this is a number of draws. p is a share of all of them.",
    }
    matching = (mistake for value, mistake in mistakes.items() if abs(float(answer) - value) < 5e-4)
    return next(matching, f"{answer} is not the share. Which draws take as much as the head, out of how many draws?")


@check
def check_2(answer: Any) -> str | None:
    shape = (1, L, H, 1)
    if not isinstance(answer, torch.Tensor):
        return f"expected a tensor, got {type(answer).__name__}."
    if answer.dim() != 4:
        shapes = f"expected four axes (B, L, H, T) = {shape}, got shape {tuple(answer.shape)}"
        return f"{shapes}.{' That is the gate of an MLP, which has no heads.' if answer.dim() == 3 else ''}"
    try:
        gate = answer.float().expand(shape)
    except RuntimeError:
        return f"expected a shape that broadcasts to (B, L, H, T) = {shape}, got {tuple(answer.shape)}."
    if not torch.isin(gate, torch.tensor([0.0, 1.0])).all():
        return "a gate that is open is 1 and one that is closed is 0; there are other numbers."
    return find_wrong_heads({(layer, head) for layer, head in (gate[0, :, :, 0] == 0).nonzero().tolist()})


def find_wrong_heads(closed: set[Head]) -> str | None:
    """Return what is wrong with the heads that a gate closes; None where they are those of LAYER."""
    wanted = {(LAYER, head) for head in range(H)}
    if closed < wanted:
        return f"this closes {len(closed)} of the {H} heads of layer {LAYER}."
    mistakes = {
        "this is the complement: what should be closed is open.": set(product(range(L), range(H))) - wanted,
        f"this closes head {LAYER} of every layer: layers are axis 1.": {(layer, LAYER) for layer in range(L)},
        f"this closes layer {LAYER - 1}: layers are counted from 0.": {(LAYER - 1, head) for head in range(H)},
    }
    others = f"{len(closed)} gates are closed, and not those of layer {LAYER} alone. Look at gate[0, :, :, 0]."
    return None if closed == wanted else next((text for text, heads in mistakes.items() if closed == heads), others)
