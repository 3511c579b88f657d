"""Training with the embeddings in use alone: the weights of a training with all of them."""

import copy
import math

import numpy as np
import pytest
import torch
from planted import texts_of

import experiments.train.training
from data import bucketed
from experiments.train.frozen import make_forwards
from experiments.train.training import Training
from experiments.train.vocabulary import Vocabulary
from lab.defaults import FEW, TrainOptions
from lab.device import Device
from lab.state import STATE
from model import GPT2Classifier, GPT2Config, InputError, Tokenizer, load_classifier

CPU = Device(torch.device("cpu"), "fp32")
USED = [0, 2, 3, 5, 7, 11, 13, 88, 96]  # of 97 tokens; 88 in val alone


def make_texts():
    rng = np.random.default_rng(0)
    train = [rng.choice([0, 2, 3, 5, 7, 11, 13, 96], n).tolist() for n in (3, 5, 1, 7, 2, 4, 6, 5, 3, 7, 1)]
    val = [[2, 88], [3, 88, 0, 5]]
    return {
        "train": texts_of("train", train, rng.integers(0, 3, len(train))),
        "val": texts_of("val", val, [0, 2]),
        "test": texts_of("test", [[44, 2]], [1]),
    }


TEXTS = make_texts()


def make_model():
    torch.manual_seed(1)
    config = GPT2Config(2, 3, 15, n_ctx=7, vocab_size=97, dropout=0.2, attn_dropout=0.2)
    model = GPT2Classifier(config, ["a", "b", "c"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def start(model, **settings):
    settings = {"epochs": 2, "batch_size": 4, "lr": 0.01, "weight_decay": 0.1, "compile": "off"} | settings
    options = TrainOptions(**settings).resolved(15, FEW)
    torch.manual_seed(2)
    return Training(model, TEXTS, options, CPU, make_forwards(model, options, CPU))


def fit(folder):
    folder.mkdir()
    training = start(make_model())
    training.fit(folder, Tokenizer.load("gpt2-mini"))
    return training, load_classifier(folder).state_dict()


def test_the_weights_are_those_of_a_training_with_every_row(tmp_path, monkeypatch):
    training, small = fit(tmp_path / "small")
    monkeypatch.setattr(experiments.train.training, "choose_vocabulary", lambda model, texts: None)
    whole_training, whole = fit(tmp_path / "whole")
    assert training.model.trunk.wte.weight.shape == (len(USED), 15)
    assert whole_training.model.trunk.wte.weight.shape == (97, 15)
    assert training.best_epoch == whole_training.best_epoch
    for name, value in whole.items():
        if name.endswith("c_attn.bias"):  # of the keys' bias, the gradient is all rounding, and AdamW makes whole steps
            value[15:30] = small[name][15:30] = 0
        torch.testing.assert_close(small[name], value, atol=1e-5, rtol=1e-4, msg=name)
    unused = [token for token in range(97) if token not in USED]
    start_rows = make_model().trunk.wte.weight.detach()
    assert not torch.allclose(small["trunk.wte.weight"][unused], start_rows[unused], rtol=1e-4)  # they decayed


def test_a_state_of_an_earlier_version_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(experiments.train.training, "choose_vocabulary", lambda model, texts: None)
        earlier = start(make_model())
    earlier.state_due = 0
    earlier.write_state(tmp_path)
    with pytest.raises(InputError, match=f"another version .*; remove {tmp_path}, and begin anew"):
        start(make_model()).restore(tmp_path / STATE)


def test_decay_is_the_product_over_all_steps():
    training = start(make_model(), lr=0.5, warmup=0.5)
    assert training.decay == 1
    rates = []
    for _ in range(3):
        rates.append(training.schedule.get_last_lr()[0])
        training.optimizer.step()
        training.schedule.step()
        training.step += 1
    assert len(set(rates)) == 3
    assert training.decay == pytest.approx(math.prod(1 - 0.1 * rate for rate in rates), rel=1e-12)


def test_the_network_says_the_same_of_every_text_in_use():
    model = make_model().eval()
    small = copy.deepcopy(model)
    vocabulary = Vocabulary(small, [TEXTS["train"].sequences, TEXTS["val"].sequences])
    assert vocabulary.tokens.tolist() == USED
    assert small.config == small.trunk.config
    assert small.config.vocab_size == len(USED)
    forward = vocabulary.translate(lambda batch: small(batch.ids, batch.lengths))
    for split in ("train", "val"):
        for batch in bucketed(TEXTS[split].sequences, TEXTS[split].targets, 4):
            torch.testing.assert_close(forward(batch), model(batch.ids, batch.lengths))


def test_what_is_left_out_and_put_back_is_the_same_network():
    model = make_model()
    small = copy.deepcopy(model)
    vocabulary = Vocabulary(small, [TEXTS["train"].sequences])
    whole = vocabulary.restore(small, 1.0)
    for name, value in model.state_dict().items():
        assert torch.equal(whole.state_dict()[name], value), name
    assert whole.config == model.config
    half = vocabulary.restore(small, 0.5).trunk.wte.weight
    assert torch.equal(half[44], 0.5 * model.trunk.wte.weight[44])
    assert torch.equal(half[7], model.trunk.wte.weight[7])


def test_where_embeddings_do_not_learn_all_of_them_stay():
    model = make_model()
    model.trunk.requires_grad_(False)
    assert start(model, tune="head").vocabulary is None
    assert model.trunk.wte.weight.shape == (97, 15)
