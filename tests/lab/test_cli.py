"""How a script ends: exit codes and one line for each kind of failure."""

import re
import sys
from dataclasses import MISSING, dataclass, fields

import pytest
import torch
import tyro
from commands import one_line
from torch import distributed

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
    assert "see --help" in line


@pytest.mark.parametrize(("value", "fits"), [(0, True), (0.5, True), (1, False), (-1e-9, False), (None, True)])
def test_ranges_hold_the_low_end_and_not_the_high_one(value, fits):
    options = Options(dropout=value)
    if fits:
        check_ranges(options, dropout=(0, 1))
    else:
        with pytest.raises(InputError, match=r"--dropout .*: expected at least 0 and below 1"):
            check_ranges(options, dropout=(0, 1))


@pytest.mark.parametrize("script", [paper, pretrain, train], ids=lambda script: script.__name__)
def test_every_option_is_explained_with_its_default(capsys, script):
    with pytest.raises(SystemExit):
        tyro.cli(script.Options, args=["--help"])
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out.partition("options")[2]).split())
    for field in fields(script.Options):
        default = " ".join(field.default) if isinstance(field.default, tuple) else field.default
        expected = "(required)" if field.default is MISSING else f"(default: {default})"
        said = re.search(rf" --{field.name.replace('_', '-')}[ ,](.*?)(\(default: .*?\)|\(required\))", shown)
        assert said, field.name
        assert said[2] == expected, field.name
        assert len(said[1]) > 15, field.name
