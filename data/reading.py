"""How the files of a corpus are to be read, where they do not say it themselves."""

import codecs
from dataclasses import dataclass

from model import InputError


@dataclass(frozen=True)
class ReadOptions:
    """How to read the files of a corpus, where they are no tables in UTF-8 with the columns text and label."""

    text_column: str = "text"  # column of the texts: its name, or its number, counted from 1, in .csv and .tsv
    label_column: str = "label"  # column of the labels, likewise
    header: bool = True  # is the first line of a .csv or .tsv its header? Without one, columns have numbers
    encoding: str | None = None  # of .txt, .csv, .tsv and .jsonl, such as cp1252; None: UTF-8
    label_names: tuple[str, ...] = ()  # names of the classes 0, 1, ..., or a file with one on each line
    single_label: bool = False  # where a row may have several labels: use the rows with exactly one
    skip_bad_rows: bool = False  # go on without the rows that cannot be used; skipped.csv lists them

    def __post_init__(self) -> None:
        """Raise InputError for an encoding that Python does not know, and for one column that is both."""
        if self.encoding is not None:
            try:
                known = codecs.lookup(self.encoding)._is_text_encoding
            except (LookupError, ValueError):  # ValueError: a NUL in it
                known = False
            if not known:
                raise InputError(f"--encoding {self.encoding}: expected a name that Python knows, such as cp1252")
        if self.text_column == self.label_column:
            raise InputError(f"--label-column {self.label_column}: expected another column than the texts'")

    @property
    def columns(self) -> tuple[str, str]:
        return self.text_column, self.label_column


USUAL = ReadOptions()
