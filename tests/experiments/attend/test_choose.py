"""Which texts and which head are shown."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import line_of
from planted import texts_of

from experiments.attend.choose import EACH, LONGEST, choose_head, choose_texts, draw_examples, find_head
from lab.attention import MOST_TOKENS
from lab.device import Device
from model import GPT2Classifier, GPT2Config, Tokenizer


def test_of_each_class_some_right_and_some_wrong_texts_are_drawn():
    rng = np.random.default_rng(0)
    targets, predicted, among = rng.integers(0, 3, 300), rng.integers(0, 3, 300), rng.random(300) < 0.8
    chosen = draw_examples(predicted, targets, among, 3, 0)
    assert len(chosen) == len(set(chosen)) == 3 * 2 * EACH
    assert targets[chosen].tolist() == [k for k in range(3) for _ in range(2 * EACH)]
    right = (targets == predicted)[chosen]
    assert right.tolist() == 3 * (EACH * [True] + EACH * [False])
    assert among[chosen].all()
    assert chosen == draw_examples(predicted, targets, among, 3, 0)
    assert chosen != draw_examples(predicted, targets, among, 3, 1)


def test_where_nothing_is_wrong_only_right_ones_are_drawn():
    targets = np.array([0, 0, 0, 1])
    chosen = draw_examples(targets, targets, np.ones(4, dtype=bool), 3, 0)
    assert len(chosen) == 3
    assert 3 in chosen


@pytest.mark.parametrize("shortest", [5, LONGEST + 9])
def test_long_and_truncated_texts_are_not_chosen_unless_all_are_long(shortest):
    tokenizer = Tokenizer.load("gpt2-mini")
    strings = [" a" * n for n in (shortest, shortest, LONGEST + 20, 150)]
    strings.append("cut" + strings[0])  # as short, but its first tokens were not read
    sequences = [tokenizer.encode(text) for text in strings]
    sequences[3:] = [sequences[3][-LONGEST:], sequences[4][1:]]
    texts = texts_of("test", sequences, np.zeros(5, dtype=int))
    texts.strings[:] = strings
    torch.manual_seed(0)
    clf = GPT2Classifier(GPT2Config(1, 2, 8, n_ctx=128), ["a", "b"])
    study = SimpleNamespace(clf=clf, tokenizer=tokenizer, device=Device(torch.device("cpu"), "fp32"))
    assert choose_texts(study, texts, 0) == 2 * [(" a" * shortest, "a")]


@pytest.mark.parametrize("n", [MOST_TOKENS, MOST_TOKENS + 1])
def test_no_text_is_chosen_that_a_page_cannot_draw(n):
    tokenizer = Tokenizer.load("gpt2-mini")
    strings = [" a" * n, " b" * 290]
    texts = texts_of("test", [tokenizer.encode(text) for text in strings], np.zeros(2, dtype=int))
    texts.strings[:] = strings
    torch.manual_seed(0)
    clf = GPT2Classifier(GPT2Config(1, 2, 8, n_ctx=300), ["a", "b"])
    study = SimpleNamespace(clf=clf, tokenizer=tokenizer, device=Device(torch.device("cpu"), "fp32"))
    assert choose_texts(study, texts, 0) == [(strings[0], "a")] * (n == MOST_TOKENS)


def test_the_head_that_looks_around_most_is_chosen():
    elsewhere = np.zeros((4, 2, 3))
    elsewhere[:, 1, 0] = [0.9, 0, 0, 0]
    elsewhere[:, 0, 2] = 0.4
    assert choose_head(elsewhere) == (0, 2)


def test_a_head_is_read_and_one_that_is_not_there_is_refused():
    config = GPT2Config(2, 3, 12)
    assert find_head("1.2", config) == (1, 2)
    for name in ("2.0", "0.3", "-1.0", "1", "one.two", ""):
        assert f"--head {name}: expected layer.head, from 0.0 to 1.2" in line_of(find_head, name, config)
