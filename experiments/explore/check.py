"""Run an experiment that the page has exported once more, and compare."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import runs
from model import InputError
from model.files import read_json

from . import compute
from .experiment import describe_json, read_experiment
from .subject import Subject

FORMAT = "headgate experiment"
TOLERANCE = 1e-4  # of a probability: other processors add up in another order


def read_export(path: Path) -> dict[str, Any]:
    """Return an exported experiment. Raises InputError for any other file."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    content = read_json(path)
    if content.get("format") != FORMAT or content.get("version") != 1:
        raise InputError(f"{path}: expected a {FORMAT}, version 1, as the page exports it with JSON")
    parts = {name: content.get(name) for name in ("model", "experiment", "answer")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise InputError(f"{path}: {name}: expected an object, got {describe_json(part)}")
    return parts


def find_run(export: dict[str, Any]) -> str | None:
    """Return the name of the run that an experiment was exported from, None for a language model."""
    run = export["model"].get("run")
    if not isinstance(run, str):
        return None
    runs.check_name(Path(run).name)
    return Path(run).name


def compare(subject: Subject, export: dict[str, Any]) -> float:
    """Return the largest difference between a probability of the export and the same computed now.

    Raises InputError where the weights, the labels or the tokens are others."""
    weights = export["model"].get("sha256")
    if weights != subject.weights:
        raise InputError(f"{subject.name}: expected weights of SHA-256 {weights!s:.64}, got {subject.weights}")
    answer, now = export["answer"], compute.run(subject, read_experiment(export["experiment"], subject))
    for name in ("labels", "ids"):
        if answer.get(name) != now[name]:
            expected = describe_json(now[name])
            raise InputError(f"answer.{name}: expected {expected}, got {describe_json(answer.get(name))}")
    return max(measure_difference(answer.get(name), now[name], name) for name in ("before", "after"))


def measure_difference(exported: Any, computed: Sequence[float], name: str) -> float:
    """Return the largest difference between two lists of probabilities. Raises InputError where the first is none."""
    is_list = isinstance(exported, list) and len(exported) == len(computed)
    if not is_list or not all(type(p) in (int, float) and 0 <= p < 1.01 for p in exported):  # NaN is not
        expected = f"expected a probability for each of {len(computed)} labels"
        raise InputError(f"answer.{name}: {expected}, got {describe_json(exported)}")
    return max(abs(p - q) for p, q in zip(exported, computed, strict=True))
