"""All that a training needs to go on, in one file: a safetensors file with a SHA-256, never a pickle."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from model import InputError
from model.checkpoint import DIGEST, digest
from model.files import written_whole

STATE = "state.safetensors"  # in a run's folder
TREE = "headgate_state"  # our key in the metadata: what is no tensor, and where which tensor belongs


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Tensors and what JSON can hold, in dicts and lists; whole or not at all. OSError where it cannot be written."""
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps(taken_apart(state, tensors))
    with written_whole(path) as [temporary]:
        try:
            save_file(tensors, temporary, metadata={TREE: tree, DIGEST: checksum(tensors, tree)})
        except SafetensorError as error:  # so safetensors calls a full disk
            raise OSError(f"{path} could not be written, is the disk full? ({error})") from None


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote, on the CPU. InputError where a bit of it is not as it was."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no dict)
            metadata = file.metadata() or {}
    except SafetensorError:
        metadata = {}
    if TREE not in metadata or metadata.get(DIGEST) != checksum(tensors, metadata[TREE]):
        raise InputError(f"{path} is damaged; remove {path.parent}, and begin anew")
    state: dict[str, Any] = put_together(json.loads(metadata[TREE]), tensors)
    return state


def checksum(tensors: dict[str, torch.Tensor], tree: str) -> str:
    """SHA-256 of the tensors and of the tree, which goes in as the name of an empty one."""
    return digest(tensors | {tree: torch.empty(0)})


def taken_apart(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The same with names instead of tensors, which are collected under these names; keys need not be strings."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"items": [[key, taken_apart(own, tensors)] for key, own in value.items()]}
    if isinstance(value, list | tuple):
        return [taken_apart(own, tensors) for own in value]
    return value


def put_together(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The inverse; tuples have become lists."""
    if isinstance(value, list):
        return [put_together(own, tensors) for own in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    return {key: put_together(own, tensors) for key, own in value["items"]}
