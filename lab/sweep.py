"""Many ablations on many texts, exactly and fast.

The sweep skips only work whose result is already known:

- Below the first layer that an ablation changes, the network is as it was. That part runs once for all ablations of a
  batch. Where only gates close, the heads of that layer also compute what they always do.
- The class is read at the last token, so the last layer computes that one query (keys and values come from all tokens).

What is left runs in parallel. Ablations that begin at the same layer share the batch axis: gates may differ from row to
row. Texts of similar length share a batch, and at most `device.tokens` tokens are in flight: memory does not grow with
the number of texts or ablations.

Letters: N texts, U ablations, R draws of a fill, K classes, and those of the forward pass."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch, token_batches
from model import GPT2Classifier, Intervention, Interventions, Trace
from model.gpt2 import at_query
from model.interventions import AXES

from .device import Device
from .memory import halve_until_it_fits

COPIES = 8  # of a batch of texts that fit into `device.tokens`

Fill = Callable[[Batch], Interventions]  # head_fill and mlp_fill for the texts of a batch, which it may tell apart


@dataclass(frozen=True)
class Ablation:
    """One thing taken out of the network; `kind`, `layer`, `head` and `region` are its name in the tables."""

    kind: str
    intervention: Intervention  # gates and masks, of 1 row or B; the sweep adds the fill of a gate
    start: int = 0  # the first layer that it changes
    layer: int | None = None
    head: int | None = None
    region: str = ""
    subspace: Tensor | None = None  # orthonormal (C, n): of what the gates close, take out this part alone

    @property
    def name(self) -> str:
        return f"{self.kind} {self.layer} {self.head} {self.region}"


@dataclass(frozen=True)
class Variant:
    """One ablation with one draw of the fill, and its arguments for the texts of a batch."""

    ablation: int
    draw: int
    arguments: dict[str, Tensor]

    @property
    def names(self) -> list[str]:
        return sorted(self.arguments)


def change_nothing(ids: Tensor, lengths: Tensor) -> Interventions:
    """The intervention without gates and masks: the network as it is."""
    return {}


def fill_zeros(batch: Batch) -> Interventions:
    """The fill of zero ablation: closed heads and MLPs emit zeros."""
    return {}


BASELINE = Ablation("none", change_nothing)


def sweep(
    clf: GPT2Classifier,
    sequences: Sequence[list[int]],
    ablations: Sequence[Ablation],
    fills: Sequence[Fill],
    device: Device,
    among: NDArray[np.integer],
) -> Iterator[tuple[NDArray[np.integer], NDArray[np.float32]]]:
    """Run every ablation with each of R fills on the texts `among`: yield (index (B,), logits float32 (B, U, R, K)).

    sequences: token ids of N texts; among: positions of texts. The logits are those of U * R plain calls up to
    rounding, whatever the batching. The caller puts the model on the device, in eval mode. The sweep gets no labels:
    what an ablation does to a text cannot depend on the class that it is tested against."""
    tokens = device.tokens
    unlabelled = np.zeros(len(sequences), np.int64)
    for batch in device.share(token_batches(sequences, unlabelled, tokens // COPIES, among)):
        on_device = batch.to(device.device)
        compute = partial(run_ablations, clf, on_device, ablations, fills)
        wanted = len(ablations) * len(fills) * batch.ids.numel()
        with torch.inference_mode(), device.autocast():
            logits, tokens = halve_until_it_fits(compute, tokens, wanted, batch.ids.numel())
        yield batch.index.numpy(), logits.numpy()


def collect_logits(
    clf: GPT2Classifier,
    sequences: Sequence[list[int]],
    ablations: Sequence[Ablation],
    fills: Sequence[Fill],
    device: Device,
) -> NDArray[np.float32]:
    """Return what `sweep` yields for N texts as one array in memory, float32 (N, U, R, K), in their order."""
    logits = np.empty((len(sequences), len(ablations), len(fills), len(clf.labels)), dtype=np.float32)
    rounds = sweep(clf, sequences, ablations, fills, device, np.arange(len(sequences)))
    for index, batch_logits in device.gather_rounds(rounds):
        logits[index] = batch_logits
    return logits


def run_ablations(
    clf: GPT2Classifier, batch: Batch, ablations: Sequence[Ablation], fills: Sequence[Fill], tokens: int
) -> Tensor:
    """Return the logits of one batch, float32 (B, U, R, K) on the CPU, with at most `tokens` tokens in flight."""
    B, T = batch.ids.shape
    logits = torch.empty(len(ablations), len(fills), B, len(clf.labels))
    fill_arguments = [fill(batch) for fill in fills]
    size = max(1, tokens // (B * T))
    x = clf.trunk.embed(batch.ids, batch.lengths)  # (B, T, C)
    for start in range(1 + max(ablation.start for ablation in ablations)):
        # x enters layer `start`, and is the same for all ablations that begin there
        query = batch.lengths - 1 if start == clf.config.n_layer - 1 else None
        trace = Trace("z", "mlp")
        after = clf.trunk.run(x, start, start + 1, query=query, trace=trace)
        beginning = [u for u, ablation in enumerate(ablations) if ablation.start == start]
        variants = (
            Variant(u, r, make_arguments(ablations[u], batch, fill, trace, query))
            for u in beginning
            for r, fill in enumerate(fill_arguments)
        )
        for group in group_variants(variants, size):
            group_logits = run_group(clf, x, trace.z[0], start, batch.lengths - 1, group)
            for variant, variant_logits in zip(group, group_logits, strict=True):
                logits[variant.ablation, variant.draw] = variant_logits
        x = after
    return logits.permute(2, 0, 1, 3)


def make_arguments(
    ablation: Ablation, batch: Batch, fill: Interventions, trace: Trace, query: Tensor | None
) -> dict[str, Tensor]:
    """Return gates, masks and fills for a batch; `trace` holds what the ablation's first layer emits as it is."""
    gates = ablation.intervention(batch.ids, batch.lengths)
    if ablation.subspace is not None:
        fill = spare_rest(ablation, gates, fill, trace, query)
    return join_arguments(gates, fill)


def spare_rest(
    ablation: Ablation, gates: Interventions, fill: Interventions, trace: Trace, query: Tensor | None
) -> Interventions:
    """Return fills with which closed heads, or a closed MLP, lose a subspace and keep the rest: x - P (x - fill).

    P = basis basis^T projects on the subspace. x is what `trace` holds of the layer: the outputs of all heads side by
    side, or that of the MLP."""
    assert ablation.subspace is not None
    basis = ablation.subspace.to(trace.z[0].device)
    spared: dict[str, Tensor] = {}
    fills = cast(dict[str, Tensor], fill)
    for name, x in (("head_fill", trace.z[0].transpose(1, 2)), ("mlp_fill", trace.mlp[0])):  # (B, Q, H, D), (B, Q, C)
        if name.replace("fill", "gate") not in gates:
            continue
        lost = x
        if name in fills:
            emitted = at_query(fills[name][:, ablation.start], query, axis=AXES[name].index("T") - 1)
            lost = x - (emitted.transpose(1, 2) if name == "head_fill" else emitted)
        kept = x - (lost.flatten(2) @ basis @ basis.T).view_as(x)
        spared[name] = (kept.transpose(1, 2) if name == "head_fill" else kept)[:, None]  # of one layer, for all
    return cast(Interventions, spared)


def join_arguments(gates: Interventions, fill: Interventions) -> dict[str, Tensor]:
    """Add to gates and masks the fill of each gate that is among them."""
    gate_values, fill_values = cast(dict[str, Tensor], gates), cast(dict[str, Tensor], fill)
    return gate_values | {
        name: value for name, value in fill_values.items() if name.replace("fill", "gate") in gate_values
    }


def group_variants(variants: Iterator[Variant], size: int) -> Iterator[list[Variant]]:
    """Yield at most `size` variants at once, whose arguments have the same names: they can share a forward pass."""
    while some := list(islice(variants, size)):
        for _, group in groupby(sorted(some, key=lambda variant: variant.names), key=lambda variant: variant.names):
            yield list(group)


def run_group(clf: GPT2Classifier, x: Tensor, z: Tensor, start: int, query: Tensor, group: Sequence[Variant]) -> Tensor:
    """Run the layers from `start` on, once with the arguments of each of n variants -> logits float32 (n, B, K), CPU.

    x (B, T, C) enters layer `start`, and z (B, H, Q, D) is what the heads of that layer emit if nothing is done to
    them; query int64 (B,) is the position that is read."""
    B, n = len(x), len(group)
    arguments = {}
    for name in group[0].names:
        arguments[name] = stack_rows([variant.arguments[name].to(x.device) for variant in group], B)
    known = None if {"attn_mask", "attn_gate"} & arguments.keys() else repeat_rows(z, n)  # (n B, H, Q, D)
    x = clf.trunk.run(
        repeat_rows(x, n), start, query=query.repeat(n), z=known, **cast(Interventions, arguments)
    )  # (n B, 1, C)
    return clf.read(clf.trunk.norm(x)).float().view(n, B, -1).cpu()


def repeat_rows(x: Tensor, n: int) -> Tensor:
    """Stack n copies: (B, ...) -> (n B, ...)."""
    return x.expand(n, *x.shape).flatten(0, 1)


def stack_rows(values: Sequence[Tensor], B: int) -> Tensor:
    """Stack one argument of n variants, each of 1 or B rows: (n B, ...), or 1 row where that serves all."""
    if len(values) == 1 and len(values[0]) == 1:
        return values[0]
    rest = torch.broadcast_shapes(*(value.shape[1:] for value in values))
    return torch.cat([value.expand(B, *rest) for value in values])
