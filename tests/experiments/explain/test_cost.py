"""What a forecast counts, against the tokens that the network really reads."""

import numpy as np
import pytest
import torch
from planted_words import CPU, explain_texts, parse_ids, study_of
from tiny import random_classifier

from experiments.explain import cost, faithfulness, methods
from experiments.explain.attributions import NODES, PAIRS, STRETCHES
from experiments.explain.cost import BACKWARD, count_attributions, count_faithfulness
from model import GPT2, GPT2Config

IDS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]


@pytest.fixture
def clf():
    return random_classifier(GPT2Config(2, 2, 14, n_ctx=12, vocab_size=10, dropout=0.0, attn_dropout=0.0), list("abcd"))


@pytest.fixture
def read(monkeypatch):
    """The tokens that each pass reads, and whether gradients are taken through it."""
    passes, run = [], GPT2.run

    def count(trunk, x, *arguments, **named):
        passes.append((len(x) * x.shape[1], torch.is_grad_enabled()))
        return run(trunk, x, *arguments, **named)

    monkeypatch.setattr(GPT2, "run", count)
    return passes


@pytest.mark.parametrize("n", [4, 12])
def test_the_tokens_of_attributions_are_counted(clf, read, monkeypatch, n):
    monkeypatch.setattr(cost, "POINTS", STRETCHES * NODES)  # this network needs no more
    parsed = parse_ids(IDS[:n])
    methods.explain(clf, parsed, CPU)
    K = len(clf.labels)
    tokens = sum(n * (1 + BACKWARD * K if slope else 1) for n, slope in read)
    assert count_attributions(parsed, K, PAIRS) / tokens == pytest.approx(1, abs=0.25)


def test_the_tokens_of_rationales_are_counted(clf, read, tmp_path):
    text = explain_texts(clf, [IDS])[0]
    read.clear()
    faithfulness.measure_text(study_of(clf, tmp_path), text, tmp_path, 0)
    assert count_faithfulness(len(IDS)) / sum(n for n, _ in read) == pytest.approx(
        1.4, abs=0.6
    )  # equal ones are read once


def test_the_forecast_says_how_long_it_takes(clf, monkeypatch, tmp_path):
    study, text = study_of(clf, tmp_path), explain_texts(clf, [IDS])[0]
    monkeypatch.setattr(cost, "measure_rate", lambda study, parsed: 100.0)
    monkeypatch.setattr(cost, "forecast", lambda *values: values)
    monkeypatch.setattr(type(study), "draw_texts", lambda *_: type("Texts", (), {"sequences": [IDS] * 2})())
    words, tokens, rate, _ = cost.forecast_work(study, [text, text])
    assert words == "Explaining 2 texts takes"
    assert rate == 100
    parsed = text.parsed
    two_networks = 2 * (clf.config.n_layer + 3)
    want = 2 * count_attributions(parsed, 4, PAIRS) + 2 * count_faithfulness(12)
    want += 2 * two_networks * count_attributions(parsed, 1, 2) + 2 * 5 * 6 * 2 * 12
    assert tokens == want
    assert np.isfinite(tokens)
