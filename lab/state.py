"""The state of a training, from which it goes on: one safetensors file with a SHA-256, never a pickle.

Where weights are sharded, `experiments.train.sharded` writes the rest into a folder beside it, which the file names."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from model import InputError
from model.checkpoint import DIGEST, digest
from model.files import written_whole

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
    """Return a value with names in place of its tensors, and add these to `tensors`. Keys need not be strings."""
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
