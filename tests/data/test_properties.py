import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nltk_files import nltk_files

from data.properties import LENGTH, POSITION, in_scope, parts_of_speech, word_properties
from data.words import words
from model import Tokenizer

TOKENIZER = Tokenizer.load("gpt2-mini")
SENTENCES = {
    "Humiliated by antidisestablishmentarianism , she didn't cry .": "VBN IN NN , PPS DOD* VB .",
    "`` 1,000 dogs '' ?": "`` CD NNS '' .",
    "Jean-Paul of Foo !": "NP IN FW-NN .",
}
UNIVERSAL = {"VERB": "VBN DOD* VB", "ADP": "IN", "NOUN": "NN NNS NP", "PRON": "PPS", "NUM": "CD", ".": "`` '' , ."}
TAGGED = {
    ("humiliated", "verb"),
    ("by", "adposition"),
    ("antidisestablishmentarianism", "noun"),
    ("she", "pronoun"),
    ("didn't", "verb"),
    ("cry", "verb"),
    ("1,000", "numeral"),
    ("dogs", "noun"),
    ("jean-paul", "noun"),
    ("of", "adposition"),
    ("foo", "other"),
}


@pytest.fixture
def nltk_data(tmp_path, monkeypatch):
    """A Brown corpus of three sentences and a lexicon of six words, in the only folder where nltk looks."""
    head = ";;;;\n\n"  # nltk skips everything before the first blank line
    pairs = [zip(text.split(), tags.split(), strict=True) for text, tags in SENTENCES.items()]
    first, *rest = ["\n\n\t" + " ".join(map("/".join, sentence)) + "\n" for sentence in pairs]
    files = {
        "corpora/brown/cats.txt": "ca01 news\ncb01 news\n",
        "corpora/brown/ca01": first,
        "corpora/brown/cb01": "".join(rest),
        "taggers/universal_tagset/en-brown.map": "".join(
            f"{tag}\t{universal}\n" for universal, tags in UNIVERSAL.items() for tag in tags.split()
        ),
        "corpora/opinion_lexicon/positive-words.txt": head + "happy\nlike\nenvious\n",
        "corpora/opinion_lexicon/negative-words.txt": head + "sad\nill-fated\nenvious\n",
    }
    with nltk_files(files, tmp_path, monkeypatch) as folder:
        yield folder


def of(labelled):
    """(word, label) of all words, in order."""
    return [(word, labelled.names[label]) for word, label in zip(labelled.words, labelled.y, strict=True)]


def rows(labelled):
    """(text, token) of all words, in order."""
    return [(i, int(token)) for i, tokens in enumerate(labelled.positions) for token in tokens]


def labels(labelled, name):
    return [label for _, label in of(labelled[name])]


def check(labelled):
    """What holds of all words: each is read at its last token, up to which the text ends in it."""
    assert [i for i, _ in rows(labelled)] == labelled.text.tolist()
    assert len(labelled.words) == len(labelled.y) == len(labelled.text)
    assert labelled.y.dtype == labelled.text.dtype == np.int64
    assert len(labelled.positions) == len(labelled.sequences)
    for word, (i, token) in zip(labelled.words, rows(labelled), strict=True):
        assert TOKENIZER.decode(labelled.sequences[i][: token + 1]).casefold().endswith(word.casefold())


def test_words_of_brown_have_their_tags_at_their_last_tokens(nltk_data):
    labelled = parts_of_speech(TOKENIZER, 100, 1024, seed=0)
    check(labelled)
    assert set(of(labelled)) == TAGGED
    texts = [TOKENIZER.decode(ids) for ids in labelled.sequences]
    assert sorted(texts) == sorted(SENTENCES)
    long = texts.index(next(iter(SENTENCES)))
    pieces = [TOKENIZER.decode([token]) for token in labelled.sequences[long]]
    assert pieces[:3] == ["Hum", "iliated", " by"]
    assert labelled.positions[long][:2].tolist() == [1, 2]
    assert pieces[labelled.positions[long][4]] == "'t"


def test_so_many_words_of_brown_and_no_sentence_too_long(nltk_data):
    for n_words in (1, 4, 10):
        labelled = parts_of_speech(TOKENIZER, n_words, 1024, seed=0)
        check(labelled)
        assert len(labelled.y) == n_words
    first = len(parts_of_speech(TOKENIZER, 100, 1024, seed=0).positions[0])  # words of the first sentence
    assert [len(parts_of_speech(TOKENIZER, n, 1024, seed=0).sequences) for n in (first, first + 1)] == [1, 2]
    short = parts_of_speech(TOKENIZER, 100, 10, seed=0)
    check(short)
    assert {word for word, _ in of(short)} == {"1,000", "dogs", "jean-paul", "of", "foo"}
    exactly = max(map(len, parts_of_speech(TOKENIZER, 100, 1024, seed=0).sequences))
    assert len(parts_of_speech(TOKENIZER, 100, exactly, seed=0).y) == len(TAGGED)
    assert len(parts_of_speech(TOKENIZER, 100, exactly - 1, seed=0).y) < len(TAGGED)


def test_sentences_of_brown_come_at_random(nltk_data):
    first = {seed: parts_of_speech(TOKENIZER, 1, 1024, seed).words[0] for seed in range(20)}
    assert set(first.values()) == {"humiliated", "1,000", "jean-paul"}
    assert parts_of_speech(TOKENIZER, 1, 1024, 3).words == [first[3]]


@pytest.mark.parametrize("folder", ["corpora/brown", "taggers/universal_tagset"])
def test_without_brown_or_its_tags_one_line_says_so(nltk_data, folder):
    (nltk_data / folder).rename(nltk_data / "elsewhere")
    with pytest.raises(LookupError) as error:
        parts_of_speech(TOKENIZER, 100, 1024, seed=0)
    [line] = str(error.value).splitlines()
    assert line.startswith("the property part of speech is left out: nltk's package brown or universal_tagset ")
    assert "`make words`" in line
    assert str(nltk_data) in line


def of_texts(*texts, n_words=1000, cut=0, seed=0):
    """All properties of the words of these texts, of whose tokens the first are cut off, and what is missing."""
    sequences = [TOKENIZER.encode(text)[cut:] for text in texts]
    return word_properties(texts, sequences, TOKENIZER, n_words, seed)


@pytest.mark.parametrize(
    ("text", "negated"),
    [
        ("I am not sad today", "sad today"),
        ("not sad, and never happy. so fine", "sad and never happy"),  # the second is in the scope of the first
        ("nothing? it is. didnt cry! it is; cant : it is", "cry"),
        ("can’t stop... go on", "stop"),
        ("in no time without you !!!!! on", "time without you"),
        ("don&#39;t go", "go"),  # which is no word of letters alone, but negates
        ("it is knotty", ""),
    ],
)
def test_the_scope_of_a_negation_by_hand(nltk_data, text, negated):
    labelled, _ = of_texts(text)
    assert " ".join(word for word, label in of(labelled["negated"]) if label == "negated") == negated


def test_the_scope_is_that_of_nltk(nltk_data):
    from nltk.sentiment.util import mark_negation

    text = "i do not like it , at all . never ! no ; but nothing is not right : yes , none ? ok"
    labelled = words(text, TOKENIZER)
    marked = [word.endswith("_NEG") for word in mark_negation([word.text for word in labelled])]
    assert in_scope(labelled, frozenset({"not", "never", "no", "nothing", "none"})) == marked


def test_the_properties_of_words_by_hand(nltk_data):
    labelled, missing = of_texts("Happy :) I, ill-fated @me 3 envious SAD's", "", "anti-war don't")
    assert missing == []
    assert labelled["length"].words == ["happy", "i", "ill-fated", "envious", "sad's", "anti-war", "don't"]
    assert " ".join(labels(labelled, "sentiment")) == "positive neither negative neither negative neither neither"
    assert labels(labelled, "length") == ["5-6", "1-2", "7 or more", "7 or more", "4", "7 or more", "4"]
    assert labels(labelled, "position") == ["1-5"] * 7
    assert labelled["length"].text.tolist() == [0] * 5 + [2] * 2
    for of_property in labelled.values():
        check(of_property)
        assert of_property.positions is labelled["length"].positions


def test_the_bins_by_hand(nltk_data):
    labelled, _ = of_texts(" . ".join("a" * n for n in range(1, 26)))
    assert labels(labelled, "length") == [LENGTH[k] for k in [0, 0, 1, 2, 3, 3, *[4] * 19]]
    assert labels(labelled, "position") == [POSITION[k] for k in np.repeat(range(5), 5)]


def test_what_is_cut_off_is_not_there(nltk_data):
    text = "never mind antidisestablishmentarianism is sad"
    pieces = [piece for piece, _, _ in TOKENIZER.pieces(text)]
    cut = pieces.index(" mind") + 2  # within the long word
    labelled, _ = of_texts(text, cut=cut)
    check(labelled["position"])
    assert labelled["negated"].words == ["is", "sad"]
    assert labelled["negated"].positions[0].tolist() == [len(pieces) - cut - 2, len(pieces) - cut - 1]
    assert labels(labelled, "negated") == ["not negated"] * 2
    assert labels(labelled, "position") == ["1-5"] * 2


def test_so_many_words_at_random_in_the_order_of_texts(nltk_data):
    texts = ["i am not sad", "", "happy is what i like to be, but i am not", "sad sad sad"]
    whole, _ = of_texts(*texts)
    part, _ = of_texts(*texts, n_words=7)
    for name in whole:
        assert len(part[name].y) == 7
        every = dict(zip(rows(whole[name]), of(whole[name]), strict=True))
        assert [every[row] for row in rows(part[name])] == of(part[name])
        assert rows(part[name]) == sorted(rows(part[name]))
        assert rows(part[name]) == rows(of_texts(*texts, n_words=7)[0][name])
    assert len({tuple(rows(of_texts(*texts, n_words=7, seed=seed)[0]["length"])) for seed in range(5)}) == 5


def test_without_the_lexicon_a_line_says_so(nltk_data):
    (nltk_data / "corpora/opinion_lexicon").rename(nltk_data / "elsewhere")
    labelled, [message] = of_texts("i am not sad")
    assert set(labelled) == {"negated", "length", "position"}
    assert message.startswith("the property sentiment is left out: nltk's package opinion_lexicon ")
    assert "`make words`" in message
    assert "\n" not in message


FRAGMENTS = (
    "can't didnt #so @user http://t.co/x?a=1 :D xD <3 👍🏽 don’t naïve 日本 e\u0301 sad5 so5 D: 'll ... !!!! &amp;"
)
PARTS = [*FRAGMENTS.split(), "antidisestablishmentarianism", " ", " ", " "]


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(PARTS) | st.text(max_size=5)).map("".join), max_size=4), st.integers(0, 3))
@example(["", "\n"], 0)
def test_every_word_is_read_at_its_end(texts, cut):
    for labelled in of_texts(*texts, cut=cut)[0].values():
        check(labelled)
