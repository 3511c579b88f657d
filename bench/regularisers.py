"""Does it help to regularise attention? Train with each regulariser and without: `python -m bench.regularisers`.

Attention dropout and DropHead hide the share that TLM hides on average, so that no arm differs by its rate alone. Each
run is made by train.py in another process, and the same command goes on after an interruption: train.py passes over
the runs that are finished. gains.py compares them."""

import math
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich.panel import Panel

from bench import gains
from bench.gains import REFERENCE, Measured
from data import SPLITS, Corpus
from data.reading import USUAL
from experiments.paper.names import check_name, short_name
from experiments.paper.plan import TRAIN, read_corpora, run_script
from experiments.paper.results import read_predicted
from experiments.train.regularisers import expected_share
from lab import output, runs
from lab.cli import check_ranges, command
from lab.defaults import choose_model
from lab.device import DeviceName
from lab.progress import console
from lab.texts import read_texts
from model import InputError, Tokenizer
from model.checkpoint import read_config
from model.files import read_json

Arm = Literal["attention", "head", "tlm-sibling", "tlm-self", "tlm-both", "tlm-both-spare-first"]
ARMS: tuple[Arm, ...] = ("attention", "head", "tlm-sibling", "tlm-self", "tlm-both", "tlm-both-spare-first")
TLM: dict[str, dict[str, Any]] = {
    "tlm-sibling": {"form": "sibling"},
    "tlm-self": {"form": "self"},
    "tlm-both": {"form": "both"},
    "tlm-both-spare-first": {"form": "both", "spare_first": True},
}
RATE = 0.1  # of TLM
DIGITS = 3  # of the rate of attention dropout and DropHead


@dataclass(frozen=True)
class Options:
    """Train with each regulariser and with none, and compare them.

    Tables and a picture land in runs/NAME, each run in runs/NAME-CORPUS-TEXTS-ARM-SEED. After an interruption the same
    command goes on."""

    corpus: tuple[str, ...] = ("sample",)  # emotion, rotten_tomatoes, sample, a file or a folder with splits
    texts: tuple[int, ...] = (0,)  # how many texts of train, drawn at random, the same for all runs; 0: all
    arms: tuple[Arm, ...] = ARMS  # which regularisers are compared with none
    seeds: int = 3  # how many runs of each arm, with seeds from 0
    model: str = "gpt2-mini"  # a checkpoint's folder, a published name (gpt2, gpt-neo-125m, ...), gpt2-mini, or auto
    epochs: int | None = None  # passes over the texts; None: as train.py chooses them
    run: str = "regularisers"  # name of the results, with which the names of the runs begin
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    truncate: bool = False  # keep the end of texts that are too long for the model, instead of refusing them

    def check(self) -> None:
        """Raise InputError for a number out of its range, a missing choice, or a name that is none."""
        check_ranges(self, epochs=(1, math.inf), seeds=(1, math.inf))
        if not (self.corpus and self.texts and self.arms):
            raise InputError("--corpus, --texts and --arms: expected at least one of each")
        if min(self.texts) < 0:
            raise InputError(f"--texts {min(self.texts)}: expected a number of texts, or 0 for all")
        for option, values in (("corpus", self.corpus), ("texts", self.texts), ("arms", self.arms)):
            if len(set(values)) < len(values):
                raise InputError(f"--{option} {' '.join(map(str, values))}: expected each once")
        check_name(self.run)


@dataclass(frozen=True, eq=False)
class Job:
    """An arm on some texts of a corpus: one run of train.py for each seed."""

    name: str  # with which the names of its runs begin
    source: str  # of the corpus, for train.py
    corpus: Corpus
    n: int  # texts of train
    arm: str
    rate: float  # of its regulariser
    share: float  # that it hides on average


def main(options: Options) -> int:
    options.check()
    model, notice = choose_model(options.model, "pretrained")
    if notice:
        console.print(Panel(notice, style="bold yellow"))
    options, folder = replace(options, model=model), runs.RUNS / options.run
    corpora = read_corpora(options.corpus, USUAL)
    for corpus, n in product(corpora.values(), options.texts):
        check_number(corpus, n)
    folder.mkdir(parents=True, exist_ok=True)
    with runs.lock_folder(folder, "wait, or choose another --run"):
        jobs = [job for source, corpus in corpora.items() for job in plan(source, corpus, folder, options)]
        for i, job in enumerate(jobs, start=1):
            console.print(f"\n{i} of {len(jobs)} arms, seeds: {options.seeds}: {job.name}", soft_wrap=True)
            run_script(TRAIN, write_options(job, options), runs.RUNS / job.name)
        write_results(folder, [run for job in jobs for run in measure(job, options.seeds)], options.model)
    console.print(f"{folder}: results.md, results.csv, differences.csv and differences.png are written")
    return 0


def check_number(corpus: Corpus, n: int) -> None:
    """Raise InputError where train has no n texts to draw from it, or those that are drawn lack a class of val or
    test."""
    labels = {split: corpus.split(split)["label"] for split in SPLITS}
    most = len(labels["train"])
    if n >= most:
        raise InputError(f"--texts {n}: expected fewer than the {most:,} train texts of {corpus.name}, or 0 for all")
    drawn = {*labels["train"].iloc[draw_texts(most, n)]}
    if missing := sorted({*labels["val"], *labels["test"]} - drawn):
        classes = f"class {missing[0]}" if len(missing) == 1 else f"the classes {', '.join(missing)}"
        raise InputError(f"--texts {n}: no text of {classes} of {corpus.name} is among those drawn; take more")


def plan(source: str, corpus: Corpus, folder: Path, options: Options) -> Iterator[Job]:
    """Yield the jobs of a corpus; where not all its train texts are wanted, a corpus folder with fewer is written."""
    tokenizer, config = Tokenizer.load(options.model), read_config(options.model)
    sequences = read_texts(corpus, tokenizer, config, options.truncate)["train"].sequences
    for wanted in options.texts:
        part = f"{short_name(corpus)}-{wanted or 'all'}"
        chosen, smaller = draw_texts(len(sequences), wanted), folder / "corpora" / part
        if wanted:
            write_corpus(corpus, chosen, smaller)
        lengths = [len(sequences[i]) for i in chosen]
        equal = round(expected_share(lengths, RATE, "both"), DIGITS)
        for arm in (REFERENCE, *options.arms):
            rate = RATE if arm in TLM else equal if arm != REFERENCE else 0.0
            share = expected_share(lengths, RATE, **TLM[arm]) if arm in TLM else rate
            where = str(smaller) if wanted else source
            yield Job(f"{options.run}-{part}-{arm}", where, corpus, len(chosen), arm, rate, share)


def draw_texts(n: int, wanted: int) -> np.ndarray:
    """Return the positions of the texts to train on, in their order: all n, or the first of one shuffle of them. So a
    smaller number of texts is part of a larger one."""
    return np.sort(np.random.default_rng(0).permutation(n)[: wanted or n])


def write_corpus(corpus: Corpus, chosen: np.ndarray, folder: Path) -> None:
    """Write a corpus of these train texts, and of all texts of val and test."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        rows = corpus.split(split)[["text", "label"]]
        output.write_csv(folder / f"{split}.csv", rows.iloc[chosen] if split == "train" else rows)


def write_options(job: Job, options: Options) -> list[str]:
    """Return the options of train.py that make the runs of a job."""
    words = ["--model", options.model, "--corpus", job.source, "--run", job.name, "--epochs", str(options.epochs)]
    words += ["--device", options.device, "--seeds", *map(str, range(options.seeds))]
    words += ["--lm-weight", "0"]  # on few texts its default is another one, and that loss regularises, too
    words += ["--regulariser", job.arm.split("-")[0]]
    if job.arm != REFERENCE:
        words += ["--regulariser-rate", str(job.rate)]
    if form := TLM.get(job.arm):
        words += ["--tlm", form["form"], *["--spare-first"] * ("spare_first" in form)]
    return words + ["--truncate"] * options.truncate


def measure(job: Job, seeds: int) -> Iterator[Measured]:
    """Yield what the finished runs of a job measured."""
    for seed in range(seeds):
        run, corpus = runs.RUNS / f"{job.name}-{seed}", job.corpus
        predicted = read_predicted(run / "predictions.csv", corpus)
        key = (corpus.name, job.n, job.arm, job.share, seed)
        yield Measured(*key, read_json(run / "metrics.json"), corpus.labels, corpus.targets("test"), predicted)


def write_results(folder: Path, measured: list[Measured], model: str) -> None:
    """Write results.csv, differences.csv, results.md and differences.png, and print the answer."""
    frame: pd.DataFrame = gains.differences(measured)
    words = shlex.join(["python", "-m", "bench.regularisers", *sys.argv[1:]])
    with output.replace_outputs(folder) as new:
        output.write_csv(new / "results.csv", gains.tidy(measured))
        output.write_csv(new / "differences.csv", frame)
        output.write_text(new / "results.md", gains.report(frame, words))
        gains.draw(frame, model, new / "differences.png")
    columns = ["corpus", "texts", "arm", "difference", "ci_low", "ci_high", "by_seed", "verdict"]
    judged = frame[frame["metric"] == gains.JUDGED]
    console.print(judged[columns].round(3).to_string(index=False, na_rep=""), soft_wrap=True)
    console.print(gains.describe(judged))


if __name__ == "__main__":
    command(main, Options)
