"""Checkpoints in the Hugging Face layout, in and out: a folder with config.json and model.safetensors.

HF's GPT-2 keeps its projections as Conv1D, [in, out]; ours are nn.Linear, [out, in]: they are transposed here, on
the way in and on the way out. Nothing is ever unpickled.
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
from .config import END_OF_TEXT, PRESETS, GPT2Config, InputError
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
    """The shape of a checkpoint, or of a published name, without its weights; `dropout` replaces both of its rates."""
    if folder_or_name in PRESETS and not Path(folder_or_name).is_dir():
        config = GPT2Config.preset(str(folder_or_name))
    else:
        folder = find(folder_or_name, config_alone)
        config = GPT2Config.from_hf(read_json(folder / "config.json"), str(folder_or_name))
    return config if dropout is None else replace(config, dropout=dropout, attn_dropout=dropout)


def config_of(folder: Path, dropout: float | None = None) -> GPT2Config:
    """The shape of a checkpoint. InputError where the weights have not even a tensor for each of its layers: a damaged
    config may name more of them than memory can hold."""
    config = read_config(folder, dropout)
    with opened(folder) as file:
        tensors = len(file.keys())
    if config.n_layer > tensors:
        raise InputError(f"{folder / WEIGHTS} does not fit its config: {config.n_layer} layers, {tensors} tensors")
    return config


def load_lm(folder_or_name: str | Path) -> GPT2LM:
    """A language model in fp32 and eval mode, from a folder or a name. InputError lists what does not fit."""
    folder = find(folder_or_name)
    config = config_of(folder)
    with blank():
        model = GPT2LM(config)
    read_weights(model, folder, unused={"score.weight"})
    return model.eval()


def load_classifier(
    folder_or_name: str | Path, labels: Sequence[str] | None = None, dropout: float | None = None
) -> GPT2Classifier:
    """A classifier in fp32 and eval mode, from a folder or a name.

    `labels` are needed where the checkpoint has no head: a fresh one is added, N(0, 0.02). Where it has one they
    must be its own. `dropout` replaces both rates of the checkpoint's config."""
    folder = find(folder_or_name)
    own = read_labels(folder)
    if own is None and labels is None:
        raise InputError(f"{folder}: this checkpoint has no classification head; say which labels a fresh one is for")
    if own is not None and labels is not None and own != tuple(labels):
        expected = f"expected {', '.join(labels)}; its language model, or --init random, can start on these"
        raise InputError(f"{folder}: its classes are {', '.join(own)}; {expected}")
    names = own or labels or ()
    config = config_of(folder, dropout)
    with blank():
        model = GPT2Classifier(config, names)
    if own is None:
        model.score = fresh_head(config, len(names))
    read_weights(model, folder, fresh={"score.weight"} if own is None else set())
    return model.eval()


@contextmanager
def blank() -> Iterator[None]:
    """Models made in here take no memory and no random numbers for weights that are about to be read."""
    with torch.device("meta"), NoInit():  # on meta alone, every nn.init would be a second of imports for nothing
        yield


class NoInit(TorchFunctionMode):
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
    """Write a checkpoint that `transformers` opens too, whole or not at all; `dtype` None keeps the model's own.

    The metadata of model.safetensors carry a SHA-256 of the tensors, without which loading refuses them, and one of
    config.json, without which it warns.
    OSError where the files cannot be written: what was there before is untouched."""
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
    config = json.dumps(raw, indent=2).encode()
    metadata = {"format": "pt", DIGEST: digest(tensors), CONFIG_DIGEST: hashlib.sha256(config).hexdigest()}
    files = {"config.json": config}
    if tokenizer:  # HF refuses to pad a batch unless it is told with what
        hf = {"tokenizer_class": "GPT2Tokenizer", "pad_token": END_OF_TEXT, "model_max_length": model.config.n_ctx}
        files |= tokenizer.files | {"tokenizer_config.json": json.dumps(hf, indent=2).encode()}
    try:
        with written_whole(*(folder / name for name in (WEIGHTS, *files))) as (weights, *others):
            for path, content in zip(others, files.values(), strict=True):
                path.write_bytes(content)
            save_file(tensors, weights, metadata=metadata)
            sort_metadata(weights)
            shutil.copymode(others[0], weights)  # safetensors keeps its file from everybody else
    except (OSError, SafetensorError) as error:  # a full disk is any of them, mostly without the name of a file
        raise OSError(f"{folder}: the model could not be saved, is the disk full? ({error})") from None


def sort_metadata(path: Path) -> None:
    """safetensors writes the metadata in random order; sorted, equal tensors make equal files."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")  # of the header, JSON padded with spaces
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":")).encode().ljust(size))


def read_weights(model: nn.Module, folder: Path, unused: set[str] | None = None, fresh: set[str] | None = None) -> None:
    """Fill `model` from the folder's safetensors, tensor by tensor: memory never holds a second copy of it.

    The file may also hold what is `unused`, the model also what is `fresh`; any other difference in names or shapes
    raises InputError, and so do damaged weights."""
    path = folder / WEIGHTS
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in (fresh or set())}
    keys, metadata = matched(folder, wanted, unused or set())
    stored_digest, stored_config_digest = metadata.get(DIGEST), metadata.get(CONFIG_DIGEST)
    sha = hashlib.sha256()
    order = sorted(keys.items(), key=lambda pair: pair[1])
    if not stored_digest:  # the largest first, for a tensor is there twice while it is copied
        order.sort(key=lambda pair: -wanted.get(pair[0], torch.Size([0])).numel())
    for name, key in order:
        with opened(folder) as file:  # anew for each: the pages of a mapped file that were read count as memory
            tensor = as_stored(file, key, path)
            if stored_digest:
                add_to(sha, key, tensor)
            if name in wanted:
                set_parameter(model, name, tensor.T if name.endswith(TRANSPOSED) else tensor)
    if stored_digest and stored_digest != sha.hexdigest():
        raise InputError(f"{path} is damaged: its tensors do not match the SHA-256 stored with them")
    config_digest = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
    if stored_config_digest and stored_config_digest != config_digest:
        log.warning("%s: config.json was changed since %s was saved with it", folder, WEIGHTS)  # as people may
    if not stored_digest and not hub.is_verified(path):
        log.warning("%s was not saved by headgate: there is no SHA-256 to check its tensors against", path)
    if "lm_head.weight" in keys:
        with opened(folder) as file:
            tied = torch.equal(file.get_tensor("lm_head.weight").float(), model.get_parameter("trunk.wte.weight"))
        if not tied:
            raise InputError(f"{path}: lm_head.weight differs from wte.weight, and headgate ties the two")


def matched(folder: Path, wanted: dict[str, torch.Size], unused: set[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The file's key of each tensor by our name, and its metadata; InputError where it does not fit."""
    with opened(folder) as file:
        keys = {ours(key): key for key in file.keys()}  # noqa: SIM118  (safe_open is no dict)
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


def compare(wanted: dict[str, torch.Size], found: dict[str, tuple[int, ...]], droppable: set[str]) -> list[str]:
    """In words, how the names and shapes found differ from those wanted."""
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys() - droppable)
    mismatched = [
        f"{name} expected {tuple(shape)} got {found[name]}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    empty = sorted(name for name in found.keys() & droppable if 0 in found[name])  # the other sizes may be absurd
    shapes = ("wrong shape (as [out, in])", mismatched)
    kinds = (("missing", missing), ("unexpected", unexpected), shapes, ("without numbers", empty))
    return [f"{kind}: {', '.join(names)}" for kind, names in kinds if names]


def ours(key: str) -> str:
    """HF's name of a tensor -> ours: `transformer.h.0.ln_1.bias` and `h.0.ln_1.bias` -> `trunk.h.0.ln_1.bias`."""
    return key if key in ("lm_head.weight", "score.weight") else "trunk." + key.removeprefix("transformer.")


@contextmanager
def opened(folder: Path) -> Iterator[Any]:
    """The folder's safetensors file; InputError where there is none, or where it is damaged."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / "pytorch_model.bin").is_file()
        why = "only a pytorch_model.bin, whose unpickling could run any code" if pickled else "no weights"
        todo = "convert it to safetensors" if pickled else "start from its shape with --init random"
        raise InputError(f"{folder}: expected {WEIGHTS}, found {why}; {todo}")
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise InputError(f"{path} is truncated or damaged ({path.stat().st_size:,} bytes): {error}") from None


def as_stored(file: Any, key: str, path: Path) -> Tensor:
    """One tensor of the file, unchanged; refused unless it holds finite floating-point numbers."""
    tensor = file.get_tensor(key)
    if MASK_BUFFERS.search(key):
        return tensor
    if tensor.dtype not in FLOATS:
        raise InputError(f"{path}: {key}: expected floating-point numbers of at least 16 bits, got {tensor.dtype}")
    # A sum needs no memory, but it may overflow. In fp32, for a number in fp64 may be too large for that.
    if not tensor.sum(dtype=torch.float32).isfinite() and not tensor.float().isfinite().all():
        raise InputError(
            f"{path}: {key} holds numbers that are not finite; this checkpoint comes from a failed training"
        )
    return tensor


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the tensors in the order of their names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        add_to(sha, name, tensors[name])
    return sha.hexdigest()


def add_to(sha: Any, name: str, tensor: Tensor) -> None:
    """Let the hash go on over this tensor's name, dtype, shape and bytes."""
    sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def read_labels(folder: Path) -> tuple[str, ...] | None:
    """The class names of a checkpoint, in the order of its head's rows; None where it has no head."""
    with opened(folder) as file:
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
