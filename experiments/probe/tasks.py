"""All tasks at all sites: forecast, run with a progress bar, and kept on disk, so that nothing is done twice."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch

from lab.activations import Activations, record, sites
from lab.device import Device
from lab.kept import Identity, read_result, write_result
from lab.networks import draw_random_trunk
from lab.progress import console, forecast, progress_bar
from lab.study import Study
from model import GPT2

from .linear import STRENGTHS, Task, n_workers
from .sources import AGAINST_RANDOM, Key, Source
from .tables import Rows, profile_heads, score_sites

# What a task costs at one site, in multiply-adds: so many for each row, class and feature, and those of the time that a
# site takes however few rows it has. Measured as seconds on one core times its product rate, on the sample corpus: the
# first on 85 sites (gpt2-mini's, and some of gpt2's width; 300 to 13,000 rows), each within a factor of 2.4; the second
# on all of a small call. `python -m bench.forecasts` compares a forecast with the time then taken.
PRODUCTS, PRODUCTS_PER_SITE = 5000, 3 * 10**9
CPU = Device(torch.device("cpu"), "fp32")  # which fits the probes, whatever computes the activations


@dataclass(frozen=True, eq=False)
class Job:
    """Tasks on one source, probed in one network: `trained`, that of the study, or `random`."""

    network: str
    source: Source
    tasks: dict[Key, Task]


class Probes:
    """Probes the network of a study, and one of its shape with random weights; `folder` keeps the results."""

    def __init__(self, study: Study, folder: Path, seed: int) -> None:
        self.study, self.folder, self.seed, self.sites = study, folder, seed, sites(study.clf.config)

    @cached_property
    def random(self) -> GPT2:
        return draw_random_trunk(self.study.clf.config, self.seed).to(self.study.device.device)

    def run(self, sources: Sequence[Source]) -> dict[str, pd.DataFrame]:
        """Return the tables `probes` and, of the network itself, `profiles`: those of `tables.py`, with `property,
        network, reading` before them."""
        jobs = [Job("trained", source, dict(source.tasks)) for source in sources]
        for source in sources:
            if tasks := {key: task for key, task in source.tasks.items() if key[0] in AGAINST_RANDOM}:
                jobs.append(Job("random", source, tasks))
        every = [task for job in jobs for task in job.tasks.values()]
        total = len(every) * len(self.sites)
        console.print(forecast(f"{total:,} probes take", self.work(every), fitting_rate(), CPU))
        parts: dict[str, list[pd.DataFrame]] = {"probes": [], "profiles": []}
        with progress_bar("sites probed") as bar:
            line = bar.add_task("", total=total, note="")
            for job in jobs:
                bar.update(line, description=f"{job.source.name}, {job.network} weights")
                for (what, reading), rows in self.run_job(job, lambda n: bar.advance(line, n)):
                    key = {"property": what, "network": job.network, "reading": reading}
                    for name in parts:
                        parts[name].append(pd.DataFrame([key | row for row in rows[name]]))
        tables = {name: pd.concat(some, ignore_index=True) for name, some in parts.items()}
        numbers = dict.fromkeys(("control", "selectivity", "bits", "compression"), "float64")  # None: there is none
        tables["probes"] = tables["probes"].astype({"head": "Int64", **numbers})
        return tables

    def run_job(self, job: Job, advance: Callable[[int], object]) -> Iterator[tuple[Key, dict[str, Rows]]]:
        """Yield the rows of each task. Activations are computed only if a task is still to be done."""
        paths = {key: self.folder / f"{job.network}-{'-'.join(key)}.json".replace(" ", "-") for key in job.tasks}
        identities = {key: self.identity(job.network, job.source, key) for key in job.tasks}
        results = {key: read_result(path, identities[key]) for key, path in paths.items()}
        trunk = self.study.clf.trunk if job.network == "trained" else self.random
        with TemporaryDirectory(".tmp", ".", self.folder, ignore_cleanup_errors=True) as folder:
            if None in results.values():
                source = job.source
                readings = record(trunk, source.sequences, source.positions, Path(folder), self.study.device)
            for key, task in job.tasks.items():
                if results[key] is None:
                    rows = self.run_task(job, readings[key[1]], task, key[0], lambda: advance(1))
                    write_result(paths[key], identities[key], rows)
                    results[key] = read_result(paths[key], identities[key])  # numbers as JSON has them, new or not
                else:
                    advance(len(self.sites))
                yield key, results[key]

    def run_task(
        self, job: Job, activations: Activations, task: Task, what: str, advance: Callable[[], object]
    ) -> dict[str, Rows]:
        rows = score_sites(activations, self.sites, task, self.seed, what in AGAINST_RANDOM, advance)
        return {"probes": rows, "profiles": profile_heads(activations, rows, task) if job.network == "trained" else []}

    def identity(self, network: str, source: Source, key: Key) -> Identity:
        """Return what a task's results depend on."""
        task, positions = source.tasks[key], source.positions[key[1]]
        rows = (task.y, task.split, task.text, task.control, *([None] if positions is None else positions))
        listed = [None if row is None else row.tolist() for row in rows]
        return {
            **self.study.identity(),
            "network": network,
            "rows": hashlib.sha256(repr((source.sequences, listed)).encode()).hexdigest(),
            "names": list(task.names),
            "strengths": list(STRENGTHS),
            "seed": self.seed,
        }

    def work(self, tasks: Sequence[Task]) -> int:
        """Estimate the multiply-adds that it takes to fit the probes of these tasks."""
        config = self.study.clf.config
        widths = sum(config.head_width if site.kind == "head" else config.n_embd for site in self.sites)
        outputs = sum(int((task.split == "train").sum()) * len(task.names) for task in tasks)  # rows times classes
        return PRODUCTS * widths * outputs + PRODUCTS_PER_SITE * len(self.sites) * len(tasks)


def fitting_rate() -> float:
    """Measure the multiply-adds per second of all workers that fit probes, with a thread each."""
    return n_workers() * CPU.product_rate() / torch.get_num_threads()
