"""Checkpoints in the Hugging Face layout, read and written: a folder with config.json and model.safetensors.

HF's GPT-2 has its projections as Conv1D, [in, out], ours are nn.Linear, [out, in]: this file transposes them both ways.
It never unpickles anything.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import hub
from .config import PRESETS, GPT2Config, InputError
from .files import read_json, written_whole
from .names import WEIGHTS, config_alone, find
from .readout import GPT2LM, GPT2Classifier, are_names, fresh_head
from .tokenizer import Tokenizer

log = logging.getLogger("headgate")

DIGEST = "headgate_sha256"  # our keys in the safetensors metadata: of the tensors,
CONFIG_DIGEST = "headgate_config_sha256"  # and of the config.json
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
MASK_BUFFERS = re.compile(r"(^|\.)h\.\d+\.attn\.(bias|masked_bias)$")  # old transformers saved its causal mask


def read_config(folder_or_name: str | Path, dropout: float | None = None) -> GPT2Config:
    """Return the shape of a checkpoint or of a published name, without its weights; `dropout` replaces both rates."""
    if folder_or_name in PRESETS and not Path(folder_or_name).is_dir():
        config = GPT2Config.preset(str(folder_or_name))
    else:
        folder = find(folder_or_name, config_alone)
        config = GPT2Config.from_hf(read_json(folder / "config.json"), str(folder_or_name))
    return config if dropout is None else replace(config, dropout=dropout, attn_dropout=dropout)


def read_plausible_config(folder: Path, dropout: float | None = None) -> GPT2Config:
    """Return the shape of a checkpoint; InputError if it has more layers than the weights have tensors, for a damaged
    config may ask for more than memory can hold."""
    config = read_config(folder, dropout)
    with open_weights(folder) as file:
        tensors = len(file.keys())
    if config.n_layer > tensors:
        raise InputError(f"{folder / WEIGHTS} does not fit its config: {config.n_layer} layers, {tensors} tensors")
    return config


def load_lm(folder_or_name: str | Path, dropout: float | None = None) -> GPT2LM:
    """Load a language model from a folder or a name, in fp32 and eval mode. InputError lists what does not fit.

    `dropout` replaces both rates of its config."""
    folder = find(folder_or_name)
    config = read_plausible_config(folder, dropout)
    with uninitialised():
        model = GPT2LM(config)
    read_weights(model, folder, unused={"score.weight"})
    return model.eval()


def load_classifier(
    folder_or_name: str | Path, labels: Sequence[str] | None = None, dropout: float | None = None
) -> GPT2Classifier:
    """Load a classifier from a folder or a name, in fp32 and eval mode. InputError lists what does not fit.

    A checkpoint without a head needs `labels`, and gets a fresh head, N(0, 0.02). With a head, `labels` must be the
    checkpoint's own. `dropout` replaces both rates of its config."""
    folder = find(folder_or_name)
    stored_labels = read_labels(folder)
    if stored_labels is None and labels is None:
        raise InputError(f"{folder}: this checkpoint has no classification head; say which labels a fresh one is for")
    if stored_labels is not None and labels is not None and stored_labels != tuple(labels):
        expected = f"expected {', '.join(labels)}; its language model, or --init random, can start on these"
        raise InputError(f"{folder}: its classes are {', '.join(stored_labels)}; {expected}")
    names = stored_labels or labels or ()
    config = read_plausible_config(folder, dropout)
    with uninitialised():
        model = GPT2Classifier(config, names)
    if stored_labels is None:
        model.score = fresh_head(config, len(names))
    read_weights(model, folder, fresh={"score.weight"} if stored_labels is None else set())
    return model.eval()


@contextmanager
def uninitialised() -> Iterator[None]:
    """Let models made within take neither memory nor random numbers for weights that will be read."""
    with torch.device("meta"), NoInit():  # on meta alone, nn.init would spend a second on imports
        yield


class NoInit(TorchFunctionMode):
    """Leaves out every nn.init."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


def save(
    model: GPT2LM | GPT2Classifier,
    folder: str | Path,
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a checkpoint that `transformers` opens too, whole or not at all; `dtype` None keeps the model's.

    The metadata of model.safetensors hold a SHA-256 of the tensors and one of config.json. If they do not match,
    loading refuses the tensors, and warns of the config. OSError leaves the files of before as they were."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, parameter in model.state_dict().items():
        value = parameter.T if name.endswith(TRANSPOSED) else parameter
        tensors[name.replace("trunk.", "transformer.")] = value.detach().to("cpu", dtype or value.dtype).contiguous()
    raw = model.config.to_hf() | {"dtype": str(dtype or model.trunk.wte.weight.dtype).removeprefix("torch.")}
    if isinstance(model, GPT2Classifier):
        id2label = dict(enumerate(model.labels))
        raw |= {"architectures": ["GPT2ForSequenceClassification"], "id2label": id2label}
        raw |= {"label2id": {label: i for i, label in id2label.items()}}
    if tokenizer:
        raw |= tokenizer.hf_ids()
    config = json.dumps(raw, indent=2).encode()
    metadata = {"format": "pt", DIGEST: digest(tensors), CONFIG_DIGEST: hashlib.sha256(config).hexdigest()}
    files = {"config.json": config}
    if tokenizer:
        hf = tokenizer.hf_settings(model.config.n_ctx)
        files |= tokenizer.files | {"tokenizer_config.json": json.dumps(hf, indent=2).encode()}
    try:
        with written_whole(*(folder / name for name in (WEIGHTS, *files))) as (weights, *others):
            for path, content in zip(others, files.values(), strict=True):
                path.write_bytes(content)
            save_file(tensors, weights, metadata=metadata)
            sort_metadata(weights)
            shutil.copymode(others[0], weights)  # safetensors makes its file private
    except (OSError, SafetensorError) as error:  # a full disk may raise any, mostly without the name of a file
        raise OSError(f"{folder}: the model could not be saved, is the disk full? ({error})") from None


def sort_metadata(path: Path) -> None:
    """Sort the metadata, which safetensors writes in random order, so that equal tensors make equal files."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")  # bytes of the header: JSON padded with spaces
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":")).encode().ljust(size))


def read_weights(model: nn.Module, folder: Path, unused: set[str] | None = None, fresh: set[str] | None = None) -> None:
    """Fill `model` from the folder's safetensors, tensor by tensor, so that memory never holds a second copy.

    Only the file may have the tensors in `unused`, only the model those in `fresh`. Any other difference in names or
    shapes raises InputError, and so do damaged weights."""
    path = folder / WEIGHTS
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in (fresh or set())}
    keys, metadata = match_keys(folder, wanted, unused or set())
    stored_digest, stored_config_digest = metadata.get(DIGEST), metadata.get(CONFIG_DIGEST)
    sha = hashlib.sha256()
    order = sorted(keys.items(), key=lambda pair: pair[1])
    if not stored_digest:  # largest first, for a copy needs twice a tensor's memory
        order.sort(key=lambda pair: -wanted.get(pair[0], torch.Size([0])).numel())
    for name, key in order:
        with open_weights(folder) as file:  # for each, because the pages read of a mapped file count as memory
            tensor = read_tensor(file, key, path)
            if stored_digest:
                update_hash(sha, key, tensor)
            if name in wanted:
                set_parameter(model, name, tensor.T if name.endswith(TRANSPOSED) else tensor)
    if stored_digest and stored_digest != sha.hexdigest():
        raise InputError(f"{path} is damaged: its tensors do not match the SHA-256 stored with them")
    config_digest = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
    if stored_config_digest and stored_config_digest != config_digest:
        log.warning("%s: config.json was changed since %s was saved with it", folder, WEIGHTS)
    if not stored_digest and not hub.is_verified(path):
        log.warning("%s was not saved by headgate: there is no SHA-256 to check its tensors against", path)
    if "lm_head.weight" in keys:
        with open_weights(folder) as file:
            tied = torch.equal(file.get_tensor("lm_head.weight").float(), model.get_parameter("trunk.wte.weight"))
        if not tied:
            raise InputError(f"{path}: lm_head.weight differs from wte.weight, and headgate ties the two")


def match_keys(folder: Path, wanted: dict[str, torch.Size], unused: set[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the file's key of each tensor by our name, and its metadata; InputError if names or shapes differ."""
    with open_weights(folder) as file:
        keys = {our_name(key): key for key in file.keys()}  # noqa: SIM118  (safe_open is no dict)
        droppable = {name for name in keys if MASK_BUFFERS.search(name)} | {"lm_head.weight"} | unused
        shapes = {name: tuple(file.get_slice(key).get_shape()) for name, key in keys.items()}
        shapes = {name: shape[::-1] if name.endswith(TRANSPOSED) else shape for name, shape in shapes.items()}
        differences = compare(wanted, shapes, droppable)
        if len(keys) < len(file.keys()):
            differences.append("some tensors are there with and without the prefix `transformer.`")
        if differences:
            raise InputError(f"{folder / WEIGHTS} does not fit its config: {'; '.join(differences)}")
        return keys, file.metadata() or {}


def set_parameter(model: nn.Module, name: str, value: Tensor) -> None:
    """Replace one parameter by an fp32 copy of `value`."""
    owner, _, attribute = name.rpartition(".")
    copy = torch.empty(value.shape, dtype=torch.float32).copy_(value)
    setattr(model.get_submodule(owner), attribute, nn.Parameter(copy))


def compare(wanted: dict[str, torch.Size], stored: dict[str, tuple[int, ...]], droppable: set[str]) -> list[str]:
    """Say in words how the stored names and shapes differ from those wanted."""
    missing = sorted(wanted.keys() - stored.keys())
    unexpected = sorted(stored.keys() - wanted.keys() - droppable)
    mismatched = [
        f"{name} expected {tuple(shape)} got {stored[name]}"
        for name, shape in wanted.items()
        if name in stored and stored[name] != shape
    ]
    empty = sorted(name for name in stored.keys() & droppable if 0 in stored[name])  # their other sizes may be absurd
    shapes = ("wrong shape (as [out, in])", mismatched)
    kinds = (("missing", missing), ("unexpected", unexpected), shapes, ("without numbers", empty))
    return [f"{kind}: {', '.join(names)}" for kind, names in kinds if names]


def our_name(key: str) -> str:
    """Return our name of HF's tensor: `transformer.h.0.ln_1.bias` and `h.0.ln_1.bias` -> `trunk.h.0.ln_1.bias`."""
    return key if key in ("lm_head.weight", "score.weight") else "trunk." + key.removeprefix("transformer.")


@contextmanager
def open_weights(folder: Path) -> Iterator[Any]:
    """Open the folder's safetensors file; InputError if it is missing or damaged."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / "pytorch_model.bin").is_file()
        reason = "only a pytorch_model.bin, whose unpickling could run any code" if pickled else "no weights"
        advice = "convert it to safetensors" if pickled else "start from its shape with --init random"
        raise InputError(f"{folder}: expected {WEIGHTS}, found {reason}; {advice}")
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise InputError(f"{path} is truncated or damaged ({path.stat().st_size:,} bytes): {error}") from None


def read_tensor(file: Any, key: str, path: Path) -> Tensor:
    """Return a tensor of the file, unchanged; InputError unless it holds finite floating-point numbers."""
    tensor = file.get_tensor(key)
    if MASK_BUFFERS.search(key):
        return tensor
    if tensor.dtype not in FLOATS:
        raise InputError(f"{path}: {key}: expected floating-point numbers of at least 16 bits, got {tensor.dtype}")
    # A sum needs no memory, but may overflow. In fp32, because fp32 cannot hold every number in fp64.
    if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.float().isfinite().all():
        raise InputError(
            f"{path}: {key} holds numbers that are not finite; this checkpoint comes from a failed training"
        )
    return tensor


def digest(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of the tensors, in the order of their names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        update_hash(sha, name, tensors[name])
    return sha.hexdigest()


def update_hash(sha: Any, name: str, tensor: Tensor) -> None:
    """Add this tensor's name, dtype, shape and bytes to the hash."""
    sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def read_labels(folder: Path) -> tuple[str, ...] | None:
    """Return a checkpoint's class names, in the order of its head's rows; None without a head.

    Raises InputError if the names do not fit the head."""
    with open_weights(folder) as file:
        if "score.weight" not in file.keys():  # noqa: SIM118
            return None
        shape = file.get_slice("score.weight").get_shape()
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"{folder / WEIGHTS}: score.weight expected (classes, width), got {tuple(shape)}")
    numbers = [str(i) for i in range(shape[0])]
    id2label = read_json(folder / "config.json").get("id2label") or {i: f"LABEL_{i}" for i in numbers}
    if not isinstance(id2label, dict) or id2label.keys() != {*numbers} or not are_names([*id2label.values()]):
        expected = f"expected a name of its own for each of {shape[0]} classes, without control characters"
        raise InputError(f"{folder}: config.json has id2label {id2label}; {expected}")
    return tuple(id2label[i] for i in numbers)
