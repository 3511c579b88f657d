"""The labels of rows: numbers that stand for names, and lists of which one label may be used."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from model import InputError
from model.readout import are_names

from .rows import BadRow, Row

Names = dict[int, str]  # of classes, by number
NUMBERED = re.compile(r"(\d+)[\t ,;:]\s*(\S.*)")  # a line of a file of names: 0 anger


def read_label_names(given: tuple[str, ...]) -> Names:
    """Return the names that --label-names gives: itself, or in a file with a name, or a number and a name, per line.

    Raises InputError where they are not different names."""
    names: Iterable[str] = given
    source = f"--label-names {' '.join(given)}"
    if len(given) == 1:
        try:
            names = Path(given[0]).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(f"{source}: expected the names of the classes, or a file of them: {error}") from None
    lines = [line.strip() for line in names if line.strip()]
    matches = [NUMBERED.fullmatch(line) for line in lines] if len(given) == 1 else []
    if matches and all(matches):
        numbered = [(int(match[1]), match[2]) for match in matches if match]
    else:
        numbered = list(enumerate(lines))
    by_number = dict(numbered)
    if len(by_number) < max(2, len(numbered)) or not are_names([*by_number.values()]):
        raise InputError(f"{source}: expected at least two different names, got {', '.join(lines) or 'none'}")
    return by_number


def name_labels(rows: Iterable[Row | BadRow], names: Names, given: bool) -> Iterator[Row | BadRow]:
    """Replace the numbers of classes by their names. given: did the user give the names? Then digits are numbers too,
    and a label that is neither a number nor a name is a bad row."""
    for row in rows:
        number = find_number(row.label, given) if isinstance(row, Row) else None
        if isinstance(row, BadRow) or row.label is None or row.label == "":  # an empty label is reported as such
            yield row
        elif number in names:
            yield row._replace(label=names[number])
        elif number is not None:
            reason = f"class number {number} has no name; there are {', '.join(names.values())}"
            yield BadRow(row.line, "classes without a name", reason, str(row.text))
        elif given and row.label not in names.values():
            reason = f"the label {row.label!r} should be the number of a class, or its name"
            yield BadRow(row.line, "labels that are no numbers", reason, str(row.text))
        else:
            yield row


def find_number(label: Any, in_text: bool) -> int | None:
    """Return the whole number that a label is; in_text: digits count too, and 3.0, which pandas makes of 3."""
    if type(label) is int:
        return label
    if in_text and re.fullmatch(r"-?\d{1,9}(\.0+)?", str(label)):
        return int(float(label))
    return None


def take_single_labels(rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
    """Replace lists of labels by their only label; a row with several, or with none, is a bad row."""
    for row in rows:
        labels = list_labels(row.label) if isinstance(row, Row) else []
        if isinstance(row, BadRow):
            yield row
        elif len(labels) == 1:
            yield row._replace(label=labels[0])
        else:
            kind = "rows with several labels" if labels else "rows without a label"
            reason = f"expected one label, got {len(labels)}" + (f": {labels!r}"[:100] if labels else "")
            yield BadRow(row.line, kind, reason, str(row.text))


def list_labels(label: Any) -> list[Any]:
    """Return the labels in a list, or in a text that writes one: `2,5`, `[2, 5]`, `['joy']`, and numpy's `[2 5]`."""
    if not isinstance(label, str):
        return label if isinstance(label, list) else [] if label is None else [label]
    bracketed = re.fullmatch(r"\s*\[(.*)\]\s*", label, re.DOTALL)
    if not bracketed:
        parts = label.split(",")
    elif quoted := re.findall(r"'([^']*)'|\"([^\"]*)\"", bracketed[1]):
        parts = ["".join(pair) for pair in quoted]
    else:
        parts = re.split(r"[,\s]+", bracketed[1])
    return [part.strip() for part in parts if part.strip()]
