"""Results on disk: used again for the same identity, computed anew for another, removed without others' files."""

import numpy as np
import pytest
import torch

from lab.device import Device
from lab.kept import open_array, read_result, remove_results, write_result

CPU = Device(torch.device("cpu"), "fp32")
ABOUT = {"weights": "0" * 64, "seed": 0, "precision": "fp32"}


def test_a_result_is_read_under_its_identity_alone(tmp_path):
    path = tmp_path / "task.json"
    assert read_result(path, ABOUT) is None
    write_result(path, ABOUT, {"rows": [1.5, None]})
    assert read_result(path, ABOUT) == {"rows": [1.5, None]}
    assert read_result(path, ABOUT | {"seed": 1}) is None


def test_an_array_keeps_what_was_written_under_its_identity_and_is_empty_under_another(tmp_path):
    path = tmp_path / "logits.npy"
    array = open_array(path, ABOUT, (2, 3), CPU)
    assert np.isnan(array).all()
    array[1] = 7
    array.flush()
    np.testing.assert_array_equal(open_array(path, ABOUT, (2, 3), CPU), [[np.nan] * 3, [7] * 3])
    assert np.isnan(open_array(path, ABOUT | {"seed": 1}, (5,), CPU)).all()


@pytest.mark.parametrize("name", ["notes.json", "list.json", "no.json", "seeds.json", "plan.npy"])
def test_only_results_that_were_kept_are_removed(tmp_path, name):
    contents = {"notes.json": "{}", "list.json": "[1]", "no.json": "{", "seeds.json": '{"about": {"seed": 1}}'}
    (tmp_path / name).write_text(contents.get(name, "numbers"))
    write_result(tmp_path / "task.json", ABOUT, {})
    open_array(tmp_path / "logits.npy", ABOUT, (2,), CPU)
    remove_results(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
