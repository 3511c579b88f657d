"""A run's folder: names, files that appear whole or not at all, and the pointer to the latest run."""

import contextlib
import csv
import errno
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from threading import Barrier

import commands
import pandas as pd
import pytest

from lab import manifest, output, runs
from lab.defaults import TrainOptions
from model import InputError
from model.names import EMBEDDED
from model.weights import hash_weights


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_without_a_name_is_called_after_the_time():
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{6}", runs.new_run(None).name)


@pytest.mark.parametrize("name", ["a/b", "..", ".", "latest", "/tmp"])
def test_a_run_cannot_leave_its_folder(name, here):
    with pytest.raises(InputError, match="--run"):
        runs.new_run(name)
    assert not (here / "runs").exists()


def test_a_taken_name_is_refused():
    (runs.new_run("one") / "run.json").write_text("{}")
    with pytest.raises(InputError, match="taken"):
        runs.new_run("one")


@pytest.mark.parametrize("name", [None, "one"])
def test_runs_that_is_a_file_or_a_link_to_nowhere_is_one_line_and_stays(here, monkeypatch, name):
    monkeypatch.setattr(runs, "count", lambda first: range(first, 99))  # names, or a fault would try them for ever
    (here / "runs").symlink_to(here / "disk that is not mounted")
    line = commands.line_of(runs.new_run, name)
    assert line.startswith("runs: expected a folder, got a link that leads to no folder; move it away")
    (here / "disk that is not mounted").mkdir()
    assert runs.new_run(name).is_dir()  # mounted meanwhile
    (here / "runs").unlink()
    (here / "runs").write_text("mine")
    assert commands.line_of(runs.new_run, name).startswith("runs: expected a folder, got a file; move it away")
    assert (here / "runs").read_text() == "mine"


RECORD = {
    "settings": {"run": "one", "corpus": "a.txt", "model": "gpt2", "lr": 0.1, "seed": 1},
    "model": {"sha256": "abc"},
    "corpus": {"sha256": {"a.txt": "def"}},
}


@pytest.mark.parametrize("status", ["unfinished", "interrupted", "finished"])
def test_the_status_of_a_run_that_is_the_same(status):
    assert runs.read_status(RECORD) is None
    renamed = RECORD | {
        "settings": RECORD["settings"] | {"corpus": "elsewhere/a.txt", "model": "copy"},
        "corpus": {"sha256": {"/elsewhere/a.txt": "def"}},
        "status": status,
    }
    output.write_json(runs.new_run("one") / "run.json", renamed)
    assert runs.read_status(RECORD) == status


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"settings": RECORD["settings"] | {"lr": 0.2, "seed": 2}}, "made with --lr 0.2, now 0.1; --seed 2, now 1;"),
        ({"model": {"sha256": "xyz"}}, "made with --model gpt2, which is no longer the same inside;"),
        ({"corpus": {"sha256": {"a.txt": "xyz"}}}, "made with --corpus a.txt, which is no longer the same inside;"),
        (
            {"settings": RECORD["settings"] | {"corpus": "b.txt"}, "corpus": {"sha256": {"b.txt": "xyz"}}},
            "made with --corpus b.txt, now a.txt;",
        ),
        ({"settings": {"run": "one", "lr": 0.1}}, "made with --seed not recorded, now 1;"),
        ({"settings": RECORD["settings"] | {"gone": 3}}, "made with --gone 3, now not recorded;"),
        ({"settings": []}, "one/run.json: not as"),
        ({"corpus": {}}, "one/run.json: not as"),
    ],
)
def test_a_run_of_that_name_that_is_another_says_what_differs(changed, expected):
    output.write_json(runs.new_run("one") / "run.json", RECORD | {"status": "finished"} | changed)
    assert expected in commands.line_of(runs.read_status, RECORD)


NEWER = (
    "shuffle_labels", "head", "template", "words",
    "labels", "header", "encoding", "label_names", "single_label", "skip_bad_rows",
)  # fmt: skip


def make_earlier(**changes):
    """Leaves an unfinished run of before some options. Returns the record that its command makes now."""
    told = {"command": "c", "started": "2026-01-01", "device": "d", "versions": {}, "git": None}
    settings = manifest.describe_settings(TrainOptions(run="one", model="gpt2", corpus="a.txt", lr=0.1))
    earlier = {name: value for name, value in settings.items() if name not in NEWER}
    output.write_json(runs.new_run("one") / "run.json", RECORD | told | {"settings": earlier, "status": "unfinished"})
    return RECORD | told | {"settings": settings | changes}


def test_a_run_that_is_older_than_some_options_goes_on(capsys):
    record = make_earlier()
    assert runs.read_status(record) == "unfinished"
    assert runs.find_unfinished(record["settings"] | {"run": None}) == "one"
    for resume in (False, True):
        resumed = runs.resume_run(Path("runs/one"), record, resume)
        assert len(resumed["resumed"]) == 1 + resume
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"labels": ["a", "b"]}, "--labels [], now ['a', 'b'];"),
        ({"skip_bad_rows": True}, "--skip-bad-rows False, now True;"),
        ({"new": 3}, "--new not recorded, now 3;"),
        ({"regulariser_rate": 0.1}, "--regulariser-rate not given, now 0.1;"),
    ],
)
def test_a_run_that_is_older_than_an_option_that_matters_says_so(changed, named):
    record = make_earlier(**changed)
    assert runs.find_unfinished(record["settings"] | {"run": None}) is None
    for resume in (False, True):
        line = commands.line_of(runs.resume_run, Path("runs/one"), record, resume)
        assert line.startswith("runs/one is unfinished and was made with ")
        assert named in line


def test_a_name_that_is_no_run_is_taken_but_for_hidden_files(here):
    (runs.new_run("one") / ".lock").touch()
    assert runs.read_status(RECORD) is None
    (here / "runs/one/notes").touch()
    assert "runs/one: expected a new name" in commands.line_of(runs.read_status, RECORD)


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


def refuse(error):
    def call(*arguments, **options):
        raise error

    return call


@pytest.fixture(
    params=[
        OSError(errno.EOPNOTSUPP, "Operation not supported"),  # Google Drive in Colab
        PermissionError(errno.EPERM, "Operation not permitted"),  # exFAT
        OSError(errno.EINVAL, "A required privilege is not held by the client"),  # Windows
        NotImplementedError("symlink: not available"),
    ],
    ids=lambda error: str(error),
)
def without_links(request, monkeypatch):
    monkeypatch.setattr(os, "symlink", refuse(request.param))
    return monkeypatch


def test_without_links_latest_is_a_file_that_names_the_newest(here, without_links):
    for name in ("one", "two"):
        output.write_json(runs.new_run(name) / "run.json", {"status": "unfinished", "settings": {"run": name}})
        runs.point_latest(Path("runs") / name)
    assert not (here / "runs/latest").is_symlink()
    assert (here / "runs/latest").read_bytes() == b"two"
    assert runs.find_run("latest") == runs.find_run("two") == Path("runs/two")
    assert sorted(os.listdir("runs")) == ["latest", "one", "two"]
    with pytest.raises(KeyError, match="started"):  # it looks at the two runs, and not at the file
        runs.find_unfinished({"run": None})
    runs.new_run("three")


def test_a_link_and_a_file_replace_each_other(here, without_links):
    for name in ("one", "two", "three"):
        output.write_json(runs.new_run(name) / "run.json", {})
    with monkeypatched_back(without_links):
        runs.point_latest(Path("runs/one"))
    assert (here / "runs/latest").is_symlink()
    assert runs.find_run("latest").name == "one"
    runs.point_latest(Path("runs/two"))
    assert not (here / "runs/latest").is_symlink()
    assert runs.find_run("latest").name == "two"
    with monkeypatched_back(without_links):
        runs.point_latest(Path("runs/three"))
    assert (here / "runs/latest").is_symlink()
    assert runs.find_run("latest").name == "three"
    assert sorted(os.listdir("runs")) == ["latest", "one", "three", "two"]


SYMLINK = os.symlink


@contextlib.contextmanager
def monkeypatched_back(monkeypatch):
    """Links work meanwhile."""
    refusing = os.symlink
    monkeypatch.setattr(os, "symlink", SYMLINK)
    yield
    monkeypatch.setattr(os, "symlink", refusing)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\x00", b"../one", b"one\ntwo", b"..", b"notes of mine/ and more", b"x" * 9999]
)
def test_a_file_called_latest_that_names_no_run_is_refused_and_stays(here, content):
    runs.new_run("one")
    (here / "runs/latest").write_bytes(content)
    assert "there is no such run" in commands.line_of(runs.find_run, "latest")
    assert "move it away" in commands.line_of(runs.new_run, "two")
    assert sorted(os.listdir("runs")) == ["latest", "one"]
    assert (here / "runs/latest").read_bytes() == content


def test_a_link_to_a_run_that_is_gone_is_one_line_and_replaced(here):
    runs.point_latest(runs.new_run("one"))
    (here / "runs/one").rmdir()
    assert commands.line_of(runs.find_run, "latest").startswith("runs/one: there is no such run")
    output.write_json(runs.new_run("two") / "run.json", {})
    runs.point_latest(Path("runs/two"))
    assert runs.find_run("latest") == Path("runs/two")


class StoppedClock(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime(2026, 11, 29, 13, 14)


def test_runs_without_a_name_that_start_in_one_second_all_get_one(here, monkeypatch):
    monkeypatch.setattr(runs, "datetime", StoppedClock)
    together = Barrier(8)

    def start(_):
        together.wait()
        return runs.new_run(None).name

    with ThreadPoolExecutor(8) as pool:
        names = sorted(pool.map(start, range(8)))
    assert names == ["2026-11-29-131400", *(f"2026-11-29-131400-{n}" for n in range(2, 9))]
    assert sorted(os.listdir("runs")) == names


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_file_keeps_the_second_process_out(here, monkeypatch, number):
    monkeypatch.setattr("fcntl.flock", refuse(OSError(number, os.strerror(number))))
    run = runs.new_run("one")
    with (
        runs.lock_folder(run, "wait"),
        pytest.raises(InputError, match=r"runs/one: another .* is at work on it; wait"),
        runs.lock_folder(run, "wait"),
    ):
        pass
    with runs.lock_folder(run, "wait"):
        runs.discard_run(run)
    assert not run.exists()


def test_a_lock_that_fails_otherwise_is_not_passed_over(here, monkeypatch):
    monkeypatch.setattr("fcntl.flock", refuse(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"), runs.lock_folder(runs.new_run("one"), "wait"):
        pass


def test_what_is_written_has_lines_as_on_unix_on_windows_too(here, monkeypatch):
    open_here = io.open

    def open_on_windows(path, mode="r", buffering=-1, encoding=None, errors=None, newline=None):
        ends = "\r\n" if newline is None and "w" in mode and "b" not in mode else newline
        return open_here(path, mode, buffering, encoding, errors, ends)

    monkeypatch.setattr(io, "open", open_on_windows)
    (here / "plain.txt").write_text("one\n", encoding="utf-8")
    output.write_text(here / "a.txt", "one\ntwo\n")
    output.write_csv(here / "a.csv", pd.DataFrame({"n": [1, 2]}))
    assert (here / "plain.txt").read_bytes() == b"one\r\n"  # or the test would see nothing
    assert (here / "a.txt").read_bytes() == b"one\ntwo\n"
    assert (here / "a.csv").read_bytes() == b'"n"\n1\n2\n'


@pytest.mark.parametrize(
    ("write", "bad"),
    [
        (output.write_json, {"x": float("nan")}),
        (output.write_json, {"x": object()}),
        (output.write_jsonl, [{"x": object()}]),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(here, write, bad):
    path = here / "file.json"
    path.write_text("old")
    with pytest.raises((ValueError, TypeError)):
        write(path, bad)
    assert path.read_text() == "old"
    assert list(here.iterdir()) == [path]


def test_tables_and_json_are_utf8_whatever_the_locale(here):
    output.write_json(here / "a.json", {"ключ": "😀"})
    assert json.loads((here / "a.json").read_bytes().decode()) == {"ключ": "😀"}
    table = pd.DataFrame({"text": ['say "hi", 😀', "two\nlines"], "p": [0.25, 1 / 3]})
    output.write_csv(here / "a.csv", table)
    read = pd.read_csv(here / "a.csv", encoding="utf-8")
    assert list(read["text"]) == list(table["text"])
    assert read["p"].to_numpy() == pytest.approx(table["p"].to_numpy(), rel=1e-5)


def test_a_lone_carriage_return_stays_within_its_row(here):
    table = pd.DataFrame({"text": ["a\rb", "c"], "n": [1, 2]})
    output.write_csv(here / "a.csv", table)
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
    told = manifest.describe_weights("model", "pretrained")
    assert told["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert told["bytes"] == 7
    assert told["revision"] is None
    fresh = manifest.describe_weights("gpt2-mini", "random")
    assert fresh.keys() == {"name", "init", "shape"}
    assert fresh["shape"]["n_embd"] == 256


def test_git_state_is_the_commit_of_this_code(monkeypatch):
    told = manifest.find_commit()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=EMBEDDED, capture_output=True, text=True).stdout.strip()
    if not head:
        assert told is None  # an unpacked archive has no commits
    else:
        assert head.startswith(told.removesuffix("-dirty"))


def test_a_shape_without_weights_says_what_to_do(here):
    (here / "shape").mkdir()
    shutil.copy(EMBEDDED / "config.json", here / "shape")
    with pytest.raises(
        InputError,
        match=r"shape: expected model.safetensors, there are config.json, no weights; train.py --init random",
    ):
        manifest.describe_weights("shape", "pretrained")


def test_weights_in_a_pickle_are_not_called_none(here):
    """Who starts from random ones instead throws them away."""
    (here / "pickled").mkdir()
    shutil.copy(EMBEDDED / "config.json", here / "pickled")
    (here / "pickled" / "pytorch_model.bin").touch()
    with pytest.raises(InputError, match=r"pytorch_model.bin; a pickle is never opened here") as caught:
        manifest.describe_weights("pickled", "pretrained")
    assert "--init" not in str(caught.value)


def test_shards_are_described_as_one(here):
    (here / "sharded").mkdir()
    shutil.copy(EMBEDDED / "config.json", here / "sharded")
    shards = {f"model-0000{i}-of-00002.safetensors": content for i, content in ((1, b"a"), (2, b"bc"))}
    for name, content in shards.items():
        (here / "sharded" / name).write_bytes(content)
    index = {"weight_map": {str(i): name for i, name in enumerate(shards)}}
    (here / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    told = manifest.describe_weights("sharded", "pretrained")
    assert told["sha256"] == hash_weights(here / "sharded")
    assert told["bytes"] == 3
    assert told["file"] == ", ".join(f"sharded/{name}" for name in shards)


def test_a_folder_whose_run_was_killed_before_its_first_file_is_as_good_as_new():
    (runs.new_run("one") / ".lock").touch()
    assert runs.new_run("one").name == "one"


def write_anew(folder, **files):
    """As an experiment does: each file by its name without the ending."""
    with output.replace_outputs(folder) as new:
        for name, content in files.items():
            output.write_text(new / f"{name}.csv", content)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != output.WRITTEN}


def test_what_is_not_written_again_goes_unless_it_is_somebody_elses(here, capsys):
    (here / "notes.csv").write_text("mine")
    write_anew(here, a="1", b="1", c="1")
    (here / "plot.png").write_text("mine")
    (here / "c.csv").write_text("changed")
    write_anew(here, a="2")
    assert contents(here) == {"notes.csv": "mine", "plot.png": "mine", "a.csv": "2", "c.csv": "changed"}
    assert capsys.readouterr().out == f"{here}/c.csv was made by an earlier call and has been changed since: it stays\n"
    write_anew(here, b="3")
    assert contents(here) == {"notes.csv": "mine", "plot.png": "mine", "b.csv": "3", "c.csv": "changed"}
    assert capsys.readouterr().out == ""  # from now on it is the user's


def test_an_earlier_file_that_was_removed_by_hand_is_no_trouble(here):
    write_anew(here, a="1", b="1")
    (here / "b.csv").unlink()
    write_anew(here, a="1")
    (here / "b.csv").write_text("1 of mine")
    write_anew(here, a="1")
    assert contents(here) == {"a.csv": "1", "b.csv": "1 of mine"}


def test_an_experiment_that_fails_half_way_leaves_what_was_there(here):
    write_anew(here, a="1", b="1")
    with contextlib.suppress(OSError), output.replace_outputs(here) as new:
        output.write_text(new / "a.csv", "2")
        raise OSError("the disk is full")
    assert contents(here) == {"a.csv": "1", "b.csv": "1"}


@pytest.mark.parametrize("nth", range(8))
def test_killed_between_the_list_names_only_what_was_written(here, monkeypatch, nth):
    """Whatever call is the last before it is killed: the same command then leaves what it would have left at once."""
    write_anew(here, a="1", b="1", c="1")
    (here / "d.csv").write_text("mine")
    changes = itertools.count()
    for name in ("replace", "unlink", "mkdir"):
        monkeypatch.setattr(os, name, dying(getattr(os, name), changes, nth))
    with contextlib.suppress(SystemExit):
        write_anew(here, a="2", e="2")
    monkeypatch.undo()
    listed = json.loads((here / output.WRITTEN).read_text())
    assert set(listed) <= {"a.csv", "b.csv", "c.csv", "e.csv"}
    runs.remove_unfinished(here)
    write_anew(here, a="2", e="2")
    assert contents(here) == {"a.csv": "2", "d.csv": "mine", "e.csv": "2"}


def dying(original, changes, nth):
    def change(*arguments, **options):
        if next(changes) >= nth:
            raise SystemExit
        return original(*arguments, **options)

    return change


def test_only_unfinished_files_of_headgate_are_removed(here):
    others = {".profile.old", ".notes.tmp", "a.tmp", ".lock", ".tmp", ".tmp-notes", ".tmpnotes"}
    of_safetensors = ".tmpoKvNDq"
    for name in (*others, ".effects.csv.123.tmp", ".run.json.45.old", of_safetensors):
        (here / name).touch()
    (here / ".new.77.tmp").mkdir()
    runs.remove_unfinished(here)
    assert {path.name for path in here.iterdir()} == others


def test_a_run_of_which_nothing_was_kept_goes_without_the_files_of_others(here):
    for name in ("one", "two"):
        output.write_json(runs.new_run(name) / "run.json", {})
    (here / "runs" / "two" / "notes.md").write_text("mine")
    for name in ("one", "two"):
        runs.discard_run(here / "runs" / name)
    assert [str(path.relative_to(here / "runs")) for path in sorted((here / "runs").rglob("*"))] == [
        "two",
        "two/notes.md",
    ]


def test_one_unreadable_manifest_does_not_keep_the_others_from_going_on(here, capsys):
    settings = {"run": "", "lr": 0.1}
    for n, name in enumerate(("old", "new", "other", "list")):
        made_with = [] if name == "list" else settings | {"run": name, "lr": 0.2 if name == "other" else 0.1}
        record = {"status": "unfinished", "settings": made_with, "started": f"2026-01-0{n + 1}"}
        output.write_json(runs.new_run(name) / "run.json", record)
    (runs.new_run("broken") / "run.json").write_text("{")
    assert runs.find_unfinished(settings) == "new"
    assert re.fullmatch(r"--resume passes over runs/broken: .*broken/run.json is not JSON.*\n", capsys.readouterr().out)


def test_a_run_is_found_from_a_folder_below_and_the_nearest_one_counts(tmp_path, monkeypatch):
    for run in ("runs/one", "runs/two", "deep/runs/two"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "run.json").write_text("{}")
    (tmp_path / "runs/latest").symlink_to("one")
    (tmp_path / "deep/er").mkdir()
    monkeypatch.chdir(tmp_path / "deep/er")
    assert runs.find_run("one") == runs.find_run("latest") == Path("../../runs/one")
    assert runs.find_run("two") == Path("../runs/two")
    Path("runs").mkdir()  # an empty one hides nothing
    assert runs.find_run("two") == Path("../runs/two")
    with pytest.raises(InputError, match=r"^runs/three: there is no such run; "):
        runs.find_run("three")


def test_in_a_folder_that_was_removed_no_run_is_found(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match=r"^runs/one: there is no such run; "):
        runs.find_run("one")
