"""Properties of words, for probes: parts of speech, and what each word of a corpus is in its text.

Letters: N words, K classes.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from model import Tokenizer

from .words import UNREADABLE, Word, forms, left_out, word_classes, words

TAGS = {  # Petrov, Das & McDonald 2012, without punctuation
    "NOUN": "noun",
    "VERB": "verb",
    "ADJ": "adjective",
    "ADV": "adverb",
    "PRON": "pronoun",
    "DET": "determiner",
    "ADP": "adposition",
    "CONJ": "conjunction",
    "PRT": "particle",
    "NUM": "numeral",
    "X": "other",
}
NEGATED = ("not negated", "negated")
SENTIMENT = ("neither", "positive", "negative")
LENGTHS, LENGTH = (2, 3, 4, 6), ("1-2", "3", "4", "5-6", "7 or more")
POSITIONS, POSITION = (5, 10, 15, 20), ("1-5", "6-10", "11-15", "16-20", "21 or later")
LETTERS = re.compile(r"[^\W\d_]+(?:['’-]+[^\W\d_]+)*")  # no number, mention, link, emoticon or punctuation
CLAUSE_END = re.compile(r"[.:;!?…\s]+")  # nltk's marks, and a run of them


@dataclass(frozen=True, eq=False)
class Labelled:
    """N words of texts, each with a label."""

    sequences: list[list[int]]  # token ids of the texts
    positions: list[NDArray[np.int64]]  # by text: the last token of each chosen word, int64 (n,), n may be 0
    words: list[str]  # (N,) in lower case, in the order of texts and positions
    y: NDArray[np.int64]  # (N,) class numbers
    names: tuple[str, ...]  # of the K classes
    text: NDArray[np.int64]  # (N,) the text of each word


def parts_of_speech(tokenizer: Tokenizer, n_words: int, n_ctx: int, seed: int) -> Labelled:
    """Label at most n_words words of random sentences of the Brown corpus with the universal tags of its annotators.

    Sentences are whole, with a space before each word and punctuation mark; one of more than n_ctx tokens is left out.
    Punctuation is read but not labelled. Raises LookupError, in one line, if nltk has no data."""
    sequences: list[list[int]] = []
    rows: list[tuple[int, int, str, str]] = []
    for sentence in _shuffle_brown(seed):
        if len(rows) >= n_words:
            break
        text = " ".join(word for word, _ in sentence)
        ids, ends = tokenizer.encode(text), [end for _, _, end in tokenizer.pieces(text)]
        if len(ids) > n_ctx:
            continue
        end = -1  # of the word, in characters
        for word, tag in sentence:
            end += 1 + len(word)
            if tag in TAGS:
                rows.append((len(sequences), bisect_right(ends, end) - 1, word.lower(), TAGS[tag]))
        sequences.append(ids)
    table = pd.DataFrame(rows[:n_words], columns=["text", "token", "word", "tag"])
    names = tuple(TAGS.values())
    return _label(sequences, table, table["tag"].map(names.index), names)


def word_properties(
    texts: Sequence[str], sequences: Sequence[list[int]], tokenizer: Tokenizer, n_words: int, seed: int
) -> tuple[dict[str, Labelled], list[str]]:
    """Label at most n_words random words of these texts by property; also return a line per property left out.

    sequences: the token ids of each text, or of its end; words that are cut off count as absent. Words consist of
    letters. All properties are of the same words: `sequences`, `positions`, `words`, `text` are the same.

    negated: `in_scope` of a negation. sentiment: by the opinion lexicon of Hu & Liu 2004, left out if nltk has no data.
    length: in letters. position: in the text, in words, from 1."""
    table = _tabulate(texts, sequences, tokenizer)
    rng = np.random.default_rng((seed, *b"words of texts"))
    table = table.sample(min(n_words, len(table)), random_state=rng).sort_index()
    labels = {
        "negated": (table["negated"], NEGATED),
        "length": (np.digitize(table["letters"], LENGTHS, right=True), LENGTH),
        "position": (np.digitize(table["position"], POSITIONS, right=True), POSITION),
    }
    missing = []
    try:
        labels["sentiment"] = table["word"].map(_read_sentiment()), SENTIMENT
    except UNREADABLE:
        missing.append(left_out("property sentiment", "opinion_lexicon"))
    shared = _label(list(sequences), table, *labels["negated"])
    labelled = {name: replace(shared, y=np.asarray(y, np.int64), names=names) for name, (y, names) in labels.items()}
    return labelled, missing


def _tabulate(texts: Sequence[str], sequences: Sequence[list[int]], tokenizer: Tokenizer) -> pd.DataFrame:
    """Return all words of the texts, one row each: `text, token, word, letters, negated, position`."""
    negation = word_classes(())[0]["negation"] | {"no"}  # which VADER's list leaves to its rules
    rows = []
    for i, (text, ids) in enumerate(zip(texts, sequences, strict=True)):
        last_words, position = _read_last_words(text, len(ids), tokenizer), 0
        for word, negated in zip(last_words, in_scope(last_words, negation), strict=True):
            if LETTERS.fullmatch(word.text):
                position += 1
                letters = sum(map(str.isalpha, word.text))
                rows.append((i, word.tokens[-1], word.text.lower(), letters, negated, position))
    return pd.DataFrame(rows, columns=["text", "token", "word", "letters", "negated", "position"])


def in_scope(text_words: Sequence[Word], negation: frozenset[str]) -> list[bool]:
    """Return which words of a text stand between a negation and the next of the marks . : ; ! ? (Das & Chen 2001; Pang
    et al. 2002; `mark_negation` of nltk). The negation that opens a scope is not in it. Without such a mark, a scope
    runs to the end of the text."""
    scoped, negated = [], False
    for word in text_words:
        negated &= not CLAUSE_END.fullmatch(word.text)
        scoped.append(negated)
        negated |= not negation.isdisjoint(forms(word.text))
    return scoped


def _read_last_words(text: str, n_tokens: int, tokenizer: Tokenizer) -> list[Word]:
    """Return the words that lie in a text's last n_tokens tokens, which are counted from 0."""
    cut = len(tokenizer.encode(text)) - n_tokens
    whole = [word for word in words(text, tokenizer) if word.tokens[0] >= cut]
    return [replace(word, tokens=tuple(token - cut for token in word.tokens)) for word in whole]


def _read_sentiment() -> Callable[[str], int]:
    """Return a function from a word to its number in SENTIMENT; the few words in both lists are neither."""
    from nltk.corpus import opinion_lexicon

    positive, negative = set(opinion_lexicon.positive()), set(opinion_lexicon.negative())
    numbers = dict.fromkeys(positive - negative, SENTIMENT.index("positive"))
    numbers |= dict.fromkeys(negative - positive, SENTIMENT.index("negative"))
    return lambda word: max(numbers.get(form, 0) for form in forms(word))


def _shuffle_brown(seed: int) -> Iterator[list[tuple[str, str]]]:
    """Yield the sentences of the Brown corpus at random, as (word, universal tag) pairs."""
    from nltk.corpus import brown

    try:
        sentences = list(brown.tagged_sents(tagset="universal"))
    except UNREADABLE:
        raise LookupError(left_out("property part of speech", "brown or universal_tagset")) from None
    order = np.random.default_rng((seed, *b"sentences of Brown")).permutation(len(sentences))
    return (sentences[i] for i in order)


def _label(sequences: list[list[int]], table: pd.DataFrame, y: ArrayLike, names: tuple[str, ...]) -> Labelled:
    """Return the words of a table, which has one row per word, in order, with `text, token, word`."""
    text, tokens = table["text"].to_numpy(np.int64), table["token"].to_numpy(np.int64)
    first_rows = np.searchsorted(text, np.arange(len(sequences)))  # of each text
    positions = np.split(tokens, first_rows)[1:]  # nothing lies before the first text
    return Labelled(sequences, positions, table["word"].tolist(), np.asarray(y, np.int64), names, text)
