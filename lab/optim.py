"""AdamW and its learning rate, as every training here uses them."""

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def adamw(model: nn.Module, lr: float, weight_decay: float) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019) on the trainable weights; matrices decay, biases and LayerNorms do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.dim() >= 2]
    vectors = [parameter for parameter in trained if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return AdamW(groups, lr=lr, fused=trained[0].device.type in ("cpu", "cuda"))


def linear_schedule(optimizer: torch.optim.Optimizer, steps: int, warmup: float) -> LambdaLR:
    """The rate rises over the first `warmup` share of the steps, then falls linearly to 0."""
    rise = max(1, round(warmup * steps))
    return LambdaLR(optimizer, lambda step: min((step + 1) / rise, (steps - step) / max(1, steps - rise)))
