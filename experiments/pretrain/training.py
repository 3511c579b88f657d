"""The training of a language model."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.books import Books, block_batch, consecutive_blocks, steps_per_epoch
from lab import heads, output
from lab.cli import check_ranges
from lab.compiled import compile_function
from lab.device import Compile, Device, DeviceName, Precision
from lab.language import held_out_loss
from lab.optim import cosine_schedule, muon
from lab.progress import announce_training, console, progress_bar
from lab.state import STATE, read_state, write_state
from model import GPT2LM, GPT2Config, InputError, Tokenizer, save

from .softmax import SampledSoftmax

EVALUATIONS = 50  # in a training
EVALUATED_BLOCKS = 32  # of the held-out books, while training; all of them at the end
CLOSED_BLOCKS = 8  # of those, on which each head is closed once
READ_EVERY = 10  # steps; reading a number waits for the GPU
SHORT = 256  # tokens of the pieces into which blocks are cut
WHOLE_EVERY = 4  # steps, of which the first reads whole blocks


@dataclass(frozen=True)
class Options:
    """Train a GPT-2 language model from scratch; it lands in runs/NAME.

    After an interruption the same command with --resume goes on where it stopped."""

    corpus: str  # a text file in UTF-8 (or .xz of one), with a line <|endoftext|> between books
    model: str = "gpt2-mini"  # whose shape and tokenizer: a published name, or a checkpoint's folder
    run: str | None = None  # name of the run; None: date and time
    resume: bool = False  # go on with a run that was interrupted: of this name, or the newest with these settings
    epochs: float | None = None  # passes over the text; None: 20 on a GPU, 5 on a CPU
    lr: float = 3e-3  # peak learning rate; not tuned
    weight_decay: float = 0.1  # on matrices only
    warmup: float = 0.05  # share of the steps over which the learning rate rises; then a half cosine to 0
    batch_size: int = 8  # blocks of n_ctx tokens per step
    clip: float = 1.0  # largest norm of the gradient
    dropout: float | None = None  # on embeddings, sublayers and attention weights; None: 0.1 from 10 epochs on, else 0
    sampled: int | None = None  # tokens drawn for the softmax in training; 0: all; None: 4096 on a CPU, all on a GPU
    seed: int = 0  # of the weights, dropout, the order of blocks and the drawn tokens
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # of the training; auto: bf16 autocast on CUDA, else fp32
    compile: Compile = "auto"  # torch.compile; auto: on CUDA

    def check(self) -> None:
        """Raise InputError for a number out of its range."""
        share, any_, some = (0, 1), (0, math.inf), (1, math.inf)
        check_ranges(self, epochs=any_, lr=(1e-9, math.inf), weight_decay=any_, warmup=share, batch_size=some)
        check_ranges(self, clip=(1e-3, math.inf), dropout=share, sampled=any_, seed=(0, 2**32))

    def resolved(self, on_gpu: bool, vocab_size: int) -> "Options":
        """Fill in the epochs, dropout and drawn tokens that are None: they follow from the device."""
        # Not tuned: 5 passes over 18 million tokens take two cores six hours; dropout is for a text read often.
        epochs = self.epochs or (20 if on_gpu else 5)
        dropout = (0.1 if epochs >= 10 else 0.0) if self.dropout is None else self.dropout
        sampled = (0 if on_gpu else 4096) if self.sampled is None else self.sampled
        return replace(self, epochs=epochs, dropout=dropout, sampled=sampled if sampled < vocab_size else 0)


class Pretraining:
    """The training of one language model. The run's folder holds the weights of lowest held-out loss so far, in fp16,
    and all that the next step depends on, written at each evaluation."""

    counters = ("step", "log")  # that a state holds, besides the parts

    def __init__(self, lm: GPT2LM, books: Books, options: Options, device: Device) -> None:
        self.lm, self.options, self.device, self.tokens = lm, options, device, books.train
        assert options.epochs, "Options.resolved fills it in"
        per_epoch = steps_per_epoch(self.tokens, lm.config.n_ctx, options.batch_size)
        self.steps = max(1, round(options.epochs * per_epoch))
        self.optimizers = muon(lm.trunk, options.lr, options.weight_decay)
        self.schedules = [cosine_schedule(optimizer, self.steps, options.warmup) for optimizer in self.optimizers]
        self.parts: tuple[Any, ...] = (lm, *self.optimizers, *self.schedules)  # what changes from step to step
        blocks = consecutive_blocks(books.held_out, lm.config.n_ctx)
        self.evaluated = blocks[:: max(1, len(blocks) // EVALUATED_BLOCKS)][:EVALUATED_BLOCKS]
        self.closed_on = self.evaluated[:: max(1, len(self.evaluated) // CLOSED_BLOCKS)][:CLOSED_BLOCKS]
        heads.draw_different_tokens(self.closed_on, lm.config.n_ctx)  # raises now, rather than when all is trained
        counts = self.tokens.bincount(minlength=lm.config.vocab_size).numpy()
        self.softmax = SampledSoftmax(counts, options.sampled).to(device.device) if options.sampled else None
        self.step = 0  # how many steps are done
        compiled = device.compiles(options.compile)
        self.loss = compile_function(self.batch_loss, compiled)
        if compiled != "off":
            self.compute_loss()  # raises now, before there is a run, where there is no compiler
        self.log: list[dict[str, Any]] = []  # a row `held-out` per evaluation, after a row `train` for the steps before

    def fit(self, run: Path, tokenizer: Tokenizer) -> None:
        """Train to the end, from where an earlier call in this folder stopped."""
        if (run / STATE).is_file():
            self.restore(run / STATE)
        self.announce()
        with progress_bar("steps") as bar:

            def show(note: str) -> None:
                bar.update(task, completed=self.step, note=note)

            task = bar.add_task(run.name, total=self.steps, completed=self.step, note="")
            while self.step < self.steps or not self.log:
                trained = [self.train(show)] if self.log else []  # the first evaluation comes before the first step
                self.log += [*trained, self.evaluate()]
                console.print(f"step {self.step:,}: held-out loss {self.log[-1]['loss']:.3f}")
                self.keep(run, tokenizer)
                self.write_state(run)

    def announce(self) -> None:
        """Say how many steps are left, and on a CPU how long they take where that is long."""
        left = self.steps - self.step
        console.print(f"{left:,} of {self.steps:,} steps to do, on {self.device}")
        tokens = left * self.options.batch_size * self.lm.config.n_ctx
        shapes = (self.lm.config, GPT2Config.preset("gpt2-mini"))
        announce_training(self.device, *(tokens * self.multiply_adds(shape) for shape in shapes))

    def multiply_adds(self, config: GPT2Config) -> int:
        """Count those of training on one token at this shape; a backward pass costs two forward ones."""
        cut = can_cut(config.n_ctx)
        length = (config.n_ctx + (WHOLE_EVERY - 1) * SHORT) / WHOLE_EVERY if cut else config.n_ctx
        attention = round(config.n_layer * length * config.n_embd)  # half of the map, for q k and for weights v
        output_layer = config.n_embd * (self.options.sampled or config.vocab_size)
        return 3 * (config.block_weights + attention + output_layer)

    def train(self, show: Callable[[str], None]) -> dict[str, Any]:
        """Take the steps up to the next evaluation. Return a row of the log: their mean loss, measured while the
        weights move. Raises InputError where a loss that is read is not finite."""
        self.lm.train()
        started, losses = time.perf_counter(), []
        last = min(self.step + math.ceil(self.steps / EVALUATIONS), self.steps)
        while self.step < last:
            losses.append(self.take_step())
            if self.step % READ_EVERY == 0 or self.step == last:
                show(f"loss {self.check_loss(losses[-1].item()):.3f}")
        return self.row("train", torch.stack(losses).mean().item(), started)

    def take_step(self) -> Tensor:
        """Take one step and return its loss, float32 ()."""
        loss = self.compute_loss()
        self.lm.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.lm.parameters(), self.options.clip)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            schedule.step()
        self.step += 1
        return loss.detach()

    def compute_loss(self) -> Tensor:
        """Return the loss of the step that comes next, float32 ()."""
        config, options = self.lm.config, self.options
        blocks = block_batch(self.tokens, config.n_ctx, options.batch_size, options.seed, self.step)
        # Each step seeds the generator of dropout and of the drawn tokens, so a resume needs none of the earlier draws.
        torch.manual_seed(int(np.random.SeedSequence((options.seed, self.step)).generate_state(1)[0]))
        drawn = self.softmax.draw() if self.softmax else None
        with self.device.autocast():
            return self.loss(self.cut(blocks).to(self.device.device), drawn)

    def cut(self, blocks: Tensor) -> Tensor:
        """Cut the blocks (B, n_ctx + 1) of the step that comes next into short pieces (b, SHORT + 1), or leave them
        whole at every 4th step: attention costs a quarter, and all positions learn."""
        if self.step % WHOLE_EVERY == 0 or not can_cut(self.lm.config.n_ctx):
            return blocks
        return blocks.unfold(1, SHORT + 1, SHORT).flatten(0, 1)

    def batch_loss(self, blocks: Tensor, drawn: Tensor | None) -> Tensor:
        """Return the mean loss of the next tokens of blocks int64 (B, T + 1), by the full softmax unless some tokens
        are drawn, int64 (size,)."""
        x = self.lm.trunk(blocks[:, :-1]).flatten(0, 1)  # (B * T, C)
        targets = blocks[:, 1:].flatten()  # (B * T,)
        if self.softmax is None:
            return F.cross_entropy(self.lm.read(x).float(), targets)
        return self.softmax(x, targets, self.lm.trunk.wte.weight, drawn)

    def check_loss(self, loss: float) -> float:
        """Return a loss. Raises InputError where it is not finite."""
        if not math.isfinite(loss):
            raise InputError(f"the loss became {loss} before step {self.step}; begin anew with a lower --lr")
        return loss

    def evaluate(self) -> dict[str, Any]:
        """Return a row of the log: the held-out loss. Raises InputError where it is not finite."""
        started = time.perf_counter()
        loss = self.check_loss(held_out_loss(self.lm, self.evaluated, self.device))
        return self.row("held-out", loss, started)

    def row(self, split: str, loss: float, started: float) -> dict[str, Any]:
        """Return a row of the log."""
        tokens = self.step * self.options.batch_size * self.lm.config.n_ctx
        seconds = round(time.perf_counter() - started, 1)
        return {"step": self.step, "tokens": tokens, "split": split, "loss": loss, "seconds": seconds}

    def keep(self, run: Path, tokenizer: Tokenizer) -> None:
        """Write the log, and the weights where their held-out loss is the lowest so far."""
        losses = [row["loss"] for row in self.log if row["split"] == "held-out"]
        if losses[-1] < min(losses[:-1], default=math.inf):
            save(self.lm, run, tokenizer, torch.float16)
        output.write_jsonl(run / "log.jsonl", self.log)

    def write_state(self, run: Path) -> None:
        """Write all that the next step depends on."""
        state = {name: getattr(self, name) for name in self.counters}
        write_state(run / STATE, state | {"parts": [part.state_dict() for part in self.parts]})

    def restore(self, path: Path) -> None:
        """Read what `write_state` wrote: the next step is then that of an undisturbed training (on a GPU up to the
        order of its sums)."""
        state = read_state(path)
        for name in self.counters:
            setattr(self, name, state[name])
        for part, values in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(values)


def can_cut(n_ctx: int) -> bool:
    """Return whether blocks of n_ctx tokens can be cut into short pieces."""
    return n_ctx > SHORT and n_ctx % SHORT == 0
