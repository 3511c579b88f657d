"""A corpus as a model reads it: every experiment starts here."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import SPLITS, Corpus, describe_corpus, encode, render_description
from data.prompts import Template
from data.rows import describe_bad_rows
from data.token_ids import pack
from data.words import tokens_of_class, words
from model import GPT2Config, InputError, Tokenizer

from .output import write_csv
from .progress import console

OVERALL = "all"  # the class that stands for all texts


@dataclass(frozen=True, eq=False)
class Texts:
    """N tokenised texts of one split."""

    split: str
    positions: NDArray[np.integer]  # int64 (N,), in the split
    strings: list[str]  # what the network reads: the texts, or the prompts that they are put into
    sequences: Sequence[list[int]]  # token ids of each
    targets: NDArray[np.integer]  # int64 (N,), class numbers
    truncated: int = 0  # texts of the split of which only the end is read

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def lengths(self) -> NDArray[np.integer]:
        """Return how many tokens each text has, int64 (N,)."""
        return pack(self.sequences).lengths

    def select(self, positions: NDArray[np.integer]) -> "Texts":
        """Return the texts at these positions."""
        strings, sequences = [self.strings[i] for i in positions], pack(self.sequences).select(positions)
        return Texts(self.split, self.positions[positions], strings, sequences, self.targets[positions])

    @property
    def sha256(self) -> str:
        """SHA-256 of the token ids and class numbers, in order."""
        digest = hashlib.sha256(b"([")
        for i, ids in enumerate(self.sequences):  # by piece, what `repr` writes of the two lists
            digest.update(f"{', ' if i else ''}{ids}".encode())
        digest.update(f"], {self.targets.tolist()})".encode())
        return digest.hexdigest()


def read_texts(
    corpus: Corpus, tokenizer: Tokenizer, config: GPT2Config, truncate: bool, template: Template | None = None
) -> dict[str, Texts]:
    """Tokenise train, val and test, or the prompts that a template makes of them. Raises InputError where the model
    cannot read them."""
    check_pair(tokenizer, config)
    texts = {}
    for split in SPLITS:
        examples = corpus.split(split)
        if template:
            examples["text"] = examples["text"].map(template.fill)
        sequences, truncated = encode(tokenizer, examples, config.n_ctx, truncate)
        positions, strings = np.arange(len(sequences)), examples["text"].tolist()
        texts[split] = Texts(split, positions, strings, sequences, corpus.targets(split), truncated)
    return texts


def describe_texts(corpus: Corpus, texts: dict[str, Texts]) -> dict[str, Any]:
    """Print what a corpus holds, and return the same as JSON."""
    description = describe_corpus(corpus, {split: texts[split].lengths for split in SPLITS})
    console.print(f"Corpus {corpus.name}", render_description(description))
    for split in ("val", "test"):
        if missing := ", ".join(label for label, n in description["splits"][split]["classes"].items() if not n):
            line = f"{split} has no text of {missing}: recall, ROC AUC and the like are undefined there"
            console.print(line, markup=False)  # a label may look like it
    if len(corpus.skipped):
        console.print(f"{describe_skipped(corpus)}", soft_wrap=True)
    if truncated := sum(texts[split].truncated for split in SPLITS):
        console.print(f"{truncated} texts are longer than the model's context: only their end is read")
    return description | {"truncated": truncated}


def describe_skipped(corpus: Corpus) -> str:
    """Count the rows of a corpus that were skipped, by what is wrong with them, in words."""
    return describe_bad_rows(corpus.skipped, len(corpus.skipped) + len(corpus.examples), "are skipped")


def write_skipped(corpus: Corpus, path: Path) -> None:
    """Write the rows that were skipped, if any, to a table: file, line, kind, reason, content."""
    if len(corpus.skipped):
        write_csv(path, corpus.skipped)
        console.print(f"{path} lists the rows that were skipped")


def check_pair(tokenizer: Tokenizer, config: GPT2Config) -> None:
    """Raise InputError where the tokenizer has tokens that the model has not."""
    if len(tokenizer) > config.vocab_size:
        raise InputError(f"the tokenizer has {len(tokenizer)} tokens, the model only {config.vocab_size}: not a pair")


def check_text(text: str, tokenizer: Tokenizer, n_ctx: int, what: str = "text") -> list[int]:
    """Return the token ids of a text. Raises InputError for one without tokens, with too many, or not of Unicode."""
    try:
        text.encode()  # the tokenizer reads U+FFFD in its place
    except UnicodeEncodeError:
        raise InputError(f"{what}: expected Unicode, got half of a character (a lone surrogate)") from None
    ids = tokenizer.encode(text)
    if not ids:
        raise InputError(f"{what}: expected at least one character, got nothing; type a sentence")
    if len(ids) > n_ctx:
        raise InputError(f"{what}: expected at most {n_ctx:,} tokens, got {len(ids):,}; shorten it")
    return ids


def find_whole(texts: Texts, tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Return which texts the network reads from their first token on, bool (N,): of longer ones it reads the end."""
    pairs = zip(texts.sequences, texts.strings, strict=True)
    return np.array([len(ids) == len(tokenizer.encode(text)) for ids, text in pairs], dtype=bool)


def find_words(
    texts: Texts, tokenizer: Tokenizer, classes: Mapping[str, frozenset[str]]
) -> dict[str, list[NDArray[np.bool_]]]:
    """Return the tokens of each class of words: by class, one bool (T,) per text, True where a token is of it."""
    parsed = [words(text, tokenizer) for text in texts.strings]
    lengths = [len(tokenizer.encode(text)) for text in texts.strings]
    return {
        name: [
            tokens_of_class(text_words, vocabulary, n)[-len(ids) :]  # a long text was truncated to its end
            for text_words, n, ids in zip(parsed, lengths, texts.sequences, strict=True)
        ]
        for name, vocabulary in classes.items()
    }


def name_next_tokens(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """Return a name for each of these token ids: its piece, with its number where several pieces look alike, as halves
    of a character do."""
    pieces = [tokenizer.decode([token]) for token in tokens]
    return [
        f"{piece} ({token})" if pieces.count(piece) > 1 else piece for piece, token in zip(pieces, tokens, strict=True)
    ]
