"""The console, the progress bar of long work, and what is said before it begins."""

import os

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .device import Device

LONG = 15 * 60  # seconds of a training that is announced
# Of the product rate: fine-tuning on the sample corpus, on one core, reached 0.47 of it at the mini's shape (0.38 for
# the head alone) and 0.76 at the 124M (0.69).
TRAINING_SHARE = 0.6
SLOWEST = 1e8  # multiply-adds per second, of any CPU

# A label or a path may look like markup. Of the processes that torchrun starts, the first one speaks.
console = Console(highlight=False, markup=False, emoji=False, quiet=os.environ.get("RANK", "0") != "0")


def progress_bar(unit: str) -> Progress:
    """Make a bar that shows what is done, and how long the rest will take; each task carries a `note`."""
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


def forecast(work_takes: str, work: float, rate: float, device: Device) -> str:
    """Say how long work takes on the device that does it: "100 probes take about 3 min on cpu (...), fp32".

    work_takes: the beginning, e.g. "100 probes take"; work: how much there is to do, in any unit; rate: how many such
    units the device does per second. Less than a minute is "about 1 min"."""
    return f"{work_takes} about {max(1, round(work / rate / 60))} min on {device}"


def announce_training(device: Device, products: float, of_mini: float) -> None:
    """On a CPU, print how long a training takes, and gpt2-mini's, where that is over 15 minutes.

    products: multiply-adds of the training; of_mini: of the same with gpt2-mini. On a GPU nothing is printed: which
    share of the product rate a training reaches there has not been measured."""
    if device.device.type != "cpu" or products / SLOWEST < LONG:  # it takes a moment to measure a CPU
        return
    rate = TRAINING_SHARE * device.product_rate()
    if products / rate > LONG:
        console.print(forecast("Training takes", products, rate, device))
        if of_mini < products:
            console.print(forecast("--model gpt2-mini takes", of_mini, rate, device))
