"""A run of a tiny network that takes a second: what ablate.py and probe.py are tried on."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from commands import exit_code
from pictures_on_disk import leave_undrawn

import train
from model import GPT2Config
from model.layouts import config_to_hf
from model.names import EMBEDDED

WORDS = {"joy": "happy glad smiling", "anger": "furious mad raging", "fear": "afraid scared trembling"}
ODD = ["all", "NA", "nan", "1", "no test", "one text", "one and one", "joy"]  # classes
COUNTS = {"no test": (20, 5, 0), "one text": (1, 0, 0), "one and one": (1, 0, 1)}  # texts of train, val and test


def train_in(here: Path) -> None:
    """Leaves runs/one in this folder, trained on texts that single words give away."""
    write_corpus(here / "corpus.txt", 60)
    train_on(here, "corpus.txt", GPT2Config(2, 3, 12, n_ctx=17))


def write_corpus(path: Path, n: int) -> None:
    """Leaves a corpus of at most n different texts of each class, which single words give away."""
    rng = np.random.default_rng(0)
    fillers = ["today", "again", "at", "work", "with", "my", "friend", "not", "town"]
    lines = {
        f"i felt {' '.join(rng.choice(fillers, size=rng.integers(1, 6)))} {rng.choice(words.split())};{label}"
        for label, words in WORDS.items()
        for _ in range(n)
    }
    path.write_text("\n".join(sorted(lines)) + "\n")


def train_odd_in(here: Path, labels: Sequence[str]) -> None:
    """Leaves runs/one in this folder, trained on these classes, of which some have few texts, or none in test."""
    rng, folder = np.random.default_rng(0), here / "odd"
    folder.mkdir()
    for i, split in enumerate(("train", "val", "test")):
        lines = [
            f"{' '.join(rng.choice(['never', 'at', 'work', 'again'], 3))} word{k} {split}{n};{label}"
            for k, label in enumerate(labels)
            for n in range(COUNTS.get(label, (20, 5, 5))[i])
        ]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    train_on(here, "odd", GPT2Config(1, 3, 12, n_ctx=17))


def write_shape(folder: Path, config: GPT2Config) -> None:
    """Leaves a checkpoint without weights: a shape and a vocabulary."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_to_hf(config)))
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(EMBEDDED / name, folder)


def train_on(here: Path, corpus: str, config: GPT2Config) -> None:
    write_shape(here / "tiny", config)
    options = f"--model tiny --corpus {corpus} --init random --epochs 3 --lr 0.02 --dropout 0 --device cpu --run one"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        leave_undrawn(patch)
        assert exit_code(patch, train, *options.split()) == 0
