"""From the seconds of chunks to the table of speeds."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from contestants import Job
from numpy.typing import NDArray
from rich.table import Table
from slices import Index
from turns import Outcome

from model import GPT2Config

WHOLE = {"fine-tuning": 3 * 16_000, "head sweep": 2_000}  # texts of a whole task: three epochs; every head


def compared(
    task: str,
    config: GPT2Config,
    jobs: Mapping[str, Job],
    timed: Sequence[Outcome],
    outputs: Sequence[NDArray[np.floating]],
) -> list[dict[str, Any]]:
    """A row for each code, the keys of `jobs`; headgate is the first. outputs: of each for the same inputs."""
    product_rate = max(outcome.product_rate for outcome in timed)
    scale = np.abs(outputs[0]).max()
    rounds = [per_second(job, outcome.seconds) for job, outcome in zip(jobs.values(), timed, strict=True)]
    return [
        {
            "task": task,
            "code": code,
            "precision": job.device.precision,
            **speeds(task, config, job, outcome.seconds, product_rate),
            # chunks of one round were done right after one another
            "headgate_times": median(ours / theirs for ours, theirs in zip(rounds[0], own, strict=True)),
            "peak_bytes": outcome.peak_bytes,
            "product_rate": product_rate,
            "largest_difference": np.abs(output - outputs[0]).max() / scale,
        }
        for (code, job), outcome, own, output in zip(jobs.items(), timed, rounds, outputs, strict=True)
    ]


def speeds(task: str, config: GPT2Config, job: Job, seconds: Sequence[float], product_rate: float) -> dict[str, float]:
    """Speed in the timed chunks. The seconds of the whole task are in proportion to its tokens."""
    heads = config.n_layer * config.n_head if job.heads else 1
    passes = 1 if job.heads else 3  # a backward pass costs two forward ones
    lengths = job.split.lengths
    rates, tokens_per_second = per_second(job, seconds), median(per_second(job, seconds, lambda i: lengths[i].sum()))
    return {
        "texts": sum(len(index) for chunk in job.chunks[1:] for index in chunk),
        "heads": len(job.heads),
        "per_second": median(rates),
        "slowest": min(rates),
        "fastest": max(rates),
        "utilisation": passes * config.block_weights * tokens_per_second / product_rate,
        "whole_seconds_extrapolated": WHOLE[task] * lengths.mean() * heads / tokens_per_second,
    }


def per_second(job: Job, seconds: Sequence[float], count: Callable[[Index], int] = len) -> list[float]:
    """What each chunk counts per second, texts or tokens, once for each head that is closed; the first one, which
    warms up, is left out."""
    counts = [sum(map(count, chunk)) * max(1, len(job.heads)) for chunk in job.chunks]
    return [n / s for n, s in zip(counts[1:], seconds[1:], strict=True)]


def as_table(rows: pd.DataFrame) -> Table:
    """One for the terminal, with what its headings mean below it."""
    told = (
        "texts/s: a text counts once for each head closed; headgate: how many times as fast it is. GiB: peak of the "
        "process, or of the GPU. MFU: of the plain algorithm; over 1 where work is spared. whole: extrapolated, three "
        "epochs of 16,000 texts, or every head on 2,000. differs: losses or logits from headgate's, as a share."
    )
    columns = ("texts/s", "headgate", "GiB", "MFU", "whole", "differs")
    table = Table(box=None, caption=told, caption_justify="left")
    table.add_column(no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for (shape, task), own in rows.groupby(["shape", "task"], sort=False):
        table.add_row(f"{task}, {shape}", style="bold")
        for row in own.to_dict("records"):
            table.add_row(
                row["code"],
                f"{row['per_second']:,.1f}",
                f"{row['headgate_times']:.2f} x",
                f"{row['peak_bytes'] / 2**30:.2f}",
                f"{row['utilisation']:.2f}",
                f"{row['whole_seconds_extrapolated'] / 60:,.1f} min",
                f"{row['largest_difference']:.0e}" if row["code"] != own["code"].iloc[0] else "",
            )
    return table
