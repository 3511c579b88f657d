"""Blocks that run once, against a network that runs whole in each step."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from commands import line_of
from planted import draw_splits
from two_processes import in_two

import model.gpt2
from data import Corpus
from experiments.train.frozen import FROZEN, count_frozen, make_forwards, open_forwards, record_stream
from experiments.train.start import start_model
from experiments.train.training import Training
from experiments.train.words import choose_checkpoint
from lab.defaults import FEW, TrainOptions
from lab.device import Device
from lab.label_words import LabelWords
from lab.word_head import WordHead
from model import GPT2Config, Trace, load_classifier

CPU = Device(torch.device("cpu"), "fp32")
LABELS = tuple(f"LABEL_{k}" for k in range(4))
IDS = tuple(((token,),) for token in (7, 89, 3, 5))
WORDS = WordHead(None, LabelWords(LABELS, (("v",), ("x",), ("y",), ("z",)), IDS))
CORPUS = Corpus("corpus", LABELS, pd.DataFrame(), {})
C = 35


TEXTS = draw_splits()


@pytest.fixture(autouse=True)
def gradient_descent(monkeypatch):
    """AdamW would make whole steps of what is nothing but rounding in a gradient."""

    def sgd(parameters, lr, weight_decay):
        return torch.optim.SGD([parameter for parameter in parameters if parameter.requires_grad], lr)

    monkeypatch.setattr("experiments.train.training.adamw", sgd)


@pytest.fixture
def folder(clf_reference, lm_reference):
    """The checkpoint to start from: of a classifier, or of a language model for label words."""
    return {"classifier": clf_reference.folder, "words": lm_reference.folder}


def start_training(folder, run=None, **settings):
    """Train two epochs, in the order in which `Training.fit` does; the blocks run whole without a folder `run`. Returns
    the rows of the log, the weights, and how many texts went through block 0."""
    options = TrainOptions(**{"epochs": 2, "lr": 0.1, "batch_size": 4, "dropout": 0.0, "compile": "off"} | settings)
    options = replace(options, model=str(folder[options.head])).resolved(C, FEW)
    model = start_model(options, CORPUS, WORDS if options.head == "words" else None)
    through = []
    model.trunk.h[0].register_forward_hook(lambda block, inputs, x: through.append(len(x)))
    if run is None:
        rows = train(Training(model, TEXTS, options, CPU, make_forwards(model, options, CPU)), folder)
    else:
        with open_forwards(model, TEXTS, options, run, CPU) as forwards:
            rows = train(Training(model, TEXTS, options, CPU, forwards), run)
    return rows, choose_checkpoint(model).state_dict(), sum(through)


def train(training, run):
    rows = []
    for epoch in (1, 2):
        training.epoch, training.step, training.totals = epoch, 0, torch.zeros(2)
        rows += [training.train(run, lambda note: None), training.evaluate()]
    return rows


@pytest.mark.parametrize(
    "settings",
    [
        {"tune": "head"},
        {"tune": 1},
        {"tune": 2},
        {"tune": 2, "head": "words"},
        {"tune": 1, "head": "words", "recompute": True},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_it_trains_as_the_whole_network_does(folder, tmp_path, monkeypatch, settings):
    monkeypatch.setattr("lab.device.TOKENS", 30)  # several pieces of a step, and batches of val
    whole, expected, n_whole = start_training(folder, **settings)
    rows, weights, n = start_training(folder, tmp_path, **settings)
    for row, reference in zip(rows, whole, strict=True):
        assert row.keys() == reference.keys()
        values = {key: value for key, value in row.items() if key not in ("split", "seconds")}
        assert values == pytest.approx({key: reference[key] for key in values}, abs=1e-5)
    assert rows[0]["loss"] != pytest.approx(rows[2]["loss"], abs=1e-3)  # it learns
    for name, value in weights.items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-5, msg=name)
    assert (n, n_whole) == (18, 2 * 18)  # texts of train and val; once, or in each epoch
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("tune", ["head", 1])
def test_compiled_it_is_the_same(folder, tmp_path, monkeypatch, tune):
    torch._dynamo.reset()
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda run, **how: compiled(run, backend="aot_eager", fullgraph=True, **how))
    rows, *_ = start_training(folder, tmp_path, tune=tune, compile="on")
    whole, *_ = start_training(folder, tune=tune)
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in whole], abs=1e-5)
    torch._dynamo.reset()


def plain_rows(clf, sequences, start):
    """What enters a block, or the last row of what leaves the last one, text by text."""
    rows = []
    for ids in sequences:
        trace = Trace("resid_pre")
        with torch.no_grad():
            clf(torch.tensor([ids]), trace=trace)
        rows.append(trace.resid_pre[start][0, -1 if start == 3 else 0 :])
    return rows


@pytest.mark.parametrize("start", [1, 2, 3])
def test_it_reads_what_enters_a_block(clf, tmp_path, start):
    sequences = TEXTS["train"].sequences
    stream = record_stream(clf.trunk, sequences, start, tmp_path / FROZEN, CPU)
    index = torch.tensor([5, 0, 10, 2])
    x, lengths = stream.read(index)
    expected = [plain_rows(clf, sequences, start)[i] for i in index]
    assert lengths.tolist() == ([1] * 4 if start == 3 else [2, 3, 13, 1])
    assert x.shape == (4, 1 if start == 3 else 13, C)
    for rows, n, wanted in zip(x, lengths, expected, strict=True):
        torch.testing.assert_close(rows[:n], wanted, atol=1e-5, rtol=1e-5)
        assert not rows[n:].any()


def test_what_was_left_is_made_anew(clf, tmp_path):
    sequences, path = TEXTS["val"].sequences, tmp_path / FROZEN
    record_stream(clf.trunk, sequences, 2, path, CPU)
    content = path.read_bytes()
    path.unlink()  # rather than change it: the stream is mapped
    path.write_bytes(bytes(len(content)))
    record_stream(clf.trunk, sequences, 2, path, CPU)
    assert path.read_bytes() == content


def test_in_bf16_blocks_compute_as_in_the_whole_network(clf, tmp_path):
    bf16, sequences = Device(torch.device("cpu"), "bf16"), TEXTS["train"].sequences
    rows = torch.from_numpy(record_stream(clf.trunk, sequences, 2, tmp_path / FROZEN, bf16).rows.copy())
    with bf16.autocast():
        expected = torch.cat(plain_rows(clf, sequences, 2))
    in_fp32 = torch.cat(plain_rows(clf, sequences, 2))
    assert (rows - expected).abs().mean() < (rows - in_fp32).abs().mean() / 5


def test_the_trained_blocks_are_recomputed(folder, tmp_path, monkeypatch):
    checkpoint, recomputed = model.gpt2.checkpoint, []
    monkeypatch.setattr(
        "model.gpt2.checkpoint", lambda *given, **how: recomputed.append(0) or checkpoint(*given, **how)
    )
    start_training(folder, tmp_path, tune=1, recompute=True)
    assert len(recomputed) == 2 * 3  # steps


@pytest.mark.parametrize(
    ("settings", "frozen"),
    [
        ({"tune": "head"}, 3),
        ({"tune": 1}, 2),
        ({"tune": 3}, 0),
        ({"tune": "all"}, 0),
        ({"tune": "head", "dropout": 0.1}, 0),
        ({"tune": 1, "dropout": 0.1}, 0),
    ],
)
def test_with_dropout_or_nothing_frozen_the_whole_network_runs(folder, tmp_path, settings, frozen):
    *_, n = start_training(folder, tmp_path, **settings)
    assert n == (18 if frozen else 2 * 18)
    dropout = settings.get("dropout", 0.0)
    options = TrainOptions(**settings | {"dropout": dropout})
    assert count_frozen(options, GPT2Config(3, 5, C, dropout=dropout, attn_dropout=dropout)) == frozen
    assert not count_frozen(options, GPT2Config(3, 5, C, dropout=0.0, attn_dropout=0.1))


def test_too_little_space_is_said_before_anything_runs(clf, tmp_path, monkeypatch):
    monkeypatch.setattr(clf.trunk, "run", None)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 2**29}))
    sequences = [[1] * 13] * 600_000
    said = line_of(record_stream, clf.trunk, sequences, 1, tmp_path / FROZEN, CPU)
    assert "expected 1.0 GiB of free space, for what frozen blocks give, got 0.5; make room" in said
    assert "another training" in said
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_where_training_fails(clf, tmp_path):
    options, held = TrainOptions(tune=1, dropout=0.0).resolved(C, FEW), []

    def fail():
        with open_forwards(clf, TEXTS, options, tmp_path, CPU):
            held.extend(tmp_path.iterdir())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert held == [tmp_path / FROZEN]
    assert list(tmp_path.iterdir()) == []


def record_and_read(checkpoint, path, start):
    """What this process reads of all texts, and how many of them it has run through block 0."""
    trunk, through = load_classifier(checkpoint).trunk, []
    trunk.h[0].register_forward_hook(lambda block, inputs, x: through.append(len(x)))
    with mock.patch("lab.device.TOKENS", 30):
        stream = record_stream(trunk, TEXTS["train"].sequences, start, path, Device.choose("cpu", "fp32"))
    return stream.read(torch.arange(len(TEXTS["train"])))[0].numpy(), sum(through)


@pytest.mark.slow
@pytest.mark.parametrize("start", [2, 3])
def test_two_processes_share_the_blocks_and_read_all(clf_reference, tmp_path, start):
    (first, n_first), (second, n_second) = in_two(record_and_read, clf_reference.folder, tmp_path / "two", start)
    np.testing.assert_array_equal(first, second)
    assert n_first + n_second == len(TEXTS["train"])
    assert 0 < n_first < len(TEXTS["train"])
    alone, _ = record_and_read(clf_reference.folder, tmp_path / "one", start)
    np.testing.assert_allclose(first, alone, atol=1e-5)


def record_on_a_full_disk(checkpoint, path):
    """How this process ends."""

    def fail(path, rounds, offsets):
        next(rounds)
        raise OSError("no space left")

    with mock.patch("experiments.train.frozen.write_rows", fail):
        try:
            record_and_read(checkpoint, path, 2)
        except (OSError, SystemExit) as error:
            return str(error)


@pytest.mark.slow
def test_where_the_disk_is_full_the_first_process_says_so_and_the_others_end(clf_reference, tmp_path):
    assert in_two(record_on_a_full_disk, clf_reference.folder, tmp_path / FROZEN) == ["no space left", "2"]
