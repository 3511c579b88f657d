"""Time and peak memory until the first logits of each published size, beside `transformers`: `python bench/loading.py`.

The weights are random, in the layout of the official files (no prefix, Conv1D, the old causal masks among them, fp32),
and written tensor by tensor to a temporary folder, which needs 7 GB for gpt2-xl. Each load has a process of its own.
Memory is what the load added at its peak (VmHWM of /proc/self/status, so Linux only), to be held against the weights.
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

sys.path.insert(0, str(Path(__file__).parent.parent))
from lab import output, runs
from lab.cli import command
from lab.progress import console
from model import GPT2LM, GPT2Config, load_lm
from model.checkpoint import TRANSPOSED
from model.names import WEIGHTS

SIZES = ("distilgpt2", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")


@dataclass(frozen=True)
class Options:
    """Load random weights of the published sizes, here and with transformers; results in runs/bench-loading.csv."""

    sizes: tuple[str, ...] = SIZES  # which of them
    load: Literal["", "headgate", "transformers"] = ""  # only this, from --folder: how the bench calls itself
    folder: str = ""  # a checkpoint, for --load


def main(options: Options) -> int:
    if options.load:
        print(json.dumps(measure(options.load, options.folder)))
        return 0
    rows = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder, console.status(f"{size}: writing, then loading"):
            bytes_ = write_official(GPT2Config.preset(size), Path(folder))
            for loader in 2 * ("headgate", "transformers"):  # the first round warms the disk's cache
                call = [sys.executable, __file__, "--load", loader, "--folder", folder]
                out = subprocess.run(call, check=True, capture_output=True, text=True).stdout
                rows.append(
                    {"size": size, "loader": loader, "weights_bytes": bytes_} | json.loads(out.splitlines()[-1])
                )
    table = pd.DataFrame(rows).groupby(["size", "loader"], sort=False, as_index=False).min()
    runs.RUNS.mkdir(exist_ok=True)
    output.write_csv(runs.RUNS / "bench-loading.csv", table)
    console.print(as_table(table))
    return 0


def write_official(config: GPT2Config, folder: Path) -> int:
    """Write random weights as the published files hold them -> bytes of the parameters alone."""
    with torch.device("meta"):
        parameters = GPT2LM(config).state_dict()
    shapes = {
        name.removeprefix("trunk."): tuple(p.shape)[::-1] if name.endswith(TRANSPOSED) else tuple(p.shape)
        for name, p in parameters.items()
    }
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
    (folder / "config.json").write_text(json.dumps(config.to_hf()))
    return sum(4 * p.numel() for p in parameters.values())


def measure(loader: str, folder: str) -> dict[str, float]:
    """Seconds of a load and a first forward pass in this process, and the bytes that they added at their peak."""
    import transformers  # in both cases, so that its import is not part of the difference

    load = load_lm if loader == "headgate" else transformers.GPT2LMHeadModel.from_pretrained
    before, started = peak(), time.perf_counter()
    with torch.inference_mode():
        load(folder)(torch.zeros(1, 1, dtype=torch.int64))  # transformers reads a weight when it is first used
    return {"seconds": round(time.perf_counter() - started, 2), "peak_bytes": peak() - before}


def peak() -> int:
    """The most memory that this process had so far, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def as_table(rows: pd.DataFrame) -> Table:
    table = Table("size", "weights, GB", "loader", "seconds", "peak, GB", "peak / weights", box=None)
    for size, weights, loader, seconds, peak_bytes in zip(
        rows["size"], rows["weights_bytes"], rows["loader"], rows["seconds"], rows["peak_bytes"], strict=True
    ):
        numbers = f"{seconds:.1f}", f"{peak_bytes / 1e9:.2f}", f"{peak_bytes / weights:.2f}"
        table.add_row(size, f"{weights / 1e9:.2f}", loader, *numbers)
    return table


if __name__ == "__main__":
    command(main, Options)
