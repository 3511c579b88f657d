"""As much at once as fits into memory."""

from collections.abc import Callable
from typing import TypeVar

import torch

from .progress import console

T = TypeVar("T")


def fitting(compute: Callable[[int], T], tokens: int, there: int, least: int) -> tuple[T, int]:
    """`compute(tokens)`, or fewer if not so many are `there`; with half as many, and so on down to `least`, for as long
    as a GPU runs out of memory.

    Returns the result, and the `tokens` to begin with the next time. Raises torch.OutOfMemoryError."""
    while True:
        try:
            return compute(min(tokens, there)), tokens
        except torch.OutOfMemoryError:
            if min(tokens, there) // 2 < least:
                raise
        torch.cuda.empty_cache()  # out here nothing holds what the failed pass had computed
        tokens = min(tokens, there) // 2
        console.print(f"out of memory: going on with at most {tokens:,} tokens at once")
