"""Record what each place in the network emits, on disk: the inputs of the probes.

Letters: N rows, a text or a word each, and those of the forward pass."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch
from model import GPT2, GPT2Config, InputError, Trace

from .device import Device
from .memory import map_texts

Positions = Sequence[NDArray[np.integer]]  # which tokens of each text are kept


@dataclass(frozen=True)
class Site:
    """One place in the network."""

    kind: str  # resid, head or mlp
    layer: int  # counted from 0; resid n enters layer n, and resid L leaves the last layer, before ln_f
    head: int | None = None  # of kind head only: whose z it is


def sites(config: GPT2Config) -> list[Site]:
    """List the L + 1 sites of the residual stream, then the heads in order, then the MLPs."""
    L, H = config.n_layer, config.n_head
    resid = [Site("resid", layer) for layer in range(L + 1)]
    heads = [Site("head", layer, head) for layer in range(L) for head in range(H)]
    return resid + heads + [Site("mlp", layer) for layer in range(L)]


@dataclass(frozen=True)
class Activations:
    """What all sites emitted for N rows: one file for each kind of site, float32 (layers, N, C).

    A head is the D columns of its layer that c_proj reads it from. A file is open only while it is read or written."""

    files: Mapping[str, Path]  # by kind of site
    head_width: int

    def of(self, *chosen: Site) -> NDArray[np.float32]:
        """Read what these sites emitted into memory, side by side: (N, width)."""
        return np.concatenate([self._read(site) for site in chosen], axis=1)

    def _read(self, site: Site) -> NDArray[np.float32]:
        layer = np.asarray(np.load(self.files[site.kind], mmap_mode="r")[site.layer])
        return layer if site.head is None else layer[:, site.head * self.head_width :][:, : self.head_width]

    def write(self, kind: str, rows: NDArray[np.integer], values: NDArray[np.float32]) -> None:
        """Write values (layers, n, C) of these n rows."""
        np.load(self.files[kind], mmap_mode="r+")[:, rows] = values


@torch.inference_mode()
def record(
    trunk: GPT2,
    sequences: Sequence[list[int]],
    positions: Mapping[str, Positions | None],
    folder: Path,
    device: Device,
) -> dict[str, Activations]:
    """Record all sites in one pass over the texts, with one batch at a time in memory; by name of the reading.

    sequences: token ids of each text. positions: by reading, the tokens to keep of each text, one row each, in the
    order of texts and positions; None for the mean over the text's real tokens, one row per text. E.g.
    {"last": [[len(ids) - 1], ...], "mean": None}. folder: gets the files, and loses earlier ones of the same reading.
    The caller moves the model to `device` and sets eval mode. Raises ValueError for positions that a text does not
    have, InputError where the folder has too little space."""
    positions = {name: _check_positions(name, kept, sequences) for name, kept in positions.items()}
    starts = {}  # by reading, the first row of each text, and the number of rows
    for name, kept in positions.items():
        rows_of_texts = [1] * len(sequences) if kept is None else [len(tokens) for tokens in kept]
        starts[name] = np.cumsum([0, *rows_of_texts])
    activations = _create_files(trunk.config, {name: int(start[-1]) for name, start in starts.items()}, folder)

    def run_batch(batch: Batch) -> dict[tuple[str, str], NDArray[np.float32]]:
        """Return what to write, by reading and kind of site: (layers, n, C)."""
        trace = Trace("resid_pre", "z", "mlp")
        on_device = batch.to(device.device)
        with device.autocast():
            trunk(on_device.ids, on_device.lengths, trace=trace)
        z = [layer.transpose(1, 2).flatten(-2) for layer in trace.z]  # L of (B, H, T, D) -> (B, T, C)
        values = {}
        for kind, layers in {"resid": trace.resid_pre, "head": z, "mlp": trace.mlp}.items():
            for name, kept in positions.items():
                rows = [_select_rows(layer.float(), on_device, kept) for layer in layers]
                values[name, kind] = torch.stack(rows).cpu().numpy()
        return values

    for batch, values in map_texts(run_batch, sequences, device, "activations"):
        for (name, kind), emitted in values.items():
            rows = np.concatenate([np.arange(*starts[name][i : i + 2]) for i in batch.index.tolist()])
            activations[name].write(kind, rows, emitted)
    return activations


def read_activations(
    trunk: GPT2, sequences: Sequence[list[int]], positions: Positions | None, chosen: Sequence[Site], device: Device
) -> list[NDArray[np.float32]]:
    """Return what `record` finds at these sites for one reading so small that it fits into memory: (N, width) each."""
    with TemporaryDirectory() as folder:
        kept = record(trunk, sequences, {"kept": positions}, Path(folder), device)["kept"]
        return [kept.of(site) for site in chosen]


def _select_rows(x: Tensor, batch: Batch, positions: Positions | None) -> Tensor:
    """Select the positions of each text of the batch from x (B, T, C), or average its real tokens: (n, C)."""
    if positions is None:
        real = torch.arange(x.shape[1], device=x.device) < batch.lengths[:, None]  # (B, T)
        return torch.einsum("btc,bt->bc", x, real.to(x.dtype)) / batch.lengths[:, None]
    kept = [positions[i] for i in batch.index.tolist()]
    text = np.repeat(np.arange(len(kept)), [len(tokens) for tokens in kept])
    return x[torch.from_numpy(text), torch.from_numpy(np.concatenate(kept))]


def _check_positions(name: str, positions: Positions | None, sequences: Sequence[list[int]]) -> Positions | None:
    """Return the positions as int64. Raises ValueError unless each text has its positions."""
    if positions is None:
        return None
    if len(positions) != len(sequences):
        raise ValueError(f"{name}: expected positions for each of {len(sequences)} texts, got {len(positions)}")
    checked = [np.asarray(kept, dtype=np.int64) for kept in positions]
    for i, (kept, ids) in enumerate(zip(checked, sequences, strict=True)):
        if ((kept < 0) | (kept >= len(ids))).any():  # padding follows, which says nothing
            raise ValueError(f"{name}: expected positions 0 .. {len(ids) - 1} in text {i}, got {kept.tolist()}")
    return checked


def _create_files(config: GPT2Config, rows: Mapping[str, int], folder: Path) -> dict[str, Activations]:
    """Create the files of each reading, for its number of rows. Raises InputError where the folder has no room."""
    layers = {"resid": config.n_layer + 1, "head": config.n_layer, "mlp": config.n_layer}
    needed, free = sum(rows.values()) * sum(layers.values()) * config.n_embd * 4, shutil.disk_usage(folder).free
    if needed > free:  # a mapped file that finds no room ends the process without a word
        missing = f"expected {needed / 2**30:.1f} GiB of free space for activations, got {free / 2**30:.1f}"
        raise InputError(f"{folder}: {missing}; make room, or take fewer texts and words")
    activations = {}
    for name, n in rows.items():
        files = {kind: folder / f"{name}-{kind}.npy" for kind in layers}
        for kind, file in files.items():
            open_memmap(file, mode="w+", dtype=np.float32, shape=(layers[kind], n, config.n_embd))
        activations[name] = Activations(files, config.head_width)
    return activations
