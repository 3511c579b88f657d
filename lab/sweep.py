"""Many ablations on many texts, exactly and fast.

What is saved is only what would come out the same anyway:

- Before the first changed layer nothing changes, so that part of the network runs once for all ablations of a batch.
  Where only gates close, neither does what the heads of that layer emit before their gates.
- Only the last token is read, so the last layer computes that one query (its keys and values come from all tokens).
- Ablations that begin at the same layer ride together on the batch axis: gates may differ from row to row.
- Texts of like length go together, and only so many at once that `device.tokens` are in flight: memory does not grow
  with the number of texts or ablations.

Letters: N texts, U ablations, R draws of a fill, K classes, and those of the forward pass.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, product
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch, token_batches
from model import GPT2Classifier, Interventions, Trace

from .device import Device
from .memory import fitting

RIDERS = 16  # ablations of a batch of texts that fit in at once

Fill = Callable[[Batch], Interventions]  # head_fill and mlp_fill for the texts of a batch
Rider = tuple[int, int]  # ablation, draw


@dataclass(frozen=True)
class Ablation:
    """One thing taken out of the network; `kind`, `layer`, `head` and `region` are its name in the tables."""

    kind: str
    arguments: Callable[[Batch], Interventions]  # gates and masks, 1 row or B; where a gate is closed a fill may stand
    start: int = 0  # the first layer that it changes
    layer: int | None = None
    head: int | None = None
    region: str = ""

    @property
    def name(self) -> str:
        return f"{self.kind} {self.layer} {self.head} {self.region}"


def nothing(batch: Batch) -> Interventions:
    """No gates, no masks: the network as it is. As a fill: zeros."""
    return {}


BASELINE = Ablation("none", nothing)


def sweep(
    clf: GPT2Classifier,
    sequences: Sequence[list[int]],
    ablations: Sequence[Ablation],
    fills: Sequence[Fill],
    device: Device,
    among: NDArray[np.integer],
) -> Iterator[tuple[NDArray[np.integer], NDArray[np.float32]]]:
    """Run every ablation with each of R fills on the texts `among`: yields (index (B,), logits float32 (B, U, R, K)).

    sequences: token ids of N texts; among: positions of texts. Results equal those of U * R plain calls up to rounding,
    whatever the batching. The model is taken as it stands; eval mode is the caller's. No label enters: what an ablation
    does to a text cannot depend on the class that it is tested against."""
    tokens, riders = device.tokens, len(ablations) * len(fills)
    unlabelled = np.zeros(len(sequences), np.int64)
    for batch in device.share(token_batches(sequences, unlabelled, tokens // RIDERS, among)):
        index, own = batch.index.numpy(), batch.to(device.device)
        compute = partial(ablated, clf, own, ablations, fills)
        with torch.inference_mode(), device.autocast():
            logits, tokens = fitting(compute, tokens, riders * own.ids.numel(), own.ids.numel())
        yield index, logits.numpy()


def ablated(
    clf: GPT2Classifier, batch: Batch, ablations: Sequence[Ablation], fills: Sequence[Fill], tokens: int
) -> Tensor:
    """Logits float32 (B, U, R, K), on the CPU, of one batch."""
    B, T = batch.ids.shape
    logits = torch.empty(len(ablations), len(fills), B, len(clf.labels))
    filled = [fill(batch) for fill in fills]
    x = clf.trunk.embed(batch.ids, batch.lengths)  # (B, T, C)
    for start in range(1 + max(ablation.start for ablation in ablations)):
        # here x is what enters layer `start`, the same for all that begin there
        riders = [(u, r) for u, r in product(range(len(ablations)), range(len(fills))) if ablations[u].start == start]
        last = start == clf.config.n_layer - 1
        trace = Trace("z")
        after = clf.trunk.run(x, start, start + 1, query=batch.lengths - 1 if last else None, trace=trace)
        for together, arguments in rides(riders, ablations, filled, batch, max(1, tokens // (B * T))):
            read = ride(clf, x, trace.z[0], start, batch.lengths - 1, arguments)  # (riders, B, K)
            for (u, r), own in zip(together, read.cpu(), strict=True):
                logits[u, r] = own
        x = after
    return logits.permute(2, 0, 1, 3)


def rides(
    riders: list[Rider], ablations: Sequence[Ablation], filled: Sequence[Interventions], batch: Batch, size: int
) -> Iterator[tuple[list[Rider], list[dict[str, Tensor]]]]:
    """Riders that take arguments of the same names, at most `size` at once, with their arguments."""

    def arguments(rider: Rider) -> dict[str, Tensor]:
        u, r = rider
        gates = cast(dict[str, Tensor], ablations[u].arguments(batch))
        fills = cast(dict[str, Tensor], filled[r])
        return gates | {name: fill for name, fill in fills.items() if name.replace("fill", "gate") in gates}

    for start in range(0, len(riders), size):
        given = [(rider, arguments(rider)) for rider in riders[start : start + size]]
        for _, same in groupby(sorted(given, key=lambda item: sorted(item[1])), key=lambda item: sorted(item[1])):
            together = list(same)
            yield [rider for rider, _ in together], [own for _, own in together]


def ride(
    clf: GPT2Classifier, x: Tensor, z: Tensor, start: int, query: Tensor, arguments: Sequence[dict[str, Tensor]]
) -> Tensor:
    """x (B, T, C) enters layer `start` with each of n arguments -> logits float32 (n, B, K).

    z (B, H, Q, D): what the heads of that layer emit if nothing is done to them."""
    B, n, names = len(x), len(arguments), arguments[0]
    stacked = cast(Interventions, {name: stack([own[name] for own in arguments], B).to(x.device) for name in names})
    known = None if names.keys() & {"attn_mask", "attn_gate"} else repeated(z, n)  # (n B, H, Q, D)
    x = clf.trunk.run(repeated(x, n), start, query=query.repeat(n), z=known, **stacked)  # (n B, 1, C)
    return clf.read(clf.trunk.norm(x)).float().view(n, B, -1)


def repeated(x: Tensor, n: int) -> Tensor:
    """n times under itself: (B, ...) -> (n B, ...)."""
    return x.expand(n, *x.shape).flatten(0, 1)


def stack(values: Sequence[Tensor], B: int) -> Tensor:
    """One argument of several riders, each of 1 or B rows, under one another: (riders * B, ...), or 1 row for all."""
    if len(values) == 1 and len(values[0]) == 1:
        return values[0]
    rest = torch.broadcast_shapes(*(value.shape[1:] for value in values))
    return torch.cat([value.expand(B, *rest) for value in values])
