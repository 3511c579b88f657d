"""GPT-2 (Radford et al. 2019): the whole forward pass, in one sitting.

`Attention` and `MLP` make a `Block`, blocks make `GPT2`. Every mask and gate is an argument (`Interventions`), and the
model keeps no state between two calls. On a first reading skip `query`, `z` and `past`, which only save work, and
`recompute`, which saves memory: read Q as T, and `at_query(x, ...)` as x.

GPT-Neo (Black et al. 2021) is the same network with other values in three fields of its config: nothing scales its
scores, its q, k and v have no bias, and in every second layer a query sees only a window of keys.

Letters: B batch, T tokens, L layers, H heads, D head width, C = H * D width, Q queries: T, or 1 with `query`, P tokens
of `past`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .config import GPT2Config
from .cpu import Dropout, linear_gelu
from .interventions import (
    AXES,
    Interventions,
    check_interventions,
    check_lengths,
    check_past,
    check_query,
    check_z,
    describe,
)


class Trace:
    """An empty notebook that one forward pass fills: `trace = Trace("z", "weights")`, then `trace.z`.

    Each name holds one tensor per layer that ran, in the path of the computation: `torch.autograd.grad(loss, trace.z)`
    works. It is what flows on: `z` and `mlp` after gate and fill, `weights` after attn_mask and before attn_gate and
    dropout, `scores` before the mask; both are in fp32 under autocast, too.

        q, k, v, z           (B, H, T, D)      scores, weights   (B, H, T, T), query x key
        resid_mid, mlp       (B, T, C)         resid_pre         (B, T, C), and last what leaves the last layer

    Raises ValueError for an unknown name, and if a second forward pass gets the same notebook."""

    NAMES = ("resid_pre", "q", "k", "v", "scores", "weights", "z", "resid_mid", "mlp")

    def __init__(self, *names: str) -> None:
        if unknown := [name for name in names if name not in self.NAMES]:
            raise ValueError(f"Trace: nothing is called {', '.join(map(repr, unknown))}; there are {self.NAMES}")
        self.records: dict[str, list[Tensor]] = {name: [] for name in names}
        self.used = self.closed = False

    def __getattr__(self, name: str) -> list[Tensor]:
        records = self.__dict__.get("records", {})
        if name in records:
            return records[name]
        raise AttributeError(f"this Trace does not record {name!r}; it was made for {tuple(records)}")

    def stacked(self, name: str) -> Tensor:
        """Stack the records of one name, layers on axis 1: (B, L, ...). ValueError if `query` made shapes differ."""
        if len({record.shape for record in getattr(self, name)}) != 1:
            raise ValueError(f"trace.{name}: layers of different shapes cannot be stacked; trace without `query`")
        return torch.stack(getattr(self, name), dim=1)

    def open(self) -> None:
        if self.used:
            raise ValueError("trace: this notebook holds an earlier forward pass; make a new Trace for each")
        self.used = True

    def close(self) -> None:
        """Stop recording, because with `recompute` the backward pass runs the blocks again."""
        self.closed = True

    def record(self, **values: Tensor) -> None:
        for name, value in values.items():
            if name in self.records and not self.closed:
                self.records[name].append(value)


class Arguments(Interventions, total=False):
    """The arguments of a forward pass besides `ids` and `lengths`."""

    trace: Trace | None
    recompute: bool  # see `GPT2.run`


def at_query(x: Tensor, query: Tensor | None, axis: int) -> Tensor:
    """Select one position per text along `axis`, keeping the axis; a no-op if query is None or the axis has size 1."""
    if query is None or x.shape[axis] == 1:
        return x
    x = x.expand(len(query), *x.shape[1:])
    # `take_along_dim` would do this, but it wraps positions that do not exist, and compiles anew for every shape
    index = query.view(-1, *[1] * (x.dim() - 1)).expand(*x.shape[:axis], 1, *x.shape[axis + 1 :])
    return x.gather(axis, index)


def slice_layer(interventions: dict[str, Tensor], layer: int, query: Tensor | None) -> dict[str, Tensor]:
    """Return the slice of one layer, and of one position per text with `query`, of each argument."""
    values = {name: value[:, layer if value.shape[1] > 1 else 0] for name, value in interventions.items()}
    return {name: at_query(value, query, axis=AXES[name].index("T") - 1) for name, value in values.items()}


def gated(value: Tensor, gate: Tensor, fill: Tensor | None) -> Tensor:
    """Return gate * value + (1 - gate) * fill, in the dtype of `value`; without `fill`, 0 takes its place."""
    gate = gate.to(value.dtype)
    return gate * value if fill is None else gate * value + (1 - gate) * fill.to(value.dtype)


class Attention(nn.Module):
    """Causal self-attention in three steps: project (q, k, v), attend (weights), merge (z to the residual stream)."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        self.n_head, self.head_width, self.attn_dropout = config.n_head, config.head_width, config.attn_dropout
        self.scale = 1 / math.sqrt(config.head_width) if config.scale_scores else 1.0
        self.window = config.window(layer)  # keys that a query may attend to, its own included
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.qkv_bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)  # head h owns the input columns h*D : (h+1)*D
        self.dropout = Dropout(config.dropout)

    def project(self, x: Tensor, query: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Project x (B, T, C) to q (B, H, Q, D), k and v (B, H, T, D)."""
        C = x.shape[-1]
        if query is None:
            q, k, v = self.c_attn(x).split(C, dim=-1)  # three of (B, T, C)
        else:
            weight, bias = self.c_attn.weight, self.c_attn.bias
            of_q, of_kv = (None, None) if bias is None else (bias[:C], bias[C:])
            q = F.linear(at_query(x, query, axis=1), weight[:C], of_q)  # (B, 1, C)
            k, v = F.linear(x, weight[C:], of_kv).split(C, dim=-1)  # two of (B, T, C)
        return tuple(y.unflatten(-1, (self.n_head, self.head_width)).transpose(1, 2) for y in (q, k, v))

    def causal_mask(self, k: Tensor, query: Tensor | None = None, P: int = 0) -> Tensor:
        """Return which keys of k (B, H, P + T, D) each query may attend to, the last `window` up to itself: bool
        (T, P + T), or (B, 1, 1, P + T) with `query`."""
        keys = torch.arange(k.shape[2], device=k.device)
        queries = keys[P:, None] if query is None else P + query.view(-1, 1, 1, 1)
        return (keys <= queries) & (keys > queries - self.window)

    def attend(self, q: Tensor, k: Tensor, allowed: Tensor, trace: Trace) -> Tensor:
        """Return the weights (B, H, Q, T) of q (B, H, Q, D) over k (B, H, T, D); `allowed` True = may attend."""
        dtype = torch.promote_types(q.dtype, torch.float32)  # 16 bits would round GPT-Neo's scores, which are large
        with torch.autocast(q.device.type, enabled=False):
            scores = q.to(dtype) @ k.to(dtype).transpose(-2, -1) * self.scale  # (B, H, Q, T)
        trace.record(scores=scores)
        # A row sums to 1, or to 0 if no key is allowed: the lowest finite number, not -inf, keeps that row free of NaN.
        weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(dim=-1)
        weights = weights.masked_fill(~allowed, 0)
        trace.record(weights=weights)
        return weights

    def merge(self, z: Tensor) -> Tensor:
        """Turn z (B, H, Q, D) into what attention adds to the residual stream, (B, Q, C)."""
        return self.dropout(self.c_proj(z.transpose(1, 2).flatten(-2)))

    def compute_z(
        self,
        x: Tensor,
        query: Tensor | None,
        trace: Trace,
        attn_mask: Tensor | None,
        attn_gate: Tensor | None,
        past: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Map x (B, T, C), normed, to z (B, H, Q, D): in one fused call if nothing changes or records the weights."""
        q, k, v = self.project(x, query)
        trace.record(q=q, k=k, v=v)
        if past is not None:
            k, v = (torch.cat([p.expand(len(x), -1, -1, -1), y], dim=2) for p, y in zip(past, (k, v), strict=True))
        P = k.shape[2] - x.shape[1]
        dropout = self.attn_dropout if self.training else 0.0
        if attn_mask is None and attn_gate is None and not {"scores", "weights"} & trace.records.keys():
            plain = query is None and not P and k.shape[2] <= self.window
            mask = None if plain else self.causal_mask(k, query, P)
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=self.scale
            )
        allowed = self.causal_mask(k, query, P)
        weights = self.attend(q, k, allowed if attn_mask is None else allowed & attn_mask, trace)
        if attn_gate is not None:
            weights = weights * attn_gate.to(weights.dtype)
        return F.dropout(weights, dropout).to(v.dtype) @ v  # (B, H, Q, T) @ (B, H, T, D) -> (B, H, Q, D)

    def forward(
        self,
        x: Tensor,
        query: Tensor | None,
        trace: Trace,
        attn_mask: Tensor | None = None,
        attn_gate: Tensor | None = None,
        head_gate: Tensor | None = None,
        head_fill: Tensor | None = None,
        z: Tensor | None = None,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Map x (B, T, C), normed, to (B, Q, C). A known z (B, H, Q, D) is not computed again.

        past: keys and values (1 or B, H, P, D) of tokens that come before x."""
        if z is None:
            z = self.compute_z(x, query, trace, attn_mask, attn_gate, past)
        if head_gate is not None:
            z = gated(z, head_gate[..., None], head_fill)
        trace.record(z=z)
        return self.merge(z)


class MLP(nn.Module):
    """Two layers around the tanh form of GELU, with which GPT-2 was trained (Hendrycks & Gimpel 2016)."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Tensor, trace: Trace, mlp_gate: Tensor | None = None, mlp_fill: Tensor | None = None
    ) -> Tensor:
        """Map x (B, Q, C), normed, to (B, Q, C)."""
        x = linear_gelu(self.c_fc, x)  # (B, Q, C) -> (B, Q, 4C)
        x = self.c_proj(x)  # (B, Q, 4C) -> (B, Q, C)
        if mlp_gate is not None:
            x = gated(x, mlp_gate[..., None], mlp_fill)
        trace.record(mlp=x)
        return self.dropout(x)


class Block(nn.Module):
    """Attention, then MLP; each reads the normed residual stream and adds to it."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        query: Tensor | None,
        trace: Trace,
        mlp_gate: Tensor | None = None,
        mlp_fill: Tensor | None = None,
        **attention_arguments: Any,
    ) -> Tensor:
        """Map x (B, T, C) to (B, Q, C). All arguments are this layer's slice, without the L axis."""
        trace.record(resid_pre=x)
        x = at_query(x, query, axis=1) + self.attn(self.ln_1(x), query, trace, **attention_arguments)
        trace.record(resid_mid=x)
        return x + self.mlp(self.ln_2(x), trace, mlp_gate, mlp_fill)


class GPT2(nn.Module):
    """The trunk: token ids in, the residual stream after the final LayerNorm out.

    trunk(ids, lengths, **interventions) -> (B, T, C). Weights start as in the paper: N(0, 0.02), the two projections
    into the residual stream scaled by 1 / sqrt(2 L)."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_ctx, config.n_embd)
        self.dropout = Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            elif "ln_" not in name:
                scale = math.sqrt(2 * config.n_layer) if name.endswith("c_proj.weight") else 1
                nn.init.normal_(parameter, std=0.02 / scale)

    def forward(self, ids: Tensor, lengths: Tensor | None = None, **arguments: Unpack[Arguments]) -> Tensor:
        """Map ids int64 (B, T), right-padded, to (B, T, C); lengths int64 (B,) counts real tokens, None: all are real.

        Raises ValueError that names the argument, what was expected and what came."""
        x = self.embed(ids, lengths)
        return self.norm(self.run(x, 0, self.config.n_layer, query=None, z=None, **arguments))

    def embed(self, ids: Tensor, lengths: Tensor | None = None, first: int = 0) -> Tensor:
        """Add token and position embeddings of ids int64 (B, T): (B, T, C); `lengths` blank out the padding.

        first: position of the first token; more than 0 after `past` tokens."""
        int64_matrix = isinstance(ids, Tensor) and ids.dtype == torch.int64 and ids.dim() == 2
        if not int64_matrix or not 1 <= ids.shape[1] <= self.config.n_ctx - first:
            expected = f"int64 (B, T) with 1 <= T <= {self.config.n_ctx - first}"
            raise ValueError(f"ids: expected {expected}, got {describe(ids)}")
        T, device = ids.shape[1], ids.device
        if lengths is not None:
            check_lengths(lengths, len(ids), T)
            ids = ids.masked_fill(torch.arange(T, device=device) >= lengths[:, None], 0)  # any id may stand in padding
        positions = torch.arange(first, first + T, device=device)
        return self.dropout(self.wte(ids) + self.wpe(positions))  # (B, T, C) + (T, C)

    def run(
        self,
        x: Tensor,
        start: int = 0,
        stop: int | None = None,
        *,
        query: Tensor | None = None,
        trace: Trace | None = None,
        z: Tensor | None = None,
        past: Trace | None = None,
        recompute: bool = False,
        **arguments: Unpack[Interventions],
    ) -> Tensor:
        """Run blocks start .. stop - 1 on the residual stream x (B, T, C) -> (B, Q, C).

        Layers are counted absolutely and every intervention keeps its full L axis. With `query`, int64 (B,), the last
        block that runs computes one position of each text, with keys and values from all. A known `z` (B, H, Q, D), the
        output of the heads of block `start` before gate and fill, is not computed again; attn_mask and attn_gate raise.
        `past`, a notebook with k and v of P tokens that all texts begin with, spares their computation: x holds the
        tokens after them, embedded with `first=P`. attn_mask and attn_gate raise, for they name no past tokens.
        `recompute`: a block keeps only its input, the backward pass computes the rest again (Chen et al. 2016)."""
        stop = self.config.n_layer if stop is None else stop
        if not 0 <= start <= stop <= self.config.n_layer:
            raise ValueError(f"run: expected 0 <= start <= stop <= {self.config.n_layer}, got {start} and {stop}")
        check_query(query, *x.shape[:2])
        interventions = check_interventions(arguments, self.config, x)
        if z is not None:
            Q = 1 if query is not None and start == stop - 1 else x.shape[1]
            check_z(z, (len(x), self.config.n_head, Q, self.config.head_width), interventions)
        if past is not None:
            check_past(past.records, self.config, len(x), interventions)
        trace = Trace() if trace is None else trace
        trace.open()
        for layer in range(start, stop):
            layer_query = query if layer == stop - 1 else None
            layer_arguments: dict[str, Any] = {**slice_layer(interventions, layer, layer_query)}
            if past is not None:
                layer_arguments["past"] = (past.k[layer], past.v[layer])
            block = self.h[layer]
            compute: Callable[..., Tensor] = partial(checkpoint, block, use_reentrant=False) if recompute else block
            x = compute(x, layer_query, trace, z=z if layer == start else None, **layer_arguments)
        trace.record(resid_pre=x)
        trace.close()
        return at_query(x, query, axis=1)

    def norm(self, x: Tensor) -> Tensor:
        """Apply the final LayerNorm, (..., C) -> (..., C)."""
        return self.ln_f(x)
