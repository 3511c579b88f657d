"""The loss of a label word against `transformers` and against a softmax over the whole vocabulary."""

import numpy as np
import pytest
import torch
from commands import line_of
from torch.nn import functional as F

from data import bucketed
from experiments.train.steps import Step, make_forward
from experiments.train.words import OTHER, choose_checkpoint, read_words_and_rest
from lab.device import Device
from lab.label_words import LabelWords
from model import GPT2Classifier, load_lm, save

CPU = Device(torch.device("cpu"), "fp32")
TOKENS = (7, 89, 3)
WORDS = LabelWords(("a", "b", "c"), (("x",), ("y",), ("z",)), tuple(((token,),) for token in TOKENS))
LENGTHS = (3, 13, 1, 7, 2)
WEIGHTS = torch.tensor([0.5, 2.0, 3.0])


def make_batch():
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 101, length).tolist() for length in LENGTHS]
    [batch] = bucketed(sequences, np.array([0, 1, 2, 1, 0]), len(LENGTHS))
    return batch


def take_step(model, tokens=CPU.tokens, **options):
    """What a step returns, and the gradient of each weight: what it loses at a rate of 1."""
    before = {name: parameter.detach().clone() for name, parameter in model.trunk.named_parameters()}
    step = Step(model, make_forward(model, **options), torch.optim.SGD(model.parameters(), lr=1.0), 1e9, WEIGHTS, CPU)
    step.tokens = tokens
    totals = step(make_batch())
    return totals, {name: before[name] - parameter.detach() for name, parameter in model.trunk.named_parameters()}


def test_the_last_class_is_all_other_tokens(lm):
    batch = make_batch()
    model = read_words_and_rest(lm, WORDS)
    rows = torch.arange(len(LENGTHS))
    expected = lm(batch.ids, batch.lengths)[rows, batch.lengths - 1].softmax(dim=1)  # (B, V)
    p = model(batch.ids, batch.lengths).softmax(dim=1)
    torch.testing.assert_close(p[:, :3], expected[:, TOKENS])
    torch.testing.assert_close(p[:, 3], 1 - expected[:, TOKENS].sum(dim=1))
    assert model.labels == ("a", "b", "c", OTHER)


def test_loss_and_gradients_are_those_of_transformers(each_lm):
    batch, hf, lm = make_batch(), each_lm.hf, load_lm(each_lm.folder)
    loss, n_right = torch.zeros(()), 0
    for ids, length, target in zip(batch.ids, batch.lengths.tolist(), batch.targets.tolist(), strict=True):
        text = torch.cat([ids[: min(length, 12)], torch.tensor([TOKENS[target]])])[None]  # 13 tokens fit
        labels = text.clone()
        labels[:, :-1] = -100
        logits = hf(text, labels=labels)
        loss = loss + WEIGHTS[target] * logits.loss / WEIGHTS[batch.targets].sum()
        n_right += int(logits.logits[0, -2, TOKENS].argmax() == target)
    attn = hf.transformer.h[1].attn
    projections = [attn.c_attn] if hasattr(attn, "c_attn") else [getattr(attn.attention, f"{x}_proj") for x in "qkv"]
    wte, *parts = torch.autograd.grad(loss, [hf.transformer.wte.weight, *(part.weight for part in projections)])
    c_attn = parts[0].T if len(parts) == 1 else torch.cat(parts)
    model = read_words_and_rest(lm, WORDS)
    logits = model(batch.ids[:, :12], batch.lengths.clamp(max=12))
    own = F.cross_entropy(logits, batch.targets, weight=torch.cat([WEIGHTS, torch.ones(1)]))
    torch.testing.assert_close(own, loss)
    assert n_right == (logits[:, :3].argmax(dim=1) == batch.targets).sum()
    got = torch.autograd.grad(own, [lm.trunk.wte.weight, lm.trunk.h[1].attn.c_attn.weight])
    torch.testing.assert_close(got, (wte, c_attn), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"recompute": True}, {"tokens": 14}, pytest.param({"compiled": "on"}, marks=pytest.mark.slow)]
)
def test_a_step_goes_down_the_weighted_loss_over_the_vocabulary(lm, monkeypatch, options):
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **how: plain(model, backend="aot_eager", fullgraph=True, **how))
    batch = make_batch()
    logits = lm(batch.ids, batch.lengths)[torch.arange(len(LENGTHS)), batch.lengths - 1]
    targets = torch.tensor(TOKENS)[batch.targets]
    losses = -(logits[torch.arange(len(LENGTHS)), targets] - logits.exp().sum(dim=1).log())
    weights = WEIGHTS[batch.targets]
    expected = torch.autograd.grad((losses * weights).sum() / weights.sum(), lm.trunk.parameters())
    totals, got = take_step(read_words_and_rest(lm, WORDS), **options)
    assert totals[0].item() == pytest.approx(losses.sum().item(), rel=1e-5)
    assert totals[1] == (logits[:, TOKENS].argmax(dim=1) == batch.targets).sum()
    for value, gradient in zip(got.values(), expected, strict=True):
        torch.testing.assert_close(value, gradient, atol=1e-5, rtol=1e-3)


def test_what_is_saved_is_the_language_model(lm, clf, tmp_path):
    model = read_words_and_rest(lm, WORDS)
    take_step(model)
    save(choose_checkpoint(model), tmp_path)
    ids = make_batch().ids
    torch.testing.assert_close(load_lm(tmp_path)(ids), lm(ids), rtol=0, atol=0)
    assert choose_checkpoint(clf) is clf
    assert isinstance(clf, GPT2Classifier)


def test_words_of_several_tokens_are_refused(lm):
    long = LabelWords(("a", "b"), (("x",), ("yes no",)), (((1,),), ((2, 3),)))
    assert "'yes no': expected one token each" in line_of(read_words_and_rest, lm, long)
