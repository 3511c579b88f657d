"""Fine-tuning, the sweep over all heads, patching and more, beside peers: `make bench`, `make bench-quick`.

The peers are `transformers` and, where it is installed, TransformerLens. Weights are random. All contestants get the
same texts, batches and precision. Each computes in its own process, and they take turns (`turns.py`): first a chunk to
warm up, then the timed chunks, whose median counts.

- Fine-tuning: batches of 32 texts from the whole training split. The Trainer gets headgate's batches, ready-made; what
  its users have, its own grouping by length and the collator that pads; and batches in random order. All make the same
  update: a few steps without dropout show that their losses agree.
- The head alone: ten epochs on texts of 20 random tokens. headgate runs the frozen blocks once; beside it stands no
  peer, but headgate with the blocks in each epoch (`frozen.py`).
- The sweep: headgate closes every head, because it shares work among them. The others take equally long for each head,
  so they close one per layer. All get texts near the median length, in batches of one length: nobody computes padding.
- Patching: a cell is the output of one head at one position. Pairs of texts of 20 random tokens differ in the one at
  position 5. headgate patches every cell of a pair. The others run one forward pass of the text for each cell, equally
  long for all, so they patch one head of each layer at every second position. headgate knows some results without
  computing them; these cells count as done: those before position 5, and those of the last layer but its last position.
- Prompts: 16 examples of 26 random tokens stand before texts of as many (`prompts.py`).
- Recording: what every head, MLP and residual stream emits at the last of 20 random tokens (`recording.py`).
- Model FLOP utilisation (MFU): the plain algorithm's multiply-adds per second, divided by the fastest matrix product
  measured in between. The plain algorithm multiplies each real token with each weight of the blocks' matrices, three
  times in training, once in each epoch of the head alone; the attention's own products, a few percent at most, do not
  count. Work that headgate spares with the head alone, in the sweep, in patching and with prompts counts as done, so
  their MFU can exceed 1. What is left to compute, and what elementwise functions move, is in `arithmetic.py`.
"""

import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tyro.conf import OmitArgPrefixes

from data import ReadOptions, read_corpus
from data.reading import USUAL
from lab import output, runs
from lab.cli import command
from lab.device import Device, DeviceName
from lab.progress import console
from lab.texts import Texts, read_texts
from model import GPT2Classifier, GPT2Config, InputError, Tokenizer, load_classifier, save

from .arithmetic import (
    Count,
    count_patching,
    count_peer_patching,
    count_peer_sweep,
    count_peer_training,
    count_sweep,
    count_training,
)
from .contestants import (
    Job,
    list_cells,
    list_heads,
    patch_headgate,
    patch_hooks,
    patch_lens,
    pick_one_per_layer,
    pick_some_cells,
    sweep_headgate,
    sweep_hooks,
    sweep_lens,
    train_headgate,
    train_hf,
    train_hf_padding,
)
from .frozen import time_head_alone
from .latency import measure_latency
from .precision import correlate_bf16
from .prompts import time_prompts
from .recording import time_recording
from .scaling import draw_scaling, measure_scaling
from .slices import (
    BATCH,
    TOKENS,
    Amount,
    draw_texts,
    group_by_length,
    group_by_trainer,
    group_without_padding,
    shuffle,
)
from .table import compare, make_table
from .turns import Contestant, take_turns

LENS = "transformer_lens"


@dataclass(frozen=True)
class Options:
    """Measure speed beside peers; results in runs/bench: speed.csv, latency.csv, scaling.csv, scaling.png."""

    model: tuple[str, ...] = ()  # published shapes; empty: gpt2-mini, and without --quick gpt2
    corpus: str = "sample"  # source of the texts: sample, emotion, a file or a folder
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU; bf16 on CUDA, else fp32
    quick: bool = False  # fewer and shorter chunks, for a first impression
    truncate: bool = False  # keep the end of texts that are too long for the model, instead of refusing them
    read: OmitArgPrefixes[ReadOptions] = USUAL


def main(options: Options) -> int:
    device = Device.choose(options.device, "auto")
    corpus, tokenizer = read_corpus(options.corpus, options.read), Tokenizer.load("gpt2-mini")
    shapes = options.model or (("gpt2-mini",) if options.quick else ("gpt2-mini", "gpt2"))
    if others := [name for name in shapes if not GPT2Config.preset(name).qkv_bias]:
        raise InputError(f"--model {others[0]}: expected the shape of a GPT-2, for the peers' hooks are made for it")
    rows: list[dict[str, Any]] = []
    latency = []
    with tempfile.TemporaryDirectory() as folder:
        for name in shapes:
            config, path = GPT2Config.preset(name), f"{folder}/{name}"
            texts = read_texts(corpus, tokenizer, config, options.truncate)
            torch.manual_seed(0)
            save(GPT2Classifier(config, corpus.labels), path, tokenizer)
            amount = Amount.choose(config, device, options.quick)
            rows += [{"shape": name} | row for row in time_tasks(name, config, path, texts, amount, device)]
            with console.status(f"{name}: switches in the live page"):
                latency.append(measure_latency(name, replace(device, precision="fp32"), 50 if options.quick else 200))
        save(load_classifier("gpt2-mini", corpus.labels), f"{folder}/pretrained", tokenizer)
        with console.status("bf16 beside fp32"):
            agreement = correlate_bf16(f"{folder}/pretrained", texts["test"], 16 if options.quick else 64, device)
        with console.status("how time grows"):
            scaling = measure_scaling(Path(folder), device, options.quick)
    speed = pd.DataFrame(rows).assign(device=str(device), bf16_spearman=agreement)
    report(speed, pd.DataFrame(latency), scaling)
    return 0


def report(speed: pd.DataFrame, latency: pd.DataFrame, scaling: pd.DataFrame) -> None:
    """Write the tables and the picture, and print the table of speeds."""
    out, device = runs.RUNS / "bench", speed["device"].iloc[0]
    out.mkdir(parents=True, exist_ok=True)
    output.write_csv(out / "speed.csv", speed)
    output.write_csv(out / "latency.csv", latency)
    output.write_csv(out / "scaling.csv", scaling)
    draw_scaling(scaling, out / "scaling.png", f"width of gpt2-mini, {device}")
    console.print(device, make_table(speed))
    for row in latency.to_dict("records"):
        times = f"{row['median_ms']:.0f} ms in the median, {row['p95_ms']:.0f} ms at the 95th percentile"
        console.print(f"A switch in the live page, {row['shape']} in fp32, {row['tokens']} tokens: {times}")
    agreement = speed["bf16_spearman"].iloc[0]
    console.print(f"Rank correlation of all heads' effects, bf16 with fp32, pretrained gpt2-mini: {agreement:.4f}")
    if not importlib.util.find_spec(LENS):
        console.print("TransformerLens is not installed; `.venv/bin/pip install transformer-lens` adds its rows")
    console.print(f"The tables, and a picture of how time grows, are in {out}")


def time_tasks(
    name: str, config: GPT2Config, folder: str, texts: Mapping[str, Texts], amount: Amount, device: Device
) -> list[dict[str, Any]]:
    """Return the rows of all tasks at one shape."""
    given = config, folder, amount, device
    tasks = {
        "fine-tuning": lambda: time_fine_tuning(config, folder, texts["train"], amount, device),
        "head alone": lambda: time_head_alone(*given),
        "head sweep": lambda: time_head_sweep(config, folder, texts["test"], amount, device),
        "patching": lambda: time_patching(*given),
        "prompts": lambda: time_prompts(*given),
        "recording": lambda: time_recording(*given),
    }
    rows = []
    for task, measure in tasks.items():
        with console.status(f"{name}: {task}"):
            rows += measure()
    return rows


def time_fine_tuning(
    config: GPT2Config, folder: str, texts: Texts, amount: Amount, device: Device
) -> list[dict[str, Any]]:
    """Return a row for each way to fine-tune."""
    lengths = texts.lengths
    chunks = group_by_length(lengths, amount)
    job = Job(folder, device, texts, chunks)
    jobs = {
        "headgate": job,
        "Trainer, headgate's batches": job,
        "Trainer, its own batches": replace(job, chunks=group_by_trainer(lengths, amount)),
        "Trainer, random order": replace(job, chunks=shuffle(lengths, amount)),
    }
    contestants: list[Contestant] = [train_headgate, train_hf, train_hf_padding, train_hf]
    if device.device.type == "cuda":
        jobs["Trainer, compiled"] = job
        contestants.append(partial(train_hf, compiled=True))
    counts: list[Count] = [count_training, *[count_peer_training] * (len(jobs) - 1)]
    check = replace(job, dropout=0.0, chunks=[[*chunks[1], *chunks[-1]][:3]])
    timed, checked = take_turns(contestants, [list(jobs.values()), [check] * len(jobs)])
    return compare("fine-tuning", config, jobs, counts, timed, [outcome.output for outcome in checked])


def time_head_sweep(
    config: GPT2Config, folder: str, texts: Texts, amount: Amount, device: Device
) -> list[dict[str, Any]]:
    """Return a row for each way to close heads."""
    chunks = group_without_padding(texts.lengths, amount, 256 if device.device.type == "cuda" else BATCH)
    job = Job(folder, device, texts, chunks, list_heads(config))
    some = replace(job, heads=pick_one_per_layer(config))
    counts = [count_sweep, count_peer_sweep, count_peer_sweep]
    return time_sampled("head sweep", config, job, some, [sweep_headgate, sweep_hooks, sweep_lens], counts)


def time_patching(config: GPT2Config, folder: str, amount: Amount, device: Device) -> list[dict[str, Any]]:
    """Return a row for each way to patch cells, one pair after the other, in fp32 as patch.py."""
    texts = draw_texts(amount.rounds * amount.pairs, TOKENS)
    chunks = group_without_padding(texts.lengths, replace(amount, texts=amount.pairs), 1)
    job = Job(folder, replace(device, precision="fp32"), texts, chunks, cells=list_cells(config))
    some = replace(job, cells=pick_some_cells(config))
    counts = [count_patching, count_peer_patching, count_peer_patching]
    return time_sampled("patching", config, job, some, [patch_headgate, patch_hooks, patch_lens], counts)


def time_sampled(
    task: str, config: GPT2Config, job: Job, some: Job, contestants: Sequence[Contestant], counts: Sequence[Count]
) -> list[dict[str, Any]]:
    """Return a row for headgate, which does the job, and for each other contestant, which does `some` of its units."""
    jobs = {"headgate": job, "transformers, hooks": some}
    if importlib.util.find_spec(LENS):
        jobs["TransformerLens"] = some
    (timed,) = take_turns(contestants[: len(jobs)], [list(jobs.values())])
    same = [job.units.index(unit) for unit in some.units]
    outputs = [timed[0].output[:, same], *(outcome.output for outcome in timed[1:])]
    return compare(task, config, jobs, counts[: len(jobs)], timed, outputs)


if __name__ == "__main__":
    command(main, Options)
