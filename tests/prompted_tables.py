"""Answers of prompts that nobody has asked: how much they know of the class, and which label word they prefer, is
planted."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from experiments.prompt.scoring import Answers
from experiments.prompt.tables import tabulate_scores
from lab.texts import Texts

LABELS = ("anger", "fear", "joy")
SHARES = np.array([0.2, 0.3, 0.5])
PREFERENCE = np.array([0.0, 0.0, 6.0])  # nats, whatever the text is
N = {"val": 61, "test": 53}
MASS = 0.02  # of all label words together


def make_texts(seed: int = 0) -> dict[str, Texts]:
    """Return texts whose classes have about the shares SHARES; what is written in them does not matter."""
    texts = {}
    for split, n in N.items():
        targets = np.random.default_rng((seed, *split.encode())).choice(3, n, p=SHARES)
        texts[split] = Texts(split, np.arange(n) * 2, [f"text {i}" for i in range(n)], [[i] for i in range(n)], targets)
    return texts


def make_answers(texts: Mapping[str, Texts], signal: float, seed: int = 0, **about: Any) -> list[Answers]:
    """Return the answers of one prompt, whose log-odds of the true class are `signal` and noise, on top of PREFERENCE:
    direct, with b as planted (domain_pmi), and with b as val says (batch)."""
    rng, log_probs = np.random.default_rng(seed), {}
    for split, each in texts.items():
        x = signal * np.eye(3)[each.targets] + rng.normal(size=(len(each), 3)) + PREFERENCE
        log_probs[split] = log_softmax(x, axis=1) + np.log(MASS)
    priors = {"direct": np.zeros(3), "domain_pmi": PREFERENCE, "batch": log_probs["val"].mean(axis=0)}
    setting = {"template": "feeling", "verbalizer": "first word", "shots": 0, "draw": "", "order": "", "last_class": ""}
    return [
        Answers(**(setting | about), correction=correction, split=split, log_probs=log_probs[split], b=b)
        for split in texts
        for correction, b in priors.items()
    ]


def make_few_shot(texts: Mapping[str, Texts], signal: float, shots: int, draws: int = 3) -> list[Answers]:
    """Return the answers of several draws of examples."""
    return [
        answer
        for draw in range(draws)
        for answer in make_answers(
            texts, signal, 100 * shots + draw, shots=shots, draw=str(draw), order="0", last_class=LABELS[draw % 3]
        )
    ]


def make_orders(texts: Mapping[str, Texts], signal: float) -> list[Answers]:
    """Return the answers of six orders of one draw of an example per class."""
    return [
        answer
        for order in range(6)
        for answer in make_answers(
            texts, signal, 100 + 1000 * order, shots=1, draw="orders", order=str(order), last_class=LABELS[order % 3]
        )
    ]


def make_ensemble(answers: Sequence[Answers], **about: str) -> list[Answers]:
    """Return the mean of several prompts, for each correction and split."""
    together = []
    for key in dict.fromkeys((each.correction, each.split) for each in answers):
        members = [each for each in answers if (each.correction, each.split) == key]
        log_probs, b = (np.mean([getattr(each, name) for each in members], axis=0) for name in ("log_probs", "b"))
        together.append(replace(members[0], log_probs=log_probs, b=b, order="", last_class="", **about))
    return together


def make_all(texts: Mapping[str, Texts], signal: float) -> list[Answers]:
    """Return two templates, a transductive answer, a channel, few-shot draws, nearest examples, orders, ensembles."""
    first, second = make_answers(texts, signal), make_answers(texts, signal, 1, template="mood")
    few = make_few_shot(texts, signal, 1) + make_few_shot(texts, signal, 4)
    seen = [replace(each, correction="batch_transductive") for each in first if each.correction == "batch"]
    channel = [
        replace(each, correction="channel", log_probs=each.log_probs * 3, b=np.zeros(3))
        for each in first
        if each.correction == "direct"
    ]
    nearest = make_answers(texts, signal, 7, shots=1, draw="nearest", order="far_to_near")
    together = make_ensemble(first + second, template="all")
    for shots in (1, 4):
        together += make_ensemble([each for each in few if each.shots == shots], draw="all")
    return [*first, *second, *seen, *channel, *few, *nearest, *make_orders(texts, signal), *together]


def tabulate(answers: Sequence[Answers], texts: Mapping[str, Texts]) -> pd.DataFrame:
    return tabulate_scores(answers, {split: each.targets for split, each in texts.items()}, LABELS, SHARES, "tiny")


def make_curve() -> pd.DataFrame:
    rows = [
        {"method": method, "shots": shots, "draw": draw, "n_train": 3 * shots, "n": 53, "accuracy": 0.5}
        | {"macro_f1": 0.3 + 0.1 * np.log2(shots) / 2 + 0.02 * draw}
        for method, draws in (("probe", 5), ("fine_tuned", 3))
        for shots in (1, 4, 16)
        for draw in range(draws)
    ]
    full = {"method": "probe", "shots": 300, "draw": 0, "n_train": 900, "n": 53, "accuracy": 0.8, "macro_f1": 0.77}
    return pd.DataFrame([*rows, full])


def make_effects(layers: int = 2, heads: int = 4, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"kind": "head", "layer": layer, "head": head, "fill": "mean", "split": "test", "class": label}
        | {"metric": "specific_margin", "effect": rng.normal(), "correction": correction, "template": "feeling"}
        for correction in ("direct", "batch", "classifier")
        for layer in range(layers)
        for head in range(heads)
        for label in LABELS
    )


def make_correlations(spearman: float = 0.61, ci_low: float = 0.2, p: float = 0.001) -> pd.DataFrame:
    limits = {"spearman": spearman, "ci_low": ci_low, "ci_high": 0.9, "p": p}
    return pd.DataFrame(
        {"correction": correction, "class": label, "n_heads": 8, **limits}
        | {"reliability_prompt": 0.7, "reliability_classifier": 0.95}
        for correction in ("direct", "batch")
        for label in ("all", *LABELS)
    )
