"""As much at once as fits: halving, and what is left in memory while it is tried again."""

import weakref

import pytest
import torch

from lab.memory import fitting


def holding(room: int, asked: list[int]):
    """A computation that fits into memory with at most so many tokens at once."""

    def compute(tokens: int) -> str:
        asked.append(tokens)
        if tokens > room:
            raise torch.OutOfMemoryError
        return f"made with {tokens}"

    return compute


@pytest.mark.parametrize(("room", "asked"), [(100, [97]), (97, [97]), (96, [97, 48]), (13, [97, 48, 24, 12])])
def test_it_halves_until_it_fits_and_says_so_each_time(capsys, room, asked):
    tried: list[int] = []
    assert fitting(holding(room, tried), 97, 97, 5) == (f"made with {asked[-1]}", asked[-1])
    assert tried == asked
    said = [f"out of memory: going on with at most {tokens} tokens at once" for tokens in asked[1:]]
    assert capsys.readouterr().out.splitlines() == said


@pytest.mark.parametrize(("least", "asked"), [(12, [97, 48, 24, 12]), (13, [97, 48, 24]), (97, [97])])
def test_below_the_least_it_is_out_of_memory(least, asked):
    tried: list[int] = []
    with pytest.raises(torch.OutOfMemoryError):
        fitting(holding(1, tried), 97, 97, least)
    assert tried == asked


def test_nothing_of_the_failed_pass_is_held_when_memory_is_freed(monkeypatch):
    made, alive = [], []

    def compute(tokens: int) -> None:
        activations = torch.ones(tokens)
        made.append(weakref.ref(activations))
        if tokens > 11:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append([ref() is not None for ref in made]))
    fitting(compute, 40, 40, 1)
    assert alive == [[False], [False, False]]


def test_other_errors_are_not_taken_for_it():
    def wrong(tokens: int) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        fitting(wrong, 97, 97, 1)


def test_where_fewer_are_there_it_begins_with_those():
    tried = []
    assert fitting(holding(1000, tried), 97, 60, 5) == ("made with 60", 97)  # the next ones may be more
    assert fitting(holding(29, tried), 97, 60, 5) == ("made with 15", 15)
    assert tried == [60, 60, 30, 15]
