"""The comparison of regularisers: what is trained, on which texts, and a whole call on a tiny network."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from commands import exit_code, line_of, one_line
from small_run import write_corpus, write_shape

import train
from bench import regularisers
from bench.regularisers import ARMS, Options, check_number, draw_texts, plan, write_options
from data import read_corpus
from experiments.train.regularisers import expected_share
from lab.defaults import TrainOptions
from model import GPT2LM, GPT2Config, InputError, Tokenizer, save

FEW = ("--corpus", "corpus.txt", "--model", "tiny", "--device", "cpu", "--epochs", "1")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder, in which train.py is called in this process: starting another one takes seconds."""
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "corpus.txt", 40)
    write_shape(tmp_path / "shape", GPT2Config(2, 2, 10, n_ctx=17))
    save(GPT2LM(GPT2Config(2, 2, 10, n_ctx=17)), "tiny", Tokenizer.load("shape"))
    return tmp_path


def test_fewer_texts_are_part_of_more_and_all_are_all():
    few, more = draw_texts(97, 20), draw_texts(97, 50)
    assert len(set(few)) == 20
    assert set(few) < set(more)
    assert list(few) == sorted(few)
    assert list(draw_texts(97, 0)) == list(range(97))


def test_each_arm_calls_train_with_options_that_do_what_its_name_says(here):
    options = Options(corpus=("corpus.txt",), model="tiny", texts=(30,), seeds=2)
    corpus = read_corpus("corpus.txt")
    jobs = {job.arm: job for job in plan("corpus.txt", corpus, here / "out", options)}
    assert list(jobs) == ["none", *ARMS]
    written = read_corpus(here / "out" / "corpora" / "corpus.txt-30")
    texts = {split: corpus.split(split)["text"].tolist() for split in ("train", "val", "test")}
    assert [written.split(split)["text"].tolist() for split in ("val", "test")] == [texts["val"], texts["test"]]
    assert set(written.split("train")["text"]) < set(texts["train"])
    assert len(written.split("train")) == 30
    lengths = [len(ids) for ids in map(Tokenizer.load("tiny").encode, written.split("train")["text"])]
    share = round(expected_share(lengths, 0.1, "both"), 3)
    assert share != 0.1
    seen = {}
    for arm, job in jobs.items():
        words = write_options(job, options)
        assert words[words.index("--seeds") :][:3] == ["--seeds", "0", "1"]
        assert words[words.index("--lm-weight") + 1] == "0"
        assert words[words.index("--corpus") + 1] == str(here / "out" / "corpora" / "corpus.txt-30")
        regulariser = words[words.index("--regulariser") + 1]
        rate = float(words[words.index("--regulariser-rate") + 1]) if "--regulariser-rate" in words else None
        form = words[words.index("--tlm") + 1] if "--tlm" in words else "both"
        spare_first = "--spare-first" in words
        TrainOptions(regulariser=regulariser, regulariser_rate=rate, tlm=form, spare_first=spare_first).check()
        seen[arm] = regulariser, rate, form, spare_first
    assert seen == {
        "none": ("none", None, "both", False),
        "attention": ("attention", share, "both", False),
        "head": ("head", share, "both", False),
        "tlm-sibling": ("tlm", 0.1, "sibling", False),
        "tlm-self": ("tlm", 0.1, "self", False),
        "tlm-both": ("tlm", 0.1, "both", False),
        "tlm-both-spare-first": ("tlm", 0.1, "both", True),
    }
    assert jobs["tlm-both"].share == pytest.approx(share, abs=6e-4)
    assert jobs["none"].share == 0


def test_all_texts_are_read_where_they_are(here):
    options = Options(corpus=("corpus.txt",), model="tiny", arms=("head",))
    jobs = list(plan("corpus.txt", read_corpus("corpus.txt"), here / "out", options))
    assert [(job.name, job.source) for job in jobs] == [
        (f"regularisers-corpus.txt-all-{arm}", "corpus.txt") for arm in ("none", "head")
    ]
    assert not (here / "out").exists()
    assert jobs[0].n == len(read_corpus("corpus.txt").split("train"))


def test_long_texts_are_refused_or_cut_in_train_as_well(here):
    write_shape(here / "short", GPT2Config(1, 2, 10, n_ctx=5))
    save(GPT2LM(GPT2Config(1, 2, 10, n_ctx=5)), "short", Tokenizer.load("short"))
    options = Options(corpus=("corpus.txt",), model="short", arms=("head",))
    corpus = read_corpus("corpus.txt")
    with pytest.raises(InputError, match="pass --truncate to keep the end"):
        list(plan("corpus.txt", corpus, here / "out", options))
    cut = replace(options, truncate=True)
    [none, head] = plan("corpus.txt", corpus, here / "out", cut)
    assert head.rate == pytest.approx(expected_share([5], 0.1), abs=0.01)
    assert write_options(none, cut) == [*write_options(none, options), "--truncate"]


def test_a_draw_must_hold_each_class_of_val_and_test():
    rows = {"train": ["joy"] * 60 + ["fear"] * 30, "val": ["joy", "fear"], "test": ["joy", "joy"]}
    splits = {split: pd.DataFrame({"text": labels, "label": labels}) for split, labels in rows.items()}
    corpus = SimpleNamespace(name="words", split=splits.__getitem__)
    first = rows["train"][draw_texts(90, 1)[0]]
    missing = "fear" if first == "joy" else "joy"
    message = f"--texts 1: no text of class {missing} of words is among those drawn; take more"
    assert line_of(check_number, corpus, 1) == message
    check_number(corpus, 60)
    check_number(corpus, 0)
    splits["test"] = pd.DataFrame({"label": ["love", "anger"]})
    assert "no text of the classes anger, love of words" in line_of(check_number, corpus, 60)


def test_auto_stands_for_a_model_that_is_there(here, monkeypatch):
    called = []
    monkeypatch.setattr(regularisers, "choose_model", lambda name, init: ("tiny", f"{name} is tiny"))
    monkeypatch.setattr("experiments.paper.plan.call", lambda words: called.append(words) or 2)
    assert exit_code(monkeypatch, regularisers, *FEW, "--model", "auto", "--texts", "40") == 2
    assert called[0][called[0].index("--model") + 1] == "tiny"


@pytest.mark.slow
def test_a_whole_call_trains_compares_and_goes_on_where_it_stopped(here, monkeypatch, capsys):
    called = []

    def call(words):
        called.append(words[2:])
        if len(called) == 2 and stop:
            return 1
        return exit_code(monkeypatch, train, *words[2:], "--compile", "off", "--lr", "0.01")

    monkeypatch.setattr("experiments.paper.plan.call", call)
    command = (*FEW, "--texts", "40", "--seeds", "2", "--arms", "head", "--run", "few")
    stop = True
    assert exit_code(monkeypatch, regularisers, *command) == 2
    assert "the same command goes on from here" in capsys.readouterr().err
    before = Path("runs/few-corpus.txt-40-none-0/model.safetensors").stat().st_mtime_ns
    stop = False
    assert exit_code(monkeypatch, regularisers, *command) == 0
    assert Path("runs/few-corpus.txt-40-none-0/model.safetensors").stat().st_mtime_ns == before
    folder = Path("runs/few")
    files = {"results.csv", "differences.csv", "results.md", "differences.png"}
    assert files == {path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")}
    table = pd.read_csv(folder / "results.csv")
    assert len(table) == 2 * 2
    for row in table.itertuples():
        run = Path(f"runs/few-corpus.txt-40-{row.arm}-{row.seed}")
        metrics = json.loads((run / "metrics.json").read_text())
        assert (row.val_accuracy, row.test_macro_f1) == (metrics["val"]["accuracy"], metrics["test"]["macro_f1"])
        settings = json.loads((run / "run.json").read_text())["settings"]
        assert settings["regulariser"] == row.arm
        assert np.isclose(settings["regulariser_rate"] or 0, row.share)
    differences = pd.read_csv(folder / "differences.csv")
    assert len(differences) == 2  # metrics
    assert "verdict" in differences
    assert "clear" in capsys.readouterr().out


MISTAKES = {
    "too many texts": (("--texts", "10000"), "--texts 10000: expected fewer than the"),
    "fewer than none": (("--texts", "-1"), "--texts -1: expected a number of texts, or 0"),
    "a number twice": (("--texts", "30", "30"), "--texts 30 30: expected each once"),
    "an arm twice": (("--arms", "head", "head"), "--arms head head: expected each once"),
    "an arm that is none": (("--arms", "none"), "--arms"),
    "a corpus twice": (("--corpus", "corpus.txt", "corpus.txt"), "--corpus corpus.txt corpus.txt: expected each once"),
    "no seeds": (("--seeds", "0"), "--seeds 0"),
    "no epochs": (("--epochs", "0"), "--epochs 0: expected at least 1"),
    "a class that is not drawn": (("--texts", "1"), "is among those drawn; take more"),
    "a path": (("--run", "a/b"), "--run a/b: expected a name"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_before_anything_is_trained(here, monkeypatch, capsys, mistake):
    arguments, expected = MISTAKES[mistake]
    monkeypatch.setattr("experiments.paper.plan.call", partial(pytest.fail, "trained"))
    assert exit_code(monkeypatch, regularisers, *FEW, *arguments) == 2
    assert expected in one_line(capsys)
    assert not Path("runs").exists()
