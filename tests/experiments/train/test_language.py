"""The language model's loss before and beside that of the classifier, against `transformers` and plain gradients."""

import re
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from planted import draw_splits, texts_of
from torch.nn import functional as F

from data import bucketed
from experiments.train.frozen import make_forwards
from experiments.train.language import compute_lm_losses, describe_language, make_joint_forward
from experiments.train.steps import Step
from experiments.train.training import Training, shuffle_labels
from lab.defaults import FEW, TrainOptions
from lab.device import Device
from lab.state import STATE
from model import GPT2Classifier, InputError, Tokenizer, masks

CPU = Device(torch.device("cpu"), "fp32")
CLASS_WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0])
TEXTS = draw_splits()


def batch_of(lengths=(3, 13, 1, 7, 7, 2, 11), seed=0):
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(0, 101, length).tolist() for length in lengths]
    [batch] = bucketed(sequences, np.arange(len(lengths)) % 4, len(lengths), seed)
    return batch


def test_the_loss_of_each_text_is_that_of_transformers(lm_reference):
    batch, lm = batch_of(), lm_reference.ours
    with torch.no_grad():
        x = lm.trunk(batch.ids, batch.lengths)
        losses = compute_lm_losses(x, batch.ids, batch.lengths, lm.trunk.wte.weight)
        for ids, length, loss in zip(batch.ids, batch.lengths, losses, strict=True):
            text = ids[None, :length]
            expected = lm_reference.hf(text, labels=text).loss.item() if length > 1 else 0
            assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert (batch.lengths == 1).any()


@pytest.mark.parametrize("compiled", ["off", pytest.param("on", marks=pytest.mark.slow)])
def test_one_pass_gives_the_logits_of_the_classifier_under_the_same_intervention(clf, compiled, monkeypatch):
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **how: plain(function, backend="aot_eager", **how))
    batch, gate = batch_of(), masks.close_heads(clf.config, [(1, 2)])
    forward = make_joint_forward(clf, compiled, intervention=lambda ids, lengths: {"head_gate": gate})
    with torch.no_grad():
        logits, lm_losses = forward(batch)
        torch.testing.assert_close(logits, clf(batch.ids, batch.lengths, head_gate=gate))
        x = clf.trunk(batch.ids, batch.lengths, head_gate=gate)
        expected = compute_lm_losses(x, batch.ids, batch.lengths, clf.trunk.wte.weight)
        torch.testing.assert_close(lm_losses, expected)
        assert not torch.allclose(lm_losses, make_joint_forward(clf)(batch).lm_losses, rtol=1e-3)


def gradients(clf, batch, adapting, lm_weight):
    """In one plain backward pass over the batch."""
    x = clf.trunk(batch.ids, batch.lengths)
    language = compute_lm_losses(x, batch.ids, batch.lengths, clf.trunk.wte.weight)
    classes = F.cross_entropy(clf(batch.ids, batch.lengths), batch.targets, reduction="none")
    weights = CLASS_WEIGHTS[batch.targets]
    loss = language.mean() if adapting else (weights * (classes + lm_weight * language)).sum() / weights.sum()
    named = dict(clf.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: 0 * named[name] if each is None else each for name, each in zip(named, found, strict=True)}


@pytest.mark.parametrize("tokens", [10**6, 30, 1])
@pytest.mark.parametrize(("adapting", "lm_weight"), [(True, 0.0), (True, 0.7), (False, 0.7), (False, 0.0)])
def test_the_pieces_of_a_step_make_its_gradient(clf, monkeypatch, tokens, adapting, lm_weight):
    monkeypatch.setattr("lab.device.TOKENS", tokens)
    batch = batch_of()
    expected = gradients(clf, batch, adapting, lm_weight)
    before = {name: parameter.detach().clone() for name, parameter in clf.named_parameters()}
    optimizer = torch.optim.SGD(clf.parameters(), lr=1.0)
    step = Step(clf, make_joint_forward(clf), optimizer, 1e9, CLASS_WEIGHTS, CPU, lm_weight)
    step.adapting = adapting
    with torch.no_grad():
        outputs = make_joint_forward(clf)(batch)
    losses = F.cross_entropy(outputs.logits, batch.targets, reduction="sum")
    right = (outputs.logits.argmax(1) == batch.targets).sum().item()
    told = outputs.lm_losses.sum() if adapting else losses
    assert step(batch).tolist() == pytest.approx([told.item(), right], rel=1e-5)
    for name, parameter in clf.named_parameters():
        torch.testing.assert_close(before[name] - parameter.detach(), expected[name], atol=1e-5, rtol=1e-4, msg=name)
    assert expected["score.weight"].any() == (not adapting)


def train(clf, folder, texts=TEXTS, **settings):
    settings = {"epochs": 2, "adapt": 2, "lm_weight": 0.5, "batch_size": 4, "lr": 0.01, "compile": "off"} | settings
    options = TrainOptions(**settings).resolved(35, FEW)
    folder.mkdir(exist_ok=True)
    torch.manual_seed(2)
    training = Training(clf, texts, options, CPU, make_forwards(clf, options, CPU))
    return training


def weights_of(training):
    return {name: value.clone() for name, value in training.model.state_dict().items()}


def test_it_adapts_first_and_the_log_tells_both(clf, tmp_path, capsys):
    training = train(clf, tmp_path)
    training.fit(tmp_path, Tokenizer.load("gpt2-mini"))
    log = pd.DataFrame(training.log)
    assert log["epoch"].tolist() == [-1, -1, 0, 0, 1, 1, 2, 2]
    adapted, classified = log[log["epoch"] < 1], log[log["epoch"] > 0]
    assert adapted["lm_loss"].notna().all()
    assert adapted[["loss", "accuracy", "macro_f1"]].isna().all(axis=None)
    assert classified["loss"].notna().all()
    assert classified.set_index("split")["lm_loss"].notna().groupby("split").all().to_dict() == {
        "train": False,
        "val": True,
    }
    assert training.best_epoch > 0
    said = capsys.readouterr().out
    for line in (
        "adapting epoch 1: train loss of the next token",
        "adapting epoch 2: ",
        "epoch 1: train loss ",
        "val ",
    ):
        assert line in said


def test_val_is_read_once_and_tells_both_losses(clf, tmp_path):
    whole, val = deepcopy(clf).eval(), TEXTS["val"]
    training = train(clf, tmp_path)
    training.epoch, forward, read = 1, training.forward_val, []
    training.forward_val = lambda batch: read.extend(batch.index.tolist()) or forward(batch)
    row = training.evaluate()
    assert sorted(read) == [*range(len(val))]
    used = sorted({token for split in TEXTS.values() for text in split.sequences for token in text})
    losses, lm_losses = [], []
    with torch.no_grad():
        for text, target in zip(val.sequences, val.targets.tolist(), strict=True):
            ids, targets = torch.tensor([text]), torch.tensor([used.index(token) for token in text[1:]])
            losses.append(F.cross_entropy(whole(ids)[0], torch.tensor(target)).item())
            logits = whole.trunk(ids)[0, :-1] @ whole.trunk.wte.weight[used].T  # (T - 1, U)
            lm_losses.append(F.cross_entropy(logits, targets).item() if len(text) > 1 else 0)
    assert row["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert row["lm_loss"] == pytest.approx(np.mean(lm_losses), rel=1e-5)


def test_adapting_learns_the_language_and_takes_no_label(clf, tmp_path):
    """Texts that count upwards: the next token follows from the last one."""
    sequences = [[(7 * start + step) % 101 for step in range(6)] for start in range(23)]
    texts = {
        split: texts_of(split, sequences[first::2], np.arange(len(sequences[first::2])) % 4)
        for split, first in (("train", 0), ("val", 1))
    }
    found = []
    for given in (texts, shuffle_labels(texts, 0)):
        copy = GPT2Classifier(clf.config, clf.labels)
        copy.load_state_dict(clf.state_dict())
        training = train(copy, tmp_path, given, adapt=5, dropout=0.0, class_weights=True)
        rows = []
        for training.epoch in range(-4, 1):
            training.step, training.totals = 0, torch.zeros(2)
            rows += [training.train(tmp_path, lambda note: None), training.evaluate()]
        found.append(weights_of(training))
    losses = [row["lm_loss"] for row in rows if row["split"] == "train"]
    assert losses[-1] < 0.8 * losses[0]
    assert (given["train"].targets != texts["train"].targets).any()
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_a_resumed_training_is_an_undisturbed_one(clf, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("experiments.train.training.STATE_EVERY", 0)
    monkeypatch.setattr("experiments.train.training.READ_EVERY", 1)
    tokenizer = Tokenizer.load("gpt2-mini")
    start = {name: value.clone() for name, value in clf.state_dict().items()}

    def fresh(folder):
        copy = GPT2Classifier(replace(clf.config, dropout=0.2), clf.labels)
        copy.load_state_dict(start)
        return train(copy, folder)

    whole = fresh(tmp_path / "whole")
    whole.fit(tmp_path / "whole", tokenizer)
    stopped, calls = fresh(tmp_path / "two"), []
    take_step = stopped.take_step.accumulate

    def accumulate(batch, tokens):
        calls.append(1)
        if len(calls) == 5:  # in the second epoch of three steps
            raise KeyboardInterrupt
        return take_step(batch, tokens)

    monkeypatch.setattr(stopped.take_step, "accumulate", accumulate)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(tmp_path / "two", tokenizer)
    assert (tmp_path / "two" / STATE).is_file()
    resumed = fresh(tmp_path / "two")
    resumed.fit(tmp_path / "two", tokenizer)
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"goes on in adapting epoch [12], after [123] of 3 steps", said)
    for name, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(resumed)[name]), name
    drop = ["seconds"]
    pd.testing.assert_frame_equal(
        pd.DataFrame(whole.log).drop(columns=drop), pd.DataFrame(resumed.log).drop(columns=drop)
    )


def test_embeddings_of_no_text_only_decay(clf, tmp_path):
    start = clf.trunk.wte.weight.detach().clone()
    training = train(clf, tmp_path, lm_weight=0.5, weight_decay=0.3)
    used = training.vocabulary.tokens
    training.fit(tmp_path, Tokenizer.load("gpt2-mini"))
    rows = training.complete(training.model).trunk.wte.weight.detach()
    unused = [token for token in range(len(start)) if token not in used]
    assert unused
    rates = []
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    for epochs in (training.options.adapt, training.epochs):  # two trainings, one after the other
        steps = epochs * training.steps
        rise = max(1, round(0.1 * steps))
        rates += [0.01 * min((step + 1) / rise, (steps - step) / (steps - rise)) for step in range(steps)]
    assert len(rates) == 12
    assert optimizer.param_groups[0]["lr"] == 0.01
    decay = np.prod([1 - rate * 0.3 for rate in rates])
    torch.testing.assert_close(rows[unused], start[unused] * decay, rtol=1e-5, atol=0)


def test_the_classifier_is_trained_alone_behind_the_adapting(clf):
    """For the output layer of the language model takes as long as the blocks of a small network."""
    batch, options = batch_of(), TrainOptions(adapt=1, compile="off").resolved(35, FEW)
    forwards = make_forwards(clf.eval(), options, CPU)
    with torch.no_grad():
        torch.testing.assert_close(forwards["train"](batch), forwards["adapt"](batch).logits)
        torch.testing.assert_close(forwards["val"](batch).lm_losses, forwards["adapt"](batch).lm_losses)


def test_without_both_nothing_is_read_but_the_classes(clf):
    options = TrainOptions(compile="off").resolved(35, FEW)
    batch, forwards = batch_of(), make_forwards(clf.eval(), options, CPU)
    with torch.no_grad():
        torch.testing.assert_close(forwards["train"](batch), clf(batch.ids, batch.lengths))
    assert not options.learns_language


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adapt": 1, "tune": "head"}, "--adapt: it trains all weights"),
        ({"lm_weight": 0.5, "tune": 2}, "--lm-weight: it trains all weights"),
        ({"lm_weight": 0.5, "head": "words"}, "leave out --tune and --head words"),
        ({"adapt": -1}, "--adapt"),
        ({"lm_weight": -0.5}, "--lm-weight"),
        ({"lm_weight": float("nan")}, "--lm-weight"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        TrainOptions(**settings).check()


def test_it_is_said_in_words():
    assert describe_language(TrainOptions()) == ""
    assert describe_language(TrainOptions(adapt=3)) == "adapted for 3 epochs"
    both = TrainOptions(adapt=3, lm_weight=0.5)
    assert describe_language(both) == "adapted for 3 epochs, language model loss x 0.5"
