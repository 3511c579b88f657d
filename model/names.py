"""Names of checkpoints, and the folder of each: on this machine or from the hub."""

from pathlib import Path

from . import hub
from .config import PRESETS, InputError

WEIGHTS = "model.safetensors"
EMBEDDED = Path(__file__).parent.parent / "data" / "gpt2-mini"
HUB = {  # repository and commit; None: the cached one, else the newest
    "gpt2": ("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e"),
    "gpt2-medium": ("openai-community/gpt2-medium", None),
    "gpt2-large": ("openai-community/gpt2-large", None),
    "gpt2-xl": ("openai-community/gpt2-xl", None),
    "distilgpt2": ("distilbert/distilgpt2", None),
}
OFFICIAL = {  # files of gpt2 as published: size in bytes (None: any) and SHA-256
    "model.safetensors": (548_105_171, "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"),
    "vocab.json": (None, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    "merges.txt": (None, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
}


def checkpoint_files(names: list[str]) -> list[str]:
    """Return the names of a checkpoint's files among those in a repository; InputError if one is missing."""
    if "config.json" not in names or WEIGHTS not in names:
        pickled = "; a pickle is never opened here, for it could run any code" if "pytorch_model.bin" in names else ""
        listed = ", ".join(names[:20]) or "no files"
        raise InputError(f"expected config.json and {WEIGHTS}, there are {listed}{pickled}")
    others = ("tokenizer.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")
    return [name for name in ("config.json", WEIGHTS, "vocab.json", "merges.txt", *others) if name in names]


def config_alone(names: list[str]) -> list[str]:
    """Return the name of the file with a checkpoint's shape; InputError if the repository lacks it."""
    if "config.json" not in names:
        raise InputError(f"expected config.json, there are {', '.join(names[:20]) or 'no files'}")
    return ["config.json"]


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
        shape_alone = "train.py --init random needs no weights, only its shape"
        advice = shape_alone if name in HUB else f"there is no folder {name} either"
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
