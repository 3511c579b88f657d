"""Predictions as a table, and the scores beside the baselines."""

import numpy as np
import pandas as pd

from data import Corpus
from experiments.train.measure import predictions, scores


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
