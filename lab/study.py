"""A finished run as an experiment finds it: its model, the corpus it was trained on, and the texts to look at."""

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import Corpus, read_corpus
from model import GPT2Classifier, InputError, Tokenizer, hub, load_classifier
from model.checkpoint import read_labels
from model.files import read_json
from model.names import WEIGHTS, find

from . import runs
from .device import Device
from .texts import Texts, read_texts


@dataclass(frozen=True, eq=False)
class Part:
    """N texts of a split: their positions in it, token ids, and class numbers int64 (N,)."""

    split: str
    positions: NDArray[np.integer]
    texts: list[str]
    sequences: list[list[int]]
    targets: NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Study:
    """A run under study; the classifier is in eval mode on the device, and nothing in it is trained."""

    run: Path
    record: dict[str, Any]
    clf: GPT2Classifier
    tokenizer: Tokenizer
    corpus: Corpus
    texts: Texts
    device: Device
    weights: str  # SHA-256 of its model.safetensors
    headed: bool = True  # False: the checkpoint had no head, and this one is of random weights

    def part(self, split: str, limit: int = 0, seed: int = 0) -> Part:
        """The texts of a split, or so many of them at random."""
        n = len(self.texts.targets[split])
        positions = np.arange(n)
        if 0 < limit < n:
            positions = np.sort(np.random.default_rng((seed, *split.encode())).choice(n, limit, replace=False))
        texts, sequences = self.corpus.split(split)["text"].tolist(), self.texts.sequences[split]
        own = [texts[i] for i in positions], [sequences[i] for i in positions]
        return Part(split, positions, *own, self.texts.targets[split][positions])

    def majority(self, part: Part) -> float:
        """Accuracy on these texts of always naming the most frequent class of train."""
        return float((part.targets == np.bincount(self.texts.targets["train"]).argmax()).mean())

    def provenance(self, texts: str, seed: int) -> list[str]:
        """What a report says of where its numbers come from; `texts` says how many were taken."""
        files = ", ".join(f"{Path(name).name} {sha256[:12]}" for name, sha256 in self.corpus.files.items())
        revision = f"revision {self.corpus.revision}" if self.corpus.revision else "local files"
        return [
            f"run: {self.run}, from {self.record['model']['name']} ({self.record['settings']['init']} weights)",
            f"SHA-256 of the weights: {self.weights}",
            f"corpus: {self.corpus.name}, {revision}: {texts} (SHA-256: {files})",
            f"seed {seed}, {self.device}",
            f"made by `{shlex.join(['python', Path(sys.argv[0]).name, *sys.argv[1:]])}`, "
            f"commit {runs.git_state() or 'unknown'}",
        ]


def open_study(run: str, corpus: str, device: Device, model: str = "") -> Study:
    """The run of this name, with the corpus it was trained on, or with another one of the same classes.

    `model` puts another checkpoint in the place of the run's; one without a head gets a fresh one, of random weights.
    Raises InputError where there is no finished run, or its corpus has changed since."""
    folder = runs.RUNS / run
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder}: there is no such run; make one with `make train`, or name another with --run")
    folder = runs.RUNS / folder.resolve().name  # what `latest` points at
    record = read_json(folder / "run.json")
    if record.get("status") not in ("finished", "interrupted") or "settings" not in record:
        raise InputError(f"{folder}: expected a finished run of train.py; make one with `make train`")
    settings = record["settings"]
    columns = settings["text_column"], settings["label_column"]
    split_seed = settings.get("split_seed", settings["seed"])  # one seed did both in earlier runs
    own = read_corpus(corpus or settings["corpus"], *columns, split_seed)
    if not corpus and sorted(own.files.values()) != sorted(record["corpus"]["sha256"].values()):
        raise InputError(f"{own.name} is no longer what {folder} was trained on; give the former one with --corpus")
    checkpoint = find(model) if model else folder
    labels = read_labels(checkpoint)
    clf = load_classifier(checkpoint, labels or own.labels)
    clf = clf.to(device.device).eval().requires_grad_(False)
    if set(own.labels) != set(clf.labels):
        raise InputError(f"{own.name}: expected the classes {', '.join(clf.labels)}, got {', '.join(own.labels)}")
    tokenizer = Tokenizer.load(checkpoint)
    own = replace(own, labels=clf.labels)  # in the order of the logits
    texts = read_texts(own, tokenizer, clf.config, settings["truncate"])
    weights = hub.content_hash(checkpoint / WEIGHTS)
    return Study(folder, record, clf, tokenizer, own, texts, device, weights, labels is not None)
