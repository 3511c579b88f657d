"""What libraries warn of while a command runs: gathered, and said at its end in one line of each kind."""

import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .progress import console

CHANGING = re.compile(r"\([^)]*\)|\d+")  # of a message: what differs from one warning of a kind to the next


@contextmanager
def gather_warnings() -> Iterator[None]:
    """Gather what Python would show of the warnings that come meanwhile, and print it at the end.

    Where the user says what to do with warnings, with `python -W` or PYTHONWARNINGS, Python does that."""
    if sys.warnoptions:
        yield
        return
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}  # line of each kind

    def note(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        said = next(iter(str(message).strip().splitlines()), "")
        kind = f"{category.__name__} {CHANGING.sub('', said)}"
        counts[kind] += 1
        first.setdefault(kind, f"{find_library(category, filename)}, {category.__name__}: {said}")

    process = os.getpid()
    with warnings.catch_warnings():
        warnings.showwarning = note
        warnings.simplefilter("always", append=True)  # behind the filters of Python and of libraries: what they show
        try:
            yield
        finally:
            if counts and os.getpid() == process:  # a fork of this process leaves the same way
                console.print(describe(counts, first), soft_wrap=True)


def find_library(category: type[Warning], filename: str) -> str:
    """Return the name of the library that warns: of the warning's class or, where that is Python's, of the file."""
    module = category.__module__.partition(".")[0]
    if module != "builtins":
        return module
    parts = Path(filename).parts
    return parts[parts.index("site-packages") + 1] if "site-packages" in parts[:-1] else Path(filename).name


def describe(counts: Counter[str], first: dict[str, str]) -> str:
    """Return a line for each kind, the most frequent one first."""
    times = {kind: f" (the first of {n:,})" if n > 1 else "" for kind, n in counts.items()}
    return "\n".join(f"Warning of {first[kind]}{times[kind]}" for kind, _ in counts.most_common())
