"""What a language model makes of bare texts: the residual stream after ln_f, at the last token and on average.

Letters: N texts, and those of the forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data.batches import Batch
from lab.kept import open_array
from lab.memory import map_texts
from lab.prompted import Prompted

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Features:
    """Vectors of N texts, float32 (N, C) each."""

    last: Floats  # of the last token, which a classifier reads
    mean: Floats  # over all tokens but the first, on which GPT-2 has very large activations, whatever it is


def encode_texts(prompted: Prompted, strings: Sequence[str]) -> list[list[int]]:
    """Return the token ids of bare texts; of one that is too long, its end."""
    return [prompted.tokenizer.encode(text)[-prompted.lm.config.n_ctx :] for text in strings]


@torch.inference_mode()
def record_features(prompted: Prompted, strings: Sequence[str], name: str, folder: Path, seed: int) -> Features:
    """Return the features of bare texts; those that `folder` holds under this name are taken from there."""
    sequences, device, trunk = encode_texts(prompted, strings), prompted.device, prompted.lm.trunk
    about = prompted.identity(sequences, seed)
    kept = open_array(folder / f"features-{name}.npy", about, (len(sequences), 2, trunk.config.n_embd), device)

    def read_batch(batch: Batch) -> Floats:
        """Return both vectors of each text, (B, 2, C)."""
        on_device = batch.to(device.device)
        with device.autocast():
            x = trunk(on_device.ids, on_device.lengths).float()  # (B, T, C)
        positions, lengths = torch.arange(x.shape[1], device=x.device), on_device.lengths[:, None]
        averaged = (positions < lengths) & ((positions > 0) | (lengths == 1))  # (B, T)
        mean = torch.einsum("btc,bt->bc", x, averaged.to(x.dtype)) / averaged.sum(dim=1, keepdim=True)
        last = x[torch.arange(len(x), device=x.device), on_device.lengths - 1]
        return torch.stack([last, mean], dim=1).cpu().numpy()

    missing = np.flatnonzero(np.isnan(kept).any(axis=(1, 2)))
    if len(missing):
        for batch, vectors in map_texts(read_batch, [sequences[i] for i in missing], device, f"features of {name}"):
            kept[missing[batch.index.numpy()]] = vectors
        kept.flush()
    return Features(np.array(kept[:, 0]), np.array(kept[:, 1]))
