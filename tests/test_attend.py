"""`attend.py` from the command line to its files, and `attend` as a notebook calls it."""

from pathlib import Path

import commands
import pandas as pd
import pytest
from commands import one_line
from small_run import ODD, WORDS, train_odd_in

import attend
from model import Tokenizer, load_classifier


@pytest.fixture(autouse=True)
def empty_pictures(monkeypatch):
    """Pictures stay empty; tests/experiments/attend/test_figures.py draws them."""
    monkeypatch.setattr("lab.figures.save", lambda figure, path: path.touch())


def run_attend(monkeypatch, *arguments):
    """The exit code of `python attend.py arguments`."""
    return commands.exit_code(monkeypatch, attend, "--run", "one", "--device", "cpu", *arguments)


def test_all_of_it_lands_in_the_runs_folder_and_a_second_call_computes_nothing(here, monkeypatch, capsys):
    texts = ("i felt furious & <b>mad</b>", "happy")
    assert run_attend(monkeypatch, "--text", *texts, "--head", "1.2") == 0
    folder = Path("runs/one/attend")
    views = {
        f"view_{view}{number}" for view in ("lines_1.2", "matrix_1.2", "neurons_1.2", "heads") for number in ("", "_2")
    }
    pictures = {f"{name}.{end}" for name in views | {"patterns", "words"} for end in ("png", "svg")}
    written = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert written == pictures | {"attention.html", "heads.csv", "words.csv", "report.md", "sums"}
    heads, words = (pd.read_csv(folder / f"{name}.csv") for name in ("heads", "words"))
    assert set(heads["class"]) == {"all", *WORDS, "random tokens"}
    assert len(heads) == 6 * 5 * 6  # patterns, classes, heads
    assert set(heads.loc[heads["class"] == "all", "n"]) >= {18}
    assert set(words["words"]) == {"negation", "pronoun", "label", "feel"}  # nltk has no data here
    assert set(words.loc[(words["words"] == "feel") & (words["class"] == "all"), "n"]) == {18}
    report = (folder / "report.md").read_text()
    assert "python attend.py --run one --device cpu" in report
    assert "class sentiment is left out" in report
    page = (folder / "attention.html").read_text(encoding="utf-8")
    assert "furious" in page
    assert "<b>mad" not in page  # nor any other mark-up of a text
    monkeypatch.setattr("experiments.attend.weights.sum_weights", None)
    before = (folder / "heads.csv").read_bytes()
    assert run_attend(monkeypatch) == 0
    assert (folder / "heads.csv").read_bytes() == before
    assert not (folder / "view_heads_2.png").exists()  # of the call before


def test_texts_limits_the_test_texts_and_no_resume_computes_anew(here, monkeypatch):
    assert run_attend(monkeypatch, "--texts", "12") == 0
    assert pd.read_csv("runs/one/attend/heads.csv")["n"].isin([12, 32, *range(12)]).all()
    monkeypatch.setattr("experiments.attend.weights.sum_weights", None)
    with pytest.raises(TypeError):
        run_attend(monkeypatch, "--texts", "12", "--no-resume")


def test_where_no_text_can_be_shown_the_tables_are_written_and_it_says_so(here, monkeypatch, capsys):
    monkeypatch.setattr("experiments.attend.choose.MOST_TOKENS", 2)
    assert run_attend(monkeypatch) == 0
    folder = Path("runs/one/attend")
    assert len(pd.read_csv(folder / "heads.csv")) == 6 * 5 * 6
    assert not list(folder.glob("view_*")) + list(folder.glob("*.html"))
    line = "there is no attention.html: no test text is read whole and has at most 256 tokens; give one with --text"
    assert " ".join(capsys.readouterr().out.split()).endswith(f"runs/one/attend/report.md says what was found; {line}")
    report = (folder / "report.md").read_text()
    assert f"- {line}" in report
    assert "The views show" not in report
    assert run_attend(monkeypatch, "--text", "happy") == 0
    assert (folder / "attention.html").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--text", ""), "expected at least one token"),
        (("--text", "a " * 40), "expected at most 17 tokens"),
        (("--head", "2.0"), "--head 2.0: expected layer.head, from 0.0 to 1.2"),
        (("--head", "first"), "--head first: expected layer.head"),
        (("--run", "none"), "there is no such run"),
        (("--texts", "-1"), "--texts -1: expected at least 0"),
        (("--seed", "-1"), "--seed -1: expected at least 0"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(here, monkeypatch, capsys, arguments, line):
    assert run_attend(monkeypatch, *arguments) == 2
    assert line in one_line(capsys)
    assert not Path("runs/one/attend").exists()


@pytest.mark.slow
def test_odd_classes_and_classes_without_test_texts(tmp_path, monkeypatch):
    train_odd_in(tmp_path, ODD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nltk.data.path", [str(tmp_path / "nothing")])
    assert run_attend(monkeypatch) == 0
    table = pd.read_csv("runs/one/attend/heads.csv", keep_default_na=False)
    assert set(table["class"]) == {"all", "all (class)", *ODD[1:], "random tokens"}
    assert (table.loc[table["class"] == "no test", "score"] == "").all()
    assert "no test text has the class no test" in Path("runs/one/attend/report.md").read_text()


def test_a_notebook_shows_the_page(here):
    clf, tokenizer = load_classifier("runs/one"), Tokenizer.load("runs/one")
    page = attend.attend(clf, tokenizer, "i felt furious")
    assert "furious" in page._repr_html_()
