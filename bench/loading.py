"""Time and peak memory until the first logits of each published size, beside `transformers`: `python -m bench.loading`.

The weights are random, in the layout of the official files (no prefix, Conv1D, fp32, with the old causal masks). They
are written tensor by tensor to a temporary folder, which needs 7 GB for gpt2-xl. Each load runs in its own process. Its
memory is the rise of the process's peak (VmHWM of /proc/self/status, so Linux only); compare it with the weights'.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from rich.table import Table

from lab import output, runs
from lab.cli import command
from lab.progress import console
from model import GPT2LM, GPT2Config, load_lm
from model.layouts import choose_layout, config_to_hf
from model.names import WEIGHTS

SIZES = ("distilgpt2", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")


@dataclass(frozen=True)
class Options:
    """Load random weights of the published sizes, here and with transformers; results in runs/bench-loading.csv."""

    sizes: tuple[str, ...] = SIZES  # which sizes
    load: Literal["", "headgate", "transformers"] = ""  # load --folder this way and end: the bench calls itself so
    folder: str = ""  # a checkpoint, for --load


def main(options: Options) -> int:
    if options.load:
        print(json.dumps(measure(options.load, options.folder)))
        return 0
    rows = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder, console.status(f"{size}: writing, then loading"):
            weights_bytes = write_official(GPT2Config.preset(size), Path(folder))
            for loader in 2 * ("headgate", "transformers"):  # the first round warms the disk's cache
                call = [sys.executable, "-m", "bench.loading", "--load", loader, "--folder", folder]
                out = subprocess.run(call, check=True, capture_output=True, text=True).stdout
                row = {"size": size, "loader": loader, "weights_bytes": weights_bytes}
                rows.append(row | json.loads(out.splitlines()[-1]))
    table = pd.DataFrame(rows).groupby(["size", "loader"], sort=False, as_index=False).min()
    runs.RUNS.mkdir(exist_ok=True)
    output.write_csv(runs.RUNS / "bench-loading.csv", table)
    console.print(make_table(table))
    return 0


def write_official(config: GPT2Config, folder: Path) -> int:
    """Write random weights as the published files hold them. Returns the bytes of the parameters alone."""
    with torch.device("meta"):
        parameters = GPT2LM(config).state_dict()
    places = choose_layout(config).places({name: value.shape for name, value in parameters.items()})
    shapes = {name.removeprefix("trunk."): place.shape for name, place in places.items()}
    masks = {f"h.{layer}.attn.bias": (1, 1, config.n_ctx, config.n_ctx) for layer in range(config.n_layer)}
    header, end = {}, 0
    for name, shape in (shapes | masks).items():
        start, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / WEIGHTS).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in (shapes | masks).values():
            (0.02 * torch.randn(shape)).numpy().tofile(file)
    (folder / "config.json").write_text(json.dumps(config_to_hf(config)))
    return sum(4 * p.numel() for p in parameters.values())


def measure(loader: str, folder: str) -> dict[str, float]:
    """Load a model and run it once, in this process. Returns the seconds, and by how many bytes the peak rose."""
    import transformers  # by both loaders, so that the difference does not include this import

    load = load_lm if loader == "headgate" else transformers.GPT2LMHeadModel.from_pretrained
    before, started = read_peak(), time.perf_counter()
    with torch.inference_mode():
        load(folder)(torch.zeros(1, 1, dtype=torch.int64))  # transformers reads a weight on its first use
    return {"seconds": round(time.perf_counter() - started, 2), "peak_bytes": read_peak() - before}


def read_peak() -> int:
    """Return the most memory that this process has had so far, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def make_table(rows: pd.DataFrame) -> Table:
    """Return the table for the terminal."""
    table = Table("size", "weights, GB", "loader", "seconds", "peak, GB", "peak / weights", box=None)
    for size, weights, loader, seconds, peak_bytes in zip(
        rows["size"], rows["weights_bytes"], rows["loader"], rows["seconds"], rows["peak_bytes"], strict=True
    ):
        numbers = f"{seconds:.1f}", f"{peak_bytes / 1e9:.2f}", f"{peak_bytes / weights:.2f}"
        table.add_row(size, f"{weights / 1e9:.2f}", loader, *numbers)
    return table


if __name__ == "__main__":
    command(main, Options)
