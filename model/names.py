"""Names of checkpoints: which folder each stands for, here or on the hub."""

from pathlib import Path

from . import hub
from .config import PRESETS, InputError

WEIGHTS = "model.safetensors"
EMBEDDED = Path(__file__).parent.parent / "data" / "gpt2-mini"
HUB = {  # repository and revision; None: the one in the cache, else the newest
    "gpt2": ("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e"),
    "gpt2-medium": ("openai-community/gpt2-medium", None),
    "gpt2-large": ("openai-community/gpt2-large", None),
    "gpt2-xl": ("openai-community/gpt2-xl", None),
    "distilgpt2": ("distilbert/distilgpt2", None),
}
OFFICIAL = {  # of gpt2, as published: bytes (None: any) and SHA-256
    "model.safetensors": (548_105_171, "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"),
    "vocab.json": (None, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
    "merges.txt": (None, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
}


def needed(names: list[str]) -> list[str]:
    """The files of a checkpoint among the names in a repository."""
    if "config.json" not in names or WEIGHTS not in names:
        pickled = "; a pickle is never opened here, for it could run any code" if "pytorch_model.bin" in names else ""
        raise InputError(
            f"expected config.json and {WEIGHTS}, there are {', '.join(names[:20]) or 'no files'}{pickled}"
        )
    return [name for name in ("config.json", WEIGHTS, "vocab.json", "merges.txt", "tokenizer.json") if name in names]


def config_alone(names: list[str]) -> list[str]:
    """The file that tells a checkpoint's shape, among the names in a repository."""
    if "config.json" not in names:
        raise InputError(f"expected config.json, there are {', '.join(names[:20]) or 'no files'}")
    return ["config.json"]


def find(folder_or_name: str | Path, choose: hub.Choice = needed) -> Path:
    """The folder of a checkpoint: a path, `gpt2-mini`, a published name, or a repository on the hub, owner/name.

    What is on the hub is downloaded into its cache; see `hub.fetch`. Raises InputError where there is none."""
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
    former = hub.cached("model", name, choose, revision) if name in HUB else None  # as from_pretrained("gpt2") names it
    try:
        folder = former or hub.fetch("model", repository, choose, revision)
    except hub.UnavailableError as error:
        its_shape = "train.py --init random takes its shape alone"
        elsewhere = its_shape if name in HUB else f"there is no folder {name} either"
        raise hub.UnavailableError(f"{error}; {elsewhere}") from None
    if name == "gpt2":
        check_official(folder)
    return folder


def check_official(folder: Path) -> None:
    """Raise InputError unless the files in the folder of `gpt2` are the published ones."""
    for name, (size, sha256) in OFFICIAL.items():
        path = folder / name
        if not path.is_file():  # a cache that others filled may have the weights alone
            continue
        got = path.stat().st_size, hub.content_hash(path)
        if got[0] != (size or got[0]) or got[1] != sha256:
            raise InputError(
                f"{path} is not the official one: expected SHA-256 {sha256}, got {got[1]} ({got[0]:,} bytes); "
                "remove it, and look where HF_ENDPOINT points"
            )
