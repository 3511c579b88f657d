"""Record where every head of a network looks in one text, and pack that for a page in a browser.

A weight says how much of a value a query takes. The value may be short: heads rest on the first token, whose value is
next to nothing. So beside each weight w stands its share of what moved: the length of w times the value as it enters
the residual stream, |w v W_O| (Kobayashi et al. 2020, eq. 5), each row made to sum to 1."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import GPT2, Interventions, Trace

from .units import Head

MOST_TOKENS = 256  # of a text whose heads are all drawn: beyond, a page would hold more than a browser bears
Token = dict[str, Any]  # {"piece": str, "start": int, "end": int}: characters start .. end - 1 of the text


@dataclass(frozen=True, eq=False)
class Recording:
    """Attention over T tokens: fp32 tensors on the CPU."""

    tokens: Sequence[Token]
    weights: Tensor  # (L, H, T, T), query x key
    moved: Tensor  # (L, H, T, T), the shares of what moved
    q: Tensor  # (L, H, T, D)
    k: Tensor  # (L, H, T, D)
    scale: float  # by which q times k is multiplied
    windows: Sequence[int]  # by layer, how many keys up to its own a query may attend to, at most T
    hidden: Sequence[int] = ()  # positions that no query may attend to


def list_tokens(pieces: Sequence[tuple[str, int, int]]) -> list[Token]:
    """Return `Tokenizer.pieces` as a page takes them."""
    return [{"piece": piece, "start": start, "end": end} for piece, start, end in pieces]


@torch.inference_mode()
def record_attention(
    trunk: GPT2, x: Tensor, tokens: Sequence[Token], arguments: Interventions, hidden: Sequence[int] = ()
) -> Recording:
    """Run the blocks on the embeddings x (1, T, C) of one text, with these arguments, and record every head.

    hidden: the positions that `arguments` hide. Where an attn_gate cuts weights, the recorded ones are those before."""
    trace = Trace("weights", "q", "k", "v")
    trunk.run(x, trace=trace, **arguments)
    weights, v = (trace.stacked(name)[0].float().cpu() for name in ("weights", "v"))
    moved = weights * measure_values(trunk, v)[:, :, None]
    moved = moved / moved.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(moved.dtype).tiny)
    q, k = (trace.stacked(name)[0].float().cpu() for name in ("q", "k"))
    first: Any = trunk.h[0]
    windows = [min(trunk.config.window(layer), len(tokens)) for layer in range(trunk.config.n_layer)]
    return Recording(tokens, weights, moved, q, k, first.attn.scale, windows, hidden)


def measure_values(trunk: GPT2, v: Tensor) -> Tensor:
    """Return the length of each value (L, H, T, D) as it enters the residual stream, |v W_O|: (L, H, T)."""
    lengths = []
    for layer, values in enumerate(v):
        H, _, D = values.shape
        weight = trunk.get_parameter(f"h.{layer}.attn.c_proj.weight").cpu()  # (C, C), head h owns its columns
        by_head = weight.T.unflatten(0, (H, D))  # (H, D, C)
        lengths.append((values @ by_head.to(values.dtype)).norm(dim=-1))
    return torch.stack(lengths)


def pack(recording: Recording, maps: Sequence[Head] | None = None, neurons: Sequence[Head] | None = None) -> Any:
    """Return a recording as JSON for lab/page/recording.js; None: of all heads.

    maps: heads whose weights and shares are packed, one byte each, round(255 w), of the lower triangle row by row.
    neurons: heads whose q and k are packed, in little-endian float32. Both are in base64."""
    L, H, _, D = recording.q.shape
    every = [(layer, head) for layer in range(L) for head in range(H)]
    return {
        "tokens": list(recording.tokens),
        "hidden": list(recording.hidden),
        "n_layer": L,
        "n_head": H,
        "head_width": D,
        "scale": recording.scale,
        "windows": list(recording.windows),
        "maps": {
            "heads": every if maps is None else list(maps),
            "weights": pack_maps(select(recording.weights, maps)),
            "moved": pack_maps(select(recording.moved, maps)),
        },
        "neurons": {
            "heads": every if neurons is None else list(neurons),
            "q": pack_floats(select(recording.q, neurons)),
            "k": pack_floats(select(recording.k, neurons)),
        },
    }


def select(x: Tensor, heads: Sequence[Head] | None) -> Tensor:
    """Return these heads of x (L, H, ...): (n, ...); None: all of them, by layers."""
    if heads is None:
        return x.flatten(0, 1)
    return torch.stack([x[head] for head in heads]) if heads else x.flatten(0, 1)[:0]


def pack_maps(weights: Tensor) -> str:
    """Pack the lower triangles of weights (n, T, T) as bytes in base64: 0 .. 255 for 0 .. 1."""
    T = weights.shape[-1]
    rows, columns = torch.tril_indices(T, T)
    return encode((weights[:, rows, columns].double() * 255).round().to(torch.uint8).numpy())


def pack_floats(values: Tensor) -> str:
    """Pack values as little-endian float32 in base64."""
    return encode(values.numpy().astype("<f4"))


def encode(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()
