import warnings
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import entropy

from lab import probing
from lab.activations import Site
from lab.probing import (
    STRENGTHS,
    Task,
    accuracy,
    by_type,
    code_length,
    control_by_text,
    control_by_type,
    majority,
    probe,
    probe_sites,
)
from lab.stats import bootstrap

NAMES = ("one", "two", "three")


def task(y, control=None):
    split = np.random.default_rng(0).permuted(np.resize(["train", "train", "train", "val", "test"], len(y)))
    return Task(y, NAMES, split, control_by_text(y, 1) if control is None else control)


def planted(signal=5.0, n=1009, width=7):
    """Features (n, width), as far from one another in mean and spread as activations are, and the classes (n,) that
    the first three tell."""
    rng = np.random.default_rng(0)
    y = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    x = rng.normal(size=(n, width))
    x[np.arange(n), y] += signal
    return (x * 10 ** rng.uniform(-3, 3, width) + rng.normal(size=width)).astype(np.float32), y


def test_a_planted_property_is_found_and_its_control_is_not():
    x, y = planted()
    score = probe(x, task(y), 0)
    assert min(score.val_accuracy, score.accuracy, score.macro_f1) > 0.97
    assert score.control < 0.6
    assert score.selectivity == score.accuracy - score.control


def test_a_property_is_found_where_little_varies():
    """In one direction out of eleven, with a hundredth of the spread of the others."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1009, 11)), rng.integers(2, size=1009)
    x[:, 0] = 1e-2 * (2 * y - 1 + 0.2 * x[:, 0])
    mixed = (x @ np.linalg.qr(rng.normal(size=(11, 11)))[0]).astype(np.float32)
    assert probe(mixed, task(y), 0).accuracy > 0.97


@pytest.mark.parametrize("width", [3, 211, 701])
def test_features_that_repeat_or_never_change_do_no_harm(width):
    x, y = planted()
    x = np.hstack([np.resize(x.T, (width, len(x))).T, np.full((len(x), 2), 7, np.float32)])
    assert probe(x, task(y), 0).accuracy > 0.95


def test_features_are_levelled_half_of_the_way_to_whitening():
    """On the rows of train: no mean, no correlation, and along each principal component the root of its variance."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(211, 5)) @ rng.normal(size=(5, 5)) * 7 + 3).astype(np.float32)
    train = np.arange(211) < 150
    levelled = probing._levelled(x.copy(), train)
    assert levelled.dtype == np.float32
    np.testing.assert_allclose(levelled[train].mean(0), 0, atol=1e-5)
    variances = np.linalg.eigvalsh(np.corrcoef(x[train].T))
    np.testing.assert_allclose(np.cov(levelled[train].T, bias=True), np.diag(variances**0.5), atol=1e-4)


def test_nothing_is_found_in_noise():
    y = planted()[1]
    score = probe(np.random.default_rng(1).normal(size=(len(y), 7)).astype(np.float32), task(y), 0)
    assert score.accuracy == pytest.approx(majority(task(y)).accuracy, abs=0.05)
    assert score.macro_f1 < 0.4
    assert abs(score.selectivity) < 0.1


def test_numbers_are_those_of_a_probe_by_hand():
    """Three rows of test, of which the last lies on the wrong side."""
    x, y = np.zeros((106, 2), np.float32), np.resize([0, 2], 106)
    x[:, 0] = y
    x[105, 0] = 0
    control = np.where(np.arange(106) == 103, 2, y)
    score = probe(x, Task(y, NAMES, np.array(["train"] * 100 + ["val"] * 3 + ["test"] * 3), control), 0)
    assert (score.val_accuracy, score.accuracy) == (1, 2 / 3)
    assert (score.ci_low, score.ci_high) == (0, 1)
    assert score.macro_f1 == pytest.approx((2 / 3 + 2 / 3) / 2)  # of the classes that there are
    assert y[103:].tolist() == [2, 0, 2]
    assert (score.control, score.C) == (2 / 3, STRENGTHS[0])  # which do equally well


@pytest.mark.parametrize(("telling", "expected"), [("val", STRENGTHS[-1]), ("test", STRENGTHS[0])])
def test_the_strength_is_chosen_on_val(telling, expected):
    """Where x tells y, little regularisation does best; where y is always the most frequent class, much does."""
    rng = np.random.default_rng(0)
    y = (rng.random(307) < 0.3).astype(int)
    x = (y[:, None] + rng.normal(scale=0.2, size=(307, 1))).astype(np.float32)
    split = np.array(["train"] * 61 + ["val"] * 123 + ["test"] * 123)
    y[~np.isin(split, ["train", telling])] = 0
    score = probe(x, Task(y, NAMES, split, y), 0)
    assert (score.C, score.control) == (expected, score.accuracy)
    assert score.val_accuracy > 0.95
    assert score.accuracy < 0.85


@pytest.mark.parametrize(("hidden", "measured"), [("test", "val_accuracy"), ("val", "accuracy")])
def test_val_and_test_do_not_enter_the_fit(hidden, measured, monkeypatch):
    monkeypatch.setattr(probing, "STRENGTHS", (0.01,))
    x, y = planted(signal=1)
    own = task(y)
    before = getattr(probe(x, own, 0), measured)
    x[own.split == hidden] *= 50
    y[own.split == hidden] = 0
    assert getattr(probe(x, Task(y, NAMES, own.split, y), 0), measured) == before


def test_a_control_by_type_is_learnt_by_heart_only_where_types_come_again():
    rng = np.random.default_rng(0)
    of = rng.integers(37, size=1009)
    x = rng.normal(size=(37, 101)).astype(np.float32)[of]  # says which type, and nothing else
    y = rng.integers(3, size=37)[of]
    again = probe(x, task(y, control_by_type(of.astype(str), y, 3, 0)), 0)
    assert again.accuracy > 0.97
    assert abs(again.selectivity) < 0.03
    once = probe(x, task(y, control_by_type(np.arange(1009).astype(str), y, 3, 0)), 0)
    assert once.accuracy == again.accuracy
    assert once.selectivity > 0.4


def test_controls_have_the_shares_of_the_labels():
    y = np.random.default_rng(0).choice([0, 2], 5003, p=[0.9, 0.1])
    words = [f"w{i}" for i in range(5003)] + ["w7"] * 2000
    by_word = control_by_type(words, np.append(y, np.zeros(2000, int)), 3, 0)
    assert by_word.shape == (7003,)
    assert set(by_word[5003:]) == {by_word[7]}
    assert np.bincount(by_word[:5003], minlength=3) / 5003 == pytest.approx([0.93, 0, 0.07], abs=0.02)
    of_text = control_by_text(y, 0)
    assert np.bincount(of_text, minlength=3) / 5003 == pytest.approx([0.9, 0, 0.1], abs=0.02)
    assert np.corrcoef(of_text, y)[0, 1] == pytest.approx(0, abs=0.05)
    for seed, same in ((0, True), (1, False)):
        assert (control_by_text(y, seed) == of_text).all() == same
        assert (control_by_type(words[:5003], y, 3, seed) == control_by_type(words[:5003], y, 3, 0)).all() == same


def test_the_interval_is_that_of_resampled_rows():
    correct = np.arange(401) < 300
    [low, high] = bootstrap(lambda weights: {"accuracy": weights @ correct / 401}, 401)["accuracy"]
    found = accuracy(correct)
    assert found.accuracy == 300 / 401
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high), abs=0.006)
    assert accuracy(np.ones(5, bool)) == (1, 1, 1)
    assert accuracy(correct, 3) == accuracy(correct, 3) != accuracy(correct, 4)


def test_baselines_by_hand():
    words = ["sad", "sad", "sad", "joy", "new", "sad", "joy", "fog", "joy"]
    y = np.array([1, 1, 2, 0, 0, 1, 0, 2, 0])
    own = Task(y, NAMES, np.array(["train"] * 4 + ["val"] + ["test"] * 4), y)
    assert by_type(words, own).accuracy == 3 / 4  # fog is not in train: 1, as most are there
    assert majority(own).accuracy == 1 / 4
    own = Task(np.array([1, 1, 2, 0, 0, 1, 0, 1, 0]), NAMES, own.split, y)
    assert by_type(words, own) == (1, 1, 1)


def test_code_of_labels_by_hand():
    x = np.zeros((7, 2), np.float32)
    bits = np.log2(3) + 1 + 2 * np.log2(5 / 3) + 3 * np.log2(7 / 5)  # after 1, 2, 4 and 7 rows; Laplace's 2/4, 3/5, 5/7
    assert code_length(x, np.full(7, 2), 3, 0) == pytest.approx(bits)
    assert code_length(x[:2], np.array([0, 1]), 3, 0) == pytest.approx(np.log2(3) + 2)  # not seen before: 1/4
    assert code_length(x[:1], np.array([0]), 3, 0) == pytest.approx(np.log2(3))


def test_code_has_the_portions_of_voita_and_titov():
    """Of 1000 rows: all of one class, so that each portion costs what Laplace's rule makes of the rows before it."""
    ends = [1, 2, 4, 8, 16, 32, 63, 125, 250, 500, 1000]
    portions = sum((end - t) * np.log2((t + 5) / (t + 1)) for t, end in pairwise(ends))
    found = code_length(np.zeros((1000, 2), np.float32), np.full(1000, 3), 5, 0)
    assert found == pytest.approx(np.log2(5) + portions)


def test_code_is_short_where_x_tells_y():
    x, y = planted(signal=6, n=2003)
    noise = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    uniform, of_shares = len(y) * np.log2(3), len(y) * entropy(np.bincount(y) / len(y), base=2)
    assert code_length(x, y, 3, 0) < 0.25 * uniform
    assert of_shares * 0.99 < code_length(noise, y, 3, 0) < 1.05 * of_shares
    assert code_length(x, y, 3, 0) == code_length(x, y, 3, 0) != code_length(x, y, 3, 1)
    late = np.where(np.arange(2003) < 1990, y, 3)  # a class that early portions do not have
    assert np.isfinite(code_length(x, late, 5, 0))


def test_sites_are_probed_in_order_and_warnings_stay_inside(monkeypatch):
    monkeypatch.setattr(probing, "MAX_ITER", 1)
    x, y = planted()
    chosen = [Site("head", 0, 0), Site("resid", 1), Site("mlp", 0), Site("head", 0, 1), Site("head", 1, 0)]
    features = {site: np.roll(x, n, axis=0) if n else x for n, site in enumerate(chosen)}
    activations, calls = SimpleNamespace(of=features.__getitem__), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        scores = probe_sites(activations, chosen, task(y), 0, lambda: calls.append(0))
        assert scores == [probe(features[site], task(y), 0) for site in chosen]
        code_length(x, y, 3, 0)
        assert list(warnings.filters) == filters
    assert caught == []
    assert len(calls) == 5
    assert np.argmax([score.accuracy for score in scores]) == 0


def test_where_train_has_one_class_that_one_is_predicted():
    x, y = planted()
    own = task(y)
    y = np.where(own.split == "train", 1, y)
    score = probe(x, Task(y, NAMES, own.split, np.zeros_like(y)), 0)
    assert score.accuracy == majority(Task(y, NAMES, own.split, y)).accuracy
    assert score.control == 1


def test_rows_that_do_not_fit_together_are_refused():
    y, split = np.array([0, 1, 2]), np.array(["train", "val", "test"])
    with pytest.raises(ValueError, match="got 3, 3 and 2"):
        Task(y, NAMES, split, y[:2])
    with pytest.raises(ValueError, match="got none of test, val"):
        Task(y, NAMES, np.array(["train"] * 3), y)
    with pytest.raises(ValueError, match=r"expected 0..1, got \[2\]"):
        Task(y, NAMES[:2], split, y)
