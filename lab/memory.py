"""As much at once as fits into memory."""

from collections.abc import Callable
from typing import TypeVar

import torch

from .progress import console

T = TypeVar("T")


def fitting(compute: Callable[[int], T], tokens: int, least: int) -> tuple[T, int]:
    """`compute(tokens)`, and again with half as many for as long as a GPU runs out of memory, down to `least`.

    Returns the result, and how many tokens at once it took, for the next time. Raises torch.OutOfMemoryError."""
    while True:
        try:
            return compute(tokens), tokens
        except torch.OutOfMemoryError:
            if tokens // 2 < least:
                raise
        torch.cuda.empty_cache()  # out here nothing holds what the failed pass had computed
        tokens //= 2
        console.print(f"out of memory: going on with at most {tokens:,} tokens at once")
