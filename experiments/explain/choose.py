"""Choose the texts that are explained, and predict them: as many of each class, right and wrong ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.predict import predict
from lab.study import Study
from lab.texts import Texts, check_pair, check_text, find_whole
from model import InputError

from .attributions import Floats
from .methods import Explanation, Parsed, parse

LONGEST = 64  # tokens of a text that is chosen, if any is as short: the work grows with the square of it
OF_USER = "user"  # the split of texts that were given with --text


@dataclass(frozen=True, eq=False)
class Chosen:
    """A text to explain. The class that is explained is the predicted one, right or wrong."""

    split: str
    index: int  # position in the split
    parsed: Parsed
    label: int | None  # class number; None: nobody has labelled it
    probabilities: Floats  # (K,)

    @property
    def predicted(self) -> int:
        return int(self.probabilities.argmax())

    @property
    def name(self) -> str:
        return f"{self.split} {self.index}"


@dataclass(frozen=True, eq=False)
class Explained(Chosen):
    """A text with its explanation for all classes."""

    explanation: Explanation


def choose_texts(study: Study, n: int, seed: int) -> list[Chosen]:
    """Return n test texts: of each class as many as of the others, half of them classified right, as far as there are
    such. Raises InputError where the network reads none of them whole."""
    texts = study.texts["test"]
    lengths = np.array([len(ids) for ids in texts.sequences])
    whole = find_whole(texts, study.tokenizer)
    if not whole.any():
        raise InputError("the network reads no test text whole, and a part of a text cannot be explained; see --text")
    short = whole & (lengths <= max(LONGEST, lengths[whole].min()))
    probabilities = predict(study.clf, texts.sequences, study.device)
    if not np.isfinite(probabilities).all():
        raise InputError(f"{study.run}: the network gives no finite probabilities, so there is nothing to explain")
    cells = 2 * texts.targets + (probabilities.argmax(axis=1) == texts.targets)
    return [describe(study, texts, i, probabilities[i]) for i in draw_balanced(cells, short, n, seed)]


def describe(study: Study, texts: Texts, i: int, probabilities: Floats) -> Chosen:
    """Return one text of a split, parsed."""
    parsed = parse(texts.strings[i], study.tokenizer)
    return Chosen(texts.split, int(texts.positions[i]), parsed, int(texts.targets[i]), probabilities)


def draw_balanced(cells: NDArray[np.integer], among: NDArray[np.bool_], n: int, seed: int) -> list[int]:
    """Return n positions among those that may be drawn, in order: one of each cell in turn, as long as it has some.

    cells int, among bool: (N,). All positions where there are fewer than n."""
    order = np.random.default_rng((seed, *b"texts explained")).permutation(len(cells))
    order = order[among[order]]
    turn = np.empty(len(order), dtype=np.int64)  # how many of its cell come before
    for cell in np.unique(cells):
        turn[cells[order] == cell] = np.arange((cells[order] == cell).sum())
    return sorted(order[np.argsort(turn, kind="stable")[:n]].tolist())


def parse_users(study: Study, strings: Sequence[str]) -> list[Chosen]:
    """Return the texts of the user, or the prompts that the run puts them into. Raises InputError as `check_text`
    does."""
    check_pair(study.tokenizer, study.clf.config)
    chosen = []
    for index, text in enumerate(strings):
        filled = study.fill(text)
        check_text(filled, study.tokenizer, study.clf.config.n_ctx, f"--text {text[:40]!r}")
        parsed = parse(filled, study.tokenizer)
        chosen.append(Chosen(OF_USER, index, parsed, None, predict(study.clf, [parsed.ids], study.device)[0]))
    return chosen
