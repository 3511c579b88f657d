"""The names of runs and of their parts."""

import re
from pathlib import Path

from data import Corpus
from lab.runs import RUNS
from model import InputError
from model.files import read_json

from .results import base_name, title


def check_name(run: str) -> None:
    """Raise InputError unless results can have this name, with which those of their runs begin."""
    if run != replace_special(run) or run in ("", ".", "..", "latest"):
        raise InputError(f"--run {run}: expected a name of letters, digits, '.', '_' and '-', but not latest")
    if (RUNS / run / "run.json").exists():
        raise InputError(f"{RUNS / run} is a run of train.py; choose another --run")


def find_folder(start: str, end: str, model: str, several: bool) -> Path:
    """Return the folder of a run, whose name holds its model where there are several.

    A run that was begun when its model stood alone, or beside others, keeps its name."""
    alone, beside = RUNS / f"{start}-{end}", RUNS / f"{start}-{short_model(model)}-{end}"
    if is_of(alone, model):
        return alone
    return beside if several or is_of(beside, model) else alone


def is_of(folder: Path, model: str) -> bool:
    """Return whether a run of this model, by its name, is in a folder."""
    path = folder / "run.json"
    settings = read_json(path).get("settings") if path.is_file() else None
    return isinstance(settings, dict) and settings.get("model") == model


def short_name(corpus: Corpus) -> str:
    """Return a corpus's part of the names of its runs."""
    return replace_special(title(corpus.name))


def short_model(model: str) -> str:
    """Return a model's part of the names of its runs."""
    return replace_special(base_name(model))


def replace_special(name: str) -> str:
    """Replace each character that the name of a run may not hold by `_`."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
