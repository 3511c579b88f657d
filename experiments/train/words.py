"""A language model that learns to answer in label words: `train.py --head words`."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.label_words import LabelWords, read_with_words
from model import GPT2LM, GPT2Classifier
from model.checkpoint import uninitialised

OTHER = "any other token"  # the class behind those of the label words


class WordsAndRest(nn.Module):
    """The read-out of K label words and, last, of all other tokens together: x (..., C) -> (..., K + 1).

    The last one is the logsumexp of the other tokens' logits. So the cross-entropy over these K + 1 is that over the
    whole vocabulary: the language model's loss on the label word. It reads with `wte` itself, which therefore learns
    both as an input and as an output."""

    tokens: Tensor  # int64 (K,)

    def __init__(self, wte: nn.Embedding, tokens: Sequence[int]) -> None:
        super().__init__()
        self.shared = (wte,)  # in a tuple, so that states hold its weights once, as the trunk's
        self.register_buffer("tokens", torch.tensor(tokens), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        (wte,) = self.shared
        logits = F.linear(x, wte.weight).float()  # (..., V)
        others = logits.index_fill(-1, self.tokens, -torch.inf).logsumexp(dim=-1, keepdim=True)
        return torch.cat([logits[..., self.tokens], others], dim=-1)


def read_words_and_rest(lm: GPT2LM, words: LabelWords) -> GPT2Classifier:
    """Return a classifier that shares the weights of a language model: its classes are the label words', one word each,
    and last OTHER. Raises InputError for words of several tokens."""
    classifier = read_with_words(lm, words)
    classifier.score = WordsAndRest(lm.trunk.wte, [ids for [[ids]] in words.ids])  # type: ignore[assignment]
    classifier.labels = (*words.labels, OTHER)
    return classifier


def choose_checkpoint(model: GPT2Classifier) -> GPT2Classifier | GPT2LM:
    """Return what is saved of a network in training: the classifier, or the language model that answers."""
    if not isinstance(model.score, WordsAndRest):
        return model
    with uninitialised():
        lm = GPT2LM(model.config)
    lm.trunk = model.trunk
    return lm
