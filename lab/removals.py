"""Take tokens out of a text, in three ways, and read the classifier on what is left.

Each way changes something else besides: `hide` leaves the token itself in its place, `delete` moves the later ones,
`fill` puts a vector there that no text has. So each result names its removal, and a claim stands where it holds under
more than one (Hase, Xie and Bansal 2021, arXiv 2106.00786). Nothing is decoded and encoded again: other tokens would
come out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data.batches import Batch, token_batches
from model import GPT2, GPT2Classifier, GPT2Config, Interventions

from .device import Device
from .memory import map_batches

Removal = Literal["hide", "delete", "fill"]
REMOVALS: dict[Removal, str] = {
    "hide": "no other token may look at it",
    "delete": "as if it had not been written: the tokens after it move up",
    "fill": "its embedding becomes the mean of the vocabulary, at the same position",
}
Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]


def mean_embedding(trunk: GPT2) -> Tensor:
    """Return the mean of the token embeddings of the vocabulary, (C,)."""
    return trunk.wte.weight.mean(dim=0)


@dataclass(frozen=True, eq=False)
class Remains:
    """The T tokens that are left of a text: int64 ids, their positions, and bool which of them get the mean embedding.

    A hidden token is not left: nobody looks at it, and it is not read, so nothing depends on it. It leaves a gap in the
    positions."""

    ids: Ints
    positions: Ints
    filled: Mask


def remove(ids: Sequence[int], kept: Mask, removal: Removal) -> Remains:
    """Return what is left of a text of which only the tokens `kept`, bool (T,), stay.

    The last token is read, so it cannot be hidden: under `hide` it is filled. Where all tokens are deleted, one stays
    and is filled."""
    tokens, n = np.asarray(ids), len(ids)
    if removal == "fill":
        return Remains(tokens, np.arange(n), ~kept)
    left = np.flatnonzero(kept)
    if removal == "hide":
        left = np.union1d(left, n - 1)
        return Remains(tokens[left], left, ~kept[left])
    if not len(left):
        left = np.array([0])
    return Remains(tokens[left], np.arange(len(left)), ~kept[left])


@torch.inference_mode()
def read_remains(clf: GPT2Classifier, remains: Sequence[Remains], device: Device) -> NDArray[np.float64]:
    """Return the logits of N texts of which tokens were removed, float64 (N, K). Computed in fp32."""
    logits = np.empty((len(remains), len(clf.labels)))
    sequences, order = [each.ids.tolist() for each in remains], np.arange(len(remains))
    trunk, fill = clf.trunk, mean_embedding(clf.trunk)

    def read_batch(batch: Batch) -> Tensor:
        rows, (ids, lengths) = batch.index.tolist(), (batch.ids.to(device.device), batch.lengths.to(device.device))
        positions = pad([remains[i].positions for i in rows], device)
        filled = pad([remains[i].filled for i in rows], device)
        x = torch.where(filled[..., None], fill, trunk.wte(ids)) + trunk.wpe(positions)
        arguments = keep_windows(trunk.config, [remains[i] for i in rows], positions)
        return clf.read(trunk.norm(trunk.run(x, query=lengths - 1, **arguments))).double().cpu()

    batches = token_batches(sequences, np.zeros_like(order), device.tokens, order)
    for batch, values in map_batches(read_batch, batches, device):
        logits[batch.index] = values
    return logits


def keep_windows(config: GPT2Config, remains: Sequence[Remains], positions: Tensor) -> Interventions:
    """Return the argument that makes windows count the positions, int64 (B, T), of a text, and not the tokens that are
    left of it; none where this is the same."""
    windows = torch.tensor([config.window(layer) for layer in range(config.n_layer)], device=positions.device)
    spans = [int(each.positions[-1]) for each in remains if each.positions[-1] >= len(each.ids)]  # of those with gaps
    if max(spans, default=0) < windows.min():
        return {}
    distance = positions[:, :, None] - positions[:, None]  # (B, T, T), query x key
    return {"attn_mask": distance[:, None, None] < windows[:, None, None, None]}


def pad(rows: Sequence[NDArray[np.generic]], device: Device) -> Tensor:
    """Stack rows of different lengths, with 0 or False behind the shorter ones: (B, T)."""
    return pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True).to(device.device)


def read_kept(
    clf: GPT2Classifier, ids: Sequence[int], kept: Mask, removal: Removal, device: Device
) -> NDArray[np.float64]:
    """Return the logits of one text of T tokens with only these kept: bool (N, T) -> float64 (N, K). Equal rows are
    computed once."""
    different, index = np.unique(kept, axis=0, return_inverse=True)
    return read_remains(clf, [remove(ids, row, removal) for row in different], device)[index.reshape(-1)]
