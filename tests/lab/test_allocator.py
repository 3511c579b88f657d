"""Freed memory is used again, where the C library can be told."""

import subprocess
import sys

import pytest

from lab import allocator

COUNT_FAULTS = """
import resource, sys, torch
from lab.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
size = 50_000_000  # bytes; glibc's own limit for what it keeps is 32 MiB
def fill(): torch.ones(size, dtype=torch.uint8)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(mode):
    done = subprocess.run([sys.executable, "-c", COUNT_FAULTS, mode], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told")
def test_a_block_that_was_freed_costs_no_page_faults_again():
    assert count_faults("keep") < 100 < count_faults("as ever")


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_where_the_library_has_no_such_option_nothing_happens(monkeypatch, error):
    def load(name):
        raise error

    monkeypatch.setattr(allocator.ctypes, "CDLL", load)
    assert not allocator.keep_freed_memory()
