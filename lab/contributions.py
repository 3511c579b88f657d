"""What each part of the network adds directly to the logits of a classifier.

The residual stream at the last token is a sum of what the embedding, the heads and the MLPs add to it. Once the scale
of ln_f is frozen at its value, the head reads that sum linearly, so each term has its share of each logit (Elhage et
al. 2021, A Mathematical Framework for Transformer Circuits). What a part does to later layers is left out.

Letters: N texts, K classes, P components, and those of the forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch
from model import GPT2Classifier, GPT2Config, Trace

from .device import Device
from .memory import map_texts


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
        scale = measure_scale(final, clf.config)[:, None, None]
        return torch.cat([unscaled / scale, score.final_bias.expand(len(rows), 1, -1)], dim=1)

    for batch, batch_added in map_texts(split_logits, sequences, device, "direct contributions"):
        added[batch.index] = batch_added
    return added


@torch.inference_mode()
def token_contributions(clf: GPT2Classifier, ids: Sequence[int], device: Device) -> NDArray[np.float64]:
    """Return what each token of one text adds directly to each class logit through the heads: float64 (T, K).

    The last query of a head takes w of the value v of a token, so w v W_O enters the stream there. The sum over the
    tokens is that of all heads in `contributions`."""
    score, trace = fold_score(clf), Trace("resid_pre", "weights", "v")
    clf.trunk(torch.tensor([list(ids)], device=device.device), trace=trace)
    weights = trace.stacked("weights")[0, :, :, -1].cpu().double()  # (L, H, T)
    v = trace.stacked("v")[0].cpu().double()  # (L, H, T, D)
    unscaled = torch.einsum("lht,lhtd,lhdk->tk", weights, v, score.z)
    return (unscaled / measure_scale(trace.resid_pre[-1][0, -1].cpu().double(), clf.config)).numpy()


def measure_scale(stream: Tensor, config: GPT2Config) -> Tensor:
    """Return what ln_f divides the residual stream (..., C) by: (...)."""
    return (stream.var(dim=-1, correction=0) + config.layer_norm_epsilon).sqrt()
