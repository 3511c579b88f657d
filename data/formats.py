"""Labelled texts from one file: a reader for each format."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from model import InputError
from model.files import parse_json
from model.readout import are_names

from .decoding import decode, describe_encoding, read_bytes, split_lines
from .delimited import read_delimited
from .labels import Names, name_labels, read_label_names, take_single_labels
from .reading import USUAL, ReadOptions
from .rows import CONTENT, OTHER_ENCODING, BadRow, Row, check_encoding, check_rows, describe_columns


class Table(NamedTuple):
    """The content of one file. `rows` has the columns line (int, counted from 1), text, label and file (all else str);
    `bad_rows`, those that cannot be used, has file, line, kind, reason and content."""

    rows: pd.DataFrame
    bad_rows: pd.DataFrame
    file: str
    sha256: str
    labels: tuple[str, ...]  # in the order that the file or the user declares; empty if neither does


def read_table(path: Path, options: ReadOptions = USUAL, names: Names | None = None) -> Table:
    """Read every row of a .txt, .csv, .tsv, .jsonl, .json or .parquet file.

    Texts and labels stay unchanged, white space included; whole numbers as labels become their digits. A label with
    white space around it is a bad row, because it would silently be a class of its own. `line` is where the row starts;
    in a .parquet file and in an array of JSON, which row it is. `names` are those of the numbered labels of a .parquet
    file that has none. Raises InputError."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: cannot read files ending in {path.suffix!r}; use one of {', '.join(READERS)}")
    if not options.header and reader is not read_csv:
        raise InputError(f"{path}: --no-header is for .csv and .tsv; leave it out")
    if options.columns != USUAL.columns and reader is read_txt:
        raise InputError(f"{path}: --text-column and --label-column are for tables, not for .txt; leave them out")
    if options.encoding and reader is read_parquet:
        raise InputError(f"{path}: --encoding is for text files, and .parquet holds UTF-8; leave it out")
    data = read_bytes(path)
    rows = reader(data, path, options)
    given = read_label_names(options.label_names) if options.label_names else {}
    if reader is read_parquet and not given:
        names = read_class_names(data, options.label_column, path) or names
    names = given or names or {}
    if options.single_label:
        rows = take_single_labels(rows)
    if names:
        rows = name_labels(rows, names, path, bool(given))
    labels = tuple(names[number] for number in sorted(names))
    return make_table(rows, data, path, labels, options.encoding)


def make_table(
    rows: Iterable[Row | BadRow], data: bytes, path: Path, labels: tuple[str, ...], encoding: str | None
) -> Table:
    """Check the rows of a file. Raises InputError where there are none at all."""
    usable, bad_rows = check_rows(rows, path)
    if usable.empty and bad_rows.empty:
        raise InputError(f"{path}: expected labelled texts, there are no rows; give another file")
    undecodable = bad_rows["kind"] == OTHER_ENCODING
    if undecodable.any():
        bad_rows.loc[undecodable, "reason"] = describe_encoding(data, encoding)
    return Table(usable, bad_rows, str(path), hashlib.sha256(data).hexdigest(), labels)


def read_polarity(path: Path, label: str) -> Table:
    """Read one of the two raw Rotten Tomatoes files: latin-1, a text per line, stripped as in the hub's copy."""
    data = read_bytes(path)
    rows = (
        row if isinstance(row, BadRow) else Row(row[0], row[1].strip(), label)
        for row in split_lines(data.decode("latin-1"))
    )
    return make_table(rows, data, path, ("neg", "pos"), "latin-1")


def read_txt(data: bytes, path: Path, options: ReadOptions) -> Iterator[Row | BadRow]:
    """Read a file with one `text;label` on each line."""
    for numbered in split_lines(decode(data, path, options.encoding)):
        if isinstance(numbered, BadRow):
            yield numbered
            continue
        number, line = numbered
        text, semicolon, label = line.rpartition(";")
        if not semicolon:
            reason = f"expected text;label, got {line[:40]!r}; add the semicolon and the label"
            yield BadRow(number, "lines without a semicolon", reason, line)
        elif "\r" in line:
            yield BadRow(number, "lines with carriage returns", "a carriage return stands within the line", line)
        else:
            yield Row(number, text, label)


def read_csv(data: bytes, path: Path, options: ReadOptions) -> Iterator[Row | BadRow]:
    """Read a .csv or .tsv file, see `read_delimited`."""
    text = decode(data, path, options.encoding)
    if options.header and check_encoding(1, text.partition("\n")[0]):  # or its columns would not be found
        raise InputError(f"{path}:1: {describe_encoding(data, options.encoding)}")
    yield from read_delimited(text, path, options)


def read_json(data: bytes, path: Path, options: ReadOptions) -> Iterator[Row | BadRow]:
    """Read a file with one JSON object on each line; a .json file may be one array of objects instead."""
    text = decode(data, path, options.encoding)
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        yield from read_array(text, path, options)
        return
    for numbered in split_lines(text):
        yield numbered if isinstance(numbered, BadRow) else parse_line(*numbered, options)


def read_array(text: str, path: Path, options: ReadOptions) -> Iterator[Row | BadRow]:
    """Read an array of JSON objects, as pandas writes with orient="records". Raises InputError where it is none."""
    try:
        rows = parse_json(text)
    except ValueError as error:
        raise InputError(f"{path}: expected an array of JSON objects: {error}; correct it") from None
    for number, row in enumerate(rows, 1):
        yield check_object(number, row, repr(row)[:CONTENT], options)


def parse_line(number: int, line: str, options: ReadOptions) -> Row | BadRow:
    """Return the row in a line of JSON."""
    try:
        row = parse_json(line)
    except ValueError as error:
        reason = f"expected one JSON object per line: {error}; correct this line"
        return BadRow(number, "lines that are not JSON", reason, line)
    return check_object(number, row, line, options)


def check_object(number: int, row: Any, content: str, options: ReadOptions) -> Row | BadRow:
    """Return the row that a value of JSON is, or why it is none."""
    if not isinstance(row, dict):
        reason = f"expected a JSON object, got {content[:40]!r}; write one object for each row"
        return BadRow(number, "rows that are no JSON object", reason, content)
    if problem := describe_columns(options.columns, list(row)):
        return BadRow(number, "rows without the columns", problem, content)
    return Row(number, row[options.text_column], row[options.label_column])


def read_parquet(data: bytes, path: Path, options: ReadOptions) -> Iterator[Row | BadRow]:
    """Read a .parquet file."""
    with refused(path):
        # Without threads, because pyarrow's may outlive the program and abort its end.
        file = pq.ParquetFile(io.BytesIO(data), pre_buffer=False)
        if problem := describe_columns(options.columns, file.schema_arrow.names):
            raise InputError(f"{path}: {problem}")
        table = file.read(columns=list(options.columns), use_threads=False)
        table.validate(full=True)  # or strings that are not UTF-8 pass until they are used
        texts, labels = (table[column].to_pylist() for column in options.columns)
    yield from map(Row, range(1, len(texts) + 1), texts, labels)


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """Raise InputError for what pyarrow raises where a file is damaged."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the last two: dates beyond Python's
        problem = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a readable parquet file: {problem}; write it anew") from error


def read_class_names(data: bytes, column: str, path: Path) -> Names:
    """Return the names that the hub's `datasets` writes beside a column of ClassLabels, or of lists of them, in a
    .parquet file; without them, none."""
    with refused(path):
        metadata = pq.read_schema(io.BytesIO(data)).metadata or {}
    try:
        feature = parse_json(metadata[b"huggingface"])["info"]["features"][column]
        feature = feature[0] if isinstance(feature, list) else feature  # earlier versions wrote lists so
        names = feature.get("feature", feature)["names"]
    except (ValueError, LookupError, TypeError, AttributeError):  # another program wrote the file
        return {}
    if not isinstance(names, list) or not are_names(names):
        raise InputError(f"{path}: its classes are called {names!r}; expected a list of different names; write it anew")
    return dict(enumerate(names))


READERS: dict[str, Callable[[bytes, Path, ReadOptions], Iterator[Row | BadRow]]] = {
    ".txt": read_txt,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".jsonl": read_json,
    ".json": read_json,
    ".parquet": read_parquet,
}
