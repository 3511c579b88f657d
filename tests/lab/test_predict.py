"""Predictions: in the order of the texts, as a table, and beside the baselines."""

import numpy as np
import pandas as pd
import pytest
import torch

from data import Corpus
from experiments.train.measure import predictions, scores
from lab.device import Device
from lab.predict import predict

CPU = Device(torch.device("cpu"), "fp32")
LENGTHS = (3, 13, 1, 7, 7, 2, 11)


@pytest.fixture
def sequences():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 101, length).tolist() for length in LENGTHS]


def test_probabilities_stand_in_the_order_of_the_texts(clf, sequences):
    with torch.no_grad():
        one_by_one = [clf(torch.tensor([ids])).double().softmax(dim=1)[0].numpy() for ids in sequences]
    np.testing.assert_allclose(predict(clf.train(), sequences, CPU), one_by_one, atol=1e-6)
    assert not clf.training


def test_few_tokens_at_once_change_nothing(clf, sequences, monkeypatch):
    whole = predict(clf, sequences, CPU)
    monkeypatch.setattr(Device, "tokens", 15)
    np.testing.assert_allclose(predict(clf, sequences, CPU), whole, atol=1e-6)


def test_bf16_on_the_cpu_predicts_nearly_the_same(clf, sequences):
    fp32, bf16 = (predict(clf, sequences, Device(torch.device("cpu"), precision)) for precision in ("fp32", "bf16"))
    assert not np.array_equal(fp32, bf16)
    np.testing.assert_allclose(fp32, bf16, atol=0.1)


def test_predictions_are_a_row_per_text_of_the_splits_that_were_predicted():
    rows = [("val", 0, "a", "no"), ("train", 0, "b", "yes"), ("test", 0, "c", "yes"), ("test", 1, "d", "no")]
    examples = pd.DataFrame(rows, columns=["split", "index", "text", "label"])
    corpus = Corpus("words", ("no", "yes"), examples, {})
    table = predictions(corpus, {"val": np.array([[0.25, 0.75]]), "test": np.array([[0.5, 0.5], [1.0, 0.0]])})
    assert list(table.columns) == ["split", "index", "text", "label", "predicted", "p_no", "p_yes"]
    assert table.to_numpy().tolist() == [
        ["val", 0, "a", "no", "yes", 0.25, 0.75],
        ["test", 0, "c", "yes", "no", 0.5, 0.5],  # the first of equals
        ["test", 1, "d", "no", "no", 1.0, 0.0],
    ]


def test_scores_stand_beside_the_baselines():
    def make_metrics(accuracy):
        interval = [accuracy - 0.1, accuracy + 0.1]
        numbers = {"accuracy": accuracy, "macro_f1": accuracy / 2}
        return numbers | {"intervals": dict.fromkeys(numbers, interval)}

    baselines = {
        "bag_of_words": {"name": "a bag", "test": make_metrics(0.6)},
        "majority": {"name": "always joy", "test": make_metrics(0.4)},
    }
    table = scores({"test": make_metrics(0.8), "baselines": baselines}, "words")
    names, accuracies, f1s = ([*column.cells] for column in table.columns)
    assert names == ["this model", "a bag", "always joy"]
    assert accuracies == ["0.800 [0.700, 0.900]", "0.600 [0.500, 0.700]", "0.400 [0.300, 0.500]"]
    assert f1s == ["0.400 [0.700, 0.900]", "0.300 [0.500, 0.700]", "0.200 [0.300, 0.500]"]
