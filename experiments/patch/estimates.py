"""Attribution patching: what patching each cell would do, estimated for all cells at once.

To first order, a small change of an activation changes the metric by the change times the gradient. So two forward
passes (the source's activations, minus the base's) and one backward pass (the gradients at the base) estimate the
effect of every cell (Nanda 2023; Syed et al. 2023, arXiv 2310.10348; Kramár et al. 2024, arXiv 2403.00745). Two texts
differ by more than a small change: the estimate is good for heads, and bad where the network bends on the way, as it
does between the embedding and the first MLP. The *integrated* estimate divides the joint effect of
patching all heads (or all MLPs) among them, by the gradient along the way there.

Letters: those of the forward pass, for one text: without B."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from model import Interventions, Trace

from .cells import KINDS, RECORDED, Cell, Kind, Metric

NODES = 20  # of the Gauss-Legendre quadrature: its sum over all heads then misses their joint patch by 1e-6 of the gap
Estimates = Mapping[Kind, Tensor]  # (L, T), or (L, H, T) where each head has its own; a pattern's T are its queries


def record_gradients(metric: Metric, ids: Sequence[int]) -> tuple[Trace, dict[Kind, list[Tensor]]]:
    """Run a text forwards and backwards: return its activations, and the metric's gradient with respect to those of
    each kind, one tensor per layer."""
    trace = Trace(*RECORDED)
    with torch.enable_grad():
        stream = metric.trunk.run(embed(metric, ids).requires_grad_(), trace=trace)
        # What attention adds flows through resid_mid: the two have one gradient.
        tensors = activations_of(trace) | {"attn": trace.resid_mid}
        flat = torch.autograd.grad(metric.read(stream).sum(), [x for kind in KINDS for x in tensors[kind]])
    L = len(trace.z)
    return trace, {kind: list(flat[i * L : (i + 1) * L]) for i, kind in enumerate(KINDS)}


def estimate_cells(metric: Metric, ids: Sequence[int], source: Trace) -> Estimates:
    """Estimate the effect of every cell at every position: of the base text `ids`, with the cell from the source run,
    minus that of the base. The effect at all positions together is estimated by the sum over them."""
    base, gradients = record_gradients(metric, ids)
    of_base, of_source = activations_of(base), activations_of(source)
    estimates = {}
    for kind in KINDS:
        parts = zip(of_source[kind], of_base[kind], gradients[kind], strict=True)
        estimates[kind] = torch.stack([((s - b) * gradient)[0].sum(dim=-1) for s, b, gradient in parts]).detach().cpu()
    return estimates


def activations_of(trace: Trace) -> dict[Kind, list[Tensor]]:
    """Return the activations of each kind, one tensor per layer."""
    resid_pre = trace.resid_pre[:-1]
    attn = [mid - pre for mid, pre in zip(trace.resid_mid, resid_pre, strict=True)]
    by_head = {"z": trace.z, "q": trace.q, "k": trace.k, "v": trace.v, "pattern": trace.weights}
    return cast(
        dict[Kind, list[Tensor]],
        {"resid_pre": resid_pre, "resid_mid": trace.resid_mid, "attn": attn, "mlp": trace.mlp, **by_head},
    )


def integrate_cells(metric: Metric, ids: Sequence[int], source: Trace, tokens: int) -> Estimates:
    """Divide among `z`, `attn` and `mlp` what patching all heads at once, or all MLPs, does.

    On the way there a gate closes on all heads (or all MLPs) together, filled with what the source emits. Minus the
    integral of the metric's gradient from gate 1 to 0 sums, over heads and positions, to the effect of patching all of
    them together (the fundamental theorem of calculus; integrated gradients, Sundararajan et al. 2017). tokens: how
    many may be in flight."""
    L, H, T, _ = source.stacked("z")[0].shape
    z = integrate_gate(metric, ids, "head", (L, H, T), source.stacked("z"), tokens)
    mlp = integrate_gate(metric, ids, "mlp", (L, T), source.stacked("mlp"), tokens)
    return {"z": z, "attn": z.sum(dim=1), "mlp": mlp}


def integrate_gate(
    metric: Metric, ids: Sequence[int], name: str, shape: tuple[int, ...], fill: Tensor, tokens: int
) -> Tensor:
    """Return minus the integral of the metric's gradient with respect to each gate of this shape, from 1 to 0."""
    nodes, weights = (torch.from_numpy(x / 2).float() for x in np.polynomial.legendre.leggauss(NODES))
    x, integral, size = embed(metric, ids), torch.zeros(shape), max(1, tokens // len(ids))
    for at, weight in zip((nodes + 0.5).split(size), weights.split(size), strict=True):
        with torch.enable_grad():
            gate = at.to(x.device).view(-1, *[1] * len(shape)).repeat(1, *shape).requires_grad_()
            interventions = cast(Interventions, {f"{name}_gate": gate, f"{name}_fill": fill})
            stream = metric.trunk.run(x.repeat(len(at), 1, 1), **interventions)
            (gradient,) = torch.autograd.grad(metric.read(stream).sum(), gate)
        integral -= torch.tensordot(weight, gradient.cpu(), dims=1)
    return integral


def embed(metric: Metric, ids: Sequence[int]) -> Tensor:
    """Return what enters the first layer, (1, T, C)."""
    with torch.no_grad():
        return metric.trunk.embed(torch.tensor([list(ids)], device=metric.weights.device))


def look_up(estimates: Estimates, cell: Cell) -> float:
    """Return the estimate of a cell; NaN where there is none of its kind."""
    if cell.kind not in estimates:
        return float("nan")
    values = estimates[cell.kind][cell.layer]
    values = values if cell.head is None else values[cell.head]
    return float(values.sum() if cell.position is None else values[cell.position])
