"""What a closed head or MLP emits instead of its own output: zero, a mean, or what it made of another text.

Zero depends on how the weights are written down: a bias may be moved from one place to another, and the network stays
the same, but not what is left of it without a head. A mean or another text's output does not depend on that (Wang et
al. 2022, arXiv 2211.00593; Chan et al. 2022, causal scrubbing). Compare fills before you believe an ablation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data.batches import Batch
from model import GPT2LM, GPT2Classifier, InputError, Interventions, Trace

from .device import Device
from .memory import map_batches, map_texts
from .sweep import Fill

# A new fill is a function here, a name, a case of `Sweeps.fills`, and a sentence in experiments/ablate/report.md.jinja.
FillName = Literal["mean", "zero", "resample", "class_mean"]
FROM_MEANS = {"mean", "class_mean"}  # fills that are made of `Means`
DRAWS = 10  # donors of each text


@dataclass(frozen=True, eq=False)
class Means:
    """Sums over the real tokens of the texts of each class: `z` (K, L, H, D), `mlp` (K, L, C), `tokens` (K,)."""

    z: Tensor
    mlp: Tensor
    tokens: Tensor

    def average(self, classes: Tensor) -> Interventions:
        """Return the fills of the mean over some classes, the same at every token.

        classes: float (rows, K) of 0 and 1; each row gives one row of the fills."""
        tokens = classes @ self.tokens  # (rows,)
        z = torch.einsum("rk,klhd->rlhd", classes, self.z) / tokens[:, None, None, None]
        mlp = torch.einsum("rk,klc->rlc", classes, self.mlp) / tokens[:, None, None]
        return {"head_fill": z[:, :, :, None].float(), "mlp_fill": mlp[:, :, None].float()}


@torch.inference_mode()
def measure_means(
    model: GPT2Classifier | GPT2LM, sequences: Sequence[list[int]], targets: NDArray[np.integer], device: Device
) -> Means:
    """Sum up what each head and MLP emits, over the texts of each class; take the training texts as the reference.

    For a language model all texts are of one class, 0."""
    config, K = model.config, len(model.labels) if isinstance(model, GPT2Classifier) else 1
    z = torch.zeros(K, config.n_layer, config.n_head, config.head_width, dtype=torch.float64)
    mlp = torch.zeros(K, config.n_layer, config.n_embd, dtype=torch.float64)
    tokens = torch.zeros(K, dtype=torch.float64)

    def text_sums(batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum over the real tokens of each text, on the CPU: (B, L, H, D) and (B, L, C)."""
        trace = record_outputs(model, batch.ids, batch.lengths, device)
        real = (torch.arange(batch.ids.shape[1]) < batch.lengths[:, None]).double()  # (B, T)
        head_sums = torch.einsum("blhtd,bt->blhd", trace.stacked("z").cpu().double(), real)
        return head_sums, torch.einsum("bltc,bt->blc", trace.stacked("mlp").cpu().double(), real)

    title = "mean outputs of heads and MLPs"
    for batch, (head_sums, mlp_sums) in map_texts(text_sums, sequences, device, title, targets):
        z.index_add_(0, batch.targets, head_sums)
        mlp.index_add_(0, batch.targets, mlp_sums)
        tokens.index_add_(0, batch.targets, batch.lengths.double())
    return Means(z, mlp, tokens)


def record_outputs(model: GPT2Classifier | GPT2LM, ids: Tensor, lengths: Tensor, device: Device) -> Trace:
    """Record what heads and MLPs emit at every token, in one plain forward pass."""
    trace = Trace("z", "mlp")
    with device.autocast():
        model.trunk(ids.to(device.device), lengths.to(device.device), trace=trace)
    return trace


def mean(means: Means) -> Fill:
    """Emit the mean over all texts."""
    average = means.average(torch.ones(1, len(means.tokens), dtype=torch.float64))
    return lambda batch: average


def class_mean(means: Means, predicted: NDArray[np.integer]) -> Fill:
    """Emit the mean over the texts of all classes but the predicted one: what the head says of that class is gone, the
    rest stays.

    predicted: class numbers (N,) of the texts that the sweep runs on, as the network predicts them with nothing taken
    out. They must not be the true classes: "all classes but k" is evidence against k, so the ablated logits would
    depend on the label, and every test of them against labels would find that.

    Raises InputError where all texts of the means are of a predicted class."""
    if ((means.tokens.sum() - means.tokens)[predicted] == 0).any():
        raise InputError("fill class_mean: all training texts are of the predicted class; choose another fill")
    others = means.average(1 - torch.eye(len(means.tokens), dtype=torch.float64))  # (K, ...)
    excluded = torch.from_numpy(predicted)

    def fill(batch: Batch) -> Interventions:
        rows = excluded[batch.index.cpu()]  # (B,)
        return {name: value[rows] for name, value in others.items()}  # type: ignore[index, return-value]

    return fill


def resample(
    model: GPT2Classifier | GPT2LM,
    sequences: Sequence[list[int]],
    donors: Sequence[list[int]],
    device: Device,
    seed: int,
) -> list[Fill]:
    """Emit what the head made of another text, for each of DRAWS random donors (fewer where there are fewer).

    sequences: the texts that the sweep runs on; donors: the training texts. Donors have about as many tokens as the
    text, see `candidates`. Text and donor are aligned at their last tokens; a shorter donor repeats its first one."""
    chosen = choose_donors(sequences, donors, seed)
    return [partial(emit_donors, model, donors, draw, device) for draw in chosen.T]


def choose_donors(sequences: Sequence[list[int]], donors: Sequence[list[int]], seed: int) -> NDArray[np.int64]:
    """Draw the positions of the donors of each text, int64 (N, DRAWS), all different for one text."""
    lengths, n = np.array([len(ids) for ids in donors]), min(DRAWS, len(donors))
    rng = np.random.default_rng((seed, *b"donors"))
    return np.array([rng.choice(candidates(lengths, len(ids), n), n, replace=False) for ids in sequences])


def candidates(lengths: NDArray[np.integer], length: int, n: int) -> NDArray[np.integer]:
    """Return the positions of at least n donors for a text of `length` tokens: all of the nearest lengths.

    lengths: tokens of each donor. Equal lengths come first, then longer ones by length, then shorter ones, the longest
    first: as many lengths as it takes to have n donors, for a text with few alike would meet the same few each time."""
    order = np.where(lengths >= length, lengths, 2 * lengths.max() + 1 - lengths)
    return np.flatnonzero(order <= np.partition(order, n - 1)[n - 1])


def emit_donors(
    model: GPT2Classifier | GPT2LM,
    donors: Sequence[list[int]],
    chosen: NDArray[np.integer],
    device: Device,
    batch: Batch,
) -> Interventions:
    """Return the fills of a batch of texts: text i gets those of donor chosen[i]."""
    sequences = [torch.tensor(donors[i]) for i in chosen[batch.index.cpu().numpy()]]
    lengths = torch.tensor([len(ids) for ids in sequences])
    shift = (lengths - batch.lengths.cpu())[:, None]  # (B, 1), so that the last tokens meet
    position = (torch.arange(batch.ids.shape[1]) + shift).clamp(min=0).minimum(lengths[:, None] - 1)  # (B, T)

    def align(piece: Batch) -> tuple[Tensor, Tensor]:
        trace = record_outputs(model, piece.ids, piece.lengths, device)
        tokens = torch.arange(len(piece.ids))[:, None], position[piece.index]
        z = trace.stacked("z").permute(0, 3, 1, 2, 4)[tokens]  # (B, L, H, donor's T, D) -> (B, T, L, H, D)
        return z, trace.stacked("mlp").transpose(1, 2)[tokens]  # and (B, T, L, C)

    # Donors may be much longer than the texts: all at once may be more than `device.tokens`.
    B = len(sequences)
    together = Batch(pad_sequence(sequences, batch_first=True), lengths, torch.zeros_like(lengths), torch.arange(B))
    pieces = [outputs for _, outputs in map_batches(align, [together], device)]
    z = torch.cat([head_outputs for head_outputs, _ in pieces])
    mlp = torch.cat([mlp_outputs for _, mlp_outputs in pieces])
    return {"head_fill": z.permute(0, 2, 3, 1, 4), "mlp_fill": mlp.transpose(1, 2)}
