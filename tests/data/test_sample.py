"""What the embedded corpus promises, counted."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from data import read_corpus
from lab.baselines import baselines
from model import InputError

LABELS = ("sadness", "joy", "love", "anger", "fear", "surprise")
NAMED = {  # words that give a label away: its name, its forms and close synonyms
    "sadness": "sad sadder sadly sadness unhappy unhappily sorrow sorry grief grieve grieved grieving miserable misery "
    "heartbroken heartbreaking depressed depressing gloomy gloom lonely loneliness melancholy mourn mourned mourning "
    "upset hopeless disappointed disappointing disappointment cry cried cries crying tears weep wept weeping",
    "joy": "joy joyful happy happier happily happiness glad gladly delighted delight delightful cheerful elated "
    "thrilled ecstatic content contented pleased bliss blissful overjoyed excited excitement proud proudly pride "
    "enjoy enjoyed enjoying",
    "love": "love loved loves loving lovely beloved adore adored adores adoring affection affectionate fond cherish "
    "cherished tender tenderly tenderness sweetheart darling devoted devotion",
    "anger": "anger angry angrily angrier mad madden furious furiously fury rage raging annoyed annoying irritated "
    "irritating outraged outrage fuming livid resent resentful hate hated hates hateful seething frustrated "
    "frustration",
    "fear": "fear fears feared fearful afraid scared scary frightened frightening terrified terrifying terror anxious "
    "anxiety nervous nervously worried worry worries worrying dread dreading dreaded panic panicked panicking horror "
    "horrified",
    "surprise": "surprise surprised surprises surprising surprisingly amazed amazing amazement astonished astonishing "
    "astonishment shock shocked shocking stunned startled unexpected unexpectedly wow speechless baffled dumbfounded",
}


@pytest.fixture(scope="module")
def sample():
    return read_corpus("sample")


def words(text):
    return re.findall(r"[a-z0-9']+", text.lower())


def test_there_are_enough_texts_of_each_class(sample):
    assert sample.name == "sample"
    assert sample.labels == LABELS
    for split, least in {"train": 1200, "val": 300, "test": 300}.items():
        counts = Counter(sample.split(split)["label"])
        assert sum(counts.values()) >= least
        assert max(counts.values()) <= 2 * min(counts[label] for label in LABELS)


def test_texts_are_ascii_of_5_to_40_words_without_stray_space(sample):
    texts = sample.examples["text"]
    assert texts.map(str.isascii).all()
    assert (texts == texts.str.strip()).all()
    lengths = texts.map(lambda text: len(words(text)))
    assert lengths.between(5, 40).all()
    assert lengths.std() > 5


def test_no_text_stands_twice(sample):
    assert not sample.examples["text"].map(lambda text: " ".join(words(text))).duplicated().any()


def test_no_two_texts_share_most_of_their_word_trigrams(sample):
    seen = {}
    sets = [set(zip(w, w[1:], w[2:], strict=False)) for w in sample.examples["text"].map(words)]
    for number, trigrams in enumerate(sets):
        shared = Counter(other for trigram in trigrams for other in seen.get(trigram, ()))
        for other, n in shared.items():
            assert n < 0.6 * min(len(trigrams), len(sets[other])), sample.examples["text"].iloc[[other, number]]
        for trigram in trigrams:
            seen.setdefault(trigram, []).append(number)


def test_no_way_to_begin_is_a_template(sample):
    begins = Counter(" ".join(words(text)[:3]) for text in sample.examples["text"])
    assert max(begins.values()) <= 0.01 * len(sample.examples)


@pytest.mark.parametrize("label", LABELS)
def test_most_texts_show_their_emotion_without_naming_it(sample, label):
    texts = sample.examples[sample.examples["label"] == label]["text"]
    named = texts.map(lambda text: bool(set(words(text)) & set(NAMED[label].split()))).mean()
    assert 0.1 < named <= 1 / 3


def test_a_name_is_no_proof(sample):
    """Some texts name another emotion than theirs, so that looking for names is wrong now and then."""
    rows = sample.examples[["label", "text"]].itertuples(index=False)
    others = [any(set(words(text)) & set(NAMED[o].split()) for o in LABELS if o != label) for label, text in rows]
    assert 0.03 < sum(others) / len(others) < 0.3


def test_a_bag_of_words_finds_it_neither_trivial_nor_noise(sample):
    train, val, test = (
        (list(sample.split(split)["text"]), sample.targets(split)) for split in ("train", "val", "test")
    )
    assert 0.35 < baselines(train, val, test, sample.labels)["bag_of_words"]["test"]["accuracy"] < 0.75


def test_classes_are_mixed_within_each_file(sample):
    for split in ("train", "val", "test"):
        labels = list(sample.split(split)["label"])
        assert sum(a == b for a, b in pairwise(labels)) < len(labels) / 3


def test_a_folder_of_that_name_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sample").mkdir()
    with pytest.raises(InputError, match="expected one file each"):
        read_corpus("sample")
