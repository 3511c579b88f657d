"""How numbers, labels and tables are written in reports, as Markdown."""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd


def plain(label: str) -> str:
    """A label, on one line, that Markdown shows as it is."""
    return re.sub(r"([\\`*_|$<>\[\]~])", r"\\\1", " ".join(label.split()))


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows by name, for a column may be called `class`."""
    return [dict(zip(table.columns, row, strict=True)) for row in table.itertuples(index=False)]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are Markdown."""
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]


def number(value: float) -> str:
    """Two decimals, or two digits of what is smaller than 0.1; empty where it is undefined."""
    if pd.isna(value):
        return ""
    return f"{value:z.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:#.2g}"


def sure(row: Any, name: str) -> str:
    """A number of a row, and its interval."""
    return f"{number(row[name])} [{number(row['ci_low'])}, {number(row['ci_high'])}]"


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
