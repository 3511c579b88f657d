"""As much at once as fits: halving, and what is left in memory while it is tried again."""

import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.batches import Batch
from experiments.ablate.importance import gate_gradients
from experiments.probe.lens import class_lens
from lab import fills
from lab.activations import record, sites
from lab.contributions import contributions
from lab.device import Device
from lab.memory import halve_until_it_fits, map_texts
from lab.predict import predict
from lab.sweep import fill_zeros

CPU = Device(torch.device("cpu"), "fp32")


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
    assert halve_until_it_fits(holding(room, tried), 97, 97, 5) == (f"made with {asked[-1]}", asked[-1])
    assert tried == asked
    said = [f"out of memory: going on with at most {tokens} tokens at once" for tokens in asked[1:]]
    assert capsys.readouterr().out.splitlines() == said


@pytest.mark.parametrize(("least", "asked"), [(12, [97, 48, 24, 12]), (13, [97, 48, 24]), (97, [97])])
def test_below_the_least_it_is_out_of_memory(least, asked):
    tried: list[int] = []
    with pytest.raises(torch.OutOfMemoryError):
        halve_until_it_fits(holding(1, tried), 97, 97, least)
    assert tried == asked


def test_nothing_of_the_failed_pass_is_held_when_memory_is_freed(monkeypatch):
    made, alive = [], []

    def compute(tokens: int) -> None:
        activations = torch.ones(tokens)
        made.append(weakref.ref(activations))
        if tokens > 11:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append([ref() is not None for ref in made]))
    halve_until_it_fits(compute, 40, 40, 1)
    assert alive == [[False], [False, False]]


def test_other_errors_are_not_taken_for_it():
    def wrong(tokens: int) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        halve_until_it_fits(wrong, 97, 97, 1)


def test_where_fewer_are_there_it_begins_with_those():
    tried = []
    assert halve_until_it_fits(holding(1000, tried), 97, 60, 5) == ("made with 60", 97)  # the next ones may be more
    assert halve_until_it_fits(holding(29, tried), 97, 60, 5) == ("made with 15", 15)
    assert tried == [60, 60, 30, 15]


# Everything that runs over all texts.

V = 101
TEXTS = [np.random.default_rng(n).integers(0, V, n).tolist() for n in (3, 7, 13, 5, 7, 1, 11, 2)]
TARGETS = np.array([0, 1, 2, 3, 0, 1, 2, 3])


def resampled(clf, device, folder):
    """Two texts of 2 tokens, whose only donors have 13 and 11."""
    donors, chosen = [TEXTS[2], TEXTS[6]], np.array([0, 1])
    texts = Batch(torch.tensor([[5, 6], [7, 8]]), torch.tensor([2, 2]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    with torch.no_grad():
        return list(fills.emit_donors(clf, donors, chosen, device, texts).values())


def mean_sums(clf, device, folder):
    sums = fills.measure_means(clf, TEXTS, TARGETS, device)
    return [sums.z, sums.mlp, sums.tokens]


def activations(clf, device, folder):
    last = [[len(ids) - 1] for ids in TEXTS]
    found = record(clf.trunk, TEXTS, {"mean": None, "last": last}, folder, device)
    return [own.of(*sites(clf.config)) for own in found.values()]


PASSES = {
    "means": mean_sums,
    "donors": resampled,
    "gradients": lambda clf, device, folder: [gate_gradients(clf, TEXTS, TARGETS, [fill_zeros], device)],
    "activations": activations,
    "class lens": lambda clf, device, folder: [class_lens(clf, TEXTS, device)],
    "contributions": lambda clf, device, folder: [contributions(clf, TEXTS, device)],
    "predictions": lambda clf, device, folder: [predict(clf, TEXTS, device)],
}


@pytest.fixture
def asked(clf, monkeypatch):
    """How many tokens, padding included, the network is given each time; one that is given more than `room` of them
    at once is out of memory."""
    given = SimpleNamespace(tokens=[], room=1000)
    embed = clf.trunk.embed

    def watched(ids, *arguments):
        given.tokens.append(ids.numel())
        if ids.numel() > given.room:
            raise torch.OutOfMemoryError
        return embed(ids, *arguments)

    monkeypatch.setattr(clf.trunk, "embed", watched)
    return given


def assert_same(got, want):
    for own, other in zip(got, want, strict=True):
        np.testing.assert_allclose(own, other, rtol=0, atol=1e-5 * np.abs(np.asarray(other)).max())


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_goes_by_the_tokens_of_its_device(clf, asked, monkeypatch, tmp_path, name):
    """A GPU takes more of them than a CPU, so that it is not what the module knows of a CPU that counts."""
    whole = PASSES[name](clf, CPU, tmp_path)
    assert len(asked.tokens) == 1
    asked.tokens.clear()
    monkeypatch.setattr(Device, "tokens", 17)
    assert_same(PASSES[name](clf, CPU, tmp_path), whole)
    assert len(asked.tokens) > 1
    assert max(asked.tokens) <= 17


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_survives_an_out_of_memory_of_a_gpu(clf, asked, monkeypatch, tmp_path, capsys, name):
    whole = PASSES[name](clf, CPU, tmp_path)
    asked.tokens.clear()
    asked.room = 15
    assert_same(PASSES[name](clf, CPU, tmp_path), whole)
    assert "out of memory: going on with at most" in capsys.readouterr().out
    asked.room = 12
    with pytest.raises(torch.OutOfMemoryError):  # the longest text alone has 13
        PASSES[name](clf, CPU, tmp_path)


def test_after_an_out_of_memory_later_batches_begin_with_smaller_pieces(monkeypatch):
    """Of 4 texts of 5 tokens each, 11 tokens fit at once, that is 2 texts."""
    sizes = []

    def total(batch):
        sizes.append(len(batch.ids))
        if batch.ids.numel() > 11:
            raise torch.OutOfMemoryError
        return batch.ids.sum().item()

    texts = [[10 * n + i for i in range(5)] for n in range(8)]
    monkeypatch.setattr(Device, "tokens", 20)
    found = list(map_texts(total, texts, CPU, "adding up", np.arange(8) % 3))
    assert sizes == [4, 2, 2, 2, 2]
    assert [piece.index.tolist() for piece, _ in found] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [piece.targets.tolist() for piece, _ in found] == [[0, 1], [2, 0], [1, 2], [0, 1]]
    assert [own for _, own in found] == [70, 270, 470, 670]


def test_a_bar_is_closed_at_once_where_a_pass_fails():
    """Not when garbage is collected: that may be in the thread that draws another bar, and both would wait for ever."""

    def fail(batch):
        raise ValueError("no")

    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="no") as caught:
        list(map_texts(fail, [[1], [2, 3]], Device(torch.device("cpu"), "fp32"), "failing"))
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)  # it has been told to end
        assert not thread.is_alive()
    assert caught.traceback  # which holds all that is left of the pass
