"""Lesson 5: selectivity, and a direction taken out of vectors."""

from itertools import permutations
from typing import Any

import numpy as np
import torch

from lessons.checks import call, check, expect_floats, expect_number

ACCURACY, MAJORITY, CONTROL = 0.90, 0.85, 0.88


@check
def check_1(answer: Any) -> str | None:
    if mistake := expect_number(answer):
        return mistake
    mistakes = {
        ACCURACY - CONTROL: None,
        CONTROL - ACCURACY: "the sign is wrong: it is the accuracy minus that of the control task, in this order.",
        ACCURACY - MAJORITY: "this compares with the most frequent label. Selectivity compares with the control task.",
        CONTROL - MAJORITY: "this is what the control task gains over the most frequent label; where is the probe?",
        ACCURACY / CONTROL: "this is a ratio. Selectivity is a difference.",
        (ACCURACY - CONTROL)
        / (1 - CONTROL): "this is a part of what the control task left. Selectivity is a difference.",
    }
    mistakes |= {
        100 * (one - other): "these are percentage points. Accuracies here are shares of 1."
        for one, other in permutations((ACCURACY, MAJORITY, CONTROL), 2)
    }
    matching = (mistake for value, mistake in mistakes.items() if abs(float(answer) - value) < 1e-3)
    return next(matching, f"{answer} is not the selectivity. It needs two of the three numbers.")


@check
def check_2(answer: Any) -> str | None:
    rng = torch.Generator().manual_seed(0)
    x, direction = 3 + torch.randn(5, 7, generator=rng), 2 * torch.randn(7, generator=rng)
    result, mistake = call(answer, x, direction)
    if isinstance(result, np.ndarray):  # as the vectors of the lesson are
        result = torch.from_numpy(result)
    if mistake := mistake or expect_floats(result, (5, 7)):
        return mistake
    return find_wrong_projection(x, direction, result.float())


def find_wrong_projection(x: torch.Tensor, direction: torch.Tensor, result: torch.Tensor) -> str | None:
    """Return what is wrong with x (N, C) from which a direction (C,) was taken; None where nothing is."""
    unit, mean = direction / direction.norm(), x.mean(dim=0)
    along = torch.outer((x - mean) @ unit, unit)  # (N, C)
    mistakes = {
        None: x - along,
        "nothing is removed.": x,
        "the direction is not normalised: divide it by its length first.": x - along * direction.norm() ** 2,
        "the direction is normalised once; it stands in the product twice.": x - along * direction.norm(),
        "this is what should go; return what is left.": along,
        "this is what should go, with the mean; return what is left.": mean + along,
        "the mean is forgotten: this moves all vectors to 0 along the direction.": x - torch.outer(x @ unit, unit),
        "the direction is not normalised, and the mean is forgotten: measure from it.": (
            x - torch.outer(x @ direction, direction)
        ),
        "the mean is taken out, too; add it again.": x - mean - along,
        "the sign is wrong: this doubles what should go.": x + along,
    }
    others = "the numbers differ. Try the direction (1, 0): the first numbers become their mean, the second ones stay."
    return next((text for text, wrong in mistakes.items() if torch.allclose(result, wrong, atol=1e-4)), others)
