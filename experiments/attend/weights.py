"""Sums over the attention of every head in many texts, without keeping the attention.

Every score here is a weighted sum of a head's attention weights. That for the previous token takes 1 / (T - 1) of each
weight between a query and the key before it; the mass on a class of words takes what the last query gives to them. So
one pass over the texts gives all scores, with the weights of a single layer in memory."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch
from lab.device import Device
from lab.kept import Identity, open_array
from lab.memory import map_texts
from model import GPT2, InputError, Trace

CELLS = 2**20  # of the attention maps of a batch, queries times keys: a head's are 4 MB
Choose = Callable[[Batch], dict[str, Tensor]]  # by score, how much it takes of each weight: (B, T, T), query x key
Floats = NDArray[np.floating]


@torch.inference_mode()
def sum_weights(trunk: GPT2, batch: Batch, shares: Sequence[Tensor]) -> Tensor:
    """Return P weighted sums over the attention of every head in a batch: float32 (B, L, H, P), on the CPU.

    shares: how much each sum takes of each weight, P of (B, T, T), query x key."""
    stacked = torch.stack([share.float().flatten(1) for share in shares], dim=-1)  # (B, T * T, P)
    x, layers = trunk.embed(batch.ids, batch.lengths), []
    for layer in range(trunk.config.n_layer):
        trace = Trace("weights")
        x = trunk.run(x, layer, layer + 1, trace=trace)
        layers.append(trace.weights[0].float().flatten(2) @ stacked)  # (B, H, T * T) -> (B, H, P)
    return torch.stack(layers, dim=1).cpu()


def read_sums(
    trunk: GPT2,
    sequences: Sequence[list[int]],
    choose: Choose,
    names: Sequence[str],
    device: Device,
    path: Path,
    identity: Identity,
) -> dict[str, Floats]:
    """Return the scores of these names for N texts, float32 (N, L, H) each; those on disk are not computed again.

    path: the .npy file that keeps them, made of `identity`. Raises InputError where one is not finite."""
    shape = (len(sequences), trunk.config.n_layer, trunk.config.n_head, len(names))
    sums = open_array(path, identity | {"scores": list(names)}, shape, device)
    left = np.flatnonzero(np.isnan(sums).any(axis=(1, 2, 3))).tolist()

    def sum_batch(batch: Batch) -> Floats:
        size = max(batch.ids.shape[1], CELLS // batch.ids.shape[1])
        batch = replace(batch, index=torch.tensor(left)[batch.index])
        parts = []
        for piece in batch.split(size):
            piece = piece.to(device.device)
            shares = choose(piece)
            parts.append(sum_weights(trunk, piece, [shares[name] for name in names]))
        return torch.cat(parts).numpy()

    batches = map_texts(sum_batch, [sequences[i] for i in left], device, "attention") if left else ()
    for batch, values in batches:
        if not np.isfinite(values).all():
            raise InputError(f"{path.parents[1]}: the attention of this network is not finite")
        sums[[left[i] for i in batch.index.tolist()]] = values
    sums.flush()
    return {name: np.array(sums[..., i]) for i, name in enumerate(names)}
