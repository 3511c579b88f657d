"""What each attention head of a language model does: where it looks, and what is lost without it."""

from itertools import product

import pandas as pd
import torch
from rich.progress import track
from torch import Tensor

from model import GPT2LM, Trace, masks

from .device import Device
from .language import held_out_loss
from .progress import console

ROWS = 4  # of random tokens


@torch.no_grad()
def looking_back(lm: GPT2LM, tokens: Tensor, back: int) -> Tensor:
    """How much each head looks `back` tokens back, 0 to 1, on average over rows of random tokens that are said twice:
    tokens int64 (n, T) -> (L, H).

    A previous-token head looks 1 back, a duplicate-token head T, to where the same token stood, an induction head
    T - 1, to what came next there (Olsson et al. 2022)."""
    trace = Trace("weights")
    lm.trunk(tokens.repeat(1, 2).to(lm.trunk.wte.weight.device), trace=trace)
    return trace.stacked("weights").diagonal(-back, dim1=-2, dim2=-1).mean(dim=(0, -1)).cpu()  # (n, L, H, 2T, 2T)


def table(lm: GPT2LM, blocks: Tensor, device: Device) -> pd.DataFrame:
    """One row per head: `layer, head, previous_token, induction, loss_increase`.

    `loss_increase` is how much closing the head, z = 0, raises the mean next-token loss of blocks int (n, T + 1) of
    text, in nats. The random tokens of the other two are different ones of this text, none twice."""
    kinds = blocks.unique().long()
    shuffled = kinds[torch.randperm(len(kinds), generator=torch.Generator().manual_seed(0))]
    T = min(100, lm.config.n_ctx // 2, len(kinds) // ROWS)
    tokens = shuffled[: ROWS * T].view(ROWS, T)
    previous, induction = looking_back(lm, tokens, 1), looking_back(lm, tokens, T - 1)
    whole = held_out_loss(lm, blocks, device)
    heads = list(product(range(lm.config.n_layer), range(lm.config.n_head)))

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
        for layer, head in track(heads, "closing each head", console=console)
    )
