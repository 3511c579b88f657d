"""Next-token losses of a language model."""

import torch
from torch import Tensor
from torch.nn import functional as F

from model import GPT2LM, Intervention

from .device import Device

BLOCKS = 2  # at once: 1,024 tokens' logits are 200 MB


@torch.no_grad()
def held_out_loss(lm: GPT2LM, blocks: Tensor, device: Device, intervention: Intervention | None = None) -> float:
    """Return the mean next-token loss of blocks int (n, T + 1), in nats, by the full softmax. Puts the model into eval
    mode."""
    lm.eval()
    total = 0.0
    for block in blocks.split(BLOCKS):
        block = block.to(device.device, torch.int64)
        ids, targets = block[:, :-1], block[:, 1:]
        lengths = torch.full((len(ids),), ids.shape[1], device=ids.device)
        with device.autocast():
            logits = lm(ids, lengths, **(intervention(ids, lengths) if intervention else {}))  # (b, T, V)
        total += F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum").item()
    return total / blocks[:, 1:].numel()
