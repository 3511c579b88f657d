"""Where a model runs, and in which precision."""

import os
import platform
import resource
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from model import InputError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]
Compile = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Device:
    """A torch device and a precision, fp32 or bf16; weights stay fp32, bf16 is autocast's."""

    device: torch.device
    precision: str

    @classmethod
    def choose(cls, device: DeviceName, precision: Precision) -> "Device":
        """`auto` is CUDA before MPS before the CPU, and bf16 where CUDA has it. InputError where it is not here."""
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        name = next(name for name in there if there[name]) if device == "auto" else device
        if not there[name]:
            raise InputError(f"--device {name}: not on this machine; there is {', '.join(filter(there.get, there))}")
        if precision == "auto":
            precision = "bf16" if name == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
        return cls(torch.device(name), precision)

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def compiles(self, choice: Compile) -> bool:
        """Is torch.compile wanted? `auto`: on CUDA."""
        return choice == "on" or (choice == "auto" and self.device.type == "cuda")

    def __str__(self) -> str:
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)}, {self.precision}"
        kind = platform.processor() or platform.machine()
        cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
        return f"{self.device.type} ({kind}, {cores}), {self.precision}"

    def peak_memory(self) -> int:
        """Bytes held at most so far: of the GPU on CUDA, else of this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def product_rate(self) -> float:
        """Multiply-adds per second of a matrix product of GPT-2's size in fp32, measured in a fraction of a second."""
        a, b = torch.ones(512, 768, device=self.device), torch.ones(768, 3072, device=self.device)
        a @ b  # the first product also pays for start-up
        start, rounds = time.perf_counter(), 10
        for _ in range(rounds):
            a @ b
        return rounds * 512 * 768 * 3072 / (time.perf_counter() - start)
