"""`explain.py` from the command line to its files."""

from pathlib import Path

import commands
import pandas as pd
import pytest
from commands import one_line
from small_run import ODD, WORDS, train_odd_in

import agreement
import explain
import rate
from experiments.explain.methods import METHODS

TABLES = {
    "texts": "split,index,text,label,predicted",
    "attributions": "split,index,position,token,start,end,word,class,method,value",
    "completeness": "split,index,class,method,gap,sum,miss",
    "faithfulness": "method,removal,metric,size,class,n,value,random,difference,ci_low,ci_high",
    "judged": "method,verdict,score",
    "sanity": "scheme,step,part,method,similarity,n,value",
    "words": "class,word,n,texts,value,ci_low,ci_high,bag_of_words",
    "compared": "class",
    "robustness": "class,k,removal,n,removed,whole,value,random,difference,ci_low,ci_high",
}
PICTURES = ("faithfulness", "sizes", "sanity", "words", "robustness")


@pytest.fixture(autouse=True)
def empty_pictures(monkeypatch):
    """Pictures stay empty; tests/experiments/explain/test_figures.py draws them."""
    monkeypatch.setattr("lab.figures.save", lambda figure, path: path.touch())


def run_explain(monkeypatch, *arguments):
    """The exit code of `python explain.py arguments`."""
    return commands.exit_code(monkeypatch, explain, "--run", "one", "--device", "cpu", *arguments)


@pytest.mark.slow
def test_all_of_it_lands_in_the_runs_folder_and_a_second_call_computes_nothing(here, monkeypatch, capsys):
    text = "i felt furious & <b>mad</b>"
    answers = Path("runs/one/explain/answers/ada.jsonl")  # of make rate
    answers.parent.mkdir(parents=True)
    answers.write_text("{}\n")
    assert run_explain(monkeypatch, "--texts", "7", "--text", text) == 0
    folder = Path("runs/one/explain")
    written = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    pictures = {f"{name}.{end}" for name in PICTURES for end in ("png", "svg")}
    assert written == pictures | {f"{name}.csv" for name in TABLES} | {"texts.html", "report.md", "results", "answers"}
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in TABLES}
    for name, columns in TABLES.items():
        assert list(tables[name])[: len(columns.split(","))] == columns.split(",")
    assert tables["texts"]["text"][0] == text
    assert tables["texts"]["split"].tolist() == ["user"] + ["test"] * 7
    attributions = tables["attributions"]
    assert set(attributions["method"]) == {*METHODS}
    assert set(attributions["class"]) == {*WORDS}
    assert attributions.groupby(["split", "index"]).ngroups == 8
    faithful = tables["faithfulness"]
    assert set(faithful["n"]) <= {*range(8)}  # the user's text is in no average
    assert set(faithful["removal"]) == {"hide", "delete", "fill"}
    page = (folder / "texts.html").read_text(encoding="utf-8")
    assert "furious" in page
    assert "<b>mad" not in page
    assert "python explain.py --run one --device cpu" in (folder / "report.md").read_text()
    out = capsys.readouterr().out
    assert "user 0: integrated gradients miss 0." in out
    for name in ("experiments.explain.methods.measure_shapley", "lab.removals.read_remains"):
        monkeypatch.setattr(name, None)
    before = {name: (folder / f"{name}.csv").read_bytes() for name in TABLES}
    assert run_explain(monkeypatch, "--texts", "7", "--text", text) == 0
    assert {name: (folder / f"{name}.csv").read_bytes() for name in TABLES} == before
    assert answers.read_text() == "{}\n"
    with pytest.raises(TypeError):
        run_explain(monkeypatch, "--texts", "7", "--no-resume")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--text", ""), "expected at least one character"),
        (("--text", "a " * 40), "expected at most 17 tokens"),
        (("--text", "a\udcff"), "half of a character"),
        (("--run", "none"), "there is no such run"),
        (("--texts", "0"), "--texts 0: expected at least 1"),
        (("--seed", "-1"), "--seed -1: expected at least 0"),
        (("--shuffled-run", "none"), "--shuffled-run none: expected the name of a finished run"),
        (("--shuffled-run", "one"), "shuffle"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(here, monkeypatch, capsys, arguments, line):
    assert run_explain(monkeypatch, *arguments) == 2
    assert line in one_line(capsys)
    assert not Path("runs/one/explain").exists()


@pytest.mark.slow
def test_odd_classes_and_classes_without_test_texts(tmp_path, monkeypatch):
    train_odd_in(tmp_path, ODD)
    monkeypatch.chdir(tmp_path)
    assert run_explain(monkeypatch, "--texts", "6") == 0
    table = pd.read_csv("runs/one/explain/attributions.csv", keep_default_na=False)
    assert set(table["class"]) == {"all (class)", *ODD[1:]}
    assert "no test text has the class no test" in Path("runs/one/explain/report.md").read_text()


@pytest.mark.slow
def test_people_can_rate_what_was_explained(here, monkeypatch):
    assert run_explain(monkeypatch, "--text", "i felt 🙁 mad") == 0
    assert commands.exit_code(monkeypatch, rate, "--run", "one", "--simulate", "2") == 0
    assert commands.exit_code(monkeypatch, agreement, "--run", "one") == 0
    table = pd.read_csv("runs/one/explain/agreement.csv")
    assert set(table["raters"].dropna()) == {2}
