"""Runs side by side: the tidy table, and what a run predicted, from pretended runs."""

import numpy as np
import pandas as pd
import pytest
from pretended import SETTINGS, measured

from data import read_corpus
from experiments.paper import results
from experiments.train.measure import predictions
from lab import output


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


def test_several_models_stand_in_one_panel_and_baselines_once():
    models = ["folder/one", "two"]
    runs = [
        measured("words", settings=SETTINGS | {"model": model, "init": init})
        for model in models
        for init in ("pretrained", "random")
    ]
    table = results.tidy(runs)
    starts = table[["model", "init"]].drop_duplicates()
    networks = [("folder/one", "pretrained"), ("folder/one", "random"), ("two", "pretrained"), ("two", "random")]
    assert [*starts.itertuples(index=False, name=None)] == [*networks, ("bag_of_words", ""), ("majority", "")]
    scores = results.accuracies_on_test(table)
    assert set(scores["panel"]) == {"words, 54 test texts"}
    assert list(scores["name"]) == [
        "one, all weights tuned, seed 0",
        "one, all weights tuned, from random weights, seed 0",
        "two, all weights tuned, seed 0",
        "two, all weights tuned, from random weights, seed 0",
        "best bag of words",
        "most frequent class",
    ]
    assert scores["kind"].nunique() == 5


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
