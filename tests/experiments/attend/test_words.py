"""The mass on words: a plain loop over the attention of `transformers`, and all draws of random tokens one by one."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch

from experiments.attend.weights import read_sums
from experiments.attend.words import ANY, ELSEWHERE, choose_words, name_masses, tabulate_words
from lab.device import Device

CPU = Device(torch.device("cpu"), "fp32")
COLUMNS = ["layer", "head", "class", "words", "n", "mass", "random", "difference", "ci_low", "ci_high"]


@pytest.fixture
def members(sequences):
    """Classes of words: one in most texts, also at their first token, one in none."""
    rng = np.random.default_rng(1)
    some = [rng.random(len(ids)) < 0.4 for ids in sequences]
    return {"some": some, "none": [np.zeros(len(ids), dtype=bool) for ids in sequences]}


@pytest.fixture
def masses(each_clf, sequences, members, tmp_path):
    choose = partial(choose_words, members=members)
    return read_sums(each_clf.ours.trunk, sequences, choose, name_masses(members), CPU, tmp_path / "words.npy", {})


def draw_every(weights, positions, windows):
    """The mean mass (L, H) over all draws of as many tokens of a text as these, the first left out; in each layer as
    many as the last query sees, among all that it sees."""
    T, layers = weights.shape[-1], []
    for of_heads, window in zip(weights[:, :, -1], windows, strict=True):
        seen = range(max(1, T - window), T)
        draws = combinations(seen, len({*positions} & {*seen}))
        layers.append(np.mean([of_heads[:, list(drawn)].sum(-1) for drawn in draws], axis=0))
    return np.array(layers)


def test_masses_are_those_of_a_plain_loop_and_of_all_draws(sequences, attentions, windows, members, masses):
    targets, lengths = np.arange(len(sequences)) % 2, np.array([len(ids) for ids in sequences])
    table = tabulate_words(masses, members, lengths, windows, targets, ["a", "b", "nothing"])
    assert list(table) == [*COLUMNS, "minus_all", "minus_all_low", "minus_all_high"]
    each = {}
    for n, (weights, member) in enumerate(zip(attentions, members["some"], strict=True)):
        positions = [i for i in range(1, len(member)) if member[i]]
        if positions:
            each[n] = weights[:, :, -1, positions].sum(-1), draw_every(weights, positions, windows)
    assert 3 < len(each) < len(sequences)  # or no text would lack the words
    differences = {}
    for label, of in (("all", (0, 1)), ("a", (0,)), ("b", (1,))):
        kept = [each[n] for n in each if targets[n] in of]
        rows = table[(table["words"] == "some") & (table["class"] == label)]
        assert set(rows["n"]) == {len(kept)}
        mass, random = (np.mean(values, axis=0) for values in zip(*kept, strict=True))
        np.testing.assert_allclose(rows["mass"].to_numpy().reshape(3, 5), mass, atol=1e-6)
        np.testing.assert_allclose(rows["random"].to_numpy().reshape(3, 5), random, atol=1e-6)
        np.testing.assert_allclose(rows["difference"].to_numpy().reshape(3, 5), mass - random, atol=1e-6)
        differences[label] = mass - random
        minus_all = rows["minus_all"].to_numpy().reshape(3, 5)
        if label == "all":
            assert np.isnan(minus_all).all()
        else:
            np.testing.assert_allclose(minus_all, differences[label] - differences["all"], atol=1e-6)


def test_words_that_no_text_has_and_classes_without_texts_have_empty_cells(sequences, windows, members, masses):
    targets, lengths = np.zeros(len(sequences), dtype=int), np.array([len(ids) for ids in sequences])
    table = tabulate_words(masses, members, lengths, windows, targets, ["a", "nothing"])
    empty = table[(table["words"] == "none") | (table["class"] == "nothing")]
    assert (empty["n"] == 0).all()
    assert empty[[*COLUMNS[5:], "minus_all", "minus_all_low"]].isna().all(axis=None)
    assert len(table) == 2 * 3 * 15


def test_the_mass_on_any_token_and_elsewhere(attentions, masses):
    for n, weights in enumerate(attentions):
        np.testing.assert_allclose(masses[ANY][n], weights[:, :, -1, 1:].sum(-1), atol=1e-5)
        np.testing.assert_allclose(masses[ELSEWHERE][n], weights[:, :, -1, 1:-1].sum(-1), atol=1e-5)


def test_uniform_attention_looks_at_no_words_more_than_at_others_and_a_planted_head_does():
    rng, n, T = np.random.default_rng(0), 40, 8
    members = {"some": [rng.permutation([True, True, *[False] * 6]) for _ in range(n)]}
    m = np.array([text[1:].sum() for text in members["some"]])
    masses = {"some": np.zeros((n, 1, 3)), ANY: np.full((n, 1, 3), 7 / T)}
    masses["some"][:, 0, 0] = m / T  # head 0 attends uniformly
    masses["some"][:, 0, 1] = 7 / T
    rows = tabulate_words(masses, members, np.full(n, T), [T], np.zeros(n, dtype=int), ["a"])
    rows = rows[rows["class"] == "all"].set_index("head")
    assert rows.loc[0, "difference"] == pytest.approx(0, abs=1e-12)
    assert not rows.loc[0, "ci_low"] > 1e-9
    assert rows.loc[1, "ci_low"] > 0.3
    assert rows.loc[2, "ci_high"] < 0
