"""The loss of the language model on the texts that are to be classified: before and beside that of the classifier.

A small or distant pretraining knows little of how a corpus speaks. With `--adapt N`, the network first spends N epochs
on predicting the next token of the training texts, which takes no label (Gururangan et al. 2020; Howard and Ruder
2018). With `--lm-weight`, it goes on with that while it learns to classify: the loss of a text is that of its class
plus this weight times that of its tokens, against forgetting (Radford et al. 2018, equation 5).

The softmax runs over the tokens of train and val alone, where the network holds no others (vocabulary.py).

Letters: B batch, T tokens, V tokens of the network, K classes."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from data.batches import Batch
from data.token_ids import find_tokens
from lab.compiled import compile_function
from lab.defaults import TrainOptions
from lab.device import Compile
from lab.sweep import change_nothing
from lab.texts import Texts
from model import GPT2Classifier, Intervention


class Outputs(NamedTuple):
    """What a network makes of B texts: the logits of their classes, and how badly it predicts their tokens."""

    logits: Tensor  # (B, K)
    lm_losses: Tensor  # float32 (B,), in nats


def make_joint_forward(
    model: GPT2Classifier,
    compiled: Compile = "off",
    recompute: bool = False,
    intervention: Intervention = change_nothing,
) -> Callable[[Batch], Outputs]:
    """Return the forward pass of the whole network that also reads its language model. intervention: acts on both."""

    def read_both(ids: Tensor, lengths: Tensor, **arguments: object) -> Outputs:
        x = model.trunk(ids, lengths, **arguments)  # (B, T, C)
        return Outputs(model.read(x, lengths), compute_lm_losses(x, ids, lengths, model.trunk.wte.weight))

    run = compile_function(read_both, compiled, dynamic=True)

    def forward(batch: Batch) -> Outputs:
        return run(batch.ids, batch.lengths, recompute=recompute, **intervention(batch.ids, batch.lengths))

    return forward


def compute_lm_losses(x: Tensor, ids: Tensor, lengths: Tensor, wte: Tensor) -> Tensor:
    """Return the mean cross-entropy of each text's next tokens, float32 (B,), in nats; 0 for a text of one token.

    x: the normed stream (B, T, C); ids: int64 (B, T); lengths: int64 (B,); wte: (V, C)."""
    logits, targets = F.linear(x[:, :-1], wte).float(), ids[:, 1:]  # (B, T - 1, V), (B, T - 1)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    real = torch.arange(1, ids.shape[1], device=ids.device) < lengths[:, None]
    return losses.where(real, 0).sum(dim=1) / (lengths - 1).clamp(min=1)


def describe_language(options: TrainOptions) -> str:
    """Return what the language model learns of the texts, in words; nothing where it learns none."""
    adapted = f"adapted for {options.adapt} epochs" if options.adapt else ""
    weighted = f"language model loss x {options.lm_weight:g}" if options.lm_weight else ""
    return ", ".join(filter(None, (adapted, weighted)))


def count_products(options: TrainOptions, texts: Mapping[str, Texts]) -> int:
    """Return the multiply-adds that the softmax over tokens takes in all epochs, per token of train and per dimension
    of the network."""
    assert options.epochs, "TrainOptions.resolved fills it in"
    epochs = options.adapt + (options.epochs if options.lm_weight else 0)
    if not epochs:
        return 0
    n_tokens = len(find_tokens([texts[split].sequences for split in ("train", "val")]))
    return 3 * epochs * n_tokens  # a backward pass costs two forward ones
