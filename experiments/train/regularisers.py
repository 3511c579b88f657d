"""Three regularisers that act inside attention while a network trains: dropout of weights, TLM and DropHead.

Each hides something else at random in every step, so that no part of the network relies on another one alone. TLM and
DropHead are interventions, drawn anew for each batch from torch's global generator, as dropout is: a state that is
written between two steps holds all that the next draw depends on. Val and test are read without them.

Letters: B batch, T tokens, L layers, H heads."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lab.defaults import MaskedToken, TrainOptions
from lab.sweep import change_nothing
from model import GPT2Classifier, GPT2Config, Intervention, Interventions
from model.gpt2 import Attention


def choose_regulariser(options: TrainOptions, config: GPT2Config) -> Intervention:
    """Return what acts on each forward pass of a training; nothing where it is left to dropout."""
    rate, L = options.regulariser_rate, config.n_layer
    if options.regulariser not in ("tlm", "head") or not rate:  # nothing is drawn: dropout keeps its own draws
        return change_nothing
    if options.regulariser == "head":
        return lambda ids, lengths: {"head_gate": draw_head_gate(len(ids), L, config.n_head, rate, ids.device)}

    def mask_tokens(ids: Tensor, lengths: Tensor) -> Interventions:
        mask = draw_token_mask(lengths, ids.shape[1], L, rate, options.tlm, options.spare_first)
        return {"attn_mask": mask}

    return mask_tokens


def describe_regulariser(options: TrainOptions) -> str:
    """Return what is hidden inside attention, in words; nothing where it is GPT-2's own dropout at its usual rate."""
    if options.regulariser == "attention" and options.regulariser_rate is None:
        return ""
    rate = "" if options.regulariser_rate is None else f" at rate {options.regulariser_rate:g}"
    form = f", {options.tlm}" + ", first token spared" * options.spare_first if options.regulariser == "tlm" else ""
    return f"regulariser {options.regulariser}{rate}{form}"


# Dropout of attention weights (Srivastava et al. 2014; GPT-2 was trained with it). Each weight that a query gives a key
# is set to 0 with probability p, in each head by itself. The others grow by 1 / (1 - p), so a row no longer sums to 1.
# The network does this itself, in `Attention.compute_z`, at the rate that stands in its config.


def set_attention_dropout(model: GPT2Classifier, rate: float) -> None:
    """Let a network drop attention weights at this rate, and leave its other dropout as it is."""
    model.config = model.trunk.config = replace(model.config, attn_dropout=rate)
    for module in model.modules():
        if isinstance(module, Attention):
            module.attn_dropout = rate


# Token-level masking, TLM (Wu et al. 2023, 2310.18738). In each layer a share R of a text's tokens is masked, for all
# heads alike, and the other tokens no longer read these. A masked token reads itself alone, without its siblings
# (sibling), or everything but itself, masked tokens included (self), by the toss of a fair coin (both). The softmax
# spreads each row over what is left.
#
# The paper's encoders read in both directions; here the model adds the causal mask. So the first token, masked as self,
# reads nothing, and its heads give 0. GPT-2 also puts much of its attention on the first token where a head has little
# to say. Masking it takes this rest from all kept tokens behind it, and `spare_first` never does.


def draw_token_mask(lengths: Tensor, T: int, L: int, rate: float, form: MaskedToken, spare_first: bool) -> Tensor:
    """Draw an attn_mask (B, L, 1, T, T) for texts of these lengths, int64 (B,), padded to T tokens."""
    shape, device = (len(lengths), L, T), lengths.device
    kept = torch.rand(shape, device=device) >= rate
    if spare_first:
        kept[..., 0] = True
    itself = torch.eye(T, dtype=torch.bool, device=device)
    if form == "both":
        sibling = torch.rand(shape, device=device) < 0.5
        masked = torch.where(sibling[..., None], itself, ~itself)  # (B, L, T, T)
    else:
        masked = itself if form == "sibling" else ~itself  # (T, T)
    real = torch.arange(T, device=device) < lengths[:, None]  # (B, T)
    rows = torch.where(kept[..., None], kept[:, :, None, :], masked)
    return (rows & real[:, None, None, :])[:, :, None]


def expected_share(lengths: Sequence[int], rate: float, form: MaskedToken = "both", spare_first: bool = False) -> float:
    """Return the share of (query, key <= query) pairs of these texts that `draw_token_mask` hides on average.

    Dropout of weights and DropHead at this rate hide as many pairs. A query at position i reads i earlier tokens and
    itself. If it is kept, it loses those that are masked; if not, all i as a sibling, and one as itself."""
    n = np.asarray(lengths, dtype=float)
    earlier = n * (n - 1) / 2  # pairs of two tokens, over all queries
    maskable, queries = (earlier - (n - 1), n - 1) if spare_first else (earlier, n)
    lost = {"sibling": earlier, "self": queries, "both": (earlier + queries) / 2}[form]
    hidden = (1 - rate) * rate * maskable + rate * lost
    return float(hidden.sum() / (earlier + n).sum())


# DropHead (Zhou et al. 2020, 2004.13342). In each layer of each text a head is closed with
# probability p, at all positions. What the others say is multiplied by H / number of open heads, so that their sum
# stays as large. If all are closed, attention adds nothing but its bias. The paper lets the rate fall and rise again
# during training; here it stays the same.


def draw_head_gate(B: int, L: int, H: int, rate: float, device: torch.device) -> Tensor:
    """Draw a head_gate (B, L, H, 1)."""
    is_open = (torch.rand(B, L, H, 1, device=device) >= rate).float()
    return is_open * H / is_open.sum(dim=2, keepdim=True).clamp(min=1)
