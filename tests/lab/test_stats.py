import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from lab import stats
from lab.stats import DRAWS, bootstrap, resamples


def mean_of(values):
    return lambda weights: {"mean": weights @ values / len(values)}


def test_every_resample_draws_n_texts_and_all_equally_often():
    weights = np.concatenate(list(resamples(50)))
    assert weights.shape == (DRAWS, 50)
    assert (weights.sum(1) == 50).all()
    assert weights.var() == pytest.approx(1 - 1 / 50, rel=0.05)  # each count is binomial(50, 1/50)
    assert weights.mean(0) == pytest.approx(np.ones(50), abs=5 * DRAWS**-0.5)


def test_the_interval_is_the_percentile_interval_of_scipy():
    values = np.random.default_rng(0).exponential(size=200)
    low, high = bootstrap(mean_of(values), 200)["mean"]
    peer = scipy_bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=1).confidence_interval
    assert (low, high) == pytest.approx((peer.low, peer.high), abs=0.1 * (high - low))


def test_the_interval_covers_the_truth_95_times_in_100():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(300, 100))
    intervals = np.array([bootstrap(mean_of(values), 100, seed)["mean"] for seed, values in enumerate(samples)])
    covered = ((intervals[:, 0] < 0) & (intervals[:, 1] > 0)).mean()
    assert 0.91 < covered < 0.98


def test_same_seed_same_interval_and_chunks_do_not_show(monkeypatch):
    metrics = mean_of(np.arange(100.0))
    whole = bootstrap(metrics, 100, seed=3)
    monkeypatch.setattr(stats, "CHUNK", 100 * 7)  # 7 draws at a time, and 6 at last
    assert [len(chunk) for chunk in resamples(100)][-2:] == [7, 6]
    assert bootstrap(metrics, 100, seed=3) == whole
    assert bootstrap(metrics, 100, seed=4) != whole


def test_undefined_draws_are_left_out():
    def metrics(weights):
        first_drawn = weights[:, 0] > 0
        return {"some": np.where(first_drawn, 2.0, np.nan), "never": np.full(len(weights), np.nan)}

    assert bootstrap(metrics, 10) == {"some": [2.0, 2.0], "never": None}
