"""`torchrun train.py` and `torchrun ablate.py` in two processes on the CPU: the results of one process."""

import json
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from unittest import mock

import children
import numpy as np
import pandas as pd
import pytest
import torch
from planted import texts_of
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from two_processes import ADDRESS, in_two

import experiments.train.measure
import experiments.train.training
import lab.device
from data import bucketed
from experiments.train.frozen import make_forwards
from experiments.train.training import Training
from lab.defaults import FEW, TrainOptions
from lab.device import Device
from model import GPT2Classifier, GPT2Config, load_classifier

ROOT = Path(__file__).parent.parent
DONE = 0, ""  # exit code and stderr
TRAINING = ("--model", "tiny", "--corpus", "split", "--init", "random", "--epochs", "2", "--batch-size", "4")
TRAINING += ("--lr", "0.01", "--class-weights", "--device", "cpu")


def script(name, *arguments, before=int):
    """`python NAME arguments` in this process, after `before()` -> its exit code and what it wrote to stderr."""
    before()
    stderr = StringIO()
    streams = redirect_stdout(StringIO()), redirect_stderr(stderr)
    with streams[0], streams[1], mock.patch.object(sys, "argv", [name, *arguments]), pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(ROOT / name), run_name="__main__")
    return exit_.value.code, stderr.getvalue()


def torchrun(*command, restarts=0):
    """`torchrun --nproc-per-node 2 -- command`, in processes of its own."""
    options = [
        "--nproc-per-node=2",
        f"--max-restarts={restarts}",
        *(f"--{name.replace('_', '-')}={value}" for name, value in ADDRESS.items()),
    ]
    line = [sys.executable, "-m", "torch.distributed.run", *options, "--", *map(str, command)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    return subprocess.run(line, capture_output=True, text=True, env=environment)


@pytest.fixture
def split(here):
    """A corpus of 97 training texts: 24 batches of 4, and one of a single text. One class is rarer than the others."""
    lines = [line for i, line in enumerate(Path("corpus.txt").read_text().splitlines()) if i % 3 or "fear" not in line]
    lines = np.random.default_rng(0).permutation(lines).tolist()
    Path("split").mkdir()
    for name, own in (("train", lines[:97]), ("val", lines[97:120]), ("test", lines[120:])):
        Path(f"split/{name}.txt").write_text("\n".join(own) + "\n")


def log(run):
    return pd.read_json(Path("runs") / run / "log.jsonl", lines=True).drop(columns="seconds")


def metrics(run):
    """All numbers of its metrics.json, in their order."""
    numbers = []
    json.loads((run / "metrics.json").read_text(), parse_float=numbers.append, parse_int=numbers.append)
    return [float(number) for number in numbers]


def weights(run):
    """But for the bias of the keys, which does nothing: of its gradient, all rounding, AdamW makes whole steps."""
    state, C = load_classifier(run).state_dict(), 12
    for name in state:
        if name.endswith("c_attn.bias"):
            state[name][C : 2 * C] = 0
    return state


ENGINES = pytest.mark.parametrize("engine", [(), ("--shard",)], ids=["DDP", "FSDP2"])


@pytest.mark.slow
@ENGINES
def test_training_in_two_processes_is_that_of_one(split, engine):
    training = (*TRAINING, "--dropout", "0", "--shuffle-labels")
    done = torchrun(ROOT / "train.py", *training, *engine, "--run", "two")
    assert done.returncode == 0, done.stderr
    for line in ("Corpus split", "epoch 1: train loss", "epoch 2: train loss", "Kept: epoch", "(--shuffle-labels)"):
        assert done.stdout.count(line) == 1  # only the first process speaks
    assert script("train.py", *training, "--run", "alone") == DONE

    two, alone = Path("runs/two"), Path("runs/alone")
    assert {path.name for path in two.iterdir()} == {path.name for path in alone.iterdir()}
    assert json.loads((two / "run.json").read_text())["device"].endswith("2 processes")
    pd.testing.assert_frame_equal(log("two"), log("alone"), rtol=1e-5)
    assert metrics(two) == pytest.approx(metrics(alone), rel=1e-5, abs=1e-5)
    for name, value in weights(alone).items():
        torch.testing.assert_close(weights(two)[name], value, atol=1e-5, rtol=1e-4, msg=name)


def dropped_otherwise(dropout):
    """The loss that a process has on the same text as the other one."""
    torch.manual_seed(3)
    config = GPT2Config(1, 2, 6, n_ctx=5, vocab_size=11, dropout=dropout, attn_dropout=dropout)
    texts = {"train": texts_of("train", [[1, 2, 3]] * 3, [0, 0, 1])}
    model = GPT2Classifier(config, ["a", "b"])
    options, device = TrainOptions(seed=3).resolved(6, FEW), Device.choose("cpu", "fp32")
    training = Training(model, texts, options, device, make_forwards(model, options, device))
    batch = next(bucketed(texts["train"].sequences, texts["train"].targets, 2))  # two of a class
    return training.take_step(batch).tolist()


@pytest.mark.slow
def test_dropout_falls_elsewhere_in_each_process():
    first, second = in_two(dropped_otherwise, 0.0)
    assert first == second
    first, second = in_two(dropped_otherwise, 0.3)
    assert first != second


def often():
    """Training writes down where it stands at once, and is not measured."""
    experiments.train.training.STATE_EVERY = 0
    experiments.train.measure.measure = lambda run, corpus, texts, device: ""
    many_batches()


def killed(rank, function, nth):
    """The process of this rank is killed where it would call `module.function` for the n-th time."""
    often()
    if os.environ["RANK"] == str(rank):
        children.die_in(function, nth)


def kill(rank, function, nth, name, *arguments):
    """A script in two processes of which one is killed."""
    with pytest.raises(ChildFailedError):
        in_two(partial(script, before=partial(killed, rank, function, nth)), name, *arguments)


KILLED = """
import os, test_processes, train
from lab.cli import command

test_processes.often()
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    test_processes.killed(1, "experiments.train.steps.Step.__call__", 40)
command(train.main, train.Options, processes=True)
"""


@pytest.mark.slow
@ENGINES
def test_killed_workers_are_survived(split, engine):
    """The second one under torchrun, then the first one; what goes on ends as if nothing had been, to the last bit."""
    Path("killed.py").write_text(KILLED)
    training = (*TRAINING, *engine)
    done = torchrun("killed.py", *training, "--run", "two")
    assert done.returncode not in (0, 2)
    assert "Signal 9 (SIGKILL)" in done.stderr
    two, whole = Path("runs/two"), Path("runs/whole")
    assert log("two")["epoch"].tolist() == [1, 1]
    load_classifier(two)  # which checks its SHA-256
    state = (two / "state.safetensors").read_bytes()
    if not engine:
        code, said = script("train.py", *training, "--run", "two", "--resume")
        assert (code, said.count("\n")) == (2, 1)
        assert "2 processes made it, here are 1; go on with as many" in said
    assert (two / "state.safetensors").read_bytes() == state

    kill(0, "experiments.train.steps.Step.__call__", 13, "train.py", *training, "--run", "two", "--resume")
    for options in (("--run", "two", "--resume"), ("--run", "whole")):
        assert in_two(partial(script, before=often), "train.py", *training, *options) == [DONE, DONE]
    assert_the_same(two, whole)
    assert {path.name for path in two.iterdir()} == {path.name for path in whole.iterdir()}


def assert_the_same(run, other):
    """Two runs, to the last bit."""
    assert (run / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    pd.testing.assert_frame_equal(log(run.name), log(other.name), check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", [("--run", "two"), ()], ids=["named", "unnamed"])
def test_torchrun_starts_a_killed_training_again_and_it_goes_on(split, name):
    Path("killed.py").write_text(KILLED)
    before = set(Path("runs").iterdir())
    done = torchrun("killed.py", *TRAINING, *name, restarts=1)
    assert done.returncode == 0, done.stderr
    assert "failed (exitcode: -9) local_rank: 1" in done.stderr
    assert "goes on in epoch 2" in done.stdout
    [run] = [path for path in set(Path("runs").iterdir()) - before if not path.is_symlink()]
    assert len(json.loads((run / "run.json").read_text())["resumed"]) == 1
    assert in_two(partial(script, before=often), "train.py", *TRAINING, "--run", "whole") == [DONE, DONE]
    assert_the_same(run, Path("runs/whole"))


DIVERGING = """
import math, train
from itertools import count
from experiments.train.steps import Step
from lab.cli import command

take, number = Step.__call__, count(1)
Step.__call__ = lambda self, batch: take(self, batch) * (math.nan if next(number) > 30 else 1)
command(train.main, train.Options, processes=True)
"""


@pytest.mark.slow
def test_a_training_that_diverged_is_not_trained_again_over_its_best_epoch(split):
    Path("diverging.py").write_text(DIVERGING)
    done = torchrun("diverging.py", *TRAINING, "--run", "two", restarts=1)
    assert done.returncode != 0
    assert "the loss was not finite in epoch 2, step 6" in done.stderr
    assert done.stderr.count("runs/two: torchrun has started it again, but there is no state, only the best epoch") == 1
    assert done.stdout.count("epoch 1: train loss") == 1
    assert log("two")["epoch"].tolist() == [1, 1]
    load_classifier(Path("runs/two"))


@pytest.mark.slow
def test_a_damaged_part_of_a_sharded_state_is_refused(split):
    training = (*TRAINING, "--shard", "--run", "two")
    kill(1, "experiments.train.steps.Step.__call__", 13, "train.py", *training)
    [folder] = Path("runs/two").glob("shards-*")
    part = max(folder.iterdir())
    whole = bytearray(part.read_bytes())
    whole[-1] ^= 1
    part.write_bytes(whole)
    (code, said), other = in_two(script, "train.py", *training, "--resume")
    assert (code, said.count("\n"), other) == (2, 1, (2, ""))
    assert f"{folder} is damaged; remove runs/two, and begin anew" in said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--shard",), "among which weights are divided; start them by torchrun, or leave --shard out"),
        (("--shard", "--compile", "on"), "--compile on: sharded weights come and go in a graph; take"),
    ],
)
def test_shards_where_there_can_be_none_are_refused(split, options, expected):
    code, said = script("train.py", *TRAINING, *options)
    assert (code, said.count("\n")) == (2, 1)
    assert expected in said


@pytest.mark.slow
def test_what_only_the_first_process_sees_is_said_once_and_ends_both(split):
    (code, said), other = in_two(script, "train.py", *TRAINING, "--run", "one")
    assert (code, said.count("\n"), other) == (2, 1, (2, ""))
    assert "expected a new name, got one that is taken" in said


def many_batches():
    """So small ones that each process gets several."""
    lab.device.TOKENS = 256


def tables():
    """What ablate.py has found."""
    return {path.name: path.read_bytes() for path in Path("runs/one/ablate").glob("*.csv")}


def computed():
    """How many logits lie on disk."""
    return sum(np.isfinite(np.load(path)).sum() for path in Path("runs/one/ablate/logits").glob("*.npy"))


@pytest.mark.slow
def test_ablation_in_two_processes_is_that_of_one(here, monkeypatch):
    monkeypatch.setattr(lab.device, "TOKENS", 256)
    options = ("--units", "heads", "curves", "pairs", "smallest", "--fill", "mean", "--device", "cpu")
    assert script("ablate.py", *options) == DONE
    alone = tables()
    assert in_two(partial(script, before=many_batches), "ablate.py", *options, "--no-resume") == [DONE, DONE]
    assert {"effects.csv", "curves.csv", "interactions.csv"} <= alone.keys()
    assert tables() == alone


@pytest.mark.slow
def test_a_killed_ablation_goes_on(here):
    options, done = ("--units", "heads", "layers", "--fill", "zero", "--device", "cpu"), []
    for rank in (1, 0):
        kill(rank, "lab.sweep.run_ablations", 3, "ablate.py", *options)
        done.append(computed())
    assert in_two(script, "ablate.py", *options) == [DONE, DONE]
    assert 0 < done[0] < done[1] < computed()
    resumed = pd.read_csv("runs/one/ablate/effects.csv")
    assert script("ablate.py", *options, "--no-resume") == DONE
    # Texts that were left are batched anew, and a sum in a batch of another shape is rounded otherwise.
    pd.testing.assert_frame_equal(resumed, pd.read_csv("runs/one/ablate/effects.csv"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["pretrain.py", "probe.py", "verify.py", "paper.py"])
def test_what_works_in_one_process_refuses_several(monkeypatch, name):
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = f"error: {name} works in one process: start it with python, not torchrun\n"
    assert script(name) == (2, said)
