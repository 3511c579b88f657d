"""run.json: everything that a reader needs to repeat a run."""

import platform
import shlex
import subprocess
import sys
from dataclasses import asdict, fields
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data import SPLITS, Corpus, ReadOptions
from model.checkpoint import read_config
from model.names import find
from model.weights import find_files, hash_weights

from .device import Device

PACKAGES = ("torch", "numpy", "scikit-learn", "tiktoken", "safetensors")


def make_manifest(options: Any, model: dict[str, Any], corpus: dict[str, Any], device: Device) -> dict[str, Any]:
    """Return what a reader needs to repeat a run; `options` is a script's dataclass."""
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
    """Return all options but `resume`, which does not change the result, and `seeds`, of which each run has one."""
    settings = asdict(options)
    settings |= settings.pop("read", {})
    settings = {name: value for name, value in settings.items() if name not in ("resume", "seeds")}
    return {name: [*value] if isinstance(value, tuple) else value for name, value in settings.items()}  # as JSON


def restore_reading(settings: dict[str, Any]) -> ReadOptions:
    """Return how the corpus of a run was read, as its settings say."""
    reading: dict[str, Any] = {}
    for field in fields(ReadOptions):
        value = settings.get(field.name, field.default)  # runs of earlier versions have fewer settings
        reading[field.name] = tuple(value) if isinstance(value, list) else value
    return ReadOptions(**reading)


def describe_corpus(corpus: Corpus) -> dict[str, Any]:
    """Return the corpus's name, revision, labels in order, number of texts per split, of rows that were skipped by what
    was wrong with them, and SHA-256 per file."""
    return {
        "name": corpus.name,
        "revision": corpus.revision,
        "labels": corpus.labels,
        "texts": {split: len(corpus.split(split)) for split in SPLITS},
        "skipped": corpus.skipped["kind"].value_counts().to_dict(),
        "sha256": corpus.files,
    }


def describe_weights(name: str, init: str) -> dict[str, Any]:
    """Return the name and shape of a model and, unless its weights are random, revision, file, bytes and SHA-256.

    Raises InputError where a checkpoint has no weights."""
    description = {"name": name, "init": init, "shape": read_config(name).describe()}
    if init == "random":
        return description
    folder = find(name)
    files = find_files(folder)
    revision = folder.name if folder.parent.name == "snapshots" else None  # the layout of the hub's cache
    named, size = ", ".join(map(str, files)), sum(path.stat().st_size for path in files)
    return description | {"revision": revision, "file": named, "bytes": size, "sha256": hash_weights(folder)}


def describe_call(seed: int, device: Device) -> list[str]:
    """Return the lines of a report that say how to make it again."""
    command = shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
    return [f"seed {seed}, {device}", f"made by `{command}`, commit {find_commit() or 'unknown'}"]


def find_commit() -> str | None:
    """Return the commit of this code, marked `dirty` where files differ from it; None outside a git checkout."""
    command, folder = ["git", "describe", "--always", "--dirty", "--abbrev=40"], Path(__file__).parent
    try:
        output = subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout
    except OSError:
        return None
    return output.strip() or None
