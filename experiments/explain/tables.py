"""The tables of the texts that are explained, of attributions, and of how far they add up."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from .attributions import SMALL_GAP, TOLERANCE
from .choose import Chosen, Explained

ATTRIBUTIONS = ["split", "index", "position", "token", "start", "end", "word", "class", "method", "value", "group"]
COMPLETENESS = ["split", "index", "class", "method", "gap", "sum", "miss", "share", "nodes"]


def tabulate_texts(texts: Sequence[Chosen], labels: Sequence[str]) -> pd.DataFrame:
    """Return one row per text, with its classes and the probability of each class. A user's text has no `label`."""
    rows = []
    for text in texts:
        row = {"split": text.split, "index": text.index, "text": text.parsed.text}
        row |= {"label": None if text.label is None else labels[text.label], "predicted": labels[text.predicted]}
        rows.append(row | {f"p_{label}": p for label, p in zip(labels, text.probabilities, strict=True)})
    return pd.DataFrame(rows)


def tabulate_attributions(texts: Sequence[Explained], labels: Sequence[str]) -> pd.DataFrame:
    """Return one row per token, class and method. `group` numbers the words of a text, so that values of one word can
    be added up where a text has it twice; `start` and `end` count characters."""
    rows = [row for text in texts for row in list_tokens(text, labels)]
    return pd.DataFrame(rows, columns=ATTRIBUTIONS)


def list_tokens(text: Explained, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    parsed = text.parsed
    for method, values in text.explanation.values.items():
        for position, (piece, start, end) in enumerate(parsed.pieces):
            group = int(parsed.groups[position])
            token = {"position": position, "token": piece, "start": start, "end": end, "word": parsed.words[group]}
            for label, value in zip(labels, values[position], strict=True):
                yield {
                    "split": text.split,
                    "index": text.index,
                    **token,
                    "class": label,
                    "method": method,
                    "value": value,
                    "group": group,
                }


def tabulate_completeness(texts: Sequence[Explained], labels: Sequence[str]) -> pd.DataFrame:
    """Return for each text and class how far the values are from adding up to what they should: `miss` in logits, and
    `share` of the gap (of SMALL_GAP where the gap is smaller). `nodes`: how many the integration took."""
    rows = []
    for text in texts:
        for method, (gaps, sums) in text.explanation.sums.items():
            for label, gap, total in zip(labels, gaps, sums, strict=True):
                miss = abs(total - gap)
                nodes = text.explanation.nodes if method == "integrated_gradients" else np.nan
                share = miss / max(abs(gap), SMALL_GAP)
                values = (text.split, text.index, label, method, gap, total, miss, share, nodes)
                rows.append(dict(zip(COMPLETENESS, values, strict=True)))
    return pd.DataFrame(rows, columns=COMPLETENESS)


def describe_sum(text: Explained) -> str:
    """Say in one line how far integrated gradients are from adding up on a text, for the class that misses most."""
    gaps, sums = text.explanation.sums["integrated_gradients"]
    miss = (np.abs(sums - gaps) / np.maximum(np.abs(gaps), SMALL_GAP)).max()
    line = f"{text.name}: integrated gradients miss {miss:.2%} of the gap, with {text.explanation.nodes} nodes"
    return line if miss <= TOLERANCE else f"{line}: more than {TOLERANCE:.0%}, do not trust them here"
