"""The state of a training of which each process keeps a part.

torch.distributed.checkpoint writes the shards of all processes into a folder beside the file of the state, as
safetensors, too: its usual format holds a pickle, which could run anything. The file names the folder and the SHA-256
of all that is in it, so state and folder become valid together when the file appears."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from lab.device import Device
from lab.state import SHARDS, read_state, remove_shards, write_state
from model import InputError


def write_sharded_state(path: Path, state: dict[str, Any], shards: dict[str, Tensor], device: Device) -> None:
    """Collective. Write a state and the shards of all processes: whole or not at all. shards: see `list_shards`.

    Raises OSError on a full disk."""
    folder = path.parent / device.run_on_first(lambda: choose_folder(path))
    try:
        checkpoint.save(dict(shards), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        causes = {str(cause) for cause, _ in error.failures.values()}
        raise OSError(f"{folder} could not be written, is the disk full? ({'; '.join(causes)})") from None
    state = leave_out_shards(state) | {"shards": {"folder": folder.name, "sha256": hash_files(folder, device)}}

    def replace() -> None:
        write_state(path, state)
        remove_shards(path.parent, folder.name)

    device.run_on_first(replace)


def read_shards(path: Path, state: dict[str, Any], shards: dict[str, Tensor], device: Device) -> None:
    """Collective. Read the shards that were written with this state into tensors of the same names and sharding.

    Raises InputError where any bit of them has changed."""
    folder, hashes = path.parent / state["shards"]["folder"], state["shards"]["sha256"]
    found = hash_files(folder, device)

    def check() -> None:
        if found != hashes:
            raise InputError(f"{folder} is damaged; remove {path.parent}, and begin anew")

    device.run_on_first(check)
    checkpoint.load(dict(shards), storage_reader=HuggingFaceStorageReader(str(folder)))


def list_shards(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return all tensors of which this process keeps a part, by name: the weights, and what the optimizer keeps of
    each."""
    shards = dict(model.state_dict())
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        shards |= {f"{name}.{key}": value for key, value in state.items() if isinstance(value, DTensor)}
    return shards


def make_shards(optimizer: torch.optim.Optimizer) -> None:
    """Make room for the shards that a state left out: `list_shards` then lists them to be read."""
    for parameter, state in optimizer.state.items():
        state.update({key: torch.zeros_like(parameter) for key, value in state.items() if value is None})


def leave_out_shards(value: Any) -> Any:
    """Return a value with None in place of its sharded tensors."""
    if isinstance(value, dict):
        return {key: leave_out_shards(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [leave_out_shards(item) for item in value]
    return None if isinstance(value, DTensor) else value


def choose_folder(path: Path) -> str:
    """Return the name of the folder that the state in this file does not need, and remove what is there."""
    needed = read_state(path)["shards"]["folder"] if path.is_file() else None
    [name, *_] = [name for name in SHARDS if name != needed]
    remove_shards(path.parent, needed)
    return name


def hash_files(folder: Path, device: Device) -> dict[str, str]:
    """Collective. Return the SHA-256 of each file in a folder; the processes share the work."""
    rows = ((path.name, hash_file(path)) for path in device.share(sorted(folder.glob("*"))))
    return dict(device.gather_rounds(rows))


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
