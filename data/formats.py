"""Labelled texts out of one file: a reader for each format, and what every row must be."""

import codecs
import csv
import hashlib
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from model import InputError
from model.files import parse_json
from model.readout import are_names

Row = tuple[int, Any, Any]  # line, text, label


class Table(NamedTuple):
    """What one file holds. `rows` has the columns text, label, file (all str) and line (int, counted from 1)."""

    rows: pd.DataFrame
    file: str
    sha256: str
    labels: tuple[str, ...]  # in the order that the file itself declares; empty where it declares none


def read_table(path: Path, text_column: str, label_column: str, classes: tuple[str, ...] = ()) -> Table:
    """Every row of a .txt, .csv, .tsv, .jsonl, .json or .parquet file.

    Texts and labels are taken as they stand, white space included; whole numbers as labels become their digits.
    A label with white space around it is refused, for it would quietly become a class of its own.
    `line` is where the row starts, in a .parquet file the number of the row. `classes` names the numbered labels of a
    .parquet file that does not name them itself. Raises InputError.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: cannot read files ending in {path.suffix!r}; use one of {', '.join(READERS)}")
    data = _read(path)
    rows = list(reader(data, path, (text_column, label_column)))
    if reader is _parquet:
        classes = _class_names(pq.read_schema(io.BytesIO(data)), label_column, path) or classes
        rows = _named(rows, path, classes)
    return Table(_frame(rows, path), str(path), hashlib.sha256(data).hexdigest(), classes)


def read_polarity(path: Path, label: str) -> Table:
    """One of the two raw Rotten Tomatoes files: latin-1, a text per line, without the white space around it.

    The raw lines are padded with spaces; the hub's copy has them stripped, and so has this one.
    """
    data = _read(path)
    rows = ((line, text.strip(), label) for line, text in _lines(data, path, "latin-1"))
    return Table(_frame(rows, path), str(path), hashlib.sha256(data).hexdigest(), ("neg", "pos"))


def _read(path: Path) -> bytes:
    if not path.is_file():  # reading a pipe or a device may never end
        raise InputError(f"{path}: expected a file, got something else; save its content in a file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check its name and permissions") from error
    if not data.removeprefix(codecs.BOM_UTF8):
        raise InputError(f"{path}: expected labelled texts, the file is empty; give another")
    return data


def _frame(rows: Iterable[Row], path: Path) -> pd.DataFrame:
    checked = [_check(row, path) for row in rows]
    if not checked:
        raise InputError(f"{path}: expected labelled texts, there are no rows; give another file")
    return pd.DataFrame(checked, columns=["line", "text", "label"]).assign(file=str(path))


def _check(row: Row, path: Path) -> Row:
    line, text, label = row
    label = str(label) if type(label) is int else label
    for name, value in (("text", text), ("label", label)):
        if problem := _problem(value):
            raise InputError(f"{path}:{line}: the {name} {problem}; correct or remove this row")
    if label != label.strip():
        raise InputError(f"{path}:{line}: the label {label!r} has white space around it; remove that")
    if not are_names([label]):
        raise InputError(f"{path}:{line}: the label {label!r} has control characters in it; remove them")
    return line, text, label


def _problem(value: Any) -> str | None:
    if value is None:
        return "is null"
    if not isinstance(value, str):
        return f"should be a string, it is of type {type(value).__name__}"
    if not value.strip():
        return "is empty"
    if "\0" in value:
        return "holds a NUL character"
    if re.search("[\ud800-\udfff]", value):
        return "is not valid Unicode: it holds one half of a surrogate pair"
    return None


def decoded(data: bytes, path: Path, encoding: str = "utf-8") -> str:
    """A file's text; InputError with the line of the first byte that is in another encoding."""
    body = data.removeprefix(codecs.BOM_UTF8)
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        its = "utf16" if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "latin1"
        advice = f"iconv -f {its} -t utf8 {path} > converted{path.suffix}"
        raise InputError(f"{path}:{line}: expected UTF-8, got another encoding; convert it, e.g. {advice}") from error


def _lines(data: bytes, path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    # str.splitlines would also cut at U+2028, U+0085 and other characters that occur within texts
    lines = re.split(r"\r?\n", decoded(data, path, encoding))
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(f"{path}:{number}: expected a labelled text, got a blank line; remove it")
        yield number, line


def _require(columns: tuple[str, str], found: list[str], where: str) -> None:
    for column in columns:
        if found.count(column) != 1:
            there = ", ".join(repr(name[:40]) for name in found[:20]) or "none"
            advice = "name yours with --text-column and --label-column"
            raise InputError(f"{where}: expected one column {column!r}, there are {there}; {advice}")


def _txt(data: bytes, path: Path, columns: tuple[str, str]) -> Iterator[Row]:
    for number, line in _lines(data, path):
        text, semicolon, label = line.rpartition(";")
        if not semicolon:
            raise InputError(
                f"{path}:{number}: expected text;label, got {line[:40]!r}; add the semicolon and the label"
            )
        yield number, text, label


def _csv(data: bytes, path: Path, columns: tuple[str, str], delimiter: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(decoded(data, path), newline="\n"), delimiter=delimiter, strict=True)
    start = 1  # a quoted field may span lines: a row starts behind the end of the one before
    try:
        header = next(reader)
        _require(columns, header, f"{path}:1")
        text, label = (header.index(column) for column in columns)
        start = reader.line_num + 1
        for fields in reader:
            if not fields:
                raise InputError(f"{path}:{start}: expected a labelled text, got a blank line; remove it")
            if len(fields) != len(header):
                expected = f"expected {len(header)} fields as in the header, got {len(fields)}"
                raise InputError(f"{path}:{start}: {expected}; quote a field that holds {delimiter!r}")
            yield start, fields[text], fields[label]
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}:{start}: not a valid row: {error}; check the quotes") from error


def _jsonl(data: bytes, path: Path, columns: tuple[str, str]) -> Iterator[Row]:
    for number, line in _lines(data, path):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise InputError(
                f"{path}:{number}: expected one JSON object per line: {error}; correct this line"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: expected a JSON object, got {line[:40]!r}; put one object on each line")
        _require(columns, list(row), f"{path}:{number}")
        yield number, row[columns[0]], row[columns[1]]


def _parquet(data: bytes, path: Path, columns: tuple[str, str]) -> Iterator[Row]:
    try:
        # Without threads: pyarrow's may outlive the program's end, which they abort.
        file = pq.ParquetFile(io.BytesIO(data), pre_buffer=False)
        _require(columns, file.schema_arrow.names, str(path))
        table = file.read(columns=list(columns), use_threads=False)
        table.validate(full=True)  # else strings that are not UTF-8 would pass until they are used
        texts, labels = (table[column].to_pylist() for column in columns)
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the last two: dates beyond Python's
        problem = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a readable parquet file: {problem}; write it anew") from error
    yield from zip(range(1, len(texts) + 1), texts, labels, strict=True)


def _named(rows: list[Row], path: Path, classes: tuple[str, ...]) -> list[Row]:
    """With the names of the classes instead of their numbers, where there are names."""
    named: list[Row] = []
    for number, text, label in rows:
        if classes and type(label) is int:
            if not 0 <= label < len(classes):
                raise InputError(f"{path}:{number}: class number {label} has no name; there are {', '.join(classes)}")
            label = classes[label]
        named.append((number, text, label))
    return named


def _class_names(schema: pa.Schema, column: str, path: Path) -> tuple[str, ...]:
    """The names that the hub's `datasets` writes beside a ClassLabel column; else none."""
    try:
        names = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
    except (ValueError, LookupError, TypeError):  # written by somebody else
        return ()
    if not isinstance(names, list) or not are_names(names):
        raise InputError(f"{path}: its classes are called {names!r}; expected a list of different names; write it anew")
    return tuple(names)


csv.field_size_limit(sys.maxsize)  # a text may be long; whether the model can read it is another question

READERS: dict[str, Callable[[bytes, Path, tuple[str, str]], Iterator[Row]]] = {
    ".txt": _txt,
    ".csv": partial(_csv, delimiter=","),
    ".tsv": partial(_csv, delimiter="\t"),
    ".jsonl": _jsonl,
    ".json": _jsonl,
    ".parquet": _parquet,
}
