"""The state of a training on disk: what goes in comes out, whatever was damaged is refused, nothing is half written."""

import errno
import math
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from lab.state import read_state, write_state
from model import InputError

TENSORS = {
    "float": torch.tensor([[1.5, -0.0, math.inf], [math.nan, 1e-45, 3.4e38]]),
    "bf16": torch.tensor([1.5, -2.25, math.inf], dtype=torch.bfloat16),
    "bytes": torch.arange(256, dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "number": torch.tensor(7),
    "empty": torch.empty(0, 3),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "slice": torch.arange(10)[::3],
}


@pytest.fixture
def small(tmp_path) -> Path:
    """The file of a small state."""
    write_state(tmp_path / "state", {"epoch": 3, "moment": torch.tensor([0.5, -2.0]), "log": [{"loss": 0.25}]})
    return tmp_path / "state"


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_comes_back_with_its_bits(tmp_path, name):
    tensor = TENSORS[name]
    write_state(tmp_path / "state", {"a": tensor, "b": [tensor.clone()]})
    state = read_state(tmp_path / "state")
    for back in (state["a"], state["b"][0]):
        assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
        bits = [each.contiguous().reshape(-1).view(torch.uint8) for each in (back, tensor)]
        assert torch.equal(*bits)


def test_what_is_no_tensor_comes_back_too(tmp_path):
    told = {"none": None, "text": "é\n\0", "list": [1, [True, {}], []], "numbers": {0: 0.1, 13: {-1: math.inf}}}
    told |= {"tensor": 1, "items": {"items": [], "tensor": "0"}}  # words that the file itself uses
    write_state(tmp_path / "state", told | {"tuple": (1, 2)})
    assert read_state(tmp_path / "state") == told | {"tuple": [1, 2]}


def test_an_optimizer_goes_on_from_it(tmp_path):
    def trained(steps: int, optimizer: torch.optim.Optimizer, weight: torch.Tensor) -> torch.Tensor:
        for step in range(steps):
            weight.grad = torch.full_like(weight, 0.3 + step)
            optimizer.step()
        return weight

    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    ours, theirs = (torch.optim.AdamW([weight], lr=0.1) for weight in weights)
    trained(2, ours, weights[0])
    write_state(tmp_path / "state", {"weight": weights[0], "optimizer": ours.state_dict()})
    state = read_state(tmp_path / "state")
    weights[1].data.copy_(state["weight"])
    theirs.load_state_dict(state["optimizer"])
    assert torch.equal(trained(3, ours, weights[0]), trained(3, theirs, weights[1]))


def test_every_flipped_bit_is_refused(small):
    """All bits of all bytes, of numbers, header, names and checksum alike."""
    whole = bytearray(small.read_bytes())
    for position in range(len(whole)):
        for bit in range(8):
            whole[position] ^= 1 << bit
            small.write_bytes(whole)
            with pytest.raises(InputError, match=re.escape(f"{small} is damaged; remove {small.parent}")):
                read_state(small)
            whole[position] ^= 1 << bit
    small.write_bytes(whole)
    assert read_state(small)["epoch"] == 3


def test_every_truncated_file_is_refused(small):
    whole = small.read_bytes()
    for size in range(len(whole)):
        small.write_bytes(whole[:size])
        with pytest.raises(InputError, match="is damaged"):
            read_state(small)
    small.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match="is damaged"):
        read_state(small)


def test_swapped_tensors_are_refused(tmp_path):
    path = tmp_path / "state"
    write_state(path, {"a": torch.zeros(2), "b": torch.ones(2)})
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    save_file({"0": tensors["1"], "1": tensors["0"]}, path, metadata=metadata)
    with pytest.raises(InputError, match="is damaged"):
        read_state(path)


class Payload:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    "dump", [lambda it, path: path.write_bytes(pickle.dumps(it)), torch.save], ids=["pickle", "pt"]
)
def test_a_pickle_is_refused_and_never_opened(tmp_path, dump):
    path, victim = tmp_path / "state", tmp_path / "written"
    dump(Payload(victim), path)
    with pytest.raises(InputError, match="is damaged"):
        read_state(path)
    assert not victim.exists()


def test_a_full_disk_is_one_line_and_the_former_state_stays(small):
    former = small.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.state.save_file", out_of_space)
        with pytest.raises(OSError, match="could not be written, is the disk full") as caught:
            write_state(small, {"epoch": 4})
    assert "\n" not in str(caught.value)
    assert small.read_bytes() == former
    assert list(small.parent.iterdir()) == [small]


def out_of_space(tensors: object, path: Path, **options: object) -> None:
    """As safetensors tells of it, with half of the file written."""
    path.write_bytes(b"half")
    raise SafetensorError(f"Error while serializing: I/O error: No space left on device (os error {errno.ENOSPC})")
