"""Which runs of train.py make the tables of a paper."""

import math
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich.panel import Panel
from sklearn.metrics import roc_auc_score

from data import Corpus, encode, read_corpus
from lab import manifest, runs
from lab.defaults import Init, TrainOptions, choose_model
from lab.device import Device, DeviceName, Precision
from lab.predict import predict
from lab.progress import console, forecast
from model import InputError, Tokenizer, load_classifier
from model.checkpoint import read_config
from model.files import read_json

from . import results

TUNES: tuple[Literal["all", "head"], ...] = ("all", "head")
TRAIN = Path(__file__).parents[2] / "train.py"
CODES = {1: "an error in the program", 2: "a mistake", -9: "killed, often for want of memory"}


@dataclass(frozen=True)
class Options:
    """Train on each corpus with all weights tuned and with the head alone, and set the results side by side.

    They land in runs/NAME, each run in runs/NAME-CORPUS-INIT-TUNE-SEED. After an interruption the same command goes
    on."""

    model: str = "gpt2"  # a checkpoint's folder, a published name (gpt2, distilgpt2, ...), gpt2-mini, or auto
    init: tuple[Init, ...] = ("pretrained",)  # the checkpoint's weights, or only its shape; two are compared
    corpus: tuple[str, ...] = ("emotion", "rotten_tomatoes")  # names, folders, or files, split alike for each seed
    run: str = "paper"  # name of the results, with which the names of the runs begin
    seeds: int = 3  # how many runs of each kind, with seeds from 0
    epochs: int = 0  # passes over the training texts; 0: 6 from random weights, 10 for the head alone, else 4
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # auto: bf16 autocast on CUDA, else fp32


@dataclass(frozen=True, eq=False)
class Run:
    """One run of train.py that the results need."""

    settings: TrainOptions  # as train.py completes them
    corpus: Corpus
    weights: str | None  # SHA-256 of what it starts from; None: random weights

    @property
    def folder(self) -> Path:
        return runs.RUNS / self.settings.run

    def record(self) -> dict[str, Any] | None:
        """Its run.json, None where it is not finished. InputError where something else has its name."""
        path, way_out = self.folder / "run.json", "choose another --run, or move it away"
        if not path.is_file():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise InputError(f"{self.folder}: expected a run of train.py, there is no run.json; {way_out}")
            return None
        record = read_json(path)
        try:
            files = sorted(record["corpus"]["sha256"].values())
            there = record["settings"] | {"weights": record["model"].get("sha256"), "corpus": files}
            finished = record["status"] == "finished" and record["seconds"]["all"] > 0
        except (KeyError, TypeError):
            raise InputError(f"{path}: not as this train.py writes it; {way_out}") from None
        here = manifest.describe_settings(self.settings) | {
            "weights": self.weights,
            "corpus": sorted(self.corpus.files.values()),
        }
        if other := ", ".join(name for name in here if name in there and here[name] != there[name]):
            raise InputError(f"{self.folder}: made with another {other}; {way_out}")
        return record if finished else None

    def make(self) -> None:
        """Train, in a process of its own. InputError where that fails."""
        told = ("model", "init", "corpus", "tune", "seed", "epochs", "device", "precision", "run")
        options = [part for name in told for part in (f"--{name}", str(getattr(self.settings, name)))]
        arguments = [os.path.relpath(sys.executable), os.path.relpath(TRAIN), *options]
        if (self.folder / "run.json").is_file():
            arguments.append("--resume")
        console.print(f"\n{shlex.join(arguments)}", soft_wrap=True)
        code = call(arguments)
        if code in (130, -signal.SIGINT):
            raise KeyboardInterrupt
        if code:
            meaning = CODES.get(code, "ended from outside")
            way_out = "see above; the same command goes on from here"
            raise InputError(f"{self.folder}: train.py failed with exit code {code}, {meaning}; {way_out}")

    def measured(self, device: Device) -> results.Measured:
        """What it measured, and ROC AUC on its training texts, kept in a file: predicting them may take minutes."""
        path = self.folder / "train_metrics.json"
        if not path.is_file():
            model, tokenizer = load_classifier(self.folder).to(device.device), Tokenizer.load(self.folder)
            sequences, _ = encode(tokenizer, self.corpus.split("train"), model.config.n_ctx)
            classes = np.eye(len(model.labels))[self.corpus.targets("train")]  # (N, K): each against the rest
            auc = float(roc_auc_score(classes, predict(model, sequences, device), average="macro"))
            runs.write_json(path, {"n": len(sequences), "macro_roc_auc": auc})
        metrics = read_json(self.folder / "metrics.json") | {"train": read_json(path)}
        predicted = results.read_predicted(self.folder / "predictions.csv", self.corpus)
        return results.Measured(read_json(self.folder / "run.json"), metrics, self.corpus.targets("test"), predicted)


def plan(options: Options) -> list[Run]:
    """The runs in their order. Fetches weights and corpora that are not at hand; InputError for options that fail."""
    if options.seeds < 1 or not options.corpus:
        raise InputError(f"--seeds {options.seeds} and {len(options.corpus)} --corpus: expected at least 1 of each")
    if not options.init or len(set(options.init)) < len(options.init):
        raise InputError(
            f"--init {' '.join(options.init) or '(nothing)'}: expected pretrained, random, or each of them once"
        )
    if options.run != plain(options.run) or options.run in ("", ".", "..", "latest"):
        raise InputError(f"--run {options.run}: expected a name of letters, digits, '.', '_' and '-', but not latest")
    if (runs.RUNS / options.run / "run.json").exists():
        raise InputError(f"{runs.RUNS / options.run} is a run of train.py; choose another --run")
    model, notice = choose_model(options.model, "pretrained" if "pretrained" in options.init else "random")
    if notice:
        console.print(Panel(notice, style="bold yellow"))
    given = TrainOptions(model=model, epochs=options.epochs, device=options.device, precision=options.precision)
    given.check()
    width = read_config(model).n_embd
    weights = {init: manifest.describe_weights(model, init).get("sha256") for init in options.init}
    planned = []
    for name, (source, corpus) in read_corpora(options.corpus).items():
        for init, tune, seed in product(options.init, TUNES, range(options.seeds)):
            run = f"{options.run}-{name}-{init}-{tune}-{seed}"
            own = replace(given, init=init, corpus=source, tune=tune, seed=seed, run=run)
            planned.append(Run(own.resolved(width), corpus, weights[init]))
    return planned


def read_corpora(sources: Sequence[str]) -> dict[str, tuple[str, Corpus]]:
    """Each source with its corpus, by the name that goes into those of its runs."""
    corpora: dict[str, tuple[str, Corpus]] = {}
    for source in sources:
        corpus = read_corpus(source)
        name = plain(results.title(corpus.name))
        if name in corpora:
            raise InputError(f"--corpus {source}: {corpora[name][0]} is called {name} too; rename one of them")
        corpora[name] = source, corpus
    return corpora


def plain(name: str) -> str:
    """With `_` for what may not stand in the name of a run."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def call(arguments: list[str]) -> int:
    """The exit code of a command, whose output shows as it comes."""
    with subprocess.Popen(arguments) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # A terminal has told the child too, which measures its best epoch then. But the run will be done again.
            process.send_signal(signal.SIGINT)
            process.wait()
            raise


def left(planned: list[Run], device: Device) -> str:
    """What is to do, and for how long, by the mean time of such finished runs, or else of all."""
    records = [run.record() for run in planned]
    times = pd.DataFrame(
        {
            "kind": [f"{run.corpus.name} {run.settings.init} {run.settings.tune}" for run in planned],
            "seconds": [record["seconds"]["all"] if record else math.nan for record in records],
        }
    )
    expected = times.groupby("kind")["seconds"].transform("mean").fillna(times["seconds"].mean())
    todo = expected[times["seconds"].isna()]
    seconds, said = todo.sum(skipna=False), f"{len(todo) or 'none'} to do"
    return forecast(f"{said}, which takes", seconds, 1.0, device) if seconds > 0 else said  # NaN: nothing to go by
