"""What as few labelled texts give without a prompt: a linear probe, and a fine-tuned classifier.

Letters: N texts of test, n labelled texts, K classes, and those of the forward pass."""

import hashlib
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from data.batches import Batch, bucketed
from lab.defaults import TrainOptions
from lab.demonstrations import draw_demonstrations
from lab.kept import read_result, write_result
from lab.label_words import LabelWords
from lab.optim import adamw, linear_schedule
from lab.predict import predict
from lab.progress import progress_bar
from lab.prompted import Prompted
from lab.prompts import Demonstration
from lab.texts import Texts
from model import GPT2Classifier
from model.checkpoint import uninitialised
from model.readout import fresh_head

from .features import Floats, encode_texts, record_features

Ints = NDArray[np.integer]
Method = Literal["probe", "fine_tuned"]

DRAWS: dict[Method, int] = {"probe": 5, "fine_tuned": 3}
COLUMNS = ["method", "shots", "draw", "n_train", "n", "accuracy", "macro_f1"]
MOST = 64  # shots of a fine-tuning
# Macro-F1 with the first gpt2-mini on 300 texts of val of emotion, means over draws. Fine-tuned on 16 shots: 0.19 after
# 60 steps, 0.18 after 200. Probes of 64 shots and of all texts: 0.205, 0.184 with C = 0.001; 0.212, 0.269 with 0.01;
# 0.208, 0.275 with 0.1; 0.203, 0.271 with 1.
STEPS = 60  # of a fine-tuning, at least
STRENGTH = 0.01  # C of a probe


@dataclass(frozen=True)
class Portion:
    """Labelled texts to learn from, and how."""

    method: Method
    shots: int  # of each class; of all texts, the mean
    draw: str  # 0, 1, ..., or `full` for all texts
    texts: tuple[Demonstration, ...]


def list_portions(pool: Sequence[Demonstration], words: LabelWords, seed: int) -> list[Portion]:
    """Return what to learn from: 1, 4, 16, ... texts of each class, the same as a prompt has as its examples, and for
    the probe all texts; nothing where a class has no text."""
    smallest = np.bincount([each.target for each in pool], minlength=len(words.labels)).min()
    portions = [
        Portion(method, shots, str(draw), draw_demonstrations(pool, shots, draw, words, seed))
        for method, draws in DRAWS.items()
        for shots in takewhile(lambda shots: shots <= smallest, (4**n for n in count()))
        if method == "probe" or shots <= MOST
        for draw in range(draws)
    ]
    full = Portion("probe", round(len(pool) / len(words.labels)), "full", tuple(pool))
    return [*portions, full] if smallest else []


def measure_curve(
    pool: Sequence[Demonstration], test: Texts, prompted: Prompted, folder: Path, seed: int
) -> pd.DataFrame:
    """Return `method, shots, draw, n_train, n, accuracy, macro_f1`, measured on bare texts of test; what is in `folder`
    is taken from there.

    probe: logistic regression of the frozen features at the last token. fine_tuned: see `fine_tune`. None of them sees
    val, because whoever has a few labelled texts has none to choose by."""
    known = record_features(prompted, [each.text for each in pool], "train", folder, seed).last
    asked = record_features(prompted, test.strings, "test", folder, seed).last
    row_of = {each.index: row for row, each in enumerate(pool)}
    sequences, rows = encode_texts(prompted, test.strings), []
    portions = list_portions(pool, prompted.words, seed)
    with progress_bar("classifiers") as bar:
        task = bar.add_task("learning curve", total=len(portions), note="")
        for portion in portions:
            path = folder / f"curve-{portion.method}-{portion.shots}-{portion.draw}.json"
            about = identify(portion, sequences, prompted, seed)
            predicted = read_result(path, about)
            if predicted is None:
                if portion.method == "probe":
                    of_portion = known[[row_of[each.index] for each in portion.texts]]
                    predicted = fit_probe(of_portion, [each.target for each in portion.texts], asked).tolist()
                else:
                    predicted = fine_tune(portion, sequences, prompted, seed).tolist()
                write_result(path, about, predicted)
            rows.append(score_portion(portion, test.targets, predicted))
            bar.advance(task)
    return pd.DataFrame(rows, columns=COLUMNS)


def count_trained_texts(pool: Sequence[Demonstration], K: int) -> int:
    """Return how many forward passes of a text all fine-tunings take; a backward pass counts as two."""
    smallest = np.bincount([each.target for each in pool], minlength=K).min()
    sizes = [K * shots for shots in (1, 4, 16, MOST) if shots <= smallest]
    batch = TrainOptions().batch_size
    return sum(3 * DRAWS["fine_tuned"] * STEPS * min(batch, size) for size in sizes)


def identify(portion: Portion, sequences: Sequence[list[int]], prompted: Prompted, seed: int) -> dict[str, Any]:
    """Return what the predictions of texts of test, token ids, depend on."""
    learnt = encode_texts(prompted, [each.text for each in portion.texts]), [each.target for each in portion.texts]
    return prompted.identity(sequences, seed) | {"train": hashlib.sha256(repr(learnt).encode()).hexdigest()}


def score_portion(portion: Portion, targets: Ints, predicted: Sequence[int]) -> dict[str, Any]:
    """Return a row of the table."""
    return {
        "method": portion.method,
        "shots": portion.shots,
        "draw": portion.draw,
        "n_train": len(portion.texts),
        "n": len(targets),
        "accuracy": float((targets == predicted).mean()),
        "macro_f1": float(f1_score(targets, predicted, average="macro")),
    }


def fit_probe(features: Floats, targets: Sequence[int], asked: Floats) -> Ints:
    """Fit a logistic regression to standardised features (n, C), and return the classes that it predicts for (N, C)."""
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=STRENGTH, max_iter=1000).fit(scaler.transform(features), targets)
    return np.asarray(model.predict(scaler.transform(asked)))


def fine_tune(portion: Portion, asked: Sequence[list[int]], prompted: Prompted, seed: int) -> Ints:
    """Tune a fresh head and all weights of the language model's trunk, and return the classes that the result predicts
    for N texts, token ids.

    The recipe is that of train.py from pretrained weights: learning rate, batch size, warm-up, clipping and decay. It
    takes as many epochs as make 60 steps, and the last one's weights: there is no val. Dropout is the checkpoint's. The
    language model learns nothing here."""
    device, options = prompted.device, TrainOptions().resolved(prompted.lm.config.n_embd, len(portion.texts))
    assert options.lr, "TrainOptions.resolved fills it in"
    sequences = encode_texts(prompted, [each.text for each in portion.texts])
    targets = np.array([each.target for each in portion.texts])
    steps = math.ceil(len(targets) / options.batch_size)  # of an epoch
    epochs = math.ceil(STEPS / steps)
    with torch.random.fork_rng([device.device] if device.device.type == "cuda" else []):
        key = np.random.SeedSequence((seed, int(portion.draw), portion.shots))
        torch.manual_seed(int(key.generate_state(1)[0]))
        clf = start_classifier(prompted).train()
        optimizer = adamw(clf.parameters(), options.lr, options.weight_decay)
        schedule = linear_schedule(optimizer, epochs * steps, options.warmup)
        for epoch in range(epochs):
            for batch in bucketed(sequences, targets, options.batch_size, seed, epoch):
                optimizer.zero_grad()
                for piece in batch.split(device.tokens):
                    (compute_loss(clf, piece, prompted) / len(batch.ids)).backward()
                nn.utils.clip_grad_norm_(clf.parameters(), options.clip)
                optimizer.step()
                schedule.step()
    return predict(clf, asked, device).argmax(axis=1)


def start_classifier(prompted: Prompted) -> GPT2Classifier:
    """Return a classifier with a copy of the language model's trunk and a fresh head, all of it trainable."""
    lm, labels = prompted.lm, prompted.words.labels
    with uninitialised():
        clf = GPT2Classifier(lm.config, labels)
    clf.trunk, clf.score = deepcopy(lm.trunk), fresh_head(lm.config, len(labels))
    return clf.to(prompted.device.device).requires_grad_(True)


def compute_loss(clf: GPT2Classifier, batch: Batch, prompted: Prompted) -> torch.Tensor:
    """Return the sum of the losses of the texts, in nats."""
    on_device = batch.to(prompted.device.device)
    with prompted.device.autocast():
        logits = clf(on_device.ids, on_device.lengths)  # (B, K)
    return F.cross_entropy(logits.float(), on_device.targets, reduction="sum")
