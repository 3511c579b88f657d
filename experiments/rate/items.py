"""The items: texts of `make explain` with their prediction, and how important each method calls each word of them.

A word is weighed for the class that the network predicts. A rater sees its absolute value alone, in one colour."""

import hashlib
import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab.output import read_csv
from model import InputError

RANDOM = "random"  # a method whose words have the values of `Items.method`, shuffled
OF_USER = "user"  # the split of texts that were given with --text: nobody else rates them
STRINGS = ("split", "text", "label", "predicted", "token", "word", "class", "method")
LARGEST, FEWEST = 16, 4  # texts of each part of the simulation
PLACES = 3  # decimals of a weight
CHOICES, MARKED = 20, 10  # texts on which methods are compared, and whose words are marked
Json = dict[str, Any]


@dataclass(frozen=True)
class RatedText:
    """A text, cut into words; white space and single tokens that are no word stand among them, and are not `real`."""

    split: str
    index: int
    text: str
    label: str
    predicted: str
    words: list[str]  # which joined are the text
    real: list[bool]
    values: dict[str, list[float]]  # by method, one for each word

    @property
    def cell(self) -> tuple[str, bool]:
        return self.predicted, self.label == self.predicted

    def weigh(self, method: str) -> list[float]:
        """Return how strongly each word is coloured: its absolute value as a share of the largest one."""
        sizes = np.abs(self.values[method])
        return (sizes / (sizes.max() or 1)).round(PLACES).tolist()


@dataclass(frozen=True)
class Items:
    """What all raters are shown, whatever its order. Texts are named by their place in `texts`."""

    run: str
    labels: list[str]
    method: str  # explains the examples, and is compared ...
    against: str  # ... with this one
    seed: int
    texts: list[RatedText]
    examples: list[int]
    pairs: list[list[int]]  # one text of each half of the predictions, as like each other as can be
    choices: list[int]
    marked: list[int]

    @cached_property
    def version(self) -> str:
        """A name for exactly these items."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def description(self) -> str:
        fewer = f"; at least {3 * LARGEST} texts would give {LARGEST} of each" if len(self.pairs) < LARGEST else ""
        return (
            f"Items {self.version}: {len(self.examples)} examples, {len(self.pairs)} predictions before and after, "
            f"{len(self.choices)} choices, {len(self.marked)} texts to mark{fewer}"
        )

    @classmethod
    def from_json(cls, content: Json) -> "Items":
        return cls(**content | {"texts": [RatedText(**text) for text in content["texts"]]})


def make_items(folder: Path, run: str, method: str, against: str, seed: int) -> Items:
    """Return the items of what `make explain` left in a folder. Raises InputError where it does not suffice."""
    labels, texts = read_texts(folder)
    methods = list(texts[0].values)
    for option, name, others in (("method", method, methods), ("against", against, [RANDOM, *methods])):
        if name not in others:
            raise InputError(f"--{option} {name}: expected one of {', '.join(others)}")
    if method == against:
        raise InputError(f"--against {against}: expected another method than --method")
    if len(texts) < 3 * FEWEST:
        raise InputError(
            f"{folder}: expected at least {3 * FEWEST} explained texts, got {len(texts)}; see explain.py --texts"
        )
    rng = np.random.default_rng((seed, *b"items to rate"))
    for text in texts:
        text.values[RANDOM] = rng.permutation(text.values[method]).tolist()
    pairs, rest = draw_pairs(texts, min(LARGEST, len(texts) // 3), rng)
    examples = [i for i, _ in zip(deal(texts, rest, rng), pairs, strict=False)]
    predicted = [i for i in deal(texts, [*chain(*pairs)], rng) if sum(texts[i].real) > 1]  # one word has no rank
    n_marked = min(MARKED, len(predicted) // 3)
    marked, compared = predicted[:n_marked], predicted[n_marked:]
    choices = [i for i in compared if texts[i].weigh(method) != texts[i].weigh(against)][:CHOICES]
    return Items(run, labels, method, against, seed, texts, examples, pairs, choices, marked)


def deal(texts: Sequence[RatedText], among: Iterable[int], rng: np.random.Generator) -> Iterator[int]:
    """Yield some texts in turn: one of each predicted class, as long as it has some, and of a class right and wrong
    ones in turn. Which classes come first is drawn, and every other one begins with a right one."""
    shuffled = rng.permutation(np.array([*among], dtype=int)).tolist()
    classes = rng.permutation(sorted({texts[i].predicted for i in shuffled})).tolist()
    cells = [
        [[i for i in shuffled if texts[i].cell == (label, right)] for right in (place % 2 == 0, place % 2 == 1)]
        for place, label in enumerate(classes)
    ]
    return take_turns([take_turns(of_class) for of_class in cells])


def take_turns(groups: Sequence[Iterable[int]]) -> Iterator[int]:
    """Yield the first text of each group, then the second of each that has one, and so on."""
    return (i for turn in zip_longest(*groups) for i in turn if i is not None)


def draw_pairs(texts: Sequence[RatedText], n: int, rng: np.random.Generator) -> tuple[list[list[int]], list[int]]:
    """Return n pairs of texts, and the other texts. A pair is of one class, both right or both wrong; where there are
    no such any more, of one class; else any two. Of pairs of which one text is right, every other has it first."""
    rest, pairs = list(deal(texts, range(len(texts)), rng)), list[list[int]]()
    for alike in (lambda text: text.cell, lambda text: text.predicted, lambda text: ""):
        groups: dict[object, list[int]] = {}
        for i in rest:
            groups.setdefault(alike(texts[i]), []).append(i)
        partner = {i: j for group in groups.values() for i, j in zip(group[::2], group[1::2], strict=False)}
        pairs += [[i, partner[i]] for i in deal(texts, partner, rng)][: n - len(pairs)]
        rest = [i for i in rest if i not in {*chain(*pairs)}]
    right_first = True
    for pair in pairs:
        first, second = (texts[i].cell[1] for i in pair)
        if first != second:
            pair.sort(key=lambda i: texts[i].cell[1] != right_first)
            right_first = not right_first
    return pairs, rest


def read_texts(folder: Path) -> tuple[list[str], list[RatedText]]:
    """Return the labels, and the texts that are no user's. Raises InputError where files are missing or do not fit."""
    table, attributions = (read_explained(folder / f"{name}.csv") for name in ("texts", "attributions"))
    labels = [name.removeprefix("p_") for name in map(str, table) if name.startswith("p_")]
    table = table[table["split"] != OF_USER]
    if table.empty or not labels:
        raise InputError(f"{folder / 'texts.csv'}: expected texts of the corpus, got none; run `make explain` again")
    tokens = dict(list(attributions.groupby(["split", "index", "class"], sort=False)))
    texts, methods = [], {*attributions["method"].unique()}
    for row in table.to_dict("records"):
        rows = tokens.get((row["split"], row["index"], row["predicted"]), attributions[:0])
        text = weigh_words(row, rows)
        same = all(text.text[start:end] == token for start, end, token in rows[["start", "end", "token"]].to_numpy())
        if not same or "".join(text.words) != text.text or {*text.values} != methods:
            raise InputError(f"{folder}: attributions.csv does not fit texts.csv; run `make explain` again")
        texts.append(text)
    return labels, texts


def read_explained(path: Path) -> pd.DataFrame:
    """Read a table of `explain.py`. Raises InputError where there is none."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; run `make explain` first")
    return read_csv(path, STRINGS)


def weigh_words(row: Mapping[Hashable, Any], rows: pd.DataFrame) -> RatedText:
    """Return a text with the sums over the tokens of each word. rows: its tokens by method, for the class predicted.

    Tokens that share a character stand together: halves of an emoji are no words."""
    split, index, text, label, predicted = (row[name] for name in ("split", "index", "text", "label", "predicted"))
    by_method = dict(list(rows.sort_values("position", kind="stable").groupby("method", sort=False)))
    tokens = next(iter(by_method.values()), rows)
    words, real, of_token, last_group, last_end = list[str](), list[bool](), list[int](), -1, 0
    for group, start, end, word in tokens[["group", "start", "end", "word"]].to_numpy():
        if words and (group == last_group or start < last_end):
            words[-1] += text[last_end:end]
            real[-1] |= word != ""
        else:
            words.append(text[start:end])
            real.append(word != "")
        last_group, last_end = group, max(end, last_end)
        of_token.append(len(words) - 1)
    sums = {
        str(method): np.bincount(of_token, of_method["value"], len(words)).tolist()
        for method, of_method in by_method.items()
        if len(of_method) == len(of_token)
    }
    return RatedText(split, int(index), text, label, predicted, words, real, sums)
