"""Vectors of whole texts at each site, against forward passes of `transformers`, text by text."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lab import vectors
from lab.device import Device
from lab.vectors import POOLINGS, TOKENS, draw_tokens, record_vectors
from model import InputError

CPU = Device(torch.device("cpu"), "fp32")
L, C, V = 3, 35, 101
ALL = (*POOLINGS, *TOKENS)
ABOUT = {"weights": "w", "seed": 5, "precision": "fp32"}


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(3)
    return [rng.integers(0, V, n).tolist() for n in (3, 7, 13, 5, 7, 1, 11, 2)]


@pytest.fixture(autouse=True)
def several_batches(monkeypatch):
    """Texts of 13 and 11 tokens share one, padded, and so do shorter ones."""
    monkeypatch.setattr("lab.device.TOKENS", 29)


@pytest.fixture
def recorded(each_lm, texts, tmp_path):
    return record_vectors(each_lm.ours.trunk, texts, ALL, tmp_path, "one", ABOUT, CPU)


def states(hf, ids):
    """Return what `transformers` calls hidden states, with the one before ln_f put back: L + 2 of (T, C)."""
    caught = []
    handle = hf.transformer.ln_f.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0][0]))
    with torch.no_grad():
        hidden = hf(torch.tensor([ids]), output_hidden_states=True).hidden_states
    handle.remove()
    return [x.numpy() for x in (*(h[0] for h in hidden[:-1]), caught[0], hidden[-1][0])]


def test_every_pooling_of_every_site_is_that_of_a_plain_pass(each_lm, texts, recorded):
    drawn = draw_tokens(recorded.lengths, ABOUT["seed"])
    assert recorded.last_site == L + 1
    for site in range(L + 2):
        read = {name: recorded.read(site, name) for name in ALL}
        for i, ids in enumerate(texts):
            x = states(each_lm.hf, ids)[site]
            place = np.arange(1, len(ids) + 1)[:, None]
            expected = {
                "last": x[-1],
                "mean": x.mean(0),
                "mean_without_first": (x[1:] if len(ids) > 1 else x).mean(0),
                "weighted": (place * x).sum(0) / place.sum(),
                "token": x[drawn[0, i]],
                "token_without_first": x[drawn[1, i]],
            }
            for name in ALL:
                np.testing.assert_allclose(read[name][i], expected[name], atol=2e-5 * np.abs(x).max())
            lengths = np.linalg.norm(x, axis=1)
            norms = [lengths[0], lengths[1:].mean() if len(ids) > 1 else np.nan]
            np.testing.assert_allclose(recorded.norms[site, :, i], norms, rtol=1e-4)


def test_vectors_of_a_text_do_not_depend_on_the_others(each_lm, texts, recorded, tmp_path):
    """Up to rounding: a product of matrices may add in another order where there are more rows."""
    for i in (0, 5, 6):
        (folder := tmp_path / str(i)).mkdir()
        alone = record_vectors(each_lm.ours.trunk, [texts[i]], tuple(POOLINGS), folder, "one", ABOUT, CPU)
        for site in range(L + 2):
            for name in POOLINGS:
                x = recorded.read(site, name)
                np.testing.assert_allclose(alone.read(site, name)[0], x[i], atol=1e-6 * np.abs(x).max())


def test_a_vector_knows_only_what_stands_left_of_it(lm_reference, tmp_path):
    """The mean over the same beginning, at the random token that is drawn from it, is the same under any end."""
    ends = [[7, 8, 9, last] for last in (1, 2, 3)]
    recorded = record_vectors(lm_reference.ours.trunk, ends, ("mean", "last"), tmp_path, "one", ABOUT, CPU)
    beginning = record_vectors(lm_reference.ours.trunk, [[7, 8, 9]], ("mean",), tmp_path, "two", ABOUT, CPU)
    for site in range(L + 2):
        before = (4 * recorded.read(site, "mean") - recorded.read(site, "last")) / 3
        expected = np.broadcast_to(beginning.read(site, "mean"), before.shape)
        np.testing.assert_allclose(before, expected, atol=1e-5 * np.abs(before).max())


def test_random_tokens_come_from_the_whole_text_and_from_all_but_the_first_token():
    lengths = np.repeat([1, 2, 3, 7], 200)
    among_all, others = draw_tokens(lengths, 0).reshape(2, 4, 200)
    assert [sorted(set(row)) for row in among_all] == [[0], [0, 1], [0, 1, 2], list(range(7))]
    assert [sorted(set(row)) for row in others] == [[0], [1], [1, 2], list(range(1, 7))]
    np.testing.assert_array_equal(draw_tokens(lengths, 0), draw_tokens(lengths, 0))
    assert (draw_tokens(lengths, 0) != draw_tokens(lengths, 1)).any()


def test_vectors_are_kept_and_an_interrupted_pass_goes_on(each_lm, texts, recorded, tmp_path, monkeypatch):
    trunk, first = each_lm.ours.trunk, {s: recorded.read(s, "mean") for s in range(L + 2)}
    norms = np.load(tmp_path / "one-norms.npy", mmap_mode="r+")
    norms[:, :, [2, 6]] = np.nan  # as if these texts had not been read
    norms.flush()
    for site in range(L + 2):
        np.load(tmp_path / f"one-{site}.npy", mmap_mode="r+")[:, [2, 6]] = 7
    read = []
    whole = vectors.map_texts
    monkeypatch.setattr(vectors, "map_texts", lambda run, some, *rest: (read.extend(some), whole(run, some, *rest))[1])
    again = record_vectors(trunk, texts, ALL, tmp_path, "one", ABOUT, CPU)
    assert read == [texts[2], texts[6]]
    for site, x in first.items():
        np.testing.assert_allclose(again.read(site, "mean"), x, atol=1e-6 * np.abs(x).max())
    record_vectors(trunk, texts, ALL, tmp_path, "one", ABOUT, CPU)
    assert len(read) == 2  # nothing is read a third time
    record_vectors(trunk, texts, ALL, tmp_path, "one", ABOUT | {"weights": "other"}, CPU)
    assert len(read) == 2 + len(texts)
    assert json.loads((tmp_path / "one-0.json").read_text())["about"]["poolings"] == list(ALL)


def test_a_full_disk_is_noticed_before_anything_is_written(lm_reference, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(InputError, match=r"expected 0\.0 GiB of free space for vectors, got 0\.0; make room"):
        record_vectors(lm_reference.ours.trunk, texts, ALL, tmp_path, "one", ABOUT, CPU)
    assert not list(tmp_path.iterdir())
