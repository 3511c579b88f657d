"""Which texts are explained: balanced, read whole, and the user's; and odd networks, from there to the report."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import spelled
import torch
from tiny import random_classifier

import explain
from experiments.explain.choose import LONGEST, Explained, choose_texts, draw_balanced, parse_users
from experiments.explain.methods import Explanation, parse
from experiments.explain.tables import describe_sum, tabulate_attributions, tabulate_completeness, tabulate_texts
from lab.device import Device
from lab.study import Study
from lab.texts import Texts
from model import GPT2Classifier, GPT2Config, InputError, Tokenizer

CPU = Device(torch.device("cpu"), "fp32")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load("gpt2-mini")


@pytest.fixture(scope="module")
def clf():
    torch.manual_seed(0)
    config = GPT2Config(1, 1, 5, n_ctx=90, dropout=0.0, attn_dropout=0.0)
    return GPT2Classifier(config, ["a", "b", "c"]).eval().requires_grad_(False)


def study_of(clf, tokenizer, strings, targets, longest=90):
    sequences = [tokenizer.encode(text)[-longest:] for text in strings]
    texts = Texts("test", np.arange(len(strings)), strings, sequences, np.array(targets))
    return Study(None, {}, clf, tokenizer, SimpleNamespace(files={}), {"test": texts}, CPU, "")


def test_each_cell_gives_one_in_turn_as_long_as_it_has_some():
    cells = np.array([0] * 10 + [1] * 2 + [2] * 5)
    among = np.ones(17, bool)
    counts = [np.bincount(cells[draw_balanced(cells, among, n, 0)], minlength=3).tolist() for n in (3, 6, 10, 17, 99)]
    assert counts == [[1, 1, 1], [2, 2, 2], [4, 2, 4], [10, 2, 5], [10, 2, 5]]
    among[:8] = among[10] = False
    drawn = draw_balanced(cells, among, 5, 0)
    assert set(drawn) <= set(np.flatnonzero(among))
    assert np.bincount(cells[drawn]).tolist() == [2, 1, 2]
    assert drawn == sorted(drawn) == draw_balanced(cells, among, 5, 0)
    many = np.zeros(50, int)
    assert draw_balanced(many, many == 0, 6, 0) != draw_balanced(many, many == 0, 6, 1)


def test_texts_are_balanced_over_classes_and_over_right_and_wrong(clf, tokenizer):
    rng = np.random.default_rng(0)
    strings = [" ".join(rng.choice(["one", "two", "three", "four", "five"], 4)) for _ in range(300)]
    targets = rng.integers(0, 3, 300)
    study = study_of(clf, tokenizer, strings, targets)
    chosen = choose_texts(study, 12, 0)
    cells = pd.Series([(text.label, text.label == text.predicted) for text in chosen]).value_counts()
    with torch.no_grad():
        for text in chosen:
            logits = clf(torch.tensor([text.parsed.ids]))[0]
            np.testing.assert_allclose(text.probabilities, logits.softmax(0).numpy(), atol=1e-6)
            assert (text.split, text.parsed.text, text.label) == ("test", strings[text.index], targets[text.index])
    predicted = {int(clf(torch.tensor([ids])).argmax()) for ids in study.texts["test"].sequences}
    assert cells.max() - cells.min() <= 1 or len(predicted) < 3
    assert len(chosen) == 12


def test_long_texts_and_texts_that_are_read_in_part_are_left_out(clf, tokenizer):
    strings = ["good", "word " * (LONGEST + 1), "one two three", "word " * 90]
    chosen = choose_texts(study_of(clf, tokenizer, strings, [0, 0, 0, 0]), 48, 0)
    assert [text.index for text in chosen] == [0, 2]
    only_long = choose_texts(study_of(clf, tokenizer, strings[1:2], [0]), 48, 0)
    assert [text.index for text in only_long] == [0]  # it is the shortest
    with pytest.raises(InputError, match="reads no test text whole"):
        choose_texts(study_of(clf, tokenizer, strings[3:], [0]), 48, 0)


def test_a_text_keeps_its_number_in_its_split(clf, tokenizer):
    study = study_of(clf, tokenizer, ["good", "bad", "fine"], [0, 1, 2])
    texts = {"test": replace(study.texts["test"], positions=np.array([7, 11, 30]))}
    chosen = choose_texts(replace(study, texts=texts), 3, 0)
    assert [(text.index, text.parsed.text) for text in chosen] == [(7, "good"), (11, "bad"), (30, "fine")]


def test_a_network_that_overflows_is_refused(clf, tokenizer):
    broken = deepcopy(clf)
    broken.score.weight.fill_(torch.inf)
    with pytest.raises(InputError, match="no finite probabilities"):
        choose_texts(study_of(broken, tokenizer, ["good", "bad"], [0, 1]), 2, 0)


def test_the_users_texts_are_checked_first(clf, tokenizer):
    study = study_of(clf, tokenizer, ["a"], [0])
    texts = parse_users(study, ["so sad", "x"])
    assert [(text.split, text.index, text.label) for text in texts] == [("user", 0, None), ("user", 1, None)]
    for text in texts:
        with torch.no_grad():
            probabilities = clf(torch.tensor([text.parsed.ids]))[0].softmax(0).numpy()
        np.testing.assert_allclose(text.probabilities, probabilities, atol=1e-6)
    lines = {"": "at least one character", "word " * 91: "at most 90 tokens", "a\udcff": "half of a character"}
    for text, line in lines.items():
        with pytest.raises(InputError, match=line):
            parse_users(study, ["fine", text])
    small = GPT2Classifier(GPT2Config(1, 1, 5, n_ctx=90, vocab_size=100), ["a", "b", "c"])
    with pytest.raises(InputError, match="the model only 100: not a pair"):
        parse_users(replace(study, clf=small), ["fine"])


def test_tables_have_a_row_for_each_token_class_and_method(tokenizer):
    parsed = parse("so unloved, so", tokenizer)  # so, unl oved, ",", so
    T = len(parsed.ids)
    values = {"shapley": np.arange(2 * T).reshape(T, 2), "attention": np.ones((T, 2))}
    sums = {"shapley": (np.array([-2.0, -0.05]), np.array([-2.5, -0.04]))}
    sums["integrated_gradients"] = (np.array([1.0, 2]), np.array([1.0, 2]))
    explanation = Explanation(values, sums, 28, np.zeros((4, 2)))
    text = Explained("test", 7, parsed, 0, np.array([0.4, 0.6]), explanation)
    table = tabulate_attributions([text], ["a", "b"])
    assert len(table) == 2 * T * 2
    row = table[(table.method == "shapley") & (table["class"] == "b") & (table.position == 1)].iloc[0]
    assert (row.split, row["index"], row.word, row.group, row.value) == ("test", 7, "unloved", 1, 3)
    assert parsed.text[row.start : row.end] == row.token
    assert table[table.word == "so"].group.unique().tolist() == [0, 3]
    users = Explained("user", 0, parsed, None, np.array([0.7, 0.3]), explanation)
    texts = tabulate_texts([users, text], ["a", "b"])
    assert texts.columns.tolist() == ["split", "index", "text", "label", "predicted", "p_a", "p_b"]
    assert texts.iloc[1].tolist() == ["test", 7, "so unloved, so", "a", "b", 0.4, 0.6]
    assert texts.label.isna().tolist() == [True, False]
    missed = tabulate_completeness([text], ["a", "b"]).set_index(["method", "class"])
    assert missed.loc[("shapley", "a"), ["gap", "sum", "miss", "share"]].tolist() == [-2, -2.5, 0.5, 0.25]
    assert missed.loc[("shapley", "b"), "share"] == pytest.approx(0.1)  # of 0.1, as the gap is smaller
    assert missed.nodes.isna().tolist() == [True, True, False, False]
    assert missed.loc[("integrated_gradients", "a"), "nodes"] == 28


@pytest.mark.parametrize(
    ("sums", "line"),
    [
        ([-2.01, 0.0508], "test 7: integrated gradients miss 0.80% of the gap, with 28 nodes"),
        ([-2.1, 0.05], "miss 5.00% of the gap, with 28 nodes: more than 1%, do not trust them here"),
    ],
)
def test_the_class_that_misses_most_is_said(sums, line):
    of_methods = {"shapley": (np.ones(2), np.zeros(2)), "integrated_gradients": (np.array([-2, 0.05]), np.array(sums))}
    explanation = Explanation({}, of_methods, 28, np.zeros((1, 2)))
    text = Explained("test", 7, None, 1, np.array([0.4, 0.6]), explanation)
    assert describe_sum(text).endswith(line)


def explain_random(labels, folder, monkeypatch, ln_f_bias=None):
    """The tables of a random network of one layer on random texts, and the report. ln_f_bias: (C,), of logits that are
    the same for all texts."""
    rng, splits = np.random.default_rng(0), ("train", "val", "test")
    sequences = {split: [rng.integers(0, 8, 6).tolist() for _ in range(40)] for split in splits}
    targets = {split: rng.integers(0, len(labels), 40) for split in splits}
    config = GPT2Config(1, 2, 6, n_ctx=7, vocab_size=26, dropout=0.0, attn_dropout=0.0)
    clf = random_classifier(config, labels).requires_grad_(False)
    if ln_f_bias is not None:
        clf.trunk.ln_f.bias.copy_(torch.linalg.lstsq(clf.score.weight, torch.tensor(ln_f_bias)).solution)
    corpus = SimpleNamespace(name="corpus", revision="", files={}, skipped=())
    record = {"model": {"name": "tiny"}, "settings": {"init": "random"}}
    study = replace(spelled.study_of(clf, sequences, targets, folder), corpus=corpus, record=record)
    monkeypatch.setattr(explain, "open_study", lambda *_: study)
    monkeypatch.setattr(explain.figures, "draw", lambda *_: None)  # tests/experiments/explain/test_figures.py draws
    monkeypatch.setattr("sys.argv", ["explain.py"])
    assert explain.main(explain.Options(texts=6, device="cpu")) == 0
    tables = {path.stem: pd.read_csv(path) for path in (folder / "explain").glob("*.csv")}
    return study, tables, (folder / "explain" / "report.md").read_text()


@pytest.mark.slow
def test_of_two_classes_one_gains_what_the_other_loses(tmp_path, monkeypatch):
    study, tables, report = explain_random(["a", "b"], tmp_path, monkeypatch)
    values = tables["words"].pivot_table(values="value", index="word", columns="class")
    np.testing.assert_allclose(values["a"], -values["b"], atol=1e-6)
    weights = tables["words"].pivot_table(values="bag_of_words", index="word", columns="class")
    np.testing.assert_allclose(weights["a"], -weights["b"], atol=1e-6)
    assert (weights.abs() > 0).all(axis=None)
    rows = tables["robustness"].drop_duplicates("class").set_index("class")
    assert rows["n"].to_dict() == {
        "all": 40,
        **{c: (study.texts["test"].targets == k).sum() for k, c in enumerate("ab")},
    }
    assert set(tables["judged"]["judged_in"]) == {4, 6}
    assert "nan" not in report.split()


@pytest.mark.slow
def test_of_a_network_that_says_the_same_class_of_all_texts_no_word_costs_any_accuracy(tmp_path, monkeypatch):
    _, tables, report = explain_random(["a", "b", "c"], tmp_path, monkeypatch, ln_f_bias=[0.0, 40, 0])
    assert set(tables["texts"]["predicted"]) == {"b"}
    assert set(tables["texts"]["label"]) == {"a", "b", "c"}  # right and wrong ones all the same
    faithful = tables["faithfulness"]
    assert (faithful.loc[faithful["class"].isin(["all", "b"]) & (faithful["size"] == "aopc"), "n"] == 6).all()
    assert (faithful.loc[faithful["class"].isin(["a", "c"]), "n"] == 0).all()
    differences = tables["robustness"]["difference"].dropna()
    assert len(differences) > 0
    assert (differences == 0).all()
    rows = tables["robustness"].drop_duplicates("class").set_index("class")
    assert rows.loc[["a", "b", "c"], "whole"].tolist() == [0, 1, 0]
    assert "nan" not in report.split()


@pytest.mark.slow
def test_a_class_whose_name_looks_like_that_of_all_texts_is_none_of_all_texts(tmp_path, monkeypatch):
    study, tables, report = explain_random(["all (class)", "b", "all (class) (class)"], tmp_path, monkeypatch)
    faithful = tables["faithfulness"]
    n = faithful[faithful["size"] == "aopc"].groupby("class")["n"].agg(["min", "max"])
    predicted = tables["texts"]["predicted"].value_counts()
    for label in study.clf.labels:
        assert n.loc[label].tolist() == [predicted.get(label, 0)] * 2
    assert n.loc["all"].tolist() == [6, 6]
    rows = tables["robustness"].drop_duplicates("class").set_index("class")["n"]
    assert rows["all"] == 40
    for k, label in enumerate(study.clf.labels):
        assert rows[label] == (study.texts["test"].targets == k).sum()
    assert set(tables["attributions"]["class"]) == set(study.clf.labels)
    assert "nan" not in report.split()
