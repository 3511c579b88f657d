"""A model that others trained, studied as it is: it becomes a run without a training."""

from pathlib import Path
from typing import Any

from data import Corpus
from model import InputError
from model.files import read_json
from model.names import find
from model.weights import hash_weights

from . import manifest, runs
from .defaults import StudyOptions
from .device import Device
from .output import write_json
from .texts import write_skipped


def is_foreign(record: dict[str, Any]) -> bool:
    """Return whether the manifest of a run stands for a model that others trained."""
    return not record.get("trained", True)


def describe_foreign(
    run: str, options: StudyOptions, model: str, corpus: Corpus, device: Device
) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the manifest of the run that stands for a model on a corpus. Nothing is written.

    run: its name; `latest` is none, and then it is called like the model. Raises InputError where something else has
    its name."""
    name = Path(model).resolve().name if run == "latest" else run
    if name in ("", "latest"):
        raise InputError(f"--model {model}: expected a --run beside it, for no run can be called {name!r}")
    runs.check_name(name)
    folder = runs.RUNS / name
    weights = manifest.describe_weights(model, "pretrained")
    record = manifest.make_manifest(options, weights, manifest.describe_corpus(corpus), device)
    # The other settings are those that experiments ask of a run, as one of train.py would have them.
    record["settings"] |= {"model": model, "run": name, "init": "pretrained", "seed": 0, "split_seed": 0}
    record |= {"status": "finished", "trained": False}
    if not (folder / "run.json").is_file():
        return folder, record
    existing = read_json(folder / "run.json")
    if not is_foreign(existing):
        raise InputError(f"{folder}: expected a free name, got a run of train.py; choose another with --run")
    runs.check_identity(folder, existing, record)
    return folder, existing


def write_run(folder: Path, record: dict[str, Any], corpus: Corpus) -> None:
    """Write the folder of a run that was described, unless it is there."""
    if not (folder / "run.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_skipped(corpus, folder / runs.SKIPPED)
        write_json(folder / "run.json", record)


def find_checkpoint(folder: Path, record: dict[str, Any]) -> Path:
    """Return the folder of a run's weights: its own or, of a model that others trained, the model's.

    Raises InputError where that has changed since."""
    if not is_foreign(record):
        return folder
    checkpoint = find(record["model"]["name"])
    if hash_weights(checkpoint) != record["model"]["sha256"]:
        raise InputError(f"{checkpoint} is no longer what {folder} stands for; choose another --run")
    return checkpoint
