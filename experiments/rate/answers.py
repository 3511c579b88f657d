"""Answers on disk: a file for each rater, to which each answer adds one line of JSON.

The first line says what the rater is shown, in which order. A line counts once it ends, and is on the disk before the
rater sees the next item. Where an answer was changed, the later line counts."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

from lab.output import write_json
from model import InputError
from model.files import read_json

from .items import Items
from .protocol import PARTS, Step, plan_steps

PSEUDONYM = re.compile("[a-z0-9_-]{1,40}")
SIMULATED = "sim-"  # the beginning of pseudonyms that no person may have
Line = dict[str, Any]


@dataclass(frozen=True)
class Session:
    """What one rater is shown and has answered. `lines`: how many there are on disk, the first one too."""

    path: Path
    pseudonym: str
    simulated: bool
    items: Items
    steps: list[Step]
    answers: dict[str, Line]  # by the names of steps; those of the first len(answers) steps
    lines: int


def check_pseudonym(pseudonym: object) -> str:
    """Return a pseudonym in lower case. Raises InputError where it is none."""
    name = pseudonym.lower() if isinstance(pseudonym, str) else ""
    if not PSEUDONYM.fullmatch(name):
        raise InputError("pseudonym: expected 1 to 40 letters a to z, digits, - or _")
    if name.startswith(SIMULATED):
        raise InputError(f"pseudonym: those that begin with {SIMULATED} are for simulated raters; choose another")
    return name


def open_session(folder: Path, pseudonym: str, items: Items) -> Session:
    """Return the session of a rater: a new one with these items, or the one on disk, with the items that it began
    with."""
    path = folder / f"{pseudonym}.jsonl"
    if not read_lines(path):
        keep_items(folder, items)
        seed = crc32(f"{pseudonym} {items.version}".encode())
        about: Line = {"items": items.version, "simulated": pseudonym.startswith(SIMULATED)}
        n_alike = sum(about.items() <= read_first(other).items() for other in folder.glob("*.jsonl"))
        swapped = n_alike % 2 == 1  # every other rater
        steps = [asdict(step) for step in plan_steps(items, seed, swapped)]
        about |= {"pseudonym": pseudonym, "seed": seed, "swapped": swapped, "at": now(), "order": steps}
        append_line(path, about)
    return read_session(path)


def read_session(path: Path) -> Session:
    """Return the session on disk. Raises InputError where its items are missing, or a line is not as it was written."""
    first, *lines = read_lines(path)
    items = read_items(path.parent, str(first.get("items")))
    try:
        steps = [Step(**step) for step in first["order"]]
        answers = {line["step"]: line for line in lines}
        session = Session(path, first["pseudonym"], first["simulated"], items, steps, answers, 1 + len(lines))
        if session.pseudonym != path.stem or [*answers] != [step.name for step in steps[: len(answers)]]:
            raise ValueError("lines are missing, or of another rater")
        for step in steps[: len(answers)]:
            check_answer(session, step, answers[step.name]["answer"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected the lines that `make rate` wrote: {error!r}; mend the file, or move it away"
        ) from None
    return session


def record(session: Session, step: Step, answer: Any, seconds: float) -> None:
    """Write an answer that `check_answer` has passed, with all that was shown."""
    text = session.items.texts[step.text]
    line = {
        "pseudonym": session.pseudonym,
        "items": session.items.version,
        "step": step.name,
        "part": step.part,
        "split": text.split,
        "index": text.index,
        "text": text.text,
        "number": step.text,
        "predicted": text.predicted,
        "left": step.left,
        "right": step.right,
        "answer": answer,
        "seconds": seconds,
        "at": now(),
        "simulated": session.simulated,
    }
    append_line(session.path, line)


def check_answer(session: Session, step: Step, answer: Any) -> None:
    """Raise InputError for an answer that this step does not have."""
    kind, real = PARTS[step.part].kind, session.items.texts[step.text].real
    if kind == "mark":
        numbers = isinstance(answer, list) and all(type(number) is int for number in answer)
        if not numbers or not answer or not {*answer} <= {i for i, is_word in enumerate(real) if is_word}:
            raise InputError("answer: expected a list of at least one number of a word")
        return
    possible = {"read": ["read"], "predict": session.items.labels, "choose": ["left", "right"]}[kind]
    if answer not in possible:
        raise InputError(f"answer: expected one of {', '.join(possible)}")


def keep_items(folder: Path, items: Items) -> None:
    """Write the items beside the answers, so that a later `make explain` changes nothing about them."""
    path = folder / f"items-{items.version}.json"
    if not path.is_file():
        write_json(path, asdict(items))


@lru_cache(maxsize=8)  # their file never changes, and every request needs them
def read_items(folder: Path, version: str) -> Items:
    """Return the items of this version. Raises InputError where they are gone."""
    path = folder / f"items-{version}.json"
    if not path.is_file():
        raise InputError(
            f"{path}: there is no such file, and answers beside it need it; put it back, or move them away"
        )
    return Items.from_json(read_json(path))


def read_raters(folder: Path) -> Mapping[str, list[Line]]:
    """Return the lines of all raters who have any, by pseudonym."""
    lines = {path.stem: read_lines(path) for path in sorted(folder.glob("*.jsonl"))}
    return {name: rows for name, rows in lines.items() if rows}


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a file, without one that does not end: its writer was killed. No file: none."""
    content = path.read_bytes() if path.is_file() else b""
    try:
        lines = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].split(b"\n") if line]
        if not all(isinstance(line, dict) for line in lines):
            raise ValueError("something else stands on one")
    except ValueError as error:
        raise InputError(f"{path}: expected a JSON object on each line: {error}; mend it or move it away") from None
    return lines


def read_first(path: Path) -> Line:
    """Return the first line of a file, {} where it is broken: what happens to one rater must not stop another."""
    with open(path, "rb") as file:
        try:
            first = json.loads(file.readline())
        except ValueError:
            return {}
    return first if isinstance(first, dict) else {}


def append_line(path: Path, line: Line) -> None:
    """Add a line to a file, on the disk when this returns; a line that does not end is removed first."""
    with open(path, "a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write((json.dumps(line, allow_nan=False) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
