"""Tests of the working folder in a forked process: what each of them calls, or which one fails first."""

import os
import resource
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import ceil
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

import pytest

FORK = get_context("fork")
Measured = dict[str, tuple[float, list[str]]]  # a test -> seconds of the CPU, the functions it calls as file::name


def watch(file: str, folders: tuple[str, ...], limit: float) -> Measured:
    """Run this file's tests, each of them `limit` seconds of the CPU at most -> those that pass. What is called in one
    of these folders is noted; what a process calls that a test starts is not seen."""
    measured = in_child(run, Watch(folders, limit), [file], seconds=1800)
    return measured if isinstance(measured, dict) else {}


def first_failure(tests: list[str], seconds: float) -> str:
    """Run these tests in their order until one fails -> its name, `import` where none could be run, `killed` where
    one ends the process or takes more than these seconds of the CPU, or nothing."""
    return in_child(run, First(tests), [*dict.fromkeys(map(file_of, tests))], seconds=seconds) if tests else ""


def file_of(test: str) -> str:
    return test.split("::")[0]


def in_child(function: Callable[..., Any], *arguments: Any, seconds: float) -> Any:
    """Call it in a forked process -> what it returns, or `killed` where the process dies, takes so many seconds of the
    CPU, or waits for ten times as long."""
    here, there = FORK.Pipe(duplex=False)
    process = FORK.Process(target=child, args=(there, seconds, function, *arguments))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(10 * seconds) else "killed"
    except EOFError:
        return "killed"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)  # with all that it started
        process.join()


def child(pipe: Connection, seconds: float, function: Callable[..., Any], *arguments: Any) -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (ceil(seconds), ceil(seconds)))
    for stream in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    pipe.send(function(*arguments))


def run(plugin: Any, files: list[str]) -> Any:
    """Run files of tests, and ask the plugin what came of it."""
    arguments = ["-q", "-p", "no:cacheprovider", "--basetemp=../tmp", *plugin.arguments, *files]
    return plugin.outcome(pytest.main(arguments, [plugin]))


class First:
    """Runs only these tests, and stops at the first one that fails."""

    arguments = ("-x",)

    def __init__(self, tests: list[str]) -> None:
        self.place = {test: i for i, test in enumerate(tests)}
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.place), key=lambda item: self.place[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    def outcome(self, code: int) -> str:
        return self.failed or ("" if code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) else "import")


class Watch:
    """Notes the time of each test and what it calls. What a fixture calls counts for each test that uses it."""

    arguments = ()

    def __init__(self, folders: tuple[str, ...], limit: float) -> None:
        self.limit = limit
        self.root = f"{os.getcwd()}/"
        self.folders = tuple(f"{self.root}{folder}/" for folder in folders)
        self.measured: Measured = {}
        self.not_passed: set[str] = set()
        self.by_fixture: dict[Any, set[str]] = defaultdict(set)
        self.open: list[set[str]] = []  # of the test, and of the fixtures that are being set up

    def trace(self, frame: FrameType, event: str, argument: Any) -> None:
        """The global trace function of `sys.settrace`: Python calls it where a function begins."""
        code = frame.f_code
        if code.co_filename.startswith(self.folders):
            file = code.co_filename.removeprefix(self.root)
            for calls in self.open:
                calls.update((f"{file}::", f"{file}::{code.co_qualname.split('.<locals>')[0]}"))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        self.open.append(self.by_fixture[fixturedef])
        yield
        self.open.pop()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        calls: set[str] = set()
        self.open = [calls]
        signal.signal(signal.SIGPROF, too_long)
        signal.setitimer(signal.ITIMER_PROF, self.limit)
        started = time.process_time()
        sys.settrace(self.trace)
        threading.settrace(self.trace)
        yield
        sys.settrace(None)
        signal.setitimer(signal.ITIMER_PROF, 0)
        fixtures = [fixture for several in item._fixtureinfo.name2fixturedefs.values() for fixture in several]
        calls.update(*(self.by_fixture[fixture] for fixture in fixtures))
        self.measured[item.nodeid] = time.process_time() - started, sorted(calls)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self.not_passed.add(report.nodeid)

    def outcome(self, code: int) -> Measured:
        return {test: measured for test, measured in self.measured.items() if test not in self.not_passed}


def too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("a test takes too long")
