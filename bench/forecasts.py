"""Do forecasts come true? `python -m bench.forecasts` does some work of each kind on a run, and compares.

Other programs slow the work and not the forecast: let the machine do nothing else."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from experiments.probe.sources import AGAINST_RANDOM, SHARES, collect_texts, collect_words
from experiments.probe.tasks import Probes, fitting_rate
from lab import output, runs
from lab.cli import command
from lab.device import Device, DeviceName
from lab.progress import console
from lab.study import Study, open_study
from lab.sweeps import Plan, Sweeps
from lab.units import each_head

TEXTS_SWEPT, TEXTS_PROBED, WORDS_PROBED = 20, 320, 1000
Seconds = tuple[float, float]  # forecast, and taken


@dataclass(frozen=True)
class Options:
    """Compare forecasts with the time then taken; results in runs/bench-forecasts.csv."""

    run: str = "latest"  # name of the run, whose network and texts are used
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU


def main(options: Options) -> int:
    study = open_study(options.run, Device.choose(options.device, "auto"))
    kinds = {"a sweep": time_sweep, "probes": time_probes}
    rows = []
    for name, measure in kinds.items():
        with TemporaryDirectory() as folder:
            forecast, taken = measure(study, Path(folder))
        rows.append({"work": name, "forecast_s": forecast, "taken_s": taken, "ratio": forecast / taken})
    table = pd.DataFrame(rows).assign(device=str(study.device))
    output.write_csv(runs.RUNS / "bench-forecasts.csv", table)
    console.print(table.round(2).to_string(index=False))
    return 0


def time_sweep(study: Study, folder: Path) -> Seconds:
    """Close every head on some test texts."""
    sweeps = Sweeps(study, folder, TEXTS_SWEPT, 0)
    plans = [Plan("heads", "zero", {"test": each_head(study.clf.config)})]
    return sweeps.work(plans) / sweeps.rate(), time_work(lambda: sweeps.run(plans))


def time_probes(study: Study, folder: Path) -> Seconds:
    """Probe every fifth site of the network."""
    splits = [study.draw_texts(split, round(share * TEXTS_PROBED)) for split, share in SHARES.items()]
    sources = [collect_texts(splits, study.clf.labels), *collect_words(splits, study.tokenizer, WORDS_PROBED, 0)[0]]
    probes = Probes(study, folder, 0)
    probes.sites = probes.sites[::5]
    tasks = [task for source in sources for task in source.tasks.values()]
    random = [source.tasks[key] for source in sources for key in source.tasks if key[0] in AGAINST_RANDOM]
    return probes.work([*tasks, *random]) / fitting_rate(), time_work(lambda: probes.run(sources))


def time_work(work: Callable[[], object]) -> float:
    """Return the seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    command(main, Options)
