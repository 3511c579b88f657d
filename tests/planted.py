"""Small classifiers of which it is known what ablation, probes and patches have to find, opened for them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from experiments.patch.pairs import Pair
from experiments.patch.subject import Subject
from lab.device import Device
from lab.study import Study
from lab.sweeps import Sweeps
from lab.texts import Texts
from model import GPT2LM, GPT2Classifier, GPT2Config

Sequences, Targets = dict[str, list[list[int]]], dict[str, np.ndarray]  # by split


def planted() -> GPT2Classifier:
    """A classifier in which head (1, 2) alone tells class 0, by a marker anywhere in the text; the other classes stand
    in the last token. The other heads add noise that has nothing to do with the class."""
    config = GPT2Config(2, 3, 12, n_ctx=7, vocab_size=12, dropout=0.0, attn_dropout=0.0)
    clf = GPT2Classifier(config, list("abcd"))
    D, C = config.head_width, config.n_embd
    with torch.no_grad():
        for name, parameter in clf.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        clf.trunk.wte.weight[0, 0] = 1  # the marker
        clf.trunk.wte.weight[1, 9] = 1  # stands in its place elsewhere
        for k in (1, 2, 3):  # tokens 2, 3, 4: a class
            clf.trunk.wte.weight[k + 1, k] = 1
            clf.score.weight[k, k] = 3
        for n, (dim, sign) in enumerate((dim, sign) for dim in (4, 5, 6) for sign in (1, -1)):  # fillers, in pairs
            clf.trunk.wte.weight[5 + n, dim] = sign
        for layer, head in [(layer, head) for layer in range(2) for head in range(3)]:
            attn, value = clf.trunk.h[layer].attn, 2 * C + head * D
            if (layer, head) == (1, 2):
                attn.c_attn.weight[value, 0] = 1
                attn.c_attn.weight[value, 9] = -1
                attn.c_proj.weight[8, head * D] = 4
            else:  # reads a difference of fillers, which is 0 for all other tokens
                attn.c_attn.weight[value, 4 + head] = 1
                attn.c_attn.weight[value, 4 + (head + 1) % 3] = -1
                attn.c_proj.weight[:, head * D] = 0.01 * torch.randn(C, generator=torch.Generator().manual_seed(head))
        clf.score.weight[0, 8] = 3
    return clf


def spread() -> GPT2Classifier:
    """The same, but all heads of layer 1 tell class 0, a third each."""
    clf = planted()
    D, C = clf.config.head_width, clf.config.n_embd
    attn = clf.trunk.h[1].attn
    with torch.no_grad():
        reads_the_marker = attn.c_attn.weight[2 * C + 2 * D].clone()
        for head in range(3):
            attn.c_attn.weight[2 * C + head * D] = reads_the_marker
            attn.c_proj.weight[:, head * D] = 0
            attn.c_proj.weight[8, head * D] = 4 / 3
    return clf


def planted_texts() -> tuple[Sequences, Targets]:
    """Token ids of 200 texts of train, val and test, and their classes."""
    rng = np.random.default_rng(0)
    targets = {split: rng.integers(0, 4, 200) for split in ("train", "val", "test")}
    sequences: Sequences = {}
    for split, classes in targets.items():
        sequences[split] = []
        for k in classes.tolist():
            tokens = rng.permutation([int(k != 0), *rng.integers(5, 11, 4)]).tolist()
            sequences[split].append([*tokens, k + 1 if k else int(rng.integers(2, 5))])
    return sequences, targets


def learnt() -> tuple[GPT2Classifier, Sequences, Targets]:
    """A classifier that has learnt to tell four classes by key words, from all of its parts, and 151 texts of each
    split, nearly all of which it gets right."""
    rng = np.random.default_rng(0)
    targets = {split: rng.integers(0, 4, 151) for split in ("train", "val", "test")}
    sequences = {
        split: [[int(t) for t in rng.permutation([k + 4 * rng.integers(2), *rng.integers(8, 23, 6)])] for k in classes]
        for split, classes in targets.items()
    }
    torch.manual_seed(0)
    clf = GPT2Classifier(GPT2Config(2, 3, 24, n_ctx=7, vocab_size=23, dropout=0.0, attn_dropout=0.0), list("abcd"))
    optimizer = torch.optim.Adam(clf.parameters(), lr=0.01)
    for _ in range(60):
        loss = F.cross_entropy(clf(torch.tensor(sequences["train"])), torch.tensor(targets["train"]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return clf, sequences, targets


def texts_of(split: str, sequences: list[list[int]], targets: np.ndarray) -> Texts:
    """These texts as a split; their strings are empty."""
    return Texts(split, np.arange(len(sequences)), [""] * len(sequences), sequences, np.asarray(targets))


def draw_texts(split: str, lengths: tuple[int, ...], seed: int) -> Texts:
    """Texts of these lengths of random tokens 0 .. 100, of four classes."""
    rng = np.random.default_rng(seed)
    return texts_of(split, [rng.integers(0, 101, n).tolist() for n in lengths], rng.integers(0, 4, len(lengths)))


def draw_splits() -> dict[str, Texts]:
    """A train of 11 such texts, two of one token, and a val of 7."""
    return {
        "train": draw_texts("train", (3, 13, 1, 7, 7, 2, 11, 5, 1, 4, 13), 0),
        "val": draw_texts("val", (2, 9, 1, 6, 6, 12, 3), 1),
    }


def sweeps_of(clf: GPT2Classifier, sequences: Sequences, targets: Targets, folder: Path) -> Sweeps:
    """Sweeps over these texts of train, val and test."""
    texts = {split: texts_of(split, sequences[split], targets[split]) for split in sequences}
    device = Device(torch.device("cpu"), "fp32")
    study = Study(folder, {}, clf.eval(), None, SimpleNamespace(files={}), texts, device, "")
    (folder / "logits").mkdir(parents=True)
    return Sweeps(study, folder / "logits", 0, 0)


def planted_circuit(beside: float = 0.0) -> GPT2Classifier:
    """A classifier with one way from a word to the logits: head 0.1 copies what the word (tokens 1 and 2) says to all
    later tokens, MLP 0 passes it on, head 1.2 reads it there and tells the class. Head 1.0 does 0.5 % of the same.

    beside: what head 0.2 tells the class by a way of its own, beside what head 1.2 does. Attention is uniform. What
    is said is +x in one dimension and -x in the next, so no LayerNorm changes with it."""
    clf = GPT2Classifier(GPT2Config(2, 3, 12, n_ctx=7, vocab_size=6, dropout=0.0, attn_dropout=0.0), ["a", "b"])
    with torch.no_grad():
        for name, parameter in clf.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)

        for token, dim, x in ((1, 0, 1), (2, 0, -1), (3, 8, 1), (4, 8, 2), (5, 8, -1)):  # words, and fillers
            clf.trunk.wte.weight[token, dim : dim + 2] = torch.tensor([x, -x])
        for layer, head, reads, writes, size in (
            *((0, 1, 0, 2, 1), (0, 2, 0, 4, beside)),
            *((1, 0, 6, 4, 0.005), (1, 1, 2, 10, 1), (1, 2, 6, 4, 1)),  # nobody reads what head 1.1 writes
        ):
            attn, column = clf.trunk.h[layer].attn, head * clf.config.head_width
            attn.c_attn.weight[2 * clf.config.n_embd + column, reads : reads + 2] = torch.tensor([1, -1])
            attn.c_proj.weight[writes : writes + 2, column] = torch.tensor([size, -size])
        to_and_fro = torch.tensor([[1, -1], [-1, 1]])  # gelu(x) - gelu(-x) = x
        clf.trunk.h[0].mlp.c_fc.weight[:2, 2:4] = clf.trunk.h[0].mlp.c_proj.weight[6:8, :2] = to_and_fro
        clf.score.weight[:, 4:6] = to_and_fro
    return clf.eval().requires_grad_(False)


def subject_of(
    model: GPT2Classifier | GPT2LM, pairs: list[Pair], gaps: list[float], folder: Path, **identity: object
) -> Subject:
    """These pairs of texts, all of which were kept, and a folder for results."""
    table = pd.DataFrame({"pair": [pair.number for pair in pairs], "clean": [p.clean for p in pairs], "gap": gaps})
    device = Device(torch.device("cpu"), "fp32")
    identity = {"weights": "0123", "seed": 0, "precision": "fp32"} | identity
    (folder / "patch" / "results").mkdir(parents=True, exist_ok=True)
    return Subject(folder, model, None, pairs, table.assign(kept=True), device, identity, [])
