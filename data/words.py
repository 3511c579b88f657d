"""Words with the BPE tokens that spell them, and classes of words: feelings, negations, pronouns ..."""

import html
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from model import Tokenizer

# Functions import nltk themselves: that takes a second, and most programs that import this package need no words.

PRONOUNS = (
    "i me my mine myself you your yours yourself yourselves he him his himself she her hers herself "
    "it its itself we us our ours ourselves they them their theirs themselves"
)
FEEL = "feel feels feeling feelings felt"
LABELS = {
    "sadness": "sad sadder saddest sadly sadness saddened sorrow sorrowful unhappy unhappiness",
    "joy": "joy joys joyful joyous happy happier happiest happily happiness glad",
    "love": "love loves loved loving lovely beloved affection affectionate",
    "anger": "anger angry angrier angriest angrily angered furious fury rage",
    "fear": "fear fears feared fearful fearfully afraid scared frightened",
    "surprise": "surprise surprises surprised surprising surprisingly amazed astonished",
}
CONTRACTION = re.compile(r"(.+)(n't|'(?:m|re|s|ve|d|ll))")
CONTRACTIONS = (  # that corpora also write without the apostrophe; not those that then spell a word: ill, well, its
    "i'm i've you're you've you'd you'll he's she's it'd it'll we've they're they've they'd they'll that's there's "
    "what's who's ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mustn't needn't "
    "shouldn't wasn't weren't won't wouldn't"
)
UNREADABLE = (LookupError, OSError, BadZipFile)  # data missing, damaged, or writable by others, which nltk refuses
BARE = {form.replace("'", ""): form for form in CONTRACTIONS.split()}


@dataclass(frozen=True)
class Word:
    """A word of a text: `text` is text[start:end], `tokens` are the positions of all tokens with a part of it."""

    text: str
    start: int
    end: int
    tokens: tuple[int, ...]


def words(text: str, tokenizer: Tokenizer) -> list[Word]:
    """Return a text's words, emoticons, hashtags and punctuation marks, in order, as nltk's TweetTokenizer cuts it.

    No two share a character; only telephone numbers and `. . .` contain white space. An HTML entity is read as its
    character; one without (`&none;`) belongs to no word, unless it lies within one."""
    from nltk.tokenize import TweetTokenizer

    straight = text.replace("’", "'")  # the only apostrophe that TweetTokenizer knows
    read, spans = as_read(straight)
    pieces = tokenizer.pieces(text)
    starts, ends = [start for _, start, _ in pieces], [end for _, _, end in pieces]
    text_words, position = [], 0
    for word in TweetTokenizer().tokenize(straight):
        position = read.index(word, position)  # only white space lies between two words
        start, end = spans[position][0], spans[position + len(word) - 1][1]
        tokens = range(bisect_right(ends, start), bisect_left(starts, end))
        text_words.append(Word(text[start:end], start, end, tuple(tokens)))
        position += len(word)
    return text_words


def as_read(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the text in which TweetTokenizer looks for words, and (start, end) in `text` for each of its characters.

    It replaces HTML entities by characters, and a longer run of one mark by three, of which the last then stands for
    the rest."""
    # TweetTokenizer's own rules: html.unescape differs, for it leaves unknown entities as they are.
    from nltk.tokenize.casual import ENT_RE, HANG_RE, _replace_html_entities

    spans = [(i, i + 1) for i in range(len(text))]
    for pattern, rewritten in ((ENT_RE, _replace_html_entities), (HANG_RE, lambda run: run[:3])):
        for match in reversed(list(pattern.finditer(text))):  # from the end, so that earlier matches keep their places
            start, end = match.span()
            new = rewritten(match[0])
            kept = spans[start : start + len(new)]
            if kept:
                kept[-1] = (kept[-1][0], spans[end - 1][1])
            text = text[:start] + new + text[end:]
            spans[start:end] = kept
    return text, spans


def word_of_token(text_words: Sequence[Word], pieces: Sequence[tuple[str, int, int]]) -> NDArray[np.int64]:
    """Return for each token the index of the word with which it shares most characters, int64 (T,): the first of
    equals, -1 if it shares none. `pieces` are `Tokenizer.pieces` of the text."""
    indices, most_shared = np.full(len(pieces), -1), [0] * len(pieces)
    for index, word in enumerate(text_words):
        for token in word.tokens:
            _, start, end = pieces[token]
            shared = min(end, word.end) - max(start, word.start)
            if shared > most_shared[token]:
                indices[token], most_shared[token] = index, shared
    return indices


def word_classes(labels: Iterable[str]) -> tuple[dict[str, frozenset[str]], list[str]]:
    """Return the vocabulary of each class of words, and a line for each class that lacks its data in nltk.

    sentiment: the opinion lexicon of Hu & Liu 2004, positive and negative. negation: the list of VADER, Hutto & Gilbert
    2014, and every ...n't. stop word: nltk's English ones. pronoun: personal, possessive and reflexive. label: the
    labels of a corpus and words close to them. feel: the forms of `feel`."""
    from nltk import corpus
    from nltk.sentiment.vader import VaderConstants

    classes: dict[str, frozenset[str]] = {}
    missing = []
    for name, package, file in (("sentiment", "opinion_lexicon", None), ("stop word", "stopwords", "english")):
        try:
            classes[name] = frozenset(getattr(corpus, package).words(file))
        except UNREADABLE:
            missing.append(left_out(f"class {name}", package))
    classes["negation"] = frozenset({*VaderConstants.NEGATE, "n't"})
    classes["pronoun"] = frozenset(PRONOUNS.split())
    classes["label"] = frozenset(word for label in labels for word in label_words(label))
    classes["feel"] = frozenset(FEEL.split())
    return classes, missing


def label_words(label: str) -> list[str]:
    """Return the words close to a label of a corpus, in lower case: those of its list, else the ones that it is of."""
    return LABELS.get(label.lower(), label.lower().replace("_", " ")).split()


def left_out(what: str, package: str) -> str:
    """Say in one line what is left out because nltk lacks a package, and what to do."""
    from nltk import data

    return (
        f"the {what} is left out: nltk's package {package} is missing or cannot be read; "
        f"run `make words` (searched: {', '.join(data.path)})"
    )


def tokens_of_class(text_words: Iterable[Word], vocabulary: frozenset[str], n_tokens: int) -> NDArray[np.bool_]:
    """Return which tokens are of a word of a class, one with any of its `forms` in `vocabulary`: bool (n_tokens,)."""
    member = np.zeros(n_tokens, dtype=bool)
    for word in text_words:
        if not vocabulary.isdisjoint(forms(word.text)):
            member[list(word.tokens)] = True
    return member


def forms(word: str) -> set[str]:
    """Return the forms to look a word up: lower case, and a contraction's two parts. Dont: dont, don't, do, n't."""
    lower = html.unescape(word).lower().replace("’", "'")
    whole = BARE.get(lower, lower)
    contraction = CONTRACTION.fullmatch(whole)
    return {lower, whole, *(contraction.groups() if contraction else ())}
