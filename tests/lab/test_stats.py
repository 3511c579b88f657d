from itertools import permutations

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, t, ttest_ind, ttest_rel

from lab import stats
from lab.stats import (
    DRAWS,
    benjamini_hochberg,
    bootstrap,
    compare_with_first,
    concordance,
    holm,
    interval,
    mcnemar_p,
    permutation_p,
    resamples,
    simultaneous_limits,
)


def mean_of(values):
    return lambda weights: {"mean": weights @ values / len(values)}


@pytest.mark.parametrize("many", [49, 50])  # two ways to draw
def test_every_resample_draws_n_texts_and_all_equally_often(monkeypatch, many):
    monkeypatch.setattr(stats, "MANY", many)
    weights = np.concatenate(list(resamples(50)))
    assert weights.shape == (DRAWS, 50)
    assert (weights.sum(1) == 50).all()
    assert weights.var() == pytest.approx(1 - 1 / 50, rel=0.05)  # each count is binomial(50, 1/50)
    assert weights.mean(0) == pytest.approx(np.ones(50), abs=5 * DRAWS**-0.5)


@pytest.mark.slow
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


def test_intervals_of_many_numbers_are_those_of_each():
    values = np.random.default_rng(0).normal(size=(101, 2, 3))
    values[:7, 0, 1] = np.nan
    values[:, 1, 2] = np.nan
    low, high = interval(values)
    assert low.shape == high.shape == (2, 3)
    assert np.isnan([low[1, 2], high[1, 2]]).all()
    assert [low[0, 1], high[0, 1]] == np.percentile(values[7:, 0, 1], [2.5, 97.5]).tolist()
    assert [low[1, 0], high[1, 0]] == np.percentile(values[:, 1, 0], [2.5, 97.5]).tolist()


def statistic(values, labels, c):
    """|Welch's t| by scipy for each row of labels (draws, N); inf where neither side spreads but the means differ."""
    rows = np.broadcast_to(values, labels.shape)
    members, others = (rows[chosen].reshape(len(labels), -1) for chosen in (labels == c, labels != c))
    return np.nan_to_num(np.abs(ttest_ind(members, others, axis=1, equal_var=False).statistic), posinf=np.inf)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("labels", [[0, 2, 1, 1, 2, 1, 0], [0, 1, 0, 1, 0]])
def test_permutation_p_is_the_share_of_all_permutations(ties, labels):
    rng = np.random.default_rng(2)
    targets, N, K = np.array(labels), len(labels), max(labels) + 1
    values = rng.integers(-2, 3, size=(N, 2, K)) / 10 if ties else rng.exponential(size=(N, 2, K))
    values[targets == 1, 0, 1] += 9
    shuffled = np.array([targets[list(order)] for order in permutations(range(N))])
    draws = 20_000
    p = permutation_p(values, targets, draws)
    for u in range(2):
        for c in range(K):
            [observed] = statistic(values[:, u, c], targets[None], c)
            every = statistic(values[:, u, c], shuffled, c)
            exact = (every >= observed - 1e-9).mean()
            assert p[u, c] == pytest.approx(exact, abs=4.5 * (exact * (1 - exact) / draws) ** 0.5 + 1 / draws)
    ways = {7: 35, 5: 10}[N]  # to choose the texts of class 1, which are on top
    assert p[0, 1] == pytest.approx(1 / ways, abs=0.01)


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1e-4, 1e-2, 1.0])
def test_p_is_no_smaller_than_the_share_of_permutations_that_change_nothing(spread):
    """However little the classes spread: of the 70 ways to choose 4 of 8 texts, 2 set them as far apart, the class on
    top and at the bottom; of the 28 ways to choose 2 of them, 1."""
    half, two = np.array([0, 1, 0, 1, 1, 0, 0, 1]), np.array([0, 0, 1, 0, 0, 0, 1, 0])
    for targets, exact in ((half, 2 / 70), (two, 1 / 28)):
        values = np.where(targets == 1, 9.0, 0.0) + spread * np.random.default_rng(0).random(8)
        p = permutation_p(np.stack([values, -values], axis=1)[:, None], targets, 20_000)
        assert p == pytest.approx(np.full((1, 2), exact), abs=0.006)


def test_a_permutation_that_changes_nothing_is_as_extreme_in_whatever_order_sums_are_added():
    """A thousand texts in two classes that are far apart, and the same texts in another order."""
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1], 503)
    for spread in (1e-7, 1e-5, 1e-3):
        values = (targets[:, None, None] + spread * rng.normal(size=(1006, 50, 2))).astype(np.float32)
        scaled = stats._scale(values[:, :, 0])
        true = stats._compare_means(targets[None] == 1, scaled)
        order = rng.permutation(1006)
        again = stats._compare_means(np.repeat(targets[order][None] == 1, 9, axis=0), scaled[order])
        assert stats._at_least_as_extreme(again, true).all()
        assert true.error.max() < 1e-2 * true.difference.min()


def test_permutation_p_knows_no_scale_and_no_offset():
    rng = np.random.default_rng(3)
    targets, values = rng.integers(3, size=53), rng.normal(size=(53, 5, 3))
    p = permutation_p(values, targets, 499)
    assert len(np.unique(p)) > 10
    np.testing.assert_allclose(permutation_p(-1e-9 * values, targets, 499), p)
    np.testing.assert_allclose(permutation_p(1e3 * values + 7e3, targets, 499), p, atol=1.1 / 500)


def test_ties_in_float32_count_as_extreme():
    """One text in 1009 changes: every permutation gives the same statistic, in whatever order its sums are added."""
    targets = (np.arange(1009) < 500).astype(int)
    values = np.zeros((1009, 1, 2))
    values[3] = 0.1
    assert permutation_p(values, targets, 199)[0, 0] == 1  # Welch's t is 1, whichever class the text is in
    values[1003] = -0.1  # lost in the one class, won in the other: half of the permutations keep them together
    assert permutation_p(values, targets, 199)[0, 0] == pytest.approx(0.5, abs=0.2)


@pytest.mark.filterwarnings("error")
def test_no_change_gives_p_1_and_a_class_of_no_or_all_texts_has_none():
    targets = np.array([0, 0, 3, 3, 3])
    values = np.random.default_rng(0).normal(size=(5, 3, 4))
    values[:, 0] = 0
    values[:, 1] = 0.1  # the mean of five 0.1 is rounded
    p = permutation_p(values, targets, 99)
    assert (p[:2, [0, 3]] == 1).all()
    assert (p[2, [0, 3]] < 1).all()
    assert np.isnan(p[:, [1, 2]]).all()
    assert np.isnan(permutation_p(values, np.full(5, 3), 99)).all()


def test_permutation_p_refuses_nan():
    with pytest.raises(ValueError, match="finite"):
        permutation_p(np.full((5, 1, 2), np.nan), np.array([0, 1, 0, 1, 1]), 9)


def test_permutations_are_the_same_for_all_and_chunks_do_not_show(monkeypatch):
    rng = np.random.default_rng(4)
    targets, values = rng.integers(2, size=31), rng.normal(size=(31, 3, 1))
    whole = permutation_p(np.repeat(values, 2, axis=2), targets, 99)
    np.testing.assert_array_equal(whole[:, 0], whole[:, 1])  # one class's texts are the other's "all other texts"
    np.testing.assert_array_equal(permutation_p(np.repeat(values[:, :1], 2, axis=2), targets, 99), whole[:1])
    monkeypatch.setattr(stats, "PERMUTED", 31 * 7)
    np.testing.assert_array_equal(permutation_p(np.repeat(values, 2, axis=2), targets, 99), whole)


def test_under_random_labels_p_is_uniform():
    rng = np.random.default_rng(5)
    p = permutation_p(rng.normal(size=(60, 200, 3)), rng.integers(3, size=60), 999)
    assert 0.01 < (p < 0.05).mean() < 0.10
    assert np.quantile(p, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.06)


def test_a_class_that_only_spreads_more_than_the_others_is_not_found():
    rng = np.random.default_rng(7)
    targets, values = (np.arange(400) < 40).astype(int), rng.normal(size=(400, 200, 2))
    values[targets == 1] *= 3
    assert 0.02 < (permutation_p(values, targets, 999) < 0.05).mean() < 0.08  # by the difference alone it is 0.4


def test_holm_by_hand():
    adjusted = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.005]))
    np.testing.assert_allclose(adjusted, [0.03, 0.06, np.nan, 0.06, 0.02])  # 3 * 0.01, 2 * 0.03, 4 * 0.005; monotone
    np.testing.assert_allclose(holm(np.array([0.9, 0.6])), [1, 1])
    assert np.isnan(holm(np.full(3, np.nan))).all()


def test_benjamini_hochberg_by_hand():
    adjusted = benjamini_hochberg(np.array([0.01, 0.04, np.nan, 0.03, 0.005]))
    np.testing.assert_allclose(adjusted, [0.02, 0.04, np.nan, 0.04, 0.02])  # 0.01 * 4 / 2, 0.04 * 4 / 4
    assert np.isnan(benjamini_hochberg(np.full(3, np.nan))).all()


def test_mcnemar_by_hand():
    before = np.array([True] * 7 + [False] * 6)
    after = np.tile(before[:, None], 5)
    after[[0, 7, 8, 9, 10, 11], 1] ^= True  # 1 lost, 5 won
    after[[0, 1, 2], 2] ^= True  # 3 lost
    after[[0, 1, 7, 8], 3] ^= True  # as many
    after[[7, 0, 1, 2, 3, 4], 4] ^= True  # 5 lost, 1 won
    np.testing.assert_allclose(mcnemar_p(before, after), [1, 2 * 7 / 64, 2 / 8, 1, 2 * 7 / 64])


def test_simultaneous_limits_let_95_percent_of_the_largest_deviations_in():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 3))
    resampled = values + rng.normal(size=(1000, 2, 3)) * [[0.1, 1, 10], [2, 2, 2]]
    low, high = simultaneous_limits(values, resampled)
    inside = [((low <= draw) & (draw <= high)).all() for draw in resampled]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.002)
    reach = (high - low) / 2
    np.testing.assert_allclose((high + low) / 2, values)
    errors = np.array([[np.std(resampled[:, i, j], ddof=1) for j in range(3)] for i in range(2)])
    np.testing.assert_allclose(reach / errors, (reach / errors)[0, 0])  # as many standard errors for each
    assert 2.5 < (reach / errors)[0, 0] < 2.8  # of 6 independent normal ones: 2.63; of one alone 1.96
    alone = simultaneous_limits(values[0, :1], resampled[:, 0, :1])
    assert (alone[1] - alone[0]) / 2 / errors[0, 0] == pytest.approx(1.96, abs=0.15)
    together = np.repeat(resampled[:, :1, :1], 50, axis=1)
    low, high = simultaneous_limits(values[0, 0], together)
    np.testing.assert_allclose((high - low) / 2 / errors[0, 0], 1.96, atol=0.15)  # 50 that move as one


@pytest.mark.filterwarnings("error")
def test_simultaneous_limits_of_what_is_not_defined_or_never_changes():
    resampled = np.random.default_rng(0).normal(size=(200, 4))
    resampled[:, 1], resampled[:, 2], resampled[::3, 3] = np.nan, 0.5, np.nan
    low, high = simultaneous_limits(np.array([0, np.nan, 0.5, 0]), resampled)
    assert np.isnan([low[1], high[1]]).all()
    assert (low[2], high[2]) == (0.5, 0.5)
    assert low[3] < -1.5 < 1.5 < high[3]
    nothing = simultaneous_limits(np.array([np.nan]), np.full((9, 1), np.nan))
    assert np.isnan(nothing).all()


def test_concordance_of_runs_by_hand_and_beside_friedmans_test():
    scores = np.array([[0.1, 0.5, 0.2, 0.9], [1, 5, 3, 7], [-9, 4, -2, 8]])  # all rank 0, 2, 1, 3
    w, p = concordance(scores)
    assert (w, p) == (1, pytest.approx(1 / 24**2, rel=0.5))  # two runs happen to agree with the first
    ranks = np.array([[1, 2, 3, 4], [4, 3, 2, 1]])
    assert concordance(ranks) == (0, pytest.approx(1))
    scores = np.random.default_rng(0).normal(size=(3, 9))
    assert concordance(scores)[0] == pytest.approx(friedmanchisquare(*scores.T).statistic / (3 * 8))


@pytest.mark.slow
def test_runs_that_rank_at_random_agree_5_times_in_100():
    rng = np.random.default_rng(0)
    p = np.array([concordance(rng.normal(size=(3, 7)))[1] for _ in range(300)])
    assert 0.02 < (p < 0.05).mean() < 0.09
    agreeing = rng.normal(size=7)
    p = np.array([concordance(agreeing + rng.normal(size=(3, 7)) / 4)[1] for _ in range(50)])
    assert (p < 0.05).mean() > 0.8


def test_limits_of_few_texts_know_that_their_spread_is_uncertain():
    """48 means of 10 texts each, of which none differs from 0: without the number of texts, limits miss too often."""
    rng, missed = np.random.default_rng(0), {None: 0, 10: 0}
    weights = np.concatenate(list(stats.resamples(10))) / 10
    for _ in range(100):
        values = rng.normal(size=(10, 48))
        for n in missed:
            low, high = stats.simultaneous_limits(values.mean(axis=0), weights @ values, n and np.array(n))
            missed[n] += bool(((low > 0) | (high < 0)).any())
    assert missed[10] <= 12
    assert missed[None] > 30


def test_two_arms_on_the_same_texts_are_compared_by_the_paired_t_test():
    scores = np.array([[0.5, 0.52, 0.47, 0.5], [0.53, 0.53, 0.49, 0.55]])
    low, high, p = compare_with_first(scores, np.zeros(1))
    of_scipy = ttest_rel(scores[1], scores[0])
    assert p == pytest.approx(of_scipy.pvalue)
    assert [low[0], high[0]] == pytest.approx([*of_scipy.confidence_interval()])


def test_the_spread_of_seeds_comes_from_all_arms_and_that_of_texts_adds_to_it():
    """By hand: residuals are +-0.01 in two of three arms and 0 in the third, so their mean square is 4e-4 / 2 with
    2 degrees of freedom, and 2 / S of it is 2e-4. That the second seed is better in all arms by 0.03 does not count."""
    scores = np.array([[0.51, 0.49], [0.59, 0.61], [0.40, 0.40]]) + np.array([0.0, 0.03])
    low, high, p = compare_with_first(scores, np.array([0.0, 2e-4]))
    difference, error = np.array([0.1, -0.1]), np.sqrt([2e-4, 4e-4])
    np.testing.assert_allclose(low, difference - t.ppf(0.975, 2) * error)
    np.testing.assert_allclose(high, difference + t.ppf(0.975, 2) * error)
    np.testing.assert_allclose(p, 2 * t.cdf(-0.1 / error, 2))


def test_one_seed_has_no_limits_and_nothing_that_changes_is_certain():
    for ends in compare_with_first(np.array([[0.1], [0.2], [0.3]]), np.array([0.01, 0.01])):
        assert np.isnan(ends).tolist() == [True, True]
    low, high, p = compare_with_first(np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]), np.zeros(2))
    assert (low.tolist(), high.tolist(), p.tolist()) == ([0, 1], [0, 1], [1, 0])


def test_limits_end_where_no_difference_of_scores_can_be():
    low, high, _ = compare_with_first(np.array([[0.1, 0.9], [0.8, 0.3]]), np.zeros(1))
    assert (low.item(), high.item()) == (-1, 1)


def simulate(worlds, A, S, spread, difference=0.0):
    """Worlds of A arms with S seeds that read the same texts; only the last arm differs in truth.

    In standard deviations, the texts move each difference by 1, the seeds each seed's by `spread`."""
    rng, small = np.random.default_rng((A, S, spread)), 1e-3  # far from the limits of scores
    scores = rng.normal(size=(worlds, A, 1)) + spread * rng.normal(size=(worlds, A, S))
    scores = scores / np.sqrt(2) + 2 * rng.normal(size=(worlds, 1, S))  # a seed may be good for all arms
    scores[:, -1] += difference
    return compare_with_first(small * scores, np.full((worlds, A - 1), small**2))


@pytest.mark.parametrize("spread", [1, 3, 5])
@pytest.mark.parametrize("S", [2, 3, 5])
@pytest.mark.parametrize("A", [2, 7])
def test_of_equal_arms_hardly_one_call_in_twenty_finds_a_difference(A, S, spread):
    worlds = 4000
    low, high, p = simulate(worlds, A, S, spread)
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / worlds)
    assert np.mean([holm(each).min() < 0.05 for each in p]) < most
    assert np.mean((low > 0) | (high < 0)) < most  # each interval by itself


def test_a_large_difference_is_found_with_three_seeds_and_a_smaller_one_at_times():
    found = {}
    for size in (3, 8):  # in standard errors of a difference: of texts 1, of seeds 3 / sqrt(3)
        p = simulate(1000, 7, 3, 3, difference=size * 2)[2]
        found[size] = np.mean([holm(each)[-1] < 0.05 for each in p])
    assert found[8] > 0.99
    assert 0.2 < found[3] < 0.9
