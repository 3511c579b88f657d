"""One vector for a text, from every place along the residual stream: what the vectors of a network are compared by.

Letters: N texts, S = L + 2 sites, and those of the forward pass. Site 0 is the sum of token and position embeddings,
site l what enters block l, site L what leaves the last block, and site L + 1 the same after ln_f. What `transformers`
calls hidden_states[-1] is site L + 1; its others are sites 0 .. L - 1."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch
from model import GPT2, GPT2Config, InputError, Trace

from .device import Device
from .kept import Identity, open_array
from .memory import map_texts

Floats = NDArray[np.floating]

# How the T vectors of a text become one. The first token of a text has no tokens to look at, and GPT-2 gives it very
# large values in a few dimensions whatever it is (Sun et al. 2024, 2402.17762): so there is a mean without it.
POOLINGS = {
    "last": "the last token, which a classifier reads",
    "mean": "the mean over all tokens",
    "mean_without_first": "the mean over all tokens but the first",
    "weighted": "the mean weighted by position, 1 .. T (SGPT, Muennighoff 2022)",
}
# One token of each text, drawn at random: how alike are vectors of different texts (Ethayarajh 2019)?
TOKENS = {"token": "a random token", "token_without_first": "a random token but the first"}


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of N texts on disk: of each site one file, float32 (poolings, N, C), opened while it is read.

    A text of one token has that token's vector under each pooling."""

    files: tuple[Path, ...]  # by site
    poolings: tuple[str, ...]
    norms: Floats  # float32 (S, 2, N): of the first token, and the mean of all others, NaN where there are none
    lengths: NDArray[np.integer]  # (N,), tokens of each text

    @property
    def last_site(self) -> int:
        """The number of the site after ln_f."""
        return len(self.files) - 1

    def read(self, site: int, pooling: str) -> Floats:
        """Read the vectors of all texts at a site into memory: float32 (N, C)."""
        return np.array(np.load(self.files[site], mmap_mode="r")[self.poolings.index(pooling)])


def read_sites(trunk: GPT2, batch: Batch, device: Device) -> tuple[Batch, list[Tensor]]:
    """Return a batch and the residual stream at all S sites, float32 (B, T, C) each, both on the device."""
    on_device, trace = batch.to(device.device), Trace("resid_pre")
    with device.autocast():
        final = trunk(on_device.ids, on_device.lengths, trace=trace)
    return on_device, [x.float() for x in (*trace.resid_pre, final)]


@torch.inference_mode()
def record_vectors(
    trunk: GPT2,
    sequences: Sequence[list[int]],
    poolings: Sequence[str],
    folder: Path,
    name: str,
    about: Identity,
    device: Device,
) -> Vectors:
    """Record the vectors of N texts at all sites in one pass; those that `folder` holds under this name are taken.

    sequences: token ids of each text. poolings: some of POOLINGS and TOKENS. about: what the vectors depend on besides
    the texts: the weights, the precision, and the seed of random tokens. The caller moves the trunk to `device` and
    sets eval mode. Raises InputError where the folder has too little space."""
    about = {**about, "texts": hashlib.sha256(repr(sequences).encode()).hexdigest(), "poolings": list(poolings)}
    config, lengths = trunk.config, np.array([len(ids) for ids in sequences])
    n, drawn = len(lengths), draw_tokens(lengths, about["seed"])
    check_space(folder, f"{name}-*.npy", count_bytes(config, len(poolings), n))
    files = tuple(folder / f"{name}-{site}.npy" for site in range(config.n_layer + 2))
    arrays = [open_array(file, about, (len(poolings), n, config.n_embd), device) for file in files]
    norms = open_array(folder / f"{name}-norms.npy", about, (len(files), 2, n), device)

    def pool_batch(batch: Batch) -> tuple[Floats, Floats]:
        """Return vectors (S, poolings, B, C) and norms (S, 2, B)."""
        on_device, sites = read_sites(trunk, batch, device)
        pooled = [pool_site(x, on_device.lengths, poolings, drawn[:, batch.index.numpy()]) for x in sites]
        vectors, norms = (torch.stack(each).cpu().numpy() for each in zip(*pooled, strict=True))
        return vectors, norms

    missing = np.flatnonzero(np.isnan(norms[-1, 0]))  # written last
    if len(missing):
        left = [sequences[i] for i in missing.tolist()]
        for batch, (vectors, lengths_of_vectors) in map_texts(pool_batch, left, device, f"vectors: {name}"):
            rows = missing[batch.index.numpy()]
            for array, of_site in zip(arrays, vectors, strict=True):
                array[:, rows] = of_site
            norms[:, :, rows] = lengths_of_vectors
        for array in (*arrays, norms):
            array.flush()
    return Vectors(files, tuple(poolings), np.array(norms), lengths)


def pool_site(x: Tensor, lengths: Tensor, poolings: Sequence[str], drawn: NDArray[np.integer]) -> tuple[Tensor, Tensor]:
    """Pool the stream x (B, T, C) at one site: (poolings, B, C), and norms (2, B), see `Vectors`.

    drawn: int (2, B), the random tokens of TOKENS."""
    text, position = torch.arange(len(x), device=x.device), torch.arange(x.shape[1], device=x.device)
    real = position < lengths[:, None]  # (B, T)
    others = real & ((position > 0) | (lengths[:, None] == 1))
    tokens = torch.from_numpy(drawn).to(x.device)
    pooled = {
        "last": lambda: x[text, lengths - 1],
        "mean": lambda: average(x, real),
        "mean_without_first": lambda: average(x, others),
        "weighted": lambda: average(x, real * (position + 1)),
        "token": lambda: x[text, tokens[0]],
        "token_without_first": lambda: x[text, tokens[1]],
    }
    norms = x.norm(dim=2)  # (B, T)
    rest = (norms * (real & (position > 0))).sum(dim=1) / (lengths - 1)  # 0 / 0 is NaN
    return torch.stack([pooled[name]() for name in poolings]), torch.stack([norms[:, 0], rest])


def average(x: Tensor, weights: Tensor) -> Tensor:
    """Average x (B, T, C) with these weights (B, T): (B, C)."""
    weights = weights.to(x.dtype)
    return torch.einsum("btc,bt->bc", x, weights) / weights.sum(dim=1, keepdim=True)


def draw_tokens(lengths: NDArray[np.integer], seed: int) -> NDArray[np.integer]:
    """Draw a position of each text, and one that is not the first unless there is no other: int64 (2, N)."""
    rng = np.random.default_rng((seed, *b"random tokens"))
    among_all, others = rng.integers(lengths), rng.integers(np.maximum(lengths - 1, 1))
    return np.stack([among_all, np.minimum(others + 1, lengths - 1)])


def count_bytes(config: GPT2Config, poolings: int, n: int) -> int:
    """Return how many bytes the vectors of n texts take at all sites, by that many poolings."""
    return (config.n_layer + 2) * poolings * n * config.n_embd * 4


def check_space(folder: Path, pattern: str, needed: int) -> None:
    """Raise InputError where the folder has too little space for new files of `needed` bytes, which replace those that
    fit the pattern: a mapped file that finds no room ends the process without a word."""
    held = sum(file.stat().st_blocks * 512 for file in folder.glob(pattern))
    free = shutil.disk_usage(folder).free
    if needed - held > free:
        missing = f"expected {needed / 2**30:.1f} GiB of free space for vectors, got {free / 2**30:.1f}"
        raise InputError(f"{folder}: {missing}; make room, or take fewer texts")
