"""Words that stand for the classes in a prompt (a verbalizer), and what a language model says of them.

A class is as probable as its words are together: the log-probability of a class is the logsumexp of those of its words,
each the sum over its tokens. A word always stands behind a space, because GPT-2 has other tokens for words with one and
without.

Letters: N texts, K classes, W label words of all classes, and those of the forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.prompts import read_words
from model import GPT2LM, GPT2Classifier, InputError, Tokenizer
from model.checkpoint import uninitialised

from .device import Device
from .language import Advance, read_next

Verbalizer = Literal["all words", "first word"]  # the words of a class together, or its first one alone


@dataclass(frozen=True)
class LabelWords:
    """The words of K classes, and the token ids of each word behind a space."""

    labels: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]  # by class
    ids: tuple[tuple[tuple[int, ...], ...], ...]  # by class and word

    @property
    def flat(self) -> list[tuple[int, ...]]:
        """The token ids of all W words, class by class."""
        return list(chain(*self.ids))

    @property
    def classes(self) -> NDArray[np.int64]:
        """The class of each of the W words, int64 (W,)."""
        return np.repeat(np.arange(len(self.words)), [len(words) for words in self.words])

    def first(self) -> "LabelWords":
        """Return the first word of each class alone."""
        return replace(self, words=tuple(w[:1] for w in self.words), ids=tuple(ids[:1] for ids in self.ids))

    @property
    def beginnings(self) -> list[tuple[int, ...]]:
        """The tokens that stand before some token of a word: none, and more only where a word has several."""
        return sorted({ids[:n] for ids in self.flat for n in range(len(ids))})

    def find_long(self) -> list[str]:
        """Return the words of several tokens."""
        named = zip(chain(*self.words), self.flat, strict=True)
        return [word for word, ids in named if len(ids) > 1]

    def read_classes(self, log_probs: NDArray[np.float64], verbalizer: Verbalizer) -> NDArray[np.float64]:
        """Return the log-probability of each class, of those of the words: (N, W) -> (N, K)."""
        of_class = [log_probs[:, self.classes == k] for k in range(len(self.labels))]
        if verbalizer == "first word":
            return np.stack([words[:, 0] for words in of_class], axis=1)
        return np.stack([np.logaddexp.reduce(words, axis=1) for words in of_class], axis=1)

    @property
    def verbalizers(self) -> tuple[Verbalizer, ...]:
        """The ways to read the classes, which differ where some class has several words."""
        return ("all words", "first word") if len(self.flat) > len(self.labels) else ("first word",)

    def describe(self, tokenizer: Tokenizer) -> str:
        """Return the words in one line, with the pieces of those of several tokens."""
        classes = []
        for label, words in zip(self.labels, self.ids, strict=True):
            pieces = ["|".join(tokenizer.decode([token]) for token in ids).strip() for ids in words]
            classes.append(f"{label}: {', '.join(pieces)}")
        several = self.find_long()
        note = f" ({len(several)} of several tokens, cut at |: their log-probabilities are added up)" if several else ""
        return f"label words: {'; '.join(classes)}{note}"


def choose_words(labels: Sequence[str], pairs: Sequence[str], tokenizer: Tokenizer) -> LabelWords:
    """Return the label words of these classes: those of `pairs`, as label=word,word, else ours, else the label itself.

    Raises InputError for an unknown class, an empty word, and words that cannot be told apart: one is another, or
    begins with the tokens of another."""
    ours = {label.lower(): words for label, words in read_words().items()}
    chosen = {label: ours.get(label.lower(), [label]) for label in labels} | parse_words(pairs, labels)
    words = tuple(tuple(chosen[label]) for label in labels)
    ids = tuple(tuple(tuple(tokenizer.encode(f" {word}")) for word in each) for each in words)
    label_words = LabelWords(tuple(labels), words, ids)
    flat, names = label_words.flat, list(chain(*words))
    for i, one in enumerate(flat):
        for j, other in enumerate(flat):
            if i != j and other[: len(one)] == one:
                both = f"{names[i]!r} and {names[j]!r}"
                raise InputError(
                    f"label words {both}: the second begins with the first; train.py and prompt.py take others, as --words label=word"
                )
    return label_words


def parse_words(pairs: Sequence[str], labels: Sequence[str]) -> dict[str, list[str]]:
    """Parse `label=word,word` of some classes. Raises InputError for another form, or another class."""
    parsed: dict[str, list[str]] = {}
    classes = ", ".join(labels)
    for each in pairs:
        label = max((label for label in labels if each.startswith(f"{label}=")), key=len, default=None)
        if label is None:
            raise InputError(f"--words {each}: expected label=word, or label=word,word, with a class of {classes}")
        if label in parsed:
            raise InputError(f"--words {each}: expected each class once; give its words as {label}=word,word")
        parsed[label] = [word.strip() for word in each.removeprefix(f"{label}=").split(",")]
        if not all(parsed[label]):
            raise InputError(f"--words {each}: expected label=word, or label=word,word")
    return parsed


def score_words(
    lm: GPT2LM, sequences: Sequence[list[int]], words: LabelWords, device: Device, advance: Advance = int
) -> NDArray[np.float64]:
    """Return the log-probability of each label word behind each prompt: (N, W).

    Words of one token are read from one row of logits. For others the prompt runs again with each of their
    beginnings. advance: is called with each number of prompts that are done."""
    flat = words.flat
    log_probs = np.zeros((len(sequences), len(flat)))
    for beginning in words.beginnings:
        n = len(beginning)
        continued = [w for w, ids in enumerate(flat) if len(ids) > n and ids[:n] == beginning]
        prompts = [[*ids, *beginning] for ids in sequences]
        log_probs[:, continued] += read_next(lm, prompts, [flat[w][n] for w in continued], device, advance)
    return log_probs


class SummedWords(nn.Module):
    """The read-out of label words, in the place of a classifier's head: x (..., C) -> (..., K).

    It gives the logsumexp of the logits of a class's words. That is the class's log-probability up to a constant of the
    text, which no comparison of classes sees."""

    def __init__(self, wte: Tensor, words: LabelWords) -> None:
        super().__init__()
        flat = torch.tensor(list(chain(*words.flat)), device=wte.device)  # each of one token
        self.weight = nn.Parameter(wte.detach()[flat].clone(), requires_grad=False)  # (W, C)
        self.sizes = [len(each) for each in words.words]

    def forward(self, x: Tensor) -> Tensor:
        logits = nn.functional.linear(x, self.weight)  # (..., W)
        return torch.stack([part.logsumexp(dim=-1) for part in logits.split(self.sizes, dim=-1)], dim=-1)


def read_with_words(lm: GPT2LM, words: LabelWords) -> GPT2Classifier:
    """Return a classifier that shares the trunk of a language model and reads the classes from their words.

    With one word for each class its head is an ordinary linear one, whose rows are the words' rows of `wte`. The head
    is a copy: it does not learn. Raises InputError for words of several tokens, which no single position can tell."""
    if long := words.find_long():
        raise InputError(
            f"label words {', '.join(map(repr, long))}: expected one token each; train.py and prompt.py take others, as --words label=word"
        )
    with uninitialised():
        clf = GPT2Classifier(lm.config, words.labels)
    clf.trunk = lm.trunk
    head = SummedWords(lm.trunk.wte.weight, words)
    if all(size == 1 for size in head.sizes):
        linear = nn.Linear(lm.config.n_embd, len(words.labels), bias=False, device="meta")
        linear.weight = head.weight
        clf.score = linear
    else:
        clf.score = head  # type: ignore[assignment]
    return clf.train(lm.training)
