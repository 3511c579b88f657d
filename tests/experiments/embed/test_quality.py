"""Scores of maps against numbers by hand and plain loops."""

import numpy as np
import pytest
from scipy.stats import rankdata

from experiments.embed import quality
from experiments.embed.quality import classify, recall_neighbours, score_map

N, C, K = 37, 5, 3


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    x, targets = rng.normal(size=(N, C)), rng.integers(K, size=N)
    return x, x[:, :2] + rng.normal(size=(N, 2)), targets


def rank_others(x, i):
    """The other texts, nearest to text i first."""
    return [j for j in np.argsort([((x[i] - other) ** 2).sum() for other in x]) if j != i]


def penalise(kept, image, k):
    """1 minus the ranks in `kept` of those that are near in `image` alone (Venna & Kaski 2001)."""
    total = 0
    for i in range(N):
        order = rank_others(kept, i)
        total += sum(max(0, order.index(j) + 1 - k) for j in rank_others(image, i)[:k])
    return 1 - 2 / (N * k * (2 * N - 3 * k - 1)) * total


def test_a_swap_of_neighbours_costs_what_it_costs_by_hand(monkeypatch):
    monkeypatch.setattr(quality, "NEIGHBOURS", 1)
    x, y = np.arange(5.0)[:, None], np.array([0.0, 1, 2, 4, 3])[:, None]
    assert score_map(x, y, np.zeros(5, int))["trustworthiness"] == pytest.approx(0.866667, abs=1e-6)


def test_trustworthiness_and_continuity_are_those_of_a_loop(drawn):
    x, y, targets = drawn
    scores = score_map(x, y, targets)
    assert scores["trustworthiness"] == pytest.approx(penalise(x, y, 15))
    assert scores["continuity"] == pytest.approx(penalise(y, x, 15))
    assert scores["trustworthiness"] != pytest.approx(scores["continuity"])


def test_recall_rank_correlation_and_stress_are_those_of_a_loop(drawn):
    x, y, targets = drawn
    scores = score_map(x, y, targets)
    for k in (5, 15):
        both = [len(set(rank_others(x, i)[:k]) & set(rank_others(y, i)[:k])) / k for i in range(N)]
        assert scores[f"knn_recall_{k}"] == pytest.approx(np.mean(both))
    pairs = [(i, j) for i in range(N) for j in range(i)]
    in_space, in_map = (np.array([np.sqrt(((each[i] - each[j]) ** 2).sum()) for i, j in pairs]) for each in (x, y))
    ranks = rankdata(in_space), rankdata(in_map)
    assert scores["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    stresses = [
        np.sqrt(((in_space - scale * in_map) ** 2).sum() / (in_space**2).sum()) for scale in np.linspace(0, 5, 999)
    ]
    assert scores["stress1"] == pytest.approx(min(stresses), abs=1e-4)


def test_a_text_has_the_class_of_most_of_its_neighbours_but_itself(drawn):
    x, _, targets = drawn
    right = 0
    for i in range(N):
        votes = [sum(targets[j] == k for j in rank_others(x, i)[:15]) for k in range(K)]
        right += votes.index(max(votes)) == targets[i]
    assert classify(x, targets) == pytest.approx(right / N)


def test_a_rotated_and_enlarged_space_loses_nothing(drawn):
    x, _, targets = drawn
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(C, C)))[0]
    for y in (x, x @ rotation, 7 * x):
        scores = score_map(x, y, targets)
        for score in ("trustworthiness", "continuity", "knn_recall_5", "knn_recall_15", "spearman"):
            assert scores[score] == pytest.approx(1)
        assert scores["stress1"] == pytest.approx(0, abs=1e-6)
        assert scores["class_knn"] == classify(x, targets)


def test_too_few_texts_and_texts_in_one_place_have_no_scores(drawn):
    x, y, targets = drawn
    for n in (1, 2, 10):
        scores = score_map(x[:n], y[:n], targets[:n])
        assert np.isnan([scores["trustworthiness"], scores["knn_recall_5"], scores["class_knn"]]).all()
    for one_place in ((x, y * 0), (x * 0, y)):
        scores = score_map(*one_place, targets)
        assert np.isnan([value for name, value in scores.items() if name != "class_knn"]).all()
    assert np.isnan(recall_neighbours(x, y, 19))
    assert recall_neighbours(x, y, 18) > 0
