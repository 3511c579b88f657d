"""The training of a classifier: epochs that go on after an interruption as if there had been none."""

import math
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress, TaskID
from sklearn.metrics import f1_score
from torch import Tensor

from data import bucketed
from lab import output
from lab.defaults import TrainOptions
from lab.device import Device
from lab.optim import adamw, linear_schedule
from lab.predict import predict
from lab.progress import console, progress_bar
from lab.state import STATE, read_state, write_state
from lab.texts import Texts
from model import GPT2Classifier, InputError, Tokenizer, save

from .steps import Step

STATE_EVERY = 30  # seconds, at least; and a fiftieth of the time at most goes into writing it
READ_EVERY = 10  # steps; reading a number waits for the GPU


class DivergedError(InputError):
    """The loss of a step was not finite; `index`: the positions of its texts in train."""

    def __init__(self, message: str, index: np.ndarray) -> None:
        super().__init__(message)
        self.index = index


class Training:
    """Fine-tuning of one classifier; the epoch of best validation macro-F1 is kept in the run's folder, and beside it,
    from time to time, all that the next step depends on."""

    counters = ("epoch", "step", "totals", "log", "best_epoch")  # that a state holds, besides the parts

    def __init__(self, model: GPT2Classifier, texts: dict[str, Texts], options: TrainOptions, device: Device) -> None:
        self.model, self.texts, self.options, self.device = model, texts, options, device
        self.steps = math.ceil(len(texts["train"].targets) / options.batch_size)  # per epoch
        self.optimizer = adamw(model.parameters(), options.lr, options.weight_decay)
        self.schedule = linear_schedule(self.optimizer, options.epochs * self.steps, options.warmup)
        counts = np.bincount(texts["train"].targets)
        shares = counts.mean() / counts if options.class_weights else np.ones(len(counts))
        self.class_weights = torch.tensor(shares, dtype=torch.float32)
        self.parts: tuple[Any, ...] = (model, self.optimizer, self.schedule)  # what changes from step to step
        compiled = device.compiles(options.compile)
        self.take_step = Step(
            model, self.optimizer, options.clip, self.class_weights, device, compiled, options.recompute
        )
        self.epoch, self.step = 1, 0  # the one that is going on, and how many of its steps are done
        self.totals = torch.zeros(2)  # in these: the sum of all losses, and how many texts were classified right
        self.unread: list[tuple[np.ndarray, float, Tensor]] = []  # texts, learning rate and result of the latest steps
        self.log: list[dict[str, Any]] = []  # two rows per epoch, train and val
        self.best_epoch, self.interrupted = 0, False
        self.started, self.seconds_before = time.perf_counter(), 0.0  # of this call, and that of earlier ones
        self.state_due = self.started + STATE_EVERY
        if device.rank:  # dropout is to fall elsewhere than in the first process
            key = np.random.SeedSequence((options.seed, device.rank))  # a sum would be another run's seed
            torch.manual_seed(int(key.generate_state(1)[0]))

    def fit(self, run: Path, tokenizer: Tokenizer) -> None:
        """Train, from where an earlier call in this folder stopped. Ctrl-C ends it once an epoch has been kept."""
        if (run / STATE).is_file():
            self.restore(run / STATE)
        try:
            with progress_bar("steps") as bar:
                task = bar.add_task("", total=self.options.epochs * self.steps, completed=self.done, note="")
                while self.epoch <= self.options.epochs:
                    bar.update(task, description=f"epoch {self.epoch}/{self.options.epochs}")
                    self.log += [self.train_epoch(run, bar, task), self.validate()]
                    console.print(summary(*self.log[-2:]))
                    best = self.keep(run, tokenizer)
                    self.epoch, self.step, self.totals = self.epoch + 1, 0, torch.zeros(2)
                    if best and (run / STATE).is_file():  # which is never to be older than the weights beside it
                        self.state_due = 0
                        self.write_state(run)
        except KeyboardInterrupt:
            if not self.best_epoch or self.device.world > 1:  # processes may have stopped at different steps
                raise
            self.interrupted = True

    def train_epoch(self, run: Path, bar: Progress, task: TaskID) -> dict[str, Any]:
        """The rest of a pass over the training texts -> its mean loss and accuracy, measured while the weights move."""
        self.model.train()
        started = time.perf_counter()
        sequences, targets = self.texts["train"].sequences, self.texts["train"].targets
        batches = bucketed(sequences, targets, self.options.batch_size, self.options.seed, self.epoch)
        for batch in islice(batches, self.step, None):
            rate = float(self.schedule.get_last_lr()[0])
            self.unread.append((batch.index.numpy(), rate, self.take_step(batch)))
            self.schedule.step()
            self.step += 1
            if self.step % READ_EVERY == 0 or self.step == self.steps:
                loss, accuracy = self.read()
                bar.update(task, completed=self.done, note=f"loss {loss:.3f} acc {accuracy:.3f}")
                self.write_state(run)
        loss, accuracy = (self.totals / len(targets)).tolist()
        seconds = round(time.perf_counter() - started, 1)
        return {"epoch": self.epoch, "split": "train", "loss": loss, "accuracy": accuracy, "seconds": seconds}

    @property
    def done(self) -> int:
        """Steps in all epochs so far."""
        return (self.epoch - 1) * self.steps + self.step

    def read(self) -> tuple[float, float]:
        """Mean loss and accuracy in this epoch so far. InputError where the loss of a step is not finite."""
        totals = torch.stack([own for _, _, own in self.unread])  # (steps, 2)
        self.device.add_up([totals])
        totals = totals.cpu()
        for step, (index, rate, _) in enumerate(self.unread):
            if not totals[step].isfinite().all():
                raise self.diverged(self.step - len(self.unread) + step + 1, rate, index)
        self.totals += totals.sum(dim=0)
        self.unread.clear()
        n = min(self.step * self.options.batch_size, len(self.texts["train"].targets))
        loss, accuracy = (self.totals / n).tolist()
        return loss, accuracy

    def diverged(self, step: int, rate: float, index: np.ndarray) -> DivergedError:
        kept = f"the best epoch so far, {self.best_epoch}, is kept; " if self.best_epoch else ""
        where = f"in epoch {self.epoch}, step {step}, at a learning rate of {rate:.3g}"
        return DivergedError(f"the loss was not finite {where}; {kept}try a lower --lr", np.sort(index))

    def validate(self) -> dict[str, Any]:
        """Loss, accuracy and macro-F1 on val; the last decides which epoch is kept."""
        targets = self.texts["val"].targets
        probabilities = predict(self.model, self.texts["val"].sequences, self.device)  # (N, K)
        if not np.isfinite(probabilities).all():
            raise InputError(f"the weights are not finite any more after epoch {self.epoch}; try a lower --lr")
        loss = -np.log(probabilities[np.arange(len(targets)), targets].clip(1e-12)).mean()
        predicted = probabilities.argmax(axis=1)
        scores = {"accuracy": (predicted == targets).mean(), "macro_f1": f1_score(targets, predicted, average="macro")}
        return {"epoch": self.epoch, "split": "val", "loss": float(loss)} | {k: float(v) for k, v in scores.items()}

    def keep(self, run: Path, tokenizer: Tokenizer) -> bool:
        """Write the log, and the weights if this epoch is the best so far: is it?"""
        scores = [row["macro_f1"] for row in self.log if row["split"] == "val"]
        best = scores[-1] > max(scores[:-1], default=-1.0)

        def write() -> None:
            if best:
                save(self.model, run, tokenizer)
            output.write_jsonl(run / "log.jsonl", self.log)

        self.device.run_on_first(write)
        if best:
            self.best_epoch = self.epoch
        return best

    def write_state(self, run: Path) -> None:
        """Write down where the training stands, if it is time to."""
        started = time.perf_counter()
        if not self.device.run_on_first(lambda: started >= self.state_due):
            return
        state = {name: getattr(self, name) for name in self.counters} | {
            "seconds": self.seconds_before + started - self.started,
            "tokens": self.take_step.tokens,
            "parts": [part.state_dict() for part in self.parts],
            "random": list(self.device.gather_rounds([random_state(self.device)])),
        }
        self.device.run_on_first(lambda: write_state(run / STATE, state))
        now = time.perf_counter()
        self.state_due = now + max(STATE_EVERY, 50 * (now - started))

    def restore(self, path: Path) -> None:
        """Take up what `write_state` wrote: the next step is then the one that an undisturbed training would have made
        (on a GPU up to the order of its sums)."""
        state = read_state(path)
        if len(state["random"]) != self.device.world:
            made = f"{len(state['random'])} processes made it, here are {self.device.world}"
            raise InputError(f"{path}: {made}; go on with as many")
        for name in self.counters:
            setattr(self, name, state[name])
        self.seconds_before, self.take_step.tokens = state["seconds"], state["tokens"]
        for part, values in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(values)
        set_random_state(state["random"][self.device.rank], self.device)
        console.print(f"{path.parent} goes on in epoch {self.epoch}, after {self.step} of {self.steps} steps")


def random_state(device: Device) -> list[Tensor]:
    """Of the generators that dropout draws from."""
    there = [torch.get_device_module(device.device).get_rng_state()] if device.device.type != "cpu" else []
    return [torch.get_rng_state(), *there]


def set_random_state(states: list[Tensor], device: Device) -> None:
    torch.set_rng_state(states[0])
    if device.device.type != "cpu":
        torch.get_device_module(device.device).set_rng_state(states[1])


def summary(train: dict[str, Any], val: dict[str, Any]) -> str:
    """An epoch in one line, from its two rows of the log."""
    return (
        f"epoch {train['epoch']}: train loss {train['loss']:.3f}, accuracy {train['accuracy']:.3f}; val loss "
        f"{val['loss']:.3f}, accuracy {val['accuracy']:.3f}, macro-F1 {val['macro_f1']:.3f} ({train['seconds']:.0f} s)"
    )
