"""What each place in the network emits, on disk: the inputs of the probes.

Letters: N rows, a text or a word each, and those of the forward pass.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch
from model import GPT2, GPT2Config, InputError, Trace

from .device import Device
from .memory import map_texts

Positions = Sequence[NDArray[np.integer]]  # of each text those that are kept


@dataclass(frozen=True)
class Site:
    """One place in the network. kind: `resid`, `head` or `mlp`; layer: counted from 0, and of `resid` what enters
    that layer, L for what leaves the last, before ln_f; head: of `head` only, whose z it is."""

    kind: str
    layer: int
    head: int | None = None


def sites(config: GPT2Config) -> list[Site]:
    """The L + 1 of the residual stream, then the heads in order, then the MLPs."""
    L, H = config.n_layer, config.n_head
    resid = [Site("resid", layer) for layer in range(L + 1)]
    heads = [Site("head", layer, head) for layer in range(L) for head in range(H)]
    return resid + heads + [Site("mlp", layer) for layer in range(L)]


@dataclass(frozen=True)
class Activations:
    """What all sites emitted for N rows, in one file per kind of site, float32 (layers, N, C): a head is the D columns
    of its layer that c_proj reads it from. A file is open only while it is read or written."""

    files: Mapping[str, Path]
    head_width: int

    def of(self, *chosen: Site) -> NDArray[np.float32]:
        """What these sites emitted, side by side: (N, width), in memory."""
        return np.concatenate([self._one(site) for site in chosen], axis=1)

    def _one(self, site: Site) -> NDArray[np.float32]:
        layer = np.asarray(np.load(self.files[site.kind], mmap_mode="r")[site.layer])
        return layer if site.head is None else layer[:, site.head * self.head_width :][:, : self.head_width]

    def write(self, kind: str, rows: NDArray[np.integer], values: NDArray[np.float32]) -> None:
        """values (layers, n, C) of these n rows."""
        np.load(self.files[kind], mmap_mode="r+")[:, rows] = values


@torch.inference_mode()
def record(
    trunk: GPT2,
    sequences: Sequence[list[int]],
    positions: Mapping[str, Positions | None],
    folder: Path,
    device: Device,
) -> dict[str, Activations]:
    """One pass over the texts, whose token ids are `sequences`; a batch at a time is in memory.

    positions: by reading, for each text those that are kept, one row each, in the order of texts and positions; None
    for the mean over the text's real tokens, one row per text. E.g. {"last": [[len(ids) - 1], ...], "mean": None}.
    folder: where the files are written, over earlier ones of the same reading. The model is taken as it stands on
    `device`; eval mode is the caller's. Raises ValueError for positions that a text does not have, InputError where
    the folder has too little space."""
    given = {name: _checked(name, own, sequences) for name, own in positions.items()}
    starts = {name: np.cumsum([0, *_counts(own, sequences)]) for name, own in given.items()}
    found = _create(trunk.config, {name: int(start[-1]) for name, start in starts.items()}, folder)

    def emitted(batch: Batch) -> dict[tuple[str, str], NDArray[np.float32]]:
        """By reading and kind of site, (layers, n, C)."""
        trace = Trace("resid_pre", "z", "mlp")
        on = batch.to(device.device)
        with device.autocast():
            trunk(on.ids, on.lengths, trace=trace)
        z = [own.transpose(1, 2).flatten(-2) for own in trace.z]  # L of (B, H, T, D) -> (B, T, C)
        streams = {"resid": trace.resid_pre, "head": z, "mlp": trace.mlp}
        return {
            (name, kind): torch.stack([kept(x.float(), on, own) for x in layers]).cpu().numpy()
            for name, own in given.items()
            for kind, layers in streams.items()
        }

    for batch, values in map_texts(emitted, sequences, device, "activations"):
        for (name, kind), own in values.items():
            rows = np.concatenate([np.arange(*starts[name][i : i + 2]) for i in batch.index.tolist()])
            found[name].write(kind, rows, own)
    return found


def kept(x: Tensor, batch: Batch, positions: Positions | None) -> Tensor:
    """x (B, T, C) at the positions of each text of the batch, or its mean over real tokens: (n, C)."""
    if positions is None:
        real = torch.arange(x.shape[1], device=x.device) < batch.lengths[:, None]  # (B, T)
        return torch.einsum("btc,bt->bc", x, real.to(x.dtype)) / batch.lengths[:, None]
    own = [positions[i] for i in batch.index.tolist()]
    text = np.repeat(np.arange(len(own)), [len(at) for at in own])
    return x[torch.from_numpy(text), torch.from_numpy(np.concatenate(own))]


def _counts(positions: Positions | None, sequences: Sequence[list[int]]) -> list[int]:
    """Rows of each text."""
    return [1] * len(sequences) if positions is None else [len(own) for own in positions]


def _checked(name: str, positions: Positions | None, sequences: Sequence[list[int]]) -> Positions | None:
    if positions is None:
        return None
    if len(positions) != len(sequences):
        raise ValueError(f"{name}: expected positions for each of {len(sequences)} texts, got {len(positions)}")
    found = [np.asarray(own, dtype=np.int64) for own in positions]
    for i, (own, ids) in enumerate(zip(found, sequences, strict=True)):
        if ((own < 0) | (own >= len(ids))).any():  # beyond lies padding, which says nothing
            raise ValueError(f"{name}: expected positions 0 .. {len(ids) - 1} in text {i}, got {own.tolist()}")
    return found


def _create(config: GPT2Config, rows: Mapping[str, int], folder: Path) -> dict[str, Activations]:
    """Files for so many rows of each reading."""
    layers = {"resid": config.n_layer + 1, "head": config.n_layer, "mlp": config.n_layer}
    needed, free = sum(rows.values()) * sum(layers.values()) * config.n_embd * 4, shutil.disk_usage(folder).free
    if needed > free:  # a mapped file that finds no room ends the process without a word
        missing = f"expected {needed / 2**30:.1f} GiB of free space for activations, got {free / 2**30:.1f}"
        raise InputError(f"{folder}: {missing}; make room, or take fewer texts and words")
    found = {}
    for name, n in rows.items():
        files = {kind: folder / f"{name}-{kind}.npy" for kind in layers}
        for kind, file in files.items():
            open_memmap(file, mode="w+", dtype=np.float32, shape=(layers[kind], n, config.n_embd))
        found[name] = Activations(files, config.head_width)
    return found
