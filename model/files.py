"""Files appear whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .config import InputError


@contextmanager
def written_whole(*paths: Path) -> Iterator[list[Path]]:
    """Yield a temporary file for each path: at the end all of them take their places, after an error none does."""
    temporary = [path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in paths]
    try:
        yield temporary
        for written, path in zip(temporary, paths, strict=True):
            os.replace(written, path)
    finally:
        for written in temporary:
            written.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path.parent}: no {path.name}; expected a checkpoint in the Hugging Face layout")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content
