"""Words and the BPE tokens that spell them, and classes of words: feelings, negations, pronouns ..."""

import html
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from model import Tokenizer

# nltk is imported where it is used: that takes a second, and most of what imports this package asks for no words.

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
CONTRACTIONS = (  # which the corpora write without the apostrophe, but those that are then another word: ill, well, its
    "i'm i've you're you've you'd you'll he's she's it'd it'll we've they're they've they'd they'll that's there's "
    "what's who's ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mustn't needn't "
    "shouldn't wasn't weren't won't wouldn't"
)
UNREADABLE = (LookupError, OSError, BadZipFile)  # data not there, not whole, or open to others, which nltk refuses
BARE = {form.replace("'", ""): form for form in CONTRACTIONS.split()}


@dataclass(frozen=True)
class Word:
    """A word of a text: `text` is text[start:end], `tokens` are the positions of all tokens with a part of it."""

    text: str
    start: int
    end: int
    tokens: tuple[int, ...]


def words(text: str, tokenizer: Tokenizer) -> list[Word]:
    """The words, emoticons, hashtags and punctuation marks of a text, in order, as nltk's TweetTokenizer parts it.

    No two share a character, and white space is in none but telephone numbers and `. . .`. An HTML entity is the
    character it stands for: one that stands for none (`&none;`) is in no word, unless it lies within one."""
    from nltk.tokenize import TweetTokenizer

    straight = text.replace("’", "'")  # TweetTokenizer knows but one apostrophe
    read, spans = as_read(straight)
    pieces = tokenizer.pieces(text)
    starts, ends = [start for _, start, _ in pieces], [end for _, _, end in pieces]
    found, at = [], 0
    for word in TweetTokenizer().tokenize(straight):
        at = read.index(word, at)  # nothing but white space lies between two words
        start, end = spans[at][0], spans[at + len(word) - 1][1]
        tokens = range(bisect_right(ends, start), bisect_left(starts, end))
        found.append(Word(text[start:end], start, end, tuple(tokens)))
        at += len(word)
    return found


def as_read(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text in which TweetTokenizer looks for words, and (start, end) in `text` for each of its characters.

    It writes characters for HTML entities, and three for a longer run of the same mark, of which the last then stands
    for the rest."""
    from nltk.tokenize.casual import ENT_RE, HANG_RE, _replace_html_entities  # its own rules, as it applies them

    spans = [(i, i + 1) for i in range(len(text))]
    for pattern, rewritten in ((ENT_RE, _replace_html_entities), (HANG_RE, lambda run: run[:3])):
        for match in reversed(list(pattern.finditer(text))):  # from the end: what comes before keeps its place
            start, end = match.span()
            new = rewritten(match[0])
            kept = spans[start : start + len(new)]
            if kept:
                kept[-1] = (kept[-1][0], spans[end - 1][1])
            text = text[:start] + new + text[end:]
            spans[start:end] = kept
    return text, spans


def word_of_token(found: Sequence[Word], pieces: Sequence[tuple[str, int, int]]) -> NDArray[np.int64]:
    """int64 (T,): for each token the position in `found` of the word with which it shares most characters, the first
    of equals; -1 where it shares none. `pieces` are `Tokenizer.pieces` of the text."""
    owner, most = np.full(len(pieces), -1), [0] * len(pieces)
    for n, word in enumerate(found):
        for token in word.tokens:
            _, start, end = pieces[token]
            shared = min(end, word.end) - max(start, word.start)
            if shared > most[token]:
                owner[token], most[token] = n, shared
    return owner


def word_classes(labels: Iterable[str]) -> tuple[dict[str, frozenset[str]], list[str]]:
    """The vocabulary of each class of words, and for each class that nltk has no data for a line that says so.

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
    classes["label"] = frozenset(
        word for label in map(str.lower, labels) for word in LABELS.get(label, label.replace("_", " ")).split()
    )
    classes["feel"] = frozenset(FEEL.split())
    return classes, missing


def left_out(what: str, package: str) -> str:
    """The line that says what had to be left out, for nltk has no such data, and what to do."""
    from nltk import data

    return (
        f"the {what} is left out: nltk's package {package} is missing or cannot be read; "
        f"run `make words` (searched: {', '.join(data.path)})"
    )


def tokens_of_class(found: Iterable[Word], vocabulary: frozenset[str], n_tokens: int) -> NDArray[np.bool_]:
    """bool (n_tokens,): the tokens of the words of a class, those of which `vocabulary` has one of the `forms`."""
    member = np.zeros(n_tokens, dtype=bool)
    for word in found:
        if not vocabulary.isdisjoint(forms(word.text)):
            member[list(word.tokens)] = True
    return member


def forms(word: str) -> set[str]:
    """The ways to look a word up: in lower case, and of a contraction the two parts. Dont: dont, don't, do, n't."""
    lower = html.unescape(word).lower().replace("’", "'")
    whole = BARE.get(lower, lower)
    contraction = CONTRACTION.fullmatch(whole)
    return {lower, whole, *(contraction.groups() if contraction else ())}
