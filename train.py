"""Fine-tune GPT-2 to classify texts, and measure what came out: `make train`, or `python train.py --help`."""

import math
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from rich.panel import Panel
from rich.progress import Progress, TaskID
from sklearn.metrics import f1_score
from torch import nn
from torch.nn import functional as F

from data import bucketed, read_corpus
from lab import figures, runs
from lab.cli import check_ranges, command
from lab.device import Compile, Device, DeviceName, Precision
from lab.evaluation import measure, predict
from lab.optim import adamw, linear_schedule
from lab.progress import console, forecast, progress_bar
from lab.texts import Texts, read_texts
from model import GPT2Classifier, GPT2Config, InputError, Tokenizer, load_classifier, save
from model.checkpoint import read_config


@dataclass(frozen=True)
class Options:
    """Fine-tune GPT-2 to classify texts from their last token; the run lands in runs/NAME."""

    model: str = "auto"  # a checkpoint's folder, a published name (gpt2, distilgpt2, ...), gpt2-mini, or auto
    corpus: str = "auto"  # emotion, rotten_tomatoes, sample, owner/name on the hub, a file or a folder with splits
    run: str = ""  # name of the run; empty: date and time
    init: runs.Init = "pretrained"  # the checkpoint's weights, or only its shape
    tune: Literal["all", "head"] | int = "all"  # all weights, the head alone, or the last N blocks, ln_f and the head
    epochs: int = 0  # passes over the training texts; 0: 6 from random weights, 10 for the head alone, else 4
    lr: float = 0  # peak learning rate; 0: by --init, --tune and width, 8.9e-5 for the pretrained gpt2
    weight_decay: float = 0.01  # of AdamW, on matrices only
    warmup: float = 0.1  # share of the steps over which the learning rate rises; then it falls linearly to 0
    batch_size: int = 32  # texts per step
    clip: float = 1.0  # largest norm of the gradient
    class_weights: bool = False  # weigh each class by the inverse of its frequency
    dropout: float | None = None  # everywhere; None: 0.3 from random weights, 0 for the head alone, else 0.1
    truncate: bool = False  # keep the end of texts that are too long for the model, instead of refusing them
    text_column: str = "text"  # column of the texts, in files that name columns
    label_column: str = "label"  # column of the labels, in files that name columns
    seed: int = 0  # of fresh weights, dropout, the order of texts, and the split of a single file
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # auto: bf16 autocast on CUDA, else fp32
    compile: Compile = "auto"  # torch.compile; auto: on CUDA

    def check(self) -> None:
        """Raise InputError for a number that makes no sense."""
        if isinstance(self.tune, int) and self.tune < 1:
            raise InputError(f"--tune {self.tune}: expected all, head, or at least 1 block")
        share, any_, some = (0, 1), (0, math.inf), (1, math.inf)
        check_ranges(self, epochs=any_, lr=any_, weight_decay=any_, warmup=share, dropout=share, seed=(0, 2**32))
        check_ranges(self, batch_size=some, clip=(1e-3, math.inf))

    def tuned_blocks(self, n_layer: int) -> int:
        """How many blocks of `n_layer` are trained; InputError where there are not so many."""
        blocks = {"all": n_layer, "head": 0}[self.tune] if isinstance(self.tune, str) else self.tune
        if blocks > n_layer:
            raise InputError(f"--tune {blocks}: expected at most the {n_layer} blocks of {self.model}")
        return blocks

    def resolved(self, width: int) -> "Options":
        """With the epochs, learning rate and dropout that follow from init, tune and width where none are given."""
        share = 256 / width
        if self.tune == "head":  # few weights: nothing to spoil, and no noise wanted in what they read
            epochs, lr, dropout = 10, 3e-3 * share, 0.0
        elif self.init == "random":
            epochs, lr, dropout = 6, 1e-3 * share, 0.3
        else:
            epochs, lr, dropout = 4, 8e-4 * min(share, share**2), 0.1
        dropout = dropout if self.dropout is None else self.dropout
        return replace(self, epochs=self.epochs or epochs, lr=self.lr or lr, dropout=dropout)


def main(options: Options) -> int:
    started = time.perf_counter()
    options.check()
    device = Device.choose(options.device, options.precision)
    options = chosen(options)
    config = read_config(options.model)
    corpus = read_corpus(options.corpus, options.text_column, options.label_column, options.seed)
    tokenizer = Tokenizer.load(options.model)
    texts = read_texts(corpus, tokenizer, config, options.truncate)
    torch.manual_seed(options.seed)
    model = start_model(options, corpus.labels).to(device.device)
    memory = {"loading": device.peak_memory()}
    run = runs.new_run(options.run)
    console.print(f"{run}: {options.model}, {options.init} weights, on {device}")
    announce(config, texts, options, device)
    record = runs.manifest(
        asdict(options), runs.weights_of(options.model, options.init), runs.corpus_of(corpus), device
    )
    record["texts"] = texts.description
    runs.write_json(run / "run.json", record | {"status": "unfinished"})
    training = Training(model, texts, options, device)
    try:
        log = training.fit(run, tokenizer)
    finally:
        if not training.best_epoch:  # nothing was kept
            shutil.rmtree(run)
    trained = time.perf_counter()
    scores = measure(run, corpus, texts, device)
    figures.learning_curves(log, training.best_epoch, run / "learning_curves.png")
    console.print(f"Kept: epoch {training.best_epoch}", scores)
    seconds = {"training": trained - started, "all": time.perf_counter() - started}
    record |= {"status": "interrupted" if training.interrupted else "finished", "seconds": seconds}
    record["peak_memory_bytes"] = memory | {"all": device.peak_memory()}
    runs.write_json(run / "run.json", record)
    if training.interrupted:
        console.print(f"Stopped by Ctrl-C: {run} holds the best epoch so far; runs/latest stays where it was.")
        return 130
    runs.point_latest(run)
    return 0


def chosen(options: Options) -> Options:
    """With what `auto` stands for, said loudly where it is a substitute, and the defaults that follow."""
    model, model_notice = runs.choose_model(options.model, options.init)
    corpus, corpus_notice = runs.choose_corpus(options.corpus)
    for notice in filter(None, (model_notice, corpus_notice)):
        console.print(Panel(notice, style="bold yellow"))
    return replace(options, model=model, corpus=corpus).resolved(read_config(model).n_embd)


def start_model(options: Options, labels: tuple[str, ...]) -> GPT2Classifier:
    """The classifier to be trained; only what `tune` names is left trainable."""
    if options.init == "random":
        model = GPT2Classifier(read_config(options.model, options.dropout), labels)
    else:
        model = load_classifier(options.model, labels, options.dropout)
    if options.tune == "all":
        return model
    parts: list[nn.Module] = [model.score]
    if blocks := options.tuned_blocks(model.config.n_layer):
        parts += [*model.trunk.h[-blocks:], model.trunk.ln_f]
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
    return model


def announce(config: GPT2Config, texts: Texts, options: Options, device: Device) -> None:
    """Say how long the training will take, where that is long."""
    # A backward pass costs two forward ones, and only the trained blocks need it.
    passes = 1 + 2 * options.tuned_blocks(config.n_layer) / config.n_layer
    tokens = options.epochs * sum(map(len, texts.sequences["train"]))
    mini = GPT2Config.preset("gpt2-mini").block_weights
    forecast(device, passes * tokens * config.block_weights, passes * tokens * mini)


class Training:
    """Fine-tuning of one classifier; the epoch of best validation macro-F1 is kept in the run's folder."""

    def __init__(self, model: GPT2Classifier, texts: Texts, options: Options, device: Device) -> None:
        self.model, self.texts, self.options, self.device = model, texts, options, device
        self.best_epoch, self.interrupted = 0, False
        self.steps = math.ceil(len(texts.targets["train"]) / options.batch_size)  # per epoch
        self.optimizer = adamw(model.parameters(), options.lr, options.weight_decay)
        self.schedule = linear_schedule(self.optimizer, options.epochs * self.steps, options.warmup)
        self.forward = torch.compile(model, dynamic=True) if device.compiles(options.compile) else model
        counts = np.bincount(texts.targets["train"])
        shares = counts.mean() / counts if options.class_weights else np.ones(len(counts))
        self.class_weights = torch.tensor(shares, dtype=torch.float32, device=device.device)

    def fit(self, run: Path, tokenizer: Tokenizer) -> pd.DataFrame:
        """Train; returns the log, one row per epoch and split. Ctrl-C ends it after a first epoch has been kept."""
        log: list[dict[str, Any]] = []
        best = -1.0
        try:
            with progress_bar("steps") as bar:
                task = bar.add_task("", total=self.options.epochs * self.steps, note="")
                for epoch in range(1, self.options.epochs + 1):
                    bar.update(task, description=f"epoch {epoch}/{self.options.epochs}")
                    log += [self.train_epoch(epoch, bar, task), self.validate(epoch)]
                    console.print(summary(*log[-2:]))
                    if log[-1]["macro_f1"] > best:
                        save(self.model, run, tokenizer)
                        best, self.best_epoch = log[-1]["macro_f1"], epoch
                    runs.write_jsonl(run / "log.jsonl", log)
        except KeyboardInterrupt:
            if not self.best_epoch:
                raise
            self.interrupted = True
        return pd.DataFrame(log)

    def train_epoch(self, epoch: int, bar: Progress, task: TaskID) -> dict[str, Any]:
        """One pass over the training texts -> its mean loss and accuracy, measured while the weights move."""
        self.model.train()
        started = time.perf_counter()
        loss_sum = torch.zeros((), device=self.device.device)
        hits, n = torch.zeros_like(loss_sum), 0
        sequences, targets = self.texts.sequences["train"], self.texts.targets["train"]
        batches = bucketed(sequences, targets, self.options.batch_size, self.options.seed, epoch)
        for step, batch in enumerate(batches, 1):
            batch = batch.to(self.device.device)
            with self.device.autocast():
                logits = self.forward(batch.ids, batch.lengths).float()  # (B, K)
            loss = F.cross_entropy(logits, batch.targets, self.class_weights)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
            self.optimizer.step()
            self.schedule.step()
            loss_sum += F.cross_entropy(logits.detach(), batch.targets, reduction="sum")  # unweighted, as on val
            hits += (logits.argmax(dim=1) == batch.targets).sum()
            n += len(batch.targets)
            if step % 10 == 0 or step == self.steps:  # reading a number waits for the GPU
                mean, accuracy = loss_sum.item() / n, hits.item() / n
                if not math.isfinite(mean):
                    raise InputError(f"the loss became {mean} in epoch {epoch}, step {step}; try a lower --lr")
                bar.update(task, completed=(epoch - 1) * self.steps + step, note=f"loss {mean:.3f} acc {accuracy:.3f}")
        seconds = time.perf_counter() - started
        return {"epoch": epoch, "split": "train", "loss": mean, "accuracy": accuracy, "seconds": round(seconds, 1)}

    def validate(self, epoch: int) -> dict[str, Any]:
        """Loss, accuracy and macro-F1 on val; the last decides which epoch is kept."""
        targets = self.texts.targets["val"]
        probabilities = predict(self.model, self.texts.sequences["val"], self.device)  # (N, K)
        loss = -np.log(probabilities[np.arange(len(targets)), targets].clip(1e-12)).mean()
        predicted = probabilities.argmax(axis=1)
        scores = {"accuracy": (predicted == targets).mean(), "macro_f1": f1_score(targets, predicted, average="macro")}
        return {"epoch": epoch, "split": "val", "loss": float(loss)} | {k: float(v) for k, v in scores.items()}


def summary(train: dict[str, Any], val: dict[str, Any]) -> str:
    """An epoch in one line, from its two rows of the log."""
    return (
        f"epoch {train['epoch']}: train loss {train['loss']:.3f}, accuracy {train['accuracy']:.3f}; val loss "
        f"{val['loss']:.3f}, accuracy {val['accuracy']:.3f}, macro-F1 {val['macro_f1']:.3f} ({train['seconds']:.0f} s)"
    )


if __name__ == "__main__":
    command(main, Options)
