"""Scripts in processes of their own, which a test may kill, starve or let compete, and what they leave.

They come from a fork server that has imported everything, so that each starts at once, and that has not computed
anything, for what has used a GPU cannot be forked."""

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from multiprocessing import forkserver, get_context
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import nltk
import pytest
import torch
from pictures_on_disk import leave_undrawn

import experiments.pretrain.training
import experiments.probe.linear
import lab.device
import train
from lab.cli import command

SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(["ablate", "probe", "torch._dynamo", "children"])
KILLED = -signal.SIGKILL  # the exit code
NEW = "--model tiny --device cpu --seed 3 --run two"
COMMANDS = {  # of each script, in a folder with books and the run `one`
    "train": f"{NEW} --corpus corpus.txt --init random --batch-size 8 --epochs 4 --lr 0.0005 --dropout 0.1 --resume",
    "pretrain": f"{NEW} --corpus books.txt --batch-size 2 --epochs 0.3 --lr 0.02 --dropout 0.1 --sampled 64 --resume",
    "ablate": "--device cpu --run one --units heads layers --fill mean",
    "probe": "--device cpu --run one --texts 100 --words 500",
}
number = count()


class Child(NamedTuple):
    process: Any
    stderr: Path

    def end(self) -> tuple[int, str]:
        """Its exit code, or minus the signal that killed it, and what it wrote to stderr."""
        self.process.join()
        return self.process.exitcode, self.stderr.read_text()


# What a new process does first. It is told these functions by their names, and nothing of them is undone.


def often() -> None:
    """What is written now and then is written as often as can be, little is computed at once, and what takes long and
    has nothing to do with files is left out."""
    write_state = train.Training.write_state

    def now(self: train.Training, run: Path) -> None:
        self.state_due = 0
        write_state(self, run)

    train.Training.write_state = now
    experiments.pretrain.training.EVALUATIONS, lab.device.TOKENS, experiments.probe.linear.MAX_ITER = 4, 256, 3
    lab.device.Device.product_rate = lambda self: 1e12
    leave_undrawn(pytest.MonkeyPatch())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_file(part: str, nth: int) -> None:
    """SIGKILL just before the nth change to a file or folder in runs/ with this in its name."""
    often()
    changes = count(1)

    def hook(event: str, told: tuple[Any, ...]) -> None:
        if event in ("os.remove", "os.rmdir"):
            changing = os.path.lexists(told[0])
        elif event == "open":
            changing = bool(told[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            changing = event in ("os.rename", "os.link", "os.symlink", "os.mkdir")
        if changing and str(told[0]).startswith("runs") and part in Path(told[0]).name and next(changes) == nth:
            die()

    sys.addaudithook(hook)


def die_in(function: str, nth: int) -> None:
    """SIGKILL at the nth call of `module.function`."""
    often()
    original, calls = resolve_name(function), count(1)

    def dying(*arguments: Any, **options: Any) -> Any:
        if next(calls) == nth:
            die()
        return original(*arguments, **options)

    pytest.MonkeyPatch().setattr(function, dying)


at_file = partial(partial, die_at_file)
within = partial(partial, die_in)


def ensure_server() -> None:
    """Python 3.11 does not tell the fork server by itself where modules are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()


def start(folder: Path, script: str, *arguments: str, before: Callable[[], None] = often) -> Child:
    """`python SCRIPT.py`, with the arguments above and these, in this folder, after `before()`."""
    stderr = folder.with_name(f"{folder.name}-{next(number)}.stderr")
    ensure_server()
    process = SERVER.Process(target=work, args=(folder, script, arguments, before, stderr))
    process.start()
    return Child(process, stderr)


def run(folder: Path, script: str, *arguments: str, before: Callable[[], None] = often) -> tuple[int, str]:
    """The same to its end -> exit code and stderr."""
    return start(folder, script, *arguments, before=before).end()


def work(folder: Path, script: str, arguments: tuple[str, ...], before: Callable[[], None], stderr: Path) -> None:
    """What the new process does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
    os.chdir(folder)
    sys.argv = [f"{script}.py", *COMMANDS[script].split(), *arguments]
    nltk.data.path = []
    torch.set_num_threads(1)
    before()
    module = importlib.import_module(script)
    command(module.main, module.Options)


def write_books(folder: Path) -> None:
    """Two of them, the second one held out."""
    text = (folder / "corpus.txt").read_text()
    (folder / "books.txt").write_text(f"{4 * text}<|endoftext|>\n{text}")


def left_in(folder: Path) -> dict[str, object]:
    """The contents of all files in runs/, without times, and of a manifest only the status; and what is the latest."""
    found: dict[str, object] = {"latest": os.readlink(folder / "runs" / "latest")}
    for path in (folder / "runs").rglob("*"):
        if path.name == "run.json":
            found[str(path.relative_to(folder))] = json.loads(path.read_bytes())["status"]
        elif path.name == "log.jsonl":
            rows = [json.loads(line) | {"seconds": 0} for line in path.read_text().splitlines()]
            found[str(path.relative_to(folder))] = rows
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def differing(found: dict[str, object], expected: dict[str, object]) -> set[str]:
    """Names of files that are not the same, or not in both."""
    return {name for name in {*found, *expected} if found.get(name) != expected.get(name)}
