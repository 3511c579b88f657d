"""Settings with examples: random draws, all orders of one draw, and the nearest examples of each text.

Letters: K classes, N texts, M texts of the pool, and those of the forward pass."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd

from data.prompts import Template
from lab.demonstrations import draw_demonstrations
from lab.label_words import LabelWords
from lab.prompted import Prompted
from lab.prompts import BETWEEN, Demonstration
from lab.texts import Texts
from model import InputError

from .features import Floats, record_features
from .scoring import NEAREST, ORDERED, Setting

ORDERS = 24  # of four texts (Lu et al. 2022)
NEAR_TO_FAR, FAR_TO_NEAR = "near_to_far", "far_to_near"  # orders of the nearest examples


def draw_settings(
    template: Template, pool: Sequence[Demonstration], shots: int, draws: int, words: LabelWords, seed: int
) -> list[Setting]:
    """Return a setting for each of `draws` draws of `shots` examples of each class, whose last class rotates.

    Raises InputError where a class has too few texts."""
    return [
        Setting(template, shots, str(draw), "0", draw_demonstrations(pool, shots, draw, words, seed))
        for draw in range(draws)
    ]


def list_orders(template: Template, pool: Sequence[Demonstration], words: LabelWords, seed: int) -> list[Setting]:
    """Return settings that differ in the order of their examples alone.

    The examples are four of two classes, else one of each. All orders of up to four are taken (of three there are six),
    and 24 of more, in which each class comes last as often as possible. Order 0 is that of draw 0."""
    K = len(words.labels)
    shots = max(1, 4 // K)
    drawn = draw_demonstrations(pool, shots, 0, words, seed)
    orders = list(permutations(drawn)) if math.factorial(len(drawn)) <= ORDERS else draw_orders(drawn, K, seed)
    return [Setting(template, shots, ORDERED, str(n), order) for n, order in enumerate(orders)]


def draw_orders(drawn: tuple[Demonstration, ...], K: int, seed: int) -> list[tuple[Demonstration, ...]]:
    """Return 24 different random orders of one example of each class, the first as drawn; the last class rotates."""
    rng, orders = np.random.default_rng((seed, *b"orders of the examples")), [drawn]
    while len(orders) < ORDERS:
        last = next(each for each in drawn if each.target == len(orders) % K)
        others = [each for each in drawn if each is not last]
        order = (*(others[i] for i in rng.permutation(len(others))), last)
        if order not in orders:
            orders.append(order)
    return orders


def find_nearest_settings(
    template: Template,
    pool: Sequence[Demonstration],
    texts: Mapping[str, Texts],
    prompted: Prompted,
    shots: int,
    folder: Path,
    seed: int,
) -> list[Setting]:
    """Return two settings, in which the examples of each text are the shots * K of the pool that are nearest to it, of
    whatever class (KATE, Liu et al. 2021): from near to far, and from far to near.

    Near is a large cosine of the network's mean vectors, centred by the pool's mean. `folder` keeps the vectors.
    Raises InputError where the pool has too few texts."""
    n = shots * len(prompted.words.labels)
    if len(pool) < n:
        raise InputError(f"--shots {shots}: expected {n:,} texts of train as examples, got {len(pool):,}; take fewer")
    vectors = record_features(prompted, [each.text for each in pool], "train", folder, seed).mean
    centre = vectors.mean(axis=0)
    near_to_far = {}
    for split, each in texts.items():
        asked = record_features(prompted, each.strings, split, folder, seed).mean
        ranked = rank_neighbours(asked - centre, vectors - centre, n)
        near_to_far[split] = [tuple(pool[i] for i in neighbours) for neighbours in ranked]
    far_to_near = {split: [examples[::-1] for examples in each] for split, each in near_to_far.items()}
    return [
        Setting(template, shots, NEAREST, NEAR_TO_FAR, nearest=near_to_far),
        Setting(template, shots, NEAREST, FAR_TO_NEAR, nearest=far_to_near),
    ]


def rank_neighbours(asked: Floats, vectors: Floats, n: int) -> Iterator[list[int]]:
    """Yield, for each of N vectors (N, C), the n rows of (M, C) of largest cosine, the largest first."""
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(np.finfo(vectors.dtype).tiny)
    for vector in asked:
        yield np.argsort(-(directions @ vector), kind="stable")[:n].tolist()


@dataclass(frozen=True)
class Size:
    """The numbers of tokens in a prompt."""

    shots: int
    examples: list[int]  # of each; those that a prompt of fewer shots has come first
    text: int  # of the filled template with the longest label word but for its last token

    @property
    def total(self) -> int:
        return sum(self.examples) + self.text

    def count_shots(self, K: int, n_ctx: int) -> int:
        """Return how many examples of each class fit; -1 where the text does not."""
        return int((np.cumsum([self.text, *self.examples])[::K] <= n_ctx).sum()) - 1


def check_fit(settings: Sequence[Setting], texts: Mapping[str, Texts], prompted: Prompted) -> None:
    """Raise InputError where a prompt is longer than the network's context, and say how many examples fit.

    Examples and texts are counted apart, which is quick, and wrong by few tokens; `Prompted.encode` is exact."""

    @cache
    def count(string: str) -> int:
        return len(prompted.tokenizer.encode(string))

    K, n_ctx = len(prompted.words.labels), prompted.lm.config.n_ctx
    sizes = [size for setting in settings for size in measure_sizes(setting, texts, prompted.words, count)]
    too_long = [size for size in sizes if size.total > n_ctx]
    if not too_long:
        return
    longest, fits = max(too_long, key=lambda size: size.total), min(size.count_shots(K, n_ctx) for size in too_long)
    advice = f"at most --shots {fits} fit" if fits >= 0 else "take another --template, or a corpus of shorter texts"
    raise InputError(
        f"--shots {longest.shots}: expected prompts of at most {n_ctx:,} tokens, as many as the network reads, "
        f"the longest would have {longest.total:,}; {advice}"
    )


def measure_sizes(
    setting: Setting, texts: Mapping[str, Texts], words: LabelWords, count: Callable[[str], int]
) -> Iterator[Size]:
    """Yield the size of each prompt; where all texts of a split have the same examples, of the longest alone."""
    label = len(max(words.flat, key=len)) - 1
    for each in texts.values():
        lengths = [count(setting.template.fill(text)) for text in each.strings]
        same = [(setting.demonstrations, max(lengths))]
        pairs = zip(setting.nearest[each.split], lengths, strict=True) if setting.nearest else same
        for demonstrations, length in pairs:
            examples = [
                count(f"{BETWEEN}{setting.template.fill(each.text)} {words.words[each.target][0]}")
                for each in order_by_shot(setting, demonstrations)
            ]
            yield Size(setting.shots, examples, length + label)


def order_by_shot(setting: Setting, demonstrations: Sequence[Demonstration]) -> list[Demonstration]:
    """Return examples in an order in which K * n of them are those of n shots: of each class the first n, or the
    nearest."""
    if setting.nearest:
        return list(demonstrations)[:: -1 if setting.order == FAR_TO_NEAR else 1]
    before: Counter[int] = Counter()
    ranks = []
    for each in demonstrations:
        ranks.append(before[each.target])
        before[each.target] += 1
    return [demonstrations[i] for i in np.argsort(ranks, kind="stable")]


def tabulate_demonstrations(
    settings: Sequence[Setting], texts: Mapping[str, Texts], labels: Sequence[str]
) -> pd.DataFrame:
    """Return a row for each example: `shots, draw, order, position, index, text, label, split, for`.

    position: from 0, in the prompt; index: in train. split, for: of the text whose nearest example it is, as in
    predictions.csv; empty where all texts have the same. Templates do not matter: an example is listed once for all."""
    columns = ["shots", "draw", "order", "position", "index", "text", "label", "split", "for"]
    rows = []
    for setting in settings:
        prompts: list[tuple[str, int | None, Sequence[Demonstration]]] = [("", None, setting.demonstrations)]
        if setting.nearest:
            prompts = [
                (split, index, demonstrations)
                for split, of_texts in setting.nearest.items()
                for index, demonstrations in zip(texts[split].positions.tolist(), of_texts, strict=True)
            ]
        for split, index, demonstrations in prompts:
            about = setting.shots, setting.draw, setting.order
            rows += [(*about, n, e.index, e.text, labels[e.target], split, index) for n, e in enumerate(demonstrations)]
    return pd.DataFrame(rows, columns=columns).astype({"for": "Int64"}).drop_duplicates(ignore_index=True)
