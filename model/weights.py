"""The weights of a checkpoint: safetensors in one file or in shards, under the names that headgate gives them.

It never unpickles anything."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import hub
from .config import InputError
from .files import read_json
from .names import ADAPTER, INDEX, SHAPE_ALONE, WEIGHTS, advise, describe_files

LM_HEAD, SCORE = "lm_head.weight", "score.weight"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MASK_BUFFERS = re.compile(
    r"trunk\.h\.\d+\.attn\.(attention\.)?(bias|masked_bias)"
)  # old transformers saved its causal mask
WRAPPERS = {  # parts of a name that say which module was inside which
    "transformer",  # the trunk, in the models of HF
    "_orig_mod",  # torch.compile
    "module",  # DataParallel and DistributedDataParallel
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",  # activation checkpointing
    "base_model",  # peft
    "model",  # peft and Lightning
}
STRANGERS = {  # patterns of names that no GPT-2 of ours has, and what they mean
    r"lora_|\.base_layer\.|\.original_module\.|\.modules_to_save\.": (
        "belongs to an adapter; merge it into the model with peft, merge_and_unload(), and save the result"
    ),
    r"\.(qweight|qzeros|scales|g_idx|SCB|weight_format|absmax|quant_map|nested_absmax|quant_state\..*)$": (
        "is of quantised weights, which are not read; save the model in 16 or 32 bits"
    ),
    r"(^|\.)classifier\.": "is the head of a model that classifies tokens; headgate classifies texts",
    r"(^|\.)qa_outputs\.": "is the head of a model that marks answers in a text; headgate classifies texts",
    r"(^|\.)multiple_choice_head\.": "is the head of a model that chooses between texts; headgate classifies texts",
    r"(^|\.)v_head\.": "is the head of a model that estimates rewards; headgate classifies texts",
    r"(^|\.)score\.bias$": "is the bias of a classification head, and the heads of GPT-2 have none",
    r"\.(crossattention|ln_cross_attn)\.": "belongs to cross-attention, which headgate does not implement",
}


class StoredTensor(NamedTuple):
    """Where a tensor is."""

    path: Path
    key: str  # what the file calls it
    shape: tuple[int, ...]  # as in the file

    @property
    def is_mask(self) -> bool:
        return bool(MASK_BUFFERS.fullmatch(our_name(self.key)))

    def read(self) -> Tensor:
        """Return the tensor, unchanged; InputError unless it is a mask or holds finite floating-point numbers."""
        with open_file(self.path) as file:  # for each, because the pages read of a mapped file count as memory
            tensor: Tensor = file.get_tensor(self.key)
        if self.is_mask:
            return tensor
        if tensor.dtype not in FLOATS:
            expected = f"expected floating-point numbers of at least 16 bits, got {tensor.dtype}"
            raise InputError(f"{self.path}: {self.key}: {expected}; save a quantised model in 16 or 32 bits")
        # A sum needs no memory, but may overflow. In fp32, because fp32 cannot hold every number in fp64.
        if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.float().isfinite().all():
            reason = "holds numbers that are not finite; this checkpoint comes from a failed training"
            raise InputError(f"{self.path}: {self.key} {reason}")
        return tensor


def find_files(folder: Path) -> list[Path]:
    """Return the files that hold the weights, in the order of their names. InputError says what is there instead."""
    file_names = {path.name for path in folder.iterdir() if path.is_file()}
    if ADAPTER in file_names:  # `transformers` would read it together with the model that it names
        raise InputError(f"{folder}: {advise([ADAPTER])}; where this is done, remove {ADAPTER}")
    names = sorted({*read_index(folder).values()})
    if missing := [name for name in names if name not in file_names]:
        raise InputError(f"{folder}: {INDEX} names {', '.join(missing)}, and there is no such file; fetch it too")
    if not names and WEIGHTS not in file_names:
        only_shape = "config.json" in file_names and not advise([*file_names])
        advice = f", no weights; {SHAPE_ALONE}" if only_shape else ""
        raise InputError(f"{folder}: expected {WEIGHTS}, {describe_files(sorted(file_names))}{advice}")
    return [folder / name for name in names or [WEIGHTS]]


def read_index(folder: Path) -> dict[str, str]:
    """Return the file of each tensor of weights in shards; nothing where one file holds all, which goes before them."""
    path = folder / INDEX
    if (folder / WEIGHTS).is_file() or not path.is_file():
        return {}
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{path}: expected a weight_map, which says in which file each tensor is")
    for key, name in weight_map.items():
        if not isinstance(name, str) or not name.endswith(".safetensors") or "/" in name or "\\" in name:
            raise InputError(f"{path}: {key}: expected a safetensors file in the same folder, got {name!r}")
    return weight_map


def hash_weights(folder: Path) -> str:
    """Return the SHA-256 of the weights: of the one file, or of the SHA-256s of all shards, in hex digits."""
    hashes = [hub.content_hash(path) for path in find_files(folder)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def list_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return where each tensor of a checkpoint is, by our name, without reading any.

    Raises InputError if a file is missing or damaged, a tensor is there twice, or it is of another kind of model."""
    tensors: dict[str, StoredTensor] = {}
    for path in find_files(folder):
        with open_file(path) as file:
            for key in file.keys():  # noqa: SIM118  (safe_open is no dict)
                check_key(key, path)
                stored = StoredTensor(path, key, tuple(file.get_slice(key).get_shape()))
                other = tensors.setdefault(our_name(key), stored)
                if other is not stored:
                    where = f"{other.key} in {other.path.name} and {key} in {path.name}"
                    raise InputError(f"{folder}: {where} are the same tensor; remove one of them")
    stored_keys = {(stored.key, stored.path.name) for stored in tensors.values()}
    if absent := sorted(read_index(folder).items() - stored_keys):
        places = ", ".join(f"{key} in {name}" for key, name in absent)
        raise InputError(f"{folder / INDEX} promises what is not there: {places}; fetch index and shards anew")
    return tensors


def check_key(key: str, path: Path) -> None:
    """Raise InputError where a name shows that this is another kind of model."""
    for pattern, meaning in STRANGERS.items():
        if re.search(pattern, key):
            raise InputError(f"{path}: {key} {meaning}")


def check_fit(
    folder: Path, expected: dict[str, tuple[int, ...]], tensors: dict[str, StoredTensor], unused: set[str]
) -> None:
    """Raise InputError if the names or shapes of stored tensors differ from those expected, by our names."""
    droppable = {name for name, stored in tensors.items() if stored.is_mask} | {LM_HEAD} | unused
    missing = sorted(name.removeprefix("trunk.") for name in expected.keys() - tensors.keys())
    unexpected = sorted(tensors[name].key for name in tensors.keys() - expected.keys() - droppable)
    mismatched = [
        f"{tensors[name].key} expected {shape} got {tensors[name].shape}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    empty = sorted(name for name in tensors.keys() & droppable if 0 in tensors[name].shape)  # other sizes may be absurd
    shapes = ("wrong shape", mismatched)
    kinds = (("missing", missing), ("unexpected", unexpected), shapes, ("without numbers", empty))
    if differences := [f"{kind}: {', '.join(names)}" for kind, names in kinds if names]:
        raise InputError(f"{folder}: the weights do not fit config.json: {'; '.join(differences)}")


def our_name(key: str) -> str:
    """Return the name of a tensor behind our `trunk.`, whatever its model was in: `module.transformer.wte.weight` ->
    `trunk.wte.weight`."""
    name = ".".join(part for part in key.split(".") if part not in WRAPPERS)
    return name if name in (LM_HEAD, SCORE) else f"trunk.{name}"


def read_metadata(folder: Path) -> dict[str, str]:
    """Return what a single file says about itself; nothing of shards, which headgate never writes."""
    [path, *others] = find_files(folder)
    with open_file(path) as file:
        return {} if others else file.metadata() or {}


@contextmanager
def open_file(path: Path) -> Iterator[Any]:
    """Open a safetensors file; InputError if it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise InputError(f"{path} is truncated or damaged ({path.stat().st_size:,} bytes): {error}") from None
