"""Our pictures need no backend of matplotlib: one that is missing stops nothing, and one that is there stays chosen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_imports import modules

ROOT = Path(__file__).parent.parent
INLINE = "module://matplotlib_inline.backend_inline"  # what a notebook hands on to all that it starts
SAY = "import os, matplotlib; print(os.environ['MPLBACKEND'], dict.__getitem__(matplotlib.rcParams, 'backend'))"


def run_python(code: str, backend: str, *path: Path) -> str:
    environment = os.environ | {"MPLBACKEND": backend, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *path)))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_only_modules_of_these_packages_import_matplotlib():
    files = {name: file for name, file in modules().items() if "matplotlib" in file.read_text(encoding="utf-8")}
    assert {name.split(".")[0] for name in files} == {"lab", "experiments", "bench"}


@pytest.mark.parametrize("package", ["lab", "experiments", pytest.param("bench.speed", marks=pytest.mark.slow)])
@pytest.mark.parametrize("backend", [INLINE, "foo"])
def test_a_backend_that_is_missing_stops_no_import(package, backend):
    said = run_python(f"import {package}, matplotlib.figure; {SAY}", backend)
    assert said.split()[0] == backend  # of a process that is started next


@pytest.mark.slow
def test_pictures_are_drawn_where_it_is_missing(tmp_path):
    save = f"figures.save(figures.Figure(), Path({str(tmp_path / 'x.png')!r}))"
    run_python(f"from pathlib import Path; from lab import figures; {save}", "foo")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_a_notebook_keeps_its_backend(tmp_path):
    """matplotlib finds the backend by an entry point."""
    module, listed = tmp_path / "matplotlib_inline", tmp_path / "matplotlib_inline-1.dist-info"
    for folder in (module, listed):
        folder.mkdir()
    (module / "__init__.py").touch()
    (module / "backend_inline.py").write_text("from matplotlib.backends.backend_agg import *\n")
    (listed / "METADATA").write_text("Metadata-Version: 2.1\nName: matplotlib-inline\nVersion: 1\n")
    (listed / "entry_points.txt").write_text("[matplotlib.backend]\ninline = matplotlib_inline.backend_inline\n")
    assert run_python(f"import lab; {SAY}", INLINE, tmp_path) == f"{INLINE} {INLINE}"
    drawn = "from matplotlib import pyplot; pyplot.figure(); print(pyplot.get_backend())"
    assert run_python(f"import lab; {drawn}", INLINE, tmp_path) in (INLINE, "inline")


def test_what_is_imported_already_stays_as_it_is():
    assert run_python(f"import matplotlib; matplotlib.use('svg'); import lab; {SAY}", "agg") == "agg svg"
