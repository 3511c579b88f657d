"""texts.html: what each method says about each text, word by word, in one file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.attention import list_tokens
from lab.output import write_text
from lab.page.bundle import PAGE, STYLE, bundle, write_data
from lab.progress import console

from .attributions import Floats
from .choose import OF_USER, Explained
from .methods import METHODS

FOLDER = Path(__file__).parent / "page"
MODULES = [*(PAGE / f"{name}.js" for name in ("nodes", "tokens", "colours")), FOLDER / "explain.js"]
MOST_BYTES = 4_900_000  # of all texts, so that a page stays below 5 MB
DIGITS = 4  # of each number: more could not be seen, and the page would grow
SHOWN = ("integrated_gradients", "shapley", "leave_one_out_hide", "attention")  # at first


def write_page(path: Path, texts: Sequence[Explained], labels: Sequence[str], about: Sequence[str]) -> None:
    """Write the page, whole or not at all, texts of the user first; print how many texts it leaves out.

    labels: of the classes. about: lines on run, corpus and weights. Later texts are left out where the page would grow
    beyond 5 MB; it says how many."""
    described = [describe(text) for text in sorted(texts, key=lambda text: text.split != OF_USER)]
    shown = fit_texts(described)
    left_out = count_left_out(described[len(shown) :], len(texts))
    if left_out:
        console.print(left_out)
    methods = [
        {
            "name": name,
            "text": method.text,
            "signed": method.signed,
            "of_class": method.of_class,
            "shown": name in SHOWN,
        }
        for name, method in METHODS.items()
    ]
    data = {"labels": list(labels), "methods": methods, "texts": shown, "left_out": left_out, "about": list(about)}
    write_text(path, bundle(FOLDER / "explain.html", MODULES, [STYLE, FOLDER / "explain.css"], data))


def describe(text: Explained) -> dict[str, Any]:
    """Return a text as explain.js takes it; `values` of methods that know no class have one column.

    `words` are the pieces of the text that belong to each group of tokens, in characters of Python: a browser counts an
    emoji as two."""
    parsed, explanation = text.parsed, text.explanation
    spans: dict[int, list[int]] = {}
    for group, (_, start, end) in zip(parsed.groups.tolist(), parsed.pieces, strict=True):
        first, last = spans.get(group, (start, end))
        spans[group] = [min(first, start), max(last, end)]
    return {
        "name": text.name,
        "of_user": text.split == OF_USER,
        "text": parsed.text,
        "label": text.label,
        "predicted": text.predicted,
        "probabilities": shorten(text.probabilities),
        "tokens": list_tokens(parsed.pieces),
        "groups": parsed.groups.tolist(),
        "words": [parsed.text[start:end] for _, (start, end) in sorted(spans.items())],
        "values": {
            name: shorten(values if METHODS[name].of_class else values[:, :1])
            for name, values in explanation.values.items()
        },
        "sums": {name: [shorten(gap), shorten(total)] for name, (gap, total) in explanation.sums.items()},
    }


def shorten(values: Floats) -> Any:
    """Return numbers as lists, each with DIGITS digits."""
    return [float(f"{value:.{DIGITS}g}") if values.ndim == 1 else shorten(value) for value in values]


def fit_texts(described: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first text, and those after it up to the first that does not fit into the page."""
    size = 0
    shown: list[dict[str, Any]] = []
    for text in described:
        size += len(write_data(text)) + 1
        if shown and size > MOST_BYTES:
            break
        shown.append(text)
    return shown


def count_left_out(left: Sequence[dict[str, Any]], n: int) -> str:
    """Say how many of n texts a page leaves out, and how many of these the user gave; nothing where it has all."""
    if not left:
        return ""
    line = f"{len(left)} of {n} texts are left out of texts.html, as it would be too large; attributions.csv has them"
    users = sum(text["of_user"] for text in left)
    return f"{line}. {users} of them are yours: give fewer or shorter ones" if users else line
