"""Clusters of planted blobs, of vectors without groups, and of the odd cases; scores against numbers by hand."""

import json
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import linkage
from sklearn.datasets import load_iris, make_blobs
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, silhouette_samples

from experiments.embed import clusters as tables
from experiments.embed.cluster_scores import (
    NOISE,
    measure_label_p,
    measure_stability,
    score_against,
    score_inside,
    treat_noise,
)
from experiments.embed.clustering import (
    BY_DENSITY,
    METHODS,
    MIN_SIZES,
    choose_min_size,
    cluster,
    measure_validity,
    order_by_size,
    project,
    sweep,
)
from experiments.embed.merges import LEAVES, list_merges
from experiments.embed.spaces import Site

BLOBS, CLASSES = make_blobs([40, 30, 23], n_features=11, centers=None, cluster_std=1.0, random_state=0)
PERMUTED = np.random.default_rng(1).permuted(BLOBS, axis=0)


@pytest.mark.parametrize("method", METHODS)
def test_planted_blobs_are_found_and_permuted_columns_are_not(method):
    found = cluster(project(BLOBS), method, 3, seed=0)
    assert adjusted_rand_score(CLASSES, found) > 0.9
    assert np.bincount(found[found != NOISE]).tolist() == sorted(np.bincount(found[found != NOISE]), reverse=True)
    assert abs(adjusted_mutual_info_score(CLASSES, cluster(project(PERMUTED), method, 3, seed=0))) < 0.1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("x", [np.zeros((7, 3)), np.zeros((1, 2)), np.eye(2), BLOBS[:13]], ids=str)
def test_odd_cases_never_raise(method, x):
    for k in (0, 1, 2, len(x), len(x) + 1):
        labels = cluster(project(x), method, k, seed=0)
        assert labels.shape == (len(x),)
        for metric in ("euclidean", "cosine"):
            score_inside(x, labels, metric)
        if method not in BY_DENSITY and k in (0, 1):
            assert (labels == 0).all()
        if method not in BY_DENSITY and k >= len(x):
            assert labels.tolist() == list(range(len(x)))


def test_few_texts_are_all_noise_to_hdbscan():
    assert (cluster(BLOBS[:9], "hdbscan", 3, seed=0) == NOISE).all()
    assert not list(sweep(BLOBS[: 2 * MIN_SIZES[0] - 1]))


def test_hdbscan_counts_the_text_itself_among_min_samples():
    iris = load_iris()
    labels = dict(sweep(iris.data))[15]
    assert adjusted_rand_score(iris.target, labels) == pytest.approx(0.568, abs=5e-4)  # 0.566 if it did not
    assert (labels != NOISE).all()


def test_clusters_are_numbered_by_size_and_noise_stays():
    assert order_by_size(np.array([5, 3, 3, NOISE, 9, 5])).tolist() == [0, 1, 1, NOISE, 2, 0]


def test_a_relabelled_partition_is_the_same_and_a_random_one_is_chance():
    rng = np.random.default_rng(0)
    same = score_against(3 - CLASSES, CLASSES)
    assert all(same[name] == pytest.approx(1) for name in same)
    many = rng.integers(4, size=5000)
    assert abs(score_against(rng.permutation(many), many)["ari"]) < 0.01
    assert measure_label_p(3 - CLASSES, CLASSES, seed=0) == 0.001
    assert measure_label_p(rng.permutation(CLASSES), CLASSES, seed=0) > 0.05


def test_purity_and_matching_by_hand():
    scores = score_against(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 0, 0, 1]))
    assert scores["purity"] == pytest.approx(5 / 6)  # 2 of 3, 2 of 2, 1 of 1
    assert scores["matched_accuracy"] == pytest.approx(3 / 6)  # cluster 1 is class 0, cluster 0 or 2 is class 1
    assert np.isnan(score_against(np.array([], int), np.array([], int))["ami"])


def test_noise_is_struck_out_or_one_class_or_singletons():
    labels, classes = np.array([0, 0, 1, NOISE, NOISE]), np.array([0, 0, 1, 0, 1])
    of = {name: treat_noise(labels, name) for name in ("struck out", "one class", "singletons")}
    assert of["struck out"][1].tolist() == [True, True, True, False, False]
    assert of["one class"][0].tolist() == labels.tolist()
    assert of["singletons"][0].tolist() == [0, 0, 1, 2, 3]
    assert score_against(of["one class"][0], classes)["purity"] == pytest.approx(4 / 5)
    assert score_against(of["singletons"][0], classes)["purity"] == 1
    everything, kept = treat_noise(np.full(3, NOISE), "struck out")
    assert np.isnan(score_against(everything[kept], np.zeros(3, int)[kept])["ari"])


def test_noise_has_no_part_in_the_silhouette():
    kept = np.arange(len(BLOBS)) < 80
    labels = np.where(kept, CLASSES, NOISE)
    assert score_inside(BLOBS, labels, "euclidean") == score_inside(BLOBS[kept], CLASSES[kept], "euclidean")
    assert np.isnan(score_inside(BLOBS, np.zeros(len(BLOBS), int), "euclidean")["silhouette"])


def test_validity_is_the_mean_silhouette_where_that_of_noise_is_0():
    silhouettes = silhouette_samples(BLOBS, CLASSES)
    tight = np.where(silhouettes > np.median(silhouettes), CLASSES, NOISE)
    kept = tight != NOISE
    of_kept = silhouette_samples(BLOBS[kept], CLASSES[kept])
    validity = measure_validity(score_inside(BLOBS, tight, "euclidean")["silhouette"], tight)
    assert validity == pytest.approx(np.concatenate([of_kept, np.zeros((~kept).sum())]).mean())
    assert measure_validity(np.nan, tight) == 0
    assert of_kept.mean() > silhouettes.mean()
    assert choose_min_size(BLOBS, {5: tight, 10: CLASSES}) == 10  # a few tight texts are not preferred


def test_stability_is_the_mean_over_pairs_on_shared_texts():
    rng = np.random.default_rng(0)
    groupings = [(rows := rng.permutation(20)[:16], rng.integers(3, size=20)[rows]) for _ in range(4)]
    expected = []
    for (one, labels), (other, others) in combinations(groupings, 2):
        a, b = dict(zip(one, labels, strict=True)), dict(zip(other, others, strict=True))
        shared = sorted(a.keys() & b.keys())
        expected.append(adjusted_rand_score([a[i] for i in shared], [b[i] for i in shared]))
    assert measure_stability(groupings) == pytest.approx(np.mean(expected))


def pretend(vectors, classes):
    """Spaces that hold these vectors, whatever the site."""

    def keep(name, compute, **about):
        json.dumps(about)
        return compute()

    sequences = [[i % 3, i % 5] for i in range(len(vectors))]
    texts = SimpleNamespace(positions=np.arange(len(vectors)) * 2, sequences=sequences)
    return SimpleNamespace(
        read=lambda site: {"test": vectors.astype(np.float32)},
        texts={"test": texts},
        targets=lambda split: classes,
        labels=("a", "b", "c"),
        seed=0,
        keep=keep,
    )


@pytest.fixture(scope="module")
def found():
    site, vectors = Site("fine-tuned", 2, "last", "standardise"), {"blobs": BLOBS, "permuted": PERMUTED}
    with pytest.MonkeyPatch.context() as patch:
        for name, fewer in {"SEEDS": 2, "SUBSAMPLES": 3}.items():
            patch.setattr(tables, name, fewer)
        return {name: tables.find_clusters(pretend(x, CLASSES), [site]) for name, x in vectors.items()}


@pytest.mark.slow
def test_the_tables_have_their_columns_and_rows(found):
    scores, members = found["blobs"]
    assert list(scores) == tables.COLUMNS
    assert list(members) == ["model", "method", "index", "cluster"]
    assert len(members) == len(METHODS) * len(BLOBS)
    assert members["index"].tolist() == len(METHODS) * list(range(0, 2 * len(BLOBS), 2))
    rows = scores[scores["method"] != tables.SWEEP].groupby("method").size()
    assert rows.to_dict() == {method: 3 if method in BY_DENSITY else 1 for method in METHODS}
    assert scores.loc[scores["method"] == tables.SWEEP, "parameters"].tolist() == ["5", "10", "15", "30"]
    kmeans = scores[scores["method"] == "kmeans"].iloc[0]
    assert kmeans[["ari", "coverage", "stability_seed"]].tolist() == [1, 1, 1]
    assert kmeans["largest"] == 40 / 93
    assert kmeans["k"] == 3
    assert kmeans["ami_last_token"] < 0.1


@pytest.mark.slow
def test_structure_is_found_in_blobs_and_not_in_permuted_columns(found):
    scores, _ = found["blobs"]
    p = scores[scores["method"] != tables.SWEEP].groupby("method")["p_structure"].max()
    assert (p == 1 / 21).all()  # no draw of either kind has clusters as valid
    assert (scores["silhouette"] > scores["null_silhouette"].fillna(-1)).all()
    assert (scores.loc[scores["method"] != tables.SWEEP, "null_ami"].abs() < 0.1).all()
    [line] = tables.state_structure(scores)
    assert line.startswith("fine-tuned: k-means finds groups")
    assert "They agree with the classes more than by chance: AMI 1.000" in line
    scores, _ = found["permuted"]
    assert (scores["p"].dropna() > 0.05).all()
    [line] = tables.state_structure(scores)
    assert line.startswith("fine-tuned: **no structure found**")


@pytest.mark.slow
def test_groups_that_are_not_the_classes_are_said_to_be_so(found):
    scores, _ = found["blobs"]
    [line] = tables.state_structure(scores.assign(p=0.5))
    assert "They are not the classes" in line


@pytest.mark.parametrize("freedom", [3, 1e9])
def test_one_cloud_with_correlated_dimensions_and_texts_far_out_is_no_structure(freedom):
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(120, 4)) * [9, 5, 3, 1] @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    cloud /= np.sqrt(rng.chisquare(freedom, size=(120, 1)) / freedom)  # Student's t: 3 degrees have heavy tails
    x, nulls = project(cloud), tables.draw_nulls(cloud, seed=0)
    space = tables.Space(x, 3, rng.integers(3, size=120), rng.integers(7, size=120), nulls, 0)
    [row] = tables.score_method(space, "kmeans", cluster(x, "kmeans", 3, seed=0))
    assert row["silhouette"] > row["null_silhouette"] + 0.05  # that dimensions belong together is not enough
    assert row["p_structure"] > 0.05


def test_texts_are_clustered_again_with_other_seeds_in_other_orders_and_parts(monkeypatch):
    calls, n = [], 20

    def record(x, method, k, seed):
        calls.append((tuple(x[:, 0].tolist()), seed))
        return np.zeros(len(x), dtype=int)

    monkeypatch.setattr(tables, "cluster", record)
    tables.measure_refound(tables.Space(np.arange(n)[:, None], 3, CLASSES[:n], CLASSES[:n], {}, 0), "kmeans")
    whole, parts = ([call for call in calls if (len(call[0]) == n) is is_whole] for is_whole in (True, False))
    assert {tuple(sorted(rows)) for rows, _ in whole} == {tuple(range(n))}
    assert len({rows for rows, _ in whole}) == len({seed for _, seed in whole}) == len(whole) == tables.SEEDS
    assert {len(set(rows)) for rows, _ in parts} == {16}
    assert len({frozenset(rows) for rows, _ in parts}) == len(parts) == tables.SUBSAMPLES
    assert len({seed for _, seed in parts}) == len(parts)


def test_p_of_structure_counts_draws_of_the_kind_with_most():
    assert tables.measure_structure_p(9.0, [[1.0, 2.0, 3.0], [8.0, 9.0, 10.0]]) == 3 / 4
    assert tables.measure_structure_p(0.1, [[0.0] * 19, [0.0] * 9]) == 1 / 10
    assert tables.measure_structure_p(0.0, [[-1.0] * 19]) == 1


def test_the_dendrogram_has_the_last_merges_of_ward():
    labels = [f"class {k}" for k in CLASSES]
    nodes, expected = list_merges(BLOBS, labels), linkage(BLOBS, "ward")
    leaves, merges = nodes[:LEAVES], nodes[LEAVES:]
    assert nodes["node"].tolist() == list(range(2 * LEAVES - 1))
    assert leaves["left"].isna().all()
    assert leaves["size"].sum() == len(BLOBS)
    assert merges["height"].to_numpy() == pytest.approx(expected[-LEAVES + 1 :, 2])
    assert merges["size"].tolist() == expected[-LEAVES + 1 :, 3].tolist()
    for node in merges.itertuples():
        joined = nodes.loc[[int(node.left), int(node.right)]]
        assert node.size == joined["size"].sum()
        assert node.leaves == joined["leaves"].sum()
    top = nodes.iloc[-1]
    assert (top["label"], top["share"], top["leaves"]) == ("class 0", 40 / 93, LEAVES)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_texts_are_leaves_each(n):
    nodes = list_merges(BLOBS[:n], ["a"] * n)
    assert nodes["left"].isna().sum() == n
    assert len(nodes) == 2 * n - 1
    assert pd.Series(nodes["size"]).iloc[-1] == n
