"""The networks side by side, and the vectors that they give the same texts."""

import json
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from data.words import UNREADABLE
from lab.kept import Identity, read_result, write_result
from lab.networks import draw_random_trunk, load_start
from lab.study import Study
from lab.texts import Texts
from lab.vectors import POOLINGS, TOKENS, Vectors, record_vectors
from model import GPT2, InputError

from .corrections import CORRECTIONS, ROUNDING, SHARE_OF_TOP, Floats

PRETRAINED, TUNED, RANDOM = "pretrained", "fine-tuned", "random"  # networks, in the order of tables and pictures
SPLITS = ("train", "test")  # probes and corrections are fitted on train; everything else is measured on test


@dataclass(frozen=True, eq=False)
class Network:
    """A network in eval mode, on the device of the study."""

    trunk: GPT2
    weights: str  # SHA-256, or how they were drawn


@dataclass(frozen=True)
class Site:
    """A network, and a place in it where each text has a vector."""

    network: str
    layer: int  # a site of `lab.vectors`: 0 .. L + 1
    pooling: str
    correction: str = "none"


@dataclass(frozen=True, eq=False)
class Spaces:
    """What all parts of embed.py have in common; `folder` keeps vectors and results.

    N texts of each split at most, K classes, L layers of width C."""

    study: Study
    folder: Path
    limit: int  # texts of train and of test at most; 0: all
    seed: int
    left_out: list[str] = field(default_factory=list)  # lines on what could not be had
    recorded: dict[tuple[str, str], Vectors] = field(default_factory=dict)  # by network and split

    @cached_property
    def texts(self) -> dict[str, Texts]:
        return {split: self.study.draw_texts(split, self.limit, self.seed) for split in SPLITS}

    @cached_property
    def stop_words(self) -> frozenset[str]:
        """Return nltk's English stop words, else scikit-learn's, and say so."""
        from nltk.corpus import stopwords

        try:
            return frozenset(stopwords.words("english"))
        except UNREADABLE:
            self.left_out.append("nltk has no list of stop words: scikit-learn's is taken; `make words` fetches nltk's")
            return ENGLISH_STOP_WORDS

    def targets(self, split: str) -> NDArray[np.integer]:
        """Return the class numbers, int64 (N,)."""
        return self.texts[split].targets

    @property
    def labels(self) -> tuple[str, ...]:
        return self.study.clf.labels

    @property
    def n_sites(self) -> int:
        return self.study.clf.config.n_layer + 2

    @cached_property
    def networks(self) -> dict[str, Network]:
        """The networks by name: `pretrained` (what the run began with, where it can be had), `fine-tuned` (the run's)
        and `random`."""
        config, device = self.study.clf.config, self.study.device.device
        networks = {TUNED: Network(self.study.clf.trunk, self.study.weights)}
        try:
            trunk, weights = load_start(self.study)
            networks = {PRETRAINED: Network(trunk.to(device), weights), **networks}
        except InputError as error:
            self.left_out.append(
                f"no pretrained network beside the run's, which is called fine-tuned all the same: {error}"
            )
        drawn = f"random, seed {self.seed}: {config.describe()}"
        return {**networks, RANDOM: Network(draw_random_trunk(config, self.seed).to(device), drawn)}

    def vectors(self, network: str, split: str) -> Vectors:
        """Return the vectors of the texts of a split, all poolings and random tokens; recorded once, kept on disk."""
        if (network, split) not in self.recorded:
            chosen, poolings = self.networks[network], (*POOLINGS, *TOKENS)
            about = {"weights": chosen.weights, "seed": self.seed, "precision": self.study.device.precision}
            name, sequences = f"{network}-{split}", self.texts[split].sequences
            self.recorded[network, split] = record_vectors(
                chosen.trunk, sequences, poolings, self.folder, name, about, self.study.device
            )
        return self.recorded[network, split]

    def remove_vectors(self) -> None:
        """Remove the vectors from disk, gigabytes of a large network: the tables are kept."""
        self.recorded.clear()
        for file in self.folder.glob("*.npy"):
            file.with_suffix(".json").unlink(missing_ok=True)  # first: it vouches for the array
            file.unlink()

    def read(self, site: Site) -> dict[str, Floats]:
        """Return the corrected vectors, float32 (N, C), by split."""
        raw = {split: self.vectors(site.network, split).read(site.layer, site.pooling) for split in SPLITS}
        correct = CORRECTIONS[site.correction](raw["train"])
        return {split: correct(x).astype(np.float32) for split, x in raw.items()}

    def identity(self, **more: Any) -> Identity:
        """Return what results depend on, as JSON: networks, texts, classes, seed, and `more`."""
        weights = {name: network.weights for name, network in self.networks.items()}
        about = {"networks": weights, "seed": self.seed, "corrections": [ROUNDING, SHARE_OF_TOP]}
        return {**self.study.identity(*self.texts.values()), **about, **more}

    def keep(self, name: str, compute: Callable[[], pd.DataFrame], **about: Any) -> pd.DataFrame:
        """Return a table that was kept under this name, computed from the same; else compute and keep it.

        about: what the table depends on besides `identity`: sites, constants, parameters; JSON, or tuples."""
        path, identity = self.folder / f"{name}.json", json.loads(json.dumps(self.identity(**about)))
        if (kept := read_result(path, identity)) is None:
            kept = compute().to_json(orient="table", index=False, double_precision=15)
            write_result(path, identity, kept)
        return pd.read_json(StringIO(kept), orient="table")  # as JSON has it, new or not


def open_spaces(study: Study, limit: int, seed: int) -> Spaces:
    """Open spaces that keep vectors and results in a temporary folder, which is removed with them."""
    folder = TemporaryDirectory(ignore_cleanup_errors=True)
    spaces = Spaces(study, Path(folder.name), limit, seed)
    weakref.finalize(spaces, folder.cleanup)
    return spaces
