"""What is left to compute: multiply-adds of matrix products, and bytes that elementwise functions move.

Counted is what a contestant cannot avoid with what it shares, padding included, whatever its kernels make of it.

- Products. A block of width C takes 12 C^2 multiply-adds for a token: 3 C^2 for q, k and v, C^2 behind the heads, 8 C^2
  in the MLP. A query takes 2 C for each key, also for those that the causal mask hides: q k, and weights v. A backward
  pass costs two forward ones. The scores of a few classes do not count, those of a vocabulary do.
- Elementwise functions read each input once and write each output once: LayerNorm, softmax, GELU, dropout, sums of the
  residual stream, the heads' outputs put side by side, and the optimizer. Kernels that fuse two of them move less, and
  what stays in a cache does not reach memory: a share of the bandwidth may exceed 1.

Letters: L layers, H heads, C width, V tokens of the vocabulary, B texts of a batch, T tokens of the longest, P tokens
that come before, Q queries.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.token_ids import pack
from experiments.patch.cells import Cell, has_no_effect
from model import GPT2Config

from .contestants import Job
from .slices import CHANGED, EPOCHS, Positions

# Numbers that a block reads and writes for a token, in widths C, forward and backward.
FORWARD = {"LayerNorm": 2, "heads side by side": 2, "sum": 3, "GELU": 8}  # LayerNorms and sums come twice
BACKWARD = {"LayerNorm": 3, "heads side by side": 2, "sum": 3, "GELU": 12}
DROPOUT = 2.25  # forward as backward: a mask has one byte where a number has four
SOFTMAX, SOFTMAX_BACKWARD = 2, 3  # for each weight of attention
EMBEDDING, EMBEDDING_BACKWARD = 5, 3  # token rows copied, positions added; gradients added to their rows
UPDATE = 10  # for each weight: 7 in AdamW, 3 to measure and clip the gradient


@dataclass(frozen=True)
class Work:
    """What a contestant has to do."""

    products: float = 0  # multiply-adds
    moved: float = 0  # numbers that elementwise functions read and write

    @property
    def bytes(self) -> float:
        """What is moved, at 4 bytes a number: bf16 moves less."""
        return 4 * self.moved

    def __add__(self, other: "Work") -> "Work":
        return Work(self.products + other.products, self.moved + other.moved)

    def __mul__(self, n: float) -> "Work":
        return Work(n * self.products, n * self.moved)


Count = Callable[[GPT2Config, Job, Sequence[Positions]], Work]  # of the batches of a chunk


def run_block(config: GPT2Config, B: int, T: int, P: int = 0, *, last: bool = False, known: bool = False) -> Work:
    """Count a block's forward pass. last: only the last token of each text has a query; known: so are the heads'
    outputs."""
    C, Q = config.n_embd, 1 if last else T
    products, moved = B * Q * 9 * C**2, float(B * Q * C * (sum(FORWARD.values()) + FORWARD["sum"]))  # LayerNorm once
    if not known:
        products += B * (2 * T + Q) * C**2 + 2 * B * Q * (P + T) * C
        moved += FORWARD["LayerNorm"] * B * T * C + SOFTMAX * B * config.n_head * Q * (P + T)
    return Work(products, moved)


def run_blocks(config: GPT2Config, B: int, T: int, P: int = 0, *, start: int = 0, last: bool = True) -> Work:
    """Count the forward pass of the blocks from `start` on. last: as in `run_block`, of the last block."""
    whole = config.n_layer - start - last
    if whole < 0:
        return Work()
    return run_block(config, B, T, P) * whole + run_block(config, B, T, P, last=True) * last


def embed(config: GPT2Config, B: int, T: int) -> Work:
    """Count the embedding of a batch."""
    return Work(0, EMBEDDING * B * T * config.n_embd)


def run_network(config: GPT2Config, B: int, T: int, *, last: bool) -> Work:
    """Count a forward pass, from token ids to the residual stream."""
    return embed(config, B, T) + run_blocks(config, B, T, last=last)


def take_step(config: GPT2Config, B: int, T: int, *, last: bool) -> Work:
    """Count a training step with dropout. last: the last block has queries for the last tokens only."""
    C, L = config.n_embd, config.n_layer
    tokens = B * T * (L - last) + B * last  # with queries, in all blocks
    weights = B * config.n_head * T * (T * (L - last) + last)  # of attention
    forward = run_network(config, B, T, last=last)
    backward = tokens * C * (sum(BACKWARD.values()) + BACKWARD["sum"]) + SOFTMAX_BACKWARD * weights
    backward += BACKWARD["LayerNorm"] * B * T * C * L + EMBEDDING_BACKWARD * B * T * C
    dropout = 2 * DROPOUT * (2 * tokens * C + weights + B * T * C)
    embeddings = (config.vocab_size + config.n_ctx) * C
    update = UPDATE * (config.block_weights + embeddings) + embeddings  # whose gradients are zeros first
    return Work(3 * forward.products, forward.moved + backward + dropout + update)


def list_sizes(job: Job, chunk: Sequence[Positions]) -> Iterator[tuple[int, int]]:
    """Yield B and T of each batch."""
    lengths = job.texts.lengths
    for positions in chunk:
        yield len(positions), int(lengths[positions].max())


def add_up(works: Iterator[Work]) -> Work:
    return sum(works, start=Work())


def count_training(config: GPT2Config, job: Job, chunk: Sequence[Positions]) -> Work:
    """Count fine-tuning, which updates the embeddings in use, and of whose last block the last tokens run alone."""
    used = replace(config, vocab_size=len(np.unique(pack(job.texts.sequences).ids)))
    return add_up(take_step(used, *size, last=True) for size in list_sizes(job, chunk))


def count_peer_training(config: GPT2Config, job: Job, chunk: Sequence[Positions]) -> Work:
    """Count fine-tuning that computes every token in every block."""
    return add_up(take_step(config, *size, last=False) for size in list_sizes(job, chunk))


def count_head_alone(config: GPT2Config, job: Job, chunk: Sequence[Positions]) -> Work:
    """Count the blocks that give the head its inputs, once."""
    return add_up(run_network(config, *size, last=True) for size in list_sizes(job, chunk))


def count_head_alone_again(config: GPT2Config, job: Job, chunk: Sequence[Positions]) -> Work:
    """Count the same in each epoch."""
    return count_head_alone(config, job, chunk) * EPOCHS


def count_sweep(config: GPT2Config, job: Job, chunk: Sequence[Positions]) -> Work:
    """Count the sweep: each layer once as it is, then for each of its heads what follows the heads' outputs."""
    heads = Counter(layer for layer, _ in job.heads)
    return add_up(close_heads(config, *size, heads) for size in list_sizes(job, chunk))


def close_heads(config: GPT2Config, B: int, T: int, heads: Counter[int]) -> Work:
    """Count the sweep of one batch over so many heads of each layer."""
    work = embed(config, B, T)
    for layer in range(1 + max(heads)):
        last = layer == config.n_layer - 1
        work += run_block(config, B, T, last=last)
        behind = run_block(config, B, T, last=last, known=True) + run_blocks(config, B, T, start=layer + 1)
        work += behind * heads[layer]
    return work


def count_passes(config: GPT2Config, job: Job, chunk: Sequence[Positions]) -> Work:
    """Count a forward pass of every batch, with every token in every block."""
    return add_up(run_network(config, *size, last=False) for size in list_sizes(job, chunk))


def count_peer_sweep(config: GPT2Config, job: Job, chunk: Sequence[Positions]) -> Work:
    """Count a forward pass for each head."""
    return count_passes(config, job, chunk) * len(job.heads)


def count_patching(config: GPT2Config, job: Job, chunk: Sequence[Positions]) -> Work:
    """Count two whole passes of each pair and, for each cell with an effect, its layer at one position and the layers
    above."""

    def patch(cell: Cell) -> Work:
        return run_block(config, 1, 1, known=True) + run_blocks(config, 1, T, start=cell.entry)

    work = Work()
    for B, T in list_sizes(job, chunk):
        cells = [cell for cell in job.cells if not has_no_effect(cell, CHANGED, T, config.n_layer)]
        work += (run_network(config, 1, T, last=False) * 2 + add_up(map(patch, cells))) * B
    return work


def count_peer_patching(config: GPT2Config, job: Job, chunk: Sequence[Positions]) -> Work:
    """Count a forward pass for each cell, and one for the other text of each pair."""
    return count_passes(config, job, chunk) * (len(job.cells) + 1)


def read_out(config: GPT2Config, B: int) -> Work:
    """Count the scores of the vocabulary after each text, and their softmax."""
    return Work(B * config.vocab_size * config.n_embd, SOFTMAX * B * config.vocab_size)
