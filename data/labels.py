"""The labels of rows: numbers that stand for names, and lists of which one label may be used."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from model import InputError
from model.readout import are_names

from .decoding import decode, read_bytes, split_lines
from .rows import NOT_SINGLE, BadRow, Row

Names = dict[int, str]  # of classes, by number
FEW = 0.05  # share of the rows whose class numbers may lack a name, as mistakes
NUMBERED = re.compile(r"(\d{1,9})\s*[\t,;:=]\s*(\S.*)")  # a line of a file of names: a number, a tab, a name


def read_label_names(given: tuple[str, ...]) -> Names:
    """Return the names that --label-names gives: itself, or a file with a name, or a number and a name, on each line.

    Raises InputError where they are not different names."""
    source = f"--label-names {' '.join(given)}"
    lines = list(given) if len(given) > 1 else read_names_file(Path(given[0]), source)
    matches = [NUMBERED.fullmatch(line) for line in lines]
    if len(given) == 1 and all(matches):
        numbered = [(int(match[1]), match[2]) for match in matches if match]
    else:
        numbered = list(enumerate(lines))
    by_number = dict(numbered)
    if len(by_number) < max(2, len(numbered)) or not are_names([*by_number.values()]):
        got = ", ".join(map(repr, lines[:20])) or "none"
        raise InputError(f"{source}: expected at least two different names, got {got}")
    return by_number


def read_names_file(path: Path, source: str) -> list[str]:
    """Return the lines of a file of names that are not blank, without the white space around them."""
    try:
        text = decode(read_bytes(path), path, None)
    except (InputError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(f"{source}: expected the names of the classes, or a file of them: {error}") from None
    return [numbered[1].strip() for numbered in split_lines(text) if not isinstance(numbered, BadRow)]


def name_labels(rows: Iterable[Row | BadRow], names: Names, path: Path, given: bool) -> Iterator[Row | BadRow]:
    """Replace the numbers of classes by their names. given: did the user give the names? Then digits are numbers too,
    and a text that is neither a number nor a name is a bad row. Raises InputError, see `check_numbers`."""
    numbers = Counter[int | None]()
    for row in rows:
        number = find_number(row.label, given) if isinstance(row, Row) else None
        numbers[number] += 1
        yield name_label(row, number, names, given) if isinstance(row, Row) else row
    if given:
        check_numbers(numbers, names, path)


def check_numbers(numbers: Counter[int | None], names: Names, path: Path) -> None:
    """Raise InputError where the names are of other class numbers than the rows': moved by one, or without many rows.

    A few rows whose number has no name are bad rows."""
    low, high = min(names), max(names)
    above = high + 1 in numbers and low not in numbers
    below = low > 0 and low - 1 in numbers and high not in numbers
    nameless = {number: n for number, n in numbers.items() if number is not None and number not in names}
    if above or below or sum(nameless.values()) > max(10, FEW * numbers.total()):
        example = f"{low + 1 if above else low - 1}:{names[low]}" if above or below else f"{min(nameless)}:NAME"
        got = ", ".join(map(str, sorted(number for number in numbers if number is not None)[:20]))
        way_out = f"give --label-names a file of lines such as {example}"
        raise InputError(f"{path}: expected the class numbers {low} to {high}, got {got}; {way_out}")


def name_label(row: Row, number: int | None, names: Names, given: bool) -> Row | BadRow:
    """Return the row with the name of its class, or why there is none. number: what its label is, if it is one."""
    if number in names:
        return row._replace(label=names[number])
    if number is not None:
        reason = f"class number {number} has no name; there are {', '.join(names.values())}"
        return BadRow(row.line, "classes without a name", reason, str(row.text))
    if given and isinstance(row.label, str) and row.label.strip() and row.label not in names.values():
        reason = f"the label {row.label[:40]!r} should be the number of a class, or its name"
        return BadRow(row.line, "labels that are no numbers", reason, str(row.text))
    return row  # where it is no label at all, `check_row` says so


def find_number(label: Any, in_text: bool) -> int | None:
    """Return the whole number that a label is; in_text: digits count too, and 3.0, which pandas makes of 3."""
    if type(label) is int:
        return label
    if in_text and re.fullmatch(r"-?\d{1,9}(\.0+)?", str(label)):
        return int(float(label))
    return None


def take_single_labels(rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
    """Replace lists of labels by their only label; a row with several, or with none, is set aside."""
    for row in rows:
        labels = list_labels(row.label) if isinstance(row, Row) else []
        if isinstance(row, BadRow):
            yield row
        elif len(labels) == 1:
            yield row._replace(label=labels[0])
        else:
            reason = f"expected one label, got {len(labels)}" + (f": {labels!r}"[:100] if labels else "")
            yield BadRow(row.line, NOT_SINGLE[bool(labels)], reason, str(row.text))


def list_labels(label: Any) -> list[Any]:
    """Return the labels in a list, or in a text that writes one: `2,5`, `[2, 5]`, `['joy']`, and numpy's `[2 5]`."""
    if not isinstance(label, str):
        return label if isinstance(label, list) else [] if label is None else [label]
    bracketed = re.fullmatch(r"\s*\[(.*)\]\s*", label, re.DOTALL)
    if not bracketed:
        parts = label.split(",")
    elif quoted := re.findall(r"'([^']*)'|\"([^\"]*)\"", bracketed[1]):
        parts = ["".join(pair) for pair in quoted]
    elif re.fullmatch(r"[-\d.\s]+", bracketed[1]):
        parts = bracketed[1].split()
    else:
        parts = bracketed[1].split(",")
    return [part.strip() for part in parts if part.strip()]
