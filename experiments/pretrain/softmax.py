"""A softmax over drawn tokens, which saves most of the output layer's work in training."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.nn import functional as F


class SampledSoftmax(nn.Module):
    """Cross-entropy against `size` tokens drawn anew for every batch, in place of all V (Jean et al. 2015).

    Tokens are drawn without replacement in proportion to (count + 1) ** 0.75 (Mikolov et al. 2013), count in the
    training text. Token i is among them with probability p_i, so the sum of exponentials, each divided by its p_i,
    estimates the softmax's denominator (Horvitz & Thompson 1952). The p_i, and so the absence of bias, are exact only
    in the limit of many tokens. The loss is the logarithm of that estimate, so it is too low on average (Jensen's
    inequality), by less the more tokens are drawn."""

    weights: Tensor
    log_p: Tensor

    def __init__(self, counts: NDArray[np.integer], size: int) -> None:
        super().__init__()
        weights = (counts + 1.0) ** 0.75
        weights /= weights.sum()
        # A draw without replacement is a race of exponential clocks, and p_i the chance to ring before time t.
        time = brentq(lambda t: -np.expm1(-t * weights).sum() - size, 0, size / weights.min())
        self.size = size
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))  # (V,)
        self.register_buffer("log_p", torch.tensor(np.log(-np.expm1(-time * weights)), dtype=torch.float32))  # (V,)

    def draw(self) -> Tensor:
        """Draw different tokens from torch's global generator, int64 (size,)."""
        return self.weights.multinomial(self.size)

    def forward(self, x: Tensor, targets: Tensor, wte: Tensor, drawn: Tensor) -> Tensor:
        """Return the mean loss () of a normed stream x (N, C). targets: int64 (N,); wte: (V, C); drawn: (size,)."""
        size = len(drawn)
        columns = torch.cat([drawn, drawn[:1]])  # the last one's logits give way to those of the targets
        logits = F.linear(x, F.embedding(columns, wte)).float() - self.log_p[columns]  # (N, size + 1)
        place = torch.full_like(self.log_p, size, dtype=torch.int64)  # (V,), of each token among the columns
        place[drawn] = torch.arange(size, device=drawn.device)
        logits.scatter_(1, place[targets][:, None], -torch.inf)  # a target that was drawn counts once
        logits[:, -1] = (x * F.embedding(targets, wte)).sum(dim=-1).float()
        return F.cross_entropy(logits, torch.full_like(targets, size))
