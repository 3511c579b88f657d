"""Means by class: a plain loop, and limits that hardly ever find something in labels that were shuffled."""

import numpy as np
import pytest

from experiments.attend.averages import average, group_texts, tabulate_heads
from lab.shares import FEWEST


def test_the_means_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    values, targets = rng.normal(size=(50, 3)), rng.integers(0, 3, 50)
    means = average(values, group_texts(targets, 4))  # nothing is of the last class
    assert means.n.tolist() == [50, *(int((targets == k).sum()) for k in range(3)), 0]
    for g, chosen in enumerate([targets >= 0, targets == 0, targets == 1, targets == 2]):
        np.testing.assert_allclose(means.value[g], [np.mean([v[u] for v in values[chosen]]) for u in range(3)])
    low, high = means.limits()
    assert (low[:4] < means.value[:4]).all()
    assert (high[:4] > means.value[:4]).all()
    assert np.isnan([means.value[4], low[4], high[4]]).all()
    difference, *_ = means.minus_first()
    np.testing.assert_allclose(difference[:3], means.value[1:4] - means.value[0])


def test_few_texts_have_a_mean_and_no_limits_and_do_not_widen_those_of_others():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 2))
    few = np.arange(60) < FEWEST - 1
    means = average(values, np.stack([np.ones(60, dtype=bool), few]))
    low, _ = means.limits()
    assert np.isfinite(means.value).all()
    assert np.isnan(low[1]).all()
    alone, _ = average(values, np.ones((1, 60), dtype=bool)).limits()
    np.testing.assert_allclose(low[0], alone[0])


def test_a_difference_from_all_texts_is_taken_on_the_same_resamples():
    """Of 30 texts 29 are of the class: its mean moves with that of all, their difference hardly."""
    rng = np.random.default_rng(0)
    values, targets = rng.normal(size=(30, 2)), np.zeros(30, dtype=int)
    targets[7] = 1
    means = average(values, group_texts(targets, 2))
    low, high = means.limits()
    _, difference_low, difference_high = means.minus_first()
    assert (difference_high - difference_low)[0].max() < 0.3 * (high - low)[1].min()


def test_few_texts_widen_the_limits_as_students_t_does():
    """By hand, of 12 texts and one mean: t with 11 degrees of freedom, times the standard error with n - 1 below."""
    values = np.random.default_rng(0).normal(size=(12, 1))
    low, high = average(values, np.ones((1, 12), dtype=bool)).limits()
    half = 2.201 * values.std(ddof=1) / np.sqrt(12)
    assert (high - low).item() / 2 == pytest.approx(half, rel=0.06)  # with the normal's 1.96, 15 % less


def test_shuffled_classes_hardly_ever_differ_from_all_texts():
    """Of 100 tables with nothing in them, some five may have a difference anywhere."""
    rng, false_tables = np.random.default_rng(0), 0
    for _ in range(100):
        values, targets = rng.exponential(size=(80, 6)), rng.integers(0, 3, 80)
        _, low, high = average(values, group_texts(targets, 3)).minus_first()
        false_tables += bool(((low > 0) | (high < 0)).any())
    assert false_tables <= 10


def test_a_class_that_differs_is_found():
    rng = np.random.default_rng(0)
    values, targets = rng.exponential(size=(80, 6)), rng.integers(0, 3, 80)
    values[targets == 1, 4] += 2
    _, low, high = average(values, group_texts(targets, 3)).minus_first()
    assert low[1, 4] > 0
    assert not (low[[0, 2], 4] > 0).any()
    assert not ((low > 0) | (high < 0))[:, [0, 1, 2, 3, 5]].any()


def test_rows_come_by_groups_layers_and_heads():
    table = tabulate_heads({"group": np.array(["a", "b"])[:, None], "value": np.arange(12).reshape(2, 6)}, 2, 2, 3)
    assert table.loc[7].tolist() == [0, 1, "b", 7]
    assert table.loc[5].tolist() == [1, 2, "a", 5]
    with pytest.raises(ValueError, match="broadcast"):
        tabulate_heads({"value": np.arange(5)}, 2, 2, 3)


def test_a_head_that_is_the_same_in_all_texts_does_not_widen_the_limits_of_others():
    rng = np.random.default_rng(0)
    values = np.column_stack([rng.normal(size=60), np.full(60, 0.9)])
    low, high = average(values, np.ones((1, 60), dtype=bool)).limits()
    alone, _ = average(values[:, :1], np.ones((1, 60), dtype=bool)).limits()
    assert low[0, 0] == pytest.approx(alone[0, 0])
    assert [low[0, 1], high[0, 1]] == pytest.approx([0.9, 0.9], abs=1e-9)
