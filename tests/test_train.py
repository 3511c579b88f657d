"""`train.py` from the command line to the files of a run, on a network small enough to train in seconds."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import commands
import numpy as np
import odd_corpora
import pandas as pd
import pytest
import stand_in
import torch
from commands import one_line
from huggingface_hub import constants
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score
from small_run import WORDS, write_corpus, write_shape

import experiments.train.training
import lab.defaults
import model.names
import train
from experiments.train.frozen import FROZEN
from lab.defaults import FEW
from lab.device import Device
from lab.study import open_study
from model import GPT2LM, GPT2Config, Tokenizer, load_classifier, load_lm, save

ROOT = Path(__file__).parent.parent
CPU = Device(torch.device("cpu"), "fp32")

FAST = ("--init", "random", "--epochs", "2", "--lr", "0.02", "--dropout", "0", "--device", "cpu", "--compile", "off")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder with a corpus that words give away, and the shape of a tiny model."""
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "corpus.txt", 40)
    write_shape(tmp_path / "tiny", GPT2Config(2, 2, 10, n_ctx=17))
    return tmp_path


def run_train(monkeypatch, *arguments):
    """The exit code of `python train.py arguments`."""
    return commands.exit_code(monkeypatch, train, *arguments)


def train_tiny(monkeypatch, name, *arguments):
    base = ("--model", "tiny", "--corpus", "corpus.txt", "--run", name)
    assert run_train(monkeypatch, *base, *FAST, *arguments) == 0
    return Path("runs") / name


def test_a_run_holds_what_the_design_promises(here, monkeypatch):
    run = train_tiny(monkeypatch, "first", "--epochs", "3")
    pictures = {f"{kind}_{split}.png" for kind in ("confusion", "roc_pr", "calibration") for split in ("val", "test")}
    tables = {"run.json", "metrics.json", "predictions.csv", "log.jsonl"}
    checkpoint = {"config.json", "model.safetensors", "vocab.json", "merges.txt", "tokenizer_config.json"}
    assert {path.name for path in run.iterdir()} == checkpoint | tables | pictures | {"learning_curves.png", ".lock"}
    assert (Path("runs") / "latest").resolve() == run.resolve()

    record = json.loads((run / "run.json").read_text())
    assert record["settings"]["epochs"] == 3
    assert record["settings"]["lr"] == 0.02
    assert {"name": "tiny", "init": "random"}.items() <= record["model"].items()
    assert record["model"]["shape"]["n_embd"] == 10
    assert record["corpus"]["labels"] == ["anger", "fear", "joy"]
    assert len(record["corpus"]["sha256"]["corpus.txt"]) == 64
    assert record["status"] == "finished"

    log = pd.read_json(run / "log.jsonl", lines=True)
    assert list(zip(log["epoch"], log["split"], strict=True)) == [(e, s) for e in (1, 2, 3) for s in ("train", "val")]


@pytest.mark.usefixtures("saved")
def test_metrics_follow_from_the_predictions_on_disk(here, monkeypatch):
    run = train_tiny(monkeypatch, "run")
    table = pd.read_csv(run / "predictions.csv")
    assert list(table.columns) == ["split", "index", "text", "label", "predicted", "p_anger", "p_fear", "p_joy"]
    metrics = json.loads((run / "metrics.json").read_text())
    for split, rows in table.groupby("split"):
        p = rows[["p_anger", "p_fear", "p_joy"]].to_numpy()
        assert np.allclose(p.sum(axis=1), 1, atol=1e-5)
        assert list(rows["predicted"]) == [["anger", "fear", "joy"][k] for k in p.argmax(axis=1)]
        assert list(rows["index"]) == list(range(len(rows)))
        measured = metrics[split]
        assert measured["accuracy"] == pytest.approx(accuracy_score(rows["label"], rows["predicted"]))
        assert measured["macro_f1"] == pytest.approx(f1_score(rows["label"], rows["predicted"], average="macro"))
        assert measured["log_loss"] == pytest.approx(log_loss(rows["label"], p / p.sum(1, keepdims=True)), rel=1e-3)
        assert measured["macro_roc_auc"] == pytest.approx(
            np.mean([roc_auc_score(rows["label"] == label, rows[f"p_{label}"]) for label in WORDS]), abs=1e-3
        )
        low, high = measured["intervals"]["accuracy"]
        assert low <= measured["accuracy"] <= high
    assert metrics["baselines"]["majority"]["test"]["accuracy"] == pytest.approx(1 / 3, abs=0.05)
    assert metrics["baselines"]["bag_of_words"]["test"]["accuracy"] > 0.9


@pytest.mark.usefixtures("saved")
def test_it_learns_what_words_give_away(here, monkeypatch):
    run = train_tiny(monkeypatch, "run", "--epochs", "12")
    assert json.loads((run / "metrics.json").read_text())["test"]["accuracy"] > 0.9


@pytest.mark.usefixtures("saved")
def test_the_checkpoint_of_a_run_makes_its_predictions(here, monkeypatch):
    run = train_tiny(monkeypatch, "run")
    table = pd.read_csv(run / "predictions.csv")
    clf, tokenizer = load_classifier(run), Tokenizer.load(run)
    for row in table.head(5).itertuples():
        with torch.no_grad():
            p = clf(torch.tensor([tokenizer.encode(row.text)])).softmax(dim=1)[0]
        assert p[clf.labels.index(row.predicted)] == pytest.approx(max(row.p_anger, row.p_fear, row.p_joy), abs=1e-5)


def test_the_seed_decides_everything(here, unmeasured, monkeypatch):
    weights = []
    for i, seed in enumerate(("1", "1", "2")):
        run = train_tiny(monkeypatch, f"run{i}", "--epochs", "1", "--dropout", "0.1", "--seed", seed)
        weights.append((run / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


@pytest.fixture
def learnt_from(monkeypatch):
    """The classes of train that each training learns from."""
    targets = []
    start = train.Training.__init__

    def note(self, model, texts, *rest):
        targets.append(texts["train"].targets.tolist())
        start(self, model, texts, *rest)

    monkeypatch.setattr(train.Training, "__init__", note)
    return targets


def test_shuffled_labels_are_those_of_train_in_another_order(here, unmeasured, monkeypatch, capsys, learnt_from):
    for i, options in enumerate(
        ((), ("--shuffle-labels",), ("--shuffle-labels",), ("--shuffle-labels", "--seed", "1"))
    ):
        train_tiny(monkeypatch, f"run{i}", *options)
        said = " ".join(capsys.readouterr().out.split())
        shuffled = "The labels of train were given to its texts at random (--shuffle-labels)"
        assert (shuffled in said) == (i > 0)
        assert json.loads(Path(f"runs/run{i}/run.json").read_text())["settings"]["shuffle_labels"] == (i > 0)
    true, shuffled, again, other = learnt_from
    assert sorted(true) == sorted(shuffled) == sorted(other)
    agree = np.mean(np.array(true) == shuffled)
    assert agree < 0.5  # of three classes
    assert shuffled == again != other
    log = pd.read_json("runs/run3/log.jsonl", lines=True)
    accuracy = log.loc[log["split"] == "train", "accuracy"].iloc[-1]
    share = max(true.count(k) for k in set(true)) / len(true)
    assert f"In its last epoch the network gave {accuracy:.1%} of the texts their label" in said
    assert f"does so for {share:.1%}." in said


def test_a_control_is_measured_on_true_labels_beside_a_bag_of_words_of_shuffled_ones(here, monkeypatch):
    run = train_tiny(monkeypatch, "control", "--shuffle-labels")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["baselines"]["bag_of_words"]["test"]["accuracy"] < 0.7  # of true labels it learns all
    table = pd.read_csv(run / "predictions.csv").query("split == 'test'")
    assert list(table["label"]) == list(open_study("control", CPU).corpus.split("test")["label"])
    assert any(word in text for word in WORDS["joy"].split() for text in table["text"][table["label"] == "joy"])


@pytest.mark.slow
def test_a_control_goes_on_with_the_same_labels(here, unmeasured, monkeypatch, learnt_from):
    whole = train_tiny(monkeypatch, "whole", "--shuffle-labels", "--epochs", "3")
    with monkeypatch.context() as patch:
        interrupt_in(patch, epoch=3)
        options = ("--model", "tiny", "--corpus", "corpus.txt", *FAST, "--epochs", "3", "--shuffle-labels")
        assert run_train(patch, *options, "--run", "cut") == 130
    assert run_train(monkeypatch, *options, "--run", "cut", "--resume") == 0
    assert learnt_from[0] == learnt_from[1] == learnt_from[2]
    weights = [(run / "model.safetensors").read_bytes() for run in (whole, Path("runs/cut"))]
    assert weights[0] == weights[1]
    assert run_train(monkeypatch, *options[:-1], "--run", "whole", "--resume") == 2


def test_each_seed_shuffles_otherwise(here, unmeasured, monkeypatch, learnt_from):
    assert run_train(monkeypatch, *SEEDS[:-1], "--shuffle-labels") == 0
    assert learnt_from[0] != learnt_from[1]


SEEDS = ("--model", "tiny", "--corpus", "corpus.txt", "--run", "x", *FAST, "--dropout", "0.1", "--seeds", "0", "1", "2")
RUNS = [Path("runs") / name for name in ("x-0", "x-1", "x-2")]


@pytest.fixture
def trained_seeds(monkeypatch):
    """The seeds with which a training begins or goes on, in their order."""
    seeds = []
    fit = train.Training.fit

    def note(self, *rest):
        seeds.append(self.options.seed)
        fit(self, *rest)

    monkeypatch.setattr(train.Training, "fit", note)
    return seeds


@pytest.mark.slow
def test_each_of_several_seeds_is_trained_as_if_alone(here, unmeasured, monkeypatch, trained_seeds):
    assert run_train(monkeypatch, *SEEDS) == 0
    assert trained_seeds == [0, 1, 2]
    assert sorted(path.name for path in Path("runs").iterdir()) == ["latest", "x-0", "x-1", "x-2"]
    together = [(run / "model.safetensors").read_bytes() for run in RUNS]
    records = [json.loads((run / "run.json").read_text()) for run in RUNS]
    assert len(set(together)) == 3
    assert Path("runs/latest").resolve().name == "x-2"
    for i, record in enumerate(records):
        shutil.rmtree(RUNS[i])
        assert run_train(monkeypatch, *SEEDS[:-4], "--run", f"x-{i}", "--seed", str(i)) == 0
        assert (RUNS[i] / "model.safetensors").read_bytes() == together[i]
        alone = json.loads((RUNS[i] / "run.json").read_text())
        assert "seeds" not in record["settings"]
        assert (record["settings"]["seed"], record["settings"]["run"]) == (i, f"x-{i}")
        assert record.keys() == alone.keys()
        for key in record.keys() - {"command", "started", "seconds", "peak_memory_bytes"}:
            assert record[key] == alone[key]


def test_the_same_seeds_again_pass_over_what_is_finished(here, unmeasured, monkeypatch, capsys, trained_seeds):
    assert run_train(monkeypatch, *SEEDS[:-1]) == 0
    assert trained_seeds == [0, 1]
    before = {path: path.read_bytes() for run in RUNS[:2] for path in run.iterdir()}
    capsys.readouterr()
    assert run_train(monkeypatch, *SEEDS[:-1]) == 0
    assert trained_seeds == [0, 1]
    assert "runs/x-0 is finished\nruns/x-1 is finished\n" in capsys.readouterr().out
    assert run_train(monkeypatch, *SEEDS) == 0  # one more
    assert trained_seeds == [0, 1, 2]
    assert {path: path.read_bytes() for run in RUNS[:2] for path in run.iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 2])
def test_seeds_interrupted_in_the_second_go_on_with_it(here, unmeasured, monkeypatch, trained_seeds, epoch):
    assert run_train(monkeypatch, *SEEDS) == 0
    whole = [(run / "model.safetensors").read_bytes() for run in RUNS]
    shutil.rmtree("runs")
    trained_seeds.clear()
    monkeypatch.setattr(experiments.train.training, "STATE_EVERY", 0)
    train_epoch = train.Training.train

    def interrupted(self, *rest):
        if (self.options.seed, self.epoch) == (1, epoch):
            raise KeyboardInterrupt
        return train_epoch(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(train.Training, "train", interrupted)
        assert run_train(patch, *SEEDS) == 130
    assert trained_seeds == [0, 1]
    assert RUNS[1].exists() == (epoch == 2)  # in the first epoch nothing was kept
    assert run_train(monkeypatch, *SEEDS) == 0
    assert trained_seeds == [0, 1, 1, 2]
    assert [(run / "model.safetensors").read_bytes() for run in RUNS] == whole
    records = [json.loads((run / "run.json").read_text()) for run in RUNS]
    assert [record["status"] for record in records] == ["finished"] * 3
    assert ["resumed" in record for record in records] == [False, epoch == 2, False]


def set_status(run, status):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"status": status}))


OTHERS = {  # what is done to the runs x-0 and x-1, options, what is said
    "finished": (lambda: None, ("--lr", "0.5"), "runs/x-0 is finished and was made with --lr 0.02, now 0.5; move it"),
    "unfinished": (
        lambda: set_status(RUNS[0], "unfinished"),
        ("--lr", "0.5"),
        "runs/x-0 is unfinished and was made with --lr 0.02, now 0.5; with the settings as they were it goes on",
    ),
    "texts": (
        lambda: write_corpus(Path("corpus.txt"), 30),
        (),
        "x-0 is finished and was made with --corpus corpus.txt, which is no longer the same inside",
    ),
    "shape": (
        lambda: [shutil.rmtree("tiny"), write_shape(Path("tiny"), GPT2Config(1, 2, 10, n_ctx=17))],
        (),
        "x-0 is finished and was made with --model tiny, which is no longer the same inside",
    ),
    "no run": (lambda: Path("runs/x-2/notes").mkdir(parents=True), (), "runs/x-2: expected a new name"),
    "another script's": (
        lambda: (RUNS[1] / "run.json").write_text("{}"),
        (),
        "runs/x-1/run.json: not as this train.py writes it",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_run_of_that_name_that_is_another_stops_all_before_training(
    here, unmeasured, monkeypatch, capsys, trained_seeds, other
):
    assert run_train(monkeypatch, *SEEDS[:-1]) == 0
    change, options, expected = OTHERS[other]
    change()
    capsys.readouterr()
    assert run_train(monkeypatch, *SEEDS, *options) == 2
    assert expected in one_line(capsys)
    assert trained_seeds == [0, 1]


def test_a_finished_run_is_passed_over_for_seeds_alone(here, unmeasured, monkeypatch, capsys):
    assert run_train(monkeypatch, *SEEDS[:-2]) == 0
    capsys.readouterr()
    assert run_train(monkeypatch, *SEEDS[:-4], "--run", "x-0") == 2
    assert "runs/x-0: expected a new name, got one that is taken" in one_line(capsys)


@pytest.mark.parametrize(
    ("tune", "moved"),
    [
        ("head", {"score.weight"}),
        ("1", {"score.weight", "trunk.ln_f", "trunk.h.1"}),
        ("all", {"score.weight", "trunk.ln_f", "trunk.h.1", "trunk.h.0", "trunk.wte", "trunk.wpe"}),
    ],
)
def test_tune_moves_what_it_names_and_nothing_else(here, unmeasured, monkeypatch, tune, moved):
    start = train_tiny(monkeypatch, "start", "--epochs", "1")
    options = ("--model", str(start), "--corpus", "corpus.txt", "--run", "next", "--epochs", "1", "--tune", tune)
    assert run_train(monkeypatch, *options, "--dropout", "0", "--weight-decay", "0", "--device", "cpu") == 0
    before, after = (load_classifier(run).state_dict() for run in (start, Path("runs/next")))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {prefix for prefix in moved if any(name.startswith(prefix) for name in changed)} == moved
    assert all(any(name.startswith(prefix) for prefix in moved) for name in changed)
    assert json.loads(Path("runs/next/run.json").read_text())["model"]["sha256"]


def test_the_epoch_of_best_macro_f1_is_kept(here, unmeasured, monkeypatch):
    kept = []
    scores = iter([0.2, 0.9, 0.5])
    evaluate = train.Training.evaluate
    monkeypatch.setattr(train.Training, "evaluate", lambda self: evaluate(self) | {"macro_f1": next(scores)})

    def recording_save(model, folder, tokenizer):
        kept.append(model.score.weight.clone())
        save(model, folder, tokenizer)

    monkeypatch.setattr(experiments.train.training, "save", recording_save)
    run = train_tiny(monkeypatch, "run", "--epochs", "3")
    assert len(kept) == 2
    assert torch.equal(load_classifier(run).score.weight, kept[1])


def interrupt_in(monkeypatch, epoch):
    train_epoch = train.Training.train

    def interrupted(self, *rest):
        if self.epoch == epoch:
            raise KeyboardInterrupt
        return train_epoch(self, *rest)

    monkeypatch.setattr(train.Training, "train", interrupted)


@pytest.mark.usefixtures("saved")
def test_ctrl_c_keeps_the_best_epoch_and_leaves_latest_alone(here, monkeypatch):
    train_tiny(monkeypatch, "whole", "--epochs", "1")
    interrupt_in(monkeypatch, epoch=2)
    assert run_train(monkeypatch, "--model", "tiny", "--corpus", "corpus.txt", "--run", "cut", *FAST) == 130
    assert json.loads(Path("runs/cut/run.json").read_text())["status"] == "interrupted"
    assert json.loads(Path("runs/cut/metrics.json").read_text())["test"]["n"] > 0
    assert load_classifier("runs/cut").labels == ("anger", "fear", "joy")
    assert Path("runs/latest").resolve().name == "whole"


def test_a_resumed_training_without_a_state_says_that_it_begins_anew(here, unmeasured, monkeypatch, capsys):
    command = ("--model", "tiny", "--corpus", "corpus.txt", *FAST, "--run", "cut", "--resume")
    with monkeypatch.context() as patch:
        interrupt_in(patch, epoch=2)  # no state is due so soon
        assert run_train(patch, *command) == 130
    assert "begins anew" not in capsys.readouterr().out
    assert run_train(monkeypatch, *command) == 0
    out = capsys.readouterr().out
    expected = "runs/cut: no state was written yet, so it begins anew; the epoch that was kept is trained again\n"
    assert expected in out
    assert "epoch 1: " in out


def test_ctrl_c_in_the_first_epoch_leaves_nothing(here, monkeypatch):
    interrupt_in(monkeypatch, epoch=1)
    assert run_train(monkeypatch, "--model", "tiny", "--corpus", "corpus.txt", *FAST) == 130
    assert list(Path("runs").iterdir()) == []


@pytest.mark.parametrize("tune", [pytest.param("head", marks=pytest.mark.slow), "1"])
def test_where_blocks_are_frozen_it_goes_on_as_if_there_had_been_no_ctrl_c(here, unmeasured, monkeypatch, tune):
    monkeypatch.setattr(experiments.train.training, "STATE_EVERY", 0)
    options = ("--tune", tune, "--epochs", "3")
    whole = train_tiny(monkeypatch, "whole", *options)
    again = ("--model", "tiny", "--corpus", "corpus.txt", "--run", "cut", *FAST, *options)
    with monkeypatch.context() as patch:
        interrupt_in(patch, epoch=3)
        assert run_train(patch, *again) == 130
    assert not Path("runs/cut", FROZEN).exists()
    assert run_train(monkeypatch, *again, "--resume") == 0
    assert (whole / "model.safetensors").read_bytes() == Path("runs/cut/model.safetensors").read_bytes()
    assert {path.name for path in whole.iterdir()} == {path.name for path in Path("runs/cut").iterdir()}


def test_too_little_space_for_frozen_blocks_is_one_line_and_leaves_nothing(here, monkeypatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100))
    assert run_train(monkeypatch, "--model", "tiny", "--corpus", "corpus.txt", *FAST, "--tune", "1") == 2
    assert "GiB of free space, for what frozen blocks give" in one_line(capsys)
    assert list(Path("runs").iterdir()) == []


def test_a_loss_that_is_not_finite_stops_training(here, monkeypatch, capsys):
    options = ("--model", "tiny", "--corpus", "corpus.txt", *FAST, "--lr", "1e30", "--clip", "1e30")
    assert run_train(monkeypatch, *options) == 2
    assert "lower --lr" in one_line(capsys)


@pytest.mark.parametrize(
    ("width", "settings", "epochs", "lr", "dropout"),
    [
        (768, {}, 4, 8e-4 / 9, 0.1),
        (128, {}, 4, 1.6e-3, 0.1),
        (256, {"init": "random"}, 6, 1e-3, 0.3),
        (768, {"tune": "head"}, 10, 1e-3, 0.0),
        (256, {"init": "random", "tune": "head"}, 10, 3e-3, 0.0),
    ],
)
def test_defaults_follow_from_init_tune_and_width(width, settings, epochs, lr, dropout):
    options = train.Options(**settings).resolved(width, FEW)
    assert (options.epochs, options.lr, options.dropout) == (epochs, pytest.approx(lr), dropout)
    assert options.lm_weight == 0
    complete = train.Options(**settings, epochs=7, lr=0.1, dropout=0.2, lm_weight=0.3)
    assert complete.resolved(width, FEW) == complete.resolved(width, FEW - 1) == complete


@pytest.mark.parametrize(
    ("settings", "epochs", "lm_weight"),
    [
        ({}, 6, 0.5),
        ({"tune": 2}, 4, 0.0),
        ({"head": "words"}, 4, 0.0),
        ({"tune": "head"}, 10, 0.0),
        ({"init": "random"}, 6, 0.0),
        ({"lm_weight": 0.0, "epochs": 3}, 3, 0.0),
    ],
)
def test_on_few_texts_pretrained_weights_train_longer_and_the_language_model_learns(settings, epochs, lm_weight):
    few, many = (train.Options(**settings).resolved(256, n_texts) for n_texts in (FEW - 1, FEW))
    assert (few.epochs, few.lm_weight) == (epochs, lm_weight)
    assert replace(few, epochs=many.epochs, lm_weight=many.lm_weight) == many


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(("bound", "expected"), [(0, (4, 0.0)), (1, (6, 0.5))])
def test_the_texts_of_train_decide_whether_there_are_few(here, monkeypatch, bound, expected):
    save(GPT2LM(GPT2Config(2, 2, 10, n_ctx=17)), "weights", Tokenizer.load("gpt2-mini"))
    monkeypatch.setattr(lab.defaults, "FEW", len(train.read_corpus("corpus.txt").split("train")) + bound)
    fast = ("--lr", "0.02", "--device", "cpu", "--compile", "off")
    assert run_train(monkeypatch, "--model", "weights", "--corpus", "corpus.txt", "--run", "few", *fast) == 0
    settings = json.loads(Path("runs/few/run.json").read_text())["settings"]
    assert (settings["epochs"], settings["lm_weight"]) == expected


@pytest.mark.usefixtures("saved")
def test_truncate_reads_the_end_and_says_how_often(here, monkeypatch, capsys):
    lines = (here / "corpus.txt").read_text().splitlines()
    lines[4] = "word " * 30 + lines[4]
    (here / "corpus.txt").write_text("\n".join(lines))
    assert run_train(monkeypatch, "--model", "tiny", "--corpus", "corpus.txt", *FAST) == 2
    assert "corpus.txt:5: expected at most 17 tokens" in one_line(capsys)
    run = train_tiny(monkeypatch, "run", "--truncate")
    assert json.loads((run / "run.json").read_text())["texts"]["truncated"] == 1


@pytest.mark.usefixtures("saved")
def test_thirteen_classes_and_other_column_names(here, monkeypatch):
    rows = [{"said": f"number {k} again {i}", "feels": f"class {k}"} for k in range(13) for i in range(10)]
    pd.DataFrame(rows).to_csv("many.csv", index=False)
    columns = ("--text-column", "said", "--label-column", "feels")
    options = ("--model", "tiny", "--corpus", "many.csv", "--run", "many", *columns)
    assert run_train(monkeypatch, *options, *FAST, "--epochs", "1") == 0
    metrics = json.loads(Path("runs/many/metrics.json").read_text())
    assert list(metrics["test"]["per_class"]) == sorted(f"class {k}" for k in range(13))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "name",
    [name if name == "thirteen" else pytest.param(name, marks=pytest.mark.slow) for name in odd_corpora.CORPORA],
)
def test_a_corpus_at_the_edge_is_trained_on_and_what_is_undefined_is_said(here, monkeypatch, capsys, name):
    splits, said = odd_corpora.CORPORA[name]
    odd_corpora.write_corpus(here, name)
    assert run_train(monkeypatch, "--model", "tiny", "--corpus", name, "--run", name, *FAST, "--epochs", "1") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert re.findall(r"\w+ has no text of [^:]*:", out) == said
    metrics = json.loads(Path("runs", name, "metrics.json").read_text())
    for split in ("val", "test"):
        for label in splits["train"]:
            own, n = metrics[split]["per_class"][label], splits[split].get(label, 0)
            assert own["n"] == n
            assert (own["recall"] is None, own["average_precision"] is None) == (n == 0, n == 0)
            assert (own["roc_auc"] is None) == (n in (0, metrics[split]["n"]))
            assert (own["specificity"] is None) == (n == metrics[split]["n"])
        assert (metrics[split]["macro_roc_auc"] is None) == (name == "apart")
    table = pd.read_csv(Path("runs", name, "predictions.csv"), dtype=str, keep_default_na=False)
    assert list(table["label"]) == [k for split in ("val", "test") for k, n in splits[split].items() for _ in range(n)]


@pytest.mark.slow
def test_the_seed_does_not_change_the_split_and_the_split_seed_does(here, unmeasured, monkeypatch):
    test_texts = {}
    for name, options in {"a": (), "b": ("--seed", "1"), "c": ("--split-seed", "1")}.items():
        train_tiny(monkeypatch, name, "--epochs", "1", *options)
        study = open_study(name, CPU)
        test_texts[name] = set(study.corpus.split("test")["text"])
        assert study.record["settings"]["split_seed"] == (name == "c")
    assert test_texts["a"] == test_texts["b"] != test_texts["c"]


def test_a_run_made_before_there_was_a_split_seed_was_split_by_its_seed(here, unmeasured, monkeypatch):
    run = train_tiny(monkeypatch, "run", "--epochs", "1", "--split-seed", "1")
    expected = set(open_study("run", CPU).corpus.split("test")["text"])
    record = json.loads((run / "run.json").read_text())
    del record["settings"]["split_seed"]
    record["settings"]["seed"] = 1
    (run / "run.json").write_text(json.dumps(record))
    assert set(open_study("run", CPU).corpus.split("test")["text"]) == expected


def damage(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


MISTAKES = {
    "missing corpus": (lambda here: None, ("--corpus", "nothing.txt"), "nothing.txt"),
    "empty corpus": (lambda here: (here / "corpus.txt").write_text(""), (), "corpus.txt"),
    "row without label": (lambda here: (here / "corpus.txt").write_text("a text;joy\nno label\n"), (), "corpus.txt:2"),
    "empty text": (lambda here: (here / "corpus.txt").write_text("a text;joy\n;fear\n"), (), "corpus.txt:2"),
    "one class": (lambda here: (here / "corpus.txt").write_text("a;joy\nb;joy\n" * 10), (), "corpus.txt"),
    "latin-1": (lambda here: (here / "corpus.txt").write_bytes(b"a;joy\ncaf\xe9;joy\n"), (), "corpus.txt:2"),
    "unknown column": (
        lambda here: (here / "c.csv").write_text("said,feels\na,b\n"),
        ("--corpus", "c.csv", "--text-column", "text"),
        "'said', 'feels'",
    ),
    "unknown model": (lambda here: None, ("--model", "gpt5"), "gpt5"),
    "no weights": (lambda here: None, ("--init", "pretrained"), "--init random"),
    "config is no JSON": (lambda here: (here / "tiny" / "config.json").write_text("{"), (), "config.json"),
    "too many blocks": (lambda here: None, ("--tune", "3"), "at most the 2 blocks"),
    "no blocks": (lambda here: None, ("--tune", "0"), "--tune 0"),
    "no rate": (lambda here: None, ("--lr", "0"), "--lr 0.0: expected at least 1e-09"),
    "no epochs": (lambda here: None, ("--epochs", "0"), "--epochs 0: expected at least 1"),
    "dropout of 1": (lambda here: None, ("--dropout", "1"), "--dropout"),
    "no texts in a batch": (lambda here: None, ("--batch-size", "0"), "--batch-size"),
    "run name with a path": (lambda here: None, ("--run", "../run"), "--run"),
    "run exists": (lambda here: (here / "runs" / "old" / "notes").mkdir(parents=True), ("--run", "old"), "runs/old"),
    "runs is a file": (lambda here: (here / "runs").write_text(""), (), "runs"),
    "not a number": (lambda here: None, ("--epochs", "many"), "--epochs"),
    "not a choice": (lambda here: None, ("--device", "tpu"), "--device"),
    "neither all, head nor a number": (lambda here: None, ("--tune", "hat"), "--tune"),
    "unknown option": (lambda here: None, ("--epochz", "3"), "--epochz"),
    "seed out of range": (lambda here: None, ("--seed", str(2**40)), "--seed"),
    "seeds without a name": (lambda here: None, ("--seeds", "0", "1"), "--seeds 0 1: expected a --run"),
    "a seed twice": (lambda here: None, ("--run", "x", "--seeds", "0", "1", "0"), "--seeds 0 1 0: expected each"),
    "one of seeds out of range": (lambda here: None, ("--run", "x", "--seeds", "0", str(2**40)), f"--seed {2**40}:"),
    "seeds and a seed": (lambda here: None, ("--run", "x", "--seeds", "0", "1", "--seed", "5"), "no --seed beside it"),
    "seeds and a path": (lambda here: None, ("--run", "../x", "--seeds", "0", "1"), "--run ../x-0"),
    "endless path": (lambda here: None, ("--corpus", "x" * 300), "File name too long"),
    "latest is a folder": (lambda here: (here / "runs" / "latest").mkdir(parents=True), (), "runs/latest"),
}
if not torch.cuda.is_available():
    MISTAKES["no such device"] = (lambda here: None, ("--device", "cuda"), "--device cuda")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(here, monkeypatch, capsys, mistake):
    make, arguments, expected = MISTAKES[mistake]
    make(here)
    before = set(here.rglob("*"))
    assert run_train(monkeypatch, "--model", "tiny", "--corpus", "corpus.txt", *FAST, *arguments) == 2
    assert expected in one_line(capsys)
    assert set(here.rglob("*")) - before <= {here / "runs"}


INLINE = "module://matplotlib_inline.backend_inline"


@pytest.mark.slow
def test_the_script_itself_from_another_folder(here):
    """Its own process, with a plain-ASCII terminal, from a notebook whose module for pictures is not installed here:
    one line on stderr, nothing but the exit code besides."""
    script = [sys.executable, str(ROOT / "train.py"), "--model", "tiny", *FAST, "--epochs", "1"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "MPLBACKEND": INLINE}
    text = (here / "corpus.txt").read_text().replace("joy", "joy😀")
    (here / "corpus.txt").write_text(text, encoding="utf-8")
    cases = (("--corpus=nothing.txt", "nothing.txt"), ("--epochs=abc", "--epochs"), ("--corpus=corpus.txt", None))
    for argument, mistake in cases:
        done = subprocess.run([*script, argument], capture_output=True, text=True, env=environment)
        assert done.returncode == (2 if mistake else 0), done.stderr
        assert done.stderr.count("\n") == (1 if mistake else 0)
        assert (mistake or "") in done.stderr
    labels = json.loads(Path("runs/latest/metrics.json").read_text(encoding="utf-8"))["test"]["per_class"]
    assert any(label.startswith("joy😀") for label in labels)


def test_a_folder_that_refuses_writing_is_said_before_training(here, monkeypatch, capsys):
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)  # file modes do not bind root, who runs many a container
    assert run_train(monkeypatch, "--model", "tiny", "--corpus", "corpus.txt", *FAST) == 2
    assert "Permission denied" in one_line(capsys)


def test_damaged_and_misfitting_checkpoints_are_one_line_too(here, unmeasured, monkeypatch, capsys):
    start = train_tiny(monkeypatch, "start", "--epochs", "1")
    weights = (start / "model.safetensors").read_bytes()
    options = ("--model", str(start), "--corpus", "corpus.txt", "--device", "cpu")
    capsys.readouterr()
    (start / "model.safetensors").write_bytes(weights[:-100])
    assert run_train(monkeypatch, *options) == 2
    assert "truncated" in one_line(capsys)
    (start / "model.safetensors").write_bytes(weights)
    raw = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps(raw | {"n_positions": 23}))
    assert run_train(monkeypatch, *options) == 2
    assert "wpe.weight expected (23, 10) got (17, 10)" in one_line(capsys)


@pytest.fixture
def published(hub, tmp_path, monkeypatch):
    """A hub with a `gpt2` of two narrow layers and an `emotion` corpus."""
    monkeypatch.chdir(tmp_path)
    save(GPT2LM(GPT2Config(2, 2, 10, n_ctx=17)), "weights")
    pins = {"model.safetensors": (None, hashlib.sha256(Path("weights/model.safetensors").read_bytes()).hexdigest())}
    monkeypatch.setattr(model.names, "OFFICIAL", pins)
    write_corpus(tmp_path / "corpus.txt", 12)
    rows = pd.read_csv("corpus.txt", sep=";", names=["text", "label"])
    Path("texts").mkdir()
    for split in ("train", "validation", "test"):
        rows.to_parquet(f"texts/{split}.parquet", index=False)
    hub.repositories |= {
        ("model", "openai-community/gpt2"): Path("weights"),
        ("dataset", "dair-ai/emotion"): Path("texts"),
    }
    hub.commits["openai-community/gpt2"] = model.names.HUB["gpt2"][1]
    return hub


@pytest.mark.parametrize("names", [(), ("--model", "gpt2", "--corpus", "emotion")])
def test_weights_and_corpus_come_from_the_hub_by_name(published, unmeasured, monkeypatch, names):
    assert run_train(monkeypatch, *names, "--run", "first", "--epochs", "1", "--device", "cpu") == 0
    record = json.loads(Path("runs/first/run.json").read_text())
    told = record["model"]
    assert (told["name"], told["init"], told["revision"]) == ("gpt2", "pretrained", model.names.HUB["gpt2"][1])
    assert told["sha256"] == model.names.OFFICIAL["model.safetensors"][1]
    assert (record["corpus"]["name"], record["corpus"]["revision"]) == ("dair-ai/emotion", stand_in.COMMIT)
    assert 0 < record["peak_memory_bytes"]["loading"] <= record["peak_memory_bytes"]["all"]

    published.sent.clear()
    assert run_train(monkeypatch, *names, "--run", "second", "--epochs", "1", "--device", "cpu") == 0
    assert not published.sent


def test_without_weights_in_reach_auto_goes_on_and_the_name_is_one_line(published, unmeasured, monkeypatch, capsys):
    published.misbehave("api", status=503)
    name, notice = lab.defaults.choose_model("auto", "pretrained")
    assert name == "gpt2-mini"
    assert "answered 503" in notice
    assert "Going on with the embedded GPT2-MINI" in notice
    assert run_train(monkeypatch, "--model", "gpt2", "--corpus", "corpus.txt") == 2
    assert "'openai-community/gpt2': not in the cache, and http://127.0.0.1" in one_line(capsys)


def test_weights_that_are_not_the_official_ones_stop_auto(published, monkeypatch, capsys):
    monkeypatch.setitem(model.names.OFFICIAL, "model.safetensors", (None, "0" * 64))
    assert run_train(monkeypatch, "--corpus", "corpus.txt") == 2
    assert "is not the official one: expected SHA-256 000" in one_line(capsys)


def test_auto_is_the_emotion_corpus_or_else_loudly_the_sample(published):
    assert lab.defaults.choose_corpus("auto") == ("emotion", None)
    shutil.rmtree(Path(constants.HF_HUB_CACHE))
    published.misbehave("api", status=503)
    corpus, notice = lab.defaults.choose_corpus("auto")
    assert corpus == "sample"
    assert "answered 503" in notice
    assert "Going on with the embedded SAMPLE CORPUS" in notice
    assert lab.defaults.choose_corpus("corpus.txt") == ("corpus.txt", None)


def test_without_a_hub_everything_is_there(tmp_path, unmeasured, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ("--run", "alone", "--tune", "head", "--epochs", "1", "--device", "cpu")  # as fast as can be
    assert run_train(monkeypatch, *options) == 0
    record = json.loads(Path("runs/alone/run.json").read_text())
    assert (record["corpus"]["name"], record["settings"]["corpus"]) == ("sample", "sample")
    assert (record["model"]["name"], record["model"]["init"]) == ("gpt2-mini", "pretrained")
    trained, embedded = load_classifier("runs/alone").trunk.state_dict(), load_lm("gpt2-mini").trunk.state_dict()
    assert all(torch.equal(trained[name], embedded[name]) for name in embedded)
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Going on with the embedded SAMPLE CORPUS" in out
    assert "Going on with the embedded GPT2-MINI" in out
