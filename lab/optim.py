"""Optimizers and their learning rates."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR

from model import GPT2


def adamw(
    parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, betas: tuple[float, float] = (0.9, 0.999)
) -> AdamW:
    """Return AdamW (Loshchilov & Hutter 2019) for the trainable weights; biases and LayerNorms do not decay."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.dim() >= 2]
    vectors = [parameter for parameter in trained if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return AdamW(groups, lr=lr, betas=betas, fused=trained[0].device.type in ("cpu", "cuda"))


def muon(trunk: GPT2, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Return Muon (Jordan et al. 2024) for the blocks' matrices, AdamW for the embeddings, biases and LayerNorms.

    Muon's steps are scaled to the size of AdamW's (Liu et al. 2025), so one learning rate serves both."""
    matrices = [parameter for parameter in trunk.h.parameters() if parameter.dim() == 2]
    others = [parameter for parameter in trunk.parameters() if all(parameter is not matrix for matrix in matrices)]
    return [
        Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        adamw(others, lr, weight_decay, betas=(0.9, 0.95)),
    ]


def linear_schedule(optimizer: torch.optim.Optimizer, steps: int, warmup: float, before: int = 0) -> LambdaLR:
    """Let the rate rise over the first `warmup` share of the steps, then fall linearly to 0.

    before: the steps of another training with the same optimizer, over which the rate rises and falls likewise."""

    def factor(step: int) -> float:
        total = before if step < before else steps
        step = step if step < before else step - before
        rise = max(1, round(warmup * total))
        return min((step + 1) / rise, (total - step) / max(1, total - rise))

    return LambdaLR(optimizer, factor)


def cosine_schedule(optimizer: torch.optim.Optimizer, steps: int, warmup: float) -> LambdaLR:
    """Let the rate rise over the first `warmup` share of the steps, then fall to 0 along a half cosine (Loshchilov &
    Hutter 2017)."""
    rise = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        return min((step + 1) / rise, 0.5 + 0.5 * math.cos(math.pi * max(0, step - rise) / max(1, steps - rise)))

    return LambdaLR(optimizer, factor)
