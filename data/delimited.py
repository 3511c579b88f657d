"""Tables with a separator, .csv and .tsv: finds their separator, quotes and header, and reads their rows."""

import csv
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

from model import InputError

from .reading import USUAL, ReadOptions
from .rows import BLANK, BadRow, Row, check_encoding, describe_columns

log = logging.getLogger("headgate")

SEPARATORS = {",": "commas", ";": "semicolons", "|": "bars", "\t": "tabs"}
QUOTED = re.compile(r'"(?:[^"]|"")*"')  # a whole field, as CSV quotes it
LOOKED_AT = 1000  # records that show which separator a file without a header has
Record = tuple[int, list[str] | str]  # the line where it starts, and its fields, or what is wrong with its quotes
BY_NUMBER = "pass --no-header, with the numbers of its columns as --text-column and --label-column"

csv.field_size_limit(sys.maxsize)  # `encode` refuses texts that are too long


class Dialect(NamedTuple):
    """How a file writes its table. `header`: its first record, where that names the columns."""

    separator: str
    is_quoted: bool
    header: list[str] | None
    text: int  # places in a record
    label: int
    width: int  # fields of a record


def read_delimited(text: str, path: Path, options: ReadOptions) -> Iterator[Row | BadRow]:
    """Read the rows of a .csv or .tsv file.

    Fields are separated by commas, semicolons, bars or tabs: as the header shows. With commas they are quoted as RFC
    4180 says; with another separator only where the file quotes consistently, see `find_quoting`. Raises InputError
    where the columns are not as `options` say."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    dialect = find_dialect(lines, path, options)
    records = read_records(lines, dialect.separator, dialect.is_quoted)
    for line, fields in islice(records, 1 if dialect.header else 0, None):
        yield check_fields(line, fields, dialect, path)


def check_fields(line: int, fields: list[str] | str, dialect: Dialect, path: Path) -> Row | BadRow:
    """Return the row that a record holds, or why it holds none. Raises InputError where it shows that the first line is
    no header."""
    if isinstance(fields, str):
        return BadRow(line, "rows with broken quotes", f"not a valid row: {fields}; check the quotes")
    content, header = dialect.separator.join(fields), dialect.header
    if bad := check_encoding(line, content):
        return bad
    if len(fields) < 2 and not content.strip():
        return BadRow(line, BLANK, "expected a labelled text, got a blank line")
    if len(fields) != dialect.width:
        expected = f"expected {dialect.width} fields as in {'the header' if header else 'the first row'}"
        reason = f"{expected}, got {len(fields)}; quote a field that holds {dialect.separator!r}"
        return BadRow(line, "rows with another number of fields", reason, content)
    if fields == header:
        return BadRow(line, "repeated headers", "the header comes again", content)
    if header and fields[dialect.label] == header[dialect.label]:
        again = f"{fields[dialect.label]!r}, which is a label in line {line}; if there is no header, {BY_NUMBER}"
        raise InputError(f"{path}:1: expected the names of columns, got {again}")
    return Row(line, fields[dialect.text], fields[dialect.label])


def find_dialect(lines: Sequence[str], path: Path, options: ReadOptions) -> Dialect:
    """Find out how a file writes its table, and log what its name does not say."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    firsts = {each: read_first(lines, each) for each in sorted(SEPARATORS, key=lambda each: each != usual)}
    named = [each for each, fields in firsts.items() if all(fields.count(name) == 1 for name in options.columns)]
    notes = []
    if named and options.header:
        separator = named[0]
        header: list[str] | None = firsts[separator]
        text, label = (firsts[separator].index(name) for name in options.columns)
    else:
        text, label = find_numbers(firsts, lines, path, options)
        separator = max(firsts, key=lambda each: count_alike(lines, each, max(text, label)))
        if len(firsts[separator]) <= max(text, label):
            raise InputError(f"{path}:1: expected {max(text, label) + 1} columns, got {len(firsts[separator])}")
        header = None if not options.header or label in find_repeated(lines, separator) else firsts[separator]
        notes.append(f"column {text + 1} is the text, column {label + 1} the label")
        notes.append(f"the first line is {'a header' if header else 'a row'}")
    is_quoted = find_quoting(lines, separator)
    if separator != usual:
        notes.append(f"fields are separated by {SEPARATORS[separator]}")
    if separator != "," and any(field.startswith('"') for line in lines for field in split(line, separator)):
        notes.append(f"quotation marks {'enclose fields' if is_quoted else 'are part of the texts'}")
    if notes:
        log.warning("%s: %s", path, "; ".join(notes))
    return Dialect(separator, is_quoted, header, text, label, len(firsts[separator]))


def find_numbers(
    firsts: dict[str, list[str]], lines: Sequence[str], path: Path, options: ReadOptions
) -> tuple[int, int]:
    """Return the places of texts and labels that the options give as numbers, counted from 1.

    Raises InputError where they give names, which no first record has; it says so where that looks like a row."""
    if all(re.fullmatch("[1-9][0-9]{0,4}", column) for column in options.columns):
        return int(options.text_column) - 1, int(options.label_column) - 1
    if not options.header:
        if options.columns == USUAL.columns:
            return 0, 1
        given = " and ".join(map(repr, options.columns))
        raise InputError(f"{path}: without a header, expected numbers of columns, counted from 1, got {given}")
    separator = max(firsts, key=lambda each: len(firsts[each]))
    problem = describe_columns(options.columns, firsts[separator]) or ""
    if find_repeated(lines, separator):
        problem += f". This looks like a row: if the file has no header, {BY_NUMBER}"
    raise InputError(f"{path}:1: {problem}")


def find_repeated(lines: Sequence[str], separator: str) -> set[int]:
    """Return the places at which the first record has a field that another record has there too, as rows have, and
    headers have not."""
    records = [fields for _, fields in islice(read_records(lines, separator, True), LOOKED_AT)]
    first, *others = records
    rows = [
        fields for fields in others if not isinstance(fields, str) and len(fields) == len(first) and fields != first
    ]
    return {place for fields in rows for place, field in enumerate(fields) if field == first[place] != ""}


def count_alike(lines: Sequence[str], separator: str, place: int) -> int:
    """Count the first records that have as many fields as the very first one, and one at this place."""
    records = [fields for _, fields in islice(read_records(lines, separator, True), LOOKED_AT)]
    return sum(len(fields) == len(records[0]) > place for fields in records if not isinstance(fields, str))


def find_quoting(lines: Sequence[str], separator: str) -> bool:
    """Return whether quotation marks enclose fields, and are no part of the texts.

    Where fields begin with one, both ways are tried, and the one that leaves fewer lines unread is right. Where both
    read every line, marks enclose fields if each field that begins with one ends with one, and either all of them hold
    doubled ones, for which they had to be quoted, or columns are quoted throughout."""
    rows = [split(line, separator) for line in lines]
    opened = [field for fields in rows for field in fields if field.startswith('"')]
    if separator == "," or not opened:
        return separator == ","
    width = len(rows[0])
    unread = sum(len(fields) != width for fields in rows)
    unread_quoted = count_unread(lines, separator, rows)
    if unread != unread_quoted:
        return unread_quoted < unread
    if not all(map(QUOTED.fullmatch, opened)):
        return False
    columns = {place for fields in rows for place, field in enumerate(fields) if field.startswith('"')}
    whole = all(len(fields) > place and fields[place].startswith('"') for fields in rows[1:] for place in columns)
    return whole or all('""' in field[1:-1] for field in opened)


def count_unread(lines: Sequence[str], separator: str, rows: Sequence[list[str]]) -> int:
    """Count the lines that a reader of quotes would lose: in records that are not as wide as the first, and in those
    that swallow whole rows. rows: the fields of each line, read without quotes."""
    records = [*read_records(lines, separator, True), (len(lines) + 1, [])]
    width, lost = len(records[0][1]), 0
    for (line, fields), (following, _) in pairwise(records):
        within = rows[line - 1 : following - 1]
        if isinstance(fields, str) or len(fields) != width:
            lost += 1
        elif len(within) > 1 and all(len(row) == len(rows[0]) for row in within):
            lost += len(within)
    return lost


def read_first(lines: Sequence[str], separator: str) -> list[str]:
    """Return the fields of the first record; a line that is quoted wrongly is one field."""
    _, fields = next(read_records(lines, separator, True))
    return [lines[0].rstrip("\r\n")] if isinstance(fields, str) else fields


def read_records(lines: Sequence[str], separator: str, is_quoted: bool) -> Iterator[Record]:
    """Yield the records of a table. After one with broken quotes, reading goes on in the next line, so that an open
    quotation mark costs one row."""
    if not is_quoted:
        yield from ((number, split(line, separator)) for number, line in enumerate(lines, 1))
        return
    start = 0  # of a record; a quoted field may span lines
    while start < len(lines):
        begun = start
        reader = csv.reader((lines[i] for i in range(begun, len(lines))), delimiter=separator, strict=True)
        try:
            for fields in reader:
                yield start + 1, fields
                start = begun + reader.line_num
        except csv.Error as error:
            yield start + 1, str(error)
            start += 1


def split(line: str, separator: str) -> list[str]:
    return line.rstrip("\r\n").split(separator)
