"""Words of several meanings, in sentences that tell the meaning before the word, or only behind it: senses.toml."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import InputError

from .prompts import parse

SENSES = Path(__file__).with_name("senses.toml")
LEFT, RIGHT = "left", "right"  # of the word stands what tells its meaning


@dataclass(frozen=True)
class Sense:
    """One meaning of a word."""

    name: str
    left: tuple[str, ...]  # sentences that end with the word
    right: tuple[str, ...]  # what may follow the beginning that all senses of the word share


@dataclass(frozen=True)
class AmbiguousWord:
    """A word of several senses. Raises InputError for one that nothing can be learnt from."""

    word: str
    beginning: str  # ends with the word
    senses: tuple[Sense, ...]

    def __post_init__(self) -> None:
        left, right = ([text for sense in self.senses for text in getattr(sense, side)] for side in (LEFT, RIGHT))
        counts = [len(getattr(sense, side)) for sense in self.senses for side in (LEFT, RIGHT)]
        twice = [text for text, n in Counter((*left, *right)).items() if n > 1]
        not_at_end = [text for text in (self.beginning, *left) if not text.endswith(f" {self.word}")]
        not_apart = [text for text in right if not text or text != text.strip()]
        if len(self.senses) < 2:
            raise InputError(f"{self.word}: expected at least two senses, got {len(self.senses)}")
        if min(counts) < 2 or len(set(counts)) > 1:
            raise InputError(f"{self.word}: expected as many sentences left and right of each sense, got {counts}")
        if not_at_end:
            raise InputError(f"{self.word}: expected other words and then {self.word!r} at the end: {not_at_end[0]!r}")
        if not_apart:
            raise InputError(f"{self.word}: expected words without space around them: {not_apart[0]!r}")
        if twice:
            raise InputError(f"{self.word}: expected each sentence once, got it twice: {twice[0]!r}")

    def read(self, side: str) -> tuple[list[str], list[tuple[int, int]], list[str]]:
        """Return the sentences of one side, of each the characters (start, end) of the word, and its sense."""
        strings, spans, senses = [], [], []
        for sense in self.senses:
            for text in getattr(sense, side):
                known = text if side == LEFT else self.beginning
                strings.append(text if side == LEFT else f"{self.beginning} {text}")
                spans.append((len(known) - len(self.word), len(known)))
                senses.append(sense.name)
        return strings, spans, senses


def read_senses(path: Path = SENSES) -> list[AmbiguousWord]:
    """Return the words of a file. Raises InputError that names the file, the word and what was expected."""
    try:
        return [read_word(word, fields) for word, fields in parse(path).items()]
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None


def read_word(word: str, fields: Any) -> AmbiguousWord:
    """Return a word with the fields of its table. Raises InputError where they are others."""
    if not isinstance(fields, dict) or not isinstance(fields.get("beginning"), str):
        raise InputError(f"{word}: expected [{word}] with a text called beginning; see {SENSES.name}")
    senses = []
    for name, sides in fields.items():
        if name == "beginning":
            continue
        known = isinstance(sides, dict) and sides.keys() == {LEFT, RIGHT}
        if not known or not all(isinstance(side, list) and all_texts(side) for side in sides.values()):
            raise InputError(f"{word}.{name}: expected lists of texts called {LEFT} and {RIGHT}")
        senses.append(Sense(name, tuple(sides[LEFT]), tuple(sides[RIGHT])))
    return AmbiguousWord(word, fields["beginning"], tuple(senses))


def all_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
