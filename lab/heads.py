"""What each attention head of a language model does: where it looks, and what is lost without it."""

from itertools import product

import pandas as pd
import torch
from torch import Tensor

from model import GPT2LM, Trace, masks

from .device import Device
from .language import held_out_loss


@torch.no_grad()
def looking_back(lm: GPT2LM, back: int, period: int = 100) -> Tensor:
    """How much each head looks `back` tokens back, on average over two rows of `period` random tokens said twice:
    float (L, H), 0 to 1.

    A previous-token head looks 1 back, a duplicate-token head `period`, to where the same token stood, an induction
    head period - 1, to what came next there (Olsson et al. 2022)."""
    tokens = torch.randint(100, 20_000, (2, period), generator=torch.Generator().manual_seed(0))
    trace = Trace("weights")
    lm.trunk(tokens.repeat(1, 2).to(lm.trunk.wte.weight.device), trace=trace)
    maps = trace.stacked("weights")  # (2, L, H, 2 * period, 2 * period)
    return maps.diagonal(-back, dim1=-2, dim2=-1).mean(dim=(0, -1)).cpu()  # (L, H)


def table(lm: GPT2LM, blocks: Tensor, device: Device) -> pd.DataFrame:
    """One row per head, on blocks int (n, T + 1) of text: `layer, head, previous_token, induction, loss_increase`.

    The last is how much closing the head, z = 0, raises the mean next-token loss, in nats."""
    whole = held_out_loss(lm, blocks, device)
    period = min(100, lm.config.n_ctx // 2)
    previous, induction = looking_back(lm, 1, period), looking_back(lm, period - 1, period)

    def loss_increase(layer: int, head: int) -> float:
        gate = masks.close_heads(lm.config, [(layer, head)]).to(device.device)
        return held_out_loss(lm, blocks, device, lambda ids, lengths: {"head_gate": gate}) - whole

    return pd.DataFrame(
        {
            "layer": layer,
            "head": head,
            "previous_token": previous[layer, head].item(),
            "induction": induction[layer, head].item(),
            "loss_increase": loss_increase(layer, head),
        }
        for layer, head in product(range(lm.config.n_layer), range(lm.config.n_head))
    )
