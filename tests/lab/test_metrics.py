import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from lab.metrics import (
    calibration_bins,
    classification_metrics,
    expected_calibration_error,
    prediction_metrics,
    resampled_metrics,
    resampled_prediction_metrics,
)

LABELS = ["sadness", "joy", "love"]


def sample(seed, n, k, ties=False):
    """Targets that follow the probabilities; with ties the probabilities come from few values."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(k, 0.5), n)
    if ties:
        probabilities = (np.round(probabilities * 5) + 1) / (np.round(probabilities * 5) + 1).sum(1, keepdims=True)
    targets = np.array([rng.choice(k, p=row) for row in probabilities])
    return targets, probabilities


def flat(metrics):
    """The numbers that have intervals, under the intervals' names."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
    for label, per_class in metrics["per_class"].items():
        numbers |= {f"per_class.{label}.{name}": value for name, value in per_class.items() if name != "n"}
    return numbers


def test_five_texts_by_hand():
    metrics = prediction_metrics(np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 1]), LABELS)
    assert metrics["n"] == 5
    assert metrics["confusion_matrix"] == [[2, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert metrics["weighted_f1"] == pytest.approx((3 * 4 / 5 + 2 / 4) / 5)
    assert metrics["per_class"]["joy"] == pytest.approx(
        {"n": 1, "precision": 1 / 3, "recall": 1, "specificity": 2 / 4, "f1": 1 / 2}
    )


def test_a_bin_holds_its_upper_edge():
    bins = calibration_bins(np.array([0, 1]), np.array([[0.6, 0.4], [0.6 + 1e-9, 0.4 - 1e-9]]))
    assert bins.loc[[8, 9], "count"].tolist() == [1, 1]  # (8/15, 9/15] and (9/15, 10/15]
    assert bins["count"].sum() == 2
    assert bins["accuracy"].dropna().tolist() == [1, 0]


def test_errors_cancel_within_a_bin_and_not_between_bins():
    probabilities = np.array([[0.75, 0.25]] * 4 + [[0.95, 0.05]] * 2)
    targets = np.array([0, 0, 0, 1, 0, 1])
    assert expected_calibration_error(calibration_bins(targets, probabilities)) == pytest.approx(2 / 6 * 0.45)


def test_calibration_bins_agree_with_scikit_learn():
    targets, probabilities = sample(0, 500, 4)
    bins = calibration_bins(targets, probabilities).dropna()
    correct, confidence = probabilities.argmax(1) == targets, probabilities.max(1)
    accuracy, mean_confidence = calibration_curve(correct, confidence, n_bins=15)
    np.testing.assert_allclose(bins["accuracy"], accuracy)
    np.testing.assert_allclose(bins["confidence"], mean_confidence)


def expected(targets, probabilities, labels):
    """Every metric from scikit-learn directly, where all classes occur, and the calibration error from its bins."""
    predicted = probabilities.argmax(1)
    one_hot = np.eye(len(labels))[targets]
    numbers = {
        "accuracy": reference.accuracy_score(targets, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(targets, predicted),
        "macro_f1": reference.f1_score(targets, predicted, average="macro"),
        "weighted_f1": reference.f1_score(targets, predicted, average="weighted"),
        "macro_roc_auc": reference.roc_auc_score(one_hot, probabilities, average="macro"),
        "macro_average_precision": reference.average_precision_score(one_hot, probabilities, average="macro"),
        "log_loss": reference.log_loss(targets, probabilities),
        "ece": expected_calibration_error(calibration_bins(targets, probabilities)),
    }
    for k, label in enumerate(labels):
        true, claimed, scores = targets == k, predicted == k, probabilities[:, k]
        per_class = {
            "precision": reference.precision_score(true, claimed),
            "recall": reference.recall_score(true, claimed),
            "specificity": reference.recall_score(~true, ~claimed),
            "f1": reference.f1_score(true, claimed),
            "roc_auc": reference.roc_auc_score(true, scores),
            "average_precision": reference.average_precision_score(true, scores),
        }
        numbers |= {f"per_class.{label}.{name}": value for name, value in per_class.items()}
    return numbers


@pytest.mark.parametrize("ties", [False, True])
def test_point_estimates_and_resamples_agree_with_scikit_learn(ties):
    targets, probabilities = sample(1, 300, 3, ties)
    metrics = flat(classification_metrics(targets, probabilities, LABELS))
    drawn = np.random.default_rng(2).integers(300, size=(4, 300))
    weights = np.stack([np.bincount(row, minlength=300) for row in [np.arange(300), *drawn]]).astype(float)
    resampled = resampled_metrics(weights, targets, probabilities, LABELS)
    assert resampled.keys() == metrics.keys()
    for draw, rows in enumerate([np.arange(300), *drawn]):
        figures = {name: values[draw] for name, values in resampled.items()}
        assert figures == pytest.approx(expected(targets[rows], probabilities[rows], LABELS))
    assert metrics == pytest.approx(expected(targets, probabilities, LABELS))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=12))
def test_resamples_of_small_samples_agree_with_repeated_texts(rows):
    targets, predicted, times = np.array(rows).T
    resampled = resampled_prediction_metrics(times[None].astype(float), targets, predicted, LABELS)
    repeated = flat(prediction_metrics(np.repeat(targets, times), np.repeat(predicted, times), LABELS))
    undefined = {name for name, value in repeated.items() if value is None}
    assert undefined == {name for name, values in resampled.items() if np.isnan(values[0])}
    defined = {name: value for name, value in repeated.items() if name not in undefined}
    assert {name: resampled[name][0] for name in defined} == pytest.approx(defined)
    seen = np.union1d(targets, predicted)
    assert repeated["macro_f1"] == pytest.approx(np.mean([repeated[f"per_class.{LABELS[k]}.f1"] for k in seen]))


def test_a_class_too_rare_to_be_in_every_resample_does_not_widen_the_intervals():
    targets = np.array([0] * 500 + [1] * 500 + [2] * 2)
    intervals = prediction_metrics(targets, targets, LABELS)["intervals"]
    assert intervals["macro_f1"] == intervals["balanced_accuracy"] == [1, 1]
    assert intervals[f"per_class.{LABELS[2]}.recall"] == [1, 1]


def test_intervals_lie_around_every_number():
    targets, probabilities = sample(3, 400, 3)
    probabilities = probabilities**2 / (probabilities**2).sum(1, keepdims=True)  # too confident: ece is far from 0
    metrics = classification_metrics(targets, probabilities, LABELS)
    numbers = flat(metrics)
    assert metrics["intervals"].keys() == numbers.keys()
    for name, (low, high) in metrics["intervals"].items():
        assert low < numbers[name] < high, name
    assert prediction_metrics(targets, probabilities.argmax(1), LABELS)["accuracy"] == numbers["accuracy"]


def test_a_class_without_texts_is_undefined_and_json_stays_strict():
    targets, probabilities = sample(4, 60, 3)
    targets[targets == 2] = 0
    metrics = classification_metrics(targets, probabilities, LABELS)
    love = metrics["per_class"]["love"]
    assert (love["roc_auc"], love["average_precision"], love["recall"], love["n"]) == (None, None, None, 0)
    assert love["f1"] == love["precision"] == 0  # it is predicted, wrongly
    assert metrics["intervals"]["per_class.love.recall"] is None
    assert metrics["intervals"]["per_class.love.roc_auc"] is None
    for mean, name in (("macro_roc_auc", "roc_auc"), ("balanced_accuracy", "recall")):
        defined = [metrics["per_class"][label][name] for label in ("sadness", "joy")]
        assert metrics[mean] == pytest.approx(np.mean(defined))
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_one_class_only():
    metrics = classification_metrics(np.zeros(5, int), np.full((5, 2), [0.75, 0.25]), ["no", "yes"])
    assert metrics["macro_roc_auc"] is None
    no, yes = metrics["per_class"]["no"], metrics["per_class"]["yes"]
    assert (no["recall"], no["specificity"], no["f1"]) == (1, None, 1)
    assert (yes["recall"], yes["specificity"], yes["f1"]) == (None, 1, None)
    assert metrics["macro_average_precision"] == metrics["accuracy"] == 1
    assert metrics["intervals"]["accuracy"] == [1, 1]
    json.dumps(metrics, allow_nan=False)


@pytest.mark.filterwarnings("error")
def test_float32_probabilities_and_a_certain_mistake():
    targets, probabilities = sample(5, 200, 3)
    metrics = classification_metrics(targets, probabilities.astype(np.float32), LABELS)
    assert metrics["log_loss"] == pytest.approx(reference.log_loss(targets, probabilities), rel=1e-4)
    certain = classification_metrics(np.array([0, 1]), np.array([[1.0, 0], [1, 0]]), ["no", "yes"])
    assert certain["log_loss"] == pytest.approx(certain["intervals"]["log_loss"][1] / 2)
    assert np.isfinite(certain["log_loss"])


@pytest.mark.parametrize(
    ("targets", "shape", "message"),
    [([0, 3], (2, 3), r"all in 0\.\.2"), ([0, -1], (2, 3), r"all in 0\.\.2"), ([0, 1], (2, 2), r"\(2, 3\).*\(2, 2\)")],
)
def test_what_does_not_fit_the_labels_is_refused(targets, shape, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(np.array(targets), np.full(shape, 1 / shape[1]), LABELS)
