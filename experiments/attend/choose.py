"""Choose the texts that are shown: those of the user, then a few of each class, right and wrong ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lab.attention import MOST_TOKENS, Recording, list_tokens, record_attention
from lab.device import Device
from lab.predict import predict
from lab.study import Study
from lab.texts import Texts
from model import GPT2Classifier, InputError, Tokenizer

EACH = 2  # texts of a class that are classified right, and as many that are not
LONGEST = 64  # tokens of a text that is chosen


@dataclass(frozen=True)
class Shown:
    """A text that is shown, with the classes in the order of the logits."""

    text: str
    ids: Sequence[int]
    pieces: Sequence[tuple[str, int, int]]  # `Tokenizer.pieces`, one for each of its ids
    probabilities: Sequence[float]  # (K,)
    predicted: str
    label: str | None = None  # None: a text of the user


def read_text(text: str, clf: GPT2Classifier, tokenizer: Tokenizer) -> Shown:
    """Read a text of the user. Raises InputError where it is empty, or has too many tokens to be drawn."""
    ids, most = tokenizer.encode(text), min(MOST_TOKENS, clf.config.n_ctx)
    if not ids:
        raise InputError("text: expected at least one word, got an empty text")
    if len(ids) > most:
        raise InputError(f"text: expected at most {most} tokens, got {len(ids)}; shorten it")
    device = Device(next(clf.parameters()).device, "fp32")
    [probabilities] = predict(clf, [ids], device).tolist()
    return Shown(text, ids, tokenizer.pieces(text), probabilities, clf.labels[int(np.argmax(probabilities))])


def choose_texts(study: Study, texts: Texts, seed: int) -> list[Shown]:
    """Choose at random, of each class, EACH texts that are classified right and EACH that are not, of at most LONGEST
    tokens; fewer where there are fewer. By classes, right ones first."""
    probabilities = predict(study.clf, texts.sequences, study.device)
    chosen, labels = draw_examples(probabilities.argmax(axis=1), texts, len(study.clf.labels), seed), study.clf.labels
    return [
        Shown(
            texts.strings[i],
            texts.sequences[i],
            study.tokenizer.pieces(texts.strings[i])[
                -len(texts.sequences[i]) :
            ],  # a long text was truncated to its end
            probabilities[i].tolist(),
            labels[int(probabilities[i].argmax())],
            labels[int(texts.targets[i])],
        )
        for i in chosen
    ]


def draw_examples(predicted: NDArray[np.integer], texts: Texts, n_classes: int, seed: int) -> list[int]:
    """Return the positions of the texts that `choose_texts` chooses, predicted classes int64 (N,)."""
    rng = np.random.default_rng((seed, *b"texts shown"))
    short = np.array([len(ids) <= LONGEST for ids in texts.sequences])
    chosen: list[int] = []
    for k in range(n_classes):
        for right in (True, False):
            among = np.flatnonzero(short & (texts.targets == k) & ((predicted == k) == right))
            chosen += sorted(rng.permutation(among)[:EACH].tolist())
    return chosen


def record_text(clf: GPT2Classifier, shown: Shown) -> Recording:
    """Record the attention of every head in a text that is shown."""
    ids = torch.tensor([list(shown.ids)], device=next(clf.parameters()).device)
    with torch.inference_mode():
        return record_attention(clf.trunk, clf.trunk.embed(ids), list_tokens(shown.pieces), {})
