"""What lessons print: measured numbers, and what is wrong with answers. One file for each lesson holds its checks."""

import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any


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


def expect_number(answer: Any) -> str | None:
    """Return what is wrong with an answer that must be a number; None where it is one."""
    try:
        is_finite = math.isfinite(float(answer))
    except (TypeError, ValueError, RuntimeError):  # the last is what a tensor of several numbers raises
        return f"expected a number, got {type(answer).__name__}."
    return None if is_finite else f"expected a number, got {answer}."


def expect_function(answer: Any) -> str | None:
    """Return what is wrong with an answer that must be a function; None where it is one."""
    return None if callable(answer) else f"expected a function, not called yet, got {type(answer).__name__}."
