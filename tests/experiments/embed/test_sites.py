"""How vectors are spread, against loops over pairs, and what is read from planted classes."""

from itertools import permutations

import numpy as np
import pytest
import torch
from planted import planted, planted_texts, texts_of
from planted_spaces import open_spaces
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments.embed import sites
from experiments.embed.corrections import CORRECTIONS
from experiments.embed.sites import (
    COLUMNS,
    describe_spread,
    find_contributions,
    measure_anisotropy,
    measure_rank,
    probe,
    score_clusters,
    score_neighbours,
    tabulate_sites,
)
from experiments.embed.spaces import RANDOM, TUNED, Site

RNG = np.random.default_rng(0)


def make_blobs(n=120, K=3, C=23, apart=6.0, seed=0):
    """Return vectors (n, C) in K groups whose centres differ in all dimensions, and their groups."""
    rng = np.random.default_rng(seed)
    centres, groups = np.random.default_rng(9).normal(0, apart, (K, C)), np.arange(n) % K
    return (centres[groups] + rng.normal(size=(n, C))).astype(np.float32), groups


@pytest.fixture
def spaces(tmp_path):
    """Spaces of a classifier whose last token tells the class."""
    sequences, targets = planted_texts()
    return open_spaces(
        tmp_path, planted(), {split: texts_of(split, sequences[split], targets[split]) for split in sequences}
    )


def test_anisotropy_is_the_mean_cosine_of_all_pairs_and_the_sum_of_contributions():
    x = RNG.normal(0.7, 1, (13, 5)).astype(np.float32)
    x[4] = 0
    pairs = [(a.astype(float), b.astype(float)) for a, b in permutations(x, 2)]
    lengths = [(np.linalg.norm(a) * np.linalg.norm(b)) or 1 for a, b in pairs]
    expected = np.mean([a * b / length for (a, b), length in zip(pairs, lengths, strict=True)], axis=0)
    np.testing.assert_allclose(find_contributions(x), expected, atol=1e-12)
    assert measure_anisotropy(x) == pytest.approx(expected.sum(), abs=1e-12)
    spread = describe_spread(x)
    assert spread["top_dim"] == expected.argmax()
    assert spread["top_dim_share"] == pytest.approx(expected.max() / expected.sum())
    assert np.isnan(measure_anisotropy(x[:1]))


def test_a_shared_dimension_makes_vectors_alike_until_they_are_standardised():
    x = RNG.normal(size=(400, 17)).astype(np.float32)
    x[:, 3] += 30
    raw = describe_spread(x)
    assert raw["anisotropy"] > 0.95
    assert raw["top_dim"] == 3
    assert 0.99 < raw["top_dim_share"] < 1.01
    for correction in ("centre", "standardise", "without_top"):
        corrected = describe_spread(CORRECTIONS[correction](x[:200])(x[200:]))
        assert abs(corrected["anisotropy"]) < 1 / np.sqrt(200)
        assert np.isnan(corrected["top_dim_share"])


def test_effective_rank_counts_directions():
    assert measure_rank(np.eye(7, 11)) == pytest.approx(7)
    assert measure_rank(np.ones((5, 3))) == pytest.approx(1)
    assert measure_rank(np.diag([3.0, 1.0])) == pytest.approx(1.7547654)  # e to the entropy of (3/4, 1/4)
    assert np.isnan(measure_rank(np.zeros((4, 3))))


def test_planted_classes_are_found_and_permuted_ones_are_not():
    (train, y_train), (test, y_test) = make_blobs(), make_blobs(n=90, seed=1)
    scores = score_clusters(test, y_test, 3, 0)
    assert scores["ami"] == pytest.approx(1)
    assert 0 < scores["null_ami"] < 0.1  # the largest of 19, by chance
    assert score_neighbours(train, test, y_train, y_test) == 1
    assert probe(train, test, y_train, y_test, 3) == {"probe_auc": 1, "probe_accuracy": 1}


def test_clusters_without_classes_rarely_beat_permuted_classes():
    """With 19 draws, one search in twenty does."""
    rng, x = np.random.default_rng(3), make_blobs(n=90)[0]
    scores = [score_clusters(x, rng.integers(3, size=90), 3, seed) for seed in range(60)]
    assert sum(each["ami"] > each["null_ami"] for each in scores) <= 8


def test_a_probe_is_standardised_by_train_alone():
    (train, y_train), (test, y_test) = make_blobs(apart=0.3), make_blobs(apart=0.3, n=90, seed=1)
    test[:, 0] *= 100  # by which its own standardisation would take this dimension out
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200)).fit(train, y_train)
    auc = roc_auc_score(y_test, pipeline.predict_proba(test), multi_class="ovr")
    scores = probe(train, test, y_train, y_test, 3)
    assert scores == pytest.approx({"probe_auc": auc, "probe_accuracy": pipeline.score(test, y_test)})
    assert 0.4 < scores["probe_auc"] < 0.95


def test_classes_that_are_not_in_the_vectors_are_not_found():
    (train, y_train), (test, y_test) = make_blobs(n=300, apart=0), make_blobs(n=300, apart=0, seed=1)
    assert abs(score_clusters(test, y_test, 3, 0)["ami"]) < 0.05
    assert abs(score_neighbours(train, test, y_train, y_test) - 1 / 3) < 0.12
    assert abs(probe(train, test, y_train, y_test, 3)["probe_auc"] - 0.5) < 0.12


def test_neighbours_are_those_of_the_smallest_angle():
    train = np.array([[1, 0]] * 8 + [[0, 1]] * 7, dtype=np.float32)
    assert score_neighbours(train, np.array([[0, 9.0]]), np.repeat([0, 1], [8, 7]), np.array([0])) == 1  # 8 of 15
    train = np.array([[100, 1]] * 15 + [[1, 0.9]] * 15, dtype=np.float32)
    assert score_neighbours(train, np.array([[100, 99.0]]), np.repeat([0, 1], 15), np.array([1])) == 1


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_a_class_without_texts_leaves_the_others():
    (train, y_train), (test, y_test) = make_blobs(), make_blobs(n=60, K=2, seed=1)
    assert probe(train, test, y_train, y_test, 4)["probe_auc"] == 1
    only = probe(train, test, np.zeros(120, int), y_test, 4)
    assert only == {"probe_auc": 0.5, "probe_accuracy": 0.5}
    assert np.isnan(probe(train, test[:1], y_train, y_test[:1], 4)["probe_auc"])
    same = score_clusters(np.ones((5, 3), np.float32), np.arange(5) % 2, 8, 0)
    assert same["ami"] == pytest.approx(0, abs=1e-9)


def test_every_network_site_pooling_and_correction_has_a_row(spaces, monkeypatch):
    table = tabulate_sites(spaces)
    assert tuple(table.columns) == COLUMNS
    key = ["model", "layer", "pooling", "correction"]
    assert len(table) == len(table[key].drop_duplicates()) == 2 * 4 * 5 * 4
    assert set(table["model"]) == {TUNED, RANDOM}
    token = table["pooling"] == "token"
    read = ["knn_accuracy", "probe_auc", "ami", "null_ami", "probe_accuracy"]
    assert table.loc[token, read].isna().all(axis=None)
    assert table.loc[~token, read].notna().all(axis=None)
    assert (table["norm_first"].notna() == (table["correction"] == "none")).all()

    rows = table.set_index(key).sort_index()
    classes = rows.loc[(TUNED, 3, "last", "standardise")]
    assert classes["probe_accuracy"] > 0.95  # the last token tells three classes, and head (1, 2) the fourth
    assert classes["ami"] > 0.3 > 0.05 > classes["null_ami"]
    assert rows.loc[(TUNED, 0, "last", "none"), "probe_accuracy"] < 0.9  # before there was a head
    for correction in CORRECTIONS:
        a, b = rows.loc[(TUNED, 2, "mean", correction)], rows.loc[(TUNED, 2, "mean_without_first", correction)]
        assert a["anisotropy_without_first"] == b["anisotropy_without_first"] == b["anisotropy"] != a["anisotropy"]
    raw = rows.loc[(TUNED, 2, "last")]
    assert raw.loc["none", "probe_auc"] == raw.loc["standardise", "probe_auc"]
    by_correction = table[~token].pivot(index=["model", "layer", "pooling"], columns="correction", values="probe_auc")
    assert (by_correction["without_top"] != by_correction["none"]).any()
    vectors = spaces.read(Site(TUNED, 2, "last"))["test"]
    assert raw.loc["none", "anisotropy"] == pytest.approx(measure_anisotropy(vectors))
    norms = spaces.vectors(TUNED, "test").norms[2]
    assert raw.loc["none", "norm_first"] == pytest.approx(norms[0].mean(), rel=1e-6)
    assert raw.loc["none", "norm_rest"] == pytest.approx(norms[1].mean(), rel=1e-6)

    monkeypatch.setattr(sites, "measure_network", lambda *_: pytest.fail("what was kept is computed again"))
    assert tabulate_sites(spaces).equals(table)


def test_a_planted_dimension_at_position_0_shows_only_where_position_0_is(tmp_path):
    sequences, targets = planted_texts()
    texts = {split: texts_of(split, [ids[1:] for ids in sequences[split]], targets[split]) for split in sequences}
    found = []
    for size in (0.0, 1000.0):
        clf, folder = planted(), tmp_path / str(size)
        folder.mkdir()
        with torch.no_grad():
            clf.trunk.wpe.weight[0, 11] = size
        rows = sites.measure_place(open_spaces(folder, clf, texts), TUNED, 0, "token")
        found.append(next(row for row in rows if row["correction"] == "none"))
    without, planted_there = found
    assert planted_there["anisotropy"] > without["anisotropy"] + 0.02  # a fifth of the tokens are now the same
    assert planted_there["top_dim"] == 11 != without["top_dim"]
    assert planted_there["anisotropy_without_first"] == without["anisotropy_without_first"]
    assert planted_there["norm_first"] == pytest.approx(1000, abs=2)
    assert planted_there["norm_rest"] == without["norm_rest"]


def test_texts_of_one_token_are_left_out_where_position_0_is(tmp_path):
    sequences, targets = planted_texts()
    short = [ids if i % 3 else ids[:1] for i, ids in enumerate(sequences["test"])]
    texts = {split: texts_of(split, sequences[split], targets[split]) for split in sequences}
    spaces = open_spaces(tmp_path, planted(), texts | {"test": texts_of("test", short, targets["test"])})
    vectors = spaces.read(Site(TUNED, 1, "last"))["test"]
    [row] = [row for row in sites.measure_place(spaces, TUNED, 1, "last") if row["correction"] == "none"]
    longer = np.array([len(ids) > 1 for ids in short])
    assert row["anisotropy"] == pytest.approx(measure_anisotropy(vectors))
    assert row["anisotropy_without_first"] == pytest.approx(measure_anisotropy(vectors[longer]))
    assert row["anisotropy"] != pytest.approx(row["anisotropy_without_first"], abs=1e-4)
    assert np.isfinite(row["norm_rest"])
