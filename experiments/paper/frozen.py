"""What the features of a text tell of its class when the network that computes them is never trained.

The network reads each text once, and a vector is kept from every place along its residual stream. Logistic regression
names the class from that vector, of which each dimension is standardised by its mean and deviation over train: a linear
probe (Alain & Bengio 2017, 1610.01644). Place, pooling of the tokens and penalty are chosen on val.

Beside it stands the same classifier on the mean of the tokens' rows of `wte`, which has read nothing of their order."""

import hashlib
import shutil
import warnings
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.preprocessing import StandardScaler

from data import SPLITS, Corpus
from lab.baselines import baselines, make_candidates, measure_on_train
from lab.device import Device
from lab.kept import Identity, read_result, write_result
from lab.metrics import Floats, Ints, classification_metrics
from lab.networks import draw_random_trunk
from lab.progress import console, progress_bar
from lab.texts import Texts, read_texts
from lab.vectors import POOLINGS, Vectors, check_space, count_bytes, record_vectors
from model import GPT2, Tokenizer, load_lm
from model.checkpoint import read_config

from .names import short_model, short_name
from .plan import Run
from .results import Fitted

STRENGTHS = (0.001, 0.01, 0.1)  # values of LogisticRegression's C; the smallest regularises most
STRENGTH_OF_PLACES = 0.01  # while place and pooling are chosen
SEED = 0  # of random weights
Features = dict[str, Floats]  # float32 (N, C), by split
Targets = dict[str, Ints]  # class numbers (N,), by split


def fit_features(run: Run, folder: Path, device: Device) -> list[Fitted]:
    """Return the classifiers on frozen features and on the mean of `wte`, of the network that a run starts from.

    What they measure is kept in `folder`, and until then the vectors too. Raises InputError where these find too little
    space."""
    config, settings = read_config(run.settings.model), run.settings
    texts = read_texts(run.corpus, Tokenizer.load(settings.model), config, settings.truncate)
    name = f"{short_name(run.corpus)}-{short_model(settings.model)}-{settings.init}"
    weights = run.weights or f"random, seed {SEED}: {config.describe()}"
    about: Identity = {"weights": weights, "seed": SEED, "precision": device.precision}
    constants = [*POOLINGS, *STRENGTHS, STRENGTH_OF_PLACES]
    identity = about | {"texts": [texts[split].sha256 for split in SPLITS]}
    identity |= {"classes": list(run.corpus.labels), "constants": constants}
    earlier = f"{short_name(run.corpus)}-{settings.init}"  # its name when there was one model
    kept = read_result(folder / f"{name}.json", identity) or read_result(folder / f"{earlier}.json", identity)
    held = folder / f"vectors-{name}"
    if kept is None:
        held.mkdir(parents=True, exist_ok=True)
        kept = measure_features(load_trunk(run, device), texts, run.corpus.labels, held, about, device)
        write_result(folder / f"{name}.json", identity, kept)
    shutil.rmtree(held, ignore_errors=True)  # a call that was killed may have kept its result and left them
    seed = SEED if settings.init == "random" else None
    return [
        Fitted(settings.model, settings.init, run.corpus.name, kind, seed, of_kind["chosen"], of_kind)
        for kind, of_kind in kept.items()
    ]


def load_trunk(run: Run, device: Device) -> GPT2:
    """Return the network that a run starts from; with random weights one of its shape, though not the run's."""
    if run.settings.init == "random":
        trunk = draw_random_trunk(read_config(run.settings.model), SEED)
    else:
        trunk = load_lm(run.settings.model).trunk
    return trunk.to(device.device).eval().requires_grad_(False)


def measure_features(
    trunk: GPT2, texts: Mapping[str, Texts], labels: Sequence[str], folder: Path, about: Identity, device: Device
) -> dict[str, dict[str, Any]]:
    """Return `measure_best` by kind: `frozen` at the place that is best on val, and `wte`. JSON-able."""
    check_space(folder, "*.npy", count_bytes(trunk.config, len(POOLINGS), sum(map(len, texts.values()))))
    vectors = {
        split: record_vectors(trunk, each.sequences, tuple(POOLINGS), folder, split, about, device)
        for split, each in texts.items()
    }
    targets = {split: each.targets for split, each in texts.items()}
    site, pooling = choose_place(vectors, targets)
    wte = trunk.wte.weight.detach().float().cpu().numpy()
    static = {split: np.stack([wte[ids].mean(axis=0) for ids in each.sequences]) for split, each in texts.items()}
    best = measure_best(read_place(vectors, site, pooling), targets, labels)
    best["chosen"] = f"{describe_site(site, len(trunk.h))}, {pooling.replace('_', ' ')}, {best['chosen']}"
    return {"frozen": best, "wte": measure_best(standardise(static), targets, labels)}


def read_place(vectors: Mapping[str, Vectors], site: int, pooling: str) -> Features:
    return standardise({split: of_split.read(site, pooling) for split, of_split in vectors.items()})


def standardise(features: Features) -> Features:
    """Subtract the mean of each dimension over train, and divide by its deviation there."""
    scaler = StandardScaler().fit(features["train"])
    return {split: scaler.transform(x).astype(np.float32) for split, x in features.items()}


def choose_place(vectors: Mapping[str, Vectors], targets: Targets) -> tuple[int, str]:
    """Return the site and the pooling of largest macro-F1 on val, the first of equals."""
    places = list(product(range(vectors["train"].last_site + 1), POOLINGS))
    scores = []
    with progress_bar("places") as bar:
        task = bar.add_task("logistic regression on frozen features", total=len(places), note="")
        for place in places:
            features = read_place(vectors, *place)
            scores.append(score_on_val(fit(features, targets, STRENGTH_OF_PLACES), features, targets))
            bar.advance(task)
    return places[int(np.argmax(scores))]


def fit(features: Features, targets: Targets, strength: float) -> LogisticRegression:
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return LogisticRegression(C=strength, max_iter=1000).fit(features["train"], targets["train"])


def score_on_val(model: LogisticRegression, features: Features, targets: Targets) -> float:
    return float(f1_score(targets["val"], model.predict(features["val"]), average="macro"))


def measure_best(features: Features, targets: Targets, labels: Sequence[str]) -> dict[str, Any]:
    """Fit at each of STRENGTHS, and measure the one of largest macro-F1 on val.

    Return `chosen`, `train` of `measure_on_train`, and `val` and `test` of `classification_metrics`."""
    models = [fit(features, targets, strength) for strength in STRENGTHS]
    best = int(np.argmax([score_on_val(model, features, targets) for model in models]))
    probabilities = {split: models[best].predict_proba(x) for split, x in features.items()}
    return {
        "chosen": f"C = {STRENGTHS[best]:g}",
        "train": measure_on_train(targets["train"], probabilities["train"]),
        **{split: classification_metrics(targets[split], probabilities[split], labels) for split in ("val", "test")},
    }


def describe_site(site: int, n_layer: int) -> str:
    """Return in words where a site of `lab.vectors` lies."""
    if site == n_layer + 1:
        return "after ln_f"
    return "after the last block" if site == n_layer else f"before block {site}"


def fit_bag(corpus: Corpus, folder: Path) -> Fitted:
    """Return the bag of words that is best on val; what it measures is kept in `folder`."""
    train, val, test = ((corpus.split(split)["text"].tolist(), corpus.targets(split)) for split in SPLITS)
    texts = [hashlib.sha256(repr((of_split, k.tolist())).encode()).hexdigest() for of_split, k in (train, val, test)]
    identity = {"texts": texts, "classes": list(corpus.labels), "candidates": list(make_candidates(train[0]))}
    path = folder / f"{short_name(corpus)}-bag.json"
    bag = read_result(path, identity)
    if bag is None:
        with console.status("fitting the bags of words"):
            bag = baselines(train, val, test, corpus.labels)["bag_of_words"]
        folder.mkdir(parents=True, exist_ok=True)
        write_result(path, identity, bag)
    return Fitted("bag_of_words", "", corpus.name, "", None, bag["name"], bag)
