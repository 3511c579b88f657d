"""Files of `explain.py`, made up: texts with odd characters, and two methods that weigh their words."""

from pathlib import Path

import numpy as np
import pandas as pd

from lab.output import write_csv

LABELS = ("joy", "nan", "1")  # a label may look like nothing, or like a number
METHODS = ("integrated_gradients", "attention")
ODD = [
    "<img src=x onerror=alert(1)>",
    "</script>",
    "NA",
    'a "quote",',
    "line\nbreak",
    "tab\there",
    "שלום",
    "lone\rreturn",
]
EMOJI = "🦜"  # of two tokens, each a group of its own


def write_explained(folder: Path, n: int = 48, seed: int = 0) -> None:
    """Leave texts.csv and attributions.csv of n texts, and of one that is a user's. Of each class half are right."""
    rng, rows, tokens = np.random.default_rng(seed), [], []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n + 1):
        user, predicted = i == n, LABELS[i % len(LABELS)]
        words = [
            "i",
            "felt",
            *rng.choice(["happy", "mad", "good", "bad", "so"], 3),
            ODD[i % len(ODD)],
            f"text{i}",
            EMOJI,
        ]
        label = predicted if i // len(LABELS) % 2 else LABELS[(i + 1) % len(LABELS)]
        about = {"split": "user" if user else "test", "index": 0 if user else 7 * i}
        probabilities = {f"p_{each}": 0.8 if each == predicted else 0.1 for each in LABELS}
        row = about | {"text": " ".join(words), "label": "" if user else label, "predicted": predicted}
        rows.append(row | probabilities)
        tokens += list_tokens(about, words, rng)
    write_csv(folder / "texts.csv", pd.DataFrame(rows))
    write_csv(folder / "attributions.csv", pd.DataFrame(tokens))


def list_tokens(about: dict, words: list[str], rng: np.random.Generator) -> list[dict]:
    """One token per word with the space before it, but two of `felt`, which are one group, and of the emoji."""
    spans, start = [], 0
    for group, word in enumerate(words):
        first, end = start, start + len(word) + (group > 0)
        named = "" if word == EMOJI else word
        if word == "felt":
            spans += [(first, first + 3, group, named), (first + 3, end, group, named)]
        elif word == EMOJI:
            spans += [(first, end, group, named), (first, end, group + 1, named)]
        else:
            spans.append((first, end, group, named))
        start = end
    text = " ".join(words)
    return [
        about
        | {"position": position, "token": text[start:end], "start": start, "end": end, "word": word}
        | {"class": label, "method": method, "value": rng.normal() if method != "attention" else rng.random()}
        | {"group": group}
        for method in METHODS
        for position, (start, end, group, word) in enumerate(spans)
        for label in LABELS
    ]
