"""Where a model runs, in which precision, and in how many processes."""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from statistics import median
from types import ModuleType
from typing import Literal, TypeVar

import torch
from torch import distributed

from model import InputError

resource: ModuleType | None
try:
    import resource
except ModuleNotFoundError:  # on Windows
    resource = None

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]
Compile = Literal["auto", "on", "off"]
T = TypeVar("T")
A_DAY = timedelta(days=1)
RESTARTS = "TORCHELASTIC_RESTART_COUNT"  # set by torchrun
TOKENS = 4096  # enough for the full speed of two cores; a training at the 124M shape takes some 5 GB with it


@dataclass(frozen=True)
class Device:
    """A torch device and a precision, fp32 or bf16; weights stay fp32, bf16 is autocast's.

    Under `torchrun` there is one in each of `world` processes; `rank` counts them from 0."""

    device: torch.device
    precision: str
    rank: int = 0
    world: int = 1

    @classmethod
    def choose(cls, device: DeviceName = "auto", precision: Precision = "auto") -> "Device":
        """Choose a device: for `auto`, CUDA before MPS before the CPU, and bf16 where CUDA has it.

        Under `torchrun`, join the process group. Raises InputError for a device that this machine does not have."""
        several = distributed.is_torchelastic_launched()
        mps = torch.backends.mps.is_available() and not several  # processes cannot exchange its tensors
        available = {"cuda": torch.cuda.is_available(), "mps": mps, "cpu": True}
        name = next(name for name in available if available[name]) if device == "auto" else device
        if not available[name]:
            others = ", ".join(filter(available.get, available))
            raise InputError(f"--device {name}: not on this machine; there is {others}")
        if precision == "auto":
            precision = "bf16" if name == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
        if not several:
            return cls(torch.device(name), precision)
        if name == "cuda":
            local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            if local >= gpus:
                raise InputError(f"--nproc-per-node: expected at most one process for each of {gpus} GPUs, got more")
            torch.cuda.set_device(local)
        if not distributed.is_initialized():
            join_processes("cpu:gloo,cuda:nccl" if name == "cuda" else "gloo")
        return cls(torch.device(name), precision, distributed.get_rank(), distributed.get_world_size())

    @property
    def tokens(self) -> int:
        """Return how many tokens, padding included, may be in flight at once."""
        return TOKENS * (16 if self.device.type == "cuda" else 1)

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes the files. Without `torchrun` it is the only process."""
        return self.rank == 0

    @property
    def restarted(self) -> bool:
        """Whether `torchrun --max-restarts` has started this process, after one of them had died."""
        return distributed.is_torchelastic_launched() and os.environ[RESTARTS] != "0"

    def as_single(self) -> "Device":
        """Return the same device for work that this process does without the others."""
        return replace(self, rank=0, world=1)

    def share(self, items: Iterable[T]) -> Iterator[T]:
        """Yield this rank's share of the items: every `world`-th."""
        return islice(items, self.rank, None, self.world)

    def gather_rounds(self, items: Iterable[T]) -> Iterator[T]:
        """Collective. Yield the items of all ranks, round-robin, on every rank."""
        if self.world == 1:
            yield from items
            return
        remaining = iter(items)
        while True:
            gathered: list[tuple[T, ...]] = [()] * self.world  # one item of each rank, or none
            distributed.all_gather_object(gathered, tuple(islice(remaining, 1)))
            if not any(gathered):
                return
            for item in gathered:
                yield from item

    def run_on_first(self, make: Callable[[], T]) -> T:
        """Collective. Run `make` on rank 0 and return its result on every rank; if it raises, all ranks exit."""
        try:
            results = [make()] if self.first else []
        except Exception:
            list(self.gather_rounds([]))  # the others are waiting
            raise
        for result in self.gather_rounds(results):
            return result
        sys.exit(2)  # the first process says why

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Sum each tensor over all processes, in place and in all of them."""
        if self.world > 1:
            for work in [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def compiles(self, choice: Compile) -> Compile:
        """Return how to use torch.compile, see `lab.compiled`: `auto` is off where there is no CUDA."""
        return "off" if choice == "auto" and self.device.type != "cuda" else choice

    def __str__(self) -> str:
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        else:
            cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
            name = f"{self.device.type} ({platform.processor() or platform.machine()}, {cores})"
        return f"{name}, {self.precision}" + (f", {self.world} processes" if self.world > 1 else "")

    def peak_memory(self) -> int | None:
        """Return the most bytes held so far: by the GPU on CUDA, else by this process; None where that is not known."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if resource is None:
            return None
        unit = 1 if sys.platform == "darwin" else 1024
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit

    def synchronize(self) -> None:
        """Wait until the device has finished: a GPU computes while the program goes on."""
        torch.get_device_module(self.device).synchronize()

    def product_rate(self) -> float:
        """Measure the multiply-adds per second of a matrix product of random numbers in this precision, median of 10.

        On a CPU it takes as many threads as torch does, and a fraction of a second."""
        n = 8192 if self.device.type == "cuda" else 1024
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        generator = torch.Generator(self.device)  # of its own: dropout draws from the usual one
        a, b = (torch.randn(n, n, device=self.device, dtype=dtype, generator=generator) for _ in range(2))
        seconds = []
        for _ in range(3 + 10):  # the first ones also pay for start-up
            self.synchronize()
            started = time.perf_counter()
            a @ b
            self.synchronize()
            seconds.append(time.perf_counter() - started)
        return n**3 / median(seconds[3:])


def join_processes(backends: str) -> None:
    """Join the process group of `torchrun`.

    Where it starts all processes again, its store still holds the addresses of those that were stopped, and a fast
    process would call one of them. So each start writes under names of its own."""
    store, rank, world = next(distributed.rendezvous("env://", timeout=A_DAY))  # the first process may measure for long
    store = distributed.PrefixStore(f"start {os.environ[RESTARTS]}", store)
    distributed.init_process_group(backends, store=store, rank=rank, world_size=world, timeout=A_DAY)
