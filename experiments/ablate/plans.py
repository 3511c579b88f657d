"""What is taken out whatever comes out: the first plans of the sweeps."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from data.words import word_classes
from lab.progress import console
from lab.prompted import PromptStudy
from lab.sweeps import Plan, Sweeps
from lab.texts import find_words
from lab.units import each_head, each_layer, each_region, each_word_class, head_name, random_subspaces
from model import GPT2Config, InputError

Hidden = dict[str, list[NDArray[np.bool_]]]  # by class of words, one bool (T,) per text: True where a token is of it


def check_heads(names: Sequence[str], config: GPT2Config) -> None:
    """Raise InputError unless these are none, or at least two different heads."""
    heads = [head_name(head) for head in product(range(config.n_layer), range(config.n_head))]
    if names and (len(set(names)) < 2 or not set(names) <= set(heads)):
        raise InputError(f"--pairs {' '.join(names)}: expected two or more heads of {heads[0]} to {heads[-1]}")


def first_plans(
    sweeps: Sweeps, units: Sequence[str], fills: Sequence[str], rows: Sequence[int], controls: int, everything: bool
) -> Iterator[Plan]:
    """Yield the plans of heads and layers with each fill, of regions, and of words where nltk has its data.

    Regions have random cells beside them unless `controls` is 0; those of one layer alone only where `everything` is
    wanted."""
    config, splits = sweeps.study.clf.config, ("val", "test")
    for fill in fills:
        if "heads" in units:
            yield Plan("heads", fill, dict.fromkeys(splits, each_head(config)))
        if "layers" in units:
            yield Plan("layers", fill, dict.fromkeys(splits, each_layer(config)))
    if "regions" in units:
        regions = each_region(config, rows, sweeps.seed if controls else None, everything)
        yield Plan("regions", "zero", dict.fromkeys(splits, regions))
    if "words" in units and any((plan := plan_words(sweeps)).ablations.values()):
        yield plan


def control_plans(
    sweeps: Sweeps, units: Sequence[str], fills: Sequence[str], n: int, everything: bool
) -> Iterator[Plan]:
    """Yield the plans of n random subspaces in each layer, with each fill: beside heads and, where `everything` is
    wanted, beside MLPs, about which they only give a scale."""
    config = sweeps.study.clf.config
    for fill, (unit, kind) in product(fills, (("heads", "head"), ("layers", "mlp"))):
        wanted = unit in units and (kind == "head" or everything)
        if wanted and n and config.n_head > 1:  # a single head is all that a layer emits
            subspaces = random_subspaces(config, kind, n, sweeps.seed)
            yield Plan(f"{kind}-subspaces", fill, dict.fromkeys(("val", "test"), subspaces))


def plan_words(sweeps: Sweeps) -> Plan:
    """Plan to hide each class of words, and as many random tokens; of a prompt, of its text alone. Say which classes
    cannot be had."""
    study = sweeps.study
    classes, missing = word_classes(study.clf.labels)
    for line in missing:
        console.print(line)
    ablations, digest = {}, hashlib.sha256()
    for split in sweeps.splits:
        texts = sweeps.find_texts(split)
        hidden = find_words(texts, study.tokenizer, classes)
        if isinstance(study, PromptStudy):
            of_text = study.find_text(texts)
            hidden = {name: [*map(np.logical_and, rows, of_text)] for name, rows in hidden.items()}
        rng = np.random.default_rng((sweeps.seed, *split.encode()))
        ablations[split] = each_word_class(texts.sequences, hidden, rng)
        digest.update(b"/".join(row.tobytes() for rows in hidden.values() for row in rows))
    return Plan("words", "zero", ablations, digest.hexdigest())  # which tokens are hidden depends on nltk's data
