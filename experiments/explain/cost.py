"""How long it takes to explain texts: the tokens that the network reads, over how many it reads per second."""

import time
from collections.abc import Sequence

import numpy as np

from lab.progress import forecast
from lab.removals import read_remains, remove
from lab.study import Study

from . import robustness, sanity
from .attributions import EXACT, NODES, PAIRS, STRETCHES
from .choose import Chosen
from .methods import METHODS, Parsed
from .rationales import DRAWS, STEPS, list_counts

POINTS = 2 * STRETCHES * NODES  # of integrated gradients, of a text as they come
BACKWARD = 1  # forward passes that a backward one costs: weights need no gradient


def forecast_work(study: Study, texts: Sequence[Chosen]) -> str:
    """Say how long it takes to explain these texts and to judge the methods, if no earlier call has done any of it."""
    K, L = len(study.clf.labels), study.clf.config.n_layer
    lengths = [len(text.parsed.ids) for text in texts]
    tokens = sum(count_attributions(text.parsed, K, PAIRS) for text in texts) + sum(map(count_faithfulness, lengths))
    for text in texts[: sanity.MOST_TEXTS]:
        tokens += 2 * (L + 3) * count_attributions(text.parsed, 1, sanity.SANITY_PAIRS)
    whole = study.draw_texts("test", robustness.TEXTS).sequences
    rows = 2 * len(robustness.SIZES) * (1 + robustness.DRAWS)
    tokens += rows * sum(map(len, whole))
    return forecast(f"Explaining {len(texts)} texts takes", tokens, measure_rate(study, texts[0].parsed), study.device)


def count_attributions(parsed: Parsed, n_classes: int, pairs: int) -> int:
    """Return how many tokens the network reads until a text is explained by every method; a gradient counts as more."""
    T, n = len(parsed.ids), len(parsed.words)
    choices = 2**n if n <= EXACT else 2 * pairs * n
    return T * (POINTS * (1 + BACKWARD * n_classes) + choices + 3 * T)


def count_faithfulness(n_tokens: int) -> int:
    """Return how many tokens it reads until all rationales of a text are judged, under three removals."""
    rationales = 2 * (len(METHODS) + 1 + DRAWS) * len(list_counts(n_tokens))
    return 3 * n_tokens * (rationales + 2 * min(STEPS + 1, n_tokens) * n_tokens)


def measure_rate(study: Study, parsed: Parsed) -> float:
    """Return how many tokens the network reads per second, in a batch of one text."""
    kept = np.arange(len(parsed.ids)) % 2 == 0
    rows = [remove(parsed.ids, kept, "hide")] * max(1, study.device.tokens // len(parsed.ids))
    for _ in range(2):  # the first time also pays for start-up
        started = time.perf_counter()
        read_remains(study.clf, rows, study.device)
        seconds = time.perf_counter() - started
    return len(rows) * len(parsed.ids) / seconds
