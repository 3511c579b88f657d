"""The rows of a corpus: what is asked of each, and what happens to those that cannot be used."""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from model import InputError
from model.readout import are_names

LISTED = 60  # columns
SHOWN = 3  # bad rows that a message shows
MOST = 1_000_000  # bad rows of a file
CHUNK = 50_000  # rows
CONTENT = 200  # characters of a bad row that are kept
NAME_COLUMNS = "name yours with --text-column and --label-column"
NOT_SINGLE = "rows without a label", "rows with several labels"  # which --single-label leaves out: no mistakes
BLANK = "blank lines"
OTHER_ENCODING = "rows in another encoding"
HALVES = re.compile("[\ud800-\udfff]")  # of characters beyond 16 bits
ESCAPED_BYTES = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of bytes that are not of the encoding


class Row(NamedTuple):
    """A row as a reader finds it; `line` is where it starts, counted from 1."""

    line: int
    text: Any
    label: Any


class BadRow(NamedTuple):
    """A row that cannot be used. `kind` names what is wrong with it in the plural, `reason` says it of this row."""

    line: int
    kind: str
    reason: str
    content: str = ""


def check_rows(rows: Iterable[Row | BadRow], path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the usable rows, with the columns line, text, label, file, and the others: file, line, kind, reason,
    content."""
    tables, good, bad = list[pd.DataFrame](), list[Row](), list[BadRow]()
    for row in rows:
        checked = check_row(row) if isinstance(row, Row) else row
        if isinstance(checked, Row):
            good.append(checked)
            if len(good) == CHUNK:  # a table holds a row in a third of the memory
                tables.append(tabulate(good))
                good.clear()
        else:
            bad.append(checked._replace(content=escape(checked.content[:CONTENT])))
        if len(bad) > MOST:
            raise InputError(
                f"{path}: over {MOST:,} rows cannot be used, the first is line {bad[0].line}: {bad[0].reason}"
            )
    if good or not tables:
        tables.append(tabulate(good))
    usable = pd.concat(tables, ignore_index=True).assign(file=str(path))
    unusable = pd.DataFrame(bad, columns=[*BadRow._fields])
    unusable.insert(0, "file", str(path))
    return usable, unusable


def tabulate(rows: list[Row]) -> pd.DataFrame:
    """Return rows as a table with the columns line, text, label."""
    return pd.DataFrame(rows, columns=[*Row._fields])


def check_row(row: Row) -> Row | BadRow:
    """Return the row with its label as a string, or what is wrong with it."""
    line, text, label = row
    label = str(label) if type(label) is int else label
    problem = find_problem("text", text) or find_problem("label", label) or find_label_problem(label)
    if problem:
        return BadRow(line, *problem, f"{str(text)[:CONTENT]!r}, {str(label)[:CONTENT]!r}")
    return row if label is row.label else Row(line, text, label)


def check_encoding(line: int, content: str) -> BadRow | None:
    """Return the bad row where this content holds bytes that are not of the file's encoding."""
    foreign = not content.isascii() and ESCAPED_BYTES.search(content)
    return BadRow(line, OTHER_ENCODING, "", content) if foreign else None


def describe_columns(wanted: tuple[str, str], columns: list[str]) -> str | None:
    """Say in a clause which of the wanted columns does not come once; None if both do."""
    for column in wanted:
        if columns.count(column) != 1:
            listed = ", ".join(repr(name[:40]) for name in columns[:LISTED]) or "none"
            listed += f" and {len(columns) - LISTED} more" if len(columns) > LISTED else ""
            return f"expected one column {column!r}, there are {listed}; {NAME_COLUMNS}"
    return None


def find_problem(name: str, value: Any) -> tuple[str, str] | None:
    """Return the kind and the reason for which a text or label, as `name` says, cannot be used; None if it can."""
    if value is None:
        return f"{name}s that are null", f"the {name} is null"
    if not isinstance(value, str):
        expected = "a string or a whole number" if name == "label" else "a string"
        several = "; of several labels, --single-label takes the rows with one" if isinstance(value, list) else ""
        reason = f"the {name} should be {expected}, it is of type {type(value).__name__}{several}"
        return f"{name}s of another type", reason
    if not value or value.isspace():
        return f"empty {name}s", f"the {name} is empty"
    if "\0" in value:
        return f"{name}s with NUL characters", f"the {name} holds a NUL character"
    if not value.isascii() and HALVES.search(value):
        reason = f"the {name} is not valid Unicode: it holds one half of a surrogate pair"
        return f"{name}s that are not valid Unicode", reason
    return None


@lru_cache(maxsize=10_000)  # labels come again and again
def find_label_problem(label: str) -> tuple[str, str] | None:
    """Return the kind and the reason for which a label cannot name a class; None if it can."""
    if label != label.strip():
        return "labels with white space around them", f"the label {label[:40]!r} has white space around it; remove that"
    if not are_names([label]):
        return "labels with control characters", f"the label {label[:40]!r} has control characters in it; remove them"
    return None


def escape(text: str) -> str:
    """Write halves of characters, which no file can hold, as escapes."""
    return text.encode(errors="backslashreplace").decode()


def refuse_bad_rows(bad: pd.DataFrame, total: int) -> None:
    """Raise InputError where there are bad rows among `total`: it counts them by kind and shows the first.

    Rows without a single label are no mistakes, see `take_single_labels`."""
    bad = bad[~bad["kind"].isin(NOT_SINGLE)]
    if bad.empty:
        return
    shown = bad.head(SHOWN).groupby("reason", sort=False)
    places = [f"{name_places(rows)}: {reason}" for reason, rows in shown]
    them = "it" if len(bad) == 1 else "them"
    counts = f"; {describe_bad_rows(bad, total)}" if len(bad) > 1 else ""
    # Those in another encoding may be the very rows with an apostrophe: to skip them would choose by content.
    skip = (
        ""
        if set(bad["kind"]) == {OTHER_ENCODING}
        else f"; correct or remove {them}, or pass --skip-bad-rows to go on without {them}"
    )
    raise InputError(f"{'; '.join(places)}{counts}{skip}")


def name_places(rows: pd.DataFrame) -> str:
    """Return the files and lines of bad rows, as a.csv:2, 5, b.csv:3."""
    by_file = rows.groupby("file", sort=False)["line"]
    return ", ".join(f"{file}:{', '.join(map(str, lines))}" for file, lines in by_file)


def describe_bad_rows(bad: pd.DataFrame, total: int, fate: str = "cannot be used") -> str:
    """Count the bad rows among `total` by kind, in words; `fate` says what becomes of them."""
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in bad["kind"].value_counts().items())
    return f"{len(bad):,} of {total:,} rows {fate}: {kinds}"
