"""Tables and texts on disk, whole or not at all."""

import csv
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from model import hub
from model.files import read_json, written_whole

from .progress import console

WRITTEN = ".written.json"  # the list of tables and pictures that headgate left in a folder, with their SHA-256


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in UTF-8, whole or not at all, and never NaN, which is no JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, content: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    with written_whole(path) as [temporary]:
        temporary.write_text(content, encoding="utf-8", newline="\n")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table in UTF-8 with a header, whole or not at all."""
    with written_whole(path) as [temporary]:  # all strings quoted, or a lone \r in one would break its row
        table.to_csv(temporary, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")


def read_csv(path: Path, text: Collection[str]) -> pd.DataFrame:
    """Read what `write_csv` wrote. The columns `text` stay as they are written, also where a class is called nan or 1;
    of the others an empty cell is NaN."""
    empty = dict.fromkeys(pd.read_csv(path, nrows=0, lineterminator="\n").columns.difference([*text]), "")
    types = dict.fromkeys(text, str)
    return pd.read_csv(path, dtype=types, na_values=empty, keep_default_na=False, lineterminator="\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object per line, whole or not at all."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


@contextmanager
def replace_outputs(folder: Path) -> Iterator[Path]:
    """Yield a new folder to write tables and pictures into: at the end they take the places of those that an earlier
    call left in `folder`.

    Only what headgate wrote is removed: what is on its list, with the bytes that it wrote."""
    listed = folder / WRITTEN
    former = read_json(listed) if listed.is_file() else {}
    new = folder / f".new.{os.getpid()}.tmp"
    new.mkdir()
    try:
        yield new
        written = {path.name: hub.content_hash(path) for path in sorted(new.iterdir())}
        for name in written:
            os.replace(new / name, folder / name)
    finally:
        shutil.rmtree(new)
    for name in former.keys() - written.keys():
        path = folder / name
        if path.is_file() and hub.content_hash(path) == former[name]:
            path.unlink()
        elif path.is_file():
            console.print(f"{path} was made by an earlier call and has been changed since: it stays", soft_wrap=True)
    write_json(listed, written)  # last: it never names a file that was not written
