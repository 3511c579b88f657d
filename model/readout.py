"""Two read-outs of the trunk: the next token at every position, and a class at the last real token."""

import re
import warnings
from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import GPT2Config, InputError
from .gpt2 import GPT2, Arguments, at_query
from .interventions import Intervention, check_lengths

NO_NAME = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # controls, line ends, halves of characters


class GPT2LM(nn.Module):
    """The language model, its output layer tied to `wte`: lm(ids, lengths, **interventions) -> (B, T, V)."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.trunk = GPT2(config)

    def forward(self, ids: Tensor, lengths: Tensor | None = None, **arguments: Unpack[Arguments]) -> Tensor:
        """Map ids int64 (B, T), lengths int64 (B,) or None, to logits (B, T, V); arguments as in `GPT2.forward`."""
        return self.read(self.trunk(ids, lengths, **arguments))

    def read(self, x: Tensor) -> Tensor:
        """Map the normed stream (..., C), at any positions, to logits (..., V)."""
        return F.linear(x, self.trunk.wte.weight)

    @torch.no_grad()
    def generate(
        self,
        ids: Tensor,
        max_new_tokens: int,
        temperature: float = 0,
        stop: int | None = None,
        intervention: Intervention | None = None,
    ) -> Tensor:
        """Continue prompts of one length: int64 (B, T) -> (B, T + new).

        Temperature 0 takes the likeliest token, any other draws from torch's global generator. A row that has written
        `stop` is filled with it. Generation ends when all rows have, or at n_ctx tokens, with a warning. `intervention`
        is called again for every token, since T grows. Raises ValueError for negative numbers."""
        if temperature < 0 or max_new_tokens < 0:
            raise ValueError(f"generate: negative temperature {temperature} or max_new_tokens {max_new_tokens}")
        done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        for _ in range(max_new_tokens):
            if ids.shape[1] == self.config.n_ctx:
                warnings.warn(f"generate: stopped at n_ctx = {self.config.n_ctx} tokens", stacklevel=3)
                break
            lengths = torch.full((len(ids),), ids.shape[1], device=ids.device)
            arguments = intervention(ids, lengths) if intervention else {}
            x = self.trunk.run(self.trunk.embed(ids), query=lengths - 1, z=None, **arguments)  # (B, 1, C)
            logits = self.read(self.trunk.norm(x))[:, 0]  # (B, V)
            if temperature == 0:
                token = logits.argmax(dim=-1)
            else:
                token = torch.multinomial((logits / temperature).softmax(dim=-1), 1)[:, 0]
            if stop is not None:
                token = token.masked_fill(done, stop)
                done = done | (token == stop)
            ids = torch.cat([ids, token[:, None]], dim=1)
            if done.all():
                break
        return ids


class GPT2Classifier(nn.Module):
    """The classifier, read at the last real token: clf(ids, lengths, **interventions) -> (B, K).

    `labels` names the K classes, in the order of the logits, and is kept as a tuple. InputError unless `are_names`."""

    def __init__(self, config: GPT2Config, labels: Sequence[str]) -> None:
        super().__init__()
        if isinstance(labels, str) or len(labels) < 2 or not are_names(labels):
            raise InputError(f"labels: expected at least two different names, got {labels!r}")
        self.config = config
        self.labels = tuple(labels)
        self.trunk = GPT2(config)
        self.score = fresh_head(config, len(labels))

    def forward(self, ids: Tensor, lengths: Tensor | None = None, **arguments: Unpack[Arguments]) -> Tensor:
        """Map ids int64 (B, T), lengths int64 (B,) or None, to logits (B, K); arguments as in `GPT2.forward`."""
        x = self.trunk.embed(ids, lengths)  # (B, T, C)
        # Without a trace nobody looks at the last block's other queries: they are not computed.
        query = last_real(ids, lengths) if arguments.get("trace") is None else None
        x = self.trunk.run(x, 0, self.config.n_layer, query=query, z=None, **arguments)  # (B, 1 or T, C)
        return self.read(self.trunk.norm(x), lengths if query is None else None)

    def read(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map the normed stream (B, T, C) to logits (B, K), at the last real token; without `lengths`, at T - 1."""
        if lengths is not None:
            check_lengths(lengths, *x.shape[:2])
        return self.score(at_query(x, last_real(x, lengths), axis=1)[:, 0])


def are_names(labels: Sequence[Any]) -> bool:
    """Return whether these can name classes: different strings, none blank or a danger to tables and terminals."""
    strings = all(isinstance(label, str) and label.strip() and not NO_NAME.search(label) for label in labels)
    return strings and len(set(labels)) == len(labels)


def fresh_head(config: GPT2Config, K: int) -> nn.Linear:
    """Return an untrained classification head, N(0, 0.02): (..., C) -> (..., K)."""
    head = nn.Linear(config.n_embd, K, bias=False)
    nn.init.normal_(head.weight, std=0.02)
    return head


def last_real(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the position of each row's last real token, int64 (B,), for x (B, T, ...)."""
    return torch.full(x.shape[:1], x.shape[1] - 1, device=x.device) if lengths is None else lengths - 1
