"""Accuracy without important words: a plain loop, a table by hand, chance in a network that key words decide."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted import texts_of
from spelled import Speller, learnt_study, spell

from data.words import words as find_words
from experiments.explain import robustness, words
from experiments.explain.robustness import (
    DRAWS,
    ROBUSTNESS,
    SIZES,
    Trial,
    choose_important,
    limit_differences,
    measure_robustness,
    plan_trials,
    strike,
    tabulate_robustness,
)
from lab.removals import read_kept
from lab.texts import OVERALL


def name(token):
    return spell([token]).lower()


def rank(*by_class):
    """A table of words as words.py makes it: the words of each class a, b, ... by falling value, the last two not
    positive."""
    return pd.DataFrame(
        {"class": "abcd"[k], "word": word, "value": float(len(ranked) - 2 - i)}
        for k, ranked in enumerate(by_class)
        for i, word in enumerate(ranked)
    )


KEYS = rank(*[[name(k), name(k + 4), name(k + 8), name(22), name(21)] for k in range(4)])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return learnt_study(tmp_path_factory.mktemp("robustness"))


@pytest.fixture(scope="module")
def table(study):
    return measure_robustness(study, KEYS, study.run, 0)


def test_without_key_words_accuracy_falls_to_chance_and_without_others_it_does_not(study, table):
    assert list(table) == ROBUSTNESS
    assert list(zip(table["class"], table["k"], strict=True)) == [(c, k) for c in (OVERALL, *"abcd") for k in SIZES]
    assert set(table["removal"]) == {"hide"}
    row = table.set_index(["class", "k"]).loc[(OVERALL, 3)]
    assert (row["words"], row["hit"]) == (12, 1)
    assert row["whole"] > 0.95
    assert row["random"] > 0.95
    assert row["value"] < 0.4  # four classes
    assert row["ci_high"] < -0.5
    assert row["bag_of_words_whole"] > 0.95
    assert row["bag_of_words"] < 0.4
    assert row["n"] == len(study.texts["test"])
    pd.testing.assert_series_equal(table["difference"], table["value"] - table["random"], check_names=False)
    more = table[table["k"] > 3].drop(columns="k")
    less = table[table["k"] == 3].drop(columns="k").set_index("class")
    assert (more["words"] == np.repeat(less["words"].to_numpy(), 3)).all()  # no more words have a positive value
    assert (more["value"] == np.repeat(less["value"].to_numpy(), 3)).all()


def test_value_and_shares_are_those_of_a_plain_loop(study, table):
    test, rows = study.texts["test"], table.set_index(["class", "k"])
    for k, label in enumerate("abcd"):
        right, whole, hit, removed = [], [], [], []
        for ids, target in zip(test.sequences, test.targets, strict=True):
            if target == k:
                kept = np.array([[token not in (k, k + 4, k + 8) for token in ids], [True] * len(ids)])
                logits = read_kept(study.clf, ids, kept, "hide", study.device)
                right.append(logits[0].argmax() == k)
                whole.append(logits[1].argmax() == k)
                hit.append(not kept[0].all())
                removed.append(1 - kept[0].mean())
        row = rows.loc[(label, 3)]
        assert row["n"] == len(right)
        expected = [np.mean(values) for values in (right, whole, hit, removed)]
        assert row[["value", "whole", "hit", "removed"]].tolist() == pytest.approx(expected)


def test_random_is_the_mean_over_every_choice_of_other_words(study, tmp_path, monkeypatch):
    """With one key word in each text, there are six others."""
    monkeypatch.setattr(robustness, "DRAWS", 60)
    keys = rank(*[[name(k), name(k + 4), "", ""] for k in range(4)])
    table = measure_robustness(study, keys, tmp_path, 0).set_index(["class", "k"])
    assert (table["random"] > 0.9).all()  # or there is nothing to compare
    test, expected = study.texts["test"], []
    for ids, target in zip(test.sequences, test.targets, strict=True):
        kept = np.array([[place != other for place in range(7)] for other, token in enumerate(ids) if token > 7])
        expected.append(np.mean(read_kept(study.clf, ids, kept, "hide", study.device).argmax(axis=1) == target))
    assert table.loc[(OVERALL, 3), "random"] == pytest.approx(np.mean(expected), abs=0.01)


def test_random_words_are_others_as_many_and_the_same_for_all_trials():
    texts = texts_of("test", [[0, 8, 0, 9, 10, 11], [4, 0, 8], [9, 10]], np.array([0, 0, 1]))
    parsed = [find_words(spell(ids), Speller()) for ids in texts.sequences]
    trials = plan_trials(rank(["worda", "worde", "", ""], ["", ""]), texts, parsed, ["a", "b"], 3)
    assert [(each.label, each.k) for each in trials if each.text == 2] == [(OVERALL, k) for k in SIZES]  # b has none
    by_key = {(each.label, each.k, each.text): each for each in trials}
    assert by_key["a", 1, 0].important == (0, 2)
    assert by_key["a", 1, 1].important == (1,)
    assert by_key["a", 3, 1].important == (0, 1)
    assert by_key[OVERALL, 1, 2].important == ()
    assert by_key[OVERALL, 1, 2].random == [()] * DRAWS
    assert by_key["a", 3, 1].random == [(2,)] * DRAWS  # no more than one other
    assert by_key["a", 3, 0].vocabulary == 2
    draws = by_key["a", 1, 0].random
    assert len(draws) == DRAWS
    assert all(len(set(some)) == 2 and not {0, 2} & set(some) for some in draws)
    assert len(set(draws)) > 1
    assert by_key["a", 3, 0].random == by_key[OVERALL, 100, 0].random == draws
    other = plan_trials(rank(["worda", "worde", "", ""], ["", ""]), texts, parsed, ["a", "b"], 4)
    assert other[0].random != trials[0].random


def test_important_are_the_largest_positive_values():
    table = rank(["one", "two", "three", "zero", "less"], ["two", "four", "zero", "less"])
    assert choose_important(table, ["a"], 2) == {"one", "two"}
    assert choose_important(table, ["a"], 30) == {"one", "two", "three"}
    assert choose_important(table, ["a", "b"], 1) == {"one", "two"}
    assert choose_important(table, ["a", "b"], 2) == {"one", "two", "four"}


def test_a_struck_word_leaves_a_space():
    text = "So sad, so... well"
    parsed = find_words(text, type("Pieces", (), {"pieces": staticmethod(lambda text: [(text, 0, len(text))])})())
    assert [word.text for word in parsed] == ["So", "sad", ",", "so", "...", "well"]
    assert strike(text, parsed, ()) == text
    assert strike(text, parsed, (0, 2, 4)) == "  sad  so  well"


def test_a_table_by_hand():
    network = {(0, ()): True, (0, (1,)): False, (0, (0,)): True, (0, (2,)): False, (1, ()): True}
    network |= {(2, ()): False, (2, (0, 1)): True}
    bag = {(0, ()): True, (0, (1,)): False, (1, ()): False, (2, ()): False, (2, (0, 1)): False}
    trials = [
        Trial("a", 3, 2, 0, (1,), [(0,), (2,)]),
        Trial("a", 3, 2, 1, (), [(), ()]),
        Trial("a", 3, 2, 2, (0, 1), [(), ()]),
        Trial("b", 3, 2, 3, (), [(), ()]),  # a text without words
    ]
    network[3, ()] = bag[3, ()] = True
    row, wordless = tabulate_robustness(trials, network, bag, [4, 5, 2, 0]).to_dict("records")
    assert (wordless["removed"], wordless["hit"], wordless["n"]) == (0, 0, 1)
    expected = {"class": "a", "k": 3, "n": 3, "words": 2, "removed": (1 / 4 + 0 + 1) / 3, "whole": 2 / 3}
    expected |= {"value": 2 / 3, "random": (1 / 2 + 1 + 0) / 3, "difference": (-1 / 2 + 0 + 1) / 3, "hit": 2 / 3}
    expected |= {"short": 1 / 2, "bag_of_words": 0, "bag_of_words_whole": 1 / 3, "removal": "hide"}
    assert {key: row[key] for key in expected} == pytest.approx(expected)
    assert np.isnan([row["ci_low"], row["ci_high"]]).all()  # three texts


@pytest.mark.slow
def test_limits_hold_for_all_rows_at_once_and_only_for_enough_texts():
    rng, wrong = np.random.default_rng(0), 0
    members = np.zeros((120, 9))
    for row, n in enumerate((9, 10, 15, 20, 30, 40, 60, 100, 120)):
        members[:n, row] = 1
    for _ in range(200):
        # A word is hidden in six texts of ten, and loses one in five; random ones lose as many.
        hit, lost, lost_at_random = (
            rng.random((120, 9)) < 0.6,
            rng.random((120, 9)) < 0.2,
            rng.random((120, 9, 10)) < 0.2,
        )
        low, high = limit_differences(members * hit * (lost_at_random.mean(axis=2) - lost), members)
        assert np.isnan([low[0], high[0]]).all()
        wrong += ((low > 0) | (high < 0)).any()
    assert wrong <= 10
    differences = np.where(np.arange(120) % 3 == 0, -1.0, 0.0)[:, None] * members
    low, high = limit_differences(differences, members)
    assert (low[1:] < -1 / 3).all()
    assert (high[1:] > -1 / 3).all()
    assert (np.diff((high - low)[1:]) < 0).all()  # more texts, narrower limits
    assert high[-1] < 0
    for constant in (-1.0, 0.0, 1.0):  # ten texts that are all alike do not show that all texts are
        low, high = limit_differences(constant * members, members)
        assert (high[1:] - low[1:] > 1 / members.sum(axis=0)[1:]).all()
        assert (low[1:] >= -1).all()
        assert (high[1:] <= 1).all()


def test_what_was_read_before_is_taken_from_disk(study, table, monkeypatch):
    monkeypatch.setattr(words, "read_remains", None)
    again = measure_robustness(study, KEYS, study.run, 0)
    pd.testing.assert_frame_equal(again, table, check_exact=True)


def test_equal_rows_are_read_once(study, tmp_path, monkeypatch):
    read, rows = words.read_remains, []
    monkeypatch.setattr(
        words, "read_remains", lambda clf, some, device: [rows.extend(some), read(clf, some, device)][1]
    )
    measure_robustness(study, KEYS, tmp_path, 0)
    contents = [(tuple(row.ids), tuple(row.positions), tuple(row.filled)) for row in rows]
    assert len(set(contents)) > len(contents) - 40  # all but texts that come twice
    assert len(contents) < len(study.texts["test"]) * (2 + DRAWS) * 3


def test_texts_that_are_not_read_whole_do_not_count(study, tmp_path):
    test = study.texts["test"]
    longer = replace(test, strings=[f"{text} wordz" for text in test.strings[:20]] + test.strings[20:])
    table = measure_robustness(replace(study, texts=study.texts | {"test": longer}), KEYS, tmp_path, 0)
    assert (table.loc[table["class"] == OVERALL, "n"] == len(test) - 20).all()


def test_no_more_than_some_texts_are_drawn(study, tmp_path, monkeypatch):
    monkeypatch.setattr(robustness, "TEXTS", 30)
    tables = [measure_robustness(study, KEYS, tmp_path, seed).set_index(["class", "k"]) for seed in (0, 1)]
    assert [set(table.loc[OVERALL, "n"]) for table in tables] == [{30}, {30}]
    assert not tables[0].loc["a", "n"].equals(tables[1].loc["a", "n"])  # others with another seed


def test_without_words_or_texts_there_is_no_table(study, tmp_path):
    nothing = measure_robustness(study, KEYS[:0], tmp_path, 0)
    assert nothing.empty
    assert list(nothing) == ROBUSTNESS
    texts = study.texts | {"test": study.texts["test"].select(np.arange(0))}
    assert measure_robustness(replace(study, texts=texts), KEYS, tmp_path, 0).empty
