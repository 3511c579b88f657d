import re
import runpy
import sys

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from nltk.tokenize import TweetTokenizer
from nltk_files import nltk_files

from data.words import Word, label_words, tokens_of_class, word_classes, word_of_token, words
from model import Tokenizer

TOKENIZER = Tokenizer.load("gpt2-mini")
HEADER = ";;;;;;;;\n;\n; Opinion Lexicon: {}\n;\n;;;;;;;;\n\n"  # nltk skips everything before the first blank line
RUN = re.compile(r"([\W_])\1{3}")  # of one mark: TweetTokenizer shortens these to three

FRAGMENTS = [
    "can't", "i'm", "didnt", "#so_sad", "@user", "http://t.co/x?a=1", "me@home.org", ":)", ":-(", "<3", "-->", "<br/>",
    "👩‍👩‍👧", "👍🏽", "🇩🇪", "☹️", "don’t", "naïve", "日本", "1,000", "555 123  4567", ". . .", "...", "!!!!!!", "????",
    "&", "; ", "&amp;", "&#39;", "&#x1F600;", "&nbsp;", "&lt;3", "&none;", "&#150;", "&#;", "&&&&&", " ", " ", " ",
    "   ", "\n",
]  # fmt: skip
any_text = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=5))).map("".join)


def covered(word):
    return set(range(word.start, word.end))


@settings(deadline=None)
@given(any_text)
@example("")
@example(" \n ")
def test_words_stand_in_order_where_the_text_has_them(text):
    text_words = words(text, TOKENIZER)
    expected = TweetTokenizer().tokenize(text.replace("’", "'"))
    assert [word.text for word in text_words] == [text[word.start : word.end] for word in text_words]
    assert len(text_words) == len(expected)
    edges = [edge for word in text_words for edge in (word.start, word.end)]
    assert edges == sorted(edges)
    assert all(0 <= word.start < word.end <= len(text) for word in text_words)
    if "&" not in text:
        between = set(range(len(text))).difference(*map(covered, text_words))
        assert all(text[i].isspace() for i in between)
        if not RUN.search(text):
            assert [word.text.replace("’", "'") for word in text_words] == expected


READINGS = {  # what TweetTokenizer reads for it; nowhere does a & meet a ; that would make another entity of them
    **{
        plain: plain for plain in ["sad", "don", "t", "i", " ", "  ", "!", ":", ")", "👩", "#so", "555", "é", "3", "'s"]
    },
    **{"&amp;": "&", "&#39;": "'", "&quot;": '"', "&lt;": "<", "&nbsp;": "\xa0", "&#x1F600;": "😀", "&eacute;": "é"},
    **{"&none;": "", "&#150;": "–", "&#129;": "", "&#32;": " "},
}


@settings(deadline=None)
@given(st.lists(st.sampled_from(sorted(READINGS)), min_size=1))
def test_an_entity_stands_for_its_character(fragments):
    reading = "".join(READINGS[fragment] for fragment in fragments)
    assume(not RUN.search(reading))
    source, text = [], ""  # where each character of the reading comes from
    for fragment in fragments:
        if fragment.startswith("&"):
            source += [(len(text), len(text) + len(fragment))] * len(READINGS[fragment])
        else:
            source += [(len(text) + i, len(text) + i + 1) for i in range(len(fragment))]
        text += fragment
    at, expected = 0, []
    for word in TweetTokenizer().tokenize(reading):
        at = reading.index(word, at)
        expected.append((source[at][0], source[at + len(word) - 1][1]))
        at += len(word)
    assert [(word.start, word.end) for word in words(text, TOKENIZER)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("i can't, :) #sad", ["i", "can't", ",", ":)", "#sad"]),
        ("you &amp; me, don&#39;t", ["you", "&amp;", "me", ",", "don&#39;t"]),
        ("a&nbsp;b &none; s&none;ad", ["a", "b", "s&none;ad"]),
        ("wow!!!!!! ok", ["wow", "!", "!", "!!!!", "ok"]),  # three words, the last has the rest
        ("&amp;&amp;&#38;&amp;&amp;", ["&amp;", "&amp;", "&#38;&amp;&amp;"]),  # a run only once it is read
        ("so . . . 555 123 4567", ["so", ". . .", "555 123 4567"]),
        ("see http://t.co/x?a=1&b=2; ok", ["see", "http://t.co/x?a=1", "ok"]),  # `&b=2;` is read as nothing
        ("👩‍👩‍👧 👍🏽", ["👩‍👩‍👧", "👍🏽"]),
    ],
)
def test_words_by_hand(text, expected):
    assert [word.text for word in words(text, TOKENIZER)] == expected


def test_tokens_by_hand():
    text = " Humiliated 😀!!"
    assert TOKENIZER.pieces(text) == [
        (" Hum", 0, 4),
        ("iliated", 4, 11),
        (" 😀", 11, 13),
        ("😀", 12, 13),
        ("!!", 13, 15),
    ]
    assert words(text, TOKENIZER) == [
        Word("Humiliated", 1, 11, (0, 1)),
        Word("😀", 12, 13, (2, 3)),  # both halves
        Word("!", 13, 14, (4,)),
        Word("!", 14, 15, (4,)),
    ]
    assert word_of_token(words(text, TOKENIZER), TOKENIZER.pieces(text)).tolist() == [0, 0, 1, 1, 2]


def test_a_token_goes_to_the_word_with_most_of_it():
    text_words = [Word("abc", 0, 3, (0, 1)), Word("defg", 3, 7, (1, 2)), Word("h", 8, 9, (4,))]
    pieces = [("ab", 0, 2), ("cde", 2, 5), ("fg", 5, 7), (" ", 7, 8), ("h", 8, 9)]
    assert word_of_token(text_words, pieces).tolist() == [0, 1, 1, -1, 2]
    equal = [Word("ab", 0, 2, (0,)), Word("cd", 2, 4, (0,))]
    assert word_of_token(equal, [("abcd", 0, 4)]).tolist() == [0]
    assert word_of_token([], []).shape == (0,)
    assert word_of_token(text_words, pieces).dtype == np.int64


@settings(deadline=None)
@given(any_text)
def test_every_word_knows_its_tokens_and_every_token_its_word(text):
    text_words, pieces = words(text, TOKENIZER), TOKENIZER.pieces(text)
    shared = np.zeros((len(pieces), len(text_words) + 1), dtype=int)  # the last column: no word
    for i, (_, start, end) in enumerate(pieces):
        for n, word in enumerate(text_words):
            shared[i, n] = len(covered(word) & set(range(start, end)))
    assert [word.tokens for word in text_words] == [tuple(np.flatnonzero(shared[:, n])) for n in range(len(text_words))]
    expected = [int(row.argmax()) if row.any() else -1 for row in shared]
    assert word_of_token(text_words, pieces).tolist() == expected


@pytest.fixture
def nltk_data(tmp_path, monkeypatch):
    """nltk's lists of words, in short, in the only folder where nltk looks."""
    files = {
        "stopwords/english": "i\nthe\nand\nis\ndon't\nit\n",
        "opinion_lexicon/positive-words.txt": HEADER.format("Positive") + "happy\nlike\n",
        "opinion_lexicon/negative-words.txt": HEADER.format("Negative") + "sad\nwell-worn\n",
    }
    files = {f"corpora/{name}": content for name, content in files.items()}
    with nltk_files(files, tmp_path, monkeypatch) as folder:
        yield folder


def of_class(text, vocabulary):
    """The words whose tokens are of the class, when each is looked up alone."""
    text_words, n_tokens = words(text, TOKENIZER), len(TOKENIZER.encode(text))
    return [word.text for word in text_words if tokens_of_class([word], vocabulary, n_tokens).any()]


TEXT = (
    "I don't like the happy Feelings, im SAD and furious; cannot feel its mixed well-worn joy. Nothing's ill, didnt it?"
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sentiment", ["like", "happy", "SAD", "well-worn"]),
        ("negation", ["don't", "cannot", "Nothing's", "didnt"]),
        ("stop word", ["I", "don't", "the", "im", "and", "it"]),
        ("pronoun", ["I", "im", "its", "it"]),
        ("label", ["happy", "Feelings", "SAD", "mixed", "joy"]),
        ("feel", ["Feelings", "feel"]),
    ],
)
def test_the_words_of_each_class(nltk_data, name, expected):
    classes, missing = word_classes(["Sadness", "joy", "mixed_feelings"])
    assert missing == []
    assert of_class(TEXT, classes[name]) == expected


def test_the_words_of_a_label():
    assert " ".join(label_words("Joy")) == "joy joys joyful joyous happy happier happiest happily happiness glad"
    assert label_words("Mixed_feelings") == ["mixed", "feelings"]


@pytest.mark.parametrize(
    ("word", "classes"),
    [
        ("I'm", {"pronoun", "stop word"}),
        ("youll", {"pronoun"}),
        ("mayn't", {"negation"}),  # not in VADER's list
        ("don&#39;t", {"negation", "stop word"}),
        ("don’t", {"negation", "stop word"}),
        ("it's", {"pronoun", "stop word"}),
        ("sad's", {"sentiment"}),
        ("hell", set()),  # not he'll
        ("want", set()),
        ("n't", {"negation"}),
    ],
)
def test_contractions_by_hand(nltk_data, word, classes):
    vocabularies, _ = word_classes([])
    assert {name for name, vocabulary in vocabularies.items() if of_class(word, vocabulary)} == classes


def test_the_tokens_of_a_class_by_hand():
    text = "so Humiliated, im Humiliated"
    assert [piece for piece, _, _ in TOKENIZER.pieces(text)] == ["so", " Hum", "iliated", ",", " im", " Hum", "iliated"]
    of = tokens_of_class(words(text, TOKENIZER), frozenset({"humiliated"}), 7)
    assert of.dtype == bool
    assert of.tolist() == [False, True, True, False, False, True, True]
    assert not tokens_of_class([], frozenset({"humiliated"}), 3).any()


@pytest.mark.parametrize(
    ("package", "name", "others"),
    [("opinion_lexicon", "sentiment", "stop word"), ("stopwords", "stop word", "sentiment")],
)
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_only_the_classes_without_data_are_left_out(nltk_data, package, name, others, damage):
    folder = nltk_data / "corpora" / package
    folder.rename(nltk_data / "elsewhere")
    if damage == "cut":
        folder.with_suffix(".zip").write_bytes(b"PK\x03\x04 and no more")
        folder.with_suffix(".zip").chmod(0o644)
    classes, [message] = word_classes(["joy"])
    assert set(classes) == {others, "negation", "pronoun", "label", "feel"}
    assert all(classes.values())
    assert f"class {name} is left out" in message
    assert f"package {package} " in message
    assert "`make words`" in message
    assert str(nltk_data) in message
    assert "\n" not in message


def test_the_module_is_there_without_nltk(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "nltk"]:
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails
    assert runpy.run_path(sys.modules["data.words"].__file__)["PRONOUNS"]
