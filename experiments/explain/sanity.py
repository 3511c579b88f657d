"""Does the explanation change when the network does? (Adebayo et al. 2018; for texts: Kokhlikyan et al. 2021.)

Parts of the network get random weights: the head, then also the last block, and so on down to the embeddings
(`cascading`), or one part alone (`independent`). An explanation of the network cannot stay the same. How alike can it
be at worst? As alike as the explanations of two networks that are random throughout: both see the same text.

Each text gets random weights of its own. So limits over texts also cover other random weights: one draw of the head
would make all texts of a class alike, or opposite, by luck."""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata

from lab.device import Device
from lab.kept import Identity, read_result, write_result
from lab.progress import progress_bar
from lab.study import Study
from model import GPT2Classifier

from .attributions import SETTINGS, Floats
from .choose import OF_USER, Explained
from .limits import average, limit_means
from .methods import METHODS, Parsed, explain

SANITY_PAIRS = 2  # of orders of the words, for Shapley values
MOST_TEXTS = 12
SHORTEST = 3  # tokens; the order of two says next to nothing
TOP = 5
SIMILARITIES = ("spearman", "spearman_absolute", "top5")
UNCHANGED = 1 - 1e-9  # a similarity that only rounding keeps from 1
ROW = ["scheme", "step", "part", "similarity", "method"]
NUMBERS = ["value", "ci_low", "ci_high", "random", "random_low", "random_high"]
NUMBERS += ["difference", "difference_low", "difference_high"]
COLUMNS = ["scheme", "step", "part", "method", "similarity", "n", *NUMBERS[:6], "verdict", *NUMBERS[6:]]


def make_fresh(clf: GPT2Classifier, seed: int, purpose: str) -> GPT2Classifier:
    """Return a network of the same shape with the random weights of a constructor, others for another purpose.

    torch's own generator is left as it was."""
    drawn = np.random.default_rng((seed, *f"fresh weights: {purpose}".encode())).integers(2**63)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(drawn))
        fresh = GPT2Classifier(clf.config, clf.labels)
    return fresh.to(clf.score.weight.device).eval().requires_grad_(False)


def list_parts(n_layer: int) -> dict[str, tuple[str, ...]]:
    """Return the parts of a network from the top down: by name, how the names of its parameters begin."""
    blocks = {f"block {layer}": (f"trunk.h.{layer}.",) for layer in reversed(range(n_layer))}
    return {"head": ("score.", "trunk.ln_f."), **blocks, "embeddings": ("trunk.wte.", "trunk.wpe.")}


def randomise(clf: GPT2Classifier, fresh: GPT2Classifier, parts: Sequence[str]) -> GPT2Classifier:
    """Return a copy of a network in which these parts are those of the fresh one."""
    mixed, beginnings = deepcopy(clf), list_parts(clf.config.n_layer)
    names = tuple(name for part in parts for name in beginnings[part])
    mixed.load_state_dict({k: value for k, value in fresh.state_dict().items() if k.startswith(names)}, strict=False)
    return mixed


def list_steps(n_layer: int) -> list[tuple[str, int, str, tuple[str, ...]]]:
    """Return scheme, step (from 1), part and all parts that are random, of each randomised network."""
    parts = tuple(list_parts(n_layer))
    cascading = [("cascading", i, part, parts[:i]) for i, part in enumerate(parts, start=1)]
    return cascading + [("independent", i, part, (part,)) for i, part in enumerate(parts, start=1)]


def correlate(a: Floats, b: Floats) -> float:
    """Return Spearman's correlation of a and b (T,). It is 1 where they rank all tokens alike, also if all are equal; 0
    where only one ranks any token above another."""
    ranks = rankdata(a) - (len(a) + 1) / 2, rankdata(b) - (len(b) + 1) / 2
    if np.array_equal(*ranks):
        return 1.0
    scale = np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1]))
    return float(ranks[0] @ ranks[1] / scale) if scale else 0.0


def compare_values(a: Floats, b: Floats) -> list[float]:
    """Return the SIMILARITIES of two attributions of one text, (T,) each.

    top5: the share of common ones among the 5 tokens of largest absolute value, ties by position; so always 1 in texts
    of at most 5."""
    tops = [set(np.argsort(-np.abs(values), kind="stable")[:TOP].tolist()) for values in (a, b)]
    return [correlate(a, b), correlate(np.abs(a), np.abs(b)), len(tops[0] & tops[1]) / len(tops[0])]


def choose_balanced(texts: Sequence[Explained]) -> list[Explained]:
    """Return at most MOST_TEXTS texts, evenly from all when they are sorted by predicted class, in their order.

    Those of the user and those of fewer than SHORTEST tokens do not count."""
    texts = [text for text in texts if text.split != OF_USER and len(text.parsed.ids) >= SHORTEST]
    by_class = sorted(range(len(texts)), key=lambda i: texts[i].predicted)
    n = min(MOST_TEXTS, len(texts))
    return [texts[i] for i in sorted(by_class[rank * len(texts) // n] for rank in range(n))]


def measure_sanity(
    study: Study, texts: Sequence[Explained], folder: Path, seed: int, shuffled: GPT2Classifier | None
) -> pd.DataFrame:
    """Return how alike the explanations of our network and of randomised ones are, of the class that ours predicts.

    shuffled: a network that was trained on shuffled labels, as scheme `labels`. `random`: how alike those of two random
    networks are. Limits hold for all methods of one scheme, step and similarity. The similarities of each text are kept
    in `folder`."""
    texts, steps = choose_balanced(texts), [step[:3] for step in list_steps(study.clf.config.n_layer)]
    about = identify(shuffled) if shuffled else ""
    measured, labels = [], []
    with progress_bar("texts") as bar:
        task = bar.add_task("sanity checks", total=len(texts), note="")
        for text in texts:
            measured.append(measure_text(study, text, folder, seed))
            if shuffled:
                labels.append(measure_shuffled(study, text, folder, seed, shuffled, about))
            bar.advance(task)
    shape = len(texts), len(steps) + 1, len(METHODS), len(SIMILARITIES)
    similarities = np.array(measured).reshape(shape)
    values, random = similarities[:, :-1], similarities[:, -1:]
    if shuffled:
        values = np.concatenate([values, np.array(labels).reshape(len(texts), 1, *shape[2:])], axis=1)
        steps.append(("labels", 1, "labels"))
    return judge_sanity(tabulate_similarities(values, random, steps))


def measure_text(study: Study, text: Explained, folder: Path, seed: int) -> list[list[list[float]]]:
    """Return similarities of one text, (steps + 1, METHODS, SIMILARITIES): of our network to the randomised one of each
    of `list_steps`, and last of two random networks to each other. What is on disk is taken from there."""
    path, identity = folder / f"sanity_{text.split}_{text.index}.json", identify_text(study, text, seed)
    if (kept := read_result(path, identity)) is not None:
        return kept
    clf, predicted, explanations = study.clf, text.predicted, {}
    fresh, other = (make_fresh(clf, seed, f"sanity, {text.name}, {name}") for name in ("one", "another"))
    steps = [parts for *_, parts in list_steps(clf.config.n_layer)]
    for parts in dict.fromkeys([(), *steps]):
        network = randomise(clf, fresh, parts)
        explanations[parts] = explain_class(network, text.parsed, study.device, predicted, seed)
    pairs = [((), parts) for parts in steps]
    compared = [compare_methods(explanations[a], explanations[b]) for a, b in pairs]
    whole = tuple(list_parts(clf.config.n_layer))
    compared.append(
        compare_methods(explanations[whole], explain_class(other, text.parsed, study.device, predicted, seed))
    )
    write_result(path, identity, compared)
    return compared


def measure_shuffled(
    study: Study, text: Explained, folder: Path, seed: int, shuffled: GPT2Classifier, about: str
) -> list[list[float]]:
    """Return similarities of our network to the shuffled one on one text, (METHODS, SIMILARITIES)."""
    path, identity = folder / f"sanity_labels_{text.split}_{text.index}.json", identify_text(study, text, seed)
    identity |= {"shuffled": about}
    if (kept := read_result(path, identity)) is not None:
        return kept
    networks = study.clf, shuffled
    explanations = [explain_class(clf, text.parsed, study.device, text.predicted, seed) for clf in networks]
    compared = compare_methods(*explanations)
    write_result(path, identity, compared)
    return compared


def identify(clf: GPT2Classifier) -> str:
    """Return the SHA-256 of the parameters of a network."""
    sha256 = hashlib.sha256()
    for _, value in sorted(clf.state_dict().items()):
        sha256.update(value.cpu().numpy().tobytes())
    return sha256.hexdigest()


def identify_text(study: Study, text: Explained, seed: int) -> Identity:
    """Return what the similarities of a text depend on."""
    settings = SETTINGS | {"pairs": SANITY_PAIRS}
    identity = {"weights": study.weights, "seed": seed, "precision": study.device.precision, "settings": settings}
    return identity | {"ids": text.parsed.ids, "groups": text.parsed.groups.tolist(), "class": text.predicted}


def explain_class(clf: GPT2Classifier, parsed: Parsed, device: Device, predicted: int, seed: int) -> dict[str, Floats]:
    """Return the values of each method for one class, (T,) each."""
    values = explain(clf, parsed, device, classes=[predicted], pairs=SANITY_PAIRS, seed=seed).values
    return {method: values[method][:, 0] for method in METHODS}


def compare_methods(a: dict[str, Floats], b: dict[str, Floats]) -> list[list[float]]:
    """Return the SIMILARITIES of each of METHODS."""
    return [compare_values(a[method], b[method]) for method in METHODS]


def tabulate_similarities(values: Floats, random: Floats, steps: Sequence[tuple[str, int, str]]) -> pd.DataFrame:
    """Return one row per step, similarity and method: values (n, steps, M, SIMILARITIES), random (n, 1, M, ...)."""
    values, random = values.swapaxes(2, 3), np.broadcast_to(random, values.shape).swapaxes(2, 3)
    columns = [column for each in (values, random, values - random) for column in (average(each), *limit_means(each))]
    index = [(*step, similarity, method) for step in steps for similarity in SIMILARITIES for method in METHODS]
    table = pd.DataFrame(index, columns=ROW).assign(n=len(values))
    return table.assign(**{name: column.ravel() for name, column in zip(NUMBERS, columns, strict=True)})


def judge_sanity(table: pd.DataFrame) -> pd.DataFrame:
    """Add the verdict on each method, by its signed Spearman correlations in the scheme `cascading`: see `judge`."""
    cascading = table[(table["scheme"] == "cascading") & (table["similarity"] == "spearman")].set_index("method")
    first, last = (cascading[cascading["step"] == step] for step in (1, cascading["step"].max()))  # in one order
    floor = np.minimum(last["value"], last["random"])
    verdicts = dict(
        zip(first.index, map(judge, first["value"], first["ci_high"], floor, last["difference_low"]), strict=True)
    )
    return table.assign(verdict=table["method"].map(verdicts))[COLUMNS]


def judge(head: float, head_high: float, floor: float, last_low: float) -> str:
    """Return the verdict on a method: `stays` if a random head (similarity `head`, limit `head_high`) changes nothing.

    `follows the network` if the head surely changes it and takes it at least half the way down to `floor`, and once
    all is random it is not surely more alike than two random networks (`last_low`, of the difference, is at most 0).
    Else `partly`. floor: the similarity to a wholly random network, or that of two such ones if it is lower. The second
    alone would not do: the gradient is as long at the same tokens in nearly all random networks, and not in ours."""
    if np.isnan(head_high):
        return "not judged"
    if head > UNCHANGED:
        return "stays"
    follows = head_high < 1 and head <= (1 + floor) / 2 and last_low <= 0
    return "follows the network" if follows else "partly"
