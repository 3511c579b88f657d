import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax

from lab.effects import confirm_on_test, correct_p_values, count_flips, measure_effects, read_effects, read_logits
from lab.output import write_csv
from lab.stats import holm, mcnemar_p, permutation_p, resamples

LABELS = ["sadness", "joy", "love"]
N, U, K = 41, 5, 3


def sample(seed, R=1):
    """Logits that follow the targets, of which two are love: many a resample has none."""
    rng = np.random.default_rng(seed)
    targets = np.concatenate([rng.integers(2, size=N - 2), [2, 2]])
    baseline = rng.normal(size=(N, K)) + 1.5 * np.eye(K)[targets]
    ablated = (baseline[:, None] + rng.normal(size=(U, N, R, K))).astype(np.float32)
    return baseline, ablated, targets


def row(table, unit, label, metric):
    [match] = table[(table["unit"] == unit) & (table["class"] == label) & (table["metric"] == metric)].itertuples()
    return match


def ratio(a, b):
    return a / b if b else np.nan


def mean(values):
    return values.mean() if len(values) else np.nan


def by_definition(baseline, logits, targets):
    """(class, metric) -> number, NaN where undefined: baseline (N, K), logits (N, R, K), a row per text and draw."""
    R = logits.shape[1]
    targets, unchanged = np.repeat(targets, R), np.repeat(baseline.argmax(1), R)
    logits = logits.reshape(-1, K).astype(np.float64)
    predicted, log_probs = logits.argmax(1), log_softmax(logits, axis=1)
    log_odds = log_probs - np.log1p(-np.exp(log_probs))
    true_log_probs, flipped = log_probs[np.arange(len(targets)), targets], predicted != unchanged
    numbers = {
        ("all", "accuracy"): mean(predicted == targets),
        ("all", "log_prob"): mean(true_log_probs),
        ("all", "flip_rate"): mean(flipped),
    }
    for c, label in enumerate(LABELS):
        true, claimed = targets == c, predicted == c
        hits, margin = (true & claimed).sum(), mean(log_odds[true, c])
        numbers |= {
            (label, "recall"): ratio(hits, true.sum()),
            (label, "precision"): ratio(hits, claimed.sum()) if claimed.any() else 0.0,
            (label, "f1"): ratio(2 * hits, true.sum() + claimed.sum()),
            (label, "log_prob"): mean(true_log_probs[true]),
            (label, "margin"): margin,
            (label, "specific_margin"): margin - mean(log_odds[~true, c]),
            (label, "flip_rate"): mean(flipped[true]),
        }
    numbers["all", "macro_f1"] = np.nanmean([numbers[label, "f1"] for label in LABELS])
    return numbers


@pytest.mark.parametrize("R", [1, 3])
def test_effects_are_the_differences_of_their_definitions(R):
    baseline, ablated, targets = sample(0, R)
    table = measure_effects(baseline, ablated, targets, LABELS, test=False)
    assert len(table) == U * (4 + K * 7)
    assert " ".join(table) == "unit class metric n baseline ablated effect ci_low ci_high p p_corrected"
    assert table["unit"].is_monotonic_increasing
    assert table[["p", "p_corrected"]].isna().all(axis=None)
    before = by_definition(baseline, baseline[:, None], targets)
    for unit in range(U):
        after = by_definition(baseline, ablated[unit], targets)
        for (label, metric), value in after.items():
            measured = row(table, unit, label, metric)
            assert measured.baseline == pytest.approx(before[label, metric], abs=1e-12)
            assert measured.ablated == pytest.approx(value, abs=1e-12)
            assert measured.effect == pytest.approx(value - before[label, metric], abs=1e-12)
            assert measured.n == (N if label == "all" else (targets == LABELS.index(label)).sum())


def test_intervals_are_those_of_a_plain_loop_over_the_same_resamples():
    baseline, ablated, targets = sample(2, 3)
    baseline[:, 2] -= 0.5
    assert 0 < (baseline.argmax(1) == 2).sum() < 4  # many a resample has no love among the predictions either
    table = measure_effects(baseline, ablated, targets, LABELS, test=False)
    drawn = []
    for weights in np.concatenate(list(resamples(N))).astype(int):
        texts = np.repeat(np.arange(N), weights)
        before = by_definition(baseline[texts], baseline[texts, None], targets[texts])
        after = by_definition(baseline[texts], ablated[4, texts], targets[texts])
        drawn.append({key: after[key] - before[key] for key in after})
    drawn = pd.DataFrame(drawn)
    assert drawn["love", "margin"].isna().sum() > 50
    for label, metric in drawn:
        measured = row(table, 4, label, metric)
        expected = np.percentile(drawn[label, metric].dropna(), [2.5, 97.5])
        ends = [measured.ci_low, measured.ci_high]
        np.testing.assert_allclose(ends, expected, atol=1e-10, err_msg=f"{label} {metric}")
        assert ends[0] <= measured.effect <= ends[1] or metric == "flip_rate" or label == "love"


def test_a_class_without_texts():
    baseline, ablated, targets = sample(3)
    targets[-2:] = 0
    baseline[:, 2] -= 99
    ablated[0, :, :, 2] -= 99  # nobody claims love; in other units somebody does
    table = measure_effects(baseline, ablated, targets, LABELS, test=True)
    love = table[(table["class"] == "love") & (table["unit"] == 0)].set_index("metric")
    assert (love["n"] == 0).all()
    ratios, means = ["recall", "precision", "f1"], ["log_prob", "margin", "specific_margin", "flip_rate"]
    assert (love.loc[ratios, ["baseline", "ablated", "effect"]] == 0).all(axis=None)
    assert love.loc[means, ["baseline", "ablated", "effect", "ci_low", "ci_high", "p"]].isna().all(axis=None)
    macro_f1 = row(table, 0, "all", "macro_f1")
    f1 = [row(table, 0, label, "f1") for label in LABELS[:2]]  # love is skipped
    assert macro_f1.baseline == pytest.approx((f1[0].baseline + f1[1].baseline) / 2)
    assert macro_f1.ablated == pytest.approx((f1[0].ablated + f1[1].ablated) / 2)


@pytest.mark.parametrize("R", [1, 3])
def test_p_values_and_their_families(R):
    baseline, ablated, targets = sample(5, R)
    ablated[3, targets == 1, :, 1] -= 5
    table = measure_effects(baseline, ablated, targets, LABELS, test=True)
    specific = table[table["metric"] == "specific_margin"]
    change = read_logits(ablated).log_odds - read_logits(baseline[None, :, None]).log_odds
    np.testing.assert_allclose(specific["p"], permutation_p(change.transpose(1, 0, 2), targets).ravel())
    np.testing.assert_allclose(specific["p_corrected"], holm(specific["p"].to_numpy()))
    assert row(table, 3, "joy", "specific_margin").p_corrected == pytest.approx(U * K * 1e-5)
    accuracy = table[table["metric"] == "accuracy"]
    if R == 1:
        p = mcnemar_p(baseline.argmax(1) == targets, (ablated[:, :, 0].argmax(-1) == targets).T)
        np.testing.assert_allclose(accuracy["p"], p)
        np.testing.assert_allclose(accuracy["p_corrected"], holm(p))
        assert p.min() < 0.01
    else:
        assert accuracy[["p", "p_corrected"]].isna().all(axis=None)
    others = table[~table["metric"].isin(["accuracy", "specific_margin"])]
    assert others[["p", "p_corrected"]].isna().all(axis=None)
    joy = correct_p_values(table[table["class"].isin(["all", "joy"])])  # the rows of the table are the family
    assert row(joy, 3, "joy", "specific_margin").p_corrected == pytest.approx(U * 1e-5)
    pd.testing.assert_frame_equal(joy[joy["class"] == "all"], table[table["class"] == "all"])


def test_blocks_of_units_do_not_show(monkeypatch):
    baseline, ablated, targets = sample(6, 2)
    whole = measure_effects(baseline, ablated, targets, LABELS, test=True)
    monkeypatch.setattr("lab.effects.UNITS", 2)
    pd.testing.assert_frame_equal(measure_effects(baseline, ablated, targets, LABELS, test=True), whole)


def test_readings_of_large_logits():
    logits = np.array([1000, 0, -1000], dtype=np.float32)
    readings = read_logits(np.tile(logits, (1, 1, 2, 1)))
    np.testing.assert_allclose(readings.log_odds, [[[1000, -1000, -2000]]])
    np.testing.assert_allclose(readings.log_probs, [[[0, -1000, -2000]]])
    np.testing.assert_array_equal(readings.predicted, [[[1, 0, 0]]])


def test_flips_by_hand():
    one_hot = np.eye(K)
    targets = np.array([0, 0, 0, 1, 1])
    baseline = one_hot[[0, 0, 1, 1, 2]]
    ablated = one_hot[[[[0, 0], [0, 0], [1, 1], [1, 1], [2, 2]], [[1, 0], [1, 1], [1, 2], [1, 1], [0, 0]]]]
    expected = [
        (1, "sadness", "sadness", "joy", 1.5 / 3, 3),
        (1, "sadness", "joy", "love", 0.5 / 3, 3),
        (1, "joy", "love", "sadness", 1 / 2, 2),
    ]
    table = count_flips(baseline, ablated, targets, LABELS)
    columns = ["unit", "class", "before", "after", "share", "n"]
    pd.testing.assert_frame_equal(table, pd.DataFrame(expected, columns=columns))


def test_margins_are_ranked_on_val_and_tested_on_test():
    keys = {"unit": [0, 0, 1, 1], "class": ["joy", "love"] * 2, "metric": ["specific_margin"] * 4}
    val = pd.DataFrame(keys | {"effect": [0.1, np.nan, -0.7, 0.3]})
    measured = {"n": [5, 3] * 2, "baseline": [8.0, 6] * 2, "effect": [0.2, 9, -0.6, 0.0]}
    intervals = {"ci_low": -1.0, "ci_high": [2.0, 3, 5, 7]}
    test = pd.DataFrame(keys | measured | intervals | {"p": [0.03, 0.04, 0.005, 0.01]})
    other = test.assign(metric="accuracy", p=1e-9)
    expected = [
        (1, "joy", 5, 8.0, -0.7, -0.6, -1.0, 5.0, 0.005, 0.02, 0.02, 1),
        (1, "love", 3, 6.0, 0.3, 0.0, -1.0, 7.0, 0.01, 0.03, 0.02, 2),
        (0, "joy", 5, 8.0, 0.1, 0.2, -1.0, 2.0, 0.03, 0.06, 0.04, 3),
        (0, "love", 3, 6.0, np.nan, 9.0, -1.0, 3.0, 0.04, 0.06, 0.04, 4),
    ]
    table = confirm_on_test(val.iloc[::-1], pd.concat([other, test]), "specific_margin")
    assert " ".join(table) == "unit class n baseline val_effect test_effect ci_low ci_high p p_holm p_bh rank"
    pd.testing.assert_frame_equal(table, pd.DataFrame(expected, columns=table.columns))


def test_equal_effects_on_val_keep_their_order():
    unit = np.arange(101)
    keys = {"unit": unit, "class": "joy", "metric": "specific_margin", "n": 5, "baseline": 0.0}
    val = pd.DataFrame(keys | {"effect": np.where(unit % 2, 1.0, -1.0) * (unit % 3)})
    ranked = confirm_on_test(val, val.assign(ci_low=-1.0, ci_high=1.0, p=0.5), "specific_margin")
    assert ranked["unit"].tolist() == [*unit[2::3], *unit[1::3], *unit[::3]]
    assert ranked["rank"].tolist() == list(range(1, 102))


def test_wrong_input_is_refused():
    baseline, ablated, targets = sample(9)
    with pytest.raises(ValueError, match=r"\(41, 3\).*got \(41, 3\) and \(5, 40, 1, 3\)"):
        measure_effects(baseline, ablated[:, :-1], targets, LABELS, test=False)
    for beyond in (targets + 1, targets - 1):
        with pytest.raises(ValueError, match=r"targets in 0\.\.2"):
            count_flips(baseline, ablated, beyond, LABELS)
    ablated[2, 3, 0, 1] = np.inf
    with pytest.raises(ValueError, match="finite"):
        measure_effects(baseline, ablated, targets, LABELS, test=False)


@pytest.mark.parametrize("label", ["nan", "NA", "1", "", "1e3", "None", 'a "b", c'])
def test_effects_are_read_as_they_were_written(tmp_path, label):
    """Numbers are numbers, empty ones NaN, and text stays text whatever a class is called."""
    text = {"kind": ["head", "mask"], "region": ["", "first token"], "fill": "zero", "split": "test", "class": label}
    numbers = {"n": [13, 0], "effect": [-0.25, np.nan], "p": [np.nan, np.nan]}
    table = pd.DataFrame({**text, "metric": "log_prob", **numbers, "layer": [1, 0], "head": [2, None]})
    table = table.astype({"layer": "Int64", "head": "Int64"})
    write_csv(tmp_path / "effects.csv", table)
    pd.testing.assert_frame_equal(read_effects(tmp_path / "effects.csv"), table, check_dtype=False)
    assert read_effects(tmp_path / "effects.csv")["effect"].dtype == np.float64
