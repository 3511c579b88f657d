"""The training of a classifier: its weights of classes, its rates, its steps, and its random numbers."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import texts_of
from tiny import DEVICES

from data import bucketed
from experiments.train.frozen import make_forwards
from experiments.train.training import Training
from lab.defaults import FEW, TrainOptions
from lab.device import Device
from lab.state import STATE
from model import GPT2, GPT2Classifier, GPT2Config

CPU = Device(torch.device("cpu"), "fp32")


def make_training(targets, device=CPU, rate=0, **options):
    config = GPT2Config(1, 2, 6, n_ctx=5, vocab_size=11, dropout=rate, attn_dropout=0)
    texts = {"train": texts_of("train", [[1, 2]] * len(targets), targets)}
    settings = TrainOptions(**options).resolved(config.n_embd, FEW)
    model = GPT2Classifier(config, ["a", "b", "c"]).to(device.device)
    return Training(model, texts, settings, device, make_forwards(model, settings, device))


def test_balanced_weights_of_classes_are_texts_by_classes_and_texts_of_the_class():
    targets = [0, 0, 0, 0, 1, 1, 2]
    weights = make_training(targets, class_weights=True).class_weights.tolist()
    assert weights == pytest.approx([7 / (3 * 4), 7 / (3 * 2), 7 / (3 * 1)])
    assert make_training(targets).class_weights.tolist() == [1, 1, 1]


@pytest.mark.slow
def test_compiled_training_steps_equal_plain_ones(monkeypatch, tmp_path):
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **how: compiled(model, backend="aot_eager", **how))
    losses = []
    for how in ("on", "off"):
        torch.manual_seed(3)
        training = make_training([0, 1, 2, 1, 0], epochs=1, batch_size=2, compile=how)
        losses.append(training.train(tmp_path, lambda note: None)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_each_seed_and_process_has_dropout_of_its_own(monkeypatch):
    monkeypatch.setattr("experiments.train.training.spread", lambda model, forwards, shard, device: forwards)
    seeds = []
    for seed in range(3):
        for rank in range(3):
            torch.manual_seed(seed)  # as train.py does
            make_training([0, 1, 2], replace(CPU, rank=rank, world=3), seed=seed)
            seeds.append(torch.initial_seed())
    assert len(set(seeds)) == 9
    assert seeds[::3] == [0, 1, 2]  # one process goes on with the numbers of the fresh weights


def test_an_option_reaches_the_step(monkeypatch):
    asked, run = [], GPT2.run
    monkeypatch.setattr(GPT2, "run", lambda *rest, **how: asked.append(how["recompute"]) or run(*rest, **how))
    for recompute in (True, False):
        training = make_training([0, 1, 2], recompute=recompute)
        training.take_step(next(bucketed([[1, 2]], np.array([0]), 1)))
    assert asked == [True, False]


def test_the_schedule_rises_and_falls_to_zero():
    training = make_training([0, 1, 2] * 10, epochs=2, batch_size=3, lr=0.5, warmup=0.1)
    rates = []
    for _ in range(20):
        rates.append(training.schedule.get_last_lr()[0])
        training.optimizer.step()
        training.schedule.step()
    assert rates[:3] == [0.25, 0.5, 0.5]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(0.5 / 18)
    assert training.schedule.get_last_lr()[0] == 0


def test_only_matrices_decay_and_every_weight_is_in_one_group():
    training = make_training([0, 1, 2])
    decayed, spared = (group["params"] for group in training.optimizer.param_groups)
    assert {p.dim() for p in decayed} == {2}
    assert {p.dim() for p in spared} == {1}
    assert sorted(map(id, [*decayed, *spared])) == sorted(map(id, training.model.parameters()))
    assert not math.isclose(training.optimizer.param_groups[0]["weight_decay"], 0)


@pytest.mark.parametrize("device", DEVICES)
def test_what_is_restored_goes_on_alike(tmp_path, device):
    """Weights, moments, rates and dropout: each loss depends on them."""
    device = Device(torch.device(device), "fp32")
    [batch] = bucketed([[1, 2]] * 3, np.arange(3), 3)

    def start(seed):
        torch.manual_seed(seed)
        return make_training([0, 1, 2] * 10, device, rate=0.5, epochs=2, batch_size=3, lr=0.1, compile="off")

    def take_steps(training):
        results = []
        for _ in range(5):
            results.append(training.take_step(batch)[0].item())
            training.schedule.step()
        return results

    training = start(0)
    take_steps(training)
    training.state_due = 0
    training.write_state(tmp_path)
    expected = take_steps(training)
    restored = start(1)
    restored.restore(tmp_path / STATE)
    assert take_steps(restored) == pytest.approx(expected, rel=1e-3)
    assert take_steps(start(1)) != pytest.approx(expected, rel=1e-2)
