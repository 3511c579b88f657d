"""Paired differences between starts and between models, against plain loops and by hand."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score

from experiments.paper.differences import compare_models, compare_starts, judge
from experiments.paper.results import MeasuredRun
from lab import stats

CLASSES = ["sadness", "joy", "love", "anger"]


def guessed(rng, targets, skill):
    """Predictions of which a share `skill` is right, but for luck."""
    return np.where(rng.random(len(targets)) < skill, targets, rng.integers(len(CLASSES), size=len(targets)))


def run_of(init, targets, predicted, seed=0, tune="all", model="tiny"):
    """A run that has predicted this, its scores by scikit-learn."""
    record = {
        "corpus": {"name": "words", "labels": CLASSES},
        "settings": {"model": model, "init": init, "tune": tune, "seed": seed},
    }
    test = {"accuracy": accuracy_score(targets, predicted), "macro_f1": f1_score(targets, predicted, average="macro")}
    return MeasuredRun(record, {"test": test}, targets, predicted)


def pretend_pairs(n=90, seeds=(0, 1), tune="all"):
    rng = np.random.default_rng(5)
    targets = rng.integers(len(CLASSES), size=n)
    return [
        run_of(init, targets, guessed(rng, targets, skill), seed, tune)
        for init, skill in (("pretrained", 0.7), ("random", 0.5))
        for seed in seeds
    ]


def test_the_difference_is_that_of_the_means():
    pairs = pretend_pairs()
    table = compare_starts(pairs).set_index("metric")
    for metric in ("accuracy", "macro_f1"):
        first, second, third, fourth = (run.metrics["test"][metric] for run in pairs)
        row = table.loc[metric]
        assert row["pretrained"] == pytest.approx((first + second) / 2, abs=1e-12)
        assert row["random"] == pytest.approx((third + fourth) / 2, abs=1e-12)
        assert row["difference"] == pytest.approx((first - third + second - fourth) / 2, abs=1e-12)
        assert row["ci_low"] < row["difference"] < row["ci_high"]
    assert list(table["n"]) == [90, 90]


def test_the_interval_is_that_of_a_plain_loop_over_the_same_resamples(monkeypatch):
    monkeypatch.setattr(stats, "DRAWS", 60)
    pairs = pretend_pairs()
    draws = []
    for weights in np.concatenate(list(stats.resamples(90))):
        drawn = np.repeat(np.arange(90), weights.astype(int))
        accuracies = [accuracy_score(run.targets[drawn], run.predicted[drawn]) for run in pairs]
        f1 = [f1_score(run.targets[drawn], run.predicted[drawn], average="macro") for run in pairs]
        draws.append([(first + second - third - fourth) / 2 for first, second, third, fourth in (accuracies, f1)])
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    table = compare_starts(pairs)
    np.testing.assert_allclose(table["ci_low"], low, atol=1e-12)
    np.testing.assert_allclose(table["ci_high"], high, atol=1e-12)


def test_the_same_predictions_differ_by_nothing():
    """So the two are compared on the same resamples: each alone has an interval."""
    pretrained = pretend_pairs()[:2]
    random = [run_of("random", run.targets, run.predicted, seed=seed) for seed, run in enumerate(pretrained)]
    table = compare_starts([*pretrained, *random])
    assert (table[["difference", "ci_low", "ci_high"]] == 0).all(axis=None)
    assert (table["pretrained"] > 0.5).all()


def test_swapping_the_starts_turns_the_sign():
    pairs = pretend_pairs()
    swapped = [
        run_of("random" if k < 2 else "pretrained", run.targets, run.predicted, seed=k % 2)
        for k, run in enumerate(pairs)
    ]
    table, other = compare_starts(pairs), compare_starts(swapped)
    assert (table["difference"] > 0).all()
    np.testing.assert_allclose(other["difference"], -table["difference"])
    np.testing.assert_allclose(other["ci_low"], -table["ci_high"])
    np.testing.assert_allclose(other["ci_high"], -table["ci_low"])


def test_runs_are_compared_with_those_of_their_tune_alone():
    head = pretend_pairs(n=40, tune="head")
    pairs = pretend_pairs()
    table = compare_starts([*pairs, *head])
    pd.testing.assert_frame_equal(table.query("tune == 'all'"), compare_starts(pairs))
    assert list(table.query("tune == 'head'")["n"]) == [40, 40]
    words = pretend_pairs(n=30)[:2]  # whose weights are all tuned too
    for run in words:
        run.record["settings"] |= {"head": "words"}
    pd.testing.assert_frame_equal(compare_starts([*words, *pairs]), compare_starts(pairs))
    assert compare_starts(pairs[:2]).empty
    assert compare_starts([*pairs[:2], *head[2:]]).empty


def on_models(targets, *predicted, seed=0, **settings):
    """A run of each of these predictions, of models "one", "two" and so on."""
    return [
        run_of("pretrained", targets, own, seed, model=model, **settings)
        for model, own in zip(("one", "two", "three"), predicted, strict=False)
    ]


TARGETS = np.arange(80) % len(CLASSES)


def test_two_models_that_predict_the_same_do_not_differ():
    """Each of them is right about half of the texts."""
    half = np.where(np.arange(80) < 40, TARGETS, (TARGETS + 1) % len(CLASSES))
    table = compare_models([*on_models(TARGETS, half, half), *on_models(TARGETS, half, half, seed=1)])
    assert (table[["difference", "ci_low", "ci_high"]] == 0).all(axis=None)
    assert list(table["verdict"]) == ["not judged", "no clear difference"]
    accuracy = table.set_index("metric").loc["accuracy"]
    assert list(accuracy[["corpus", "model", "first_model", "init", "tune"]]) == [
        "words", "two", "one", "pretrained", "all"
    ]  # fmt: skip
    assert list(accuracy[["n", "seeds", "mean", "first_mean"]]) == [80, 2, 0.5, 0.5]


def test_a_model_that_is_right_where_the_other_is_wrong_is_found():
    right, wrong = TARGETS, (TARGETS + 1) % len(CLASSES)
    for first, second, difference, better in ((wrong, right, 1, "two"), (right, wrong, -1, "one")):
        runs = [run for seed in range(2) for run in on_models(TARGETS, first, second, seed=seed)]
        table = compare_models(runs)
        assert (table[["difference", "ci_low", "ci_high"]] == difference).all(axis=None)
        assert list(table["verdict"]) == ["not judged", f"{better} is better"]
        alone = compare_models(runs[:2])  # one seed
        assert list(alone["difference"]) == [difference] * 2
        assert alone[["ci_low", "ci_high", "p", "p_holm"]].isna().all(axis=None)
        assert list(alone["verdict"]) == ["not judged", "not judged: one seed"]


def test_models_are_compared_with_the_first():
    rng = np.random.default_rng(3)
    guesses = [guessed(rng, TARGETS, skill) for skill in (0.7, 0.6, 0.3)]
    table = compare_models(on_models(TARGETS, *guesses)).query("metric == 'accuracy'")
    assert list(zip(table["model"], table["first_model"], strict=True)) == [("two", "one"), ("three", "one")]
    right = [own == TARGETS for own in guesses]
    for row, own in zip(table.itertuples(), right[1:], strict=True):
        assert row.difference == pytest.approx(own.mean() - right[0].mean())


def test_models_are_compared_where_corpus_start_tune_and_seed_are_the_same():
    one, two = on_models(TARGETS, TARGETS, TARGETS)
    assert compare_models([one]).empty
    for other in (
        run_of("random", TARGETS, TARGETS, model="two"),
        run_of("pretrained", TARGETS, TARGETS, tune="head", model="two"),
        run_of("pretrained", TARGETS, TARGETS, seed=1, model="two"),
    ):
        assert compare_models([one, other]).empty
        assert set(compare_models([one, other, two])["seeds"]) == {1}
    two.record["corpus"]["name"] = "other words"
    assert compare_models([one, two]).empty


def test_the_starts_of_each_model_are_compared_with_each_other():
    """Where the better start is another for each model."""
    wrong = (TARGETS + 1) % len(CLASSES)
    runs = [
        run_of(init, TARGETS, TARGETS if (model == "one") == (init == "pretrained") else wrong, model=model)
        for model in ("one", "two")
        for init in ("pretrained", "random")
    ]
    table = compare_starts(runs)
    assert list(table["model"]) == ["one", "one", "two", "two"]
    assert list(table["difference"]) == [1, 1, -1, -1]
    table = compare_models(runs)
    assert list(table["init"]) == ["pretrained", "pretrained", "random", "random"]
    assert list(table["difference"]) == [-1, -1, 1, 1]


@pytest.mark.parametrize(
    ("metric", "difference", "p", "expected"),
    [
        ("macro_f1", 0.1, np.nan, "not judged: one seed"),
        ("macro_f1", 0.1, 0.05, "no clear difference"),
        ("macro_f1", 0.1, 0.049, "clear gain"),
        ("macro_f1", -0.1, 0.049, "clear loss"),
        ("accuracy", 0.1, 0.001, "not judged"),
    ],
)
def test_a_difference_of_macro_f1_is_clear_where_its_p_is_small(metric, difference, p, expected):
    assert judge(metric, difference, p) == expected


def three_models(rng, tune):
    """Three seeds of each, seed by seed."""
    skills = (0.5, 0.7, 0.6)
    return [
        run
        for seed in range(3)
        for run in on_models(TARGETS, *(guessed(rng, TARGETS, skill) for skill in skills), seed=seed, tune=tune)
    ]


def test_holm_counts_all_comparisons_of_models_in_a_call():
    rng = np.random.default_rng(2)
    judged = compare_models([run for tune in ("all", "head") for run in three_models(rng, tune)])
    judged = judged.query("metric == 'macro_f1'")
    np.testing.assert_allclose(judged["p_holm"], stats.holm(judged["p"].to_numpy()))
    assert len(judged) == 4


def test_three_models_share_the_spread_of_their_seeds():
    runs = three_models(np.random.default_rng(2), "all")
    table = compare_models(runs).query("metric == 'accuracy'")
    scores = np.array([[run.metrics["test"]["accuracy"] for run in runs[i::3]] for i in range(3)])
    right = np.array([[run.predicted == TARGETS for run in runs[i::3]] for i in range(3)]).mean(axis=1)
    weights = np.concatenate(list(stats.resamples(80)))
    of_texts = ((right[1:] - right[0]) @ weights.T / 80).var(axis=1, ddof=1)
    low, high, p = stats.compare_with_first(scores, of_texts)
    np.testing.assert_allclose(table["ci_low"], low)
    np.testing.assert_allclose(table["ci_high"], high)
    np.testing.assert_allclose(table["p"], p)
