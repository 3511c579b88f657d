"""What is drawn to regularise a training, against plain loops and counting, and that it reaches the training."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import exit_code, line_of
from planted import texts_of
from small_run import write_corpus, write_shape
from two_processes import in_two

import train
from data import bucketed
from experiments.train.frozen import count_frozen, make_forwards
from experiments.train.regularisers import (
    choose_regulariser,
    describe_regulariser,
    draw_head_gate,
    draw_token_mask,
    expected_share,
)
from experiments.train.start import start_model
from experiments.train.training import Training
from lab.defaults import FEW, TrainOptions
from lab.device import Device
from lab.sweep import change_nothing
from model import GPT2Classifier, GPT2Config, Trace, load_classifier

CPU = Device(torch.device("cpu"), "fp32")
LENGTHS = torch.tensor([7, 13, 1, 5])
CONFIG = GPT2Config(3, 5, 35, n_ctx=13, vocab_size=101, dropout=0.0, attn_dropout=0.0)
FORMS = ("both", "sibling", "self")


def options_of(regulariser, **settings):
    return TrainOptions(regulariser=regulariser, **settings).resolved(35, FEW)


def row_of(query, kept, form, length):
    """Which keys a query may read, before causality, key by key."""
    row = []
    for key in range(len(kept)):
        if kept[query]:
            allowed = kept[key]
        elif form == "sibling":
            allowed = key == query
        else:
            allowed = key != query
        row.append(bool(allowed and key < length))
    return row


# Token-level masking


@pytest.mark.parametrize(("form", "spare_first"), [*product(FORMS, (False, True))])
def test_every_row_of_a_mask_is_one_of_three(form, spare_first):
    T, L, seen = 13, 3, set()
    for seed in range(5):
        torch.manual_seed(seed)
        mask = draw_token_mask(LENGTHS, T, L, 0.3, form, spare_first)
        assert mask.shape == (4, L, 1, T, T)
        torch.manual_seed(seed)
        kept = torch.rand(4, L, T) >= 0.3
        if spare_first:
            kept[..., 0] = True
        for (b, length), layer in product(enumerate(LENGTHS.tolist()), range(L)):
            for query in range(length):
                row, drawn = mask[b, layer, 0, query].tolist(), kept[b, layer].tolist()
                fits = [own for own in ("sibling", "self") if row == row_of(query, drawn, own, length)]
                assert fits
                assert drawn[query] or form in (*fits, "both")
                if not drawn[query] and length > 1:
                    seen.add(fits[0])
    assert seen == ({"sibling", "self"} if form == "both" else {form})


@pytest.mark.parametrize("rate", [0.1, 0.35])
def test_the_share_of_masked_tokens_is_the_rate(rate):
    """A masked token reads itself alone, or not itself; a kept one reads itself and, with a sibling's rows, others."""
    torch.manual_seed(0)
    masked = ~draw_token_mask(torch.full((97,), 31), 31, 7, rate, "self", False)[:, :, 0].diagonal(dim1=-2, dim2=-1)
    assert abs(masked.float().mean() - rate) < 3 * np.sqrt(rate * (1 - rate) / masked.numel())
    for axis in range(3):  # each token, text and layer has draws of its own
        assert (masked.float().mean(dim=axis).std() > 0).all()
        assert masked.float().std(dim=axis).mean() > 0


def test_two_masked_queries_toss_a_coin_each():
    torch.manual_seed(0)
    mask = draw_token_mask(torch.full((200,), 11), 11, 5, 0.999, "both", False)[:, :, 0]
    alone = mask.diagonal(dim1=-2, dim2=-1)
    assert abs(alone.float().mean() - 0.5) < 3 * 0.5 / np.sqrt(alone.numel())
    assert (alone[..., 1:] != alone[..., :-1]).float().mean() == pytest.approx(0.5, abs=0.03)
    assert (alone[:, 1:] != alone[:, :-1]).float().mean() == pytest.approx(0.5, abs=0.03)


def test_padding_is_never_visible_and_the_first_token_may_be_spared():
    torch.manual_seed(1)
    for form, spare_first in product(FORMS, (False, True)):
        mask = draw_token_mask(LENGTHS, 13, 50, 0.5, form, spare_first)
        for row, length in zip(mask, LENGTHS.tolist(), strict=True):
            assert not row[..., length:].any()
            read_first = row[:, 0, 1:length, 0].float().mean().item()
            if length > 1:  # those that are kept, and of the others those that read all but themselves
                expected = {"both": 0.5, "sibling": 0.25, "self": 0.75}[form] + 0.25 * spare_first
                assert read_first == pytest.approx(expected, abs=0.2)
            assert not spare_first or row[:, 0, 0, 0].all()


def test_heads_share_a_mask_and_layers_texts_and_draws_have_their_own():
    regularise = choose_regulariser(options_of("tlm", regulariser_rate=0.5), CONFIG)
    ids = torch.zeros(2, 13, dtype=torch.int64)
    masks = [regularise(ids, torch.tensor([13, 13]))["attn_mask"] for _ in range(2)]
    assert masks[0].shape == (2, 3, 1, 13, 13)
    drawn = [mask[b, layer] for mask in masks for b in range(2) for layer in range(3)]
    assert not any(torch.equal(one, other) for i, one in enumerate(drawn) for other in drawn[:i])


@pytest.mark.parametrize(("form", "spare_first"), [*product(FORMS, (False, True))])
def test_the_expected_share_is_what_counting_finds(form, spare_first):
    lengths, rate = [1, 2, 3, 7, 13], 0.2
    torch.manual_seed(0)
    mask = draw_token_mask(torch.tensor(lengths), 13, 20_000, rate, form, spare_first)[:, :, 0].numpy()
    hidden = pairs = 0
    for text, length in zip(mask, lengths, strict=True):
        for query in range(length):
            hidden += (~text[:, query, : query + 1]).sum() / len(text)
            pairs += query + 1
    assert expected_share(lengths, rate, form, spare_first) == pytest.approx(hidden / pairs, abs=2e-3)
    assert expected_share(lengths, 0.0, form, spare_first) == 0


def test_the_expected_share_of_two_tokens_is_that_worked_out_by_hand():
    """Query 0 loses its only key if it is masked as itself. Query 1, kept, loses key 0 if that is masked."""
    assert expected_share([2], 0.1, "self") == pytest.approx((0.1 + 0.9 * 0.1 + 0.1) / 3)
    assert expected_share([2], 0.1, "sibling") == pytest.approx((0.9 * 0.1 + 0.1) / 3)
    assert expected_share([2], 0.1, "sibling", spare_first=True) == pytest.approx(0.1 / 3)
    assert expected_share([1], 0.1, "both") == pytest.approx(0.05)


def test_the_last_query_alone_reads_as_in_a_full_pass(clf):
    torch.manual_seed(0)
    ids = torch.randint(101, (4, 13))
    mask = draw_token_mask(LENGTHS, 13, 3, 0.5, "both", False)
    trace = Trace("weights")
    whole, alone = clf(ids, LENGTHS, attn_mask=mask, trace=trace), clf(ids, LENGTHS, attn_mask=mask)
    torch.testing.assert_close(alone, whole, atol=1e-5, rtol=1e-5)
    for layer, weights in enumerate(trace.weights):
        allowed = mask[:, layer] & torch.ones(13, 13, dtype=torch.bool).tril()
        assert torch.equal(weights > 0, allowed.expand_as(weights))
    assert (alone - clf(ids, LENGTHS)).abs().max() > 1e-2


# DropHead


def test_drop_head_closes_its_share_of_heads_and_makes_up_for_it():
    torch.manual_seed(0)
    gate = draw_head_gate(97, 7, 5, 0.3, torch.device("cpu"))
    assert gate.shape == (97, 7, 5, 1)
    closed = gate == 0
    assert abs(closed.float().mean() - 0.3) < 3 * np.sqrt(0.3 * 0.7 / closed.numel())
    for heads in gate[..., 0].flatten(0, 1).tolist():
        n = sum(value > 0 for value in heads)
        assert [value for value in heads if value] == pytest.approx([5 / n] * n if n else [])
    assert len({tuple(row) for row in gate[:, :, :, 0].flatten(1).tolist()}) == 97  # each text its own
    assert not torch.equal(gate[:, 0], gate[:, 1])  # and each layer


def test_where_all_heads_are_closed_attention_adds_its_bias_alone(clf):
    gate = draw_head_gate(1, 3, 5, 0.999999, torch.device("cpu"))
    assert not gate.any()
    trace = Trace("resid_pre", "resid_mid")
    clf(torch.tensor([[3, 1, 2]]), head_gate=gate, trace=trace)
    for layer, block in enumerate(clf.trunk.h):
        added = trace.resid_mid[layer] - trace.resid_pre[layer]
        torch.testing.assert_close(added, block.attn.c_proj.bias.expand_as(added), atol=1e-5, rtol=1e-5)


# In a training


REGULARISED = {
    "tlm": {"regulariser": "tlm"},
    "tlm sibling": {"regulariser": "tlm", "tlm": "sibling"},
    "tlm self": {"regulariser": "tlm", "tlm": "self"},
    "tlm spare first": {"regulariser": "tlm", "spare_first": True},
    "head": {"regulariser": "head"},
    "attention": {"regulariser": "attention", "regulariser_rate": 0.1},
}
TEXTS = {}
for split, lengths in {"train": (3, 13, 1, 7, 7, 2, 11, 5, 9, 4, 13), "val": (2, 9, 1)}.items():
    rng = np.random.default_rng(len(lengths))
    ids = [rng.integers(0, 101, n).tolist() for n in lengths]
    TEXTS[split] = texts_of(split, ids, rng.integers(0, 4, len(lengths)))


def start_training(folder, **settings):
    """A training of a checkpoint, before its first step."""
    options = {"epochs": 2, "batch_size": 4, "lr": 0.01, "dropout": 0.0, "compile": "off"} | settings
    options = TrainOptions(model=str(folder), **options).resolved(35, FEW)
    options.check()
    torch.manual_seed(options.seed)
    corpus = type("Corpus", (), {"labels": tuple(f"LABEL_{k}" for k in range(4))})
    model = start_model(options, corpus, None)
    return Training(model, TEXTS, options, CPU, make_forwards(model, options, CPU))


def trained(folder, **settings):
    """The weights after an epoch."""
    training = start_training(folder, **settings)
    training.train(Path(folder), lambda note: None)
    return torch.cat([parameter.detach().flatten() for parameter in training.model.parameters()])


def test_each_regulariser_changes_what_is_learnt_and_none_at_rate_0_does(clf_reference):
    folder = clf_reference.folder
    none = trained(folder, regulariser="none")
    different = [trained(folder, **settings) for settings in REGULARISED.values()]
    for i, weights in enumerate(different):
        assert not any(torch.equal(weights, other) for other in (none, *different[:i]))
    for settings in REGULARISED.values():
        assert torch.equal(trained(folder, **settings | {"regulariser_rate": 0.0}), none)


def test_at_rate_0_the_other_dropout_keeps_its_draws(clf_reference):
    none = trained(clf_reference.folder, regulariser="none", dropout=0.2)
    assert torch.equal(trained(clf_reference.folder, regulariser="tlm", regulariser_rate=0.0, dropout=0.2), none)
    assert not torch.equal(trained(clf_reference.folder, dropout=0.2), none)


def test_by_default_a_training_is_that_of_the_network_as_it_is_loaded(clf_reference):
    """As before there was a choice: `load_classifier` sets both rates of dropout, and no argument acts."""
    settings = {"dropout": 0.2}
    options = start_training(clf_reference.folder, **settings).options
    torch.manual_seed(0)
    model = load_classifier(clf_reference.folder, dropout=0.2)
    plain = Training(model, TEXTS, options, CPU, {"train": lambda each: model(each.ids, each.lengths), "val": None})
    plain.train(Path(clf_reference.folder), lambda note: None)
    expected = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert torch.equal(trained(clf_reference.folder, **settings), expected)
    assert not torch.equal(trained(clf_reference.folder, regulariser_rate=0.0, **settings), expected)


@pytest.mark.parametrize("regulariser", ["tlm", "head", "none"])
def test_the_residual_dropout_stays_and_that_of_attention_goes(clf_reference, regulariser):
    training = start_training(clf_reference.folder, regulariser=regulariser, dropout=0.3)
    model = training.model
    assert model.config == model.trunk.config
    assert (model.config.dropout, model.config.attn_dropout) == (0.3, 0.0)
    for block in model.trunk.h:
        assert (block.attn.attn_dropout, block.attn.dropout.p, block.mlp.dropout.p) == (0.0, 0.3, 0.3)
    assert model.trunk.dropout.p == 0.3


def test_attention_may_have_a_rate_of_its_own(clf_reference):
    model = start_training(clf_reference.folder, regulariser_rate=0.4, dropout=0.2).model
    assert (model.config.dropout, model.config.attn_dropout) == (0.2, 0.4)
    assert [block.attn.attn_dropout for block in model.trunk.h] == [0.4] * 3


@pytest.mark.parametrize("name", [name for name in REGULARISED if name != "attention"])
def test_val_is_read_without_it(clf_reference, name):
    training = start_training(clf_reference.folder, **REGULARISED[name] | {"regulariser_rate": 0.9})
    training.model.eval()
    batch = next(bucketed(TEXTS["val"].sequences, TEXTS["val"].targets, 3))
    forwards = {"train": training.take_step.forward, "val": training.forward_val}
    before = torch.get_rng_state()
    with torch.no_grad():
        plain = load_classifier(clf_reference.folder)(batch.ids, batch.lengths)
        assert torch.equal(forwards["val"](batch), plain)
        assert torch.equal(torch.get_rng_state(), before)
        assert not torch.equal(forwards["train"](batch), plain)


def test_pieces_of_a_step_are_masked_and_recomputing_reads_the_same_mask(clf_reference, monkeypatch):
    weights = [trained(clf_reference.folder, regulariser="tlm", recompute=recompute) for recompute in (False, True)]
    torch.testing.assert_close(*weights, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr("lab.device.TOKENS", 14)
    assert not torch.equal(trained(clf_reference.folder, regulariser="tlm"), weights[0])


@pytest.mark.slow
def test_compiled_steps_are_those_of_plain_ones(clf_reference, monkeypatch):
    torch._dynamo.reset()
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda run, **how: compiled(run, backend="aot_eager", fullgraph=True, **how))
    weights = [trained(clf_reference.folder, compile=how, lr=1e-4, regulariser="tlm") for how in ("off", "on")]
    torch.testing.assert_close(*weights, atol=1e-5, rtol=1e-5)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(weights[0], trained(clf_reference.folder, lr=1e-4), atol=1e-5, rtol=1e-5)
    torch._dynamo.reset()


@pytest.mark.parametrize(("settings", "frozen"), [({}, 2), ({"regulariser_rate": 0.0}, 2)])
def test_frozen_blocks_run_in_each_epoch_where_something_is_drawn(settings, frozen):
    for name in ("none", "attention"):
        assert count_frozen(options_of(name, tune=1, dropout=0.0), CONFIG) == 2
    for name in ("tlm", "head"):
        given = options_of(name, tune=1, dropout=0.0, **settings)
        assert count_frozen(given, CONFIG) == (frozen if settings else 0)
    own = options_of("attention", tune=1, dropout=0.0, regulariser_rate=0.1)
    assert count_frozen(own, replace(CONFIG, attn_dropout=own.attention_dropout)) == 0


def leak():
    """Texts whose class stands in their first token, and a network that learns it well without regularisation: the
    last token must read position 0, which TLM of rate 0.999 with siblings never lets it do."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 64)
    return texts_of("train", [[int(k), *rng.integers(2, 9, 4).tolist()] for k in targets], targets)


@pytest.mark.parametrize(("regulariser", "learns"), [("none", True), ("tlm", False), ("head", False)])
def test_what_is_always_hidden_cannot_be_learnt(monkeypatch, tmp_path, regulariser, learns):
    rate = None if regulariser == "none" else 0.999
    form = "sibling" if regulariser == "tlm" else "both"
    settings = {"epochs": 20, "lr": 0.02, "batch_size": 16, "dropout": 0.0, "compile": "off"}
    options = options_of(regulariser, regulariser_rate=rate, tlm=form, **settings)
    torch.manual_seed(0)
    model = GPT2Classifier(GPT2Config(1, 2, 12, n_ctx=5, vocab_size=9, dropout=0.0, attn_dropout=0.0), ["a", "b"])
    training = Training(model, {"train": leak()}, options, CPU, make_forwards(model, options, CPU))
    losses = []
    for epoch in range(1, 21):
        training.epoch, training.step, training.totals = epoch, 0, torch.zeros(2)
        losses.append(training.train(tmp_path, lambda note: None)["loss"])
    assert (losses[-1] < 0.1) == learns
    assert learns or losses[-1] > 0.5


def masked_otherwise(regulariser):
    """The loss that a process has on the same text as the other one."""
    torch.manual_seed(3)
    texts = {"train": texts_of("train", [[1, 2, 3]] * 3, [0, 0, 1])}
    model = GPT2Classifier(GPT2Config(1, 2, 6, n_ctx=5, vocab_size=11, dropout=0.0, attn_dropout=0.0), ["a", "b"])
    torch.nn.init.normal_(model.trunk.h[0].attn.c_proj.weight)
    options = TrainOptions(seed=3, regulariser=regulariser, dropout=0.0).resolved(6, FEW)
    if regulariser != "none":
        options = replace(options, regulariser_rate=0.5)
    device = Device.choose("cpu", "fp32")
    training = Training(model, texts, options, device, make_forwards(model, options, device))
    [batch] = bucketed([[1, 2, 3]] * 32, np.zeros(32, int), 32)  # alike
    return training.take_step(batch).tolist()


@pytest.mark.slow
def test_each_process_draws_its_own():
    first, second = in_two(masked_otherwise, "none")
    assert first == second
    first, second = in_two(masked_otherwise, "tlm")
    assert first != second


# From the command line


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "measure", lambda run, corpus, texts, device: "")
    monkeypatch.setattr("experiments.train.figures.draw_learning_curves", lambda *rest: None)
    write_corpus(tmp_path / "corpus.txt", 20)
    write_shape(tmp_path / "tiny", GPT2Config(2, 2, 10, n_ctx=17))
    return tmp_path


FAST = ("--model", "tiny", "--corpus", "corpus.txt", "--init", "random", "--epochs", "2", "--lr", "0.02")
FAST += ("--device", "cpu", "--compile", "off")


def weights_of(name):
    return Path("runs", name, "model.safetensors").read_bytes()


@pytest.mark.parametrize("regulariser", ["tlm", "head"])
def test_a_training_that_was_interrupted_goes_on_with_the_same_draws(here, monkeypatch, regulariser):
    command = (*FAST, "--regulariser", regulariser, "--batch-size", "8")
    assert exit_code(monkeypatch, train, *command, "--run", "whole") == 0
    write_state, written = train.Training.write_state, []

    def stop(self, run):
        self.state_due = 0
        write_state(self, run)
        written.append(self.step)
        if len(written) == 1:
            raise RuntimeError("the machine stops")

    with monkeypatch.context() as patch:
        patch.setattr(train.Training, "write_state", stop)
        patch.setattr("experiments.train.training.READ_EVERY", 2)
        with pytest.raises(RuntimeError, match="the machine stops"):
            exit_code(patch, train, *command, "--run", "cut")
    assert written == [2]
    assert exit_code(monkeypatch, train, *command, "--run", "cut", "--resume") == 0
    assert weights_of("cut") == weights_of("whole")
    record = json.loads(Path("runs/cut/run.json").read_text())
    assert record["settings"]["regulariser_rate"] == 0.1
    assert record["resumed"]
    config = json.loads(Path("runs/cut/config.json").read_text())
    assert (config["attn_pdrop"], config["resid_pdrop"]) == (0.0, 0.3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ""),
        ({"regulariser_rate": 0.2}, "regulariser attention at rate 0.2"),
        ({"regulariser": "none"}, "regulariser none"),
        ({"regulariser": "head"}, "regulariser head at rate 0.1"),
        ({"regulariser": "tlm", "regulariser_rate": 0.25}, "regulariser tlm at rate 0.25, both"),
        (
            {"regulariser": "tlm", "tlm": "self", "spare_first": True},
            "regulariser tlm at rate 0.1, self, first token spared",
        ),
    ],
)
def test_what_is_not_the_default_has_words(settings, expected):
    assert describe_regulariser(TrainOptions(**settings).resolved(35, FEW)) == expected


def test_the_first_line_of_a_training_names_it(here, monkeypatch, capsys):
    for options, named in (((), ""), (("--regulariser", "head"), ", regulariser head at rate 0.1")):
        assert exit_code(monkeypatch, train, *FAST, "--run", f"x{len(options)}", *options) == 0
        assert f"runs/x{len(options)}: tiny, random weights{named}, on cpu" in capsys.readouterr().out


def test_label_words_are_learnt_with_it(here, monkeypatch):
    words = (*FAST, "--head", "words", "--words", "joy=happy", "fear=scared", "anger=mad", "--dropout", "0")
    for name, regulariser in (("masked", "tlm"), ("plain", "none")):
        assert exit_code(monkeypatch, train, *words, "--regulariser", regulariser, "--run", name) == 0
    assert weights_of("masked") != weights_of("plain")
    assert json.loads(Path("runs/masked/config.json").read_text())["attn_pdrop"] == 0.0


def test_a_run_from_before_there_was_a_choice_goes_on(here, monkeypatch):
    command = (*FAST, "--run", "one", "--resume")
    with monkeypatch.context() as patch:
        patch.setattr(train.Training, "evaluate", lambda self: 1 / 0)  # in the first epoch; a state is there
        patch.setattr("experiments.train.training.STATE_EVERY", 0)
        with pytest.raises(ZeroDivisionError):
            exit_code(patch, train, *command)
    record = json.loads(Path("runs/one/run.json").read_text())
    for name in ("regulariser", "regulariser_rate", "tlm", "spare_first"):
        del record["settings"][name]
    Path("runs/one/run.json").write_text(json.dumps(record))
    assert exit_code(monkeypatch, train, *command, "--regulariser", "tlm") == 2
    assert exit_code(monkeypatch, train, *command) == 0
    assert json.loads(Path("runs/one/run.json").read_text())["status"] == "finished"


MISTAKES = {
    "how tokens are masked": ({"tlm": "self"}, "--tlm: it says how tokens are masked; add --regulariser tlm"),
    "the first token": ({"regulariser": "head", "spare_first": True}, "--spare-first: it says how tokens are masked"),
    "a rate of none": ({"regulariser": "none", "regulariser_rate": 0.1}, "has no rate"),
    "a rate of 1": ({"regulariser": "tlm", "regulariser_rate": 1.0}, "--regulariser-rate 1.0: expected at least 0"),
    "a negative rate": ({"regulariser_rate": -0.1}, "--regulariser-rate -0.1: expected at least 0 and below 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_does_not_go_together_is_said(mistake):
    settings, expected = MISTAKES[mistake]
    assert expected in line_of(TrainOptions(**settings).check)


def test_rates_are_filled_in_where_they_do_not_follow_dropout():
    rates = {name: options_of(name).regulariser_rate for name in ("attention", "tlm", "head", "none")}
    assert rates == {"attention": None, "tlm": 0.1, "head": 0.1, "none": None}
    assert options_of("tlm", regulariser_rate=0.0).regulariser_rate == 0.0
    assert choose_regulariser(options_of("attention"), CONFIG) is change_nothing
