"""Rows that cannot be used, from the corpus to every report."""

import json
from pathlib import Path

import commands
import pandas as pd
import pytest
import small_run
from commands import one_line

import ablate
import train

BAD = "a text without a semicolon\n\n;joy\nanother one\n"


def call(monkeypatch, script, *arguments):
    return commands.exit_code(monkeypatch, script, "--device", "cpu", *arguments)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_run.write_corpus(Path("corpus.txt"), 60)
    small_run.write_shape(Path("tiny"), small_run.GPT2Config(1, 2, 8, n_ctx=17))
    good = Path("corpus.txt").read_text().splitlines(keepends=True)
    Path("broken.txt").write_text("".join(good[:50]) + BAD + "".join(good[50:]))
    return tmp_path


def run_train(monkeypatch, *arguments):
    options = ("--model", "tiny", "--init", "random", "--epochs", "1", "--corpus", "broken.txt", "--run", "one")
    return call(monkeypatch, train, *options, *arguments)


def test_all_are_named_at_once_and_nothing_is_made(here, monkeypatch, capsys):
    assert run_train(monkeypatch) == 2
    line, total = one_line(capsys), len(Path("broken.txt").read_text().splitlines())
    assert line.startswith("error: broken.txt:51: ")
    assert f"4 of {total} rows cannot be used: 2 lines without a semicolon, 1 blank lines, 1 empty texts" in line
    assert "--skip-bad-rows" in line
    assert not Path("runs").exists()


def test_they_are_written_down_and_counted_in_every_report(here, monkeypatch, capsys):
    assert run_train(monkeypatch, "--skip-bad-rows") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "rows are skipped: 2 lines without a semicolon, 1 blank lines, 1 empty texts" in printed
    skipped = pd.read_csv("runs/one/skipped.csv")
    assert skipped.columns.tolist() == ["file", "line", "kind", "reason", "content"]
    assert skipped["line"].tolist() == [51, 52, 53, 54]
    record = json.loads(Path("runs/one/run.json").read_text())
    assert record["corpus"]["skipped"] == {"lines without a semicolon": 2, "blank lines": 1, "empty texts": 1}
    assert record["settings"]["skip_bad_rows"] is True
    predictions = pd.read_csv("runs/one/predictions.csv")
    assert not set(predictions["text"]) & {"another one", "a text without a semicolon"}
    assert call(monkeypatch, ablate, "--run", "one", "--units", "heads", "--fill", "zero", "--controls", "2") == 0
    report, total = (Path(name).read_text() for name in ("runs/one/ablate/report.md", "broken.txt"))
    assert (
        f"- 4 of {len(total.splitlines())} rows are skipped: 2 lines without a semicolon, 1 blank lines, 1 empty texts"
        in report
    )


@pytest.mark.slow
def test_another_corpus_is_read_as_the_command_says(here, monkeypatch, capsys):
    assert run_train(monkeypatch, "--skip-bad-rows") == 0
    texts = [line.rpartition(";")[::2] for line in Path("corpus.txt").read_text().splitlines()]
    table = pd.DataFrame(texts, columns=["content", "sentiment"])
    pd.concat([table, pd.DataFrame([["", "joy"]], columns=table.columns)]).to_csv("other.csv", sep="|", index=False)
    options = ("--run", "one", "--units", "heads", "--fill", "zero", "--controls", "2", "--corpus", "other.csv")
    capsys.readouterr()
    assert call(monkeypatch, ablate, *options) == 2
    assert "name yours with --text-column and --label-column" in one_line(capsys)
    options += ("--text-column", "content", "--label-column", "sentiment")
    assert call(monkeypatch, ablate, *options) == 2
    assert f"other.csv:{len(table) + 2}: the text is empty" in one_line(capsys)
    assert call(monkeypatch, ablate, *options, "--skip-bad-rows") == 0
    assert "1 empty texts" in Path("runs/one/ablate/report.md").read_text()
    assert len(pd.read_csv("runs/one/skipped_other.csv.csv")) == 1
    assert call(monkeypatch, ablate, "--run", "one", "--text-column", "content") == 2
    assert "--text-column: expected a --corpus" in one_line(capsys)
