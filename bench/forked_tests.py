"""Run tests of the working folder in a forked process: record what each test calls, or find the first that fails."""

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
Record = dict[str, tuple[float, list[str]]]  # test -> CPU seconds, and the functions it calls, as file::name


def record_calls(file: str, folders: tuple[str, ...], limit: float) -> Record:
    """Run this file's tests, with at most `limit` CPU seconds for each. Returns a record of those that pass.

    It holds the calls of functions in these folders, but not those in processes that a test starts."""
    record = run_in_child(run_pytest, Recorder(folders, limit), [file], seconds=1800)
    return record if isinstance(record, dict) else {}


def find_first_failure(tests: list[str], seconds: float) -> str:
    """Run these tests in order until one fails, and return its name, or "" if all pass.

    Returns `import` if pytest could run none of them, and `killed` if the process died or took too many CPU seconds."""
    files = [*dict.fromkeys(map(file_of, tests))]
    return run_in_child(run_pytest, Selection(tests), files, seconds=seconds) if tests else ""


def file_of(test: str) -> str:
    """Return the file in the name of a test."""
    return test.split("::")[0]


def run_in_child(function: Callable[..., Any], *arguments: Any, seconds: float) -> Any:
    """Call a function in a forked process and return its result.

    Returns `killed` if the process dies, uses up these CPU seconds, or takes ten times as long by the clock."""
    reader, writer = FORK.Pipe(duplex=False)
    process = FORK.Process(target=serve, args=(writer, seconds, function, *arguments))
    process.start()
    writer.close()
    try:
        return reader.recv() if reader.poll(10 * seconds) else "killed"
    except EOFError:
        return "killed"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)  # and every process that it started
        process.join()


def serve(pipe: Connection, seconds: float, function: Callable[..., Any], *arguments: Any) -> None:
    """Call the function in the child, without input or output, and send its result."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (ceil(seconds), ceil(seconds)))
    for stream in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    pipe.send(function(*arguments))


def run_pytest(plugin: Any, files: list[str]) -> Any:
    """Run these files of tests with a plugin, and return its outcome."""
    arguments = ["-q", "-p", "no:cacheprovider", "--basetemp=../tmp", *plugin.arguments, *files]
    return plugin.outcome(pytest.main(arguments, [plugin]))


class Selection:
    """A pytest plugin that runs only these tests, in this order, up to the first failure."""

    arguments = ("-x",)

    def __init__(self, tests: list[str]) -> None:
        self.order = {test: i for i, test in enumerate(tests)}
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        selected = [item for item in items if item.nodeid in self.order]
        items[:] = sorted(selected, key=lambda item: self.order[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    def outcome(self, code: int) -> str:
        return self.failed or ("" if code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) else "import")


class Recorder:
    """A pytest plugin that records each test's time and calls. A fixture's calls count for every test that uses it."""

    arguments = ()

    def __init__(self, folders: tuple[str, ...], limit: float) -> None:
        self.limit = limit
        self.root = f"{os.getcwd()}/"
        self.folders = tuple(f"{self.root}{folder}/" for folder in folders)
        self.record: Record = {}
        self.not_passed: set[str] = set()
        self.fixture_calls: dict[Any, set[str]] = defaultdict(set)
        self.open: list[set[str]] = []  # the calls of the running test and of each fixture that is being set up

    def trace(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note a call. Python calls this at the start of each function, see `sys.settrace`."""
        code = frame.f_code
        if code.co_filename.startswith(self.folders):
            file = code.co_filename.removeprefix(self.root)
            for calls in self.open:
                calls.update((f"{file}::", f"{file}::{code.co_qualname.split('.<locals>')[0]}"))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        self.open.append(self.fixture_calls[fixturedef])
        yield
        self.open.pop()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        calls: set[str] = set()
        self.open = [calls]
        signal.signal(signal.SIGPROF, raise_timeout)
        signal.setitimer(signal.ITIMER_PROF, self.limit)
        started = time.process_time()
        sys.settrace(self.trace)
        threading.settrace(self.trace)
        yield
        sys.settrace(None)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for fixtures in item._fixtureinfo.name2fixturedefs.values():
            calls.update(*(self.fixture_calls[fixture] for fixture in fixtures))
        self.record[item.nodeid] = time.process_time() - started, sorted(calls)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self.not_passed.add(report.nodeid)

    def outcome(self, code: int) -> Record:
        return {test: entry for test, entry in self.record.items() if test not in self.not_passed}


def raise_timeout(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("a test takes too long")
