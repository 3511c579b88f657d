"""The same logits as `transformers` from the same files; where they differ, the place."""

import torch
from tiny import difference, real

from model import GPT2LM, Trace

TOLERANCE = 1e-5  # of the largest logit


def first_difference(ours, hf, ids, lengths) -> str | None:
    """Where the residual stream first differs from HF's: the embeddings, a block, or nowhere (None)."""
    trace = Trace("resid_pre")
    with torch.no_grad():
        ours.trunk(ids, lengths, trace=trace)
        attention_mask = real(ids, lengths).long()
        theirs = hf.transformer(ids, attention_mask=attention_mask, output_hidden_states=True).hidden_states
        stream = [*trace.resid_pre[:-1], ours.trunk.norm(trace.resid_pre[-1])]  # HF's last one is after ln_f
    names = ["the embeddings", *(f"block {i}" for i in range(len(ours.trunk.h)))]
    names[-1] += " or ln_f"
    tokens = real(ids, lengths)
    for name, got, expected in zip(names, stream, theirs, strict=True):
        if difference(got[tokens], expected[tokens]) > TOLERANCE:
            return name
    return None


@torch.no_grad()
def check_parity(ours, hf, ids, lengths) -> None:
    """Compare the logits of every real token, or the one row of logits of a classifier."""
    got, expected = ours(ids, lengths), hf(ids, attention_mask=real(ids, lengths).long()).logits
    if isinstance(ours, GPT2LM):
        got, expected = got[real(ids, lengths)], expected[real(ids, lengths)]
    if (distance := difference(got, expected)) > TOLERANCE:
        where = first_difference(ours, hf, ids, lengths)
        raise AssertionError(f"{distance:.1e} of the logits' scale; the residual stream differs first in {where}")
