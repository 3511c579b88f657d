import warnings
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binom, entropy

from experiments.probe import linear
from experiments.probe.linear import (
    STRENGTHS,
    Task,
    bootstrap_means,
    code_length,
    decode_correct,
    draw_control,
    encode_correct,
    majority_correct,
    probe,
    probe_sites,
    word_type_correct,
)
from lab.activations import Site

NAMES = ("one", "two", "three")


def task(y, control=None):
    split = np.random.default_rng(0).permuted(np.resize(["train", "train", "train", "val", "test"], len(y)))
    return Task(y, NAMES, split, np.arange(len(y)), control)


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
    score = probe(x, task(y, np.random.default_rng(1).permutation(y)))
    assert min(score.val_accuracy, score.accuracy, score.macro_f1) > 0.97
    assert score.control < 0.6
    assert score.selectivity > 0.4
    without = probe(x, task(y))
    assert without.control is without.selectivity is None


def test_a_property_is_found_where_little_varies():
    """In one direction out of eleven, with a hundredth of the spread of the others."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1009, 11)), rng.integers(2, size=1009)
    x[:, 0] = 1e-2 * (2 * y - 1 + 0.2 * x[:, 0])
    mixed = (x @ np.linalg.qr(rng.normal(size=(11, 11)))[0]).astype(np.float32)
    assert probe(mixed, task(y)).accuracy > 0.97


@pytest.mark.parametrize("width", [3, 211, 701])
def test_features_that_repeat_or_never_change_do_no_harm(width):
    x, y = planted()
    x = np.hstack([np.resize(x.T, (width, len(x))).T, np.full((len(x), 2), 7, np.float32)])
    assert probe(x, task(y)).accuracy > 0.95


def test_features_are_whitened_half_of_the_way():
    """On the rows of train: no mean, no correlation, and along each principal component the root of its variance."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(211, 5)) @ rng.normal(size=(5, 5)) * 7 + 3).astype(np.float32)
    train = np.arange(211) < 150
    whitened = linear._half_whitened(x.copy(), train)
    assert whitened.dtype == np.float32
    np.testing.assert_allclose(whitened[train].mean(0), 0, atol=1e-5)
    variances = np.linalg.eigvalsh(np.corrcoef(x[train].T))
    np.testing.assert_allclose(np.cov(whitened[train].T, bias=True), np.diag(variances**0.5), atol=1e-4)


def test_nothing_is_found_in_noise():
    y = planted()[1]
    labelled = task(y, np.random.default_rng(2).permutation(y))
    score = probe(np.random.default_rng(1).normal(size=(len(y), 7)).astype(np.float32), labelled)
    assert score.accuracy == pytest.approx(majority_correct(labelled).mean(), abs=0.05)
    assert score.macro_f1 < 0.4
    assert abs(score.selectivity) < 0.1


def test_numbers_are_those_of_a_probe_by_hand():
    """Three rows of test, of which the last lies on the wrong side."""
    x, y = np.zeros((106, 2), np.float32), np.resize([0, 2], 106)
    x[:, 0] = y
    x[105, 0] = 0
    control = np.where(np.arange(106) == 103, 2, y)
    split = np.array(["train"] * 100 + ["val"] * 3 + ["test"] * 3)
    score = probe(x, Task(y, NAMES, split, np.arange(106), control))
    assert (score.val_accuracy, score.accuracy) == (1, 2 / 3)
    assert score.correct.tolist() == [True, True, False]
    assert score.selectivity == 0
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
    score = probe(x, Task(y, NAMES, split, np.arange(307), y))
    assert (score.C, score.control) == (expected, score.accuracy)
    assert score.val_accuracy > 0.95
    assert score.accuracy < 0.85


@pytest.mark.parametrize(("hidden", "measured"), [("test", "val_accuracy"), ("val", "accuracy")])
def test_val_and_test_do_not_enter_the_fit(hidden, measured, monkeypatch):
    monkeypatch.setattr(linear, "STRENGTHS", (0.01,))
    x, y = planted(signal=1)
    labelled = task(y)
    before = getattr(probe(x, labelled), measured)
    x[labelled.split == hidden] *= 50
    y[labelled.split == hidden] = 0
    assert getattr(probe(x, Task(y, NAMES, labelled.split, labelled.text)), measured) == before


def test_a_control_by_type_is_learnt_by_heart_only_where_types_come_again():
    rng = np.random.default_rng(0)
    of = rng.integers(37, size=1009)
    x = rng.normal(size=(37, 101)).astype(np.float32)[of]  # says which type, and nothing else
    y = rng.integers(3, size=37)[of]
    again = probe(x, task(y, draw_control(of.astype(str), y, 3, "length", 0)))
    assert again.accuracy > 0.97
    assert abs(again.selectivity) < 0.03
    once = probe(x, task(y, draw_control(np.arange(1009).astype(str), y, 3, "length", 0)))
    assert once.accuracy == again.accuracy
    assert once.selectivity > 0.4


def test_controls_have_the_shares_of_the_labels():
    y = np.random.default_rng(0).choice([0, 2], 5003, p=[0.9, 0.1])
    words, y = [f"w{i}" for i in range(5003)] + ["w7"] * 2000, np.append(y, np.zeros(2000, int))
    by_word = draw_control(words, y, 3, "length", 0)
    assert by_word.shape == (7003,)
    assert set(by_word[5003:]) == {by_word[7]}
    assert np.bincount(by_word[:5003], minlength=3) / 5003 == pytest.approx([0.93, 0, 0.07], abs=0.02)
    assert np.corrcoef(by_word[:5003], y[:5003])[0, 1] == pytest.approx(0, abs=0.05)
    assert (draw_control(words, y, 3, "length", 0) == by_word).all()
    for what, seed in (("length", 1), ("position", 0)):  # each property has a stream of its own
        other = draw_control(words, y, 3, what, seed)
        assert np.corrcoef(by_word[:5003], other[:5003])[0, 1] == pytest.approx(0, abs=0.05)


def width(interval):
    mean, low, high = (ends.item() for ends in interval)
    assert low <= mean <= high
    return high - low


def test_the_interval_of_texts_is_that_of_a_share():
    correct = (np.arange(401) < 300)[:, None]
    mean, low, high = bootstrap_means(correct, np.arange(401))
    share, exact = 300 / 401, binom(401, 300 / 401)
    assert mean == share
    assert (low, high) == (
        pytest.approx(exact.ppf(0.025) / 401, abs=0.005),
        pytest.approx(exact.ppf(0.975) / 401, abs=0.005),
    )
    assert bootstrap_means(np.ones((5, 1), bool), np.arange(5)) == (1, 1, 1)


def test_words_that_repeat_within_a_text_say_no_more_than_their_text():
    """Twenty words of a text that are right or wrong together are one observation."""
    correct, text = (np.random.default_rng(0).random((101, 1)) < 0.8), np.arange(101)
    of_texts = bootstrap_means(correct, text)
    of_words = bootstrap_means(np.repeat(correct, 20, axis=0), np.repeat(text, 20) * 7)  # any numbers name the texts
    assert [ends.item() for ends in of_words] == pytest.approx([ends.item() for ends in of_texts])
    mixed = np.random.default_rng(1).permutation(np.repeat(correct, 20, axis=0))
    assert width(bootstrap_means(mixed, np.repeat(text, 20))) < 0.4 * width(of_texts)  # about 1 / sqrt(20)


@pytest.mark.parametrize("words", [1, 13])
def test_the_interval_holds_the_true_share_nineteen_times_in_twenty(words):
    """Texts of unequal length, whose words are right together more often than not."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        text = np.repeat(np.arange(83), rng.integers(1, words + 1, 83))
        correct = rng.random(len(text)) < rng.choice([0.5, 0.9], 83)[text]  # 0.7 on average
        _, low, high = bootstrap_means(correct[:, None], text)
        covered += bool(low <= 0.7 <= high)
    assert 180 <= covered <= 198


def test_the_interval_of_a_difference_is_paired():
    """Two that are right about the same rows but for eight differ for certain, however wide their own intervals are."""
    a = np.arange(200) < 130
    b = np.where(np.arange(200) % 25 == 0, False, a)
    columns = np.stack([a, b], axis=1).astype(int)
    _, low, high = bootstrap_means(columns, np.arange(200))
    assert low[0] < high[1]  # apart from one another they overlap
    _, low, high = bootstrap_means(columns[:, :1] - columns[:, 1:], np.arange(200))
    assert 0 < low < high < 0.06


def test_rows_that_are_right_are_kept_as_text():
    correct = np.random.default_rng(0).random((13, 3)) < 0.5
    assert encode_correct(np.array([True, False, True])) == "101"
    np.testing.assert_array_equal(decode_correct([encode_correct(column) for column in correct.T]), correct)


def test_baselines_by_hand():
    words = ["sad", "sad", "sad", "joy", "new", "sad", "joy", "fog", "joy"]
    y = np.array([1, 1, 2, 0, 0, 1, 0, 2, 0])
    labelled = Task(y, NAMES, np.array(["train"] * 4 + ["val"] + ["test"] * 4), np.arange(9))
    correct = word_type_correct(words, labelled)
    assert correct.tolist() == [True, True, False, True]  # fog is not in train: 1, as most of train is
    assert majority_correct(labelled).tolist() == [True, False, False, False]
    labelled = Task(np.array([1, 1, 2, 0, 0, 1, 0, 1, 0]), NAMES, labelled.split, labelled.text)
    assert word_type_correct(words, labelled).all()


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
    monkeypatch.setattr(linear, "MAX_ITER", 1)
    x, y = planted()
    chosen = [Site("head", 0, 0), Site("resid", 1), Site("mlp", 0), Site("head", 0, 1), Site("head", 1, 0)]
    features = {site: np.roll(x, n, axis=0) if n else x for n, site in enumerate(chosen)}
    activations, calls = SimpleNamespace(of=features.__getitem__), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        scores = probe_sites(activations, chosen, task(y), lambda: calls.append(0))
        for site, score in zip(chosen, scores, strict=True):
            assert score.correct.tolist() == probe(features[site], task(y)).correct.tolist()
        code_length(x, y, 3, 0)
        assert list(warnings.filters) == filters
    assert caught == []
    assert len(calls) == 5
    assert np.argmax([score.accuracy for score in scores]) == 0


def test_where_train_has_one_class_that_one_is_predicted():
    x, y = planted()
    labelled = task(y)
    y = np.where(labelled.split == "train", 1, y)
    labelled = Task(y, NAMES, labelled.split, labelled.text, np.zeros_like(y))
    score = probe(x, labelled)
    assert score.correct.tolist() == majority_correct(labelled).tolist()
    assert score.control == 1


def test_rows_that_do_not_fit_together_are_refused():
    y, split, text = np.array([0, 1, 2]), np.array(["train", "val", "test"]), np.arange(3)
    with pytest.raises(ValueError, match=r"got \[3, 3, 3, 2\]"):
        Task(y, NAMES, split, text, y[:2])
    with pytest.raises(ValueError, match=r"got \[3, 3, 2, 3\]"):
        Task(y, NAMES, split, text[:2])
    with pytest.raises(ValueError, match="got none of test, val"):
        Task(y, NAMES, np.array(["train"] * 3), text)
    with pytest.raises(ValueError, match=r"expected 0..1, got \[2\]"):
        Task(y, NAMES[:2], split, text)
    with pytest.raises(ValueError, match=r"expected 0..1, got \[2\]"):
        Task(np.zeros(3, int), NAMES[:2], split, text, y)
