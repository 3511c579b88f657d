"""Pictures of what prompts answer, as PNG and as SVG. `title` names the run and its texts."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lab.figures import save_twice


def draw(
    folder: Path,
    title: str,
    labels: Sequence[str],
    scores: pd.DataFrame,
    chosen: pd.DataFrame,
    predictions: pd.DataFrame,
    curve: pd.DataFrame,
    effects: pd.DataFrame,
    correlations: pd.DataFrame,
) -> None:
    """Draw every table of which there are rows."""
    raise NotImplementedError(save_twice)
