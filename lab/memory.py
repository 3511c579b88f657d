"""Compute as much at once as `device.tokens` allows, and less where a GPU runs out of memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from data.batches import Batch, token_batches

from .device import Device
from .progress import console, progress_bar

T = TypeVar("T")


def halve_until_it_fits(compute: Callable[[int], T], tokens: int, available: int, minimum: int) -> tuple[T, int]:
    """Call `compute(min(tokens, available))`; where a GPU runs out of memory, halve that number and call it again.

    compute: gets the number of tokens that it may process at once. tokens: how many are allowed; available: how many
    there are to process, all in all. Returns the result, and the `tokens` for the next call: fewer if memory ran out.
    Raises torch.OutOfMemoryError where memory runs out and half as many are fewer than `minimum`."""
    while True:
        try:
            return compute(min(tokens, available)), tokens
        except torch.OutOfMemoryError:
            if min(tokens, available) // 2 < minimum:
                raise
        torch.cuda.empty_cache()  # after the except block, where nothing holds what the failed call had computed
        tokens = min(tokens, available) // 2
        console.print(f"out of memory: going on with at most {tokens:,} tokens at once")


def map_batches(compute: Callable[[Batch], T], batches: Iterable[Batch], device: Device) -> Iterator[tuple[Batch, T]]:
    """Yield each batch, on the CPU, with `compute(batch)`.

    Where a GPU runs out of memory, this batch and all later ones come in smaller pieces. What is computed must not
    depend on which texts are together. Raises torch.OutOfMemoryError where one text does not fit."""
    tokens = device.tokens
    for batch in batches:
        n_texts, length = batch.ids.shape
        pieces, tokens = halve_until_it_fits(partial(_pieces, compute, batch), tokens, n_texts * length, length)
        yield from pieces


def map_texts(
    compute: Callable[[Batch], T],
    sequences: Sequence[list[int]],
    device: Device,
    title: str,
    targets: NDArray[np.integer] | None = None,
) -> Iterator[tuple[Batch, T]]:
    """Call `map_batches` on all texts, at most `device.tokens` tokens at once, with a progress bar called `title`.

    sequences: token ids of N texts; targets: int64 (N,), the class numbers where `compute` asks for them."""
    targets = np.zeros(len(sequences), dtype=np.int64) if targets is None else targets
    batches = token_batches(sequences, targets, device.tokens, np.arange(len(sequences)))
    # Not rich's `track`: where `compute` fails, its bar is left to garbage collection. That may run in the thread that
    # draws another bar, and the two would wait for each other for ever.
    with progress_bar("texts") as bar:
        task = bar.add_task(title, total=len(sequences), note="")
        for batch, result in map_batches(compute, batches, device):
            yield batch, result
            bar.advance(task, len(batch.ids))


def _pieces(compute: Callable[[Batch], T], batch: Batch, tokens: int) -> list[tuple[Batch, T]]:
    return [(piece, compute(piece)) for piece in batch.split(tokens)]
