"""What each attention head of a language model does: where it looks, and what is lost without it."""

from itertools import product

import pandas as pd
import torch
from rich.progress import track
from torch import Tensor

from model import GPT2LM, InputError, Trace, masks

from .device import Device
from .language import held_out_loss
from .progress import console

ROWS = 4  # of random tokens


def different_tokens(blocks: Tensor, n_ctx: int) -> Tensor:
    """Random ones of the tokens in blocks int (n, T + 1), none twice, as many as can stand twice in n_ctx and at most
    100: int64 (ROWS, T). InputError where the text does not have 2 for each row."""
    kinds = blocks.unique().long()
    shuffled = kinds[torch.randperm(len(kinds), generator=torch.Generator().manual_seed(0))]
    T = min(100, n_ctx // 2, len(kinds) // ROWS)
    if T < 2:
        raise InputError(
            f"expected at least {2 * ROWS} different tokens in the held-out text and an n_ctx of at least 4, got "
            f"{len(kinds)} and {n_ctx}; take another text, or a larger shape"
        )
    return shuffled[: ROWS * T].view(ROWS, T)


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
    text, in nats. The other two are measured on `different_tokens` of this text, which may raise InputError."""
    tokens = different_tokens(blocks, lm.config.n_ctx)
    previous, induction = looking_back(lm, tokens, 1), looking_back(lm, tokens, tokens.shape[1] - 1)
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
