"""What one request asks for: a text, and what is switched off. Whatever comes from outside is checked here."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

from lab.removals import REMOVALS, Removal
from lab.texts import check_text
from lab.units import Head
from model import InputError

from .subject import FillName, Subject

T = TypeVar("T")


@dataclass(frozen=True)
class Experiment:
    """A text, and what is switched off in the network that reads it."""

    text: str
    ids: tuple[int, ...]
    heads: tuple[Head, ...] = ()
    mlps: tuple[int, ...] = ()
    tokens: Mapping[int, Removal] = field(default_factory=dict)  # by position in `ids`
    fill: FillName = "zero"  # what switched-off heads and MLPs emit
    other: str = ""  # the text whose outputs they emit, for the fill `text`
    other_ids: tuple[int, ...] = ()

    @property
    def kept(self) -> list[int]:
        """The positions that are not deleted."""
        return [position for position in range(len(self.ids)) if self.tokens.get(position) != "delete"]


def read_experiment(body: Any, subject: Subject) -> Experiment:
    """Return the experiment that parsed JSON asks for. Raises InputError, in one line, for anything else."""
    if not isinstance(body, dict):
        raise InputError(f'expected an object like {{"text": "..."}}, got {describe_json(body)}')
    known = ("text", "heads", "mlps", "tokens", "fill", "other")
    if unknown := [name for name in body if name not in known]:
        raise InputError(f"expected {', '.join(known)}, got {describe_json(unknown[0])}")
    config = subject.model.config
    text = read_string(body, "text")
    ids = check_text(text, subject.tokenizer, config.n_ctx)
    fill = read_fill(body.get("fill", "zero"), subject)
    other, other_ids = "", []
    if fill == "text":
        other = read_string(body, "other")
        other_ids = check_text(other, subject.tokenizer, config.n_ctx, "other")
    experiment = Experiment(
        text,
        tuple(ids),
        heads=read_list(body, "heads", lambda item: read_head(item, subject)),
        mlps=read_list(body, "mlps", lambda item: read_number("mlps", item, config.n_layer)),
        tokens=dict(read_removals(body.get("tokens", {}), len(ids))),
        fill=fill,
        other=other,
        other_ids=tuple(other_ids),
    )
    check_tokens(experiment)
    return experiment


def check_tokens(experiment: Experiment) -> None:
    """Raise InputError where nothing is left to read, or the token that is read is hidden."""
    kept = experiment.kept
    if not kept:
        raise InputError("tokens: every token is deleted; keep at least one")
    if experiment.tokens.get(kept[-1]) == "hide":
        name = f"tokens: {kept[-1]}, the last one that is not deleted,"
        raise InputError(f"{name} is read, so it cannot be hidden; keep, delete or fill it")


def read_string(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise InputError(f"{name}: expected a string, got {describe_json(value)}")
    return value


def read_list(body: Mapping[str, Any], name: str, read: Callable[[Any], T]) -> tuple[T, ...]:
    """Return what `read` makes of the items of a list without repetitions; an absent one is empty."""
    value = body.get(name, [])
    if not isinstance(value, list):
        raise InputError(f"{name}: expected a list, got {describe_json(value)}")
    items = tuple(map(read, value))
    if len(set(items)) < len(items):
        raise InputError(f"{name}: expected each only once, got {describe_json(value)}")
    return items


def read_head(item: Any, subject: Subject, name: str = "heads") -> Head:
    if not isinstance(item, list) or len(item) != 2:
        raise InputError(f"{name}: expected [layer, head], got {describe_json(item)}")
    config = subject.model.config
    return read_number("layer", item[0], config.n_layer), read_number("head", item[1], config.n_head)


def read_number(name: str, value: Any, limit: int) -> int:
    if type(value) is not int or not 0 <= value < limit:  # a bool is an int, too
        raise InputError(f"{name}: expected a whole number 0 .. {limit - 1}, got {describe_json(value)}")
    return value


def read_fill(value: Any, subject: Subject) -> FillName:
    for name in subject.fill_names:
        if name == value:
            return name
    raise InputError(f"fill: expected one of {', '.join(subject.fill_names)}, got {describe_json(value)}")


def read_removals(value: Any, n_tokens: int) -> Iterator[tuple[int, Removal]]:
    """Yield the positions of tokens that are removed, with how."""
    if not isinstance(value, dict):
        raise InputError(f'tokens: expected an object like {{"4": "hide"}}, got {describe_json(value)}')
    positions = {str(position): position for position in range(n_tokens)}
    for key, removal in value.items():
        if key not in positions:
            raise InputError(f"tokens: expected positions 0 .. {n_tokens - 1}, got {key[:20]!r}")
        if removal not in get_args(Removal):
            raise InputError(f"tokens: expected one of {', '.join(REMOVALS)}, got {describe_json(removal)}")
        yield positions[key], removal


def describe_json(value: Any) -> str:
    """Return a value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
