"""What the trained head reads in the middle of the network, and what each part of the network tells it.

The class lens is the logit lens (nostalgebraist 2020) with the classifier's head in place of the unembedding. The
direct contributions are those of Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits): the residual
stream is a sum, and with the scale of ln_f frozen at the value it has, the head's reading of that sum is linear.

Letters: N texts, K classes, and those of the forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
    """Class logits that the head reads from the residual stream before each layer and after the last, at the last real
    token: (N, L + 1, K), the last of them the classifier's own. The model is taken as it stands on `device`."""
    found = np.empty((len(sequences), clf.config.n_layer + 1, len(clf.labels)), dtype=np.float32)

    def of_texts(batch: Batch) -> Tensor:
        trace, lengths = Trace("resid_pre"), batch.lengths.to(device.device)
        with device.autocast():
            clf.trunk(batch.ids.to(device.device), lengths, trace=trace)
            read = [clf.read(clf.trunk.norm(x), lengths) for x in trace.resid_pre]  # L + 1 of (B, K)
        return torch.stack(read, dim=1).float().cpu()

    for batch, own in map_texts(of_texts, sequences, device, "class lens"):
        found[batch.index] = own
    return found


@torch.inference_mode()
def text_lens(clf: GPT2Classifier, ids: list[int], device: Device) -> NDArray[np.float32]:
    """The same at every token of one text, as if it ended there: (T, L + 1, K)."""
    trace = Trace("resid_pre")
    with device.autocast():
        clf.trunk(torch.tensor([ids], device=device.device), trace=trace)
        read = clf.score(clf.trunk.norm(trace.stacked("resid_pre")))[0]  # (1, L + 1, T, C) -> (L + 1, T, K)
    return read.transpose(0, 1).float().cpu().numpy()


def decided(lens: NDArray[np.float32]) -> NDArray[np.int64]:
    """lens (N, L + 1, K) -> (N,): from which of the L + 1 on the most probable class stays the same. 0: from the
    embedding on; L: only the last layer settles it."""
    predicted = lens.argmax(-1)
    settled = np.logical_and.accumulate((predicted == predicted[:, -1:])[:, ::-1], axis=1)  # from the last layer back
    return lens.shape[1] - settled.sum(1)


@dataclass(frozen=True)
class Part:
    """What adds to the class logits. kind: `embedding`, `head`, `attention bias` (c_proj's, which is no head's), `mlp`,
    `final bias` (ln_f's); layer and head: counted from 0, None where the kind has none."""

    kind: str
    layer: int | None = None
    head: int | None = None


def parts(config: GPT2Config) -> list[Part]:
    """The embedding, the heads in order, the attention biases, the MLPs, the final bias: 2 + L * (H + 2)."""
    layers = range(config.n_layer)
    heads = [Part("head", layer, head) for layer in layers for head in range(config.n_head)]
    by_layer = [Part(kind, layer) for kind in ("attention bias", "mlp") for layer in layers]
    return [Part("embedding"), *heads, *by_layer, Part("final bias")]


class Readers(NamedTuple):
    """What the head reads of each part before ln_f's scale divides it: float64, on the CPU."""

    stream: Tensor  # (C, K), of what stands in the residual stream
    z: Tensor  # (L, H, D, K), of a head's z
    attention_bias: Tensor  # (L, K)
    final_bias: Tensor  # (K,), which no scale divides


@torch.inference_mode()
def readers(clf: GPT2Classifier) -> Readers:
    """From the weights of ln_f, c_proj and the head."""

    def weight(name: str) -> Tensor:
        return clf.get_parameter(name).cpu().double()

    score = weight("score.weight")  # (K, C)
    stream = score * weight("trunk.ln_f.weight")
    stream = (stream - stream.mean(dim=1, keepdim=True)).T  # to centre the reader is to centre what it reads
    projections = [f"trunk.h.{layer}.attn.c_proj" for layer in range(clf.config.n_layer)]
    z = [(weight(f"{name}.weight").T @ stream).unflatten(0, (clf.config.n_head, -1)) for name in projections]
    attention_bias = [weight(f"{name}.bias") @ stream for name in projections]
    return Readers(stream, torch.stack(z), torch.stack(attention_bias), score @ weight("trunk.ln_f.bias"))


@torch.inference_mode()
def contributions(clf: GPT2Classifier, sequences: Sequence[list[int]], device: Device) -> NDArray[np.float32]:
    """What each of `parts` adds to each class logit at the last real token, directly: (N, parts, K).

    The scale of ln_f is frozen at the value that it has on the text. The parts then add up to the logits; so that they
    do, this is computed in fp32 whatever the precision of `device`. What a part does to later layers is not in it."""
    read = readers(clf)
    found = np.empty((len(sequences), len(parts(clf.config)), len(clf.labels)), dtype=np.float32)

    def of_texts(batch: Batch) -> Tensor:
        trace, lengths = Trace("resid_pre", "z", "mlp"), batch.lengths.to(device.device)
        clf.trunk(batch.ids.to(device.device), lengths, trace=trace)
        rows, last = torch.arange(len(lengths), device=device.device), lengths - 1
        z = torch.stack([own[rows, :, last] for own in trace.z], dim=1).cpu().double()  # (B, L, H, D)
        mlp = torch.stack([own[rows, last] for own in trace.mlp], dim=1).cpu().double()  # (B, L, C)
        first, final = (own[rows, last].cpu().double() for own in (trace.resid_pre[0], trace.resid_pre[-1]))  # (B, C)
        heads = torch.einsum("blhd,lhdk->blhk", z, read.z).flatten(1, 2)  # (B, L * H, K)
        biases = read.attention_bias.expand(len(rows), -1, -1)
        scaled = torch.cat([(first @ read.stream)[:, None], heads, biases, mlp @ read.stream], dim=1)
        scale = (final.var(dim=1, correction=0) + clf.config.layer_norm_epsilon).sqrt()[:, None, None]
        return torch.cat([scaled / scale, read.final_bias.expand(len(rows), 1, -1)], dim=1)

    for batch, own in map_texts(of_texts, sequences, device, "direct contributions"):
        found[batch.index] = own
    return found
