"""Reports: a template beside each experiment (`report.md.jinja`), filled with tables.

The template is a page of Markdown with Jinja's marks (jinja.palletsprojects.com): its sentences are edited there. Code
computes what they say. In a template, `label`, `number`, `p_value` and `with_interval` are filters, and `table` is a
function."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd


def render(template: Path, **values: Any) -> str:
    """Return a template filled with these values. A name that the template uses and nobody gave is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown, not HTML; labels go through `label`
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"label": label, "number": number, "p_value": p_value, "with_interval": with_interval}
    environment.globals |= {"table": table}
    return environment.get_template(template.name).render(**values)


def label(text: str) -> str:
    """Return a label on one line, escaped so that Markdown shows it as it is."""
    return re.sub(r"([\\`*_|$<>\[\]~])", r"\\\1", " ".join(text.split()))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, whose cells are Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def number(value: float) -> str:
    """Write two decimals, or two digits of what is smaller than 0.1; nothing where the value is undefined."""
    if pd.isna(value):
        return ""
    return f"{value:z.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:#.2g}"


def with_interval(row: Mapping[Any, Any], name: str) -> str:
    """Write a number of a row with its interval: `0.12 [0.10, 0.15]`."""
    return f"{number(row[name])} [{number(row['ci_low'])}, {number(row['ci_high'])}]"


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
