"""Runs side by side: the tidy table, paired differences, and what a run predicted, from pretended runs."""

import numpy as np
import pandas as pd
import pytest
from pretended import SETTINGS, measured
from sklearn.metrics import accuracy_score, f1_score

from data import read_corpus
from experiments.paper import results
from experiments.train.measure import predictions
from lab import output, stats

CLASSES = ["sadness", "joy", "love", "anger"]


def guessed(rng, targets, skill):
    """Predictions of which a share `skill` is right, but for luck."""
    return np.where(rng.random(len(targets)) < skill, targets, rng.integers(len(CLASSES), size=len(targets)))


def run_of(init, targets, predicted, seed=0, tune="all"):
    """A run that has predicted this, its scores by scikit-learn."""
    record = {
        "corpus": {"name": "words", "labels": CLASSES},
        "settings": {"model": "tiny", "init": init, "tune": tune, "seed": seed},
    }
    test = {"accuracy": accuracy_score(targets, predicted), "macro_f1": f1_score(targets, predicted, average="macro")}
    return results.MeasuredRun(record, {"test": test}, targets, predicted)


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
    table = results.differences(pairs).set_index("metric")
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
    table = results.differences(pairs)
    np.testing.assert_allclose(table["ci_low"], low, atol=1e-12)
    np.testing.assert_allclose(table["ci_high"], high, atol=1e-12)


def test_the_same_predictions_differ_by_nothing():
    """So the two are compared on the same resamples: each alone has an interval."""
    pretrained = pretend_pairs()[:2]
    random = [run_of("random", run.targets, run.predicted, seed=seed) for seed, run in enumerate(pretrained)]
    table = results.differences([*pretrained, *random])
    assert (table[["difference", "ci_low", "ci_high"]] == 0).all(axis=None)
    assert (table["pretrained"] > 0.5).all()


def test_swapping_the_starts_turns_the_sign():
    pairs = pretend_pairs()
    swapped = [
        run_of("random" if k < 2 else "pretrained", run.targets, run.predicted, seed=k % 2)
        for k, run in enumerate(pairs)
    ]
    table, other = results.differences(pairs), results.differences(swapped)
    assert (table["difference"] > 0).all()
    np.testing.assert_allclose(other["difference"], -table["difference"])
    np.testing.assert_allclose(other["ci_low"], -table["ci_high"])
    np.testing.assert_allclose(other["ci_high"], -table["ci_low"])


def test_runs_are_compared_with_those_of_their_tune_alone():
    head = pretend_pairs(n=40, tune="head")
    pairs = pretend_pairs()
    table = results.differences([*pairs, *head])
    pd.testing.assert_frame_equal(table.query("tune == 'all'"), results.differences(pairs))
    assert list(table.query("tune == 'head'")["n"]) == [40, 40]
    words = pretend_pairs(n=30)[:2]  # whose weights are all tuned too
    for run in words:
        run.record["settings"] |= {"head": "words"}
    pd.testing.assert_frame_equal(results.differences([*words, *pairs]), results.differences(pairs))
    assert results.differences(pairs[:2]).empty
    assert results.differences([*pairs[:2], *head[2:]]).empty


def test_published_accuracies_stand_in_the_picture_as_values_or_ranges():
    scores = {}
    for corpus, n in (("emotion", 2000), ("owner/rotten_tomatoes", 1066), ("words", 2000)):
        table = results.accuracies_on_test(results.tidy([measured(corpus, n)]))
        scores[corpus] = table[table["kind"] == "published"]
    assert list(scores["emotion"]["value"]) == [0.927]
    assert scores["owner/rotten_tomatoes"][["low", "high"]].to_numpy().tolist() == [[0.84, 0.86]]
    assert scores["words"].empty


def test_the_picture_tells_the_starts_apart_where_there_are_two():
    random = measured("words", settings=SETTINGS | {"init": "random"})
    head = measured("words", settings=SETTINGS | {"init": "random", "tune": "head"})
    scores = results.accuracies_on_test(results.tidy([measured("words"), random, head]))
    assert list(scores["name"][:3]) == [
        "all weights tuned, seed 0",
        "head alone tuned, from random weights, seed 0",
        "all weights tuned, from random weights, seed 0",
    ]
    assert list(scores["kind"]) == ["pretrained", "random", "random", "baseline", "baseline"]
    other_order = results.accuracies_on_test(results.tidy([random, measured("words")]))
    assert {*scores["panel"], *other_order["panel"]} == {"tiny on words, 54 test texts"}
    fitted = results.Fitted("tiny", "pretrained", "words", "frozen", None, "after ln_f", measured().metrics)
    scores = results.accuracies_on_test(results.tidy([measured("words")], [fitted]))
    assert list(scores["name"][:2]) == ["frozen features + logistic regression", "all weights tuned, seed 0"]
    alone = results.accuracies_on_test(results.tidy([random]))
    assert alone["name"].iloc[0] == "all weights tuned, seed 0"
    assert set(alone["panel"]) == {"tiny from random weights on words, 54 test texts"}


@pytest.mark.parametrize(
    ("labels", "texts"),
    [
        (["1", "nan", "01", "None"], ["nan", "NA", "1.0", 'a "quoted, thing', "two\rlines\nthree", " x "]),
        (["1", "01", "2", "10"], ["1.0", "1", "001", "7", "1e3", "-0"]),
    ],
    ids=["mixed", "numbers alone"],
)
def test_labels_and_texts_that_look_like_numbers_or_nothing_are_read_as_they_stand(tmp_path, labels, texts):
    table = pd.DataFrame({"text": texts * 2, "label": labels * 3})
    for split in ("train", "val", "test"):
        table.to_json(tmp_path / f"{split}.jsonl", orient="records", lines=True)
    corpus = read_corpus(tmp_path)
    predicted = corpus.targets("test")
    predicted[0] = (predicted[0] + 1) % 4
    path = tmp_path / "predictions.csv"
    output.write_csv(path, predictions(corpus, {"val": np.eye(4)[corpus.targets("val")], "test": np.eye(4)[predicted]}))
    assert [list(corpus.split("test")[name]) for name in ("text", "label")] == [texts * 2, labels * 3]
    assert list(results.read_predicted(path, corpus)) == list(predicted)
