"""The words of several meanings that come with headgate, and what is refused."""

import re

import pytest

from data.senses import LEFT, RIGHT, AmbiguousWord, Sense, read_senses
from model import InputError, Tokenizer
from model.names import EMBEDDED


@pytest.fixture(scope="module")
def words():
    return read_senses()


def test_twelve_words_of_two_senses_with_six_sentences_each(words):
    assert len(words) == len({each.word for each in words}) == 12
    for each in words:
        assert [(len(sense.left), len(sense.right)) for sense in each.senses] == [(6, 6)] * 2


def test_the_word_ends_the_left_sentences_and_stands_only_there(words):
    for each in words:
        strings, spans, senses = each.read(LEFT)
        assert senses == [sense.name for sense in each.senses for _ in range(6)]
        for text, (start, end) in zip(strings, spans, strict=True):
            assert text[start:end] == each.word
            assert text.endswith(f" the {each.word}")  # so that the words just before it tell nothing
            assert re.findall(rf"\b{each.word}s?\b", text) == [each.word]


def test_no_position_gives_the_sense_away(words):
    tokenizer = Tokenizer.load(EMBEDDED)
    for each in words:
        strings, _, _ = each.read(LEFT)
        ids = [tokenizer.encode(text) for text in strings]
        assert {row[-1] for row in ids} == set(tokenizer.encode(f" {each.word}"))
        lengths = [len(row) for row in ids]
        assert max(lengths) - min(lengths) <= 6
        assert abs(sum(lengths[:6]) - sum(lengths[6:])) <= 6  # a token per sentence, on average


def test_right_sentences_begin_alike_and_go_on_differently(words):
    for each in words:
        strings, spans, _ = each.read(RIGHT)
        assert len(set(strings)) == 12
        assert {text[start:end] for text, (start, end) in zip(strings, spans, strict=True)} == {each.word}
        assert {text[: end + 1] for text, (_, end) in zip(strings, spans, strict=True)} == {f"{each.beginning} "}


def make(left=("by the bank", "on the bank"), right=("of mud", "of reeds"), beginning="at the bank", n=2):
    senses = (Sense("river", left, right), Sense("money", ("in the bank", "to the bank"), ("of London", "of Rome")))
    return AmbiguousWord("bank", beginning, senses[:n])


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"n": 1}, "bank: expected at least two senses, got 1"),
        ({"left": ("by the bank",)}, r"as many sentences left and right of each sense, got \[1, 2, 2, 2\]"),
        ({"left": ("by the bank", "the bank.")}, r"then 'bank' at the end: 'the bank\.'"),
        ({"left": ("by the bank", "bank")}, "expected other words and then 'bank' at the end: 'bank'"),
        ({"left": ("by the bank", "a sandbank")}, "at the end: 'a sandbank'"),
        ({"beginning": "at the river"}, "at the end: 'at the river'"),
        ({"right": ("of mud", " of reeds")}, "without space around them: ' of reeds'"),
        ({"right": ("of mud", "")}, "without space around them: ''"),
        ({"right": ("of mud", "of Rome")}, "expected each sentence once, got it twice: 'of Rome'"),
    ],
)
def test_what_teaches_nothing_is_refused(wrong, line):
    assert make().word == "bank"
    with pytest.raises(InputError, match=line):
        make(**wrong)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("bank = 3", r"bank: expected \[bank\] with a text called beginning; see senses.toml"),
        ("[bank]\nbeginning = 'at the bank'\n[bank.river]\nleft = ['a']", "bank.river: expected lists of texts called"),
        ("[bank]\nbeginning = 'a bank'\n[bank.river]\nleft = [1]\nright = ['a']", "bank.river: expected lists of"),
        ("[bank", "expected TOML in UTF-8"),
        ("[bank]\nbeginning = 'at the bank'", "bank: expected at least two senses, got 0"),
    ],
)
def test_a_wrong_file_is_named_once(tmp_path, text, line):
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=line) as refused:
        read_senses(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert str(refused.value).count(str(path)) == 1
