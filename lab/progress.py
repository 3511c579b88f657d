"""The console, the progress bar of long work, and what is said before it begins."""

import os

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .device import Device

# A label or a path may look like markup. Of the processes that torchrun starts, the first one speaks.
console = Console(highlight=False, markup=False, emoji=False, quiet=os.environ.get("RANK", "0") != "0")


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


def forecast(device: Device, products: float, of_mini: float) -> None:
    """On a CPU, say how long a training of so many multiply-adds takes where that is long, and with the mini's."""
    if device.device.type != "cpu":
        return
    rate = 0.6 * device.product_rate()  # training reached 0.43 of it at the mini's shape, 0.75 at the 124M
    minutes = products / rate / 60
    if minutes > 15:
        console.print(f"Training will take about {minutes:.0f} minutes on this CPU.")
    if minutes > 15 and of_mini < products:
        console.print(f"--model gpt2-mini would take about {minutes * of_mini / products:.0f}.")
