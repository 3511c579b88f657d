"""Contestants that take turns: each computes in a process of its own, while all the others wait."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from contestants import Job
from loading import peak
from numpy.typing import NDArray

from lab.device import Device

Contestant = Callable[[Job, Callable[[], None]], NDArray[np.floating]]  # calls the second when ready, and per chunk


@dataclass(frozen=True)
class Outcome:
    """What came of a job."""

    seconds: list[float]  # of each of its chunks
    output: NDArray[np.floating]  # losses or logits
    peak_bytes: int  # that the process held so far
    product_rate: float  # multiply-adds per second of a matrix product, right after


def take_turns(contestants: Sequence[Contestant], jobs: Sequence[Sequence[Job]]) -> list[list[Outcome]]:
    """jobs[n][c] is the n-th job of contestant c -> its outcome at the same place.

    The n-th jobs of all have equally many chunks: everyone does the first one, then everyone the second, and so on,
    so that a machine which slows down slows them all. ChildProcessError where a process dies; it has said why."""
    context = multiprocessing.get_context("spawn")
    workers: list[tuple[Any, Connection]] = []
    for contestant, own in zip(contestants, zip(*jobs, strict=True), strict=True):
        here, there = context.Pipe()
        process = context.Process(target=work, args=(there, contestant, own), daemon=True)
        process.start()
        there.close()  # so that its end is noticed
        workers.append((process, here))
    try:
        return [all_in_turn(workers, len(together[0].chunks)) for together in jobs]
    finally:
        for process, _ in workers:  # they have nothing left to do, or nobody to do it for
            process.kill()
            process.join()


def all_in_turn(workers: Sequence[tuple[Any, Connection]], chunks: int) -> list[Outcome]:
    """One job of each worker."""
    for _ in range(1 + chunks):  # to get ready, and each chunk
        for process, pipe in workers:
            turn_of(process, pipe)
    return [turn_of(process, pipe) for process, pipe in workers]  # what is left to do after the last chunk


def turn_of(process: Any, pipe: Connection) -> Any:
    """Let one worker go on, and wait until it stops."""
    try:
        pipe.send(None)
        return pipe.recv()
    except (EOFError, OSError):
        process.join()
        raise ChildProcessError(f"a contestant stopped with exit code {process.exitcode}; it says why above") from None


def work(pipe: Connection, contestant: Contestant, jobs: Sequence[Job]) -> None:
    """The worker's side."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, whose end is the worker's too
    for job in jobs:
        pipe.recv()
        clock = Clock(pipe, job.device)
        output = contestant(job, clock)
        held = peak_memory(job.device)  # before the product's operands are there too
        pipe.send(Outcome(clock.seconds[1:], output, held, job.device.product_rate()))


class Clock:
    """Called at the end of each chunk: notes the seconds since it began, and waits for the next turn."""

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


def peak_memory(device: Device) -> int:
    """Bytes held at most so far: of the GPU on CUDA, else of this process."""
    if device.device.type == "cuda" or not Path("/proc/self/status").exists():
        return device.peak_memory()
    return peak()  # on Linux the peak that `device` knows begins with the parent's
