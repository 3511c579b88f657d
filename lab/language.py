"""What a language model expects: losses of the next token, and log-probabilities of tokens after a text.

Texts that begin alike, as prompts with the same examples do, share the computation of their beginning: it runs once,
and its keys and values serve all texts (`past` of GPT2.run). Attention is causal, so they are what each text would have
computed.

Letters: N texts, W tokens asked for, P tokens that all texts begin with, and those of the forward pass."""

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data.batches import Batch, token_batches
from model import GPT2LM, Intervention, Trace

from .device import Device
from .memory import map_batches

BLOCKS = 2  # at once: 1,024 tokens' logits are 200 MB
ROWS = 1024  # positions whose logits are computed at once
Advance = Callable[[int], object]
PAST_SHARE = 7  # a past token takes its k and v in one layer, about a seventh of what a new token takes


@torch.no_grad()
def held_out_loss(lm: GPT2LM, blocks: Tensor, device: Device, intervention: Intervention | None = None) -> float:
    """Return the mean next-token loss of blocks int (n, T + 1), in nats, by the full softmax. Puts the model into eval
    mode."""
    lm.eval()
    total = 0.0
    for block in blocks.split(BLOCKS):
        block = block.to(device.device, torch.int64)
        ids, targets = block[:, :-1], block[:, 1:]
        lengths = torch.full((len(ids),), ids.shape[1], device=ids.device)
        with device.autocast():
            logits = lm(ids, lengths, **(intervention(ids, lengths) if intervention else {}))  # (b, T, V)
        total += F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum").item()
    return total / blocks[:, 1:].numel()


@torch.inference_mode()
def read_next(
    lm: GPT2LM, sequences: Sequence[list[int]], tokens: Sequence[int], device: Device, advance: Advance = int
) -> NDArray[np.float64]:
    """Return the log-probability of each of W tokens as the next one after each of N texts: (N, W).

    advance: is called with each number of texts that are done."""
    past, rest = run_beginning(lm, sequences, device)
    P, log_probs = len(sequences[0]) - len(rest[0]), np.empty((len(sequences), len(tokens)))

    def read_batch(batch: Batch) -> Tensor:
        on_device = batch.to(device.device)
        with device.autocast():
            x = lm.trunk.embed(on_device.ids, on_device.lengths, first=P)
            x = lm.trunk.run(x, query=on_device.lengths - 1, past=past)
            logits = lm.read(lm.trunk.norm(x))[:, 0].float()  # (B, V)
        return (logits[:, tokens] - logits.logsumexp(dim=1, keepdim=True)).cpu()

    for batch, values in map_batches(read_batch, batch_rest(rest, P, device), device):
        log_probs[batch.index] = values
        advance(len(values))
    return log_probs


@torch.inference_mode()
def sum_log_probs(
    lm: GPT2LM, sequences: Sequence[list[int]], start: int, device: Device, advance: Advance = int
) -> NDArray[np.float64]:
    """Return the log-probability of each text's tokens from position `start` (1 or more) on, given those before: (N,).

    advance: is called with each number of texts that are done."""
    past, rest = run_beginning(lm, [[*ids[:start]] for ids in sequences], device)
    P, sums = len(sequences[0][:start]) - len(rest[0]), np.empty(len(sequences))
    rest = [ids[P:] for ids in sequences]

    def read_batch(batch: Batch) -> Tensor:
        on_device = batch.to(device.device)
        with device.autocast():
            x = lm.trunk.norm(
                lm.trunk.run(lm.trunk.embed(on_device.ids, on_device.lengths, first=P), past=past)
            )  # (B, T, C)
        following = torch.arange(1, x.shape[1], device=x.device)
        scored = (following >= start - P) & (following < on_device.lengths[:, None])  # (B, T - 1)
        rows, targets = x[:, :-1][scored], on_device.ids[:, 1:][scored]
        losses = [read_losses(lm, *pair, device) for pair in zip(rows.split(ROWS), targets.split(ROWS), strict=True)]
        by_text = torch.zeros(scored.shape, device=x.device).masked_scatter(scored, torch.cat(losses))
        return -by_text.double().sum(dim=1).cpu()

    for batch, values in map_batches(read_batch, batch_rest(rest, P, device), device):
        sums[batch.index] = values
        advance(len(values))
    return sums


def read_losses(lm: GPT2LM, rows: Tensor, targets: Tensor, device: Device) -> Tensor:
    """Return the loss of each target (n,), read from the normed stream (n, C): float32 (n,)."""
    with device.autocast():
        logits = lm.read(rows)
    return F.cross_entropy(logits.float(), targets, reduction="none")


def run_beginning(lm: GPT2LM, sequences: Sequence[list[int]], device: Device) -> tuple[Trace | None, list[list[int]]]:
    """Run what all texts begin with; return its keys and values, and what is left of each text, at least a token.

    None where they begin differently."""
    alike = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*(ids[:-1] for ids in sequences), strict=False))
    P = len(list(alike))
    if not P:
        return None, list(sequences)
    past = Trace("k", "v")
    with device.autocast():
        lm.trunk(torch.tensor([sequences[0][:P]], device=device.device), trace=past)
    return past, [ids[P:] for ids in sequences]


def batch_rest(rest: Sequence[list[int]], P: int, device: Device) -> Iterator[Batch]:
    """Yield what is left of the texts, in batches that fit into memory with the keys and values of P past tokens."""
    mean, indices = sum(map(len, rest)) / len(rest), np.arange(len(rest))
    yield from token_batches(rest, np.zeros_like(indices), int(device.tokens / (1 + P / (PAST_SHARE * mean))), indices)
