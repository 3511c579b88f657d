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

TREE = "headgate_state"  # our key in the metadata: what is no tensor, and where which tensor belongs


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Tensors and what JSON can hold, in dicts and lists; whole or not at all. OSError where it cannot be written."""
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps(taken_apart(state, tensors))
    with written_whole(path) as [temporary]:
        try:
            save_file(tensors, temporary, metadata={TREE: tree, DIGEST: digest(tensors | {tree: torch.empty(0)})})
        except SafetensorError as error:  # so safetensors calls a full disk
            raise OSError(f"{path} could not be written, is the disk full? ({error})") from None


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote, on the CPU. InputError where a bit of it is not as it was."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no dict)
            told = file.metadata() or {}
    except SafetensorError:
        told = {}
    if TREE not in told or told.get(DIGEST) != digest(tensors | {told[TREE]: torch.empty(0)}):
        raise InputError(f"{path} is damaged; remove {path.parent}, and begin anew")
    state: dict[str, Any] = put_together(json.loads(told[TREE]), tensors)
    return state


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
