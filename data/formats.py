"""Labelled texts from one file: a reader for each format, and checks of every row."""

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
    """The content of one file. `rows` has the columns text, label, file (all str) and line (int, counted from 1)."""

    rows: pd.DataFrame
    file: str
    sha256: str
    labels: tuple[str, ...]  # in the order that the file declares; empty if it declares none


def read_table(path: Path, text_column: str, label_column: str, classes: tuple[str, ...] = ()) -> Table:
    """Read every row of a .txt, .csv, .tsv, .jsonl, .json or .parquet file.

    Texts and labels stay unchanged, white space included; whole numbers as labels become their digits. A label with
    white space around it is refused, because it would silently be a class of its own. `line` is where the row starts,
    in a .parquet file the number of the row. `classes` names the numbered labels of a .parquet file without names.
    Raises InputError.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: cannot read files ending in {path.suffix!r}; use one of {', '.join(READERS)}")
    data = _read_bytes(path)
    rows = list(reader(data, path, (text_column, label_column)))
    if reader is _read_parquet:
        classes = _read_class_names(pq.read_schema(io.BytesIO(data)), label_column, path) or classes
        rows = _name_classes(rows, path, classes)
    return Table(_check_rows(rows, path), str(path), hashlib.sha256(data).hexdigest(), classes)


def read_polarity(path: Path, label: str) -> Table:
    """Read one of the two raw Rotten Tomatoes files: latin-1, a text per line, stripped as in the hub's copy."""
    data = _read_bytes(path)
    rows = ((line, text.strip(), label) for line, text in _split_lines(data, path, "latin-1"))
    return Table(_check_rows(rows, path), str(path), hashlib.sha256(data).hexdigest(), ("neg", "pos"))


def _read_bytes(path: Path) -> bytes:
    """Return the content of a file; InputError if it is empty or cannot be read."""
    if not path.is_file():  # reading a pipe or a device may never end
        raise InputError(f"{path}: expected a file, got something else; save its content in a file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check its name and permissions") from error
    if not data.removeprefix(codecs.BOM_UTF8):
        raise InputError(f"{path}: expected labelled texts, the file is empty; give another")
    return data


def _check_rows(rows: Iterable[Row], path: Path) -> pd.DataFrame:
    """Return the rows of `Table`; InputError for the first bad one, or if there are none."""
    checked = [_check_row(row, path) for row in rows]
    if not checked:
        raise InputError(f"{path}: expected labelled texts, there are no rows; give another file")
    return pd.DataFrame(checked, columns=["line", "text", "label"]).assign(file=str(path))


def _check_row(row: Row, path: Path) -> Row:
    line, text, label = row
    label = str(label) if type(label) is int else label
    for name, value in (("text", text), ("label", label)):
        if problem := _find_problem(value):
            raise InputError(f"{path}:{line}: the {name} {problem}; correct or remove this row")
    if label != label.strip():
        raise InputError(f"{path}:{line}: the label {label!r} has white space around it; remove that")
    if not are_names([label]):
        raise InputError(f"{path}:{line}: the label {label!r} has control characters in it; remove them")
    return line, text, label


def _find_problem(value: Any) -> str | None:
    """Say in a clause what is wrong with a text or label, None if nothing is."""
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


def decode(data: bytes, path: Path, encoding: str = "utf-8") -> str:
    """Decode a file's content; InputError with the line of the first byte in another encoding."""
    body = data.removeprefix(codecs.BOM_UTF8)
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        likely = "utf16" if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "latin1"
        advice = f"iconv -f {likely} -t utf8 {path} > converted{path.suffix}"
        raise InputError(f"{path}:{line}: expected UTF-8, got another encoding; convert it, e.g. {advice}") from error


def _split_lines(data: bytes, path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield (line number, line); InputError for a blank line."""
    # str.splitlines would also cut at U+2028, U+0085 and other characters that occur within texts
    lines = re.split(r"\r?\n", decode(data, path, encoding))
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(f"{path}:{number}: expected a labelled text, got a blank line; remove it")
        yield number, line


def _check_columns(wanted: tuple[str, str], columns: list[str], where: str) -> None:
    """Raise InputError unless each wanted column comes once."""
    for column in wanted:
        if columns.count(column) != 1:
            listed = ", ".join(repr(name[:40]) for name in columns[:20]) or "none"
            advice = "name yours with --text-column and --label-column"
            raise InputError(f"{where}: expected one column {column!r}, there are {listed}; {advice}")


def _read_txt(data: bytes, path: Path, columns: tuple[str, str]) -> Iterator[Row]:
    for number, line in _split_lines(data, path):
        text, semicolon, label = line.rpartition(";")
        if not semicolon:
            raise InputError(
                f"{path}:{number}: expected text;label, got {line[:40]!r}; add the semicolon and the label"
            )
        yield number, text, label


def _read_csv(data: bytes, path: Path, columns: tuple[str, str], delimiter: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(decode(data, path), newline="\n"), delimiter=delimiter, strict=True)
    start = 1  # of the row: after the end of the row before, because a quoted field may span lines
    try:
        header = next(reader)
        _check_columns(columns, header, f"{path}:1")
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


def _read_jsonl(data: bytes, path: Path, columns: tuple[str, str]) -> Iterator[Row]:
    for number, line in _split_lines(data, path):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise InputError(
                f"{path}:{number}: expected one JSON object per line: {error}; correct this line"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: expected a JSON object, got {line[:40]!r}; put one object on each line")
        _check_columns(columns, list(row), f"{path}:{number}")
        yield number, row[columns[0]], row[columns[1]]


def _read_parquet(data: bytes, path: Path, columns: tuple[str, str]) -> Iterator[Row]:
    try:
        # Without threads, because pyarrow's may outlive the program and abort its end.
        file = pq.ParquetFile(io.BytesIO(data), pre_buffer=False)
        _check_columns(columns, file.schema_arrow.names, str(path))
        table = file.read(columns=list(columns), use_threads=False)
        table.validate(full=True)  # or strings that are not UTF-8 pass until they are used
        texts, labels = (table[column].to_pylist() for column in columns)
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the last two: dates beyond Python's
        problem = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a readable parquet file: {problem}; write it anew") from error
    yield from zip(range(1, len(texts) + 1), texts, labels, strict=True)


def _name_classes(rows: list[Row], path: Path, classes: tuple[str, ...]) -> list[Row]:
    """Replace the numbers of classes by their names, if there are names."""
    named: list[Row] = []
    for number, text, label in rows:
        if classes and type(label) is int:
            if not 0 <= label < len(classes):
                raise InputError(f"{path}:{number}: class number {label} has no name; there are {', '.join(classes)}")
            label = classes[label]
        named.append((number, text, label))
    return named


def _read_class_names(schema: pa.Schema, column: str, path: Path) -> tuple[str, ...]:
    """Return the names that the hub's `datasets` writes beside a ClassLabel column; without them, none."""
    try:
        names = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
    except (ValueError, LookupError, TypeError):  # another program wrote the file
        return ()
    if not isinstance(names, list) or not are_names(names):
        raise InputError(f"{path}: its classes are called {names!r}; expected a list of different names; write it anew")
    return tuple(names)


csv.field_size_limit(sys.maxsize)  # `encode` refuses texts that are too long

READERS: dict[str, Callable[[bytes, Path, tuple[str, str]], Iterator[Row]]] = {
    ".txt": _read_txt,
    ".csv": partial(_read_csv, delimiter=","),
    ".tsv": partial(_read_csv, delimiter="\t"),
    ".jsonl": _read_jsonl,
    ".json": _read_jsonl,
    ".parquet": _read_parquet,
}
