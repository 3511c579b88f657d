"""How a script ends: exit codes and one line for each kind of failure."""

import os
import re
import sys
import warnings
from dataclasses import MISSING, dataclass
from pathlib import Path

import pytest
import torch
import tyro
from commands import exit_code, list_options, one_line
from scipy.stats import ConstantInputWarning, pearsonr
from torch import distributed

import attend
import explore
import paper
import pretrain
import train
from lab.cli import check_ranges, command
from model import InputError


@dataclass
class Options:
    """Options of a script that does nothing."""

    lr: float = 0.1
    dropout: float | None = None
    model: str = "auto"
    corpus: str | None = None
    template: tuple[str, ...] = ()
    check: Path | None = None
    text: tuple[str, ...] = ()


def end(monkeypatch, main, *arguments):
    """The exit code of a script with this `main`."""
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
    with pytest.raises(SystemExit) as exit_:
        command(main, Options)
    return exit_.value.code


def failing(error):
    def main(options):
        raise error

    return main


def too_much(options):
    return torch.empty(10**15)


FAILURES = {
    "a mistake": (failing(InputError("no such run")), 2, "no such run"),
    "a file": (failing(FileNotFoundError(2, "No such file", "a.txt")), 2, "a.txt"),
    "a GPU that is full": (failing(torch.OutOfMemoryError("CUDA out of memory. Tried ...")), 2, "out of memory"),
    "memory that is full, by PyTorch": (too_much, 2, "out of memory; take a smaller model"),
    "memory that is full, by numpy": (failing(MemoryError("Unable to allocate 1 PiB")), 2, "out of memory"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_failure_is_one_line_and_an_exit_code(monkeypatch, capsys, what):
    main, code, expected = FAILURES[what]
    assert end(monkeypatch, main) == code
    assert expected in one_line(capsys)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("of the code")])
def test_an_error_of_the_program_keeps_its_traceback(monkeypatch, error):
    monkeypatch.setattr(sys, "argv", ["script.py"])
    with pytest.raises(type(error), match=str(error)):
        command(failing(error), Options)


@pytest.mark.parametrize(("main", "code"), [(lambda options: 0, 0), (lambda options: 1, 1)])
def test_the_code_of_main_is_the_exit_code(monkeypatch, main, code):
    assert end(monkeypatch, main) == code


def test_ctrl_c_is_130(monkeypatch, capsys):
    assert end(monkeypatch, failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"


@pytest.mark.parametrize("error", [None, InputError("no"), KeyboardInterrupt(), RuntimeError("a bug")])
def test_the_process_group_is_left_however_it_ends(monkeypatch, error):
    left = []
    monkeypatch.setattr(distributed, "is_initialized", lambda: not left)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: left.append(True))
    monkeypatch.setattr(sys, "argv", ["script.py"])
    with pytest.raises((SystemExit, RuntimeError)):
        command(failing(error) if error else lambda options: 0, Options)
    assert left == [True]


def test_several_processes_are_refused_where_a_script_works_in_one(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert end(monkeypatch, lambda options: 0) == 2
    assert "script.py works in one process" in one_line(capsys)


@pytest.mark.parametrize(("arguments", "expected"), [(["--lr", "many"], "--lr"), (["--momentum", "1"], "--momentum")])
def test_a_mistyped_option_is_one_line(monkeypatch, capsys, arguments, expected):
    assert end(monkeypatch, lambda options: 0, *arguments) == 2
    line = one_line(capsys)
    assert expected in line
    assert line.endswith("; see --help\n")
    assert ".; see" not in line


def test_a_wrong_choice_ends_in_one_full_stop_at_most(monkeypatch, capsys):
    assert exit_code(monkeypatch, train, "--init", "none") == 2
    line = one_line(capsys)
    assert "--init" in line
    assert line.endswith("('pretrained', 'random'); see --help\n")


@pytest.mark.parametrize(("value", "fits"), [(0, True), (0.5, True), (1, False), (-1e-9, False), (None, True)])
def test_ranges_hold_the_low_end_and_not_the_high_one(value, fits):
    options = Options(dropout=value)
    if fits:
        check_ranges(options, dropout=(0, 1))
    else:
        with pytest.raises(InputError, match=r"--dropout .*: expected at least 0 and below 1"):
            check_ranges(options, dropout=(0, 1))


@pytest.mark.parametrize("script", [attend, explore, paper, pretrain, train], ids=lambda script: script.__name__)
def test_every_option_is_explained_with_its_default(capsys, script):
    with pytest.raises(SystemExit):
        tyro.cli(script.Options, args=["--help"])
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out.partition("options")[2]).split())
    for field in list_options(script.Options):
        default = " ".join(field.default) if isinstance(field.default, tuple) else field.default
        expected = "(required)" if field.default is MISSING else f"(default: {default})"
        said = re.search(rf" --{field.name.replace('_', '-')}[ ,](.*?)(\(default: .*?\)|\(required\))", shown)
        assert said, field.name
        assert said[2] == expected, field.name
        assert len(said[1]) > 15, field.name


# Paths as shells leave them.


def parsed(monkeypatch, *arguments):
    """The options with which the script begins."""
    got = []
    assert end(monkeypatch, lambda options: got.append(options) or 0, *arguments) == 0
    return got[0]


def test_a_home_folder_is_found_where_the_shell_has_left_the_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    given = ("--model=~/gpt2", "--corpus", "~", "--template", "~/a.toml", "feeling", "--check=~/x/y.json")
    options = parsed(monkeypatch, *given, "--text", "~/ is my home", "~so~ tired")
    assert (options.model, options.corpus) == ("/home/me/gpt2", "/home/me")
    assert options.template == ("/home/me/a.toml", "feeling")
    assert options.check == Path("/home/me/x/y.json")
    assert options.text == ("~/ is my home", "~so~ tired")  # a text is no path
    assert parsed(monkeypatch) == Options()


def test_the_home_folder_of_another_user_is_found(monkeypatch):
    pwd = pytest.importorskip("pwd")
    user = pwd.getpwuid(os.getuid())
    assert parsed(monkeypatch, f"--corpus=~{user.pw_name}/a.csv").corpus == f"{user.pw_dir.rstrip('/')}/a.csv"


@pytest.mark.parametrize("name", ["~", "~me", "$HOME", "100%a%"])
def test_what_is_called_so_is_taken_as_it_is(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.csv").touch()
    assert parsed(monkeypatch, "--corpus", f"{name}/a.csv").corpus == f"{name}/a.csv"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("~no.such.user/a.csv", "--corpus ~no.such.user/a.csv: there is no home folder of this user; write the path"),
        ("$HOME/a.csv", "--corpus $HOME/a.csv: the shell has left $HOME as it is; write the path in full"),
        ("${DATA}/a.csv", "the shell has left ${DATA} as it is"),
        (r"%USERPROFILE%\a.csv", "the shell has left %USERPROFILE% as it is"),
    ],
)
def test_a_path_that_nobody_can_expand_is_one_line(monkeypatch, capsys, path, said):
    assert end(monkeypatch, lambda options: 0, "--corpus", path) == 2
    assert said in one_line(capsys)


# Warnings of libraries.


def warn_often(options):
    """As a barely trained network lets scipy and matplotlib do."""
    for _ in range(12):
        pearsonr([1, 1, 1], [1, 2, 3])
    for letter in (21916, 24713, 128514):
        warnings.warn(f"Glyph {letter} (\\N{{{letter}}}) missing from font(s) DejaVu Sans.", stacklevel=1)
    return 0


def test_warnings_of_libraries_are_one_line_of_each_kind_at_the_end(monkeypatch, capsys):
    def main(options):
        warn_often(options)
        print("done")
        return 1

    assert end(monkeypatch, main) == 1
    out, err = capsys.readouterr()
    said = "Warning of scipy, ConstantInputWarning: An input array is constant; the correlation coefficient is not"
    glyph = "Warning of test_cli.py, UserWarning: Glyph 21916 (\\N{21916}) missing from font(s) DejaVu Sans."
    assert out.splitlines() == ["done", f"{said} defined. (the first of 12)", f"{glyph} (the first of 3)"]
    assert err == ""


@pytest.mark.parametrize(("error", "code"), [(InputError("no"), 2), (KeyboardInterrupt(), 130)])
def test_warnings_are_said_however_it_ends(monkeypatch, capsys, error, code):
    def main(options):
        pearsonr([1, 1, 1], [1, 2, 3])
        raise error

    assert end(monkeypatch, main) == code
    assert re.fullmatch(r"Warning of scipy, ConstantInputWarning: [^\n(]*\n", capsys.readouterr().out)


def test_what_a_library_or_python_hides_stays_hidden(monkeypatch, capsys):
    def main(options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConstantInputWarning)
            pearsonr([1, 1, 1], [1, 2, 3])
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        return 0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as Python itself does, but not pytest
        assert end(monkeypatch, main) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("said", ["error", "default"])
def test_who_asks_python_for_warnings_gets_them_as_always(monkeypatch, said):
    before = warnings.showwarning
    monkeypatch.setattr(sys, "warnoptions", [said])
    seen = []
    assert end(monkeypatch, lambda options: seen.append(warnings.showwarning) or 0) == 0
    assert seen == [before]


def test_a_child_process_says_nothing_of_its_parents_warnings(monkeypatch, capfd):
    def main(options):
        pearsonr([1, 1, 1], [1, 2, 3])
        if not os.fork():
            sys.exit(0)  # runs what is left of the parent's program
        os.wait()
        return 0

    parent = os.getpid()
    try:
        assert end(monkeypatch, main) == 0
    finally:
        if os.getpid() != parent:
            sys.stdout.flush()
            os._exit(0)
    assert capfd.readouterr().out.count("ConstantInputWarning") == 1
