"""The training of a network: epochs that go on after an interruption as if there had been none."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from data import bucketed
from data.batches import Batch
from lab import output
from lab.defaults import TrainOptions
from lab.device import Device
from lab.optim import adamw, linear_schedule
from lab.predict import compute_rows
from lab.progress import console, progress_bar
from lab.state import STATE, read_state, write_state
from lab.texts import Texts
from model import GPT2LM, GPT2Classifier, InputError, Tokenizer, save

from .parallel import gather, spread, whole_weights
from .steps import Forward, Step, is_sharded
from .vocabulary import Vocabulary
from .words import WordsAndRest, choose_checkpoint

STATE_EVERY = 30  # seconds at least between two states, which take a fiftieth of the time at most
READ_EVERY = 10  # steps; reading a number waits for the GPU


class DivergedError(InputError):
    """The loss of a step was not finite; `index`: the positions of its texts in train."""

    def __init__(self, message: str, index: np.ndarray) -> None:
        super().__init__(message)
        self.index = index


@dataclass(frozen=True)
class TakenStep:
    """A step that was taken and whose result was not read yet."""

    number: int  # in its epoch, from 1
    rate: float
    index: np.ndarray  # positions of its texts in train
    result: Tensor  # float32 (2,), what `Step` returns


class Training:
    """The fine-tuning of one classifier, whose classes are those of the texts; `read_words_and_rest` has one more, for
    all that is no label word. The run's folder holds the weights of best validation macro-F1 so far and,
    written from time to time, all that the next step depends on."""

    counters = ("epoch", "step", "totals", "log", "best_epoch")  # that a state holds, besides the parts

    def __init__(
        self,
        model: GPT2Classifier,
        texts: dict[str, Texts],
        options: TrainOptions,
        device: Device,
        forwards: Mapping[str, Forward],
    ) -> None:
        """forwards: how the logits of train and val are computed, see `open_forwards`. Where all weights learn, the
        network keeps only the embeddings of tokens in train and val."""
        self.model, self.texts, self.options, self.device = model, texts, options, device
        assert options.epochs, "TrainOptions.resolved fills it in"
        assert options.lr, "TrainOptions.resolved fills it in"
        assert options.lm_weight is not None, "TrainOptions.resolved fills it in"
        self.epochs, self.steps = options.epochs, math.ceil(len(texts["train"]) / options.batch_size)  # steps per epoch
        self.vocabulary = choose_vocabulary(model, texts)
        if self.vocabulary:
            forwards = {name: self.vocabulary.translate(forward) for name, forward in forwards.items()}
        forwards = spread(model, forwards, options.shard, device)  # before the optimizer, which then has shards, too
        self.sharded = is_sharded(forwards["train"])
        self.optimizer = adamw(model.parameters(), options.lr, options.weight_decay)
        steps = self.epochs * self.steps
        self.schedule = linear_schedule(self.optimizer, steps, options.warmup, before=options.adapt * self.steps)
        self.parts: tuple[Any, ...] = (self.optimizer, self.schedule)  # what changes from step to step
        if not self.sharded:
            self.parts = (model, *self.parts)
        self.class_weights = choose_class_weights(texts["train"].targets, options.class_weights)
        step = partial(Step, lm_weight=options.lm_weight, adapt=forwards.get("adapt"))
        self.take_step = step(model, forwards["train"], self.optimizer, options.clip, self.class_weights, device)
        self.forward_val = forwards["val"]
        # The current epoch, where those up to 0 adapt the language model, and how many of its steps are done.
        self.epoch, self.step = 1 - options.adapt, 0
        self.totals = torch.zeros(2)  # of these steps: the sum of all losses, and how many texts were classified right
        self.unread: list[TakenStep] = []
        self.log: list[dict[str, Any]] = []  # two rows per epoch, train and val
        self.best_epoch, self.interrupted = 0, False
        self.started, self.seconds_before = time.perf_counter(), 0.0  # of this call, and that of earlier ones
        self.state_due = self.started + STATE_EVERY
        if device.rank:
            seed_dropout(options.seed, device.rank)

    @property
    def decay(self) -> float:
        """Return by what AdamW has multiplied a weight that decays and never had a gradient."""
        rate, factor = float(self.schedule.base_lrs[0]), self.schedule.lr_lambdas[0]
        return math.prod(1 - rate * factor(step) * self.options.weight_decay for step in range(self.steps_done))

    def fit(self, run: Path, tokenizer: Tokenizer) -> None:
        """Train to the end, from where an earlier call in this folder stopped. Ctrl-C ends it once an epoch is kept."""
        if (run / STATE).is_file():
            self.restore(run / STATE)
        try:
            with progress_bar("steps") as bar:

                def show(note: str) -> None:
                    bar.update(task, completed=self.steps_done, note=note)

                total = (self.options.adapt + self.epochs) * self.steps
                task = bar.add_task("", total=total, completed=self.steps_done, note="")
                while self.epoch <= self.epochs:
                    last = self.epochs if self.epoch > 0 else self.options.adapt
                    bar.update(task, description=f"{self.name_epoch()}/{last}")
                    self.log += [self.train(run, show), self.evaluate()]
                    console.print(f"{self.name_epoch()}: {summary(*self.log[-2:])}")
                    self.keep(run, tokenizer)
        except KeyboardInterrupt:
            if not self.best_epoch or self.device.world > 1:  # processes may have stopped at different steps
                raise
            self.interrupted = True

    def train(self, run: Path, show: Callable[[str], None]) -> dict[str, Any]:
        """Take the steps that are left of this epoch. Return a row of the log: their mean loss and accuracy, measured
        while the weights move; or the loss of the language model, while it adapts."""
        self.model.train()
        self.take_step.adapting = self.epoch < 1
        started = time.perf_counter()
        sequences, targets = self.texts["train"].sequences, self.texts["train"].targets
        passes = self.epoch + self.options.adapt
        batches = bucketed(sequences, targets, self.options.batch_size, self.options.seed, passes)
        for batch in islice(batches, self.step, None):
            rate = float(self.schedule.get_last_lr()[0])
            self.unread.append(TakenStep(self.step + 1, rate, batch.index.numpy(), self.take_step(batch)))
            self.schedule.step()
            self.step += 1
            if self.step % READ_EVERY == 0 or self.step == self.steps:
                loss, accuracy = self.read_results()
                show(f"loss {loss:.3f}" + (f" acc {accuracy:.3f}" if self.epoch > 0 else ""))
                self.write_state(run)
        loss, accuracy = (self.totals / len(targets)).tolist()
        scores = {"lm_loss": loss} if self.epoch < 1 else {"loss": loss, "accuracy": accuracy}
        seconds = {"seconds": round(time.perf_counter() - started, 1)}
        return {"epoch": self.epoch, "split": "train"} | scores | seconds

    @property
    def steps_done(self) -> int:
        """Return the number of steps taken in all epochs."""
        return (self.options.adapt + self.epoch - 1) * self.steps + self.step

    def name_epoch(self) -> str:
        """Return the current epoch in words."""
        return f"epoch {self.epoch}" if self.epoch > 0 else f"adapting epoch {self.options.adapt + self.epoch}"

    def read_results(self) -> tuple[float, float]:
        """Return this epoch's mean loss and accuracy so far. Raises DivergedError where a step's loss is not finite."""
        results = torch.stack([step.result for step in self.unread])  # (steps, 2)
        self.device.add_up([results])
        results = results.cpu()
        for step, result in zip(self.unread, results, strict=True):
            if not result.isfinite().all():
                raise self.diverged(step)
        self.totals += results.sum(dim=0)
        self.unread.clear()
        n = min(self.step * self.options.batch_size, len(self.texts["train"]))
        loss, accuracy = (self.totals / n).tolist()
        return loss, accuracy

    def diverged(self, step: TakenStep) -> DivergedError:
        """Return the error that names a step."""
        kept = f"the best epoch so far, {self.best_epoch}, is kept; " if self.best_epoch else ""
        where = f"in {self.name_epoch()}, step {step.number}, at a learning rate of {step.rate:.3g}"
        return DivergedError(f"the loss was not finite {where}; {kept}try a lower --lr", np.sort(step.index))

    def evaluate(self) -> dict[str, Any]:
        """Return a row of the log: loss, accuracy and macro-F1 on val. Raises InputError where they are not finite.

        Where there are label words, `label_mass` is the mean probability of all of them together. Where the language
        model learns, `lm_loss` is its loss; while it adapts, that is all."""
        row: dict[str, Any] = {"epoch": self.epoch, "split": "val"}
        n_classes, learns_language = len(self.model.labels), self.options.learns_language

        def read(batch: Batch) -> Tensor:  # (B, K), and the loss of the language model behind
            outputs = self.forward_val(batch)
            return torch.column_stack(outputs) if learns_language else outputs

        self.model.eval()
        with whole_weights(self.take_step.forward):
            values = compute_rows(read, self.texts["val"].sequences, n_classes + learns_language, self.device)
        if learns_language:
            row["lm_loss"] = self.check_finite(values[:, -1]).mean().item()
        return row if self.epoch < 1 else row | self.score_classes(values[:, :n_classes])

    def score_classes(self, logits: np.ndarray) -> dict[str, float]:
        """Return what the logits (N, K) of the texts of val say of their classes."""
        targets = self.texts["val"].targets
        probabilities = self.check_finite(torch.from_numpy(logits).softmax(dim=1).numpy())
        loss = -np.log(probabilities[np.arange(len(targets)), targets].clip(1e-12)).mean()
        of_classes = probabilities[:, : len(self.class_weights)]
        predicted = of_classes.argmax(axis=1)
        scores = {"accuracy": (predicted == targets).mean(), "macro_f1": f1_score(targets, predicted, average="macro")}
        if of_classes.shape != probabilities.shape:
            scores["label_mass"] = of_classes.sum(axis=1).mean()
        return {"loss": float(loss)} | {k: float(v) for k, v in scores.items()}

    def check_finite(self, values: np.ndarray) -> np.ndarray:
        """Return what was measured. Raises InputError where it is not finite."""
        if not np.isfinite(values).all():
            raise InputError(f"the weights are not finite any more after {self.name_epoch()}; try a lower --lr")
        return values

    def keep(self, run: Path, tokenizer: Tokenizer) -> None:
        """Write the log, and the weights where this epoch is the best so far. Begin the next epoch.

        Of shuffled labels the last epoch is the best: it knows most of them, which val cannot tell."""
        scores = [row["macro_f1"] for row in self.log if "macro_f1" in row]
        best = self.epoch > 0 and (self.options.shuffle_labels or scores[-1] > max(scores[:-1], default=-1.0))
        kept = gather(choose_checkpoint(self.model), self.device) if best else None

        def write() -> None:
            if kept:
                save(self.complete(kept), run, tokenizer)
            output.write_jsonl(run / "log.jsonl", self.log)

        self.device.run_on_first(write)
        if best:
            self.best_epoch = self.epoch
        self.epoch, self.step, self.totals = self.epoch + 1, 0, torch.zeros(2)
        # A state is never older than the weights beside it. Of several processes, one may die while the first measures.
        several = self.device.world > 1
        if (several and (best or self.epoch > self.epochs)) or (best and (run / STATE).is_file()):
            self.state_due = 0
            self.write_state(run)

    def complete(self, kept: GPT2Classifier | GPT2LM) -> GPT2Classifier | GPT2LM:
        """Return a network with the embeddings that were left out."""
        if not self.vocabulary or isinstance(kept, GPT2LM):
            return kept
        return self.vocabulary.restore(kept, self.decay)

    def write_state(self, run: Path) -> None:
        """Write all that the next step depends on, if it is time to."""
        started = time.perf_counter()
        if not self.device.run_on_first(lambda: started >= self.state_due):
            return
        state = {name: getattr(self, name) for name in self.counters} | {
            "seconds": self.seconds_before + started - self.started,
            "tokens": self.take_step.tokens,
            "parts": [part.state_dict() for part in self.parts],
            "random": list(self.device.gather_rounds([get_random_state(self.device)])),
        }
        if self.sharded:
            from .sharded import list_shards, write_sharded_state  # which takes a second to import

            write_sharded_state(run / STATE, state, list_shards(self.model, self.optimizer), self.device)
        else:
            self.device.run_on_first(lambda: write_state(run / STATE, state))
        now = time.perf_counter()
        self.state_due = now + max(STATE_EVERY, 50 * (now - started))

    def restore(self, path: Path) -> None:
        """Read what `write_state` wrote: the next step is then that of an undisturbed training (on a GPU up to the
        order of its sums)."""
        state = read_state(path)
        if len(state["random"]) != self.device.world:
            made = f"{len(state['random'])} processes made it, here are {self.device.world}"
            raise InputError(f"{path}: {made}; go on with as many")
        for name in self.counters:
            setattr(self, name, state[name])
        try:
            for part, values in zip(self.parts, state["parts"], strict=True):
                part.load_state_dict(values)
        except (RuntimeError, ValueError):  # of other shapes: it was written before the embeddings in use stood alone
            advice = f"remove {path.parent}, and begin anew"
            raise InputError(f"{path}: another version of headgate wrote it, this one cannot go on; {advice}") from None
        if self.sharded:
            from .sharded import list_shards, make_shards, read_shards

            make_shards(self.optimizer)
            read_shards(path, state, list_shards(self.model, self.optimizer), self.device)
        self.seconds_before, self.take_step.tokens = state["seconds"], state["tokens"]
        set_random_state(state["random"][self.device.rank], self.device)
        console.print(f"{path.parent} goes on in {self.name_epoch()}, after {self.step} of {self.steps} steps")


def seed_dropout(seed: int, rank: int) -> None:
    """Let a process of `torchrun` draw its own dropout. The sum of seed and rank would be another run's seed."""
    torch.manual_seed(int(np.random.SeedSequence((seed, rank)).generate_state(1)[0]))


def choose_class_weights(targets: np.ndarray, balanced: bool) -> Tensor:
    """Return the weight of each class, float32 (K,): all 1 or, balanced, in inverse proportion to its texts."""
    classes = np.arange(targets.max() + 1)
    weights = compute_class_weight("balanced" if balanced else None, classes=classes, y=targets)
    return torch.tensor(weights, dtype=torch.float32)


def choose_vocabulary(model: GPT2Classifier, texts: Mapping[str, Texts]) -> Vocabulary | None:
    """Leave out the embeddings that would only decay: none where embeddings do not learn, or also name the answer."""
    if not model.trunk.wte.weight.requires_grad or isinstance(model.score, WordsAndRest):
        return None
    return Vocabulary(model, [texts[split].sequences for split in ("train", "val") if split in texts])


def shuffle_labels(texts: dict[str, Texts], seed: int) -> dict[str, Texts]:
    """Return the texts of all splits, those of train with each other's labels; the same seed shuffles alike."""
    order = np.random.default_rng((seed, *b"labels of train")).permutation(len(texts["train"]))
    return texts | {"train": replace(texts["train"], targets=texts["train"].targets[order])}


def get_random_state(device: Device) -> list[Tensor]:
    """Return the states of the generators that dropout draws from."""
    on_device = [torch.get_device_module(device.device).get_rng_state()] if device.device.type != "cpu" else []
    return [torch.get_rng_state(), *on_device]


def set_random_state(states: list[Tensor], device: Device) -> None:
    """Set what `get_random_state` returned."""
    torch.set_rng_state(states[0])
    if device.device.type != "cpu":
        torch.get_device_module(device.device).set_rng_state(states[1])


def summary(train: dict[str, Any], val: dict[str, Any]) -> str:
    """Return what an epoch has brought in one line, from its two rows of the log."""
    if "loss" not in train:
        seconds = f"({train['seconds']:.0f} s)"
        return f"train loss of the next token {train['lm_loss']:.3f}; val {val['lm_loss']:.3f} {seconds}"
    language = f", loss of the next token {val['lm_loss']:.3f}" if "lm_loss" in val else ""
    mass = f", label words have {val['label_mass']:.1%}" if "label_mass" in val else ""
    return (
        f"train loss {train['loss']:.3f}, accuracy {train['accuracy']:.3f}; val loss "
        f"{val['loss']:.3f}, accuracy {val['accuracy']:.3f}, macro-F1 {val['macro_f1']:.3f}{mass}{language} "
        f"({train['seconds']:.0f} s)"
    )
