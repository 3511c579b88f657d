"""Activation patching, exactly: one cell of a run is replaced by what another text put there.

A *cell* is a place in the network: a kind of activation, its layer, and a head or a position, or both. The *base* run
goes on with one cell from the *source* run. If the output moves towards the source's, the cell carries some of what
tells the two texts apart (Vig et al. 2020, arXiv 2004.12265; Meng et al. 2022, arXiv 2202.05262; Zhang & Nanda 2023,
arXiv 2309.16042).

Nothing here needs a hook. A patch in layer l changes the residual stream that enters layer l + 1, at some positions. So
those positions are computed, the rest is the base's, and the network goes on from there: many cells share one batch.
Two kinds cost nothing of their own. The MLP reads each position alone, so `resid_mid` of layer l is `resid_pre` of
layer l + 1; and q, k, v and the pattern act through z, which is made of the swapped pieces.

Letters: n cells or positions, and those of the forward pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from model import GPT2, GPT2LM, GPT2Classifier, Trace
from model.gpt2 import Attention

Kind = Literal["resid_pre", "resid_mid", "attn", "mlp", "z", "q", "k", "v", "pattern"]
KINDS: tuple[Kind, ...] = get_args(Kind)
HEAD_KINDS = KINDS[4:]  # kinds of which each head has its own
STREAM_KINDS: tuple[Kind, ...] = ("resid_pre", "attn", "mlp")  # shown; resid_mid is resid_pre of the next layer
RECORDED = ("resid_pre", "q", "k", "v", "weights", "z", "resid_mid", "mlp")


@dataclass(frozen=True)
class Cell:
    """A place in the network; without a position, all positions of a head together."""

    kind: Kind
    layer: int
    head: int | None = None
    position: int | None = None

    @property
    def entry(self) -> int:
        """The layer that is the first to read what the cell changed."""
        return self.layer + (self.kind != "resid_pre")


@dataclass(frozen=True, eq=False)
class Metric:
    """The logit of one answer minus that of another, after the last token. Both kinds of model read it linearly."""

    trunk: GPT2
    weights: Tensor  # (C,): what the read-out has for the first answer, minus what it has for the second

    @classmethod
    def between(cls, model: GPT2Classifier | GPT2LM, answers: tuple[int, int]) -> "Metric":
        """Compare two classes of a classifier, or two next tokens of a language model."""
        rows = model.score.weight if isinstance(model, GPT2Classifier) else model.trunk.wte.weight
        return cls(model.trunk, (rows[answers[0]] - rows[answers[1]]).detach())

    def read(self, x: Tensor) -> Tensor:
        """Read the residual stream that leaves the last layer, (n, T, C) -> (n,)."""
        return self.trunk.norm(x[:, -1]) @ self.weights

    def finish(self, x: Tensor, start: int) -> Tensor:
        """Run the layers from `start` on and read: x (n, T, C) -> (n,)."""
        last = torch.full((len(x),), x.shape[1] - 1, device=x.device)
        return self.read(self.trunk.run(x, start, query=last))


@torch.no_grad()
def record(trunk: GPT2, ids: Sequence[int]) -> Trace:
    """Record all that can be patched, in one run of a text of T tokens: a batch of one."""
    trace = Trace(*RECORDED)
    trunk(torch.tensor([list(ids)], device=trunk.wte.weight.device), trace=trace)
    return trace


def find_first_change(base: Trace, source: Trace) -> int:
    """Return the first position at which two texts differ, T if nowhere. ValueError for texts of different lengths."""
    x, y = base.resid_pre[0][0], source.resid_pre[0][0]
    if x.shape != y.shape:
        raise ValueError(f"expected two texts of as many tokens, got {len(x)} and {len(y)}")
    differs = (x != y).any(dim=1)
    return int(differs.int().argmax()) if differs.any() else len(x)


@torch.no_grad()
def patch_cells(metric: Metric, base: Trace, source: Trace, cells: Sequence[Cell], tokens: int) -> Tensor:
    """Return the metric of the base run with each cell in turn taken from the source run: (n,), on the CPU.

    tokens: how many may be in flight. Raises ValueError for texts of different lengths."""
    first, (_, T, _) = find_first_change(base, source), base.resid_pre[0].shape
    L = len(base.z)
    patched = metric.read(base.resid_pre[-1]).cpu().expand(len(cells)).clone()
    order = [i for i, cell in enumerate(cells) if not has_no_effect(cell, first, T, L)]
    order.sort(key=lambda i: (cells[i].entry, cells[i].kind, cells[i].layer))
    for entry, group in groupby(order, key=lambda i: cells[i].entry):
        for some in in_batches(list(group), max(1, tokens // T)):
            streams = [
                patch_streams(metric.trunk, base, source, [cells[i] for i in alike])
                for _, alike in groupby(some, key=lambda i: cells[i].kind)
            ]
            patched[some] = metric.finish(torch.cat(streams), entry).cpu()
    return patched


def has_no_effect(cell: Cell, first: int, T: int, L: int) -> bool:
    """Return whether a cell cannot change the output: it lies before the first position at which the two texts differ,
    or in the last layer at a position that nobody reads any more."""
    if cell.position is None:
        return first == T
    unread = cell.entry == L and cell.kind not in ("k", "v") and cell.position < T - 1
    return cell.position < first or unread


def in_batches(items: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def patch_streams(trunk: GPT2, base: Trace, source: Trace, cells: Sequence[Cell]) -> Tensor:
    """Return the residual stream that enters layer `cell.entry` with each of n cells of one kind and layer patched:
    (n, T, C)."""
    kind, layer, entry = cells[0].kind, cells[0].layer, cells[0].entry
    T, device = base.resid_pre[0].shape[1], base.resid_pre[0].device
    positions = torch.arange(T, device=device)
    patched_at = [positions >= 0 if cell.position is None else positions == cell.position for cell in cells]
    where = torch.stack(patched_at)  # (n, T)
    if kind in ("resid_pre", "resid_mid"):
        return torch.where(where[..., None], source.resid_pre[entry], base.resid_pre[entry])
    if kind == "mlp":
        patched = base.resid_mid[layer] + source.mlp[layer]
        return torch.where(where[..., None], patched, base.resid_pre[entry])
    if kind == "attn":
        z = torch.where(where[:, None, :, None], source.z[layer], base.z[layer])
        return replace_z(trunk, base, layer, z, where)
    heads = torch.tensor([cell.head for cell in cells], device=device)
    block: Any = trunk.h[layer]
    z = mix_z(block.attn, base, source, layer, heads, where, {kind})
    # A key or a value is read by its own query and by all later ones.
    return replace_heads(trunk, base, layer, heads, z, where.cummax(dim=1).values if kind in ("k", "v") else where)


def mix_z(
    attn: Attention, base: Trace, source: Trace, layer: int, heads: Tensor, where: Tensor, kinds: set[str]
) -> Tensor:
    """Return the z of n heads, int64 (n,), whose activations of these `kinds` come from the source run `where` bool
    (n, T) is True: (n, T, D)."""

    def mix(name: str, kind: str) -> Tensor:  # (n, T, D), or (n, T, T)
        of_base, of_source = (getattr(trace, name)[layer][0, heads] for trace in (base, source))
        return torch.where(where[..., None], of_source, of_base) if kind in kinds else of_base

    if "z" in kinds:
        return mix("z", "z")
    weights = mix("weights", "pattern")
    if kinds & {"q", "k"}:
        q, k = mix("q", "q")[:, None], mix("k", "k")[:, None]
        weights = attn.attend(q, k, attn.causal_mask(k), Trace())[:, 0]
    return weights @ mix("v", "v")


def replace_heads(trunk: GPT2, base: Trace, layer: int, heads: Tensor, z: Tensor, where: Tensor) -> Tensor:
    """Return the stream after a layer of which one head emits z (n, T, D) in each row, see `replace_z`."""
    all_z = base.z[layer].repeat(len(z), 1, 1, 1)  # (n, H, T, D)
    all_z[torch.arange(len(z)), heads] = z
    return replace_z(trunk, base, layer, all_z, where)


def replace_z(trunk: GPT2, base: Trace, layer: int, z: Tensor, where: Tensor) -> Tensor:
    """Return the stream that leaves a layer whose heads emit z (n, H, T, D), which differs from the base's only `where`
    bool (n, T) is True: (n, T, C). Only there, and only from the last token of the last layer, is it computed."""
    if layer == len(base.z) - 1:
        where = where & (torch.arange(where.shape[1], device=where.device) == where.shape[1] - 1)
    row, position = where.nonzero(as_tuple=True)
    x = base.resid_pre[layer + 1].repeat(len(z), 1, 1)
    at_positions = base.resid_pre[layer][0, position][:, None]  # texts of one token, whose attention is done
    x[row, position] = trunk.run(at_positions, layer, layer + 1, z=z[row, :, position][:, :, None])[:, 0]
    return x


@torch.no_grad()
def patch_subspaces(
    metric: Metric, base: Trace, source: Trace, subspaces: Sequence[tuple[int, Tensor]], tokens: int
) -> Tensor:
    """Return the metric of the base run with each subspace of a layer's heads' outputs from the source run: (n,), CPU.

    subspaces: the layer, and an orthonormal basis (C, D) of the C outputs of all its heads side by side. A random one
    is the control of a head, which is such a subspace, too."""
    patched, T = torch.empty(len(subspaces)), base.resid_pre[0].shape[1]
    everywhere = torch.ones(1, T, dtype=torch.bool, device=base.resid_pre[0].device)
    order = sorted(range(len(subspaces)), key=lambda i: subspaces[i][0])
    for layer, group in groupby(order, key=lambda i: subspaces[i][0]):
        difference = (source.z[layer] - base.z[layer]).transpose(1, 2).flatten(2)  # (1, T, C)
        for some in in_batches(list(group), max(1, tokens // T)):
            basis = torch.stack([subspaces[i][1] for i in some]).to(difference)  # (n, C, D)
            part = (difference @ basis @ basis.mT).unflatten(-1, (base.z[layer].shape[1], -1)).transpose(1, 2)
            x = replace_z(metric.trunk, base, layer, base.z[layer] + part, everywhere.expand(len(some), -1))
            patched[some] = metric.finish(x, layer + 1).cpu()
    return patched


@torch.no_grad()
def patch_all_heads(metric: Metric, base: Trace, source: Trace) -> float:
    """Return the metric of the base run with the outputs of all heads, at all positions, from the source run."""
    gate = torch.zeros(1, 1, 1, 1, device=base.resid_pre[0].device)
    x = metric.trunk.run(base.resid_pre[0], head_gate=gate, head_fill=source.stacked("z"))
    return float(metric.read(x))
