"""Networks to compare a run's network with: the one that it began with, and one of its shape with random weights."""

import numpy as np
import torch

from model import GPT2, GPT2Config, InputError, load_lm
from model.names import find
from model.weights import hash_weights

from .foreign import is_foreign
from .study import Study


def draw_random_trunk(config: GPT2Config, seed: int) -> GPT2:
    """Return a network with random weights, on the CPU, in eval mode; training with the same seed begins with others.

    torch's generator is seeded."""
    stream = np.random.default_rng((seed, *b"random weights"))  # or it would be what training began with
    torch.manual_seed(int(stream.integers(2**63)))
    return GPT2(config).eval().requires_grad_(False)


def load_start(study: Study) -> tuple[GPT2, str]:
    """Return the network that a run began with, on the CPU, in eval mode, and the SHA-256 of its weights.

    Raises InputError where the run began with random weights or elsewhere, or with weights that are no longer what they
    were."""
    record = study.record["model"]
    if is_foreign(study.record):
        raise InputError(f"{record['name']} was trained elsewhere, and its start is not known")
    if study.record["settings"]["init"] == "random":
        raise InputError(f"{study.run} began with random weights")
    folder = find(record["name"])
    weights = hash_weights(folder)
    if weights != record["sha256"]:
        raise InputError(f"{record['name']} is no longer the network that {study.run} began with")
    return load_lm(folder).trunk.requires_grad_(False), weights
