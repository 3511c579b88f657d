"""Files appear whole or not at all."""

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
    """Yield a temporary file for each path: at the end all of them take their places, after an error none does."""
    temporary = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in paths]
    former = [path.with_name(f".{path.name}.{os.getpid()}.old") for path in paths]
    for file in (*temporary, *former):  # of an earlier process with this number, which was killed
        file.unlink(missing_ok=True)
    try:
        yield temporary
        replace(paths, temporary, former)
    except OSError as error:
        if error.filename is None:  # a full disk does not say what did not fit
            raise OSError(f"{paths[0]} could not be written: {error.strerror or error}") from None
        raise
    finally:
        for file in (*temporary, *former):
            file.unlink(missing_ok=True)


def replace(paths: Sequence[Path], temporary: Sequence[Path], former: Sequence[Path]) -> None:
    """Let all temporary files take the places of `paths`, or none; `former` are names for what stands there."""
    for path, old in zip(paths, former, strict=True):
        if path.is_file():
            keep(path, old)
    try:
        for written, path in zip(temporary, paths, strict=True):
            os.replace(written, path)
    except BaseException:
        for path, old in zip(paths, former, strict=True):
            if old.is_file():
                os.replace(old, path)
            elif path.is_file():
                path.unlink()
        raise


def keep(path: Path, old: Path) -> None:
    """A second name for the same file, or a copy where the file system has no links."""
    try:
        os.link(path, old)
    except OSError:
        shutil.copyfile(path, old)


def parse_json(text: str | bytes) -> Any:
    """`json.loads`, but ValueError also where a key stands twice in an object, or brackets too deep in each other."""
    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError("too many brackets within each other") from None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"duplicate key {name!r}")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint; InputError where there is none."""
    if not path.is_file():
        raise InputError(f"{path.parent}: no {path.name}; expected a checkpoint in the Hugging Face layout")
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content
