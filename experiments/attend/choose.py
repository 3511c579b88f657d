"""Choose what is shown: a few test texts of each class, right and wrong ones, and the head of the pictures."""

import numpy as np
from numpy.typing import NDArray

from lab.attention import MOST_TOKENS
from lab.predict import predict
from lab.study import Study
from lab.texts import Texts, find_whole
from lab.units import Head, parse_head
from model import GPT2Config, InputError

EACH = 2  # texts of a class that are classified right, and as many that are not
LONGEST = 64  # tokens of a text that is chosen, if any is as short
Floats = NDArray[np.floating]


def choose_texts(study: Study, texts: Texts, seed: int) -> list[tuple[str, str]]:
    """Return texts with their classes, drawn at random: of each class EACH that are classified right and EACH that are
    not, or as many as there are; by classes, right ones first. None where no text is as short as a page can draw.

    A text of which the network reads only the end is not shown."""
    predicted = predict(study.clf, texts.sequences, study.device).argmax(axis=1)
    lengths = np.array([len(ids) for ids in texts.sequences])
    drawable = find_whole(texts, study.tokenizer) & (lengths <= MOST_TOKENS)
    short = drawable & (lengths <= max(LONGEST, lengths[drawable].min(initial=MOST_TOKENS)))
    labels = study.clf.labels
    chosen = draw_examples(predicted, texts.targets, short, len(labels), seed)
    return [(texts.strings[i], labels[int(texts.targets[i])]) for i in chosen]


def draw_examples(
    predicted: NDArray[np.integer], targets: NDArray[np.integer], among: NDArray[np.bool_], n_classes: int, seed: int
) -> list[int]:
    """Return the positions of the texts that `choose_texts` chooses: predicted, targets int64 (N,), among bool (N,)."""
    rng = np.random.default_rng((seed, *b"texts shown"))
    chosen: list[int] = []
    for k in range(n_classes):
        for right in (True, False):
            fitting = np.flatnonzero(among & (targets == k) & ((predicted == k) == right))
            chosen += sorted(rng.permutation(fitting)[:EACH].tolist())
    return chosen


def choose_head(elsewhere: Floats) -> Head:
    """Return the head whose last query looks around most: mass on other tokens than the first and itself, (N, L, H)."""
    layer, head = np.unravel_index(elsewhere.mean(axis=0).argmax(), elsewhere.shape[1:])
    return int(layer), int(head)


def find_head(name: str, config: GPT2Config) -> Head:
    """Read a head as `layer.head`. Raises InputError where the network has no such head."""
    try:
        layer, head = parse_head(name)
    except ValueError:
        layer, head = -1, -1
    if not (0 <= layer < config.n_layer and 0 <= head < config.n_head):
        most = f"0.0 to {config.n_layer - 1}.{config.n_head - 1}"
        raise InputError(f"--head {name}: expected layer.head, from {most}, as 0.3")
    return layer, head
