"""A script called as from the command line, and what it says of a mistake."""

import sys
from types import ModuleType

import pytest

from lab.cli import command


def exit_code(monkeypatch: pytest.MonkeyPatch, script: ModuleType, *arguments: str) -> int:
    """The exit code of `python SCRIPT.py arguments`."""
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *arguments])
    with pytest.raises(SystemExit) as exit_:
        command(script.main, script.Options)
    return exit_.value.code


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What went to stderr, which must be a single line and no traceback."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    return err
