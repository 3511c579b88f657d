"""Freed memory is used again, where the C library can be told."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from lab import allocator, cli
from lab.defaults import TrainOptions

COUNT_FAULTS = """
import resource, torch
from lab.allocator import keep_freed_memory
assert keep_freed_memory()
def fill(blocks): return [torch.ones(25_000_000, dtype=torch.uint8) for _ in range(blocks)]
for _ in range(2): fill(6)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill(3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told")
def test_memory_that_was_freed_costs_no_page_faults_again():
    done = subprocess.run([sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1000  # of 18,300 pages


@pytest.mark.parametrize("taken", [0, 1])
def test_glibc_is_told_two_limits(monkeypatch, taken):
    told = {}

    def mallopt(option, value):
        told[option] = value
        return taken

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert allocator.keep_freed_memory() == bool(taken)
    assert told == ({-3: 2**25, -1: 2**30} if taken else {-3: 2**25})  # the second one alone would limit the first


def test_every_command_keeps_it(monkeypatch):
    called = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: called.append(True))
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit):
        cli.command(lambda options: 0, TrainOptions)
    assert called == [True]


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_where_the_library_has_no_such_option_nothing_happens(monkeypatch, error):
    def load(name):
        raise error

    monkeypatch.setattr(allocator.ctypes, "CDLL", load)
    assert not allocator.keep_freed_memory()
