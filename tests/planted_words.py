"""A classifier of which it is known which token decides, texts for it, and their explanations."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from experiments.explain.choose import Explained
from experiments.explain.methods import Parsed, explain
from lab.device import Device
from lab.predict import predict
from lab.study import Study
from model import GPT2Classifier, GPT2Config

CPU = Device(torch.device("cpu"), "fp32")
KEYS, VOCABULARY = 4, 12  # tokens 0 .. 3 name a class each; the others are fillers
SHARED, KEY, ANSWER, FILLER = 0, 2, 10, 18  # where the channels begin, two dimensions each


def plant_words() -> GPT2Classifier:
    """A classifier of two layers in which one token decides the class: a head with uniform attention copies the channel
    of a key word to the answers, which the score reads.

    All embeddings have a large part in common, so that LayerNorm is nearly linear. Position counts for nothing."""
    clf = GPT2Classifier(
        GPT2Config(2, 2, 26, n_ctx=11, vocab_size=VOCABULARY, dropout=0.0, attn_dropout=0.0), list("abcd")
    )
    apart = torch.tensor([1.0, -1.0])
    with torch.no_grad():
        for name, parameter in clf.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        clf.trunk.wte.weight[:, SHARED : SHARED + 2] = 5 * apart
        attn = clf.trunk.h[0].attn
        for k in range(KEYS):
            key, answer = KEY + 2 * k, ANSWER + 2 * k
            clf.trunk.wte.weight[k, key : key + 2] = apart
            attn.c_attn.weight[2 * 26 + k, key : key + 2] = apart
            attn.c_proj.weight[answer : answer + 2, k] = 10 * apart
            clf.score.weight[k, answer : answer + 2] = apart
        for j in range(KEYS, VOCABULARY):
            dim = FILLER + 2 * ((j - KEYS) // 2)
            clf.trunk.wte.weight[j, dim : dim + 2] = (-1) ** j * apart
    return clf.eval().requires_grad_(False)


def draw_texts(n: int, seed: int = 0) -> tuple[list[list[int]], list[int]]:
    """Return token ids of n texts of 6 to 8 tokens, and where in each the key word stands: never first or last."""
    rng = np.random.default_rng(seed)
    sequences, positions = [], []
    for i in range(n):
        ids = rng.integers(KEYS, VOCABULARY, rng.integers(6, 9)).tolist()
        positions.append(int(rng.integers(1, len(ids) - 1)))
        ids[positions[-1]] = i % KEYS
        sequences.append(ids)
    return sequences, positions


def parse_ids(ids: list[int]) -> Parsed:
    """Token ids as a text in which each token is a word."""
    pieces = [(f" {token}", i, i + 1) for i, token in enumerate(ids)]
    return Parsed("", ids, pieces, np.arange(len(ids)), [str(token) for token in ids])


def explain_texts(clf: GPT2Classifier, sequences: Sequence[list[int]], split: str = "test") -> list[Explained]:
    """These texts with their explanations."""
    probabilities = predict(clf, sequences, CPU)
    return [
        Explained(split, i, parse_ids(ids), None, p, explain(clf, parse_ids(ids), CPU, pairs=2))
        for i, (ids, p) in enumerate(zip(sequences, probabilities, strict=True))
    ]


def study_of(clf: GPT2Classifier, folder: Path) -> Study:
    """This classifier as a run under study, and a folder for results."""
    return Study(folder, {}, clf, None, SimpleNamespace(files={}), {}, CPU, "0" * 64)
