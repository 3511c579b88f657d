"""Names of checkpoints and of their files, and the folder of each checkpoint: on this machine or from the hub."""

import re
from collections.abc import Sequence
from pathlib import Path

from . import hub
from .config import PRESETS, InputError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # says which shard holds which tensor
SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
ADAPTER = "adapter_config.json"
SHAPE_ALONE = "train.py --init random needs no weights, only its shape"
RESAVE = "then save_pretrained, which writes model.safetensors"
OTHER_WEIGHTS = {  # patterns of names, and the way from there to model.safetensors
    r"adapter_config\.json": "an adapter is half a model; merge it with peft, merge_and_unload(), and save the whole",
    r"model-.*\.safetensors|.*\.safetensors\.index\.json": f"shards need {INDEX} and all files that it names",
    r"pytorch_model.*\.bin|(model|ckpt).*\.pth?|.*\.ckpt": (
        "a pickle is never opened here, for it could run any code; where you trust it, from_pretrained of transformers "
        f"opens it, {RESAVE}"
    ),
    r".*\.gguf": f"GGUF is not read; from_pretrained of transformers opens it with gguf_file=..., {RESAVE}",
    r"tf_model.*\.h5": f"TensorFlow's weights are not read; transformers 4 opens them with from_tf=True, {RESAVE}",
    r"flax_model.*\.msgpack": f"Flax's weights are not read; transformers 4 opens them with from_flax=True, {RESAVE}",
    r".*\.onnx": "an ONNX file is not read; take the model that it was made of",
    r".*\.safetensors": f"where one of these is the whole model, call it {WEIGHTS}",
}
EMBEDDED = Path(__file__).parent.parent / "data" / "gpt2-mini"
HUB = {  # repository and commit; None: the cached one, else the newest
    "gpt2": ("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e"),
    "gpt2-medium": ("openai-community/gpt2-medium", None),
    "gpt2-large": ("openai-community/gpt2-large", None),
    "gpt2-xl": ("openai-community/gpt2-xl", None),
    "distilgpt2": ("distilbert/distilgpt2", None),
    "gpt-neo-125m": ("EleutherAI/gpt-neo-125m", None),
    "gpt-neo-1.3B": ("EleutherAI/gpt-neo-1.3B", None),
    "gpt-neo-2.7B": ("EleutherAI/gpt-neo-2.7B", None),
}
OFFICIAL = {  # files of gpt2 as published: size in bytes (None: any) and SHA-256
    "model.safetensors": (548_105_171, "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"),
    "vocab.json": (None, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    "merges.txt": (None, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
}


def checkpoint_files(names: list[str]) -> list[str]:
    """Return the names of a checkpoint's files among those in a repository; InputError if one is missing."""
    weights = list_weights(names)
    if "config.json" not in names or not weights or ADAPTER in names:
        raise InputError(f"expected config.json and {WEIGHTS}, {describe_files(names)}")
    return ["config.json", *weights, *(name for name in TOKENIZER_FILES if name in names)]


def list_weights(names: Sequence[str]) -> list[str]:
    """Return the names of the files with weights: the one file, or an index and all its shards; none if one is missing.

    Shards are called model-00001-of-0000n.safetensors, as `transformers` calls them."""
    if WEIGHTS in names:
        return [WEIGHTS]
    there = {*names}
    totals = {match[2] for match in map(SHARD.fullmatch, names) if match}
    sets = [[f"model-{i:05}-of-{total}.safetensors" for i in range(1, int(total) + 1)] for total in sorted(totals)]
    complete = [name for shards in sets if there.issuperset(shards) for name in shards]
    return [INDEX, *complete] if INDEX in names and complete else []


def config_alone(names: list[str]) -> list[str]:
    """Return the name of the file with a checkpoint's shape; InputError if the repository lacks it."""
    if "config.json" not in names:
        raise InputError(f"expected config.json, {describe_files(names)}")
    return ["config.json"]


def describe_files(names: Sequence[str]) -> str:
    """Say which files there are, in the place of those expected, and what to do with weights in another form."""
    advice = advise(names)
    return f"there are {', '.join(names[:20]) or 'no files'}" + (f"; {advice}" if advice else "")


def advise(names: Sequence[str]) -> str | None:
    """Return what to do with the weights that are among these files in another form; None without any."""
    others = {ADAPTER} & {*names} if list_weights(names) else names
    fits = (advice for pattern, advice in OTHER_WEIGHTS.items() if any(re.fullmatch(pattern, name) for name in others))
    return next(fits, None)


def find(folder_or_name: str | Path, choose: hub.Choice = checkpoint_files) -> Path:
    """Return the folder of a checkpoint, given as a path, `gpt2-mini`, a published name, or owner/name on the hub.

    Downloads from the hub what its cache lacks, see `hub.fetch`. Raises InputError if there is no such checkpoint.
    """
    if Path(folder_or_name).is_dir():
        return Path(folder_or_name)
    name = str(folder_or_name)
    if name == "gpt2-mini":
        return EMBEDDED
    repository, revision = HUB.get(name, (name, None))
    if not hub.NAME.fullmatch(repository):
        raise InputError(
            f"model {name!r}: neither a folder, nor owner/name on the hub, nor one of {', '.join(PRESETS)}"
        )
    cached = hub.find_cached("model", name, choose, revision) if name in HUB else None  # under transformers' short name
    try:
        folder = cached or hub.fetch("model", repository, choose, revision)
    except hub.UnavailableError as error:
        advice = SHAPE_ALONE if name in HUB else f"there is no folder {name} either"
        raise hub.UnavailableError(f"{error}; {advice}") from None
    if name == "gpt2":
        check_official(folder)
    return folder


def check_official(folder: Path) -> None:
    """Raise InputError unless the files of `gpt2` in this folder are the published ones."""
    for name, (size, sha256) in OFFICIAL.items():
        path = folder / name
        if not path.is_file():  # other programs may have cached the weights alone
            continue
        actual_size, actual_sha256 = path.stat().st_size, hub.content_hash(path)
        if actual_sha256 != sha256 or (size and actual_size != size):
            difference = f"expected SHA-256 {sha256}, got {actual_sha256} ({actual_size:,} bytes)"
            raise InputError(f"{path} is not the official one: {difference}; remove it, and check HF_ENDPOINT")
