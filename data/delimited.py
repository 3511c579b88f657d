"""Tables with a separator, .csv and .tsv: finds their separator, quotes and header, and reads their rows."""

import csv
import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from model import InputError

from .decoding import cut_lines
from .reading import USUAL, ReadOptions
from .rows import BLANK, BadRow, Row, check_encoding, describe_columns

log = logging.getLogger("headgate")

SEPARATORS = {",": "commas", ";": "semicolons", "|": "bars", "\t": "tabs"}
LOOKED_AT = 1000  # records that show which separator a file without a header has
DECIDED_BY = 1_000_000  # records that show whether a file has a header, and whether it quotes
MOST_LINES = 10_000  # of one record
NAME_WORDS = 5  # a name of a column has no more
MOST_ROWS = 0.9  # a column is quoted throughout where at least this share of its fields is: some may be broken
CARRIAGE_RETURN = "a carriage return stands within the row, outside of quotation marks"
BY_NUMBER = "pass --no-header, with the numbers of its columns as --text-column and --label-column"

csv.field_size_limit(sys.maxsize)  # `encode` refuses texts that are too long


class Record(NamedTuple):
    """One row of a table, or its header: its fields, or the problem for which it has none."""

    number: int  # of the line where it starts, from 1
    lines: tuple[str, ...]  # of the file; a quoted field may span several
    fields: list[str]
    problem: str | None = None


class Dialect(NamedTuple):
    """How a file writes its table."""

    separator: str
    is_quoted: bool | None  # do quotation marks enclose fields? None: no field begins with one
    header: list[str] | None
    width: int  # fields of a record
    text: int  # places in a record
    label: int


def read_delimited(text: str, path: Path, options: ReadOptions) -> Iterator[Row | BadRow]:
    """Read the rows of a .csv or .tsv file.

    Fields are separated by commas, semicolons, bars or tabs: as the header shows. With commas they are quoted as RFC
    4180 says; with another separator only where the file quotes consistently, see `find_quoting`. Raises InputError
    where the columns are not as `options` say."""
    dialect = find_dialect(text, path, options)
    if dialect.is_quoted:
        records = read_quoted(text, dialect.separator, find_swallowed(text, dialect))
    else:
        records = read_plain(text, dialect.separator)
    for record in islice(records, 1 if dialect.header else 0, None):
        yield check_record(record, dialect)


def check_record(record: Record, dialect: Dialect) -> Row | BadRow:
    """Return the row that a record holds, or why it holds none."""
    number, lines, fields, problem = record
    content = lines[0].strip() if problem else dialect.separator.join(fields)
    if bad := check_encoding(number, content):
        return bad
    if problem:
        return BadRow(number, "rows with broken quotes", f"not a valid row: {problem}; check the quotes", content)
    if len(fields) != dialect.width:
        if len(fields) < 2 and not content.strip():
            return BadRow(number, BLANK, "expected a labelled text, got a blank line")
        expected = f"expected {dialect.width} fields as in {'the header' if dialect.header else 'most rows'}"
        advice = f"quote a field that holds {dialect.separator!r}"
        return BadRow(number, "rows with another number of fields", f"{expected}, got {len(fields)}; {advice}", content)
    row = Row(number, fields[dialect.text], fields[dialect.label])
    if dialect.header and repeats_header(row, dialect.header, dialect):
        return BadRow(number, "repeated headers", "the header comes again; remove this line", content)
    return row


def repeats_header(row: Row, header: list[str], dialect: Dialect) -> bool:
    """Return whether a row is the header again, as where files were joined; a byte order mark may stand before it."""
    return row.label == header[dialect.label] and row.text.removeprefix("\ufeff") == header[dialect.text]


def find_dialect(text: str, path: Path, options: ReadOptions) -> Dialect:
    """Find out how a file writes its table, and log what its name does not say. Raises InputError."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    firsts = {each: read_first(text, each) for each in sorted(SEPARATORS, key=lambda each: each != usual)}
    line = next(cut_lines(text))
    if re.fullmatch('"?sep=.?"?', line.strip()):
        got = f"{line.strip()!r}, which is for Excel"
        raise InputError(f"{path}:1: expected the names of columns, got {got}; remove this line")
    named = [each for each, fields in firsts.items() if all(fields.count(name) == 1 for name in options.columns)]
    by_name = bool(named) and options.header
    if by_name:
        separator, width = named[0], len(firsts[named[0]])
        places = [firsts[separator].index(name) for name in options.columns]
    else:
        places = find_numbers(firsts, path, options)
        separator, width = find_separator(list(firsts), text, path, max(places))
    has_header = by_name or (options.header and not is_row(text, separator, width, *places))
    header = firsts[separator] if has_header else None
    dialect = Dialect(separator, find_quoting(text, separator), header, width, *places)
    if notes := describe_dialect(dialect, usual, by_name):
        log.warning("%s: %s", path, "; ".join(notes))
    return dialect


def describe_dialect(dialect: Dialect, usual: str, by_name: bool) -> list[str]:
    """Say in clauses what was found out about a file."""
    notes = []
    if not by_name:
        notes.append(f"column {dialect.text + 1} is the text, column {dialect.label + 1} the label")
        notes.append(f"the first line is {'a header' if dialect.header else 'a row'}")
    if dialect.separator != usual:
        notes.append(f"fields are separated by {SEPARATORS[dialect.separator]}")
    if dialect.separator != "," and dialect.is_quoted is not None:
        notes.append(f"quotation marks {'enclose fields' if dialect.is_quoted else 'are part of the texts'}")
    return notes


def find_numbers(firsts: dict[str, list[str]], path: Path, options: ReadOptions) -> list[int]:
    """Return the places of texts and labels that the options give as numbers, counted from 1.

    Raises InputError where they give names, which no first record has."""
    if all(re.fullmatch("[1-9][0-9]{0,4}", column) for column in options.columns):
        return [int(column) - 1 for column in options.columns]
    if not options.header:
        if options.columns == USUAL.columns:
            return [0, 1]
        given = " and ".join(map(repr, options.columns))
        raise InputError(f"{path}: without a header, expected numbers of columns, counted from 1, got {given}")
    separator = max(firsts, key=lambda each: len(firsts[each]))
    problem = describe_columns(options.columns, firsts[separator])
    raise InputError(f"{path}:1: {problem}; if this is a row, and no header, {BY_NUMBER}")


def find_separator(separators: Sequence[str], text: str, path: Path, place: int) -> tuple[str, int]:
    """Return the separator that cuts most of the first records into equally many fields, and into how many.

    Raises InputError where none gives a field at this place."""
    candidates = []  # for each separator, in how many records it gives how many fields
    for separator in separators:
        records = islice(read_quoted(text, separator), LOOKED_AT)
        widths = Counter(len(record.fields or split(record.lines[0], separator)) for record in records)
        candidates += [(count, separator, width) for width, count in widths.most_common() if width > place]
    if not candidates:
        advice = "give other numbers as --text-column and --label-column"
        raise InputError(f"{path}:1: expected at least {place + 1} columns, got fewer; {advice}")
    _, separator, width = max(candidates, key=lambda each: each[0])
    return separator, width


def is_row(text: str, separator: str, width: int, place: int, label: int) -> bool:
    """Return whether the first record, with its text and its label at these places, is a row, and no header: its text
    is long, its label has no letters, or another row has it too. Numbers are names where pandas gave them."""
    records = islice(read_quoted(text, separator), 1, DECIDED_BY)
    first = read_first(text, separator)
    names = [name for name in first if name]
    if len(first) != width:
        return True  # a broken one
    if not first[label] or names == [str(number) for number in range(len(names))]:
        return False
    if len(first[place].split()) > NAME_WORDS or not re.search(r"[^\W\d_]", first[label]):
        return True
    return any(len(r.fields) == len(first) and r.fields[label] == first[label] and r.fields != first for r in records)


def find_quoting(text: str, separator: str) -> bool | None:
    """Return whether quotation marks enclose fields, and are no part of the texts; None where no field begins with one.

    The whole file decides, so that a few broken rows do not. Marks enclose fields if a column has them throughout, or
    if more rows need them (for a separator, a line end or another mark within) than have them for nothing or wrongly.
    """
    if separator == ",":
        return True
    if '"' not in text:
        return None
    rows = needed = needless = broken = 0
    by_place = Counter[int]()
    for _, lines, fields, problem in islice(read_quoted(text, separator), 1, DECIDED_BY):
        rows += 1
        plain = [split(line, separator) for line in lines]
        marked = [place for place, field in enumerate(plain[0]) if field.startswith('"')]
        if problem or (len(plain) > 1 and all(len(row) == len(plain[0]) == len(fields) for row in plain)):
            broken += 1  # the latter swallowed whole rows
        elif any(mark in field for field in {*fields} - {*plain[0]} for mark in (separator, '"', "\n")):
            needed += 1
        elif marked:
            needless += 1
            by_place.update(marked)
    throughout = by_place and needed + max(by_place.values()) >= MOST_ROWS * rows
    return bool(throughout) or needed > needless + broken if needed + needless + broken else None


def find_swallowed(text: str, dialect: Dialect) -> Callable[[Record], bool]:
    """Return a function that tells whether an open quotation mark made several rows of a file one record: whether at
    least half of the lines that would be rows of their own have a label that rows on one line have."""
    width, label = dialect.width, dialect.label

    @cache
    def labels() -> set[str]:
        records = read_quoted(text, dialect.separator)
        return {fields[label] for _, lines, fields, _ in records if len(lines) == 1 and len(fields) == width} - {""}

    def is_swallowed(record: Record) -> bool:
        within = record.lines[:-1] if dialect.text < label else record.lines[1:]
        rows = [split(line, dialect.separator) for line in within]
        with_label = sum(len(fields) == width and fields[label].strip('"') in labels() for fields in rows)
        return 2 * with_label >= len(rows)

    return is_swallowed


def read_first(text: str, separator: str) -> list[str]:
    """Return the fields of the first record; where its quotes are broken, they are part of its fields."""
    first = next(read_quoted(text, separator))
    return split(first.lines[0], separator) if first.problem else first.fields


def read_plain(text: str, separator: str) -> Iterator[Record]:
    """Yield the records of a table without quoting."""
    for number, line in enumerate(cut_lines(text), 1):
        fields = split(line, separator)
        problem = CARRIAGE_RETURN if "\r" in line and any("\r" in field for field in fields) else None
        yield Record(number, (line,), fields, problem)


def read_quoted(text: str, separator: str, is_swallowed: Callable[[Record], bool] | None = None) -> Iterator[Record]:
    """Yield the records of a table in which quotation marks enclose fields.

    After a record with broken quotes, and one that swallowed rows, reading goes on in the next line, so that an open
    quotation mark costs one row."""
    number, start = 1, 0  # line and character at which the next record begins
    while start < len(text):
        lines: list[str] = []  # of the record that is being read
        problem = None
        reader = csv.reader(keep(cut_lines(text, start), lines), delimiter=separator, strict=True)
        try:
            for fields in reader:
                record = Record(number, tuple(lines), fields)
                if is_swallowed and len(lines) > 1 and is_swallowed(record):
                    end = number + len(lines) - 1
                    problem = f"a quotation mark opens here and closes in line {end}, after other rows"
                    break
                yield record
                number, start = number + len(lines), start + sum(map(len, lines))
                lines.clear()
        except csv.Error as error:
            problem = explain(error)
        if problem:
            yield Record(number, tuple(lines), [], problem)
            # A mark that is left open in a line between these would run to the same place, so each is read alone: in
            # a file of open marks the work would otherwise grow with the square of its lines.
            for other, line in enumerate(lines[1:-1], number + 1):
                yield read_alone(other, line, separator)
            passed = lines[:-1] or lines
            number, start = number + len(passed), start + sum(map(len, passed))


def read_alone(number: int, line: str, separator: str) -> Record:
    """Return the record in one line, whose quotes are broken if they leave a field open."""
    try:
        (fields,) = csv.reader([line], delimiter=separator, strict=True)
    except csv.Error as error:
        return Record(number, (line,), [], explain(error))
    return Record(number, (line,), fields)


def explain(error: csv.Error) -> str:
    """Say in a clause what a reader of quotes found wrong."""
    if "new-line" in str(error):
        return CARRIAGE_RETURN
    return "a quotation mark is never closed" if "end of data" in str(error) else str(error)


def keep(lines: Iterable[str], kept: list[str]) -> Iterator[str]:
    """Yield the lines, and append each to `kept`. Raises csv.Error for the line after too many."""
    for line in lines:
        if len(kept) == MOST_LINES:
            raise csv.Error(f"a quotation mark stays open for over {MOST_LINES:,} lines")
        kept.append(line)
        yield line


def split(line: str, separator: str) -> list[str]:
    return line.removesuffix("\n").removesuffix("\r").split(separator)
