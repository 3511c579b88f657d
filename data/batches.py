"""Batches: texts of similar length, right-padded to one length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from model import InputError, Tokenizer

from .token_ids import TokenIds, pack, store

POOL = 50  # batches that are sorted together after a shuffle: enough for little padding, few enough to mix lengths


@dataclass(frozen=True, eq=False)
class Batch:
    """B right-padded texts. Raises ValueError for a length outside 1..T, if the lengths are on the CPU."""

    ids: torch.Tensor  # int64 (B, T)
    lengths: torch.Tensor  # int64 (B,), real tokens per row
    targets: torch.Tensor  # int64 (B,), class numbers
    index: torch.Tensor  # int64 (B,), positions in the split; always on the CPU, where the texts are

    def __post_init__(self) -> None:
        if self.lengths.device.type == "cpu":  # anywhere else the check would wait for the device
            low, high = self.lengths.aminmax()
            if low < 1 or high > self.ids.shape[1]:
                raise ValueError(f"lengths: expected 1..{self.ids.shape[1]}, got {int(low)}..{int(high)}")

    def to(self, device: torch.device | str) -> "Batch":
        """Copy the batch to `device`, see `copy_to`."""
        ids, lengths, targets = (copy_to(device, tensor) for tensor in (self.ids, self.lengths, self.targets))
        return Batch(ids, lengths, targets, self.index)

    def rows(self, chosen: slice) -> "Batch":
        """Return some of its texts, without the padding that only the others need."""
        T = int(self.lengths[chosen].max())
        return Batch(self.ids[chosen, :T], self.lengths[chosen], self.targets[chosen], self.index[chosen])

    def split(self, tokens: int) -> list["Batch"]:
        """Split it into batches of at most `tokens` tokens, padding included, or of a single text."""
        size = max(1, tokens // self.ids.shape[1])
        return [self.rows(slice(start, start + size)) for start in range(0, len(self.ids), size)]


def copy_to(device: torch.device | str, tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor to `device`; the copy to a GPU runs while the program goes on."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":  # back to the CPU is not safe
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def encode(tokenizer: Tokenizer, examples: pd.DataFrame, n_ctx: int, truncate: bool = False) -> tuple[TokenIds, int]:
    """Return the token ids of each text, and how many texts were truncated.

    `examples` has the columns text, file and line. A text of more than `n_ctx` tokens raises InputError; with
    `truncate` its last `n_ctx` tokens are kept, because the class is read at the end.
    """
    long: list[tuple[int, int]] = []  # the position of a long text, and how many tokens it has

    def encode_text(i: int, text: str) -> list[int]:
        ids = tokenizer.encode(text)
        if len(ids) > n_ctx:
            long.append((i, len(ids)))
        return ids[-n_ctx:]

    sequences = store(map(encode_text, count(), examples["text"]))
    if long and not truncate:
        position, tokens = long[0]
        first = examples.iloc[position]
        limit = f"expected at most {n_ctx} tokens, got {tokens}"
        them = f"the text, the first of {len(long):,}" if len(long) > 1 else "the text"
        advice = f"shorten {them}, or pass --truncate to keep the end"
        raise InputError(f"{first['file']}:{first['line']}: {limit}; {advice}")
    return sequences, len(long)


def bucket(
    lengths: Sequence[int] | NDArray[np.integer], batch_size: int, seed: int | None = None, epoch: int = 0
) -> list[np.ndarray]:
    """Return the positions of the texts of each batch: ceil(N / batch_size) arrays, int64, each text in exactly one.

    Without a seed, for evaluation, texts are sorted by length. With one, for training, (seed, epoch) decide: texts are
    shuffled, sorted by length within pools of 50 batches, and the batches shuffled. InputError for a size below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch size: expected at least 1, got {batch_size}; pass another")
    if seed is None:
        return _cut(np.argsort(lengths, kind="stable"), batch_size)
    rng = np.random.default_rng((seed, epoch))
    pools = _cut(rng.permutation(len(lengths)), POOL * batch_size)
    ordered = [pool[np.argsort(np.asarray(lengths)[pool], kind="stable")] for pool in pools]
    batches = [batch for pool in ordered for batch in _cut(pool, batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def _cut(positions: np.ndarray, size: int) -> list[np.ndarray]:
    return [positions[start : start + size] for start in range(0, len(positions), size)]


def bucketed(
    sequences: Sequence[Sequence[int]],
    targets: np.ndarray,
    batch_size: int,
    seed: int | None = None,
    epoch: int = 0,
) -> Iterator[Batch]:
    """Yield the batches of `bucket`, padded with 0. `targets`: int64 (N,), class numbers; ValueError for another N."""
    if len(sequences) != len(targets):
        raise ValueError(f"targets: expected one for each of {len(sequences)} texts, got {len(targets)}")
    packed = pack(sequences)
    return (_batch(packed, targets, index) for index in bucket(packed.lengths, batch_size, seed, epoch))


def token_batches(
    sequences: Sequence[Sequence[int]], targets: np.ndarray, tokens: int, among: np.ndarray
) -> Iterator[Batch]:
    """Yield the texts at `among`, int64 positions, in batches of at most `tokens` tokens, padding included, or of one.

    The longest come first, so that a batch too large for memory shows at once."""
    packed = pack(sequences)
    order, start = among[np.argsort(-packed.lengths[among], kind="stable")], 0
    while start < len(order):
        size = max(1, tokens // int(packed.lengths[order[start]]))
        yield _batch(packed, targets, order[start : start + size])
        start += size


def _batch(sequences: TokenIds, targets: np.ndarray, index: np.ndarray) -> Batch:
    return Batch(
        ids=torch.from_numpy(sequences.pad(index)),
        lengths=torch.from_numpy(sequences.lengths[index]),
        targets=torch.from_numpy(targets[index]),
        index=torch.from_numpy(index),
    )
