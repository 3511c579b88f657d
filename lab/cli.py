"""How every script starts and ends: options from a dataclass, errors in one line, exit codes."""

import inspect
import logging
import math
import os
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import fields, is_dataclass, replace
from io import StringIO, TextIOWrapper
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
import tyro
from torch import distributed

from model import InputError

from .allocator import keep_freed_memory
from .warned import gather_warnings

Config = TypeVar("Config")
PATHS = {"check", "corpus", "model", "prompt", "template"}  # options that may be paths
VARIABLE = re.compile(r"\$\w+|\$\{\w+\}|%\w+%")  # of a shell
CPU_IS_FULL = "DefaultCPUAllocator: can't allocate memory"  # what the RuntimeError of PyTorch says then


def command(main: Callable[[Config], int], config: type[Config], processes: bool = False) -> NoReturn:
    """Run `main` on the command line's options and exit: 0 done, 1 a check failed, 2 the user's mistake, 130 Ctrl-C.

    `processes`: can it work in the several processes of `torchrun`?"""
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a label may have letters that the terminal has not
    level = logging.WARNING if os.environ.get("RANK", "0") == "0" else logging.ERROR  # under torchrun, say it once
    logging.basicConfig(format="%(message)s", level=level, stream=sys.stdout)  # stderr is for errors
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own
    try:
        if not processes and os.environ.get("WORLD_SIZE", "1") != "1":
            raise InputError(f"{Path(sys.argv[0]).name} works in one process: start it with python, not torchrun")
        options = expand_paths(parse_options(config))
        with gather_warnings():
            code = main(options)
        sys.exit(code)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and CPU_IS_FULL not in str(error):
            raise
        print("error: out of memory; take a smaller model, or shorter texts", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def check_ranges(options: object, **ranges: tuple[float, float]) -> None:
    """Raise InputError unless low <= value < high for each of these options; None is allowed everywhere."""
    for name, (low, high) in ranges.items():
        value = getattr(options, name)
        if value is not None and not low <= value < high:
            below = f" and below {high:g}" if high < math.inf else ""
            raise InputError(f"--{name.replace('_', '-')} {value}: expected at least {low:g}{below}")


def parse_options(config: type[Config]) -> Config:
    """Parse the command line. Of the box that tyro draws around a mistake, keep the first sentence."""
    box = StringIO()
    try:
        with redirect_stderr(box):
            return tyro.cli(config, description=inspect.getdoc(config))
    except SystemExit as end:
        if not end.code:  # --help
            raise
        lines = [line.strip("│ ") for line in box.getvalue().splitlines()[1:]]
        text = dropwhile(is_rule, lines)  # on a plain-ASCII terminal the title is underlined
        sentence = " ".join(takewhile(lambda line: not is_rule(line), text))
        sentence = re.sub(r"^Error parsing [\w.]+: ", "", sentence)  # before what a part of the options says itself
        raise InputError(f"{sentence.removesuffix('.')}; see --help") from None


def is_rule(line: str) -> bool:
    return not line.strip("─-")


def expand_paths(options: Any) -> Any:
    """Return the options with the home folder in place of `~` in paths: shells leave it in quotes, and behind `=`."""
    changes: dict[str, Any] = {}
    for field in fields(options):
        value, option = getattr(options, field.name), f"--{field.name.replace('_', '-')}"
        if is_dataclass(value):
            changes[field.name] = expand_paths(value)
        elif field.name in PATHS and isinstance(value, tuple):
            changes[field.name] = tuple(expand_home(option, path) for path in value)
        elif field.name in PATHS and not isinstance(value, bool):
            changes[field.name] = expand_home(option, value)
    return replace(options, **changes)


def expand_home(option: str, path: Any) -> Any:
    """Return a path with the home folder in place of a `~` at its start; a name, or None, as it is.

    Raises InputError where that folder is not known, or where a variable of the shell is left in a path."""
    if path is None or os.path.lexists(path):
        return path
    expanded = os.path.expanduser(path)
    if expanded.startswith("~") and re.match(r"~[^/\\]*[/\\]", expanded):
        raise InputError(f"{option} {path}: there is no home folder of this user; write the path in full")
    if variable := VARIABLE.search(expanded):
        raise InputError(f"{option} {path}: the shell has left {variable[0]} as it is; write the path in full")
    return type(path)(expanded)
