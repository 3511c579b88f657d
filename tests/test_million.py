"""A million texts: what train.py and ablate.py do with them, and how much memory that takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import write_shape

import train
from bench.corpora import CONFIG, write_corpus

ROOT = Path(train.__file__).parent
LIMIT = 2 * 2**30  # bytes, which the tiny network takes nothing of


# A process's own peak begins at that of the process that started it, which has run other tests; its child's does not.
MEASURE = "import resource as r, subprocess as s, sys; code = s.run(sys.argv[1:], stdout=s.DEVNULL).returncode; " + (
    "print(r.getrusage(r.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
)


def run_script(name: str, options: str, here: Path) -> int:
    """Run a script in a folder, in one thread; return the most bytes it has had at once, files and libraries too."""
    command = [sys.executable, "-c", MEASURE, sys.executable, str(ROOT / name), *options.split()]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    out = subprocess.run(command, cwd=here, env=one_thread, check=True, stdout=subprocess.PIPE).stdout
    return 1024 * int(out)


def test_the_memory_of_who_starts_a_script_is_not_counted(tmp_path):
    (tmp_path / "nothing.py").write_text("")
    taken = bytearray(b"1" * 2**29)
    assert run_script(str(tmp_path / "nothing.py"), "", tmp_path) < len(taken) / 2


@pytest.mark.slow
def test_a_million_texts_are_learnt_measured_and_swept_in_two_gigabytes(tmp_path):
    (tmp_path / "corpus").mkdir()
    write_corpus(tmp_path / "corpus", 1_000_000)
    write_shape(tmp_path / "tiny", CONFIG)
    options = "--model tiny --init random --corpus corpus --run one --epochs 1 --lr 0.02 --batch-size 1024 --dropout 0"
    assert run_script("train.py", f"{options} --device cpu", tmp_path) < LIMIT
    record = json.loads((tmp_path / "runs/one/run.json").read_text())
    assert record["corpus"]["texts"] == {"train": 800_000, "val": 100_000, "test": 100_000}
    assert record["texts"]["splits"]["train"]["tokens"]["max"] < 30
    metrics = json.loads((tmp_path / "runs/one/metrics.json").read_text())
    low, _ = metrics["test"]["intervals"]["accuracy"]
    assert low > 0.95  # of three classes alike in number: one word gives each text away
    assert metrics["baselines"]["bag_of_words"]["name"].endswith(", from 100,000 texts")
    assert metrics["baselines"]["bag_of_words"]["train"]["n"] <= 100_003
    with (tmp_path / "runs/one/predictions.csv").open() as file:
        assert sum(1 for _ in file) == 200_001
    options = "--run one --texts 500 --units heads layers --fill mean --device cpu"
    assert run_script("ablate.py", options, tmp_path) < LIMIT
    assert "500 texts of test" in (tmp_path / "runs/one/ablate/report.md").read_text()
