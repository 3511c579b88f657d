"""Estimates of a head's importance against finite differences and by hand; orders."""

import warnings
from copy import deepcopy
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from data.batches import Batch
from experiments.ablate import importance
from lab import fills
from lab.device import Device
from lab.sweep import fill_zeros

CPU = Device(torch.device("cpu"), "fp32")
N, K, V = 7, 4, 101
PRIOR = (2.0, -1.0, 0.5, 0.0)  # b of a prompt


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [rng.integers(0, V, rng.integers(1, 14)).tolist() for _ in range(N)], rng.integers(0, K, N)


def fills_of(name, clf, texts):
    if name == "zero":
        return [fill_zeros]
    if name == "resample":
        return fills.resample(clf, texts[0], texts[0][:5], CPU, 0)[:3]
    means = fills.measure_means(clf, *texts, CPU)
    return [fills.mean(means) if name == "mean" else fills.class_mean(means, np.arange(N) % K)]


@pytest.mark.parametrize(
    ("name", "b"), [*product(["zero", "mean", "resample", "class_mean"], [(0.0,) * K]), ("mean", PRIOR)]
)
def test_gradients_are_those_of_finite_differences_with_the_same_fill_and_prior(clf, texts, name, b):
    draws = fills_of(name, clf, texts)
    gradients = importance.gate_gradients(clf, *texts, draws, CPU, np.array(b))
    config, exact, step = clf.config, deepcopy(clf).double(), 1e-4
    assert gradients.shape == (N, config.n_layer, config.n_head)
    for i in (0, 3, 6):
        alone = Batch(*(torch.tensor([value]) for value in (texts[0][i], len(texts[0][i]), 0, i)))
        for layer, head in [(0, 1), (1, 4), (2, 2)]:
            slopes = []
            for fill in draws:
                values = {key: value.double() for key, value in fill(alone).items() if key == "head_fill"}
                losses = []
                for sign in (1, -1):
                    gate = torch.ones(1, config.n_layer, config.n_head, 1, dtype=torch.float64)
                    gate[0, layer, head] += sign * step
                    with torch.no_grad():
                        logits = exact(alone.ids, head_gate=gate, **values)
                    losses.append(F.cross_entropy(logits - torch.tensor(b), torch.tensor([texts[1][i]])).item())
                slopes.append((losses[0] - losses[1]) / (2 * step))
            assert gradients[i, layer, head] == pytest.approx(np.mean(slopes), rel=1e-3, abs=1e-5)


def test_importance_by_hand():
    gradients = np.array([[[3, -4], [0, 0]], [[-1, 0], [0, 0]], [[5, 1], [0, 2]]], dtype=float)  # 3 texts, 2 x 2 heads
    rises = np.array([[[1, 2], [3, 4]], [[3, 0], [-3, 0]], [[7, 7], [7, 7]]], dtype=float)
    table = importance.tabulate_importance(gradients, rises, np.array([0, 0, 2]), ["joy", "love", "fear"])
    columns = ["layer", "head", "class", "n", "absolute", "normalised", "signed", "exact"]
    root = np.sqrt(9 + 25 / 9)
    expected = [
        (0, 0, "all", 3, 3, 3 / root, -7 / 3, 11 / 3),
        (0, 1, "all", 3, 5 / 3, 5 / 3 / root, 1, 3),
        (1, 0, "all", 3, 0, 0, 0, 7 / 3),
        (1, 1, "all", 3, 2 / 3, 1, -2 / 3, 11 / 3),
        (0, 0, "joy", 2, 2, 2 / np.sqrt(8), -1, 2),
        (0, 1, "joy", 2, 2, 2 / np.sqrt(8), 2, 1),
        (1, 0, "joy", 2, 0, 0, 0, 0),  # a layer without any gradient
        (1, 1, "joy", 2, 0, 0, 0, 2),
        (0, 0, "fear", 1, 5, 5 / np.sqrt(26), -5, 7),
        (0, 1, "fear", 1, 1, 1 / np.sqrt(26), -1, 7),
        (1, 0, "fear", 1, 0, 0, 0, 7),
        (1, 1, "fear", 1, 2, 1, -2, 7),
    ]
    pd.testing.assert_frame_equal(table[columns], pd.DataFrame(expected, columns=columns), check_dtype=False)


def test_correlations_by_hand():
    """Estimates without a sign are held against the size of the exact effect, the signed one against itself."""
    table = pd.DataFrame(
        {
            "fill": "mean",
            "class": ["all"] * 4 + ["joy"] * 4,
            "absolute": [1, 2, 3, 4, 1, 1, 1, 1],
            "normalised": [4, 3, 2, 1, 1, 2, 3, 5],
            "signed": [-4, -3, 1, 2, 0, 1, 2, 3],
            "exact": [-5, -4, 2, 3, 1, 2, 3, 4],
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spearman = importance.correlate_estimates(table).set_index(["fill", "class", "estimate"])["spearman"]
    # sizes 5 4 2 3 have ranks 4 3 1 2 against 1 2 3 4: squared differences 9 + 1 + 4 + 4 = 18, so 1 - 6 * 18 / 60
    assert spearman["mean", "all", "absolute"] == pytest.approx(-0.8)
    assert spearman["mean", "all", "normalised"] == pytest.approx(0.8)
    assert spearman["mean", "all", "signed"] == pytest.approx(1)
    assert np.isnan(spearman["mean", "joy", "absolute"])  # all the same
    assert spearman["mean", "joy", "normalised"] == pytest.approx(1)


def test_orders_begin_with_the_least_important_head():
    table = pd.DataFrame(
        {
            "layer": [0, 0, 1, 1] * 2,
            "head": [0, 1, 0, 1] * 2,
            "class": ["all"] * 4 + ["joy"] * 4,
            "exact": [0.3, -0.2, 0.1, -0.2, 9, 8, 7, 6],
            "normalised": [0.1, 0.4, 0.3, 0.2, 9, 8, 7, 6],
        }
    )
    orders = importance.order_heads(table, 0)
    assert orders["measured"] == [(0, 1), (1, 1), (1, 0), (0, 0)]  # the first of equals first
    assert orders["gradient"] == [(0, 0), (1, 1), (1, 0), (0, 1)]
    random = [orders[f"random {i}"] for i in range(importance.RANDOM_ORDERS)]
    assert len(orders) == 2 + len(random)
    assert all(sorted(order) == [(0, 0), (0, 1), (1, 0), (1, 1)] for order in random)
    assert len(set(map(tuple, random))) > 1
    assert importance.order_heads(table, 0) == orders != importance.order_heads(table, 1)


def test_points_of_a_curve_go_from_none_to_all():
    assert importance.curve_points(144) == list(range(0, 145, 12))
    assert importance.curve_points(5) == [0, 1, 2, 3, 4, 5]


def test_the_strongest_heads_are_those_of_the_largest_change_on_val_in_any_class():
    rows = [
        ("head", 0, 0, "zero", "joy", 0.1, 9.0),
        ("head", 0, 0, "zero", "fear", -0.7, 9.0),
        ("head", 0, 1, "zero", "joy", 0.5, -99.0),  # test has no say
        ("head", 0, 1, "zero", "fear", np.nan, 0.0),
        ("head", 1, 0, "zero", "joy", 0.2, 0.0),
        ("head", 1, 1, "mean", "joy", 8.0, 0.0),
        ("mlp", 0, None, "zero", "joy", 8.0, 0.0),
    ]
    table = pd.DataFrame(rows, columns=["kind", "layer", "head", "fill", "class", "val_effect", "test_effect"])
    table = table.astype({"layer": "Int64", "head": "Int64"})
    assert importance.find_strongest(table, "zero", 2) == ["0.0", "0.1"]
    assert importance.find_strongest(table, "zero", 8) == ["0.0", "0.1", "1.0"]
