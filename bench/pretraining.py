"""Pretraining in tokens per second, in several ways and beside `transformers`: `python -m bench.pretraining`.

All ways train the same shape from random weights on random tokens, 4 blocks of n_ctx per step, without dropout. They
run one after the other in this process. transformers uses the loss of its language model, the full softmax, AdamW and
whole blocks; headgate cuts the blocks short in three steps of four.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import pandas as pd
import torch
from rich.table import Table

from data.books import Books
from experiments.pretrain.training import Options as Settings
from experiments.pretrain.training import Pretraining
from lab import output, runs
from lab.cli import command
from lab.device import Compile, Device, DeviceName, Precision
from lab.progress import console
from model import GPT2LM, GPT2Config
from model.layouts import config_to_hf

BATCH_SIZE = 4
WARM_UP = 5  # steps; whole and cut blocks are compiled apart


@dataclass(frozen=True)
class Options:
    """Train a few steps in each way; results in runs/bench-pretraining.csv."""

    model: str = "gpt2-mini"  # a published size
    steps: int = 8  # timed, after 5 to warm up
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU


@dataclass(frozen=True)
class Way:
    """One way to train."""

    code: str
    sampled: int  # tokens drawn for the softmax; 0: the full softmax
    precision: Precision
    compiled: bool


WAYS = (
    Way("transformers", 0, "fp32", False),
    Way("transformers", 0, "bf16", True),
    Way("headgate", 0, "fp32", False),
    Way("headgate", 4096, "fp32", False),
    Way("headgate", 4096, "fp32", True),
    Way("headgate", 0, "bf16", True),
    Way("headgate", 4096, "bf16", False),
    Way("headgate", 4096, "bf16", True),
)


def main(options: Options) -> int:
    config = replace(GPT2Config.preset(options.model), dropout=0.0, attn_dropout=0.0)
    rows = []
    for way in WAYS:
        with console.status(str(way)):
            device = Device.choose(options.device, way.precision)
            prepare = prepare_transformers if way.code == "transformers" else prepare_headgate
            rate = tokens_per_second(prepare(config, way, device), options.steps, BATCH_SIZE * config.n_ctx)
            rows.append(asdict(way) | {"tokens_per_second": round(rate)})
    runs.RUNS.mkdir(exist_ok=True)
    output.write_csv(runs.RUNS / "bench-pretraining.csv", pd.DataFrame(rows))
    table = Table("code", "softmax", "precision", "compiled", "tokens/s", box=None)
    for row in rows:
        softmax = f"{row['sampled']:,} drawn" if row["sampled"] else "full"
        table.add_row(row["code"], softmax, row["precision"], str(row["compiled"]), f"{row['tokens_per_second']:,}")
    console.print(f"{options.model} on {device.device}", table)
    return 0


def tokens_per_second(step: Callable[[], object], steps: int, tokens: int) -> float:
    """Time `step()`, a training step of `tokens` tokens. Returns tokens per second over all timed steps."""
    for _ in range(WARM_UP):
        step()  # reads its loss, so it waits for the device
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return steps * tokens / (time.perf_counter() - started)


def prepare_headgate(config: GPT2Config, way: Way, device: Device) -> Callable[[], object]:
    """Return a function that makes one training step of pretrain.py."""
    tokens = torch.randint(config.vocab_size, (64 * config.n_ctx,), dtype=torch.int32)
    compiled: Compile = "on" if way.compiled else "off"
    settings = Settings("", epochs=99, batch_size=BATCH_SIZE, sampled=way.sampled, compile=compiled)
    lm = GPT2LM(config).to(device.device)
    training = Pretraining(lm, Books(tokens, tokens, {}), settings, device)
    training.lm.train()
    return lambda: training.take_step().item()


def prepare_transformers(config: GPT2Config, way: Way, device: Device) -> Callable[[], object]:
    """Return a function that makes one training step of a model of transformers."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model: torch.nn.Module = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config_to_hf(config)))
    model.to(device.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=device.device.type in ("cpu", "cuda"))

    def loss_of(ids: torch.Tensor) -> torch.Tensor:
        return model(ids, labels=ids).loss

    forward = torch.compile(loss_of) if way.compiled else loss_of

    def step() -> float:
        ids = torch.randint(config.vocab_size, (BATCH_SIZE, config.n_ctx), device=device.device)
        with device.autocast():
            loss = forward(ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


if __name__ == "__main__":
    command(main, Options)
