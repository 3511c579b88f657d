"""Fine-tuning and the sweep over all heads beside `transformers` and TransformerLens: `make bench`, `make bench-quick`.

Weights are random; texts, batches and precision are the same for all. Everyone computes in a process of its own, turn
by turn (`turns.py`), first a chunk to warm up, then those that are timed; their median counts.

- Fine-tuning: batches of 32 texts from all over the training texts. The update is the same for all; that it is so is
  shown by the losses of steps without dropout.
- The sweep: headgate closes every head, for it shares work among them. The others need equally long for each and close
  one per layer; they get texts of middling length, in batches of equal length, so that they compute no padding.
- Model FLOP utilisation: the multiply-adds of the plain algorithm, by the fastest matrix product measured in between.
  The plain algorithm multiplies each real token with each weight of the blocks' matrices, in training three times; the
  attention's own products, a few percent at most, are left out. What headgate's sweep spares counts as if it were done,
  so there it may exceed 1.
"""

import importlib.util
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parent.parent))
from contestants import (
    Job,
    every_head,
    headgate_sweep,
    headgate_training,
    hook_sweep,
    lens_sweep,
    one_per_layer,
    trainer,
)
from scaling import measure_scaling, picture
from slices import BATCH, Amount, Split, grouped, middling, shuffled, unpadded
from table import as_table, compared
from turns import Contestant, take_turns

from data import encode, read_corpus
from lab import output, runs
from lab.cli import command
from lab.device import Device, DeviceName
from lab.progress import console
from model import GPT2Classifier, GPT2Config, Tokenizer, load_classifier, save

LENS = "transformer_lens"


@dataclass(frozen=True)
class Options:
    """Measure speed beside peers; results in runs/bench: speed.csv, scaling.csv, scaling.png."""

    model: tuple[str, ...] = ()  # published shapes; empty: gpt2-mini, and without --quick gpt2
    corpus: str = "sample"  # whose texts are read: sample, emotion, a file or a folder
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU; bf16 on CUDA, else fp32
    quick: bool = False  # fewer and shorter chunks, for a first impression


def main(options: Options) -> int:
    device = Device.choose(options.device, "auto")
    corpus, tokenizer = read_corpus(options.corpus), Tokenizer.load("gpt2-mini")
    shapes = options.model or (("gpt2-mini",) if options.quick else ("gpt2-mini", "gpt2"))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in shapes:
            config, path = GPT2Config.preset(name), f"{folder}/{name}"
            train, test = (
                Split(encode(tokenizer, corpus.split(split), config.n_ctx)[0], corpus.targets(split))
                for split in ("train", "test")
            )
            torch.manual_seed(0)
            save(GPT2Classifier(config, corpus.labels), path, tokenizer)
            amount = Amount.choose(config, device, options.quick)
            for task, split in ((fine_tuning, train), (head_sweep, test)):
                with console.status(f"{name}: {task.__name__.replace('_', ' ')}"):
                    rows += [{"shape": name} | row for row in task(config, path, split, amount, device)]
        save(load_classifier("gpt2-mini", corpus.labels), f"{folder}/pretrained", tokenizer)
        with console.status("bf16 beside fp32"):
            agreement = bf16_agreement(f"{folder}/pretrained", test, 16 if options.quick else 64, device)
        with console.status("how time grows"):
            scaling = measure_scaling(Path(folder), device, options.quick)
    tell(pd.DataFrame(rows).assign(device=str(device), bf16_spearman=agreement), scaling)
    return 0


def tell(speed: pd.DataFrame, scaling: pd.DataFrame) -> None:
    """Write the tables and the picture, and show the first table."""
    out, device = runs.RUNS / "bench", speed["device"].iloc[0]
    out.mkdir(parents=True, exist_ok=True)
    output.write_csv(out / "speed.csv", speed)
    output.write_csv(out / "scaling.csv", scaling)
    picture(scaling, out / "scaling.png", f"width of gpt2-mini, {device}")
    console.print(device, as_table(speed))
    agreement = speed["bf16_spearman"].iloc[0]
    console.print(f"Rank correlation of all heads' effects, bf16 with fp32, pretrained gpt2-mini: {agreement:.4f}")
    if not importlib.util.find_spec(LENS):
        console.print("TransformerLens is not here; `.venv/bin/pip install transformer-lens` adds its row")
    console.print(f"The tables, and a picture of how time grows, are in {out}")


def fine_tuning(config: GPT2Config, folder: str, split: Split, amount: Amount, device: Device) -> list[dict[str, Any]]:
    """A row for each way to fine-tune."""
    chunks = grouped(split.lengths, amount)
    job = Job(folder, device, split, chunks)
    jobs = {
        "headgate": job,
        "Trainer": job,
        "Trainer, random order": replace(job, chunks=shuffled(split.lengths, amount)),
    }
    contestants: list[Contestant] = [headgate_training, trainer, trainer]
    if device.device.type == "cuda":
        jobs["Trainer, compiled"] = job
        contestants.append(partial(trainer, compiled=True))
    check = replace(job, dropout=0.0, chunks=[[*chunks[1], *chunks[-1]][:3]])
    timed, checked = take_turns(contestants, [list(jobs.values()), [check] * len(jobs)])
    return compared("fine-tuning", config, jobs, timed, [outcome.output for outcome in checked])


def head_sweep(config: GPT2Config, folder: str, split: Split, amount: Amount, device: Device) -> list[dict[str, Any]]:
    """A row for each way to close heads."""
    chunks = unpadded(split.lengths, amount, 256 if device.device.type == "cuda" else BATCH)
    job = Job(folder, device, split, chunks, every_head(config))
    some = replace(job, heads=one_per_layer(config))
    jobs = {"headgate": job, "transformers, hooks": some}
    contestants: list[Contestant] = [headgate_sweep, hook_sweep]
    if importlib.util.find_spec(LENS):
        jobs["TransformerLens"] = some
        contestants.append(lens_sweep)
    (timed,) = take_turns(contestants, [list(jobs.values())])
    same = [job.heads.index(head) for head in some.heads]
    logits = [timed[0].output[:, same], *(outcome.output for outcome in timed[1:])]
    return compared("head sweep", config, jobs, timed, logits)


def bf16_agreement(folder: str, split: Split, n: int, device: Device) -> float:
    """Close every head in fp32 and in bf16 -> Spearman's correlation of their effects on a class's logit, averaged
    over n texts: the lowest of all classes'."""
    heads = every_head(load_classifier(folder).config)
    fp32 = Job(folder, replace(device, precision="fp32"), split, [[middling(split.lengths, n)]], heads)
    bf16 = replace(fp32, device=replace(device, precision="bf16"))
    outcomes = take_turns([headgate_sweep], [[fp32], [bf16]])
    means = [outcome.output.mean(axis=0).T for (outcome,) in outcomes]  # (K, U); the baseline would change no rank
    return min(spearmanr(*effects).statistic for effects in zip(*means, strict=True))


if __name__ == "__main__":
    command(main, Options)
