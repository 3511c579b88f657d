"""What closed heads and MLPs emit, against plain loops."""

import numpy as np
import pytest
import torch

from data.batches import Batch
from lab import fills
from lab.device import Device
from model import Trace

CPU = Device(torch.device("cpu"), "fp32")
K, V = 4, 101


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(1)
    lengths = [3, 7, 7, 5, 11, 2, 7, 5, 13, 1, 3]
    return [rng.integers(0, V, n).tolist() for n in lengths], np.array([0, 1, 2, 0, 1, 2, 0, 3, 1, 2, 1])


def outputs(clf, ids):
    """What the heads (L, H, T, D) and the MLPs (L, T, C) emit for one text."""
    trace = Trace("z", "mlp")
    with torch.no_grad():
        clf(torch.tensor([ids]), trace=trace)
    return trace.stacked("z")[0], trace.stacked("mlp")[0]


def batch(texts, targets, *index):
    rows = [torch.tensor(texts[i]) for i in index]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return Batch(ids, torch.tensor([len(row) for row in rows]), torch.tensor(targets[list(index)]), torch.tensor(index))


def test_means_are_over_the_real_tokens_of_each_class(clf, texts):
    means = fills.measure_means(clf, *texts, CPU)
    for k in range(K):
        own = [outputs(clf, ids) for ids, target in zip(*texts, strict=True) if target == k]
        z = torch.cat([z for z, _ in own], dim=2)  # (L, H, tokens, D)
        mlp = torch.cat([mlp for _, mlp in own], dim=1)
        torch.testing.assert_close(means.z[k].float(), z.sum(2), atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(means.mlp[k].float(), mlp.sum(1), atol=1e-4, rtol=1e-5)
        assert means.tokens[k] == z.shape[2]


def test_the_mean_fill_is_one_value_for_every_text_and_token(clf, texts):
    given = fills.mean(fills.measure_means(clf, *texts, CPU))(batch(*texts, 0, 4))
    every = [outputs(clf, ids) for ids in texts[0]]
    z = torch.cat([z for z, _ in every], dim=2).mean(2)  # (L, H, D)
    mlp = torch.cat([mlp for _, mlp in every], dim=1).mean(1)
    torch.testing.assert_close(given["head_fill"], z[None, :, :, None], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(given["mlp_fill"], mlp[None, :, None], atol=1e-5, rtol=1e-4)


def test_the_class_mean_fill_leaves_the_predicted_class_out_whatever_the_true_one_is(clf, texts):
    predicted = np.full(len(texts[0]), 3)
    predicted[3], predicted[8] = 2, 1  # their true classes are 0 and 1
    fill = fills.class_mean(fills.measure_means(clf, *texts, CPU), predicted)
    given = fill(batch(*texts, 3, 8))
    for row, excluded in enumerate((2, 1)):
        others = [outputs(clf, ids) for ids, target in zip(*texts, strict=True) if target != excluded]
        z, mlp = (torch.cat(parts, dim=-2).mean(-2) for parts in zip(*others, strict=True))
        torch.testing.assert_close(given["head_fill"][row, :, :, 0], z, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(given["mlp_fill"][row, :, 0], mlp, atol=1e-5, rtol=1e-4)
    relabelled = fill(batch(texts[0], np.roll(texts[1], 1), 3, 8))
    assert torch.equal(relabelled["head_fill"], given["head_fill"])


@pytest.mark.parametrize(
    ("length", "n", "want"),
    [
        (7, 1, [1, 2, 6]),  # texts of 7 tokens
        (6, 1, [1, 2, 6]),  # none of 6: the next longer ones
        (1, 1, [9]),
        (12, 1, [8]),
        (99, 1, [8]),  # none is as long: the longest
        (7, 3, [1, 2, 6]),
        (7, 4, [1, 2, 4, 6]),  # and of 11
        (7, 6, [1, 2, 3, 4, 6, 7, 8]),  # and of 13, then shorter ones, both of 5
        (99, 2, [4, 8]),
        (2, 11, list(range(11))),
    ],
)
def test_donors_have_the_nearest_lengths_longer_ones_first(texts, length, n, want):
    assert fills.candidates(np.array([len(ids) for ids in texts[0]]), length, n).tolist() == want


def test_no_text_has_a_donor_twice(texts, monkeypatch):
    monkeypatch.setattr(fills, "DRAWS", 4)
    chosen = fills.choose_donors(texts[0] * 20, texts[0], 0)
    assert chosen.shape == (220, 4)
    assert all(len(set(row)) == 4 for row in chosen.tolist())
    lengths = np.array([len(ids) for ids in texts[0]])
    for ids, row in zip(texts[0] * 20, chosen, strict=True):
        assert set(row) <= set(fills.candidates(lengths, len(ids), 4))
    of_7 = chosen[1::11]  # 4 of 1, 2, 4, 6: all of them, each text in another order
    assert (np.sort(of_7, axis=1) == [1, 2, 4, 6]).all()
    assert len(np.unique(of_7, axis=0)) > 10
    assert fills.choose_donors(texts[0], texts[0][:3], 0).shape == (11, 3)  # there are no more


def test_a_donor_meets_its_text_at_the_last_token(clf, texts):
    donors = [texts[0][4], texts[0][3]]  # of 11 and 5 tokens
    at = batch(*texts, 0, 1, 8)  # of 3, 7 and 13 tokens
    chosen = np.zeros(len(texts[0]), dtype=int)
    chosen[0], chosen[1], chosen[8] = 1, 0, 0
    given = fills.emit_donors(clf, donors, chosen, CPU, at)
    for row, (text, donor, tokens) in enumerate([(0, 1, [2, 3, 4]), (1, 0, range(4, 11)), (8, 0, [0, 0, *range(11)])]):
        z, mlp = outputs(clf, donors[donor])
        n = len(texts[0][text])
        torch.testing.assert_close(given["head_fill"][row, :, :, :n], z[:, :, list(tokens)], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(given["mlp_fill"][row, :, :n], mlp[:, list(tokens)], atol=1e-5, rtol=1e-4)


def test_donors_are_drawn_anew_for_each_draw_and_by_the_seed(clf, texts):
    def first(seed):
        draws = fills.resample(clf, texts[0], texts[0], CPU, seed)
        return torch.stack([draw(batch(*texts, 1, 2))["head_fill"] for draw in draws])

    assert len(first(0)) == fills.DRAWS
    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))
    assert len(first(0).flatten(1).unique(dim=0)) > 1
