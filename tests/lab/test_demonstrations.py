"""Examples come from train alone, and a draw is a plan of its seed."""

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from lab.demonstrations import draw_demonstrations, make_pool
from lab.label_words import LabelWords
from lab.prompts import Demonstration
from lab.texts import Texts
from model import InputError

LABELS = ("no", "yes", "so")
WORDS = LabelWords(LABELS, (("bad",), ("good",), ("fine",)), (((1,),), ((2,),), ((3,),)))
POOL = [Demonstration(i, f"text {i}", i % 3) for i in range(60)]


def study_of(train, val=(), test=()):
    """Of (text, class number) pairs of train, and texts of val and test."""

    def texts_of(split, strings, targets):
        return Texts(split, np.arange(len(strings)), list(strings), [[1]] * len(strings), np.array(targets, int))

    strings, targets = zip(*train, strict=True)
    texts = {"train": texts_of("train", strings, targets)}
    texts |= {split: texts_of(split, rest, [0] * len(rest)) for split, rest in {"val": val, "test": test}.items()}
    return SimpleNamespace(texts=texts, clf=SimpleNamespace(labels=LABELS))


def test_the_pool_has_no_text_of_another_split_and_none_twice_or_with_two_labels(capsys):
    train = [
        ("i am well", 1),
        ("Bad  DAY", 0),  # val
        ("straße", 0),  # test
        ("why\tnot", 0),
        ("so so", 2),
        ("Why not ", 0),  # a repetition
        ("who knows", 0),
        ("WHO knows", 2),  # with another label
        ("who knows", 2),
        ("i am  not", 1),
    ]
    study = study_of(train, val=["bad day\n", "other"], test=[" STRASSE "])
    assert make_pool(study) == [
        Demonstration(0, "i am well", 1),
        Demonstration(3, "why\tnot", 0),
        Demonstration(4, "so so", 2),
        Demonstration(9, "i am  not", 1),
    ]
    printed = " ".join(capsys.readouterr().out.split())
    assert "4 of 10 texts of train" in printed
    assert "2 that stand in val or test too, 3 with two labels and 1 repetitions" in printed


def test_a_class_may_have_no_text_left():
    pool = make_pool(study_of([("a", 0), ("b", 1), ("c", 2)], test=["C"]))
    assert {each.target for each in pool} == {0, 1}


def test_a_draw_holds_as_many_texts_of_each_class_and_the_last_class_rotates():
    draws = [draw_demonstrations(POOL, 4, d, WORDS, 0) for d in range(6)]
    for draw in draws:
        assert Counter(each.target for each in draw) == {0: 4, 1: 4, 2: 4}
        assert len(set(draw)) == 12
    assert [draw[-1].target for draw in draws] == [0, 1, 2, 0, 1, 2]
    assert all(set(one) != set(other) for one, other in pairwise(draws))
    places = [{each.index // 3 for each in draws[0] if each.target == k} for k in range(3)]  # in the class
    assert places[0] != places[1] != places[2] != places[0]  # no class decides for another


def test_no_class_stands_at_one_place_but_the_last():
    firsts = Counter(draw_demonstrations(POOL, 2, 3 * d, WORDS, 0)[0].target for d in range(600))
    # behind the last one, of class 0, five others are in any order: one of class 0, two of each other
    assert firsts[0] / 600 == pytest.approx(1 / 5, abs=0.05)
    assert firsts[1] / 600 == pytest.approx(2 / 5, abs=0.06)


def test_a_draw_of_more_shots_holds_that_of_fewer_first():
    draws = {shots: draw_demonstrations(POOL, shots, 1, WORDS, 5) for shots in (0, 1, 4, 20)}
    assert draws[0] == ()
    for few, more in pairwise(draws):
        for k in range(3):
            of_fewer, of_more = ([each for each in draws[shots] if each.target == k] for shots in (few, more))
            assert of_fewer == of_more[:few]


def test_the_seed_decides():
    assert draw_demonstrations(POOL, 2, 1, WORDS, 7) == draw_demonstrations(POOL, 2, 1, WORDS, 7)
    assert set(draw_demonstrations(POOL, 2, 1, WORDS, 7)) != set(draw_demonstrations(POOL, 2, 1, WORDS, 8))


def test_too_few_texts_of_a_class_are_refused():
    with pytest.raises(InputError, match=r"--shots 20: expected .* got 19 of no; take fewer"):
        draw_demonstrations(POOL[1:], 20, 0, WORDS, 0)
