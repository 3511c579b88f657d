"""Measure a trained classifier: predictions, metrics beside the baselines, and pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from data import SPLITS, Corpus
from lab import output
from lab.baselines import baselines
from lab.device import Device
from lab.fonts import explain_names, name_classes
from lab.metrics import classification_metrics
from lab.predict import predict
from lab.progress import console
from lab.texts import Texts
from lab.word_head import load_network, read_word_head
from model import Tokenizer
from model.files import read_json

from . import figures


def measure(run: Path, corpus: Corpus, texts: dict[str, Texts], device: Device) -> Table:
    """Measure the checkpoint of a run on val and test. Write metrics.json, predictions.csv and pictures to its folder.

    Return the scores on test, with their intervals and beside the baselines, as a table to print."""
    head = read_word_head(read_json(run / "run.json"), Tokenizer.load(run))
    model = load_network(run, head).to(device.device)
    probabilities = {split: predict(model, texts[split].sequences, device) for split in ("val", "test")}
    output.write_csv(run / "predictions.csv", predictions(corpus, probabilities))
    metrics: dict[str, Any] = {}
    names = name_classes(model.labels)
    for split, p in probabilities.items():
        targets, title = texts[split].targets, f"{run.name}\n{corpus.name}, {split} ({len(p):,} texts)"
        metrics[split] = classification_metrics(targets, p, model.labels)
        matrix = metrics[split]["confusion_matrix"]
        figures.draw_confusion_matrix(matrix, names, run / f"confusion_{split}.png", title)
        figures.draw_roc_and_precision_recall(targets, p, names, run / f"roc_pr_{split}.png", title)
        figures.draw_calibration(targets, p, run / f"calibration_{split}.png", title)
    for line in explain_names(model.labels):
        console.print(line)
    train, val, test = ((list(corpus.split(split)["text"]), texts[split].targets) for split in SPLITS)
    with console.status("fitting the bag-of-words baselines"):
        metrics["baselines"] = baselines(train, val, test, model.labels)
    output.write_json(run / "metrics.json", metrics)
    return scores(metrics, corpus.name)


def predictions(corpus: Corpus, probabilities: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return one row per text of these splits: split, index, text, label, predicted, and p_<label> for each class."""
    tables = []
    for split, p in probabilities.items():
        table = corpus.split(split)[["split", "index", "text", "label"]]
        table["predicted"] = np.array(corpus.labels)[p.argmax(axis=1)]
        by_class = pd.DataFrame(p.astype(np.float32), columns=[f"p_{label}" for label in corpus.labels])
        tables.append(pd.concat([table, by_class], axis=1))
    return pd.concat(tables)


def scores(metrics: dict[str, Any], corpus: str) -> Table:
    """Return accuracy and macro-F1 on test with their 95 % intervals, the network beside the baselines."""
    table = Table(f"{corpus}, test split", "accuracy [95 % interval]", "macro-F1", box=None)
    bag, majority = metrics["baselines"]["bag_of_words"], metrics["baselines"]["majority"]
    rows = {"this model": metrics["test"], bag["name"]: bag["test"], majority["name"]: majority["test"]}
    for name, measured in rows.items():
        cells = []
        for metric in ("accuracy", "macro_f1"):
            low, high = measured["intervals"][metric]
            cells.append(f"{measured[metric]:.3f} [{low:.3f}, {high:.3f}]")
        table.add_row(name, *cells)
    return table
