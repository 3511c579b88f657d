"""Run an experiment that the page has exported once more, and compare."""

from pathlib import Path
from typing import Any

from model import InputError
from model.files import read_json

from . import compute
from .experiment import describe_json, read_experiment
from .subject import Subject

FORMAT = "headgate experiment"
TOLERANCE = 1e-4  # of a probability: other processors add up in another order


def read_export(path: Path) -> dict[str, Any]:
    """Return an exported experiment. Raises InputError for any other file."""
    content = read_json(path)
    if content.get("format") != FORMAT or content.get("version") != 1:
        raise InputError(f"{path}: expected a {FORMAT}, version 1, as the page exports it with JSON")
    parts = {name: content.get(name) for name in ("model", "experiment", "answer")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise InputError(f"{path}: {name}: expected an object, got {describe_json(part)}")
    return parts


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
    try:
        pairs = [pair for name in ("before", "after") for pair in zip(answer[name], now[name], strict=True)]
        return max(abs(exported - computed) for exported, computed in pairs)
    except (KeyError, TypeError, ValueError):
        raise InputError("answer: expected a probability of each label in `before` and in `after`") from None
