"""Where the states of sharded weights lie."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.train.sharded import choose_folder
from lab.state import SHARDS, STATE, write_state

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("needed", SHARDS)
def test_a_new_state_never_goes_where_the_one_that_counts_lies(tmp_path, needed):
    [other] = set(SHARDS) - {needed}
    for name in SHARDS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text(name)
    write_state(tmp_path / STATE, {"shards": {"folder": needed}})
    assert choose_folder(tmp_path / STATE) == other
    assert not (tmp_path / other).exists()  # a killed process may have left half of it
    assert (tmp_path / needed / "part").read_text() == needed


def test_without_a_state_no_folder_is_needed(tmp_path):
    (tmp_path / SHARDS[1]).mkdir()
    assert choose_folder(tmp_path / STATE) in SHARDS
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_nobody_else_waits_for_its_imports():
    """They take more than a second."""
    code = "import sys, train, pretrain; sys.exit('torch.distributed.checkpoint' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
