"""The slice of a corpus that is measured: which texts, in which batches, in which chunk."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from data.batches import Batch, bucket, bucketed
from lab.device import Device
from model import GPT2Config

BATCH = 32  # texts
Index = NDArray[np.integer]  # positions of texts


@dataclass(frozen=True, eq=False)
class Split:
    """The texts of one split."""

    sequences: list[list[int]]  # token ids of N texts
    targets: Index  # int64 (N,)

    @property
    def lengths(self) -> Index:
        return np.array([len(ids) for ids in self.sequences])

    def batch(self, index: Index) -> Batch:
        """These texts, padded, on the CPU; the shortest first."""
        return next(bucketed([self.sequences[i] for i in index], self.targets[index], len(index)))


@dataclass(frozen=True)
class Amount:
    """How much is measured."""

    rounds: int  # timed chunks
    steps: int  # of fine-tuning in each
    texts: int  # of the sweep in each

    @classmethod
    def choose(cls, config: GPT2Config, device: Device, quick: bool) -> "Amount":
        """Chunks of some seconds on two cores, or on a GPU."""
        faster = 20 if device.device.type == "cuda" else 1
        if quick:
            return cls(3, 2 * faster, 24 * faster)
        large = config.block_weights > 2e7
        return cls(5, (2 if large else 8) * faster, (8 if large else 64) * faster)


def grouped(lengths: Index, amount: Amount) -> list[list[Index]]:
    """Fine-tuning on texts of like length together, as train.py does it."""
    return dealt(bucket(lengths.tolist(), BATCH, seed=0), lengths, amount)


def shuffled(lengths: Index, amount: Amount) -> list[list[Index]]:
    """Fine-tuning on texts in random order."""
    order = np.random.default_rng(0).permutation(len(lengths))
    return dealt(np.split(order, range(BATCH, len(order), BATCH)), lengths, amount)


def dealt(batches: Sequence[Index], lengths: Index, amount: Amount) -> list[list[Index]]:
    """Full batches from all over, evenly from short texts to long ones in every chunk; the first chunk is there twice,
    to warm up."""
    full = [index for index in batches if len(index) == BATCH] or batches
    order = sorted(full, key=lambda index: lengths[index].sum())
    n = amount.rounds * amount.steps
    chosen = [order[(2 * i + 1) * len(order) // (2 * n)] for i in range(n)]
    chunks = [chosen[start :: amount.rounds] for start in range(amount.rounds)]
    return [chunks[0], *chunks]


def middling(lengths: Index, n: int) -> Index:
    """The n texts whose length is nearest to the median, so that few fill batches of equal length; short ones first."""
    chosen = np.argsort(np.abs(lengths - np.median(lengths)), kind="stable")[:n]
    return chosen[np.argsort(lengths[chosen], kind="stable")]


def unpadded(lengths: Index, amount: Amount, size: int = BATCH) -> list[list[Index]]:
    """The sweep on texts of middling length, at most `size` of equal length in a batch; one batch to warm up."""
    index = middling(lengths, amount.rounds * amount.texts)
    chunks = [
        [own[start : start + size] for own in equal(part, lengths) for start in range(0, len(own), size)]
        for part in np.array_split(index, amount.rounds)
    ]
    return [chunks[0][:1], *chunks]


def equal(index: Index, lengths: Index) -> list[Index]:
    """Texts of each length; index: sorted by length."""
    return [np.array(list(own)) for _, own in groupby(index, key=lambda i: lengths[i])]
