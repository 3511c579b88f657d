"""What else befalls an experiment: Ctrl-C, a full disk, a folder that may not be written to, a loss that is not finite,
too little memory. It ends in one line or goes on, and never costs what was there before."""

import ctypes
import math
import os
import re
import resource
import shutil
import signal
import struct
from functools import partial
from pathlib import Path

import commands
import numpy as np
import pandas as pd
import pytest
import torch
from children import COMMANDS, KILLED, at_file, differing, left_in, often, run, write_books
from commands import one_line

import ablate
import train
from data import bucketed, read_corpus
from lab.device import Device
from lab.predict import predict
from lab.state import read_state
from model import GPT2, GPT2Classifier, Tokenizer, load_classifier

STEPS = 18  # of an epoch


@pytest.fixture
def with_states(monkeypatch):
    """A state is written whenever the loss is read."""
    write_state = train.Training.write_state

    def now(self, run):
        self.state_due = 0
        write_state(self, run)

    monkeypatch.setattr(train.Training, "write_state", now)


def run_train(monkeypatch, *arguments):
    """The exit code of `python train.py`; of an option that is given twice the last one counts."""
    return commands.exit_code(monkeypatch, train, *COMMANDS["train"].split(), *arguments)


def at_step(monkeypatch, wanted, act):
    """In training, `act(logits)` takes the place of the logits in this step; steps count from 1."""
    forward, steps = GPT2Classifier.forward, iter(range(1, 1000))

    def changed(self, *arguments, **options):
        logits = forward(self, *arguments, **options)
        return act(logits) if self.training and next(steps) == wanted else logits

    monkeypatch.setattr(GPT2Classifier, "forward", changed)


# Ctrl-C.


@pytest.fixture
def interruptible():
    """Python does not listen to Ctrl-C where it was started in the background, as by `nohup make test &`."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(logits):
    signal.raise_signal(signal.SIGINT)
    return logits


@pytest.mark.slow
def test_after_ctrl_c_in_a_later_epoch_resume_ends_as_if_nothing_had_been(
    here, interruptible, with_states, saved, monkeypatch
):
    assert run_train(monkeypatch) == 0
    whole = left_in(here)
    shutil.rmtree("runs/two")
    with monkeypatch.context() as patch:
        at_step(patch, 2 * STEPS + 12, press)
        assert run_train(patch) == 130
    stopped = left_in(here)
    assert stopped["runs/two/run.json"] == "interrupted"
    assert "runs/two/metrics.json" in stopped
    assert run_train(monkeypatch) == 0
    assert differing(left_in(here), whole) == set()


@pytest.mark.slow
def test_after_ctrl_c_in_the_first_epoch_its_state_stays_and_it_says_so(
    here, interruptible, with_states, unmeasured, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        at_step(patch, 12, press)
        assert run_train(patch) == 130
    assert "runs/two is unfinished; the same command with --resume goes on with it" in capsys.readouterr().out
    assert read_state(Path("runs/two/state.safetensors"))["step"] == 10
    assert run_train(monkeypatch) == 0
    assert "runs/two goes on in epoch 1, after 10 of 18 steps" in capsys.readouterr().out


# A full disk.


def full(size: int) -> None:
    """Let no file have more bytes than this: writing fails as on a disk without room."""
    often()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


FULL = {  # script, where it is killed to leave something, bytes that a file may have then, what is said
    "weights": ("train", at_file("log.jsonl", 1), 2_000_000, "runs/two: the model could not be saved, is the disk"),
    "state": ("pretrain", at_file("log.jsonl", 5), 3_000_000, "runs/two/state.safetensors could not be written, is"),
    "logits": ("ablate", at_file("test-mean-heads.npy", 2), 1000, "File too large"),
    "activations": ("probe", at_file("emotion-last", 3), 10_000, "File too large"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", FULL)
def test_on_a_full_disk_it_ends_in_one_line_and_goes_on_when_there_is_room(here, what):
    script, death, size, expected = FULL[what]
    write_books(here)
    undisturbed = shutil.copytree(here, here.with_name("undisturbed"), symlinks=True)
    assert run(undisturbed, script) == (0, "")
    assert run(here, script, before=death) == (KILLED, "")
    kept = r"^(?!.*\.tmp).*\.(safetensors|npy|json)$"
    before = {name: content for name, content in left_in(here).items() if re.search(kept, name)}
    code, said = run(here, script, before=partial(full, size))
    assert code == 2
    assert re.fullmatch(rf"error: .*{expected}.*\n", said)
    after = left_in(here)
    assert differing({name: after.get(name) for name in before}, before) == set()
    assert not [name for name in after if name.endswith((".tmp", ".old"))]
    assert run(here, script) == (0, "")
    assert differing(left_in(here), left_in(undisturbed)) == set()


# A folder that may not be written to.


def obey_modes() -> None:
    """Modes do not bind root, who runs many a container, until this process gives up CAP_DAC_OVERRIDE (capset(2)).

    Another user would not do: the code may lie in a folder that only its owner can enter."""
    if os.geteuid() == 0:
        libc, version_3, override = ctypes.CDLL(None), 0x20080522, 1 << 1
        header, sets = struct.pack("=Ii", version_3, 0), (ctypes.c_uint32 * 6)()  # the first one: what is effective
        libc.capget(header, sets)
        sets[0] &= ~override
        libc.capset(header, sets)


UNWRITABLE = {
    "where train.py works": ("train", ".", "runs/two: cannot be written to: Permission denied; run from a folder"),
    "runs": ("train", "runs", "runs/two: cannot be written to: Permission denied; run from a folder"),
    "the run to ablate": ("ablate", "runs/one", "Permission denied: 'runs/one/ablate'"),
    "its ablate": ("ablate", "runs/one/ablate", "Permission denied: '.*runs/one/ablate/.lock'"),
    "the run to probe": ("probe", "runs/one", "Permission denied: 'runs/one/probe'"),
}


@pytest.mark.parametrize("where", UNWRITABLE)
def test_where_nothing_can_be_written_it_says_so_in_one_line(here, where):
    script, folder, expected = UNWRITABLE[where]
    if folder == ".":
        shutil.rmtree("runs")
    Path(folder).mkdir(exist_ok=True)
    before = set(here.rglob("*"))
    os.chmod(folder, 0o555)
    code, said = run(here, script, before=obey_modes)
    os.chmod(folder, 0o755)
    assert code == 2
    assert re.fullmatch(rf"error: .*{expected}.*\n", said)
    assert set(here.rglob("*")) == before


# A loss that is not finite.


@pytest.mark.parametrize(("epoch", "step"), [(1, 13), (2, 3), (3, 18)])
def test_a_loss_that_is_not_finite_names_step_rate_and_texts(here, unmeasured, monkeypatch, capsys, epoch, step):
    done = (epoch - 1) * STEPS + step - 1  # steps before it; those after it are not finite either
    at_step(monkeypatch, done + 1, lambda logits: logits * math.nan)
    assert run_train(monkeypatch) == 2
    told = one_line(capsys)
    rise, total = 7, 4 * STEPS  # a tenth of all steps
    rate = 0.0005 * min((done + 1) / rise, (total - done) / (total - rise))
    assert f"in epoch {epoch}, step {step}, at a learning rate of {rate:.3g};" in told
    assert ("is kept" in told) == Path("runs/two").exists() == (epoch > 1)  # nothing kept, nothing left

    corpus, tokenizer = read_corpus("corpus.txt"), Tokenizer.load("tiny")
    texts = corpus.split("train")["text"].tolist()
    batches = bucketed([tokenizer.encode(text) for text in texts], corpus.targets("train"), 8, 3, epoch)
    batch = {texts[i] for i in list(batches)[step - 1].index}
    lines = Path("corpus.txt").read_text().splitlines()
    numbers = [n for n, line in enumerate(lines, 1) if line.rpartition(";")[0] in batch]
    assert len(numbers) == len(batch)
    assert told.endswith(f"The lines of that batch: corpus.txt {', '.join(map(str, numbers))}\n")


def test_after_a_loss_that_is_not_finite_the_best_epoch_is_there(here, unmeasured, monkeypatch, capsys):
    at_step(monkeypatch, 2 * STEPS + 1, lambda logits: logits * math.nan)
    assert run_train(monkeypatch) == 2
    log = pd.read_json("runs/two/log.jsonl", lines=True).query("split == 'val'")
    best = log.loc[log["macro_f1"].idxmax()]
    assert f"the best epoch so far, {best['epoch']}, is kept; try a lower --lr" in one_line(capsys)
    clf, tokenizer = load_classifier("runs/two"), Tokenizer.load("runs/two")
    corpus = read_corpus("corpus.txt")
    sequences = [tokenizer.encode(text) for text in corpus.split("val")["text"]]
    p = predict(clf, sequences, Device(torch.device("cpu"), "fp32"))[np.arange(len(sequences)), corpus.targets("val")]
    assert -np.log(p).mean() == pytest.approx(best["loss"], rel=1e-6)


# Too little memory: a stand-in for a GPU that cannot hold so many tokens.


def no_room_for(monkeypatch, tokens, training=False):
    """Raise what a GPU raises where more tokens than these are in flight, padding included; or in training alone."""
    run_blocks = GPT2.run

    def limited(self, x, *arguments, **options):
        if x.shape[0] * x.shape[1] > tokens and torch.is_grad_enabled() >= training:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run_blocks(self, x, *arguments, **options)

    monkeypatch.setattr(GPT2, "run", limited)


@pytest.mark.slow
def test_a_training_that_runs_out_of_memory_goes_on_in_smaller_pieces(here, unmeasured, monkeypatch, capsys):
    assert run_train(monkeypatch, "--dropout", "0", "--run", "whole") == 0
    capsys.readouterr()
    no_room_for(monkeypatch, 20, training=True)
    assert run_train(monkeypatch, "--dropout", "0") == 0
    said = re.findall(r"out of memory: going on with at most (\d+) tokens at once", capsys.readouterr().out)
    assert 1 <= len(said) <= 3  # and from then on it knows
    assert 10 < int(said[-1]) <= 20
    whole, ours = (load_classifier(f"runs/{name}").state_dict() for name in ("whole", "two"))
    for name, weight in whole.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=1e-5)
    logs = [pd.read_json(f"runs/{name}/log.jsonl", lines=True).drop(columns="seconds") for name in ("two", "whole")]
    pd.testing.assert_frame_equal(*logs, atol=1e-5)


def test_a_text_that_does_not_fit_alone_is_one_line(here, unmeasured, monkeypatch, capsys):
    no_room_for(monkeypatch, 3)
    assert run_train(monkeypatch) == 2
    assert "out of memory" in one_line(capsys)
    assert not Path("runs/two").exists()


@pytest.mark.slow
def test_a_sweep_that_runs_out_of_memory_goes_on_in_smaller_pieces(here, monkeypatch, capsys):
    arguments = ("--device", "cpu", "--units", "heads", "--fill", "zero")
    assert commands.exit_code(monkeypatch, ablate, *arguments) == 0
    whole = pd.read_csv("runs/one/ablate/effects.csv")
    shutil.rmtree("runs/one/ablate")
    capsys.readouterr()
    no_room_for(monkeypatch, 256)
    assert commands.exit_code(monkeypatch, ablate, *arguments) == 0
    said = re.findall(r"out of memory: going on with at most (\d+) tokens at once", capsys.readouterr().out)
    assert 128 <= int(said[-1]) <= 256
    pd.testing.assert_frame_equal(pd.read_csv("runs/one/ablate/effects.csv"), whole, atol=1e-5)
