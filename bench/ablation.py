"""Closing every head of a classifier, in text-ablations per second, beside `transformers`: `make bench`.

Both close the same heads, to zero, on the same texts with the same weights, one after the other in this process, and
their logits are compared. transformers gets a forward pre-hook on `c_proj`, once per head, and batches of texts of
equal length, so that it computes no padding; few texts are those of middling length, which fill such batches.
headgate's sweep shares what the ablations have in common.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))
from data import encode, read_corpus
from lab import runs
from lab.cli import command
from lab.device import Device, DeviceName
from lab.progress import console
from lab.sweep import nothing, sweep
from lab.units import each_head
from model import GPT2Classifier, GPT2Config, Tokenizer, save

BATCH = 64  # texts of equal length at once, for transformers
Logits = NDArray[np.floating]  # (N, L * H, K)


@dataclass(frozen=True)
class Options:
    """Close every head on some texts with both codes; results in runs/bench-ablation.csv."""

    model: tuple[str, ...] = ("gpt2-mini", "gpt2")  # published shapes, with random weights
    corpus: str = "sample"  # whose test texts are read
    texts: tuple[int, ...] = (324, 24)  # how many of them, for each shape
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU; fp32 on each


def main(options: Options) -> int:
    device = Device.choose(options.device, "fp32")
    corpus, tokenizer = read_corpus(options.corpus), Tokenizer.load("gpt2-mini")
    rows = []
    for name, n in zip(options.model, options.texts, strict=True):
        sequences = middling(encode(tokenizer, corpus.split("test"), GPT2Config.preset(name).n_ctx)[0], n)
        torch.manual_seed(0)
        clf = GPT2Classifier(GPT2Config.preset(name), corpus.labels).to(device.device).eval()
        rates, logits = {}, {}
        for code, close in (("transformers", peer(clf, device)), ("headgate", ours(clf, device))):
            with console.status(f"{code}, {name}"):
                close(sequences[:8])  # to warm up
                started = time.perf_counter()
                logits[code] = close(sequences)
                rates[code] = logits[code][..., 0].size / (time.perf_counter() - started)
        off = np.abs(logits["headgate"] - logits["transformers"]).max() / np.abs(logits["transformers"]).max()
        rows.append(
            {"model": name, "texts": n, **rates, "ratio": rates["headgate"] / rates["transformers"], "off": off}
        )
    runs.RUNS.mkdir(exist_ok=True)
    runs.write_csv(runs.RUNS / "bench-ablation.csv", pd.DataFrame(rows))
    table = Table("shape", "texts", "transformers", "headgate", "ratio", "largest difference", box=None)
    for row in rows:
        speeds = f"{row['transformers']:,.0f}", f"{row['headgate']:,.0f}", f"{row['ratio']:.1f}"
        table.add_row(row["model"], str(row["texts"]), *speeds, f"{row['off']:.0e}")
    console.print(f"text-ablations per second on {device}, peak memory {device.peak_memory() / 2**30:.1f} GiB", table)
    return 0


def middling(sequences: list[list[int]], n: int) -> list[list[int]]:
    """The n whose length is nearest to the median, so that even a few fill batches of equal length."""
    lengths = np.array([len(ids) for ids in sequences])
    return [sequences[i] for i in np.argsort(np.abs(lengths - np.median(lengths)), kind="stable")[:n]]


def ours(clf: GPT2Classifier, device: Device) -> Callable[[Sequence[list[int]]], Logits]:
    """Every head closed by the sweep."""

    def close(sequences: Sequence[list[int]]) -> Logits:
        everything = np.arange(len(sequences))
        swept = sweep(clf, sequences, everything, each_head(clf.config), [nothing], device, everything)
        index, logits = zip(*swept, strict=True)
        return np.concatenate(logits)[np.argsort(np.concatenate(index)), :, 0]

    return close


def peer(clf: GPT2Classifier, device: Device) -> Callable[[Sequence[list[int]]], Logits]:
    """Every head closed by a hook on what enters `c_proj`."""
    from transformers import GPT2ForSequenceClassification

    with tempfile.TemporaryDirectory() as folder:
        save(clf, folder)
        hf: Any = GPT2ForSequenceClassification.from_pretrained(folder)
    hf.to(device.device).eval()
    L, H, D = clf.config.n_layer, clf.config.n_head, clf.config.head_width

    def close(sequences: Sequence[list[int]]) -> Logits:
        logits = np.empty((len(sequences), L * H, len(clf.labels)), np.float32)
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        batches = [
            own[start : start + BATCH]
            for own in (list(same) for _, same in groupby(order, key=lambda i: len(sequences[i])))
            for start in range(0, len(own), BATCH)
        ]
        for number, (layer, head) in enumerate(product(range(L), range(H))):
            columns = slice(head * D, (head + 1) * D)

            def zero(module: torch.nn.Module, inputs: tuple[torch.Tensor], columns: slice = columns) -> Any:
                z = inputs[0].clone()
                z[..., columns] = 0
                return (z,)

            handle = hf.transformer.h[layer].attn.c_proj.register_forward_pre_hook(zero)
            with torch.inference_mode():
                for own in batches:
                    ids = torch.tensor([sequences[i] for i in own], device=device.device)
                    logits[own, number] = hf(ids, use_cache=False).logits.cpu().numpy()
            handle.remove()
        return logits

    return close


if __name__ == "__main__":
    command(main, Options)
