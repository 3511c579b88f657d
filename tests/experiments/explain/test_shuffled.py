"""The control of shuffled labels: which runs are taken for it, and which are refused in one line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from commands import exit_code, line_of
from safetensors.torch import load_file, save_file
from tiny import set_config

import train
from experiments.explain.shuffled import open_shuffled
from lab.device import Device
from lab.study import open_study
from model import load_classifier

CPU = Device(torch.device("cpu"), "fp32")
pytestmark = pytest.mark.slow  # a control has to be trained; tests/test_explain.py has a quick one


@pytest.fixture(scope="module")
def controlled(trained, tmp_path_factory):
    """A working folder with runs/one and its control of shuffled labels, trained with another dropout."""
    folder = tmp_path_factory.mktemp("controlled") / "copy"
    shutil.copytree(trained, folder, symlinks=True)
    line = "--model tiny --corpus corpus.txt --init random --epochs 1 --device cpu --run control --dropout 0.2"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(train, "measure", lambda run, corpus, texts, device: "")
        assert exit_code(patch, train, *line.split(), "--shuffle-labels") == 0
    return folder


@pytest.fixture
def here(controlled, tmp_path, monkeypatch):
    """A copy of it to work in."""
    shutil.copytree(controlled, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def copy_control(name):
    """The folder of another control, which is a copy of the first."""
    return Path(shutil.copytree("runs/control", f"runs/{name}"))


def set_record(folder, **changes):
    """Change some entries of the manifest of a run."""
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | changes))


def test_the_control_of_a_run_is_opened(here):
    study = open_study("one", CPU)
    study.clf.labels = ("all (class)", *study.clf.labels[1:])  # what tables call its classes
    clf = open_shuffled("control", study)
    assert not clf.training
    assert clf.labels == study.clf.labels
    assert not any(parameter.requires_grad for parameter in clf.parameters())
    expected = load_classifier("runs/control").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in clf.state_dict().items())


def test_other_runs_are_refused(here):
    study = open_study("one", CPU)
    assert "--shuffled-run none: expected the name of a finished run" in line_of(open_shuffled, "none", study)
    line = line_of(open_shuffled, "one", study)
    assert "--shuffled-run one: expected a run of shuffled labels, got one of true labels; make one with" in line
    line = line_of(open_shuffled, "control", open_study("control", CPU))
    assert "--run control: its labels were shuffled, too" in line
    set_record(copy_control("more"), corpus={"sha256": {"corpus.txt": "0" * 64}})
    assert "expected the corpus of runs/one, got another" in line_of(open_shuffled, "more", study)
    set_record(folder := copy_control("feelings"), corpus={"sha256": {"feelings.txt": "0" * 64}})
    set_config(folder, id2label={"0": "anger", "1": "fear", "2": "glee"})
    assert "expected the classes and corpus of runs/one" in line_of(open_shuffled, "feelings", study)
    set_record(copy_control("unfinished"), status="unfinished")
    line = line_of(open_shuffled, "unfinished", study)
    assert "--shuffled-run unfinished: expected the name of a finished run" in line


def test_another_shape_and_another_tokenizer_are_refused(here):
    study = open_study("one", CPU)
    set_config(copy_control("other"), n_layer=1)
    assert "expected the shape of runs/one, got another" in line_of(open_shuffled, "other", study)
    (copy_control("spaced") / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    assert "expected the tokenizer of runs/one, got another" in line_of(open_shuffled, "spaced", study)


def test_weights_that_are_not_finite_are_refused(here):
    study = open_study("one", CPU)
    for run in ("one", "control"):
        path = Path("runs", run, "model.safetensors")
        weights = load_file(path)
        next(iter(weights.values())).view(-1)[0] = float("nan")
        save_file(weights, path, {"format": "pt"})
    assert "numbers that are not finite" in line_of(open_study, "one", CPU)
    assert "numbers that are not finite" in line_of(open_shuffled, "control", study)
