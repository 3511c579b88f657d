"""What the trained head reads in the middle of the network, and what each component of the network adds to its logits.

The class lens is the logit lens (nostalgebraist 2020) with the classifier's head in place of the unembedding. The
direct contributions follow Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits): the residual stream
is a sum, and once the scale of ln_f is frozen at its value, the head reads that sum linearly.

Letters: N texts, K classes, P components, and those of the forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch
from lab.device import Device
from lab.memory import map_texts
from model import GPT2Classifier, GPT2Config, Trace


@torch.inference_mode()
def class_lens(clf: GPT2Classifier, sequences: Sequence[list[int]], device: Device) -> NDArray[np.float32]:
    """Return the class logits that the head reads from the residual stream at the last real token: (N, L + 1, K).

    They are read before each layer and after the last, where they are the classifier's own. `clf` is used as it is, on
    `device`."""
    logits = np.empty((len(sequences), clf.config.n_layer + 1, len(clf.labels)), dtype=np.float32)

    def read_batch(batch: Batch) -> Tensor:
        trace, lengths = Trace("resid_pre"), batch.lengths.to(device.device)
        with device.autocast():
            clf.trunk(batch.ids.to(device.device), lengths, trace=trace)
            by_layer = [clf.read(clf.trunk.norm(x), lengths) for x in trace.resid_pre]  # L + 1 of (B, K)
        return torch.stack(by_layer, dim=1).float().cpu()

    for batch, batch_logits in map_texts(read_batch, sequences, device, "class lens"):
        logits[batch.index] = batch_logits
    return logits


@torch.inference_mode()
def text_lens(clf: GPT2Classifier, ids: list[int], device: Device) -> NDArray[np.float32]:
    """Return the class lens at every token of one text, as if the text ended there: (T, L + 1, K)."""
    trace = Trace("resid_pre")
    with device.autocast():
        clf.trunk(torch.tensor([ids], device=device.device), trace=trace)
        logits = clf.score(clf.trunk.norm(trace.stacked("resid_pre")))[0]  # (1, L + 1, T, C) -> (L + 1, T, K)
    return logits.transpose(0, 1).float().cpu().numpy()


def settled_layer(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the first layer from which the predicted class no longer changes, (N,), for a class lens (N, L + 1, K).

    0: the embedding already settles it; L: only the last layer does."""
    predicted = logits.argmax(-1)
    same_as_last = predicted == predicted[:, -1:]
    settled = np.logical_and.accumulate(same_as_last[:, ::-1], axis=1)  # from the last layer back
    return logits.shape[1] - settled.sum(1)


@dataclass(frozen=True)
class Component:
    """A term of the class logits. kind: `embedding`, `head`, `attention bias` (c_proj's, which belongs to no head),
    `mlp` or `final bias` (ln_f's); layer and head: counted from 0, None where the kind has none."""

    kind: str
    layer: int | None = None
    head: int | None = None


def components(config: GPT2Config) -> list[Component]:
    """Return the embedding, the heads in order, the attention biases, the MLPs, the final bias: 2 + L * (H + 2)."""
    layers = range(config.n_layer)
    heads = [Component("head", layer, head) for layer in layers for head in range(config.n_head)]
    by_layer = [Component(kind, layer) for kind in ("attention bias", "mlp") for layer in layers]
    return [Component("embedding"), *heads, *by_layer, Component("final bias")]


@dataclass(frozen=True, eq=False)
class FoldedScore:
    """The classifier's `score`, folded with the weights between a component and it: float64, on the CPU. All but
    `final_bias` still have to be divided by ln_f's scale."""

    stream: Tensor  # (C, K), reads a vector in the residual stream
    z: Tensor  # (L, H, D, K), reads a head's z
    attention_bias: Tensor  # (L, K), logits
    final_bias: Tensor  # (K,), logits


@torch.inference_mode()
def fold_score(clf: GPT2Classifier) -> FoldedScore:
    """Fold `score` with the weights of ln_f and of each c_proj."""

    def weight(name: str) -> Tensor:
        return clf.get_parameter(name).cpu().double()

    score = weight("score.weight")  # (K, C)
    stream = score * weight("trunk.ln_f.weight")
    stream = (stream - stream.mean(dim=1, keepdim=True)).T  # centring these weights is centring what they read
    projections = [f"trunk.h.{layer}.attn.c_proj" for layer in range(clf.config.n_layer)]
    z = [(weight(f"{name}.weight").T @ stream).unflatten(0, (clf.config.n_head, -1)) for name in projections]
    attention_bias = [weight(f"{name}.bias") @ stream for name in projections]
    return FoldedScore(stream, torch.stack(z), torch.stack(attention_bias), score @ weight("trunk.ln_f.bias"))


@torch.inference_mode()
def contributions(clf: GPT2Classifier, sequences: Sequence[list[int]], device: Device) -> NDArray[np.float32]:
    """Return what each of the `components` adds directly to each class logit at the last real token: (N, P, K).

    The scale of ln_f is frozen at its value on the text, so the contributions sum to the logits. To make them do so,
    this is computed in fp32 whatever the precision of `device`. What a component does to later layers is left out."""
    score = fold_score(clf)
    added = np.empty((len(sequences), len(components(clf.config)), len(clf.labels)), dtype=np.float32)

    def split_logits(batch: Batch) -> Tensor:
        trace, lengths = Trace("resid_pre", "z", "mlp"), batch.lengths.to(device.device)
        clf.trunk(batch.ids.to(device.device), lengths, trace=trace)
        rows, last = torch.arange(len(lengths), device=device.device), lengths - 1
        z = torch.stack([by_head[rows, :, last] for by_head in trace.z], dim=1).cpu().double()  # (B, L, H, D)
        mlp = torch.stack([output[rows, last] for output in trace.mlp], dim=1).cpu().double()  # (B, L, C)
        embedding = trace.resid_pre[0][rows, last].cpu().double()  # (B, C)
        final = trace.resid_pre[-1][rows, last].cpu().double()  # (B, C)
        heads = torch.einsum("blhd,lhdk->blhk", z, score.z).flatten(1, 2)  # (B, L * H, K)
        biases = score.attention_bias.expand(len(rows), -1, -1)
        unscaled = torch.cat([(embedding @ score.stream)[:, None], heads, biases, mlp @ score.stream], dim=1)
        scale = (final.var(dim=1, correction=0) + clf.config.layer_norm_epsilon).sqrt()[:, None, None]
        return torch.cat([unscaled / scale, score.final_bias.expand(len(rows), 1, -1)], dim=1)

    for batch, batch_added in map_texts(split_logits, sequences, device, "direct contributions"):
        added[batch.index] = batch_added
    return added
