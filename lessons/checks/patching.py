"""Lesson 6: an effect as a share of the gap, and the arguments that patch one head at one token."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lessons.checks import call, check, expect_number
from model.interventions import describe

TOP, BOTTOM, PATCHED = 6, -2, 1  # the metric: clean, corrupt, clean with one cell of the corrupt run
L, H, T, D = 3, 5, 7, 2
LAYER, HEAD, POSITION = 1, 2, 4


@check
def check_1(answer: Any) -> str | None:
    if mistake := expect_number(answer):
        return mistake
    gap, moved = TOP - BOTTOM, TOP - PATCHED
    mistakes = {
        -moved / gap: "the sign: an effect is positive where the metric moves towards the other run.",
        1 - moved / gap: "this is the share that is left. Noise asks which share is lost.",
        moved / TOP: "you divided by the metric of the clean run. The gap is the difference between the two runs.",
        PATCHED / TOP: "a ratio of two metrics has no zero: the corrupt run, where all is lost, is not at 0.",
        PATCHED / gap: "you divided the metric itself. What counts is how far it moved from the base run.",
        moved: "this is how far the metric moved, in logits. Divide it by the gap.",
        -moved: "the sign, and the gap: an effect is positive towards the other run, and a share of the gap.",
        100 * moved / gap: "write the share as a number from 0 to 1, not in per cent.",
        moved / (TOP + BOTTOM): "the gap is the clean metric minus the corrupt one, and the corrupt one is negative.",
    }
    if abs(float(answer) - moved / gap) < 0.006:
        return None
    matching = (mistake for value, mistake in mistakes.items() if abs(float(answer) - value) < 0.006)
    return next(matching, f"{answer} is not it. How far did the metric move, and how far can it?")


@check
def check_2(answer: Any) -> str | None:
    clean, corrupt = (make_run(seed) for seed in (0, 1))
    arguments, mistake = call(answer, clean, corrupt, LAYER, HEAD, POSITION)
    if mistake:
        return f"f(clean, corrupt, layer, head, position): {mistake}"
    if not isinstance(arguments, dict) or arguments.keys() != {"head_gate", "head_fill"}:
        came = sorted(map(str, arguments)) if isinstance(arguments, dict) else type(arguments).__name__
        return f"expected a dict of head_gate and head_fill, got {came}."
    for name, shape in (("head_gate", (1, L, H, T)), ("head_fill", (1, L, H, T, D))):
        if not fits(arguments[name], shape):
            came = describe(arguments[name])
            sizes = 'with the sizes of clean.stacked("z"), or 1 on any axis'
            return f"{name}: expected a tensor of floats of shape {shape}, {sizes}, got {came}."
    gate, fill = arguments["head_gate"].expand(1, L, H, T)[0], arguments["head_fill"].expand(1, L, H, T, D)[0]
    return find_gate_mistake(gate) or find_fill_mistake(fill[LAYER, HEAD, POSITION], clean, corrupt)


def make_run(seed: int) -> Any:
    """Return a stand-in for a run that was recorded: z is random, and different at each place."""
    z = torch.randn(1, L, H, T, D, generator=torch.Generator().manual_seed(seed))
    return SimpleNamespace(z=list(z.unbind(dim=1)), stacked=lambda name: {"z": z}[name])


def fits(value: Any, shape: tuple[int, ...]) -> bool:
    """Return whether a value is a tensor of floats of this shape, where any axis may be 1."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() != len(shape):
        return False
    return all(n in (1, full) for n, full in zip(value.shape, shape, strict=True))


def mark(*at: Any) -> Tensor:
    """Return which heads are closed at which token where these are: bool (L, H, T)."""
    closed = torch.zeros(L, H, T, dtype=torch.bool)
    closed[at] = True
    return closed


def find_gate_mistake(gate: Tensor) -> str | None:
    """Return what is wrong with the gate of all cells, (L, H, T); None where it closes the one cell."""
    if not ((gate == 0) | (gate == 1)).all():
        return "the gate is 1 where a head stays as it is and 0 where the fill takes its place; nothing else is."
    closed, everywhere, cell = gate == 0, slice(None), mark(LAYER, HEAD, POSITION)
    mistakes = [
        (mark(slice(0)), "the gate is 1 everywhere, so z stays and the fill is never used."),
        (~cell, "the gate is turned round: it is 1 at the cell, which keeps its z, and 0 at all others."),
        (mark(everywhere), "the gate is 0 everywhere: all heads are patched, at all tokens."),
        (mark(LAYER, HEAD), "the head is patched at all positions, not at one."),
        (mark(LAYER, everywhere, POSITION), "all heads of the layer are patched, not one."),
        (mark(everywhere, HEAD, POSITION), "this head is patched in all layers, not in one."),
        (mark(HEAD, LAYER, POSITION), "layer and head are swapped: the axes are (B, L, H, T)."),
        (mark(LAYER - 1, HEAD, POSITION), "the layer is wrong by one: layers are counted from 0."),
    ]
    if torch.equal(closed, cell):
        return None
    matching = (mistake for wrong, mistake in mistakes if torch.equal(closed, wrong))
    return next(matching, f"the gate is 0 in another place, or in more of them (0 at {int(closed.sum())} cells).")


def find_fill_mistake(fill: Tensor, clean: Any, corrupt: Any) -> str | None:
    """Return what is wrong with what the cell emits, (D,); None where it is what the head emits in the clean run."""
    here, z = (LAYER, HEAD, POSITION), clean.stacked("z")[0]
    fill = fill.to(z)
    if torch.allclose(fill, z[here]):
        return None
    if torch.allclose(fill, corrupt.stacked("z")[0][here]):
        return "the fill comes from the corrupt run, which is the one that is patched: nothing would change."
    if not fill.any():
        return "the fill is 0 at the cell: that takes the head out instead of patching it."
    if torch.isclose(z, fill).all(dim=-1).any():
        return "the fill is from the clean run, but from another layer, head or position."
    return "the fill at the cell is not what the head emits in the clean run."
