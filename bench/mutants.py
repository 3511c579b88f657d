"""Do the tests notice a fault? `make mutants` puts small faults into the code, one at a time, and counts.

The faults are drawn at random from all that `points.py` finds. Each is written into a copy of the tree, where the tests
run that call the changed function: a first run without faults shows which tests do, and how long they take. The test
file that mirrors the changed file comes first, then the others, the cheapest first. A fault is noticed if a test fails
or hangs.

People list in `equivalent_mutants.csv` the faults that change no result, and why. After an interruption the same
command goes on where it stopped; after a change of the code, write to another folder."""

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

from .forked_tests import FORK, file_of, find_first_failure, record_calls
from .points import Mutant, find_points, make_mutant

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "bench" / "equivalent_mutants.csv"
CODE = ("lab", "data", "experiments")
# These tests call nothing of CODE, or in processes where no call is recorded.
LEFT_OUT = ("model/*.py", "bench/*.py", "test_bench.py", "test_kill.py", "test_processes.py")
IDENTITY = ["file", "function", "mutation", "before", "after"]
COLUMNS = [*IDENTITY, "line", "noticed", "by", "tests", "left_out", "seconds"]
Tests = dict[str, tuple[float, set[str]]]  # CPU seconds, and the functions that the test calls, as file::name


@dataclass(frozen=True)
class Options:
    """Put faults into the code, one at a time, and see whether the tests notice; a row for each in OUT/mutants.csv."""

    draw: int = 300  # faults, at random from all possible ones
    seed: int = 0
    files: tuple[str, ...] = ()  # files to put faults into; empty: all in lab/, data/ and experiments/
    seconds: float = 30.0  # CPU seconds for the tests of one fault; the longest tests are left out
    jobs: int = 1  # faults to try at the same time
    tree: Path = ROOT  # the code and its tests
    out: Path = ROOT / "runs" / "mutants"


def main(options: Options) -> int:
    if mistake := check_options(options):
        print(mistake, file=sys.stderr)
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
        tests = time_tests(pool, tree, out / "tests.json", options.seconds)
        known = read_identities(table) | read_identities(EQUIVALENT)
        todo = [mutant for mutant in drawn if identify(mutant) not in known]
        jobs = [pool.submit(try_mutant, mutant, *choose_tests(mutant, tests, options.seconds)) for mutant in todo]
        for job in as_completed(jobs):
            row = pd.DataFrame([job.result()], columns=COLUMNS)
            row.to_csv(table, mode="a", header=not table.exists(), index=False)
    print(summarise(drawn, table).to_string())
    return 0


def check_options(options: Options) -> str:
    """Return what is wrong with the options, in one line, or ""."""
    if min(options.draw, options.jobs) < 1:
        return f"--draw and --jobs: expected at least 1, got {options.draw} and {options.jobs}"
    missing = [file for file in options.files if not (options.tree / file).is_file()]
    return f"--files: {options.tree} has no {', '.join(missing)}" if missing else ""


def identify(mutant: Mutant) -> tuple[str, ...]:
    """Return the columns that identify a fault; its line is not one of them, because it may move."""
    return tuple(getattr(mutant, name) for name in IDENTITY)


def read_identities(table: Path, columns: Sequence[str] = IDENTITY) -> set[tuple[Any, ...]]:
    """Return these columns of a table, one tuple per fault; nothing if there is no such file."""
    if not table.exists():
        return set()
    return set(pd.read_csv(table, keep_default_na=False)[columns].itertuples(index=False, name=None))


def preload(tree: Path) -> None:
    """Import the libraries that the code and its tests import, once for all forked processes."""
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
    """Return different faults, in an order that the seed determines."""
    files = options.files or [f"{path.relative_to(tree)}" for folder in CODE for path in tree.glob(f"{folder}/**/*.py")]
    points = [point for file in sorted(files) for point in find_points(tree, file)]
    random.Random(options.seed).shuffle(points)
    drawn: dict[tuple[str, ...], Mutant] = {}
    for mutant in map(make_mutant, points):
        drawn.setdefault(identify(mutant), mutant)
        if len(drawn) == options.draw:
            break
    return list(drawn.values())


def enter_copy(tree: Path, work: str) -> None:
    """Copy the tree and change into the copy: the first thing that a worker does."""
    copy = Path(work, f"{os.getpid()}", "tree")
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", ".*_cache", ".hypothesis", "__pycache__")
    shutil.copytree(tree, copy, symlinks=True, ignore=ignored)
    os.chdir(copy)


def time_tests(pool: Executor, tree: Path, path: Path, limit: float) -> Tests:
    """Run each test without a fault. Returns the tests that pass.

    `path` keeps the results, so that a test file runs again only if its text changed."""
    known = json.loads(path.read_text()) if path.exists() else {}
    sources = {f"{file.relative_to(tree)}": file.read_text() for file in sorted(tree.glob("tests/**/test_*.py"))}
    files = [file for file in sources if not any(Path(file).match(pattern) for pattern in LEFT_OUT)]
    todo = [file for file in files if known.get(file, {}).get("text") != sources[file]]
    records = pool.map(record_calls, todo, [CODE] * len(todo), [limit] * len(todo))
    for file, record in zip(todo, records, strict=True):
        known[file] = {"text": sources[file], "tests": record}
        path.write_text(json.dumps(known))
    return {test: (seconds, set(calls)) for file in files for test, (seconds, calls) in known[file]["tests"].items()}


def choose_tests(mutant: Mutant, tests: Tests, limit: float) -> tuple[list[str], int, float]:
    """Choose the tests that call the changed function, or any function of the file if no test calls that one.

    Returns them in the order in which to run them, up to `limit` CPU seconds; how many are left out; and the seconds
    that the chosen ones take without the fault."""
    places = (f"{mutant.file}::{mutant.function}", f"{mutant.file}::")
    by_place = ([test for test, (_, calls) in tests.items() if place in calls] for place in places)
    calling = next(filter(None, by_place), [])
    cost = pd.Series({test: tests[test][0] for test in calling}, dtype=float).groupby(file_of).sum()
    mirror = f"tests/{os.path.dirname(mutant.file)}/test_{os.path.basename(mutant.file)}"
    calling.sort(key=lambda test: (file_of(test) != mirror, cost[file_of(test)], file_of(test), tests[test][0]))
    spent = list(accumulate(tests[test][0] for test in calling))
    n = bisect_right(spent, limit)
    return calling[:n], len(calling) - n, max(spent[:n], default=0.0)


def try_mutant(mutant: Mutant, tests: list[str], left_out: int, seconds: float) -> dict[str, Any]:
    """Put the fault into the copy and run the tests. Returns a row of the table."""
    path, started = Path(mutant.file), time.perf_counter()
    original = path.read_text()
    path.write_text(mutant.source)
    by = find_first_failure(tests, 10 + 4 * seconds)
    path.write_text(original)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):  # Python compares only the source's size and second
        compiled.unlink()
    seconds = round(time.perf_counter() - started, 1)
    result = {"noticed": bool(by), "by": by, "tests": len(tests), "left_out": left_out, "seconds": seconds}
    return mutant._asdict() | result


def summarise(drawn: list[Mutant], table: Path) -> pd.DataFrame:
    """Count, for each file and for all: faults drawn, equivalent and noticed, and the share noticed of the others."""
    noticed = {row[:-1] for row in read_identities(table, [*IDENTITY, "noticed"]) if row[-1]}
    equivalent = read_identities(EQUIVALENT)
    rows = []
    for mutant in drawn:
        key = identify(mutant)
        row = {"drawn": 1, "equivalent": key in equivalent, "noticed": key in noticed - equivalent}
        rows += [row | {"file": mutant.file}, row | {"file": "all"}]
    counts = pd.DataFrame(rows).groupby("file").sum()
    return counts.assign(share=(counts["noticed"] / (counts["drawn"] - counts["equivalent"])).round(2))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
