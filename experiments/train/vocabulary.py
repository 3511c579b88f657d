"""Training with the embeddings of the tokens in use alone.

Of GPT-2's 50,257 tokens, a corpus of tweets uses a quarter. The embeddings of the others never get a gradient, so AdamW
does nothing with them but decay: each step multiplies them by 1 - rate * decay. A network therefore learns with the
other rows left out, and these are multiplied by the product of all factors when weights are saved: the same weights up
to rounding. It matters for small networks on a CPU: three quarters of the weights of gpt2-mini are embeddings."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from data.token_ids import find_tokens
from model import GPT2Classifier
from model.checkpoint import uninitialised

from .steps import Forward


class Vocabulary:
    """The U tokens of some texts, which have the numbers 0 .. U - 1 here, and all V embeddings as they were."""

    def __init__(self, model: GPT2Classifier, splits: Sequence[Sequence[list[int]]]) -> None:
        """Leave in a network, in place, only the embeddings of tokens that are in the splits: token ids of texts."""
        every, device = model.trunk.wte.weight.detach(), model.trunk.wte.weight.device
        tokens = find_tokens(splits)
        self.tokens, self.start = torch.from_numpy(tokens.astype(np.int64)), every.cpu()  # (U,), (V, C)
        self.numbers = torch.zeros(len(every), dtype=torch.int64)  # (V,)
        self.numbers[self.tokens] = torch.arange(len(tokens))
        self.numbers = self.numbers.to(device)
        model.trunk.wte = nn.Embedding.from_pretrained(every[self.tokens.to(device)], freeze=False)
        model.config = model.trunk.config = replace(model.config, vocab_size=len(tokens))

    def translate(self, forward: Forward) -> Forward:
        """Return a forward pass that takes the ids of all tokens from one that takes these numbers."""
        return lambda batch: forward(replace(batch, ids=self.numbers[batch.ids]))

    def restore(self, model: GPT2Classifier, decay: float) -> GPT2Classifier:
        """Return a network with all embeddings, those left out times `decay`; it shares the other weights."""
        rows = self.start * decay
        rows[self.tokens] = model.trunk.wte.weight.detach().cpu()
        with uninitialised():
            whole = GPT2Classifier(replace(model.config, vocab_size=len(rows)), model.labels)
        whole.load_state_dict(model.state_dict() | {"trunk.wte.weight": rows}, assign=True)
        return whole
