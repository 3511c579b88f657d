"""Finished runs of a paper that nobody has made."""

from typing import Any

import numpy as np

from experiments.paper.results import MeasuredRun
from lab.metrics import classification_metrics, prediction_metrics

LABELS = ["anger", "fear", "joy"]
SETTINGS = {"model": "tiny", "init": "pretrained", "tune": "all", "seed": 0, "epochs": 2, "lr": 0.02, "dropout": 0.1}
SPLITS = {"train": 84, "val": 48, "test": 54}


def measured(corpus: str = "words", n: int = 54, **changes: Any) -> MeasuredRun:
    """A run on a corpus of this name with n texts of test; `changes` replace parts of its manifest."""
    rng = np.random.default_rng(0)
    targets = {split: np.arange(size) % 3 for split, size in SPLITS.items()}
    probabilities = {split: rng.dirichlet(np.ones(3), len(own)) + np.eye(3)[own] / 2 for split, own in targets.items()}
    metrics: dict[str, Any] = {
        split: classification_metrics(targets[split], p / p.sum(1, keepdims=True), LABELS)
        for split, p in probabilities.items()
        if split != "train"
    }
    metrics["test"]["n"] = n
    metrics["train"] = {"n": 84, "macro_roc_auc": 0.75}
    metrics["baselines"] = {
        name: {"name": f"the {name}"}
        | {split: prediction_metrics(targets[split], targets[split] * 0, LABELS) for split in ("val", "test")}
        for name in ("bag_of_words", "majority")
    }
    record = {
        "corpus": {"name": corpus, "labels": LABELS, "texts": SPLITS | {"test": n}, "revision": None},
        "model": {"name": "tiny", "revision": None, "sha256": "0123abc"},
        "settings": SETTINGS,
        "device": "cpu",
        "git": "abc",
        "versions": {"torch": "2"},
    }
    return MeasuredRun(record | changes, metrics, targets["test"], probabilities["test"].argmax(1))
