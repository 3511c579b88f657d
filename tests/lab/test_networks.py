"""Networks to compare a run's with: what it began with, and random weights that no training begins with."""

from dataclasses import replace

import pytest
import torch
from commands import exit_code

import train
from lab.device import Device
from lab.networks import draw_random_trunk, load_start
from lab.study import open_study
from model import GPT2LM, GPT2Classifier, GPT2Config, InputError, Tokenizer, save

CPU = Device(torch.device("cpu"), "fp32")
SMALL = GPT2Config(1, 3, 12, n_ctx=17)


@pytest.fixture
def begun(here, unmeasured, monkeypatch):
    """A run that began with a saved language model; returns both."""
    torch.manual_seed(3)
    save(start := GPT2LM(SMALL), here / "start", Tokenizer.load("gpt2-mini"))
    options = "--model start --corpus corpus.txt --epochs 1 --device cpu --run two"
    assert exit_code(monkeypatch, train, *options.split()) == 0
    return start, open_study("two", CPU)


def test_the_start_of_a_run_is_read_back(begun):
    start, study = begun
    trunk, weights = load_start(study)
    state = trunk.state_dict()
    assert weights == study.record["model"]["sha256"] != study.weights
    assert all(torch.equal(state[name], value) for name, value in start.trunk.state_dict().items())
    assert any((state[name] != value).any() for name, value in study.clf.trunk.state_dict().items())
    assert not trunk.training
    assert not any(parameter.requires_grad for parameter in trunk.parameters())


def test_other_weights_under_the_name_of_the_start_are_refused(begun, here):
    _, study = begun
    save(GPT2LM(SMALL), here / "start", Tokenizer.load("gpt2-mini"))
    with pytest.raises(InputError, match="start is no longer the network that runs/two began with"):
        load_start(study)


def test_random_weights_are_no_start(here):
    with pytest.raises(InputError, match="runs/one began with random weights"):
        load_start(open_study("one", CPU))


def test_random_weights_follow_from_the_seed_and_are_not_those_of_a_training():
    first, again, other = (draw_random_trunk(SMALL, seed).wte.weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(0)
    assert not torch.equal(first, GPT2Classifier(SMALL, ("a", "b")).trunk.wte.weight)
    wider = draw_random_trunk(replace(SMALL, n_layer=2), 0)
    assert len(wider.h) == 2
    assert not wider.training
