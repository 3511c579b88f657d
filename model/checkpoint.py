"""Checkpoints in the Hugging Face layout, read and written: a folder with config.json and model.safetensors."""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import hub
from .config import PRESETS, GPT2Config, InputError
from .files import read_json, written_whole
from .layouts import Place, choose_layout, config_from_hf, config_to_hf
from .names import WEIGHTS, config_alone, describe_files, find
from .readout import GPT2LM, GPT2Classifier, are_names, fresh_head
from .tokenizer import Tokenizer
from .weights import LM_HEAD, SCORE, StoredTensor, check_fit, find_files, list_tensors, read_metadata

log = logging.getLogger("headgate")

DIGEST = "headgate_sha256"  # our keys in the safetensors metadata: of the tensors,
CONFIG_DIGEST = "headgate_config_sha256"  # and of the config.json


def read_config(folder_or_name: str | Path, dropout: float | None = None) -> GPT2Config:
    """Return the shape of a checkpoint or of a published name, without its weights; `dropout` replaces both rates."""
    if folder_or_name in PRESETS and not Path(folder_or_name).is_dir():
        config = GPT2Config.preset(str(folder_or_name))
    else:
        folder = find(folder_or_name, config_alone)
        if not (folder / "config.json").is_file():
            there = sorted(path.name for path in folder.iterdir() if path.is_file())
            raise InputError(f"{folder}: expected config.json, {describe_files(there)}")
        config = config_from_hf(read_json(folder / "config.json"), str(folder_or_name))
    return config if dropout is None else replace(config, dropout=dropout, attn_dropout=dropout)


def load_lm(folder_or_name: str | Path, dropout: float | None = None) -> GPT2LM:
    """Load a language model from a folder or a name, in fp32 and eval mode. InputError lists what does not fit.

    `dropout` replaces both rates of its config."""
    folder = find(folder_or_name)
    tensors = list_tensors(folder)
    config = read_plausible_config(folder, tensors, dropout)
    with uninitialised():
        model = GPT2LM(config)
    read_weights(model, folder, tensors, unused={SCORE})
    return model.eval()


def load_classifier(
    folder_or_name: str | Path,
    labels: Sequence[str] | None = None,
    dropout: float | None = None,
    *,
    names: Sequence[str] | None = None,
) -> GPT2Classifier:
    """Load a classifier from a folder or a name, in fp32 and eval mode. InputError lists what does not fit.

    A checkpoint without a head needs `labels`, and gets a fresh head, N(0, 0.02). With a head, `labels` are its classes
    in any order, and the logits come in that order. `names` say what the rows of the head are called, in their order,
    in the place of config.json. `dropout` replaces both rates of its config."""
    folder = find(folder_or_name)
    tensors = list_tensors(folder)
    rows = name_rows(folder, tensors, names)
    if rows is None and labels is None:
        raise InputError(f"{folder}: this checkpoint has no classification head; say which labels a fresh one is for")
    if rows is not None and labels is not None and {*rows} != {*labels}:
        difference = f"its classes are {', '.join(rows)}; expected {', '.join(labels)}"
        raise InputError(f"{folder}: {difference}: labels must name its classes, and names may say what these are")
    config = read_plausible_config(folder, tensors, dropout)
    with uninitialised():
        model = GPT2Classifier(config, labels or rows or ())
    if rows is None:
        model.score = fresh_head(config, len(model.labels))
    read_weights(model, folder, tensors, fresh={SCORE} if rows is None else set())
    if rows and rows != model.labels:
        order = [rows.index(label) for label in model.labels]
        model.score.weight = nn.Parameter(model.score.weight.detach()[order])
    return model.eval()


def read_plausible_config(folder: Path, tensors: Mapping[str, StoredTensor], dropout: float | None) -> GPT2Config:
    """Return the shape of a checkpoint; InputError if it has more layers than tensors, for a damaged config may ask for
    more than memory can hold."""
    config = read_config(folder, dropout)
    if config.n_layer > len(tensors):
        raise InputError(
            f"{folder}: config.json has {config.n_layer} layers, and the weights have {len(tensors)} tensors"
        )
    return config


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
    layout, tensors, state = choose_layout(model.config), {}, model.state_dict()
    for name, place in layout.places({name: value.shape for name, value in state.items()}).items():
        value = place.turn(state[place.parameter][place.rows])
        tensors[name.replace("trunk.", "transformer.")] = value.detach().to("cpu", dtype or value.dtype).contiguous()
    raw = config_to_hf(model.config) | {"dtype": str(dtype or model.trunk.wte.weight.dtype).removeprefix("torch.")}
    if isinstance(model, GPT2Classifier):
        id2label = dict(enumerate(model.labels))
        raw |= {"architectures": [layout.classifier], "id2label": id2label}
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


def read_weights(
    model: GPT2LM | GPT2Classifier,
    folder: Path,
    tensors: dict[str, StoredTensor],
    unused: set[str] | None = None,
    fresh: set[str] | None = None,
) -> None:
    """Fill `model` with a folder's tensors, one by one, so that memory never holds a second copy.

    Only the folder may have those in `unused`, only the model those in `fresh`. Any other difference in names or shapes
    raises InputError, and so do damaged weights."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in (fresh or set())}
    places = choose_layout(model.config).places(shapes)
    check_fit(folder, {name: place.shape for name, place in places.items()}, tensors, unused or set())
    metadata = read_metadata(folder)
    stored_digest, sha = metadata.get(DIGEST), hashlib.sha256()
    order = sorted(tensors.items(), key=lambda pair: pair[1].key)
    if not stored_digest:  # largest first, for a copy needs twice a tensor's memory
        order.sort(key=lambda pair: -math.prod(pair[1].shape))
    for name, stored in order:
        tensor = stored.read()
        if stored_digest:
            update_hash(sha, stored.key, tensor)
        if name in places:
            fill_rows(model, places[name], tensor)
    if stored_digest and stored_digest != sha.hexdigest():
        raise InputError(f"{folder / WEIGHTS} is damaged: its tensors do not match the SHA-256 stored with them")
    if LM_HEAD in tensors:
        head, wte = tensors[LM_HEAD], model.get_parameter("trunk.wte.weight")
        if not torch.equal(head.read().float(), wte):
            raise InputError(f"{head.path}: {head.key} differs from wte.weight, and headgate ties the two")
    warn_of_doubts(folder, metadata)


def warn_of_doubts(folder: Path, metadata: dict[str, str]) -> None:
    """Warn where config.json is not the one of the weights, or nothing vouches for these. InputError if a file from the
    hub is damaged."""
    config_digest = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
    if metadata.get(CONFIG_DIGEST, config_digest) != config_digest:
        log.warning("%s: config.json was changed since %s was saved with it", folder, WEIGHTS)
    files = find_files(folder)
    if DIGEST not in metadata and not all([hub.is_verified(path) for path in files]):
        place = files[0] if len(files) == 1 else folder
        log.warning("%s was not saved by headgate: there is no SHA-256 to check its tensors against", place)


def fill_rows(model: nn.Module, place: Place, stored: Tensor) -> None:
    """Copy a stored tensor to its place, in fp32; the first one of a parameter makes room for it."""
    owner, _, attribute = place.parameter.rpartition(".")
    module, parameter = model.get_submodule(owner), model.get_parameter(place.parameter)
    if parameter.is_meta:
        parameter = nn.Parameter(torch.empty(parameter.shape, dtype=torch.float32))
        setattr(module, attribute, parameter)
    with torch.no_grad():
        parameter[place.rows] = place.turn(stored)


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
    return name_rows(folder, list_tensors(folder))


def name_rows(
    folder: Path, tensors: Mapping[str, StoredTensor], names: Sequence[str] | None = None
) -> tuple[str, ...] | None:
    """Return what the rows of a checkpoint's head are called: `names`, None what its config.json says; None without a
    head. Raises InputError if the names do not fit the head."""
    if SCORE not in tensors:
        if names is not None:
            raise InputError(
                f"{folder}: this checkpoint has no classification head, so there are no rows to give names"
            )
        return None
    path, key, shape = tensors[SCORE]
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"{path}: {key} expected (classes, width), got {shape}")
    if shape[0] == 1:
        raise InputError(f"{path}: {key} has one row, for a regression; headgate tells at least two classes apart")
    if names is None:
        return read_id2label(folder, shape[0])
    if isinstance(names, str) or len(names) != shape[0] or not are_names(names):
        raise InputError(f"{folder}: names: expected one of its own for each of {shape[0]} classes, got {names!r}")
    return tuple(names)


def read_id2label(folder: Path, classes: int) -> tuple[str, ...]:
    """Return the names of so many classes, in their order, from config.json; InputError unless each has its own."""
    raw = read_json(folder / "config.json")
    numbers = [str(i) for i in range(classes)]
    id2label = raw.get("id2label") or {i: f"LABEL_{i}" for i in numbers}
    if not isinstance(id2label, dict) or id2label.keys() != {*numbers} or not are_names([*id2label.values()]):
        expected = f"expected a name of its own for each of {classes} classes, without control characters"
        raise InputError(f"{folder}: config.json has id2label {id2label}; {expected}")
    label2id = raw.get("label2id")
    inverse = {str(i): label for label, i in label2id.items()} if isinstance(label2id, dict) else {}
    if inverse != id2label and {*inverse.values()} == {*id2label.values()}:  # many leave LABEL_0 ... in label2id
        both = f"id2label {id2label} and label2id {label2id}"
        raise InputError(f"{folder}: config.json has {both}, which contradict each other; correct one of them")
    return tuple(id2label[i] for i in numbers)
