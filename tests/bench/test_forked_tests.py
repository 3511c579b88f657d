"""The result of a forked process, however it ends."""

import os
import subprocess
import sys
import time
from pathlib import Path

from bench.forked_tests import Recorder, run_in_child


def spin():
    while True:
        pass


def leave_a_process_behind():
    return subprocess.Popen(["sleep", "100"]).pid


def test_what_a_child_returns_and_that_it_is_killed():
    assert run_in_child(sum, [1, 2], seconds=5) == 3
    assert run_in_child(os._exit, 0, seconds=5) == "killed"
    assert run_in_child(spin, seconds=1) == "killed"  # by the CPU's time
    started = time.monotonic()
    assert run_in_child(time.sleep, 60, seconds=0.1) == "killed"  # by the clock
    assert time.monotonic() - started < 50


def test_nothing_that_a_child_started_goes_on():
    pid = run_in_child(leave_a_process_behind, seconds=5)
    for _ in range(100):
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("it still runs")


def test_a_call_counts_for_the_outermost_function_around_it():
    recorder = Recorder(("bench",), 1)
    recorder.folders = (f"{Path(__file__).parent}/",)
    recorder.root = f"{Path(__file__).parent}/"
    recorder.open = [set(), set()]

    def inner():
        return next(sys._getframe() for _ in "a")

    recorder.trace(inner(), "call", None)
    recorder.trace(time_frame(), "call", None)
    file = "test_forked_tests.py::"
    expected = {file, f"{file}test_a_call_counts_for_the_outermost_function_around_it", f"{file}time_frame"}
    assert recorder.open == [expected, expected]


def time_frame():
    return sys._getframe()
