"""Builders of the forward pass's arguments.

Regions are bool (1, 1, 1, T, T), query x key, True inside the region. A region r is itself a mask:

    attn_mask=r            attend there only; each row renormalises over what is left
    attn_mask=~r           attend everywhere else
    attn_gate=(~r).float() cut it out of the softmaxed weights; nothing renormalises

Masks combine with `&`, `|` and `~`; the model always adds the causal mask itself. Heads are (layer, head), counted from
0. Whatever lies out of range raises ValueError.
"""

from collections.abc import Iterable
from functools import reduce
from operator import and_

import torch
from torch import Tensor

from .config import GPT2Config
from .interventions import Intervention, Interventions

# Gates: 1 is open, 0 is closed.


def close_heads(config: GPT2Config, heads: Iterable[tuple[int, int]]) -> Tensor:
    """Return a head_gate, float (1, L, H, 1), that closes these (layer, head) pairs."""
    gate = torch.ones(1, config.n_layer, config.n_head, 1)
    for layer, head in heads:
        within("layer", layer, config.n_layer)
        within("head", head, config.n_head)
        gate[0, layer, head] = 0
    return gate


def close_attention(config: GPT2Config, layers: Iterable[int]) -> Tensor:
    """Return a head_gate (1, L, 1, 1) that closes all heads of these layers; add `close_mlps` to close whole layers."""
    return close_mlps(config, layers)[..., None]


def close_mlps(config: GPT2Config, layers: Iterable[int]) -> Tensor:
    """Return an mlp_gate, float (1, L, 1), that closes the MLPs of these layers."""
    gate = torch.ones(1, config.n_layer, 1)
    for layer in layers:
        within("layer", layer, config.n_layer)
        gate[0, layer] = 0
    return gate


def each_head(config: GPT2Config) -> Tensor:
    """Return a head_gate (L * H, L, H, 1), one row per single-head ablation: row l * H + h closes (l, h) alone."""
    L, H = config.n_layer, config.n_head
    return (1 - torch.eye(L * H)).view(L * H, L, H, 1)


# Regions of the attention map.


def self_token(T: int) -> Tensor:
    """Return the region of each query's own position."""
    return torch.eye(T, dtype=torch.bool)[None, None, None]


def previous_token(T: int) -> Tensor:
    """Return the region of the position before each query; the first query has none."""
    return torch.ones(T, T, dtype=torch.bool).tril(-1).triu(-1)[None, None, None]


def first_token(T: int) -> Tensor:
    """Return the region of position 0, which gets much of GPT-2's attention."""
    return keys(T, [0])


def band(T: int, width: int) -> Tensor:
    """Return the region of the last `width` positions up to each query, included: query - width < key <= query."""
    if width < 1:
        raise ValueError(f"band: expected a width of at least 1, got {width}")
    ones = torch.ones(T, T, dtype=torch.bool)
    return (ones.tril() & ones.triu(1 - width))[None, None, None]


def queries(T: int, positions: Iterable[int]) -> Tensor:
    """Return the region of all keys of these query rows."""
    return keys(T, positions).transpose(-2, -1)


def keys(T: int, positions: Iterable[int]) -> Tensor:
    """Return the region of these key columns, for all queries."""
    region = torch.zeros(1, 1, 1, T, T, dtype=torch.bool)
    for position in positions:
        within("position", position, T)
        region[..., position] = True
    return region


# Masks from other masks, and from tokens.


def hide_tokens(hidden: Tensor) -> Tensor:
    """Turn hidden, bool (B, T), True = no query may attend to this token, into an attn_mask (B, 1, 1, 1, T)."""
    if hidden.dtype != torch.bool or hidden.dim() != 2:
        raise ValueError(f"hidden: expected bool (B, T), got {hidden.dtype} {tuple(hidden.shape)}")
    return ~hidden[:, None, None, None]


def combine(*masks: Tensor) -> Tensor:
    """Attend only where every one of these attn_masks allows it."""
    if not masks:
        raise ValueError("combine: expected at least one mask")
    return reduce(and_, masks)


def restrict(
    mask: Tensor,
    config: GPT2Config,
    layers: Iterable[int] | None = None,
    heads: Iterable[tuple[int, int]] | None = None,
) -> Tensor:
    """Let an attn_mask act in these layers, or in these (layer, head) pairs, and nowhere else."""
    if (layers is None) == (heads is None):
        raise ValueError("restrict: give either layers or heads")
    gate = close_attention(config, layers) if layers is not None else close_heads(config, heads or ())
    return mask | (gate > 0)[..., None]  # where the gate is open the mask does not act: all True


# Interventions that depend on the text: (ids, lengths) -> arguments, for `generate`, a sweep or a training step. These
# functions return one; `close_last_query` is one.


def hide_ids(token_ids: Iterable[int]) -> Intervention:
    """Hide every occurrence of these tokens from all queries."""
    hidden = torch.tensor(sorted(token_ids), dtype=torch.int64)
    return lambda ids, lengths: {"attn_mask": hide_tokens(torch.isin(ids, hidden.to(ids.device)))}


def last_tokens(n: int) -> Intervention:
    """Leave the last n real tokens of each text visible, n >= 1, and hide those before them."""
    if n < 1:
        raise ValueError(f"last_tokens: expected at least 1, got {n}")

    def intervention(ids: Tensor, lengths: Tensor) -> Interventions:
        positions = torch.arange(ids.shape[1], device=ids.device)
        return {"attn_mask": hide_tokens(positions < lengths[:, None] - n)}

    return intervention


def close_query(position: int) -> Intervention:
    """Let the query at this position of each text attend to nothing; a negative one counts from the text's end, where
    -1 is the last real token. A text too short to have it stays whole."""

    def intervention(ids: Tensor, lengths: Tensor) -> Interventions:
        positions = torch.arange(ids.shape[1], device=ids.device)
        query = lengths + position if position < 0 else torch.full_like(lengths, position)
        return {"attn_mask": (positions != query[:, None])[:, None, None, :, None]}

    return intervention


def close_last_query(ids: Tensor, lengths: Tensor) -> Interventions:
    """Let the last real token, from which the class is read, attend to nothing."""
    return close_query(-1)(ids, lengths)


def within(what: str, value: int, limit: int) -> None:
    """Raise ValueError unless 0 <= value < limit: a negative number would quietly count from the end."""
    if not 0 <= value < limit:
        raise ValueError(f"{what} {value}: expected 0 .. {limit - 1}")
