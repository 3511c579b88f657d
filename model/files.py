"""Files that appear whole or not at all, and strict JSON."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .config import InputError


@contextmanager
def written_whole(*paths: Path) -> Iterator[list[Path]]:
    """Yield a temporary path for each path; move all of them into place at the end, or none after an error."""
    temporary = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in paths]
    backups = [path.with_name(f".{path.name}.{os.getpid()}.old") for path in paths]
    for file in (*temporary, *backups):  # left by a process with the same number that was killed
        file.unlink(missing_ok=True)
    try:
        yield temporary
        replace(paths, temporary, backups)
    except OSError as error:
        if error.filename is None:  # the error of a full disk names no file
            raise OSError(f"{paths[0]} could not be written: {error.strerror or error}") from None
        raise
    finally:
        for file in (*temporary, *backups):
            file.unlink(missing_ok=True)


def replace(paths: Sequence[Path], temporary: Sequence[Path], backups: Sequence[Path]) -> None:
    """Move all temporary files to `paths`, or none; meanwhile keep the files that they replace as `backups`."""
    for path, backup in zip(paths, backups, strict=True):
        if path.is_file():
            back_up(path, backup)
    try:
        for path, new in zip(paths, temporary, strict=True):
            os.replace(new, path)
    except BaseException:
        for path, backup in zip(paths, backups, strict=True):  # undo
            if backup.is_file():
                os.replace(backup, path)
            elif path.is_file():
                path.unlink()
        raise


def back_up(path: Path, backup: Path) -> None:
    """Give a file a second name, or copy it on a file system without links."""
    try:
        os.link(path, backup)
    except OSError:
        shutil.copyfile(path, backup)


def parse_json(text: str | bytes) -> Any:
    """Return `json.loads(text)`; ValueError also for a duplicate key or brackets nested too deep."""
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except RecursionError:
        raise ValueError("too many brackets within each other") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dict; ValueError if a key comes twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"duplicate key {name!r}")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a checkpoint; InputError if the file or the object is missing."""
    if not path.is_file():
        raise InputError(f"{path.parent}: no {path.name}; expected a checkpoint in the Hugging Face layout")
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content
