"""Letters of many scripts in pictures: fonts that have them, and other names for classes where no font here does.

matplotlib draws each letter with the first font that has it. Since version 3.11 it joins and orders letters as Arabic,
Hebrew, Devanagari and Thai need; earlier ones put them side by side from left to right. Colour emoji are not drawn."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import count

import matplotlib
import pandas as pd
from matplotlib import font_manager

from .texts import OVERALL

MAIN = "DejaVu Sans"  # comes with matplotlib; has Latin, Greek, Cyrillic, Arabic, Hebrew and some emoji
OTHERS = (  # sans serif; of each script the first that is installed
    *(f"Noto Sans CJK {place}" for place in ("SC", "JP", "KR")),
    *("Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "Source Han Sans SC", "Source Han Sans CN", "Source Han Sans"),
    *("Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("Yu Gothic", "Hiragino Sans", "Malgun Gothic", "Apple SD Gothic Neo", "NanumGothic", "Droid Sans Fallback"),
    *(f"Noto Sans {script}" for script in ("Arabic", "Hebrew", "Devanagari", "Bengali", "Gujarati", "Gurmukhi")),
    *(f"Noto Sans {script}" for script in ("Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala", "Thai", "Lao")),
    *(f"Noto Sans {script}" for script in ("Khmer", "Myanmar", "Georgian", "Armenian", "Ethiopic")),
    *("Nirmala UI", "Leelawadee UI", "Kohinoor Devanagari", "Thonburi", "Loma", "Arial Unicode MS"),
    *(
        "Noto Emoji",
        "Noto Sans Symbols",
        "Noto Sans Symbols2",
        "Noto Sans Symbols 2",
        "Segoe UI Emoji",
        "Segoe UI Symbol",
        "Symbola",
    ),
)
LONGEST, BEGINNING = 40, 25  # characters of a name, and of the first part of one from whose middle some are taken


def list_families() -> list[str]:
    """Return the families to draw with that are installed: matplotlib complains of each one that is not."""
    installed = set(font_manager.get_font_names())
    return [MAIN, *(family for family in OTHERS if family in installed)]


def name_classes(labels: Sequence[str]) -> list[str]:
    """Return what pictures call the classes: their names on one line, as far as fonts here have the letters and there
    is room, and `class 3` where the rest says nothing or could be another class."""
    short = [_shorten(label) for label in labels]
    taken, names = {OVERALL, *labels, *short}, []
    for k, (label, name) in enumerate(zip(labels, short, strict=True)):
        says_nothing = not any(map(str.isalnum, name))
        if name != label and (says_nothing or short.count(name) > 1 or name in (OVERALL, *labels)):
            name = next(free for n in count() if (free := f"class {k}{'*' * n}") not in taken)
        names.append(f" {name}" if name.startswith("_") else name)  # or matplotlib would leave it out of legends
    return names


def _shorten(label: str) -> str:
    """Return what can be drawn of a name, on one line, without the middle of a long one."""
    undrawable = find_undrawable(label)
    name = " ".join("".join(" " if letter in undrawable else letter for letter in label).split())
    return name if len(name) <= LONGEST else f"{name[:BEGINNING].rstrip()}…{name[1 + BEGINNING - LONGEST :].lstrip()}"


def find_undrawable(text: str) -> set[str]:
    """Return the characters that no family has, but for spaces; tabs and the like are among them."""
    families = list_families()
    return {each for each in {*text} - {" "} if not any(ord(each) in read_letters(family) for family in families)}


@contextmanager
def without_complaints() -> Iterator[None]:
    """Keep matplotlib from naming each letter that no font has, and each family of which one weight is not here."""
    log = logging.getLogger(font_manager.__name__)

    def is_news(record: logging.LogRecord) -> bool:
        return "font weight" not in record.getMessage()

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        log.addFilter(is_news)
        try:
            yield
        finally:
            log.removeFilter(is_news)


@lru_cache
def read_letters(family: str) -> frozenset[int]:
    """Return the code points that a family has."""
    with without_complaints():
        return frozenset(font_manager.get_font(font_manager.findfont(family)).get_charmap())


def rename_classes(tables: Mapping[str, pd.DataFrame], labels: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the tables with the classes called as pictures call them."""
    others = {label: name for label, name in zip(labels, name_classes(labels), strict=True) if label != name}
    return {key: table.replace(others) for key, table in tables.items()} if others else dict(tables)


def explain_names(labels: Sequence[str]) -> list[str]:
    """Return a line for a report that says what the names in pictures stand for, where they are others."""
    pairs = [(name.strip(), " ".join(label.split())) for name, label in zip(name_classes(labels), labels, strict=True)]
    others = "; ".join(f"{name} is {label}" for name, label in pairs if name != label)
    if not others:
        return []
    line = f"in pictures: {others}"
    if any(letter.isprintable() for label in labels for letter in find_undrawable(label)):
        line += ". No font here has all letters; install one that has, e.g. Noto Sans or Noto Sans CJK, and remove "
        line += f"{matplotlib.get_cachedir()}/fontlist*.json, where matplotlib keeps which fonts there are"
    return [line]
