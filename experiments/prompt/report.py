"""What the tables say: the numbers that `report.md.jinja` shows.

The sentences stand in that file. This one computes what they say."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from data.prompts import Template
from lab.prompted import Prompted

from .scoring import Answers

TEMPLATE = Path(__file__).with_name("report.md.jinja")
Section = dict[str, Any]


def report(
    about: Sequence[str],
    labels: Sequence[str],
    first_prompt: Section,
    scores: pd.DataFrame,
    chosen: pd.DataFrame,
    compared: pd.DataFrame,
    predictions: pd.DataFrame,
    curve: pd.DataFrame,
    effects: pd.DataFrame,
    correlations: pd.DataFrame,
    left_out: Sequence[str] = (),
) -> str:
    """Return the page as Markdown, the answer first."""
    raise NotImplementedError


def describe_prompt(prompted: Prompted, template: Template, text: str, answers: Sequence[Answers]) -> Section:
    """Return what the network reads for a text, with the token ids, and those of the label words."""
    raise NotImplementedError
