"""The table of speeds, computed from the seconds of chunks."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table

from model import GPT2Config

from .arithmetic import Count
from .contestants import Job
from .slices import EPOCHS, TOKENS, Positions
from .turns import Outcome

# Texts of a whole task: three epochs; ten of the head alone, whose rate counts a text once; every head; every cell of
# this many pairs; prompts behind the same examples; all that is emitted at the last token.
WHOLE = {
    "fine-tuning": 3 * 16_000,
    "head alone": 16_000,
    "head sweep": 2_000,
    "patching": 64,
    "prompts": 500,
    "recording": 16_000,
}


def compare(
    task: str,
    config: GPT2Config,
    jobs: Mapping[str, Job],
    counts: Sequence[Count],
    timed: Sequence[Outcome],
    outputs: Sequence[NDArray[np.floating]],
) -> list[dict[str, Any]]:
    """Return a row for each code, the keys of `jobs`; headgate comes first. counts: what is left for each to compute;
    outputs: of each, for the same inputs."""
    product_rate = max(outcome.product_rate for outcome in timed)
    bandwidth = max(outcome.bandwidth for outcome in timed)
    scale = np.abs(outputs[0]).max()
    rows: list[dict[str, Any]] = []
    headgate_rates: list[float] = []
    for (code, job), count, outcome, output in zip(jobs.items(), counts, timed, outputs, strict=True):
        rates = per_second(job, outcome.seconds)
        headgate_rates = headgate_rates or rates
        ratios = [ours / theirs for ours, theirs in zip(headgate_rates, rates, strict=True)]
        row: dict[str, Any] = {"task": task, "code": code, "precision": job.device.precision}
        row |= measure_speed(task, config, job, outcome.seconds, product_rate)
        works = [count(config, job, chunk) for chunk in job.chunks]
        row["of_remaining"] = median(per_timed([work.products for work in works], outcome.seconds)) / product_rate
        row["of_bandwidth"] = median(per_timed([work.bytes for work in works], outcome.seconds)) / bandwidth
        row["headgate_times"] = median(ratios)  # of chunks that were done right after one another
        row |= {"peak_bytes": outcome.peak_bytes, "product_rate": product_rate, "bandwidth": bandwidth}
        rows.append(row | {"largest_difference": np.abs(output - outputs[0]).max() / scale})
    return rows


def measure_speed(
    task: str, config: GPT2Config, job: Job, seconds: Sequence[float], product_rate: float
) -> dict[str, float]:
    """Return the speed in the timed chunks. The seconds of the whole task are extrapolated by its tokens."""
    heads = config.n_layer * config.n_head
    units = {"head sweep": heads, "patching": heads * TOKENS}.get(task, 1)
    passes = {"fine-tuning": 3, "head alone": EPOCHS}.get(task, 1)  # a backward pass costs two forward ones
    lengths = job.texts.lengths
    rates = per_second(job, seconds)
    tokens_per_second = median(per_second(job, seconds, lambda positions: lengths[positions].sum()))
    return {
        "texts": sum(len(positions) for chunk in job.chunks[1:] for positions in chunk),
        "heads": len(job.units),
        "per_second": median(rates),
        "tokens_per_second": tokens_per_second,
        "slowest": min(rates),
        "fastest": max(rates),
        "utilisation": passes * config.block_weights * tokens_per_second / product_rate,
        "whole_seconds_extrapolated": WHOLE[task] * lengths.mean() * units / tokens_per_second,
    }


def per_second(job: Job, seconds: Sequence[float], count: Callable[[Positions], int] = len) -> list[float]:
    """Return how many texts each timed chunk did per second, or what else `count` counts in a batch.

    A text counts once for each head closed or cell patched."""
    counts = [sum(map(count, chunk)) * max(1, len(job.units)) for chunk in job.chunks]
    return per_timed(counts, seconds)


def per_timed(amounts: Sequence[float], seconds: Sequence[float]) -> list[float]:
    """Return each chunk's amount per second, without the first chunk, which warms up."""
    return [amount / s for amount, s in zip(amounts[1:], seconds[1:], strict=True)]


def make_table(rows: pd.DataFrame) -> Table:
    """Return the table for the terminal, with a caption that explains its headings."""
    caption = (
        "texts/s, tokens/s: a text counts once for the ten epochs of the head alone, and once for each head closed; in "
        "patching, a text is a cell: one head at one position of a pair, also where headgate knows the result without "
        "computing it. Padding is no token. headgate: how many times as fast it is. GiB: peak of the process, or of "
        "the GPU. MFU: of the plain algorithm; over 1 where work is spared. left: the share of the time that matrix "
        "products would take at the measured rate, counting what is left to compute. moved: the same of elementwise "
        "functions, at the measured bandwidth. minutes: of the whole task, extrapolated: three epochs of 16,000 texts, "
        "ten of the head alone, every head on 2,000, every cell of 64 pairs, 500 prompts, or 16,000 texts recorded. "
        "differs: losses or logits from headgate's, as a share."
    )
    columns = ("texts/s", "tokens/s", "headgate", "GiB", "MFU", "left", "moved", "minutes", "differs")
    table = Table(box=None, padding=(0, 1, 0, 0), caption=caption, caption_justify="left")
    table.add_column()  # wraps where the terminal is narrow, and not the numbers
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for (shape, task), codes in rows.groupby(["shape", "task"], sort=False):
        table.add_row(f"{task}, {shape}", style="bold")
        for row in codes.to_dict("records"):
            table.add_row(
                row["code"],
                f"{row['per_second']:,.1f}",
                f"{row['tokens_per_second']:,.0f}",
                f"{row['headgate_times']:.2f} x",
                f"{row['peak_bytes'] / 2**30:.2f}",
                f"{row['utilisation']:.2f}",
                f"{row['of_remaining']:.2f}",
                f"{row['of_bandwidth']:.2f}",
                f"{row['whole_seconds_extrapolated'] / 60:,.1f}",
                f"{row['largest_difference']:.0e}" if row["code"] != codes["code"].iloc[0] else "",
            )
    return table
