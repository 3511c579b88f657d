"""What torch computes slowly on a CPU, by quicker calls of its own: the tanh form of GELU, and dropout."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook


def linear_gelu(linear: nn.Linear, x: Tensor) -> Tensor:
    """Return the tanh form of GELU (Hendrycks & Gimpel 2016) of `linear(x)`: x (..., C) -> (..., 4C).

    On a CPU that GELU takes a fifth of a forward pass. oneDNN applies a quicker one while it multiplies, equal up to
    rounding. It has no gradient, so training goes without, as does whoever put another module or a hook in the place of
    `linear`."""
    if not is_fusible(linear, x):
        return F.gelu(linear(x), approximate="tanh")
    return torch.ops.mkldnn._linear_pointwise(x, linear.weight, linear.bias, "gelu", [], "tanh")


def is_fusible(linear: nn.Linear, x: Tensor) -> bool:
    """Return whether oneDNN computes the same as `linear` and then GELU would, and nobody watches the two."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    if torch._C._len_torch_dispatch_stack():  # as PyTorch's FlopCounterMode watches
        return False
    hooks = linear._forward_hooks or linear._forward_pre_hooks or _has_any_global_hook()
    plain = type(linear) is nn.Linear and "forward" not in vars(linear) and not hooks
    fp32_on_cpu = type(x) is Tensor and x.device.type == "cpu" and x.dtype == linear.weight.dtype == torch.float32
    onednn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return bool(plain and fp32_on_cpu and onednn and x.numel() > 0)


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014) whose mask takes a sixth of the time on a CPU.

    Each number of the mask is drawn from 16 random bits instead of 64, so p is rounded to a multiple of 2^-16."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not 0 < self.p < 1 or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        lowest = min(round(self.p * 2**16), 2**16 - 1) - 2**15  # of the values of 16 bits that are kept
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = bits[: x.numel()].view(x.shape).float().ge_(lowest)  # 1 or 0; in bool it would take twice as long
        return x * kept.mul_(2**16 / (2**15 - lowest)).to(x.dtype)
