"""A script called as from the command line, and what it or a function says of a mistake."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import Field, fields, is_dataclass
from types import ModuleType

import pytest

from lab.cli import command
from model import InputError


def list_options(options: type) -> Iterator[Field]:
    """The fields that are options of a command: of its dataclass, and of those that it is composed of."""
    for field in fields(options):
        yield from list_options(type(field.default)) if is_dataclass(field.default) else [field]


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


def line_of(call: Callable[..., object], *arguments: object) -> str:
    """The one line that the InputError of `call(*arguments)` says."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message.isprintable()  # so it has no newline either
    assert len(message) < 3000
    return message
