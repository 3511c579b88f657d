"""What a closed head or MLP emits instead of its own output: zero, a mean, or what it made of another text.

Zero depends on how the weights are written down (a bias may be moved from one place to another), a mean or another
text's output does not (Wang et al. 2022, arXiv 2211.00593; Chan et al. 2022, causal scrubbing).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data.batches import Batch
from model import GPT2Classifier, Interventions, Trace

from .device import Device
from .memory import map_batches, map_texts
from .sweep import Fill

DRAWS = 10  # donors of each text


@dataclass(frozen=True, eq=False)
class Means:
    """Sums over the real tokens of the texts of each class: `z` (K, L, H, D), `mlp` (K, L, C), `tokens` (K,)."""

    z: Tensor
    mlp: Tensor
    tokens: Tensor

    def of(self, classes: Tensor) -> Interventions:
        """Fills of the mean over these classes, float (rows, K) of 0 and 1: one row each, the same at every token."""
        tokens = classes @ self.tokens  # (rows,)
        z = torch.einsum("rk,klhd->rlhd", classes, self.z) / tokens[:, None, None, None]
        mlp = torch.einsum("rk,klc->rlc", classes, self.mlp) / tokens[:, None, None]
        return {"head_fill": z[:, :, :, None].float(), "mlp_fill": mlp[:, :, None].float()}


@torch.inference_mode()
def means(clf: GPT2Classifier, sequences: Sequence[list[int]], targets: NDArray[np.integer], device: Device) -> Means:
    """What each head and MLP emits on average, for texts of each class; a reference set, so the training texts."""
    config, K = clf.config, len(clf.labels)
    z = torch.zeros(K, config.n_layer, config.n_head, config.head_width, dtype=torch.float64)
    mlp, tokens = (
        torch.zeros(K, config.n_layer, config.n_embd, dtype=torch.float64),
        torch.zeros(K, dtype=torch.float64),
    )

    def text_sums(batch: Batch) -> tuple[Tensor, Tensor]:
        """Over the real tokens of each text, on the CPU: (B, L, H, D) and (B, L, C)."""
        trace = run(clf, batch.ids, batch.lengths, device)
        real = (torch.arange(batch.ids.shape[1]) < batch.lengths[:, None]).double()  # (B, T)
        of_heads = torch.einsum("blhtd,bt->blhd", trace.stacked("z").cpu().double(), real)
        return of_heads, torch.einsum("bltc,bt->blc", trace.stacked("mlp").cpu().double(), real)

    doing = "mean outputs of heads and MLPs"
    for batch, (of_heads, of_mlps) in map_texts(text_sums, sequences, device, doing, targets):
        z.index_add_(0, batch.targets, of_heads)
        mlp.index_add_(0, batch.targets, of_mlps)
        tokens.index_add_(0, batch.targets, batch.lengths.double())
    return Means(z, mlp, tokens)


def run(clf: GPT2Classifier, ids: Tensor, lengths: Tensor, device: Device) -> Trace:
    """One plain forward pass that records what heads and MLPs emit at every token."""
    trace = Trace("z", "mlp")
    with device.autocast():
        clf.trunk(ids.to(device.device), lengths.to(device.device), trace=trace)
    return trace


def mean(sums: Means) -> Fill:
    """The mean over all texts."""
    own = sums.of(torch.ones(1, len(sums.tokens), dtype=torch.float64))
    return lambda batch: own


def class_mean(sums: Means, predicted: NDArray[np.integer]) -> Fill:
    """The mean over the texts of all classes but the predicted one: what the head says of that class is gone, the rest
    stays.

    predicted: class numbers (N,) of the texts that the sweep runs on, as the network predicts them with nothing taken
    out. It must not be the true class: "all classes but k" is evidence against k, so the ablated logits would depend
    on the label, and every test of them against labels would find that."""
    others = sums.of(1 - torch.eye(len(sums.tokens), dtype=torch.float64))  # (K, ...)
    excluded = torch.from_numpy(predicted)

    def fill(batch: Batch) -> Interventions:
        rows = excluded[batch.index.cpu()]  # (B,)
        return {name: value[rows] for name, value in others.items()}  # type: ignore[index, return-value]

    return fill


def resample(
    clf: GPT2Classifier, sequences: Sequence[list[int]], donors: Sequence[list[int]], device: Device, seed: int
) -> list[Fill]:
    """What the head made of another text, for each of DRAWS different random donors (fewer where there are fewer).

    sequences: the texts that the sweep runs on; donors: the training texts. Donors have about as many tokens as the
    text, see `candidates`. Text and donor are aligned at their last tokens; a shorter donor repeats its first one."""
    chosen = choose_donors(sequences, donors, seed)
    return [partial(donated, clf, donors, draw, device) for draw in chosen.T]


def choose_donors(sequences: Sequence[list[int]], donors: Sequence[list[int]], seed: int) -> NDArray[np.int64]:
    """Positions of the donors of each text, int64 (N, DRAWS), all different for one text."""
    lengths, n = np.array([len(ids) for ids in donors]), min(DRAWS, len(donors))
    rng = np.random.default_rng((seed, *b"donors"))
    return np.array([rng.choice(candidates(lengths, len(ids), n), n, replace=False) for ids in sequences])


def candidates(lengths: NDArray[np.integer], length: int, n: int) -> NDArray[np.integer]:
    """Positions of at least n donors for a text of `length` tokens: all of the nearest lengths, longer ones first.

    lengths: tokens of each donor. Equal lengths come first, then longer ones by length, then shorter ones, the longest
    first: as many lengths as it takes to have n donors, for a text with few alike would meet the same few each time."""
    order = np.where(lengths >= length, lengths, 2 * lengths.max() + 1 - lengths)
    return np.flatnonzero(order <= np.partition(order, n - 1)[n - 1])


def donated(
    clf: GPT2Classifier, donors: Sequence[list[int]], chosen: NDArray[np.integer], device: Device, batch: Batch
) -> Interventions:
    """Fills for a batch of texts of which text i takes those of donor chosen[i]."""
    own = [torch.tensor(donors[i]) for i in chosen[batch.index.cpu().numpy()]]
    lengths = torch.tensor([len(ids) for ids in own])
    shift = (lengths - batch.lengths.cpu())[:, None]  # (B, 1), so that the last tokens meet
    at = (torch.arange(batch.ids.shape[1]) + shift).clamp(min=0).minimum(lengths[:, None] - 1)  # (B, T)

    def aligned(piece: Batch) -> tuple[Tensor, Tensor]:
        trace = run(clf, piece.ids, piece.lengths, device)
        chosen_tokens = torch.arange(len(piece.ids))[:, None], at[piece.index]
        z = trace.stacked("z").permute(0, 3, 1, 2, 4)[chosen_tokens]  # (B, L, H, donor's T, D) -> (B, T, L, H, D)
        return z, trace.stacked("mlp").transpose(1, 2)[chosen_tokens]  # and (B, T, L, C)

    # Donors may be much longer than the texts: all at once may be more than `device.tokens`.
    together = Batch(pad_sequence(own, batch_first=True), lengths, torch.zeros_like(lengths), torch.arange(len(own)))
    pieces = [emitted for _, emitted in map_batches(aligned, [together], device)]
    z, mlp = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return {"head_fill": z.permute(0, 2, 3, 1, 4), "mlp_fill": mlp.transpose(1, 2)}
