"""Removing tokens, against the network called by hand with masks, other ids and other embeddings."""

import numpy as np
import pytest
import torch

from lab.device import Device
from lab.removals import mean_embedding, read_kept, read_remains, remove
from model import load_classifier, masks

CPU = Device(torch.device("cpu"), "fp32")
IDS = [3, 17, 5, 99, 42, 8, 61]


@pytest.fixture(autouse=True)
def several_batches(monkeypatch):
    monkeypatch.setattr("lab.device.TOKENS", 29)


@pytest.fixture
def clf(each_clf):
    return load_classifier(each_clf.folder)


def kept(*positions):
    return np.isin(np.arange(len(IDS)), positions)


def read(clf, ids=IDS, filled=(), **arguments):
    """The logits of one text, of which some positions get the mean embedding."""
    with torch.no_grad():
        x = clf.trunk.wte.weight[ids] + clf.trunk.wpe.weight[: len(ids)]
        for position in filled:
            x[position] = clf.trunk.wte.weight.mean(dim=0) + clf.trunk.wpe.weight[position]
        return clf.read(clf.trunk.norm(clf.trunk.run(x[None], **arguments)))[0].numpy()


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_hiding_keeps_all_other_queries_from_attending_and_fills_the_last_token(clf):
    hidden = torch.tensor([[False, True, False, True, False, False, False]])
    want = read(clf, attn_mask=masks.hide_tokens(hidden))
    close(read_kept(clf, IDS, kept(0, 2, 4, 5, 6)[None], "hide", CPU)[0], want)
    close(
        read_kept(clf, IDS, kept(0, 2, 4, 5)[None], "hide", CPU)[0],
        read(clf, filled=[6], attn_mask=masks.hide_tokens(hidden)),
    )


def test_deleting_is_the_shorter_text(clf):
    with torch.no_grad():
        want = clf(torch.tensor([[3, 5, 42, 8]]))[0].numpy()
    close(read_kept(clf, IDS, kept(0, 2, 4, 5)[None], "delete", CPU)[0], want)


def test_filling_puts_the_mean_embedding_at_the_same_position(clf):
    close(read_kept(clf, IDS, kept(0, 2, 4, 5)[None], "fill", CPU)[0], read(clf, filled=[1, 3, 6]))
    torch.testing.assert_close(mean_embedding(clf.trunk), clf.trunk.wte.weight.mean(dim=0))


@pytest.mark.parametrize("removal", ["hide", "delete", "fill"])
def test_nothing_removed_is_the_plain_call_and_nothing_kept_can_still_be_read(clf, removal):
    with torch.no_grad():
        want = clf(torch.tensor([IDS]))[0].numpy()
    whole, nothing = read_kept(clf, IDS, np.array([[True] * 7, [False] * 7]), removal, CPU)
    close(whole, want)
    all_hidden = {"attn_mask": masks.hide_tokens(torch.arange(7)[None] < 6)}
    arguments = {"hide": {"filled": [6], **all_hidden}, "fill": {"filled": range(7)}}
    arguments["delete"] = {"ids": IDS[:1], "filled": [0]}
    close(nothing, read(clf, **arguments[removal]))


@pytest.mark.parametrize("removal", ["hide", "delete", "fill"])
def test_rows_of_many_texts_do_not_depend_on_those_beside_them(clf, removal):
    rng = np.random.default_rng(3)
    texts = [rng.integers(0, 101, n).tolist() for n in (1, 7, 13, 5, 2, 11)]
    rows = [(ids, rng.random(len(ids)) < 0.5) for ids in texts for _ in range(3)]
    together = read_remains(clf, [remove(ids, row, removal) for ids, row in rows], CPU)
    for (ids, row), logits in zip(rows, together, strict=True):
        close(read_remains(clf, [remove(ids, row, removal)], CPU)[0], logits)
    assert together.dtype == np.float64
    assert together.shape == (18, 4)


def test_equal_rows_are_computed_once(clf, monkeypatch):
    read_rows = []

    def count(clf, remains, device):
        read_rows.append(len(remains))
        return np.arange(len(remains))[:, None]

    monkeypatch.setattr("lab.removals.read_remains", count)
    logits = read_kept(clf, IDS, np.array([kept(1), kept(0), kept(1), kept(1), kept(0)]), "fill", CPU)
    assert read_rows == [2]
    assert logits[0] == logits[2] == logits[3] != logits[1] == logits[4]
