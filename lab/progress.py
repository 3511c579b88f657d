"""The console, and the progress bar of long work."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(highlight=False, markup=False, emoji=False)  # a label or a path may look like markup


def progress_bar(unit: str) -> Progress:
    """What is done, how fast it goes on, and how long it will take; each task carries a `note`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}  {{task.fields[note]}}"),
        TimeElapsedColumn(),
        TextColumn("done in"),
        TimeRemainingColumn(),
        console=console,
    )
