"""Two corpora as people share them, from the command line to the reports."""

import json
from pathlib import Path

import commands
import pandas as pd
import pytest
import shared_corpora
import small_run
from commands import one_line

import ablate
import probe
import train
from model import GPT2Config

TWEETS = ("--text-column", "content", "--label-column", "sentiment")


def call(monkeypatch, script, *arguments):
    return commands.exit_code(monkeypatch, script, "--device", "cpu", *arguments)


def run_train(monkeypatch, corpus, *arguments):
    tiny = ("--model", "tiny", "--init", "random", "--epochs", "1", "--lr", "0.02", "--dropout", "0", "--run", "one")
    return call(monkeypatch, train, *tiny, "--corpus", str(corpus), *arguments)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_run.write_shape(Path("tiny"), GPT2Config(1, 2, 16, n_ctx=128))
    return tmp_path


@pytest.mark.slow
@pytest.mark.usefixtures("empty_pictures")
def test_thirteen_classes_of_tweets_with_one_broken_row(here, monkeypatch, capsys):
    corpus = shared_corpora.write_tweets(Path())
    assert run_train(monkeypatch, corpus, *TWEETS) == 2
    assert one_line(capsys).startswith(f"error: {corpus}:15507: not a valid row")
    assert run_train(monkeypatch, corpus, *TWEETS, "--skip-bad-rows") == 0
    skipped = pd.read_csv("runs/one/skipped.csv")
    assert skipped[["file", "line"]].values.tolist() == [[str(corpus), 15507]]
    record, metrics = (json.loads(Path(f"runs/one/{name}.json").read_text()) for name in ("run", "metrics"))
    assert sum(record["corpus"]["texts"].values()) == 31_012
    assert len(metrics["test"]["per_class"]) == 13
    assert metrics["test"]["macro_f1"] > 0.5  # of chance it is below 0.1
    given = ("--units", "heads", "--fill", "zero", "--controls", "2", "--texts", "300")
    assert call(monkeypatch, ablate, "--run", "one", *given) == 0
    assert call(monkeypatch, probe, "--run", "one", "--texts", "300", "--words", "500") == 0
    for name in ("ablate", "probe"):
        assert "1 of 31,013 rows are skipped" in Path(f"runs/one/{name}/report.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("empty_pictures")
def test_seven_classes_between_forty_columns(here, monkeypatch, capsys, caplog):
    folder = shared_corpora.write_wide(Path())
    columns = ("--text-column", "narrative", "--label-column", "product")
    assert run_train(monkeypatch, folder, *columns) == 2
    assert "40 of 4,000 rows cannot be used: 40 empty labels" in one_line(capsys)
    assert run_train(monkeypatch, folder, *columns, "--skip-bad-rows") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "train.csv: fields are separated by bars" in caplog.text
    assert "40 of 4,000 rows are skipped: 40 empty labels" in printed
    record = json.loads(Path("runs/one/run.json").read_text())
    assert sum(record["corpus"]["texts"].values()) == 3960
    assert len(record["corpus"]["labels"]) == 7
