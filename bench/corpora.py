"""Time and memory of a training by the number of its texts, 10^3 to 10^6: `python -m bench.corpora`.

The corpora are made of templates and random words, some of which give the class away. A tiny network trains on each for
one epoch, in a process of its own, so that nearly all time goes into the texts. Seconds are those of the processor, for
other work on the machine hardly changes them. Memory is the most that the process has held until the end of a stage,
mapped files and libraries counted in (VmHWM of /proc/self/status, so Linux only).
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from data import read_corpus
from experiments.train.frozen import make_forwards
from experiments.train.measure import measure
from experiments.train.training import Training
from lab import figures, output, runs
from lab.cli import command
from lab.defaults import TrainOptions
from lab.device import Device
from lab.figures import COLOURS, STYLE
from lab.progress import console
from lab.texts import describe_texts, read_texts
from model import GPT2Classifier, GPT2Config, InputError, Tokenizer

from .loading import read_peak
from .scaling import fit_power

CONFIG = GPT2Config(1, 2, 8, n_ctx=64)
PLANTED = {"joy": ("sunny", "gift"), "anger": ("storm", "knife"), "fear": ("ghost", "cliff")}
TEMPLATES = ("i saw the {} while {} {} {}", "they said {} {} and then {} {}", "{} {} was not a {} {} at all")
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
STAGES = ("reading", "tokenising", "training", "evaluating")


@dataclass(frozen=True)
class Options:
    """Train a tiny network on 10^3 to 10^6 texts; results in runs/bench: corpora.csv, corpora.png."""

    texts: tuple[int, ...] = (10**3, 10**4, 10**5, 10**6)  # sizes of the corpora, in texts: two or more, from 100 on
    folder: str = ""  # measure one training, on the corpus in this folder, and print it as JSON


def main(options: Options) -> int:
    if options.folder:
        print(json.dumps(measure_stages(Path(options.folder))))
        return 0
    if len(options.texts) < 2 or min(options.texts) < 100:
        raise InputError(f"--texts {' '.join(map(str, options.texts))}: expected two or more numbers from 100 on")
    rows = []
    for n in options.texts:
        with tempfile.TemporaryDirectory() as folder, console.status(f"{n:,} texts"):
            write_corpus(Path(folder), n)
            call = [sys.executable, "-m", "bench.corpora", "--folder", folder]
            out = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows += [{"texts": n, **stage} for stage in json.loads(out.splitlines()[-1])]
    table, out_folder = pd.DataFrame(rows), runs.RUNS / "bench"
    out_folder.mkdir(parents=True, exist_ok=True)
    output.write_csv(out_folder / "corpora.csv", table)
    draw_growth(table, out_folder / "corpora.png")
    console.print(table.pivot(index="stage", columns="texts", values="cpu_seconds").loc[[*STAGES]].round(2).to_string())
    console.print(f"{out_folder}/corpora.csv holds the peak memory, too; corpora.png shows both")
    return 0


def write_corpus(folder: Path, n: int) -> None:
    """Write n different-looking texts to train.txt, val.txt and test.txt; one word of each is of its class alone."""
    rng, labels = np.random.default_rng(0), [*PLANTED]
    syllables = [consonant + vowel for consonant in "bcdfgklmnprst" for vowel in "aeiou"]
    words = ["".join(rng.choice(syllables, rng.integers(2, 4))) for _ in range(3000)]
    for split, share in SHARES.items():
        classes, templates = rng.integers(len(labels), size=(2, round(share * n)))
        fillers, planted = rng.integers(len(words), size=(len(classes), 4)), rng.integers(2, size=len(classes))
        places = rng.integers(4, size=len(classes))
        with (folder / f"{split}.txt").open("w", encoding="utf-8") as file:
            for k, template, chosen, which, place in zip(classes, templates, fillers, planted, places, strict=True):
                of_text = [words[i] for i in chosen]
                of_text[place] = PLANTED[labels[k]][which]
                file.write(f"{TEMPLATES[template].format(*of_text)};{labels[k]}\n")


def measure_stages(folder: Path) -> list[dict[str, float | str]]:
    """Train and evaluate on the corpus in a folder, here. Return `stage, cpu_seconds, peak_bytes` of each."""
    rows: list[dict[str, float | str]] = []

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        seconds = round(time.process_time() - started, 2)
        rows.append({"stage": name, "cpu_seconds": seconds, "peak_bytes": read_peak()})

    device, run = Device(torch.device("cpu"), "fp32"), folder / "run"
    run.mkdir()
    output.write_json(run / "run.json", {})
    tokenizer = Tokenizer.load("gpt2-mini")
    settings = TrainOptions(init="random", epochs=1, lr=0.02, dropout=0, regulariser="none", batch_size=1024)
    with stage("reading"):
        corpus = read_corpus(folder)
    with stage("tokenising"):
        texts = read_texts(corpus, tokenizer, CONFIG, truncate=False)
        describe_texts(corpus, texts)
    with stage("training"):
        torch.manual_seed(0)
        model = GPT2Classifier(CONFIG, corpus.labels)
        options = settings.resolved(CONFIG.n_embd, len(texts["train"]))
        Training(model, texts, options, device, make_forwards(model, options, device)).fit(run, tokenizer)
    with stage("evaluating"):
        measure(run, corpus, texts, device)
    return rows


@STYLE
def draw_growth(table: pd.DataFrame, path: Path) -> None:
    """Draw seconds and peak memory of each stage by the number of texts, all axes logarithmic; the legend shows the
    slopes between the two largest corpora."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, stage in zip(COLOURS, STAGES, strict=False):
        rows = table[table["stage"] == stage].sort_values("texts")
        slope = fit_power(rows["texts"].tail(2), rows["cpu_seconds"].tail(2).clip(lower=0.01))
        left.plot(rows["texts"], rows["cpu_seconds"], marker="o", color=colour, label=f"{stage}, slope {slope:.2f}")
        right.plot(rows["texts"], rows["peak_bytes"] / 2**30, marker="o", color=colour)
    left.set(title="Time of each stage", ylabel="seconds of the processor", xscale="log", yscale="log")
    right.set(
        title="Peak memory until the end of each stage", ylabel="GiB", xscale="log", yscale="log", ylim=(0.4, 2.2)
    )
    right.yaxis.set(major_locator=FixedLocator([0.5, 1, 2]), minor_locator=NullLocator())
    for axes in (left, right):
        axes.set_xlabel("texts")
        axes.xaxis.set(major_locator=FixedLocator(sorted(set(table["texts"]))), minor_locator=NullLocator())
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside right center")
    figure.suptitle("One epoch of a tiny network, by the number of texts")
    figures.save(figure, path)


if __name__ == "__main__":
    command(main, Options)
