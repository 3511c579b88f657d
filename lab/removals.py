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
from model import GPT2, GPT2Classifier, Interventions, masks

from .device import Device
from .memory import map_batches

Removal = Literal["hide", "delete", "fill"]
REMOVALS: dict[Removal, str] = {
    "hide": "no other token may look at it",
    "delete": "as if it had not been written: the tokens after it move up",
    "fill": "its embedding becomes the mean of the vocabulary, at the same position",
}
Mask = NDArray[np.bool_]


def mean_embedding(trunk: GPT2) -> Tensor:
    """Return the mean of the token embeddings of the vocabulary, (C,)."""
    return trunk.wte.weight.mean(dim=0)


@dataclass(frozen=True, eq=False)
class Remains:
    """What is left of a text of T tokens: T is smaller where tokens were deleted."""

    ids: list[int]
    hidden: Mask  # (T,), no query may attend to these
    filled: Mask  # (T,), these get the mean embedding


def remove(ids: Sequence[int], kept: Mask, removal: Removal) -> Remains:
    """Return what is left of a text of which only the tokens `kept`, bool (T,), stay.

    The last token is read, so it cannot be hidden: under `hide` it is filled. Where all tokens are deleted, one stays
    and is filled."""
    ids, n = list(ids), len(ids)
    if removal == "delete":
        left = [token for token, keep in zip(ids, kept, strict=True) if keep]
        return Remains(left or ids[:1], np.zeros(len(left) or 1, bool), np.full(len(left) or 1, not left))
    if removal == "fill":
        return Remains(ids, np.zeros(n, bool), ~kept)
    last = np.arange(n) == n - 1
    return Remains(ids, ~kept & ~last, ~kept & last)


@torch.inference_mode()
def read_remains(clf: GPT2Classifier, remains: Sequence[Remains], device: Device) -> NDArray[np.float64]:
    """Return the logits of N texts of which tokens were removed, float64 (N, K). Computed in fp32."""
    logits = np.empty((len(remains), len(clf.labels)))
    sequences, order = [each.ids for each in remains], np.arange(len(remains))
    fill = mean_embedding(clf.trunk)

    def read_batch(batch: Batch) -> Tensor:
        rows, (ids, lengths) = batch.index.tolist(), (batch.ids.to(device.device), batch.lengths.to(device.device))
        filled, hidden = (pad([getattr(remains[i], name) for i in rows], device) for name in ("filled", "hidden"))
        x = clf.trunk.embed(ids, lengths)
        x = torch.where(filled[..., None], fill + clf.trunk.wpe.weight[: x.shape[1]], x)
        mask = Interventions(attn_mask=masks.hide_tokens(hidden)) if hidden.any() else Interventions()
        return clf.read(clf.trunk.norm(clf.trunk.run(x, query=lengths - 1, **mask))).double().cpu()

    batches = token_batches(sequences, np.zeros_like(order), device.tokens, order)
    for batch, values in map_batches(read_batch, batches, device):
        logits[batch.index] = values
    return logits


def pad(rows: Sequence[Mask], device: Device) -> Tensor:
    """Stack masks of different lengths, with False behind the shorter ones: bool (B, T)."""
    return pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True).to(device.device)


def read_kept(
    clf: GPT2Classifier, ids: Sequence[int], kept: Mask, removal: Removal, device: Device
) -> NDArray[np.float64]:
    """Return the logits of one text of T tokens with only these kept: bool (N, T) -> float64 (N, K). Equal rows are
    computed once."""
    different, index = np.unique(kept, axis=0, return_inverse=True)
    return read_remains(clf, [remove(ids, row, removal) for row in different], device)[index.reshape(-1)]
