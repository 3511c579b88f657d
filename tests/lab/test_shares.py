"""Temperatures, shares and verdicts: by definition, against a plain loop, and where there is nothing to find."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from sklearn.metrics import log_loss

from lab import shares
from lab.shares import FEWEST, fit_temperatures, judge_shares, measure_shares
from lab.stats import holm, permutation_p, resamples

LABELS = ["joy", "fear", "love", "anger"]
K, U = 4, 3


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    monkeypatch.setattr("lab.stats.DRAWS", 200)
    monkeypatch.setattr(shares, "permutation_p", lambda values, targets: permutation_p(values, targets, draws=199))


def sample(seed, n=61, R=2, effects=(0.9, 0.5, 1.4)):
    """Logits that follow the targets, and those of networks that keep so much of class 0 and add noise."""
    rng = np.random.default_rng(seed)
    targets = rng.permutation(np.arange(n) % K)
    baseline = 2.0 * np.eye(K)[targets] + rng.normal(size=(n, K))
    weights = np.ones((len(effects), 1, 1, K))
    weights[..., 0] = np.array(effects)[:, None, None]
    ablated = baseline[:, None] * weights + 0.3 * rng.normal(size=(len(effects), n, R, K))
    return baseline, ablated, targets


def by_definition(logits, targets, temperature):
    """Specific margins (K,) of logits (N, R, K)."""
    p = np.exp(log_softmax(logits / temperature, axis=-1))
    log_odds = (np.log(p) - np.log1p(-p)).mean(1)
    return np.array([log_odds[targets == k, k].mean() - log_odds[targets != k, k].mean() for k in range(K)])


def measure(seed=0, permute=False, **settings):
    """The shares of one sample, whose temperatures another one gave."""
    temperatures = fit_temperatures(*sample(seed + 100, n=59))
    return measure_shares(*sample(seed), LABELS, temperatures, permute=permute, **settings), temperatures


def test_the_temperature_makes_the_true_classes_most_likely():
    baseline, ablated, targets = sample(0)
    fitted = fit_temperatures(baseline, ablated, targets).fitted
    for network, temperature in zip([baseline[:, None], *ablated], fitted, strict=True):

        def loss(log_temperature, network=network):
            p = np.exp(log_softmax(network / np.exp(log_temperature), axis=-1))
            return np.mean([log_loss(targets, p[:, r], labels=range(K)) for r in range(p.shape[1])])

        best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-8})
        assert np.log(temperature) == pytest.approx(best.x, abs=1e-5)


def test_a_temperature_follows_the_scale_of_the_logits_exactly():
    baseline, ablated, targets = sample(0)
    plain = fit_temperatures(baseline, ablated, targets)
    scaled = fit_temperatures(3 * baseline, 0.2 * ablated, targets)
    np.testing.assert_allclose(scaled.fitted, plain.fitted * [3, 0.2, 0.2, 0.2], rtol=1e-6)
    np.testing.assert_allclose(scaled.resampled, plain.resampled, rtol=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("n", "floor"), [(40, 0.1), (200, 0.05)])
def test_where_all_texts_are_right_the_loss_is_not_taken_below_10_nats(n, floor):
    targets = np.arange(n) % K
    baseline = np.eye(K)[targets] * np.linspace(1, 2, n)[:, None]
    fit = fit_temperatures(baseline, baseline[None, :, None], targets)
    assert log_loss(targets, np.exp(log_softmax(baseline / fit.fitted[0], axis=-1))) == pytest.approx(floor)
    for drift, weights in zip(fit.resampled[:9, 0], next(resamples(n, shares.SEED)).astype(int), strict=False):
        texts = np.repeat(np.arange(n), weights)
        again = fit_temperatures(baseline[texts], baseline[None, texts, None], targets[texts])
        assert again.fitted[0] / fit.fitted[0] == pytest.approx(drift, rel=0.01)
    assert fit.resampled.std() > 0.01


def test_resamples_of_val_have_nothing_to_do_with_those_of_test():
    baseline, ablated, targets = sample(0)
    fit = fit_temperatures(baseline, ablated, targets)
    margins = shares.resample_margins(baseline[None], targets)[:, 0, 0]
    assert abs(np.corrcoef(fit.resampled[:, 0], margins)[0, 1]) < 0.2


def test_of_few_texts_of_val_nothing_is_judged():
    for n, verdicts in ((shares.FEWEST_VAL - 1, {"open"}), (shares.FEWEST_VAL, {"open", "matters"})):
        temperatures = fit_temperatures(*sample(100, n=n, effects=(0.9, 0.0)))
        table = measure_shares(*sample(0, n=200, effects=(0.9, 0.0)), LABELS, temperatures)
        assert set(table["verdict"]) == verdicts
        assert table["share"].notna().all()


@pytest.mark.filterwarnings("error")
def test_logits_that_say_nothing_become_flat():
    baseline, ablated, targets = sample(0)
    turned = fit_temperatures(-baseline, np.zeros_like(ablated), targets)
    assert turned.fitted[0] > 1000
    assert np.isfinite(turned.resampled).all()
    table = measure_shares(baseline, -ablated, targets, LABELS, fit_temperatures(baseline, -ablated, targets))
    np.testing.assert_allclose(table["share"], -1, atol=0.01)


def test_resampled_temperatures_are_near_those_of_the_same_resamples():
    baseline, ablated, targets = sample(0, n=401)
    fit = fit_temperatures(baseline, ablated, targets)
    exact = []
    for weights in np.concatenate(list(resamples(401, shares.SEED)))[:50].astype(int):
        texts = np.repeat(np.arange(401), weights)
        exact.append(fit_temperatures(baseline[texts], ablated[:, texts], targets[texts]).fitted / fit.fitted)
    np.testing.assert_allclose(fit.resampled[:50], exact, atol=0.02)
    assert np.std(exact, axis=0).min() > 0.04  # they differ by more than that
    ratios = fit.resampled[:, 1] / fit.resampled[:, 0]  # the networks share the texts
    assert ratios.std() < 0.5 * fit.resampled[:, 0].std()


def test_shares_are_the_effects_of_their_definition():
    baseline, ablated, targets = sample(0)
    table, temperatures = measure(permute=True)
    assert " ".join(table) == (
        "unit class metric n baseline ablated effect share ci_low ci_high p p_corrected share_low share_high verdict"
    )
    networks = [baseline[:, None], *ablated]
    margins = np.array(
        [by_definition(*each) for each in zip(networks, [targets] * 4, temperatures.fitted, strict=True)]
    )
    assert table["unit"].tolist() == np.repeat(np.arange(U), K).tolist()
    assert table["class"].tolist() == LABELS * U
    np.testing.assert_allclose(table["baseline"], np.tile(margins[0], U))
    np.testing.assert_allclose(table["ablated"], margins[1:].ravel())
    np.testing.assert_allclose(table["effect"], (margins[1:] - margins[0]).ravel())
    np.testing.assert_allclose(table["share"], (margins[1:] / margins[0] - 1).ravel())
    assert table["n"].tolist() == np.bincount(targets).tolist() * U
    np.testing.assert_allclose(table["p_corrected"], holm(table["p"].to_numpy()))
    assert table["p"].between(0.005, 1).all()
    assert measure()[0]["p"].isna().all()


def test_limits_are_those_of_a_plain_loop_over_resamples_of_the_texts_and_of_the_temperatures():
    baseline, ablated, targets = sample(0)
    table, temperatures = measure()
    drawn = []
    for weights, drift in zip(np.concatenate(list(resamples(61))).astype(int), temperatures.resampled, strict=True):
        texts, T = np.repeat(np.arange(61), weights), temperatures.fitted * drift
        networks = [baseline[texts, None], *ablated[:, texts]]
        drawn.append([by_definition(*each) for each in zip(networks, [targets[texts]] * 4, T, strict=True)])
    drawn = np.array(drawn)  # (S, 1 + U, K)
    np.testing.assert_allclose(
        table[["ci_low", "ci_high"]].T.to_numpy(),
        np.percentile((drawn[:, 1:] - drawn[:, :1]).reshape(200, -1), [2.5, 97.5], axis=0),
        atol=0.03,
    )
    ratios = (drawn[:, 1:] / drawn[:, :1] - 1).reshape(200, -1)
    errors = ratios.std(0, ddof=1)
    reach = np.quantile(np.abs((ratios - table["share"].to_numpy()) / errors).max(1), 0.95) * errors
    np.testing.assert_allclose((table["share_high"] - table["share_low"]) / 2, reach, rtol=0.05)
    np.testing.assert_allclose((table["share_high"] + table["share_low"]) / 2, table["share"])


def test_one_class_alone_is_a_family_of_its_own():
    whole, alone = measure(permute=True)[0], measure(permute=True, only="love")[0]
    of_love = whole[whole["class"] == "love"].reset_index(drop=True)
    same = ["unit", "class", "n", "baseline", "effect", "ci_low", "p", "share"]
    pd.testing.assert_frame_equal(alone[same], of_love[same])
    assert (alone["share_low"] > of_love["share_low"]).all()
    assert (alone["p_corrected"] <= of_love["p_corrected"]).all()


@pytest.mark.parametrize("R", [1, 2])
def test_rescaled_logits_change_nothing(R):
    """However much more or less sure a network becomes, with a shift towards a class on top."""
    factors = np.array([0.05, 0.5, 0.9, 1.1, 3, 40])[:, None, None, None]
    val, test = sample(1, R=R), sample(2, R=R)
    rescaled = [factors * baseline[None, :, None].repeat(R, axis=2) for baseline, _, _ in (val, test)]
    temperatures = fit_temperatures(val[0], rescaled[0], val[2])
    table = measure_shares(test[0], rescaled[1], test[2], LABELS, temperatures)
    np.testing.assert_allclose(table["share"], 0, atol=1e-6)
    assert (table["verdict"] == "negligible").all()
    table = measure_shares(test[0], rescaled[1], test[2], LABELS)
    assert (table["verdict"] == "matters").sum() > 10  # without temperatures they would all matter
    assert set(table["metric"]) == {"specific_margin"}
    ones = shares.Temperatures(np.ones_like(temperatures.fitted), np.ones_like(temperatures.resampled))
    columns = ["share", "share_low", "share_high", "ci_low", "ci_high"]
    expected = measure_shares(test[0], rescaled[1], test[2], LABELS, ones)
    np.testing.assert_allclose(table[columns], expected[columns], rtol=1e-12)


def judge(share, error, least=0.05):
    """The row of one unit and class whose share has this standard error."""
    z = np.linspace(-1.9, 1.9, 1001)  # deviations; the middle 95 % reach to 1.805
    z /= z.std(ddof=1)
    drawn_whole = 2 + 0.1 * np.random.default_rng(0).permutation(z)
    drawn = np.stack([drawn_whole, drawn_whole * (1 + share + error * z)], axis=1)[:, :, None]
    columns = judge_shares(np.array([[2], [2 * (1 + share)]]), drawn, least)
    return {name: values[0] for name, values in columns.items()}


@pytest.mark.parametrize(
    ("share", "error", "verdict"),
    [
        (-0.10, 0.030, "matters"),  # the limits lie 1.65 standard errors from the share
        (-0.10, 0.031, "open"),
        (0.10, 0.030, "matters"),
        (0.10, 0.031, "open"),
        (0.00, 0.030, "negligible"),
        (0.00, 0.031, "open"),
        (0.03, 0.012, "negligible"),
        (-0.03, 0.013, "open"),
        (-0.06, 0.001, "matters"),
        (-0.06, 0.020, "open"),
        (-1.00, 0.000, "matters"),
        (0.00, 0.000, "negligible"),
    ],
)
def test_verdicts_by_hand(share, error, verdict):
    row = judge(share, error)
    assert row["verdict"] == verdict
    assert row["share_high"] - row["share"] == pytest.approx(1.6437 * error, rel=1e-3)
    assert row["share"] - row["share_low"] == pytest.approx(1.6437 * error, rel=1e-3)


def test_the_least_share_of_interest_can_be_chosen():
    assert judge(-0.10, 0.01, least=0.2)["verdict"] == "negligible"
    assert judge(-0.10, 0.01, least=0.09)["verdict"] == "open"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [FEWEST - 1, FEWEST])
def test_a_class_of_few_texts_has_a_share_without_limits(n):
    baseline, ablated, targets = sample(3, n=100, effects=(0.9, 0.0))
    targets[np.flatnonzero(targets == 0)[n:]] = 1
    baseline[:, 0] += 9 * (targets == 0)
    temperatures = fit_temperatures(*sample(4, effects=(0.9, 0.0)))
    table = measure_shares(baseline, ablated, targets, LABELS, temperatures, permute=False)
    joy = table[(table["class"] == "joy") & (table["unit"] == 1)].iloc[0]
    assert (joy["n"], joy["share"] < -0.8) == (n, True)
    assert np.isfinite([joy["share_low"], joy["share_high"]]).all() == (n >= FEWEST)
    assert joy["verdict"] == ("matters" if n >= FEWEST else "open")


@pytest.mark.filterwarnings("error")
def test_a_class_that_the_whole_network_does_not_tell_from_the_others_has_no_share():
    baseline, ablated, targets = sample(3, n=100, effects=(0.9, 0.0))
    others = logsumexp(np.delete(baseline, 2, axis=1), axis=1)
    noise = np.random.default_rng(1).normal(size=100)  # its log-odds, and by chance
    assert 0 < noise[targets == 2].mean() - noise[targets != 2].mean() < 0.3
    baseline[:, 2] = others + noise
    temperatures = fit_temperatures(baseline, ablated, targets)
    table = measure_shares(baseline, ablated, targets, LABELS, temperatures)
    love = table["class"] == "love"
    assert table.loc[love, ["share", "share_low", "share_high"]].isna().all(axis=None)
    assert (table.loc[love, "verdict"] == "open").all()
    assert table.loc[love, ["effect", "ci_low", "p"]].notna().all(axis=None)
    assert table.loc[~love, ["share", "share_low", "share_high"]].notna().all(axis=None)
    drifting = shares.Temperatures(temperatures.fitted, np.exp(np.linspace(-1, 1, 200))[:, None].repeat(3, axis=1))
    again = measure_shares(baseline, ablated, targets, LABELS, drifting, permute=False)  # its size may be quite unknown
    np.testing.assert_array_equal(again["share"], table["share"])


def test_a_class_without_texts_is_open_and_leaves_the_others_as_they_are():
    baseline, ablated, targets = sample(3)
    temperatures = fit_temperatures(baseline, ablated, targets)
    table = measure_shares(baseline, ablated, np.where(targets == 3, 0, targets), LABELS, temperatures)
    anger = table[table["class"] == "anger"]
    assert anger[["effect", "share", "share_low", "p"]].isna().all(axis=None)
    assert (anger["verdict"] == "open").all()
    assert table.loc[table["class"] != "anger", ["share", "share_low", "p"]].notna().all(axis=None)


@pytest.mark.slow
@pytest.mark.parametrize(("separation", "n_val"), [(4, 200), (4, 1000), (2, shares.FEWEST_VAL)])
def test_networks_of_the_same_law_differ_in_nothing_also_where_val_has_few_errors(separation, n_val):
    def draw(rng, n):
        targets, noise = rng.integers(0, K, n), rng.normal(size=(5, n, K))
        noise[1:] = 0.9 * noise[0] + 0.19**0.5 * noise[1:]
        logits = separation * np.eye(K)[targets] + noise
        return logits[0], logits[1:, :, None], targets

    wrong = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        temperatures = fit_temperatures(*draw(rng, n_val))
        table = measure_shares(*draw(rng, 1000), LABELS, temperatures, permute=False)
        wrong += (table["verdict"] == "matters").any()
    assert wrong < 8  # of 60; 3 are expected, and more than 7 come with probability 0.01


@pytest.mark.slow
@pytest.mark.parametrize("per_class", [FEWEST, 60])
def test_all_limits_hold_at_once_95_times_in_100_also_for_few_texts(per_class):
    """Shares of 8 networks and 4 classes, some of which are 0, beside those of 200,000 texts."""
    effects = (1, 1, 1, 1, 0.98, 0.9, 0.7, 0.3)
    baseline, ablated, targets = sample(0, n=200_000, R=1, effects=effects)
    networks = [baseline[:, None], *ablated]
    fitted = [shares._fit_temperature(shares._Loss(each, targets)) for each in networks]
    margins = np.array([by_definition(*each) for each in zip(networks, [targets] * 9, fitted, strict=True)])
    truth = (margins[1:] / margins[0] - 1).ravel()
    missed = wrong = 0
    for seed in range(1, 201):
        val, test = (sample(1000 * seed + i, n=K * per_class, R=1, effects=effects) for i in range(2))
        table = measure_shares(*test, LABELS, fit_temperatures(*val), permute=False)
        missed += ((table["share_low"] > truth) | (table["share_high"] < truth)).any()
        matters, negligible = table["verdict"] == "matters", table["verdict"] == "negligible"
        wrong += (matters & (np.abs(truth) < 0.05) | negligible & (np.abs(truth) > 0.05)).any()
    assert missed < 19  # of 200; 10 are expected, and more than 18 come with probability 0.006
    assert wrong <= missed
