"""A run of a tiny network that takes a second: what ablate.py and probe.py are tried on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import exit_code

import train
from model import GPT2Config
from model.names import EMBEDDED

WORDS = {"joy": "happy glad smiling", "anger": "furious mad raging", "fear": "afraid scared trembling"}


def train_in(here: Path) -> None:
    """Leaves runs/one in this folder, trained on texts that single words give away."""
    rng = np.random.default_rng(0)
    fillers = ["today", "again", "at", "work", "with", "my", "friend", "not", "town"]
    lines = {
        f"i felt {' '.join(rng.choice(fillers, size=rng.integers(1, 6)))} {rng.choice(words.split())};{label}"
        for label, words in WORDS.items()
        for _ in range(60)
    }
    (here / "corpus.txt").write_text("\n".join(sorted(lines)) + "\n")
    (here / "tiny").mkdir()
    (here / "tiny" / "config.json").write_text(json.dumps(GPT2Config(2, 3, 12, n_ctx=17).to_hf()))
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(EMBEDDED / name, here / "tiny")
    options = "--model tiny --corpus corpus.txt --init random --epochs 3 --lr 0.02 --dropout 0 --device cpu --run one"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert exit_code(patch, train, *options.split()) == 0
