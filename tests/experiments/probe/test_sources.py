"""What is probed: texts and words in their splits, and the baselines beside them."""

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import lab.baselines
from experiments.probe.linear import Task, bootstrap_means
from experiments.probe.sources import SHARES, Source, collect_texts, collect_words, score_baselines
from lab.baselines import best_bag_of_words
from lab.texts import Texts
from model import Tokenizer

LABELS = ("a", "b")


def test_texts_and_their_words_stay_in_their_split():
    tokenizer = Tokenizer.load("gpt2-mini")
    texts = {split: [f"the {split} has {word} words" for word in ("four", "brave", "unsaid")] for split in SHARES}
    parts = [
        Texts(split, np.arange(3), strings, [*map(tokenizer.encode, strings)], np.array([0, 1, 0]))
        for split, strings in texts.items()
    ]
    source = collect_texts(parts, LABELS)
    task = source.tasks["emotion", "last"]
    assert task.split.tolist() == ["train"] * 3 + ["val"] * 3 + ["test"] * 3
    assert [
        tokenizer.decode([ids[at[0]]]) for ids, at in zip(source.sequences, source.positions["last"], strict=True)
    ] == [" words"] * 9
    [words], _ = collect_words(parts, tokenizer, 45, 0)
    split_of_word = words.tasks["length", "word"].split
    for split in SHARES:
        in_split = set(np.array(words.words)[split_of_word == split])
        assert in_split >= {split, "brave"}
        assert not in_split & (set(SHARES) - {split})


def test_texts_without_words_have_no_properties_of_words():
    tokenizer = Tokenizer.load("gpt2-mini")
    parts = [Texts(split, np.arange(2), [":)", "7"], [[25, 8], [22]], np.array([0, 1])) for split in SHARES]
    sources, missing = collect_words(parts, tokenizer, 45, 0)
    assert sources == []
    assert "no word of letters" in missing[-1]


def of_labels(split, texts, targets):
    return Texts(split, np.arange(len(texts)), texts, [[1, 2]] * len(texts), np.array(targets))


def parts_of_texts():
    """Of each class one word that gives it away; test has one text of each that does not."""
    train = [f"{word} day {n}" for n in range(6) for word in ("good", "bad")]
    return [
        of_labels("train", train, [0, 1] * 6),
        of_labels("val", ["good one", "bad one"], [0, 1]),
        of_labels("test", ["good deal", "bad deal", "bad luck", "good grief", "good bye"], [0, 1, 1, 1, 0]),
    ]


def test_classes_of_texts_have_no_control_for_no_text_comes_twice():
    source = collect_texts(parts_of_texts(), LABELS)
    for task in source.tasks.values():
        assert task.control is None
        assert task.text.tolist() == list(range(19))


def test_words_have_a_control_for_each_property_and_know_their_text():
    tokenizer = Tokenizer.load("gpt2-mini")
    texts = [f"{word} is not so {word}" for word in ["sad", "happy", "blue", "big", "red", "odd", "tall"]]
    parts = [Texts(split, np.arange(7), texts, [*map(tokenizer.encode, texts)], np.zeros(7, int)) for split in SHARES]
    [source], _ = collect_words(parts, tokenizer, 1000, 0)
    tasks = {what: task for (what, _), task in source.tasks.items()}
    assert tasks["length"].text.tolist() == [i for i in range(21) for _ in range(5)]
    for task in tasks.values():
        by_type = {}
        for word, label in zip(source.words, task.control, strict=True):
            assert by_type.setdefault(word, label) == label
    [other], _ = collect_words(parts, tokenizer, 1000, 1)
    assert (other.tasks["length", "word"].control != tasks["length"].control).any()


def test_the_baselines_are_right_about_these_rows():
    """By hand: in test the bag of words is wrong about `good grief` alone; a tie in train goes to the first class."""
    parts = parts_of_texts()
    table = score_baselines([collect_texts(parts, LABELS)], parts).set_index("baseline")
    assert table["correct"].to_dict() == {"most frequent class": "10001", "bag of words": "11101"}
    assert table["accuracy"].tolist() == [0.4, 0.8]
    assert table["n"].tolist() == [5, 5]
    _, low, high = bootstrap_means(np.array([[1, 1, 1, 0, 1]]).T, np.arange(5))
    assert (table.loc["bag of words", "ci_low"], table.loc["bag of words", "ci_high"]) == (low, high)


def test_the_baselines_of_words_resample_their_texts():
    """Words of two texts: one is right throughout, the other wrong, so the share may be anything."""
    rows = 40
    task = Task(
        np.array([0] * rows + [0] * 4 + [0] * rows + [1] * rows),
        LABELS,
        np.array(["train"] * rows + ["val"] * 4 + ["test"] * 2 * rows),
        np.repeat([0, 1, 2, 3], [rows, 4, rows, rows]),
    )
    source = Source("words", [], {}, {("length", "word"): task}, ["the"] * len(task.y))
    table = score_baselines([source], [])
    assert table["baseline"].tolist() == ["most frequent class", "word type"]
    assert table[["accuracy", "ci_low", "ci_high"]].to_numpy().tolist() == [[0.5, 0, 1]] * 2


def test_the_bag_of_words_is_chosen_on_val(monkeypatch):
    def constant(label):
        return make_pipeline(
            FunctionTransformer(lambda texts: np.zeros((len(texts), 1))),
            DummyClassifier(strategy="constant", constant=label),
        )

    monkeypatch.setattr(lab.baselines, "make_candidates", lambda texts: {"zero": constant(0), "one": constant(1)})
    name, fitted, scores = best_bag_of_words((["a", "b"], np.array([0, 1])), (["c", "d", "e"], np.array([1, 1, 0])))
    assert name == "one"
    assert fitted.predict(["f"]).tolist() == [1]
    assert scores == {"zero": pytest.approx(0.25), "one": pytest.approx(0.4)}  # F1 of 1/2 and 0, of 4/5 and 0
