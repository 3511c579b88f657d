"""All tasks at all sites: forecast, run with a progress bar, and kept on disk, so that nothing is done twice."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from lab.activations import Activations, record, sites
from lab.device import Device
from lab.output import write_json
from lab.progress import console, forecast, progress_bar
from lab.study import Study
from model import GPT2
from model.files import read_json

from .linear import STRENGTHS, Task, n_workers
from .sources import AGAINST_RANDOM, Key, Source
from .tables import Rows, profile_heads, score_sites

# What a task costs at one site, in multiply-adds: so many for each row, class and feature, and those of the time that a
# site takes however few rows it has. Measured as seconds on one core times its product rate, on the sample corpus: the
# first on 85 sites (gpt2-mini's, and some of gpt2's width; 300 to 13,000 rows), each within a factor of 2.4; the second
# on all of a small call. `pytest -m slow tests/lab/test_progress.py` compares a forecast with the time then taken.
PRODUCTS, PRODUCTS_PER_SITE = 5000, 3 * 10**9
CPU = Device(torch.device("cpu"), "fp32")  # which fits the probes, whatever computes the activations
Tasks = dict[Key, Task]


class Probes:
    """Probes the network of a study, and one of its shape with random weights; `folder` keeps what each task found."""

    def __init__(self, study: Study, folder: Path, seed: int) -> None:
        self.study, self.folder, self.seed, self.sites = study, folder, seed, sites(study.clf.config)

    @cached_property
    def random(self) -> GPT2:
        stream = np.random.default_rng((self.seed, *b"random weights"))  # or it would be what training began with
        torch.manual_seed(int(stream.integers(2**63)))
        return GPT2(self.study.clf.config).to(self.study.device.device).eval().requires_grad_(False)

    def run(self, sources: Sequence[Source]) -> dict[str, pd.DataFrame]:
        """The tables `probes` and, of the network itself, `profiles`: those of `probe_tables`, with `property, network,
        reading` before them."""
        jobs = [("trained", source, dict(source.tasks)) for source in sources]
        jobs += [("random", source, own) for source in sources if (own := _against_random(source))]
        tasks = [task for _, _, own in jobs for task in own.values()]
        total = len(tasks) * len(self.sites)
        console.print(forecast(f"{total:,} probes take", self.work(tasks), fitting_rate(), CPU))
        tables: dict[str, list[pd.DataFrame]] = {"probes": [], "profiles": []}
        with progress_bar("sites probed") as bar:
            line = bar.add_task("", total=total, note="")
            for network, source, own in jobs:
                bar.update(line, description=f"{source.name}, {network} weights")
                for (what, reading), rows in self.source(network, source, own, lambda n: bar.advance(line, n)):
                    key = {"property": what, "network": network, "reading": reading}
                    for name in tables:
                        tables[name].append(pd.DataFrame([key | row for row in rows[name]]))
        found = {name: pd.concat(own, ignore_index=True) for name, own in tables.items()}
        numbers = dict.fromkeys(("control", "selectivity", "bits", "compression"), "float64")  # None: there is none
        found["probes"] = found["probes"].astype({"head": "Int64", **numbers})
        return found

    def source(
        self, network: str, source: Source, tasks: Tasks, advance: Callable[[int], object]
    ) -> Iterator[tuple[Key, dict[str, Rows]]]:
        """What each task finds. The activations are computed only if a task is still to be done."""
        paths = {key: self.folder / f"{network}-{'-'.join(key)}.json".replace(" ", "-") for key in tasks}
        about = {key: self.identity(network, source, key) for key in tasks}
        done = {key: path.is_file() and read_json(path)["about"] == about[key] for key, path in paths.items()}
        trunk = self.study.clf.trunk if network == "trained" else self.random
        with TemporaryDirectory(".tmp", ".", self.folder, ignore_cleanup_errors=True) as folder:
            if not all(done.values()):
                read = record(trunk, source.sequences, source.positions, Path(folder), self.study.device)
            for key, task in tasks.items():
                if done[key]:
                    advance(len(self.sites))
                else:
                    found = self.task(read[key[1]], task, key[0], network == "trained", lambda: advance(1))
                    write_json(paths[key], {"about": about[key], "found": found})
                yield key, read_json(paths[key])["found"]

    def task(
        self, activations: Activations, task: Task, what: str, trained: bool, advance: Callable[[], object]
    ) -> dict[str, Rows]:
        rows = score_sites(activations, self.sites, task, self.seed, what in AGAINST_RANDOM, advance)
        return {"probes": rows, "profiles": profile_heads(activations, rows, task) if trained else []}

    def identity(self, network: str, source: Source, key: Key) -> dict[str, Any]:
        """What a task's results depend on, as JSON."""
        task, positions = source.tasks[key], source.positions[key[1]]
        rows = (task.y, task.split, task.text, task.control, *([None] if positions is None else positions))
        listed = [None if own is None else own.tolist() for own in rows]
        return {
            **self.study.identity(),
            "network": network,
            "rows": hashlib.sha256(repr((source.sequences, listed)).encode()).hexdigest(),
            "names": list(task.names),
            "strengths": list(STRENGTHS),
            "seed": self.seed,
        }

    def work(self, tasks: Sequence[Task]) -> int:
        """About how many multiply-adds it takes to fit the probes of these tasks."""
        config = self.study.clf.config
        widths = sum(config.head_width if site.kind == "head" else config.n_embd for site in self.sites)
        outputs = sum(int((task.split == "train").sum()) * len(task.names) for task in tasks)  # rows times classes
        return PRODUCTS * widths * outputs + PRODUCTS_PER_SITE * len(self.sites) * len(tasks)


def fitting_rate() -> float:
    """Multiply-adds per second of all workers that fit probes, with a thread each."""
    return n_workers() * CPU.product_rate() / torch.get_num_threads()


def _against_random(source: Source) -> Tasks:
    return {key: task for key, task in source.tasks.items() if key[0] in AGAINST_RANDOM}
