"""Path patching: which part of the network tells which other part?

Activation patching asks what a part of the network does to the output, by all ways together. Path patching lets one
part, the *receiver*, see what another, the *sender*, would have written for the other text, and shows it to nobody
else: the output then changes by what went along this one edge (Wang et al. 2022, arXiv 2211.00593; Goldowsky-Dill et
al. 2023, arXiv 2304.05969). The receiver's LayerNorm sees the changed stream, too (`recomputed`, exact), or keeps the
scale that it had (`frozen`: what several senders add to one input then adds up).

Letters: n edges, and those of the forward pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from model import GPT2, GPT2Config, InputError, Trace

from .cells import Kind, Metric, in_batches
from .estimates import record_gradients

LayerNormName = Literal["recomputed", "frozen"]
HEAD_INPUTS = ("q", "k", "v")
Add = Callable[[nn.LayerNorm, Tensor, Tensor], Tensor]  # normalises a stream to which something is added


@dataclass(frozen=True)
class Node:
    """A part of the network that writes to the residual stream, reads it, or both."""

    kind: str  # embedding, head, mlp or logits
    layer: int
    head: int | None = None

    @property
    def step(self) -> int:
        """When it is computed: a node sends to those with a later step."""
        return 2 * self.layer + (self.kind == "mlp")

    @property
    def inputs(self) -> tuple[str, ...]:
        return HEAD_INPUTS if self.kind == "head" else (self.kind,)

    def __str__(self) -> str:
        return {"head": f"head {self.layer}.{self.head}", "mlp": f"mlp {self.layer}"}.get(self.kind, self.kind)


@dataclass(frozen=True)
class Edge:
    """The way from a sender to one input of a receiver: `q`, `k` or `v` of a head, `mlp` or `logits`."""

    sender: Node
    receiver: Node
    input: str


def list_nodes(config: GPT2Config) -> list[Node]:
    """List the embedding, the heads and MLPs by layer, and the logits."""
    nodes = [Node("embedding", -1)]
    for layer in range(config.n_layer):
        nodes += [*(Node("head", layer, head) for head in range(config.n_head)), Node("mlp", layer)]
    return [*nodes, Node("logits", config.n_layer)]


def find_node(name: str, config: GPT2Config, kinds: Sequence[str]) -> Node:
    """Return the node of this name, one of these kinds. Raises InputError where there is none."""
    names = {str(node): node for node in list_nodes(config) if node.kind in kinds}
    if name not in names:
        raise InputError(f"{name!r}: expected one of {', '.join(kinds)}, as in {', '.join([*names][-3:])}")
    return names[name]


def edges_into(receiver: Node, config: GPT2Config) -> list[Edge]:
    """Return the edges from all senders to all inputs of a receiver."""
    senders = [node for node in list_nodes(config) if node.step < receiver.step]
    return [Edge(sender, receiver, name) for name in receiver.inputs for sender in senders]


def edges_from(sender: Node, config: GPT2Config) -> list[Edge]:
    """Return the edges from a sender to all inputs of all receivers."""
    receivers = [node for node in list_nodes(config) if node.step > sender.step]
    return [Edge(sender, receiver, name) for receiver in receivers for name in receiver.inputs]


@torch.no_grad()
def patch_edges(
    metric: Metric, base: Trace, source: Trace, edges: Sequence[Edge], layer_norm: LayerNormName, tokens: int
) -> Tensor:
    """Return the metric of the base run with each edge in turn carrying what its sender writes in the source run: (n,),
    on the CPU. tokens: how many may be in flight."""
    patched, config = torch.empty(len(edges)), metric.trunk.config
    written = {edge.sender: write_difference(metric.trunk, edge.sender, base, source) for edge in edges}
    order = sorted(range(len(edges)), key=lambda i: edges[i].receiver.layer)
    for layer, group in groupby(order, key=lambda i: edges[i].receiver.layer):
        for some in in_batches(list(group), max(1, tokens // base.resid_pre[0].shape[1])):
            x, sent = base.resid_pre[layer].repeat(len(some), 1, 1), torch.cat([written[edges[i].sender] for i in some])
            to = choose_receivers([[edges[i]] for i in some], config, x.device)
            patched[some] = send(metric, x, sent, to, (layer, layer + 1), ADD[layer_norm]).cpu()
    return patched


def write_difference(trunk: GPT2, sender: Node, base: Trace, source: Trace) -> Tensor:
    """Return what a sender writes to the residual stream in the source run minus that in the base: (1, T, C)."""
    if sender.kind == "embedding":
        return source.resid_pre[0] - base.resid_pre[0]
    if sender.kind == "mlp":
        return source.mlp[sender.layer] - base.mlp[sender.layer]
    head = cast(int, sender.head)
    z = source.z[sender.layer][:, head] - base.z[sender.layer][:, head]  # (1, T, D)
    weight = trunk.get_parameter(f"h.{sender.layer}.attn.c_proj.weight")
    return z @ weight.unflatten(1, (-1, z.shape[-1]))[:, head].T


def choose_receivers(rows: Sequence[Sequence[Edge]], config: GPT2Config, device: torch.device) -> Mapping[str, Tensor]:
    """Return which inputs see the sender, in each row: `q`, `k`, `v` bool (n, L, H), `mlp` (n, L), `logits` (n,)."""
    n, L, H = len(rows), config.n_layer, config.n_head
    shapes = dict.fromkeys(HEAD_INPUTS, (n, L, H)) | {"mlp": (n, L), "logits": (n,)}
    to = {name: torch.zeros(shape, dtype=torch.bool, device=device) for name, shape in shapes.items()}
    for row, edges in enumerate(rows):
        for edge in edges:
            place = {"head": (edge.receiver.layer, edge.receiver.head), "mlp": (edge.receiver.layer,), "logits": ()}
            to[edge.input][(row, *place[edge.receiver.kind])] = True
    return to


def send(
    metric: Metric, x: Tensor, sent: Tensor, to: Mapping[str, Tensor], layers: tuple[int, int], add: Add
) -> Tensor:
    """Run from layer `layers[0]` on and read the metric, (n,): the inputs in `to` read x + sent, all others x.

    x (n, T, C) enters that layer; from layer `layers[1]` on, only the logits may be a receiver. What a receiver changes
    goes on to all later parts; what is sent does not."""
    for layer in range(layers[0], min(layers[1], metric.trunk.config.n_layer)):
        block: Any = metric.trunk.h[layer]
        plain, changed = block.attn.project(block.ln_1(x)), block.attn.project(add(block.ln_1, x, sent))
        q, k, v = (
            torch.where(to[name][:, layer, :, None, None], c, p)
            for name, p, c in zip(HEAD_INPUTS, plain, changed, strict=True)
        )
        z = block.attn.attend(q, k, block.attn.causal_mask(k), Trace()) @ v
        mid = x + block.attn.merge(z)
        normed = torch.where(to["mlp"][:, layer, None, None], add(block.ln_2, mid, sent), block.ln_2(mid))
        x = mid + block.mlp(normed, Trace())
    last = torch.full((len(x),), x.shape[1] - 1, device=x.device)
    x = metric.trunk.run(x, min(layers[1], metric.trunk.config.n_layer), query=last)[:, -1]
    normed = torch.where(to["logits"][:, None], add(metric.trunk.ln_f, x, sent[:, -1]), metric.trunk.norm(x))
    return normed @ metric.weights


def add_exactly(norm: nn.LayerNorm, x: Tensor, sent: Tensor) -> Tensor:
    """Normalise x + sent."""
    return norm(x + sent)


def add_with_frozen_scale(norm: nn.LayerNorm, x: Tensor, sent: Tensor) -> Tensor:
    """Normalise x, and add `sent` on the scale of x: LayerNorm's linear part, centring and weight."""
    scale = (x.var(dim=-1, correction=0, keepdim=True) + norm.eps).sqrt()
    return norm(x) + (sent - sent.mean(dim=-1, keepdim=True)) / scale * norm.weight


ADD: dict[LayerNormName, Add] = {"recomputed": add_exactly, "frozen": add_with_frozen_scale}


def estimate_edges(
    metric: Metric, ids: Sequence[int], source: Trace, edges: Sequence[Edge], layer_norm: LayerNormName
) -> Tensor:
    """Estimate the effect of each edge, (n,): edge attribution patching (Syed et al. 2023, arXiv 2310.10348), the
    gradient of the metric by way of the receiver's input alone, times what the sender writes."""
    base, gradients = record_gradients(metric, ids)
    written = {edge.sender: write_difference(metric.trunk, edge.sender, base, source) for edge in edges}
    inputs = {(edge.receiver, edge.input) for edge in edges}
    towards = {key: pull_back(metric, base, gradients, *key, ADD[layer_norm]) for key in inputs}
    effects = [(written[edge.sender] * towards[edge.receiver, edge.input]).sum() for edge in edges]
    return torch.stack(effects).detach().cpu()


def pull_back(
    metric: Metric, base: Trace, gradients: Mapping[Kind, Sequence[Tensor]], receiver: Node, name: str, add: Add
) -> Tensor:
    """Return the gradient of the metric, by way of one input of a receiver, with respect to what is added to the stream
    that it reads: (1, T, C)."""
    block: Any = metric.trunk.h[receiver.layer] if name != "logits" else None
    stream = base.resid_mid[receiver.layer] if name == "mlp" else base.resid_pre[receiver.layer]
    with torch.enable_grad():
        sent = torch.zeros_like(stream, requires_grad=True)
        if name == "logits":
            value = add(metric.trunk.ln_f, stream.detach(), sent)[:, -1] @ metric.weights
            return torch.autograd.grad(value.sum(), sent)[0]
        if name == "mlp":
            value = block.mlp(add(block.ln_2, stream.detach(), sent), Trace())
            return torch.autograd.grad(value, sent, gradients["mlp"][receiver.layer])[0]
        value = block.attn.project(add(block.ln_1, stream.detach(), sent))[HEAD_INPUTS.index(name)][:, receiver.head]
        gradient = gradients[cast(Kind, name)][receiver.layer][:, receiver.head]
        return torch.autograd.grad(value, sent, gradient)[0]
