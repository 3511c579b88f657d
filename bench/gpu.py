"""Check and measure headgate on one GPU, in at most 8 minutes: `bench/gpu.sh`.

It takes the steps of gpu_steps.py, each in a process of its own with a limit of time. A step that fails says why, and
the next one begins. The mini gets the time that the others leave."""

import importlib.metadata
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lab import output
from lab.cli import command
from lab.progress import console
from model import InputError
from model.files import read_json

from .gpu_steps import take_step

TOTAL = 465.0  # seconds, of which the last ones write the table
GRACE = 15.0  # seconds in which a step that is stopped may keep what it has
LIMITS = {
    "cuda-tests": 60.0,
    "training": 110.0,
    "trainer": 60.0,
    "trainer-compiled": 80.0,
    "sweep": 30.0,
    "hooks": 40.0,
    "bf16": 35.0,
    "out-of-memory": 30.0,
    "mini": TOTAL,
}
Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Options:
    """Check and measure headgate on one GPU. The folder gets gpu.json, gpu.md, log.txt and the mini in parts."""

    out: str = "runs/gpu"  # folder
    books: str = ""  # text file that the mini learns; empty: the embedded corpus, which is short
    steps: tuple[str, ...] = tuple(LIMITS)  # which to take
    rehearse: bool = False  # take them at toy size, on the CPU


def main(options: Options) -> int:
    check(options)
    out, end = Path(options.out), time.monotonic() + TOTAL
    out.mkdir(parents=True, exist_ok=True)
    (out / "log.txt").write_text("")
    results: dict[str, dict[str, Any]] = {}
    for name in options.steps:
        results[name] = run_step(name, options, min(LIMITS[name], end - time.monotonic() - GRACE))
        state = f"failed: {results[name]['failed']}" if "failed" in results[name] else "done"
        console.print(f"{name}: {state}, {results[name]['step_seconds']:.0f} s", soft_wrap=True, markup=False)
        machine = describe_machine(options.rehearse)
        output.write_json(out / "gpu.json", machine | {"steps": results})  # now: whoever is stopped leaves this much
        output.write_text(out / "gpu.md", make_table(machine, results))
    console.print((out / "gpu.md").read_text(), soft_wrap=True, markup=False)
    return int(any("failed" in result for result in results.values()))


def check(options: Options) -> None:
    """Raise InputError for what would fail in the middle."""
    if unknown := set(options.steps) - set(LIMITS):
        raise InputError(f"--steps {min(unknown)}: expected some of {', '.join(LIMITS)}")
    if options.books and not Path(options.books).is_file():
        raise InputError(f"--books {options.books}: expected a text file, found none")
    if not options.rehearse and not torch.cuda.is_available():
        raise InputError("expected a GPU with CUDA, found none; --rehearse takes the steps at toy size on the CPU")


def run_step(name: str, options: Options, limit: float) -> dict[str, Any]:
    """Run a step in a process of its own. Returns what it found, or why it `failed`, and the seconds that it took."""
    out, started = Path(options.out), time.monotonic()
    log, result = out / "log.txt", out / "step.json"
    result.unlink(missing_ok=True)  # of a call that was killed
    # CUDA does not outlive a fork; a rehearsal has none, and imports once.
    context: Any = multiprocessing.get_context("fork" if options.rehearse else "spawn")
    arguments = name, log, result, out, limit, options.books, options.rehearse
    process = context.Process(target=take_step, args=arguments)
    process.start()
    reason = wait(process, limit)
    seconds = {"step_seconds": time.monotonic() - started}
    if result.exists():  # also of one that was stopped and kept what it had
        found: dict[str, Any] = read_json(result)
        result.unlink()
        return found | seconds
    last = log.read_text(errors="replace").strip().rpartition("\n")[2]
    return {"failed": reason or f"exit code {process.exitcode}: {last}"} | seconds


def wait(process: Any, limit: float) -> str:
    """Wait until a process ends, at most `limit` seconds, then stop it and all that it has started. Returns why it was
    stopped, or nothing."""
    try:
        process.join(max(0.0, limit))
        if process.exitcode is not None:
            return ""
        stop(process, signal.SIGINT)
        process.join(GRACE)
        return f"stopped after {limit:.0f} s"
    finally:
        if process.exitcode is None:
            stop(process, signal.SIGKILL)
            process.join()


def stop(process: Any, number: signal.Signals) -> None:
    """Send a signal to a step and to all that it has started."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:  # it has only just begun, and leads no group yet
        os.kill(process.pid, number)


def describe_machine(rehearse: bool) -> dict[str, Any]:
    """Return where this runs."""
    gpu = "none, a rehearsal at toy size, whose times mean nothing" if rehearse else torch.cuda.get_device_name()
    return {"gpu": gpu, "torch": torch.__version__, "transformers": importlib.metadata.version("transformers")}


def make_table(machine: Mapping[str, Any], results: Results) -> str:
    """Return the table in Markdown. The goals are for an H100."""
    lines = [f"GPU: {machine['gpu']}; torch {machine['torch']}, transformers {machine['transformers']}.", ""]
    lines += ["| what | measured | peak memory | goal |", "|---|---|---|---|"]
    for name, result in results.items():
        peak = f"{result['peak_bytes'] / 2**30:.2f} GiB" if "peak_bytes" in result else ""
        measured = f"failed: {result['failed']}" if "failed" in result else DESCRIBED[name](result, results)
        lines.append(f"| {WHAT[name]} | {measured} | {peak} | {GOALS.get(name, '')} |")
    return "\n".join([*lines, ""])


def tell_seconds(result: Mapping[str, Any], results: Results) -> str:
    return f"{result['seconds']:.2f} s, after {result['warm_up_seconds']:.0f} s to warm up"


def tell_training(result: Mapping[str, Any], results: Results) -> str:
    return f"{tell_seconds(result, results)}; moves the embeddings of {result['tokens_in_use']:,} tokens alone"


def beside(name: str) -> Any:
    """Return a function that tells a peer's seconds, and how many times as fast headgate is at this step."""

    def tell(result: Mapping[str, Any], results: Results) -> str:
        ours = results.get(name, {})
        ratio = f": headgate is {result['seconds'] / ours['seconds']:.2f} x as fast" if "seconds" in ours else ""
        return f"{tell_seconds(result, results)}{ratio}"

    return tell


WHAT = {
    "cuda-tests": "tests that need CUDA",
    "training": "124M shape, three epochs of 16,000 texts, bf16, compiled",
    "trainer": "the same with the Trainer, its own batches (one epoch, times three)",
    "trainer-compiled": "the same, compiled",
    "sweep": "144 heads closed one by one on 2,000 texts, bf16",
    "hooks": "the same with hooks (12 heads, times 12)",
    "bf16": "ranks of the mini's heads, bf16 with fp32",
    "out-of-memory": "a sweep that runs out of memory",
    "mini": "a mini, pretrained in the time that was left",
}
GOALS = {"training": "15 s", "trainer": "3 x", "trainer-compiled": "3 x", "sweep": "6 s", "hooks": "6 x"}
DESCRIBED = {
    "cuda-tests": lambda result, results: result["summary"],
    "training": tell_training,
    "trainer": beside("training"),
    "trainer-compiled": beside("training"),
    "sweep": tell_seconds,
    "hooks": beside("sweep"),
    "bf16": lambda result, results: f"Spearman {result['spearman']:.4f}",
    "out-of-memory": lambda result, results: (
        f"{result['times']} times; its logits differ by {result['largest_difference']:.0e}"
    ),
    "mini": lambda result, results: f"held-out loss {result['held_out_loss']:.3f} after {result['tokens']:,} tokens",
}

if __name__ == "__main__":
    command(main, Options)
