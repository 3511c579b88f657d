"""The hard concrete distribution: gates between open and closed that gradients can learn.

A gate that is either open or closed jumps, so nothing says in which direction to move it. The hard concrete
distribution draws a random number between 0 and 1 that depends smoothly on one parameter, stretches it a little beyond
both ends and clamps it, so that it is often exactly 0 or exactly 1. The probability of not being 0 is a formula of the
parameter, and so the expected number of open gates can be had at a price, and gradients reach both.

Louizos, Welling & Kingma 2018 (arXiv 1712.01312), whose equations are named below; on attention heads, Voita et al.
2019 (arXiv 1905.09418)."""

import math

import torch
from torch import Tensor

BETA = 2 / 3  # temperature, as in section 4 of Louizos et al.
LOW, HIGH = -0.1, 1.1  # gamma and zeta, the ends to which (0, 1) is stretched


def sample_gates(log_alpha: Tensor, uniform: Tensor) -> Tensor:
    """Return gates in [0, 1], eqs. 10 and 11, from uniform random numbers in (0, 1); shapes are broadcast."""
    concrete = torch.sigmoid((torch.logit(uniform) + log_alpha) / BETA)
    return (concrete * (HIGH - LOW) + LOW).clamp(0, 1)


def open_probability(log_alpha: Tensor) -> Tensor:
    """Return the probability that a gate is not 0, eq. 12."""
    return torch.sigmoid(log_alpha - BETA * math.log(-LOW / HIGH))


def settle_gates(log_alpha: Tensor) -> Tensor:
    """Return the gates without noise, eq. 13; what is above 1/2 counts as open."""
    return (torch.sigmoid(log_alpha) * (HIGH - LOW) + LOW).clamp(0, 1)
