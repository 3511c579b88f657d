"""The steps of `bench.gpu`, each in a process of its own.

Texts are drawn from the embedded corpus; weights are random but for the mini's."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from data import SPLITS, read_corpus
from data.batches import bucket
from data.books import read_books
from data.corpus import SAMPLE
from data.token_ids import pack
from experiments.pretrain.training import Options as Settings
from experiments.pretrain.training import Pretraining
from lab import output
from lab.device import Device
from lab.texts import Texts, read_texts
from model import GPT2LM, GPT2Classifier, GPT2Config, InputError, Tokenizer, load_classifier, save
from model.checkpoint import read_config
from model.names import WEIGHTS

from .contestants import (
    Job,
    list_heads,
    pick_one_per_layer,
    sweep_headgate,
    sweep_hooks,
    train_headgate,
    train_hf_padding,
)
from .precision import correlate_bf16
from .slices import BATCH, Amount, Positions, group_by_trainer, group_without_padding
from .turns import Contestant, peak_memory

ROOT = Path(__file__).parent.parent
PART = 15_000_000  # bytes of a part of the weights
SUMS = "SHA256SUMS"
EPOCHS = 3
EVERY = 25  # of the batches warm up: from short ones to long ones
SPARE = 0.6  # of the mini's time is for steps; the rest compiles, evaluates and measures


@dataclass(frozen=True)
class Task:
    """How large a step is, and where it works."""

    folder: Path  # for its own files, until it ends
    out: Path  # for the mini's weights
    seconds: float  # that are left
    books: str  # text that the mini learns; empty: the embedded corpus
    rehearsed: bool  # at toy size, on the CPU

    @property
    def device(self) -> Device:
        return Device.choose("cpu" if self.rehearsed else "auto", "auto")

    @property
    def shape(self) -> GPT2Config:
        return GPT2Config(2, 2, 8) if self.rehearsed else GPT2Config.preset("gpt2")

    def draw_texts(self, n: int) -> Texts:
        """Draw n texts of the embedded corpus, some of them several times."""
        texts = read_texts(read_corpus("sample"), Tokenizer.load("gpt2-mini"), self.shape, truncate=False)["train"]
        return texts.select(np.random.default_rng(0).integers(len(texts), size=n))

    def make_job(self, texts: Texts, chunks: Sequence[Sequence[Positions]], **options: Any) -> Job:
        """Return a job on a checkpoint with random weights."""
        torch.manual_seed(0)
        save(GPT2Classifier(self.shape, read_corpus("sample").labels), self.folder, Tokenizer.load("gpt2-mini"))
        return Job(str(self.folder), self.device, texts, chunks, **options)


def take_step(name: str, log: Path, result: Path, out: Path, seconds: float, books: str, rehearsed: bool) -> None:
    """Take one step, in a process of its own. What it prints goes to the log, and what it finds to a JSON file."""
    os.setsid()  # so that whoever stops it also stops what it has started
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what runs in the background
    with log.open("a") as file, TemporaryDirectory() as folder:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
        print(f"\n## {name}", flush=True)
        output.write_json(result, STEPS[name](Task(Path(folder), out.resolve(), seconds, books, rehearsed)))


def run_cuda_tests(task: Task) -> dict[str, Any]:
    """Run the tests that need CUDA."""
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "DEVICES" in path.read_text()]
    call = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "cuda", *files]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout, done.stderr, flush=True)
    if done.returncode:
        raise InputError(f"pytest ended with {done.returncode}: {done.stdout.strip().splitlines()[-1]}")
    return {"summary": done.stdout.strip().splitlines()[-1]}


def train(task: Task) -> dict[str, Any]:
    """Fine-tune headgate for three epochs. Of the embeddings, only those of the tokens in use learn."""
    texts = task.draw_texts(2 * BATCH if task.rehearsed else 16_000)
    lengths = texts.lengths.tolist()
    epochs = [bucket(lengths, BATCH, 0, epoch) for epoch in range(EPOCHS)]
    timed = time_chunks(train_headgate, task.make_job(texts, [sample(epochs[0], lengths), *epochs]))
    return timed | {"tokens_in_use": len(np.unique(pack(texts.sequences).ids))}


def train_peer(task: Task, compiled: bool) -> dict[str, Any]:
    """Fine-tune with the Trainer for one epoch of its own batches, of which three take three times as long."""
    texts = task.draw_texts(2 * BATCH if task.rehearsed else 16_000)
    lengths = texts.lengths
    (_, epoch) = group_by_trainer(lengths, Amount(1, len(texts) // BATCH, 0, 0))
    job = task.make_job(texts, [sample(epoch, lengths.tolist()), epoch])
    compiled = compiled and not task.rehearsed  # which takes minutes on a CPU
    timed = time_chunks(partial(train_hf_padding, compiled=compiled), job)
    return timed | {"seconds": EPOCHS * timed["seconds"]}


def sample(batches: Sequence[Positions], lengths: list[int]) -> list[Positions]:
    """Return every 25th batch, from the shortest to the longest."""
    return sorted(batches, key=lambda positions: max(lengths[i] for i in positions))[::EVERY]


def sweep(task: Task, contestant: Contestant) -> dict[str, Any]:
    """Close every head; the hooks close one of each layer, and all of them take as many times as long."""
    texts = task.draw_texts(12 if task.rehearsed else 2_000)
    chunks = group_without_padding(texts.lengths, Amount(1, 0, len(texts), 0), 256)
    heads, some = list_heads(task.shape), pick_one_per_layer(task.shape)
    closed = heads if contestant is sweep_headgate else some
    timed = time_chunks(contestant, task.make_job(texts, chunks, heads=closed))
    return timed | {"seconds": timed["seconds"] * len(heads) / len(closed)}


def time_chunks(contestant: Contestant, job: Job) -> dict[str, Any]:
    """Return the seconds of all chunks but the first, which warms up, and the peak of memory."""
    ends: list[float] = []

    def end_turn() -> None:
        job.device.synchronize()
        ends.append(time.perf_counter())

    contestant(job, end_turn)
    warm_up, *seconds = np.diff(ends).tolist()
    return {"seconds": sum(seconds), "warm_up_seconds": warm_up, "peak_bytes": peak_memory(job.device)}


def rank_heads(task: Task) -> dict[str, Any]:
    """Correlate the effects of all heads of the pretrained mini in bf16 with those in fp32."""
    corpus, tokenizer = read_corpus("sample"), Tokenizer.load("gpt2-mini")
    save(load_classifier("gpt2-mini", corpus.labels), task.folder, tokenizer)
    return {
        "spearman": correlate_bf16(str(task.folder), task.draw_texts(500), 2 if task.rehearsed else 64, task.device)
    }


def run_out_of_memory(task: Task) -> dict[str, Any]:
    """Sweep with all memory and with too little: the logits must be the same. In fp32, whose rounding is small."""
    texts = task.draw_texts(2 if task.rehearsed else 64)
    job = task.make_job(texts, [[np.arange(len(texts))]], heads=list_heads(task.shape))
    job = replace(job, device=replace(job.device, precision="fp32"))
    logits = sweep_headgate(job, lambda: None)
    weights = (task.folder / WEIGHTS).stat().st_size
    limit = weights + (peak_memory(job.device) - weights) // 4
    tokens = len(texts) * int(texts.lengths.max())
    with limit_memory(job.device, limit, 3 * tokens // 2) as count:
        again = sweep_headgate(job, lambda: None)
        times = count()
    difference = float(np.abs(again - logits).max() / np.abs(logits).max())
    if not times or difference > 1e-3:
        raise InputError(f"expected memory to run out and the same logits, got {times} times and {difference:.0e}")
    return {"times": times, "largest_difference": difference, "limit_bytes": limit}


@contextmanager
def limit_memory(device: Device, limit: int, tokens: int) -> Iterator[Callable[[], int]]:
    """Let this process have `limit` bytes of the GPU; elsewhere, pretend that more than so many tokens do not fit.

    Yields a function that tells how often memory ran out."""
    if device.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
        yield lambda: torch.cuda.memory_stats()["num_ooms"]
        return
    times = []

    def refuse(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, torch.nn.LayerNorm) and inputs[0].shape[:-1].numel() > tokens:
            times.append(1)
            raise torch.OutOfMemoryError("pretended")

    with torch.nn.modules.module.register_module_forward_pre_hook(refuse):
        yield lambda: len(times)


def pretrain_mini(task: Task) -> dict[str, Any]:
    """Pretrain a mini for the seconds that are left, and split its weights. What Ctrl-C ends keeps its best weights."""
    books = Path(task.books).resolve() if task.books else write_book(task.folder)
    model, device, epochs = "gpt2-mini", "auto", 0.01
    if task.rehearsed:
        model, device = "tiny", "cpu"
        save(GPT2LM(replace(task.shape, n_ctx=64)), task.folder / model, Tokenizer.load("gpt2-mini"))
    else:
        epochs = choose_epochs(Settings(str(books), model, epochs=1.0, sampled=0), task)
    options = {"corpus": books, "model": model, "run": "mini", "epochs": epochs, "device": device}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    try:  # in the folder, where its run lands
        subprocess.run([sys.executable, str(ROOT / "pretrain.py"), *words], cwd=task.folder, check=True)
    except KeyboardInterrupt:
        print("stopped: its time is over", flush=True)
    run = task.folder / "runs/mini"
    rows = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    log = [row for row in rows if row["split"] == "held-out"]
    split_file(run / WEIGHTS, task.out)
    (task.out / "config.json").write_bytes((run / "config.json").read_bytes())
    return {"epochs": epochs, "tokens": log[-1]["tokens"], "held_out_loss": min(row["loss"] for row in log), "log": log}


def write_book(folder: Path) -> Path:
    """Write the texts of the embedded corpus into one book."""
    lines = [line for split in SPLITS for line in (SAMPLE / f"{split}.txt").read_text().splitlines()]
    (folder / "book.txt").write_text("\n".join(line.rpartition(";")[0] for line in lines))
    return folder / "book.txt"


def choose_epochs(settings: Settings, task: Task) -> float:
    """Return how many epochs the seconds that are left allow, by the time of some steps."""
    resolved = settings.resolved(on_gpu=True, vocab_size=task.shape.vocab_size)
    books = read_books(settings.corpus, Tokenizer.load(settings.model))
    training = Pretraining(
        GPT2LM(read_config(settings.model, 0.1)).to(task.device.device), books, resolved, task.device
    )
    started = time.monotonic()
    for _ in range(10):  # to warm up
        training.take_step()
    task.device.synchronize()
    warm = time.monotonic()
    for _ in range(20):
        training.take_step()
    task.device.synchronize()
    seconds = (time.monotonic() - warm) / 20
    left, steps = task.seconds - 2 * (warm - started), training.steps  # it compiles again
    del training
    gc.collect()
    torch.cuda.empty_cache()  # for pretrain.py, which is a process of its own
    return max(1, SPARE * left / seconds) / steps


def split_file(path: Path, out: Path, size: int = PART) -> None:
    """Write the parts of a file to a folder, and the SHA-256 of each and of the whole, for bench/collect.sh.

    Parts that an earlier call left there, and what was joined of them, are removed."""
    for old in [out / path.name, *out.glob(f"{path.name}.[0-9]*")]:
        old.unlink(missing_ok=True)
    content = path.read_bytes()
    parts = {
        f"{path.name}.{i:02}": content[start : start + size] for i, start in enumerate(range(0, len(content), size))
    }
    for name, part in parts.items():
        (out / name).write_bytes(part)
    sums = [f"{sha256(part).hexdigest()}  {name}\n" for name, part in (parts | {path.name: content}).items()]
    (out / SUMS).write_text("".join(sums))


STEPS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "cuda-tests": run_cuda_tests,
    "training": train,
    "trainer": partial(train_peer, compiled=False),
    "trainer-compiled": partial(train_peer, compiled=True),
    "sweep": partial(sweep, contestant=sweep_headgate),
    "hooks": partial(sweep, contestant=sweep_hooks),
    "bf16": rank_heads,
    "out-of-memory": run_out_of_memory,
    "mini": pretrain_mini,
}
