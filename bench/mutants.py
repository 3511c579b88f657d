"""Do the tests notice a fault? `make mutants` puts small faults into the code, one at a time, and counts.

Faults (`points.py`) are drawn at random from all that are possible. Each is written into a copy of the tree, where
those tests run that call the changed function: one run without a fault shows which do, and how long they take. The
file's mirror among the tests comes first, then the other files of tests, the cheapest first. A fault is noticed where
a test fails or hangs.

`equivalent_mutants.csv` lists by hand the faults that change no result, and why. After an interruption the same command
goes on where it was; after a change of the code, begin in another folder."""

import ast
import importlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from _pytest.config import default_plugins
from forked_tests import FORK, file_of, first_failure, watch
from points import Mutant, mutant_at, points

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "bench" / "equivalent_mutants.csv"
CODE = ("lab", "data", "experiments")
LEFT_OUT = ("model/*.py", "bench/*.py", "test_bench.py", "test_kill.py", "test_processes.py")  # none of CODE is seen
IDENTITY = ["file", "function", "mutation", "before", "after"]
COLUMNS = [*IDENTITY, "line", "noticed", "by", "tests", "left_out", "seconds"]
Tests = dict[str, tuple[float, set[str]]]  # seconds, the functions that it calls as file::name


@dataclass(frozen=True)
class Options:
    """Put faults into the code, one at a time, and see whether the tests notice; a row for each in OUT/mutants.csv."""

    draw: int = 300  # faults, at random from all that are possible
    seed: int = 0
    files: tuple[str, ...] = ()  # that faults are put into; empty: all in lab/, data/ and experiments/
    seconds: float = 30.0  # of the CPU that a fault's tests take together without it; the longest are left out
    jobs: int = 1  # faults at the same time
    tree: Path = ROOT  # the code and its tests
    out: Path = ROOT / "runs" / "mutants"


def main(options: Options) -> int:
    if complaint := wrong(options):
        print(complaint, file=sys.stderr)
        return 2
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    tree, out = options.tree.resolve(), options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    table = out / "mutants.csv"
    preload(tree)
    drawn = draw(tree, options)
    with (
        tempfile.TemporaryDirectory() as work,
        ProcessPoolExecutor(options.jobs, FORK, enter_copy, (tree, work)) as pool,
    ):
        tests = measure(pool, tree, out / "tests.json", options.seconds)
        known = identities(table) | identities(EQUIVALENT)
        todo = [mutant for mutant in drawn if identity(mutant) not in known]
        for done in as_completed([pool.submit(notice, each, *choose(each, tests, options.seconds)) for each in todo]):
            row = pd.DataFrame([done.result()], columns=COLUMNS)
            row.to_csv(table, mode="a", header=not table.exists(), index=False)
    print(summary(drawn, table).to_string())
    return 0


def wrong(options: Options) -> str:
    """What is wrong with the options, in one line."""
    if min(options.draw, options.jobs) < 1:
        return f"--draw and --jobs: expected at least 1, got {options.draw} and {options.jobs}"
    missing = [file for file in options.files if not (options.tree / file).is_file()]
    return f"--files: {options.tree} has no {', '.join(missing)}" if missing else ""


def identity(mutant: Mutant) -> tuple[str, ...]:
    """What a fault is known by; its line may move."""
    return tuple(getattr(mutant, name) for name in IDENTITY)


def identities(table: Path, columns: Sequence[str] = IDENTITY) -> set[tuple[Any, ...]]:
    if not table.exists():
        return set()
    return set(pd.read_csv(table, keep_default_na=False)[columns].itertuples(index=False, name=None))


def preload(tree: Path) -> None:
    """Import what the code and its tests import from elsewhere: once, for all that is forked off."""
    files = [path for pattern in ("*.py", "[!.]*/**/*.py") for path in tree.glob(pattern)]
    ours = {path.stem for path in files} | {path.parent.name for path in files}
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_bytes()))):
        match node:
            case ast.Import(names=[ast.alias(name=name)]) | ast.ImportFrom(module=str(name), level=0):
                if name.split(".")[0] not in ours:
                    with suppress(ImportError):  # an optional one
                        exec(ast.unparse(node), {})
    for name in default_plugins:
        importlib.import_module(f"_pytest.{name}")


def draw(tree: Path, options: Options) -> list[Mutant]:
    """Different ones, in an order that the seed decides."""
    files = options.files or [f"{path.relative_to(tree)}" for folder in CODE for path in tree.glob(f"{folder}/**/*.py")]
    every = [point for file in sorted(files) for point in points(tree, file)]
    random.Random(options.seed).shuffle(every)
    drawn: dict[tuple[str, ...], Mutant] = {}
    for mutant in map(mutant_at, every):
        drawn.setdefault(identity(mutant), mutant)
        if len(drawn) == options.draw:
            break
    return list(drawn.values())


def enter_copy(tree: Path, work: str) -> None:
    """A worker begins: it makes a copy of the tree, and works there."""
    copy = Path(work, f"{os.getpid()}", "tree")
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", ".*_cache", ".hypothesis", "__pycache__")
    shutil.copytree(tree, copy, symlinks=True, ignore=ignored)
    os.chdir(copy)


def measure(pool: Executor, tree: Path, path: Path, limit: float) -> Tests:
    """Run each test without a fault -> those that pass. `path` keeps what is known, and for which text of a file."""
    known = json.loads(path.read_text()) if path.exists() else {}
    texts = {f"{file.relative_to(tree)}": file.read_text() for file in sorted(tree.glob("tests/**/test_*.py"))}
    files = [file for file in texts if not any(Path(file).match(pattern) for pattern in LEFT_OUT)]
    todo = [file for file in files if known.get(file, {}).get("text") != texts[file]]
    for file, measured in zip(todo, pool.map(watch, todo, [CODE] * len(todo), [limit] * len(todo)), strict=True):
        known[file] = {"text": texts[file], "tests": measured}
        path.write_text(json.dumps(known))
    return {test: (seconds, set(calls)) for file in files for test, (seconds, calls) in known[file]["tests"].items()}


def choose(mutant: Mutant, tests: Tests, limit: float) -> tuple[list[str], int, float]:
    """The tests that call the changed function, in the order in which they are to run; how many more there are; the
    seconds without the fault. For what is in no function, or is called by no test: all that call any in the file."""
    places = (f"{mutant.file}::{mutant.function}", f"{mutant.file}::")
    by_place = ([test for test, (_, calls) in tests.items() if place in calls] for place in places)
    calling = next(filter(None, by_place), [])
    cost = pd.Series({test: tests[test][0] for test in calling}, dtype=float).groupby(file_of).sum()
    mirror = f"tests/{os.path.dirname(mutant.file)}/test_{os.path.basename(mutant.file)}"
    calling.sort(key=lambda test: (file_of(test) != mirror, cost[file_of(test)], file_of(test), tests[test][0]))
    spent = list(accumulate(tests[test][0] for test in calling))
    n = bisect_right(spent, limit)
    return calling[:n], len(calling) - n, max(spent[:n], default=0.0)


def notice(mutant: Mutant, tests: list[str], left_out: int, seconds: float) -> dict[str, Any]:
    """Put the fault into the copy, and run the tests -> a row of the table."""
    path, started = Path(mutant.file), time.perf_counter()
    original = path.read_text()
    path.write_text(mutant.source)
    by = first_failure(tests, 10 + 4 * seconds)
    path.write_text(original)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):  # it is told by size and second of the change only
        compiled.unlink()
    seconds = round(time.perf_counter() - started, 1)
    found = {"noticed": bool(by), "by": by, "tests": len(tests), "left_out": left_out, "seconds": seconds}
    return mutant._asdict() | found


def summary(drawn: list[Mutant], table: Path) -> pd.DataFrame:
    """For each file, and for all: how many were drawn, are equivalent and were noticed; the share of the others."""
    noticed = {row[:-1] for row in identities(table, [*IDENTITY, "noticed"]) if row[-1]}
    equivalent = identities(EQUIVALENT)
    rows = pd.DataFrame(
        {"file": file, "drawn": 1, "equivalent": each in equivalent, "noticed": each in noticed - equivalent}
        for mutant in drawn
        for file in (mutant.file, "all")
        for each in [identity(mutant)]
    )
    counts = rows.groupby("file").sum()
    return counts.assign(share=(counts["noticed"] / (counts["drawn"] - counts["equivalent"])).round(2))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
