"""Corrections of vectors, by hand and against the decomposition of the whole matrix."""

import numpy as np
import pytest

from experiments.embed.corrections import CORRECTIONS, SHARE_OF_TOP


@pytest.fixture
def train():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(211, 13)) @ rng.normal(size=(13, 13)) + 7 * rng.normal(size=13)).astype(np.float32)


@pytest.fixture
def other():
    return np.random.default_rng(1).normal(size=(5, 13)).astype(np.float32)


def test_nothing_is_changed_by_none(train, other):
    np.testing.assert_array_equal(CORRECTIONS["none"](train)(other), other)


def test_mean_and_deviation_are_those_of_train(train, other):
    mean, deviation = train.mean(0, dtype=float), train.std(0, dtype=float)
    np.testing.assert_allclose(CORRECTIONS["centre"](train)(other), other - mean, atol=1e-5)
    np.testing.assert_allclose(CORRECTIONS["standardise"](train)(other), (other - mean) / deviation, atol=1e-5)


def test_top_directions_are_those_of_most_variance(train, other):
    """Two of 200 dimensions, which were planted to vary most, are gone, and the others stay."""
    rng = np.random.default_rng(2)
    scales = np.ones(2 * SHARE_OF_TOP)
    scales[[3, 17]] = 40, 30
    wide = rng.normal(size=(1009, len(scales))) * scales
    corrected = CORRECTIONS["without_top"](wide)(wide)
    spread = corrected.std(0)
    assert spread[[3, 17]].max() < 0.3
    assert np.delete(spread, [3, 17]).min() > 0.8
    axis = np.linalg.svd(train - train.mean(0))[2][:1]  # of 13 dimensions, one is taken
    expected = (other - train.mean(0)) @ (np.eye(13) - axis.T @ axis)
    np.testing.assert_allclose(CORRECTIONS["without_top"](train)(other), expected, atol=1e-4)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_dimensions_that_never_change_do_no_harm(name, train, other):
    constant = np.full_like(train, 3.7)
    assert np.isfinite(CORRECTIONS[name](constant)(constant)).all()
    assert np.isfinite(CORRECTIONS[name](train[:1])(other)).all()
    if name != "none":
        np.testing.assert_allclose(CORRECTIONS[name](constant)(constant), 0, atol=1e-5)
