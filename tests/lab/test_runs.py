"""A run's folder: names, files that appear whole or not at all, and the pointer to the latest run."""

import csv
import hashlib
import json
import re
import shutil
import subprocess

import pandas as pd
import pytest

from lab import runs
from model import InputError
from model.names import EMBEDDED


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_without_a_name_is_called_after_the_time():
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{6}", runs.new_run("").name)


@pytest.mark.parametrize("name", ["a/b", "..", ".", "latest", "/tmp"])
def test_a_run_cannot_leave_its_folder(name, here):
    with pytest.raises(InputError, match="--run"):
        runs.new_run(name)
    assert not (here / "runs").exists()


def test_a_taken_name_is_refused():
    (runs.new_run("one") / "run.json").write_text("{}")
    with pytest.raises(InputError, match="taken"):
        runs.new_run("one")


def test_latest_points_at_the_newest_and_stays_a_link(here):
    for name in ("one", "two"):
        runs.point_latest(runs.new_run(name))
    assert (here / "runs" / "latest").is_symlink()
    assert (here / "runs" / "latest").resolve() == here / "runs" / "two"
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["latest", "one", "two"]


def test_a_run_can_be_moved_with_its_folder(here):
    runs.point_latest(runs.new_run("one"))
    (here / "runs").rename(here / "elsewhere")
    assert (here / "elsewhere" / "latest").resolve() == here / "elsewhere" / "one"


@pytest.mark.parametrize(
    ("write", "bad"),
    [(runs.write_json, {"x": float("nan")}), (runs.write_json, {"x": object()}), (runs.write_jsonl, [{"x": object()}])],
)
def test_what_cannot_be_written_leaves_the_old_file(here, write, bad):
    path = here / "file.json"
    path.write_text("old")
    with pytest.raises((ValueError, TypeError)):
        write(path, bad)
    assert path.read_text() == "old"
    assert list(here.iterdir()) == [path]


def test_tables_and_json_are_utf8_whatever_the_locale(here):
    runs.write_json(here / "a.json", {"ключ": "😀"})
    assert json.loads((here / "a.json").read_bytes().decode()) == {"ключ": "😀"}
    table = pd.DataFrame({"text": ['say "hi", 😀', "two\nlines"], "p": [0.25, 1 / 3]})
    runs.write_csv(here / "a.csv", table)
    read = pd.read_csv(here / "a.csv", encoding="utf-8")
    assert list(read["text"]) == list(table["text"])
    assert read["p"].to_numpy() == pytest.approx(table["p"].to_numpy(), rel=1e-5)


def test_a_lone_carriage_return_stays_within_its_row(here):
    table = pd.DataFrame({"text": ["a\rb", "c"], "n": [1, 2]})
    runs.write_csv(here / "a.csv", table)
    assert list(pd.read_csv(here / "a.csv", lineterminator="\n")["text"]) == ["a\rb", "c"]
    with (here / "a.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["text", "n"], ["a\rb", "1"], ["c", "2"]]


def test_a_real_folder_called_latest_is_refused_before_any_work(here):
    (here / "runs" / "latest").mkdir(parents=True)
    with pytest.raises(InputError, match="runs/latest"):
        runs.new_run("one")


def test_weights_are_named_by_their_hash(here):
    (here / "model").mkdir()
    shutil.copy(EMBEDDED / "config.json", here / "model")
    (here / "model" / "model.safetensors").write_bytes(b"weights")
    told = runs.weights_of("model", "pretrained")
    assert told["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert told["bytes"] == 7
    assert told["revision"] is None
    fresh = runs.weights_of("gpt2-mini", "random")
    assert fresh.keys() == {"name", "init", "shape"}
    assert fresh["shape"]["n_embd"] == 256


def test_git_state_is_the_commit_of_this_code(monkeypatch):
    told = runs.git_state()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=EMBEDDED, capture_output=True, text=True).stdout.strip()
    if not head:
        assert told is None  # an unpacked archive has no commits
    else:
        assert head.startswith(told.removesuffix("-dirty"))


def test_a_shape_without_weights_says_what_to_do(here):
    (here / "shape").mkdir()
    shutil.copy(EMBEDDED / "config.json", here / "shape")
    with pytest.raises(InputError, match=r"shape: expected model.safetensors, found no weights; .*--init random"):
        runs.weights_of("shape", "pretrained")


def test_a_folder_whose_run_was_killed_before_its_first_file_is_as_good_as_new():
    (runs.new_run("one") / ".lock").touch()
    assert runs.new_run("one").name == "one"
