"""Score each attention head of a language model: where it looks, and what is lost without it."""

from itertools import product

import pandas as pd
import torch
from torch import Tensor

from model import GPT2LM, InputError, Trace, masks

from .device import Device
from .language import held_out_loss
from .progress import progress_bar
from .units import always

ROWS = 4  # of random tokens


def draw_different_tokens(blocks: Tensor, n_ctx: int) -> Tensor:
    """Draw tokens of blocks int (n, T + 1) at random, none twice -> int64 (ROWS, T): T is 100, or as many as fit twice
    into n_ctx. Raises InputError where the text does not have 2 different tokens for each row."""
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
def score_looking_back(lm: GPT2LM, tokens: Tensor, back: int) -> Tensor:
    """Return how much each head looks `back` tokens back, 0 to 1: (L, H), the mean over rows of random tokens int64
    (n, T), each row said twice.

    A previous-token head looks 1 back, a duplicate-token head T, to where the same token stood, an induction head
    T - 1, to what came next there (Olsson et al. 2022)."""
    trace = Trace("weights")
    lm.trunk(tokens.repeat(1, 2).to(lm.trunk.wte.weight.device), trace=trace)
    return trace.stacked("weights").diagonal(-back, dim1=-2, dim2=-1).mean(dim=(0, -1)).cpu()  # (n, L, H, 2T, 2T)


def score_heads(lm: GPT2LM, blocks: Tensor, device: Device) -> pd.DataFrame:
    """Return one row per head: `layer, head, previous_token, induction, loss_increase`.

    `loss_increase` is how much closing the head, z = 0, raises the mean next-token loss of blocks int (n, T + 1) of
    text, in nats. The other two are measured on `draw_different_tokens` of this text, which may raise InputError."""
    tokens = draw_different_tokens(blocks, lm.config.n_ctx)
    previous, induction = score_looking_back(lm, tokens, 1), score_looking_back(lm, tokens, tokens.shape[1] - 1)
    whole = held_out_loss(lm, blocks, device)
    heads = list(product(range(lm.config.n_layer), range(lm.config.n_head)))
    rows = []
    with progress_bar("heads closed") as bar:
        task = bar.add_task("", total=len(heads), note="")
        for layer, head in heads:
            gate = masks.close_heads(lm.config, [(layer, head)]).to(device.device)
            closed = held_out_loss(lm, blocks, device, always({"head_gate": gate}))
            scores = (previous[layer, head].item(), induction[layer, head].item(), closed - whole)
            rows.append((layer, head, *scores))
            bar.advance(task)
    return pd.DataFrame(rows, columns=["layer", "head", "previous_token", "induction", "loss_increase"])
