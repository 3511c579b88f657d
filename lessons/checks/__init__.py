"""What lessons print: measured numbers, and what is wrong with answers. One file for each lesson holds its checks."""

import copy
import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor


def check(find_mistake: Callable[[Any], str | None]) -> Callable[[Any], None]:
    """Turn a function that returns what is wrong with an answer, or None, into one that prints its verdict."""

    @wraps(find_mistake)
    def print_verdict(answer: Any) -> None:
        if answer is None:
            print("Not yet: put your answer in the place of None.")
            return
        mistake = find_mistake(answer)
        print(f"Not yet: {mistake}" if mistake else "Right.")

    return print_verdict


def show(measured: Mapping[str, Any]) -> None:
    """Print measured numbers by name, to be compared with the table below them."""
    width = max(map(len, measured))
    for name, value in measured.items():
        print(f"{name:{width}}  {float(value):.4g}")


def call(answer: Any, *arguments: Any) -> tuple[Any, str | None]:
    """Call a student's function on copies of these arguments: (its result, None), or (None, what went wrong)."""
    if mistake := expect_function(answer):
        return None, mistake
    try:
        return answer(*copy.deepcopy(arguments)), None
    except Exception as error:  # whatever a student's function raises
        called = f"f({', '.join(map(describe, arguments))})"
        return None, f"it is called as {called}, which failed: {type(error).__name__}: {error}."


def describe(argument: Any) -> str:
    """Say what an argument is: a number itself, a tensor or an array by its shape, anything else by its type."""
    if isinstance(argument, Tensor | np.ndarray):
        return f"{'tensor' if isinstance(argument, Tensor) else 'array'} {tuple(argument.shape)}"
    return str(argument) if isinstance(argument, int | float) else type(argument).__name__


def expect_number(answer: Any) -> str | None:
    """Return what is wrong with an answer that must be a number; None where it is one."""
    try:
        is_finite = math.isfinite(float(answer))
    except (TypeError, ValueError, RuntimeError):  # the last is what a tensor of several numbers raises
        return f"expected a number, got {type(answer).__name__}."
    except OverflowError:
        return "expected a number, got one that is too large for a float."
    return None if is_finite else f"expected a number, got {answer}."


def expect_function(answer: Any) -> str | None:
    """Return what is wrong with an answer that must be a function; None where it is one."""
    return None if callable(answer) else f"expected a function, not called yet, got {type(answer).__name__}."


def expect_tensor(answer: Any, shape: tuple[int, ...]) -> str | None:
    """Return what is wrong with an answer that must be a tensor of this shape; None where it is one."""
    if isinstance(answer, np.ndarray):
        return "expected a tensor, got a numpy array; torch.from_numpy makes a tensor of it."
    if not isinstance(answer, Tensor):
        return f"expected a tensor, got {type(answer).__name__}."
    return None if answer.shape == shape else f"expected a tensor of shape {shape}, got {tuple(answer.shape)}."


def expect_floats(answer: Any, shape: tuple[int, ...]) -> str | None:
    """Return what is wrong with an answer that must be a tensor of floats of this shape; None where it is one."""
    if mistake := expect_tensor(answer, shape):
        return mistake
    return None if answer.is_floating_point() else f"expected a tensor of floats, got {answer.dtype}."


def is_close(answer: Tensor, expected: Tensor) -> bool:
    """Return whether an answer is the expected one up to rounding, in whichever float dtype it is."""
    tolerance = max(1e-5, 4 * torch.finfo(answer.dtype).eps)
    return torch.allclose(answer.to(expected), expected, rtol=tolerance, atol=tolerance)
