"""The control of shuffled labels: which runs are taken for it, and which are refused in one line."""

import json
import shutil
from pathlib import Path

import torch
from commands import exit_code, line_of
from small_run import write_corpus

import train
from experiments.explain.shuffled import open_shuffled
from lab.device import Device
from lab.study import open_study
from model import load_classifier

CPU = Device(torch.device("cpu"), "fp32")


def train_control(monkeypatch, name, corpus="corpus.txt", model="tiny", **options):
    line = f"--model {model} --corpus {corpus} --init random --epochs 1 --device cpu --run {name}"
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    monkeypatch.setattr(train, "measure", lambda run, corpus, texts, device: "")
    assert exit_code(monkeypatch, train, *line.split(), "--shuffle-labels", *arguments) == 0


def test_the_control_of_a_run_is_opened(here, monkeypatch):
    train_control(monkeypatch, "control", dropout="0.2")
    study = open_study("one", CPU)
    study.clf.labels = ("all (class)", *study.clf.labels[1:])  # what tables call its classes
    clf = open_shuffled("control", study)
    assert not clf.training
    assert clf.labels == study.clf.labels
    assert not any(parameter.requires_grad for parameter in clf.parameters())
    expected = load_classifier("runs/control").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in clf.state_dict().items())


def test_other_runs_are_refused(here, monkeypatch):
    study = open_study("one", CPU)
    assert "--shuffled-run none: expected the name of a finished run" in line_of(open_shuffled, "none", study)
    line = line_of(open_shuffled, "one", study)
    assert "--shuffled-run one: expected a run of shuffled labels, got one of true labels; make one with" in line
    train_control(monkeypatch, "control")
    assert "--run control: its labels were shuffled, too" in line_of(
        open_shuffled, "control", open_study("control", CPU)
    )
    write_corpus(here / "more.txt", 70)
    train_control(monkeypatch, "more", corpus="more.txt")
    assert "expected the corpus of runs/one, got another" in line_of(open_shuffled, "more", study)
    (here / "feelings.txt").write_text((here / "corpus.txt").read_text().replace(";joy", ";glee"))
    train_control(monkeypatch, "feelings", corpus="feelings.txt")
    assert "expected the classes and corpus of runs/one" in line_of(open_shuffled, "feelings", study)
    record = json.loads(Path("runs/control/run.json").read_text())
    Path("runs/control/run.json").write_text(json.dumps(record | {"status": "unfinished"}))
    assert "--shuffled-run control: expected the name of a finished run" in line_of(open_shuffled, "control", study)


def test_another_shape_and_another_tokenizer_are_refused(here, monkeypatch):
    train_control(monkeypatch, "control")
    study = open_study("one", CPU)
    shutil.copytree("tiny", "other")
    config = json.loads(Path("tiny/config.json").read_text())
    Path("other/config.json").write_text(json.dumps(config | {"n_layer": 1}))
    train_control(monkeypatch, "other", model="other")
    assert "expected the shape of runs/one, got another" in line_of(open_shuffled, "other", study)
    files = study.tokenizer.files | {"merges.txt": study.tokenizer.files["merges.txt"] + b"\n"}
    study.tokenizer.files = files
    assert "expected the tokenizer of runs/one, got another" in line_of(open_shuffled, "control", study)
