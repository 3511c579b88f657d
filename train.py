"""Fine-tune GPT-2 to classify texts, and measure the result: `make train`, or `python train.py --help`.

The classes are those of a new layer or, with --head words, words that the language model says behind a prompt."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.panel import Panel

from data import Corpus, read_corpus
from experiments.train import figures
from experiments.train.frozen import count_frozen, open_forwards
from experiments.train.language import count_products, describe_language
from experiments.train.measure import measure
from experiments.train.regularisers import describe_regulariser
from experiments.train.start import choose_head, read_inputs, start_model
from experiments.train.training import DivergedError, Training, shuffle_labels
from lab import defaults, manifest, output, runs
from lab.cli import command
from lab.defaults import TrainOptions as Options
from lab.device import Device
from lab.progress import announce_training, console
from lab.state import STATE, remove_shards, remove_state
from lab.texts import Texts, describe_texts, write_skipped
from lab.word_head import WordHead
from model import GPT2Config, InputError, Tokenizer
from model.checkpoint import read_config
from model.names import WEIGHTS


def main(options: Options) -> int:
    started = time.perf_counter()
    options.check()
    device = Device.choose(options.device, options.precision)
    if options.shard and device.world == 1:
        expected = "--shard: expected several processes, among which weights are divided"
        raise InputError(f"{expected}; start them by torchrun, or leave --shard out")
    options, width = device.run_on_first(lambda: fill_in(replace(options, resume=options.resume or device.restarted)))
    corpus = read_corpus(options.corpus, options.read, options.split_seed)
    options = options.resolved(width, len(corpus.split("train")))
    head = choose_head(options, corpus.labels)
    for each in device.run_on_first(lambda: choose_runs(options, corpus, head, device)):
        if code := train(each, corpus, head, device, started):
            return code
        started = time.perf_counter()
    return 0


def train(options: Options, corpus: Corpus, head: WordHead | None, device: Device, started: float) -> int:
    """Train and measure one run and return the exit code.

    head: template and label words; None: of a classifier. started: `time.perf_counter()` when its work began."""
    config, tokenizer = read_config(options.model), Tokenizer.load(options.model)
    texts = read_inputs(corpus, tokenizer, config, options.truncate, head)
    torch.manual_seed(options.seed)
    model = start_model(options, corpus, head).to(device.device)
    memory = {"loading": device.peak_memory()}
    record = describe(options, corpus, head, device)
    record["texts"] = describe_texts(corpus, texts)
    if options.shuffle_labels:
        texts = shuffle_labels(texts, options.seed)
    with runs.open_run(record, options.resume, device) as (run, record):
        learning = [describe_language(options), describe_regulariser(options)]
        described = [f"{options.init} weights", *learning, f"on {device}"]
        console.print(f"{run}: {', '.join([options.model, *filter(None, described)])}", soft_wrap=True)
        if record.get("resumed"):
            device.run_on_first(lambda: check_state(run, device.restarted))
        announce(model.config, texts, options, device)
        device.run_on_first(lambda: write_skipped(corpus, run / runs.SKIPPED))
        with tidy_up(run, corpus, device), open_forwards(model, texts, options, run, device) as forwards:
            training = Training(model, texts, options, device, forwards)
            training.fit(run, tokenizer)
        seconds = time.perf_counter() - started
        record["peak_memory_bytes"] = memory
        return device.run_on_first(lambda: finish(run, record, training, corpus, seconds))


def fill_in(options: Options) -> tuple[Options, int]:
    """Replace `auto` by what it stands for, and return the network's width, too; a substitute is announced."""
    model, model_notice = defaults.choose_model(options.model, options.init)
    corpus, corpus_notice = defaults.choose_corpus(options.corpus)
    for notice in filter(None, (model_notice, corpus_notice)):
        console.print(Panel(notice, style="bold yellow"))
    return replace(options, model=model, corpus=corpus), read_config(model).n_embd


def choose_runs(options: Options, corpus: Corpus, head: WordHead | None, device: Device) -> list[Options]:
    """Return the options of each run to train: of `seeds` the finished ones are passed over, and begun ones resume.

    Raises InputError, before any training, where a run of that name was made with other settings."""
    if not options.seeds:
        return [options]
    remaining = []
    for each in options.by_seed():
        status = runs.read_status(describe(each, corpus, head, device))
        if status == "finished":
            console.print(f"{runs.RUNS / str(each.run)} is finished")
        else:
            remaining.append(replace(each, resume=status is not None))
    return remaining


def describe(options: Options, corpus: Corpus, head: WordHead | None, device: Device) -> dict[str, Any]:
    """Return the manifest of a run that begins."""
    weights = manifest.describe_weights(options.model, options.init)
    record = manifest.make_manifest(options, weights, manifest.describe_corpus(corpus), device)
    return record | {"prompt": head.describe()} if head else record


def announce(config: GPT2Config, texts: dict[str, Texts], options: Options, device: Device) -> None:
    """Say how long the training will take, where that is long."""
    assert options.epochs, "Options.resolved fills it in"
    # A backward pass costs two forward ones, and only the trained blocks need it.
    trained, once = options.tuned_blocks(config.n_layer), count_frozen(options, config)
    passes = ((options.adapt + options.epochs) * (config.n_layer - once + 2 * trained) + once) / config.n_layer
    tokens = float(texts["train"].lengths.sum()) / device.world
    shapes = (config, GPT2Config.preset("gpt2-mini"))
    softmax = count_products(options, texts)
    announce_training(device, *(tokens * (passes * shape.block_weights + softmax * shape.n_embd) for shape in shapes))


def check_state(run: Path, restarted: bool) -> None:
    """Say that a run begins anew, where it has no state from which it could go on.

    Raises InputError where torchrun has started it again and an epoch is kept: after a loss that was not finite."""
    if (run / STATE).is_file():
        return
    kept = (run / WEIGHTS).is_file()
    if kept and restarted:
        advice = "to train it again, give the same command with --resume"
        raise InputError(f"{run}: torchrun has started it again, but there is no state, only the best epoch; {advice}")
    again = "; the epoch that was kept is trained again" if kept else ""
    console.print(f"{run}: no state was written yet, so it begins anew{again}", soft_wrap=True)


@contextmanager
def tidy_up(run: Path, corpus: Corpus, device: Device) -> Iterator[None]:
    """Where the training within fails or is interrupted, say what is left of the run, or remove it where nothing was
    kept.

    Raises InputError with the lines of the texts where the loss is not finite."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, DivergedError):
            remove_state(run)  # from there it would diverge again
        if (run / STATE).is_file():
            console.print(f"{run} is unfinished; the same command with --resume goes on with it.")
        elif device.first and not (run / WEIGHTS).is_file():
            remove_shards(run)  # of a state that was never whole
            runs.discard_run(run)
        if isinstance(error, DivergedError):
            files = corpus.split("train").iloc[error.index].groupby("file")["line"]
            places = "; ".join(f"{file} {', '.join(map(str, lines))}" for file, lines in files)
            raise InputError(f"{error}. The lines of that batch: {places}") from None
        raise


def describe_control(training: Training) -> str:
    """Say that this run learnt labels given at random, and how many of them."""
    learnt = [row["accuracy"] for row in training.log if row["split"] == "train"][-1]
    targets = training.texts["train"].targets
    return (
        "The labels of train were given to its texts at random (--shuffle-labels), for the network and for the bag of "
        f"words: this run is a control. In its last epoch the network gave {learnt:.1%} of the texts their label; "
        f"always naming the most frequent one does so for {np.bincount(targets).max() / len(targets):.1%}."
    )


def finish(run: Path, record: dict[str, Any], training: Training, corpus: Corpus, seconds: float) -> int:
    """Measure the kept weights, complete the manifest and return the exit code. seconds: those of this training."""
    started, seconds = time.perf_counter(), seconds + training.seconds_before
    device = training.device.as_single()
    scores = measure(run, corpus, training.texts, device)
    figures.draw_learning_curves(pd.DataFrame(training.log), training.best_epoch, run / "learning_curves.png")
    console.print(f"Kept: epoch {training.best_epoch}", scores)
    if training.options.shuffle_labels:
        console.print(describe_control(training))
    record["status"] = "interrupted" if training.interrupted else "finished"
    record["seconds"] = {"training": seconds, "all": seconds + time.perf_counter() - started}
    record["peak_memory_bytes"]["all"] = device.peak_memory()
    if training.interrupted:
        output.write_json(run / "run.json", record)
        console.print(f"Stopped by Ctrl-C: {run} holds the best epoch so far; runs/latest stays where it was.")
        return 130
    runs.point_latest(run)  # before the run counts as finished, for no command goes on with a finished run
    output.write_json(run / "run.json", record)
    remove_state(run)
    return 0


if __name__ == "__main__":
    command(main, Options, processes=True)
