"""The tiny model of all tests: its sizes, weights and files, random texts and random interventions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model import GPT2Classifier, GPT2Config

B, T, L, H, D, K, V = 2, 11, 3, 5, 7, 4, 101
C = H * D
SHAPES = {
    "attn_mask": (B, L, H, T, T),
    "attn_gate": (B, L, H, T, T),
    "head_gate": (B, L, H, T),
    "head_fill": (B, L, H, T, D),
    "mlp_gate": (B, L, T),
    "mlp_fill": (B, L, T, C),
}
CASES = (*SHAPES, "all")  # one set of arguments for each: the argument, with its gate where it is a fill
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)]  # the step cuda-tests of `bench.gpu` runs what names them


def random_classifier(config: GPT2Config, labels: Sequence[str], seed: int = 0) -> GPT2Classifier:
    """Return a classifier in eval mode, with weights of N(0, 0.3)."""
    torch.manual_seed(seed)
    classifier = GPT2Classifier(config, labels).eval()
    for parameter in classifier.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return classifier


def set_config(folder: Path, **changes: Any) -> None:
    """Change some settings in the config.json of a checkpoint."""
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | changes))


def texts(*lengths: int, seed: int = 0, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Return random tokens in 1 .. V - 1, right-padded: ids (B, T), lengths (B,)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, V, (len(lengths), max(lengths)), generator=generator)
    padding = torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]
    return ids.masked_fill(padding, pad), torch.tensor(lengths)


def real(ids: Tensor, lengths: Tensor) -> Tensor:
    """Return bool (B, T), True at real tokens."""
    return torch.arange(ids.shape[1]) < lengths[:, None]


def random_value(name: str, shape: tuple[int, ...] | None = None, seed: int = 0) -> Tensor:
    """Return a random value of one argument: masks of True and False, gates in [0, 1), fills around 0."""
    generator = torch.Generator().manual_seed(seed)
    shape = shape or SHAPES[name]
    if name.endswith("_fill"):
        return torch.randn(shape, generator=generator)
    value = torch.rand(shape, generator=generator)
    return value > 0.4 if name == "attn_mask" else value


def case(name: str) -> dict[str, Tensor]:
    """Return the random arguments of one of CASES, each with all its axes in full."""
    names = SHAPES if name == "all" else (name,)
    arguments = {name: random_value(name, seed=seed) for seed, name in enumerate(names)}
    gates = {fill.replace("fill", "gate") for fill in arguments if fill.endswith("_fill")} - arguments.keys()
    return arguments | {gate: random_value(gate, seed=17) for gate in gates}


def difference(got: Tensor, expected: Tensor) -> float:
    """Return the largest difference, as a share of the largest expected value; inf if the shapes differ."""
    if got.shape != expected.shape:
        return float("inf")
    return ((got - expected).abs().max() / expected.abs().max()).item()
