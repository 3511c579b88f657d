"""Lesson 4: how many random parts a small p asks for, and a gate that closes the heads of a layer."""

from itertools import product
from typing import Any

import torch

from lab.units import Head
from lessons.checks import check, expect_number

L, H, LAYER = 6, 8, 2


@check
def check_1(answer: Any) -> str | None:
    if mistake := expect_number(answer):
        return mistake
    number = float(answer)
    mistakes = {
        100: "the head is one more draw: with 100 subspaces it is one of 101.",
        98: "98 subspaces and the head are 99 draws.",
        19: "that is p = 1/20.",
        95: "what does p become with that many?",
        1900: "the number of draws grows as p falls from 1/20 to 1/100: five times as many draws, not more.",
    }
    if number == 99:
        return None
    if number != int(number) or number < 1:
        return f"expected a number of subspaces, got {answer}."
    size = "more than that are needed" if number < 99 else "fewer than that will do"
    return mistakes.get(int(number), f"{size}. With {answer} of them, how many draws are there, the head among them?")


@check
def check_2(answer: Any) -> str | None:
    if not isinstance(answer, torch.Tensor):
        return f"expected a tensor, got {type(answer).__name__}."
    if not answer.is_floating_point():
        return f"a gate multiplies, so it is a float tensor; {answer.dtype} is refused by the network."
    if answer.dim() != 4:
        return f"expected four axes (B, L, H, T), some of size 1, got {answer.dim()}, of sizes {tuple(answer.shape)}."
    B, layers, heads, T = answer.shape
    if (layers, heads) == (H, L):
        return "layers are axis 1 and heads axis 2; yours are the other way round."
    if B != 1 or layers not in (1, L) or heads not in (1, H):
        return f"expected axes of 1 text, {L} layers, {H} heads and T tokens, or 1 instead, got {tuple(answer.shape)}."
    if not torch.isin(answer, torch.tensor([0.0, 1.0])).all():
        return "expected 0, closed, and 1, open; there are other numbers."
    if T > 1 and not (answer == answer[..., :1]).all():
        return "the heads are closed at some tokens and open at others."
    gate = answer.expand(1, L, H, T)[0, :, :, 0]
    return find_wrong_heads({(layer, head) for layer, head in (gate == 0).nonzero().tolist()})


def find_wrong_heads(closed: set[Head]) -> str | None:
    """Return what is wrong with the heads that a gate closes; None where they are those of LAYER."""
    wanted, every = {(LAYER, head) for head in range(H)}, set(product(range(L), range(H)))
    if closed < wanted:
        return f"this closes {len(closed)} of the {H} heads of layer {LAYER}."
    mistakes = {
        "this closes every head of the network.": every,
        "this is the complement: what should be closed is open.": every - wanted,
        f"this closes head {LAYER} of every layer: layers are axis 1.": {(layer, LAYER) for layer in range(L)},
        f"this closes layer {LAYER - 1}: layers are counted from 0.": {(LAYER - 1, head) for head in range(H)},
    }
    others = f"this closes {len(closed)} heads, and not those of layer {LAYER} alone."
    return None if closed == wanted else next((text for text, heads in mistakes.items() if closed == heads), others)
