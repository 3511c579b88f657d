"""Contestants take turns: each computes in a process of its own while the others wait."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lab.device import Device

from .contestants import EndTurn, Job
from .loading import read_peak

Contestant = Callable[[Job, EndTurn], NDArray[np.floating]]


@dataclass(frozen=True)
class Outcome:
    """How one contestant did one job."""

    seconds: list[float]  # per chunk
    output: NDArray[np.floating]  # losses or logits
    peak_bytes: int  # of the process, until the job's end
    product_rate: float  # multiply-adds per second of a matrix product, measured right afterwards
    bandwidth: float  # bytes per second between memory and processor, likewise


def take_turns(contestants: Sequence[Contestant], jobs: Sequence[Sequence[Job]]) -> list[list[Outcome]]:
    """Run jobs[n][c], the n-th job of contestant c. Returns its outcome at the same place.

    The n-th jobs of all contestants have equally many chunks: all do the first chunk, then all do the second, and so
    on, so that a machine which slows down slows them all. Raises ChildProcessError if a process dies; its traceback is
    on stderr."""
    context = multiprocessing.get_context("spawn")
    workers: list[Worker] = []
    for contestant, contestant_jobs in zip(contestants, zip(*jobs, strict=True), strict=True):
        pipe, child_pipe = context.Pipe()
        process = context.Process(target=work, args=(child_pipe, contestant, contestant_jobs), daemon=True)
        process.start()
        child_pipe.close()  # or the parent would not notice when the child's end closes
        workers.append(Worker(process, pipe))
    try:
        return [run_round(workers, len(round_jobs[0].chunks)) for round_jobs in jobs]
    finally:
        for worker in workers:  # all jobs are done, or one worker died
            worker.process.kill()
            worker.process.join()


@dataclass(frozen=True)
class Worker:
    """The parent's view of a contestant's process."""

    process: Any
    pipe: Connection

    def take_turn(self) -> Any:
        """Let the process run until its turn ends. Returns what it sends: None or, at the end of a job, its outcome."""
        try:
            self.pipe.send(None)
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            message = f"a contestant stopped with exit code {self.process.exitcode}; it says why above"
            raise ChildProcessError(message) from None


def run_round(workers: Sequence[Worker], chunks: int) -> list[Outcome]:
    """Run one job of each worker, turn by turn."""
    for _ in range(1 + chunks):  # loading, then each chunk
        for worker in workers:
            worker.take_turn()
    return [worker.take_turn() for worker in workers]  # whatever follows the last chunk


def work(pipe: Connection, contestant: Contestant, jobs: Sequence[Job]) -> None:
    """Run one contestant's jobs, in the child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and kills the workers when it ends
    for job in jobs:
        pipe.recv()
        clock = Clock(pipe, job.device)
        output = contestant(job, clock)
        peak_bytes = peak_memory(job.device)  # before the measurements allocate theirs
        rates = job.device.product_rate(), measure_bandwidth(job.device)
        pipe.send(Outcome(clock.seconds[1:], output, peak_bytes, *rates))


class Clock:
    """A contestant's `end_turn`: notes the seconds that the turn took, and waits for the next one."""

    def __init__(self, pipe: Connection, device: Device) -> None:
        self.pipe, self.device = pipe, device
        self.seconds: list[float] = []
        self.started = time.perf_counter()

    def __call__(self) -> None:
        self.device.synchronize()
        self.seconds.append(time.perf_counter() - self.started)
        self.pipe.send(None)
        self.pipe.recv()
        self.started = time.perf_counter()


def measure_bandwidth(device: Device) -> float:
    """Measure the bytes per second of a + s b on arrays that no cache holds, read twice and written once, median of 10
    (the triad of McCalpin's STREAM). On a CPU it takes as many threads as torch does."""
    n = 2**28 if device.device.type == "cuda" else 2**24  # numbers
    a, b, out = (torch.ones(n, device=device.device) for _ in range(3))
    seconds = []
    for _ in range(3 + 10):  # the first ones also pay for start-up
        device.synchronize()
        started = time.perf_counter()
        torch.add(a, b, alpha=3, out=out)
        device.synchronize()
        seconds.append(time.perf_counter() - started)
    return 3 * a.nbytes / median(seconds[3:])


def peak_memory(device: Device) -> int:
    """Return the most bytes in use so far: on the GPU with CUDA, else in this process; 0 where that is not known."""
    if device.device.type == "cuda" or not Path("/proc/self/status").exists():
        return device.peak_memory() or 0
    return read_peak()  # on Linux, the peak of `Device` would include the parent process's
