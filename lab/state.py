"""The state of a training, from which it goes on: one safetensors file with a SHA-256, never a pickle.

Where weights are sharded, torch.distributed.checkpoint writes the part of each process into a folder beside it, as
safetensors, too: its usual format holds a pickle, which could run anything. The file names the folder and the SHA-256
of all that is in it, so state and folder become valid together when the file appears."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed import checkpoint
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from model import InputError
from model.checkpoint import DIGEST, digest
from model.files import written_whole

from .device import Device

STATE = "state.safetensors"  # in a run's folder
SHARDS = ("shards-0", "shards-1")  # folders beside it: the one that it names, and the next one
TREE = "headgate_state"  # our key in the metadata: the state as JSON, with names in place of its tensors


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and JSON values, nested in dicts and lists: whole or not at all. Raises OSError on a full disk."""
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps(take_out_tensors(state, tensors))
    with written_whole(path) as [temporary]:
        try:
            save_file(tensors, temporary, metadata={TREE: tree, DIGEST: checksum(tensors, tree)})
        except SafetensorError as error:  # safetensors' name for a full disk
            raise OSError(f"{path} could not be written, is the disk full? ({error})") from None


def read_state(path: Path) -> dict[str, Any]:
    """Read what `write_state` wrote, onto the CPU. Raises InputError where any bit of it has changed."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no dict)
            metadata = file.metadata() or {}
    except SafetensorError:
        metadata = {}
    if TREE not in metadata or metadata.get(DIGEST) != checksum(tensors, metadata[TREE]):
        raise InputError(f"{path} is damaged; remove {path.parent}, and begin anew")
    state: dict[str, Any] = put_in_tensors(json.loads(metadata[TREE]), tensors)
    return state


def write_sharded_state(path: Path, state: dict[str, Any], parts: dict[str, torch.Tensor], device: Device) -> None:
    """Collective. Write a state, and tensors of which each process keeps a part: whole or not at all. parts: see
    `list_parts`. Raises OSError on a full disk."""
    folder = path.parent / device.run_on_first(lambda: choose_folder(path))
    try:
        checkpoint.save(dict(parts), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        causes = {str(cause) for cause, _ in error.failures.values()}
        raise OSError(f"{folder} could not be written, is the disk full? ({'; '.join(causes)})") from None
    state = state | {"shards": {"folder": folder.name, "sha256": hash_files(folder, device)}}

    def replace() -> None:
        write_state(path, state)
        remove_shards(path.parent, folder.name)

    device.run_on_first(replace)


def read_parts(path: Path, state: dict[str, Any], parts: dict[str, torch.Tensor], device: Device) -> None:
    """Collective. Read the parts that were written with this state into tensors of the same names and sharding.

    Raises InputError where any bit of them has changed."""
    folder, hashes = path.parent / state["shards"]["folder"], state["shards"]["sha256"]
    found = hash_files(folder, device)

    def check() -> None:
        if found != hashes:
            raise InputError(f"{folder} is damaged; remove {path.parent}, and begin anew")

    device.run_on_first(check)
    checkpoint.load(dict(parts), storage_reader=HuggingFaceStorageReader(str(folder)))


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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_shards(run: Path, needed: str | None = None) -> None:
    """Remove the folders of sharded states, but for the one that is needed."""
    for name in SHARDS:
        if name != needed:
            shutil.rmtree(run / name, ignore_errors=True)


def remove_state(run: Path) -> None:
    """Remove the state of a run that needs none any more."""
    (run / STATE).unlink(missing_ok=True)
    remove_shards(run)


def checksum(tensors: dict[str, torch.Tensor], tree: str) -> str:
    """Return the SHA-256 of the tensors and of the tree, which goes in as the name of an empty tensor."""
    return digest(tensors | {tree: torch.empty(0)})


def take_out_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return a value with names in place of its tensors, and add these to `tensors`. Keys need not be strings. What is
    sharded becomes None: `write_sharded_state` gets it by itself."""
    if isinstance(value, DTensor):
        return None
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"items": [[key, take_out_tensors(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [take_out_tensors(item, tensors) for item in value]
    return value


def put_in_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Undo `take_out_tensors`, but for tuples, which have become lists."""
    if isinstance(value, list):
        return [put_in_tensors(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    return {key: put_in_tensors(item, tensors) for key, item in value["items"]}
