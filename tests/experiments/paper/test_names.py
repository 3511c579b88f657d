"""What the runs of a paper are called, and which of them are found again."""

import json
from pathlib import Path

import pytest

from experiments.paper.names import find_folder, short_model

ALONE, ONE, TWO = (Path("runs", f"paper-words{name}-random-all-0") for name in ("", "-one", "-two"))


def begin(folder, model):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"settings": {"model": model}}))


def find(model, several):
    return find_folder("paper-words", "random-all-0", model, several)


@pytest.mark.parametrize(
    ("begun", "alone", "beside"),
    [
        ({}, (ALONE, ALONE), (ONE, TWO)),
        ({ALONE: "one"}, (ALONE, ALONE), (ALONE, TWO)),  # where `two` stands alone, its settings are refused
        ({ONE: "one"}, (ONE, ALONE), (ONE, TWO)),
        ({ONE: "one", TWO: "two"}, (ONE, TWO), (ONE, TWO)),
        ({ALONE: "two", ONE: "one"}, (ONE, ALONE), (ONE, ALONE)),
        ({ALONE: "more/one"}, (ALONE, ALONE), (ONE, TWO)),  # another folder of that name
    ],
)
def test_a_run_that_was_begun_keeps_its_name_and_no_other_takes_it(tmp_path, monkeypatch, begun, alone, beside):
    monkeypatch.chdir(tmp_path)
    for folder, model in begun.items():
        begin(folder, model)
    assert tuple(find(model, several=False) for model in ("one", "two")) == alone
    assert tuple(find(model, several=True) for model in ("one", "two")) == beside


@pytest.mark.parametrize("content", ["{}", '{"settings": null}'])
def test_a_manifest_that_says_no_model_is_of_none(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    ALONE.mkdir(parents=True)
    (ALONE / "run.json").write_text(content)
    assert find("one", several=True) == ONE


@pytest.mark.parametrize(
    ("model", "name"),
    [("gpt2", "gpt2"), ("owner/gpt-neo", "gpt-neo"), ("/a/x/", "x"), ("../my model", "my_model"), (".", "here")],
)
def test_a_model_gives_its_last_name_to_its_runs(tmp_path, monkeypatch, model, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert short_model(model) == name
