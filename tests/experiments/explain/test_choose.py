"""Which texts are explained: balanced, read whole, and the user's."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

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


def test_the_users_texts_are_checked_first(clf, tokenizer):
    study = study_of(clf, tokenizer, ["a"], [0])
    texts = parse_users(study, ["so sad", "x"])
    assert [(text.split, text.index, text.label) for text in texts] == [("user", 0, None), ("user", 1, None)]
    for text in ("", "word " * 91):
        with pytest.raises(InputError, match="expected 1 to 90 tokens"):
            parse_users(study, ["fine", text])


def test_tables_have_a_row_for_each_token_class_and_method(tokenizer):
    parsed = parse("so unloved, so", tokenizer)  # so, unl oved, ",", so
    T = len(parsed.ids)
    values = {"shapley": np.arange(2 * T).reshape(T, 2), "attention": np.ones((T, 2))}
    sums = {"shapley": (np.array([-2.0, -0.05]), np.array([-2.5, -0.04]))}
    sums["integrated_gradients"] = (np.array([1.0, 2]), np.array([1.0, 2]))
    explanation = Explanation(values, sums, 28, np.zeros((4, 2)))
    text = Explained("test", 7, parsed, 1, np.array([0.4, 0.6]), explanation)
    table = tabulate_attributions([text], ["a", "b"])
    assert len(table) == 2 * T * 2
    row = table[(table.method == "shapley") & (table["class"] == "b") & (table.position == 1)].iloc[0]
    assert (row.split, row["index"], row.word, row.group, row.value) == ("test", 7, "unloved", 1, 3)
    assert parsed.text[row.start : row.end] == row.token
    assert table[table.word == "so"].group.unique().tolist() == [0, 3]
    users = Explained("user", 0, parsed, None, np.array([0.7, 0.3]), explanation)
    texts = tabulate_texts([users, text], ["a", "b"])
    assert texts.columns.tolist() == ["split", "index", "text", "label", "predicted", "p_a", "p_b"]
    assert texts.iloc[1].tolist() == ["test", 7, "so unloved, so", "b", "b", 0.4, 0.6]
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
