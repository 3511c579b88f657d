"""A corpus as a model reads it: every experiment starts here."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import SPLITS, Corpus, describe, encode, report
from model import GPT2Config, InputError, Tokenizer

from .progress import console


@dataclass(frozen=True, eq=False)
class Texts:
    """Token ids of each text and class numbers int64 (N,), by split; and what is odd about them, as JSON."""

    sequences: dict[str, list[list[int]]]
    targets: dict[str, np.ndarray]
    description: dict[str, Any]


def read_texts(corpus: Corpus, tokenizer: Tokenizer, config: GPT2Config, truncate: bool) -> Texts:
    """Tokenize a corpus and print what it holds. Raises InputError where the model cannot read it."""
    check_pair(tokenizer, config)
    encoded = {split: encode(tokenizer, corpus.split(split), config.n_ctx, truncate) for split in SPLITS}
    sequences = {split: ids for split, (ids, _) in encoded.items()}
    cut = sum(cut for _, cut in encoded.values())
    description = describe(corpus, {split: [len(ids) for ids in sequences[split]] for split in SPLITS})
    console.print(f"Corpus {corpus.name}", report(description))
    for split in ("val", "test"):
        if missing := ", ".join(label for label, n in description["splits"][split]["classes"].items() if not n):
            line = f"{split} has no text of {missing}: recall, ROC AUC and the like are undefined there"
            console.print(line, markup=False)  # a label may look like it
    if cut:
        console.print(f"{cut} texts have more than {config.n_ctx} tokens: only their end is read")
    targets = {split: corpus.targets(split) for split in SPLITS}
    return Texts(sequences, targets, description | {"truncated": cut})


def check_pair(tokenizer: Tokenizer, config: GPT2Config) -> None:
    """Raise InputError where the tokenizer has tokens that the model has not."""
    if len(tokenizer) > config.vocab_size:
        raise InputError(f"the tokenizer has {len(tokenizer)} tokens, the model only {config.vocab_size}: not a pair")


@dataclass(frozen=True, eq=False)
class Part:
    """N texts of a split: their positions in it, token ids, and class numbers int64 (N,)."""

    split: str
    positions: NDArray[np.integer]
    texts: list[str]
    sequences: list[list[int]]
    targets: NDArray[np.integer]

    @property
    def sha256(self) -> str:
        """Of its token ids and class numbers, in order."""
        return hashlib.sha256(repr((self.sequences, self.targets.tolist())).encode()).hexdigest()


OVERALL = "all"  # the class that stands for all texts
