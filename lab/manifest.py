"""run.json: what a reader needs to make a run again."""

import platform
import shlex
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data import SPLITS, Corpus
from model import InputError, hub
from model.checkpoint import read_config
from model.names import WEIGHTS, find

from .device import Device

PACKAGES = ("torch", "numpy", "scikit-learn", "tiktoken", "safetensors")


def make_manifest(options: Any, model: dict[str, Any], corpus: dict[str, Any], device: Device) -> dict[str, Any]:
    """What a reader needs to make this run again; `options` is a script's dataclass."""
    return {
        "command": shlex.join(sys.argv),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "settings": describe_settings(options),
        "model": model,
        "corpus": corpus,
        "device": str(device),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        "git": find_commit(),
    }


def describe_settings(options: Any) -> dict[str, Any]:
    """What a run is made with: all options but the one that says how to begin."""
    return {name: value for name, value in asdict(options).items() if name != "resume"}


def describe_corpus(corpus: Corpus) -> dict[str, Any]:
    """What a run learns from: name, revision, labels in order, texts per split and SHA-256 per file."""
    return {
        "name": corpus.name,
        "revision": corpus.revision,
        "labels": corpus.labels,
        "texts": {split: len(corpus.split(split)) for split in SPLITS},
        "sha256": corpus.files,
    }


def describe_weights(name: str, init: str) -> dict[str, Any]:
    """What a run starts from: name and shape; revision, file, bytes and SHA-256 of its weights unless random."""
    told = {"name": name, "init": init, "shape": asdict(read_config(name))}
    if init == "random":
        return told
    path = find(name) / WEIGHTS
    if not path.is_file():
        raise InputError(
            f"{path.parent}: expected {WEIGHTS}, found no weights; start from its shape with --init random"
        )
    sha256 = hub.content_hash(path)
    revision = path.parent.name if path.parent.parent.name == "snapshots" else None  # the layout of the hub's cache
    return told | {"revision": revision, "file": str(path), "bytes": path.stat().st_size, "sha256": sha256}


def find_commit() -> str | None:
    """The commit of this code, marked `dirty` where files differ from it; None outside a git checkout."""
    here = Path(__file__).parent
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"], cwd=here, capture_output=True, text=True
        )
    except OSError:
        return None
    return out.stdout.strip() or None
