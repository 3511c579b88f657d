"""Templates, which turn a text into a prompt, and the words that name a class: data/prompts.toml."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import InputError

PROMPTS = Path(__file__).with_name("prompts.toml")
NAME = re.compile(r"(?!all$)[\w-]+")  # of a template: a part of file names, and `all` stands for all of them
TEXT, WORD = "{text}", "{word}"


@dataclass(frozen=True)
class Template:
    """A way to ask for the class of a text. Raises InputError for one that cannot be used."""

    name: str
    prompt: str  # holds {text}; a label word follows, after a space
    domain: str  # the same without a text
    channel: str = ""  # holds {word}, and ends with {text}; empty: the noisy channel is left out

    def __post_init__(self) -> None:
        expected = {
            "name: expected letters, digits, _ and -, and not `all`": bool(NAME.fullmatch(self.name)),
            "prompt: expected {text} once among words, and no space or line end behind the last one": (
                self.prompt.count(TEXT) == 1 and WORD not in self.prompt and ends_in_a_word(self.fill(""))
            ),
            "domain: expected the prompt without {text}, and no space or line end behind the last word": (
                TEXT not in self.domain and WORD not in self.domain and ends_in_a_word(self.domain)
            ),
            "channel: expected {word} once, and {text} once, at the end": (
                not self.channel
                or (self.channel.count(WORD) == self.channel.count(TEXT) == 1 and self.channel.endswith(TEXT))
            ),
        }
        if wrong := [line for line, fits in expected.items() if not fits]:
            raise InputError(f"template {self.name}, {'; '.join(wrong)}")

    def fill(self, text: str) -> str:
        """Return the prompt for a text."""
        return self.prompt.replace(TEXT, text)

    def fill_channel(self, word: str, text: str) -> str:
        """Return the text behind a label word."""
        return self.channel.replace(WORD, word).replace(TEXT, text)


def ends_in_a_word(prompt: str) -> bool:
    """Return whether a word can follow after one space, as in the texts that a network was trained on."""
    return bool(prompt) and not prompt[-1].isspace()


def read_templates(names: Sequence[str] = ()) -> list[Template]:
    """Return the templates of these names, or of these files of the form of prompts.toml; without any, all of ours.

    Raises InputError for an unknown name, a file that is none, and two templates of one name."""
    ours = {template.name: template for template in read_file(PROMPTS)}
    chosen: list[Template] = [] if names else list(ours.values())
    for name in names:
        if name.endswith(".toml"):
            chosen += read_file(Path(name))
        elif name in ours:
            chosen.append(ours[name])
        else:
            raise InputError(f"template {name}: expected a file .toml, or one of {', '.join(ours)}")
    twice = sorted({each.name for each in chosen if [other.name for other in chosen].count(each.name) > 1})
    if twice:
        raise InputError(f"templates: expected each name once, got {', '.join(twice)} more often")
    return chosen


def read_file(path: Path) -> list[Template]:
    """Return the templates of a file. Raises InputError that names the file, the template and what was expected."""
    templates = parse(path).get("templates")
    if not isinstance(templates, dict) or not templates:
        raise InputError(f"{path}: expected [templates.NAME] with prompt and domain, found none; see {PROMPTS.name}")
    chosen = []
    for name, fields in templates.items():
        known = isinstance(fields, dict) and {"prompt", "domain"} <= fields.keys() <= {"prompt", "domain", "channel"}
        if not known or not all(isinstance(value, str) for value in fields.values()):
            raise InputError(f"{path}: templates.{name}: expected texts called prompt, domain and, if any, channel")
        try:
            chosen.append(Template(name, **fields))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    return chosen


def read_words() -> dict[str, list[str]]:
    """Return the label words of prompts.toml, by class."""
    words: dict[str, list[str]] = parse(PROMPTS)["words"]
    return words


def parse(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises InputError where there is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected TOML in UTF-8: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file of templates, like {PROMPTS.name}") from None
