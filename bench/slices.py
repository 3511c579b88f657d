"""The texts that are timed, of a corpus or random: which, in which batches, in which chunk."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch, bucket, bucketed
from lab.device import Device
from lab.texts import Texts
from model import GPT2Config

BATCH = 32  # texts
EPOCHS = 10  # of a head that is trained alone, as in train.py
TOKENS = 20  # of a text that is patched
CHANGED = 5  # position of the token that differs in the two texts of a pair, a quarter into them
Positions = NDArray[np.integer]  # of texts


def make_batch(texts: Texts, positions: Positions) -> Batch:
    """Return these texts padded, on the CPU, the shortest first."""
    chosen = texts.select(positions)
    return next(bucketed(chosen.sequences, chosen.targets, len(chosen)))


def draw_texts(n: int, tokens: int) -> Texts:
    """Return n texts of random tokens, of three classes. The last tokens of the vocabulary do not occur."""
    rng = np.random.default_rng(0)
    sequences, targets = rng.integers(50_000, size=(n, tokens)).tolist(), rng.integers(3, size=n)
    return Texts("random", np.arange(n), [""] * n, sequences, targets)


def change_token(ids: Tensor) -> Tensor:
    """Return the other texts of pairs: random ids (B, T), each with another token at position CHANGED."""
    ids = ids.clone()
    ids[:, CHANGED] += 1
    return ids


@dataclass(frozen=True)
class Amount:
    """How much is timed."""

    rounds: int  # timed chunks
    steps: int  # of fine-tuning in each
    texts: int  # of the sweep in each
    pairs: int  # of texts, of patching in each
    prompts: int = 8  # with examples that run again, in each

    @classmethod
    def choose(cls, config: GPT2Config, device: Device, quick: bool) -> "Amount":
        """Return an amount whose chunks take some seconds on two cores, or on a GPU."""
        faster = 20 if device.device.type == "cuda" else 1
        if quick:
            return cls(3, 2 * faster, 24 * faster, 2)
        large = config.block_weights > 2e7
        few, prompts = (2, 4) if large else (8, 32)
        return cls(5, few * faster, (8 if large else 64) * faster, 1 if large else 8, prompts)


def group_by_length(lengths: NDArray[np.integer], amount: Amount) -> list[list[Positions]]:
    """Return chunks for fine-tuning whose batches hold texts of similar length, as in train.py."""
    return deal(bucket(lengths.tolist(), BATCH, seed=0), lengths, amount)


def group_by_trainer(lengths: NDArray[np.integer], amount: Amount) -> list[list[Positions]]:
    """Return chunks for fine-tuning of the batches that the Trainer of transformers makes with `group_by_length`."""
    from transformers.trainer_pt_utils import LengthGroupedSampler

    sampler = LengthGroupedSampler(BATCH, lengths=lengths.tolist(), generator=torch.Generator().manual_seed(0))
    order = np.array(list(sampler))
    return deal(np.split(order, range(BATCH, len(order), BATCH)), lengths, amount)


def shuffle(lengths: NDArray[np.integer], amount: Amount) -> list[list[Positions]]:
    """Return chunks for fine-tuning whose batches hold texts in random order."""
    order = np.random.default_rng(0).permutation(len(lengths))
    return deal(np.split(order, range(BATCH, len(order), BATCH)), lengths, amount)


def deal(batches: Sequence[Positions], lengths: NDArray[np.integer], amount: Amount) -> list[list[Positions]]:
    """Return chunks of full batches; each chunk ranges evenly from short texts to long ones.

    The first chunk comes twice, the first time to warm up."""
    full = [positions for positions in batches if len(positions) == BATCH] or batches
    order = sorted(full, key=lambda positions: lengths[positions].sum())
    n = amount.rounds * amount.steps
    chosen = [order[(2 * i + 1) * len(order) // (2 * n)] for i in range(n)]
    chunks = [chosen[start :: amount.rounds] for start in range(amount.rounds)]
    return [chunks[0], *chunks]


def choose_medium(lengths: NDArray[np.integer], n: int) -> Positions:
    """Return the n texts with lengths nearest to the median, the shortest first: few lengths, so full batches."""
    chosen = np.argsort(np.abs(lengths - np.median(lengths)), kind="stable")[:n]
    return chosen[np.argsort(lengths[chosen], kind="stable")]


def group_without_padding(lengths: NDArray[np.integer], amount: Amount, size: int = BATCH) -> list[list[Positions]]:
    """Return chunks of `amount.texts` texts near the median length: at most `size` texts of one length in a batch.

    A single batch comes first, to warm up."""
    chunks = []
    for chunk in np.array_split(choose_medium(lengths, amount.rounds * amount.texts), amount.rounds):
        groups = [chunk[lengths[chunk] == length] for length in np.unique(lengths[chunk])]
        chunks.append([group[start : start + size] for group in groups for start in range(0, len(group), size)])
    return [chunks[0][:1], *chunks]
