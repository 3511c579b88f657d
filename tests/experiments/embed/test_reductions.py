"""Maps of planted blobs, of nothing, and of odd vectors."""

import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from experiments.embed import reductions
from experiments.embed.reductions import (
    COLUMNS,
    Method,
    Reduced,
    drop_duplicates,
    embed_by_tsne,
    limit_perplexity,
    list_methods,
    measure,
    permute_columns,
    project_on_axes,
    reduce_sites,
    reduce_vectors,
)
from experiments.embed.spaces import PRETRAINED, TUNED, Site, Spaces
from lab.progress import progress_bar

N, C, K = 90, 13, 3
METHODS = ["pca", "random_projection", "mds", "tsne", "tsne", "autoencoder", "variational_autoencoder", "pca"]


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setattr(reductions, "WORKERS", 1)


def plant_blobs(n=N, seed=0):
    """Vectors in K blobs, float32 (n, C), and their classes."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(K, size=n)
    return (rng.normal(size=(K, C))[targets] * 4 + rng.normal(size=(n, C))).astype(np.float32), targets


def reduce(x, targets, with_umap=False):
    return reduce_vectors(x, targets, with_umap, 0, progress_bar("maps"), "blobs")


@pytest.fixture(scope="module")
def blobs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reductions, "WORKERS", 1)
        return reduce(*plant_blobs())


def test_a_row_of_each_method_has_the_columns_of_the_table(blobs):
    table = blobs.reductions
    assert tuple(table.columns) == COLUMNS
    assert list(table["method"]) == METHODS
    assert list(table["dims"]) == [2] * 7 + [C]
    assert list(table["parameters"][3:5]) == ["perplexity 29.7", "perplexity 5"]
    assert set(table["n"]) == {N}


def test_blobs_are_found_and_permuted_columns_are_not(blobs):
    table = blobs.reductions[blobs.reductions["dims"] == 2].set_index("method")
    majority = np.bincount(plant_blobs()[1]).max() / N
    scored = table.drop("random_projection")
    assert (scored["class_knn"] > 0.95).all()
    assert (table["class_knn_full"] > 0.95).all()
    assert (table["null_class_knn"] < majority + 0.15).all()
    for score in ("trustworthiness", "continuity", "knn_recall_15", "spearman"):
        assert (scored[score] > scored[f"null_{score}"]).all(), score
    by_distance = table.loc[["pca", "mds"]]
    assert (by_distance["stress1"] < by_distance["null_stress1"]).all()


def test_classes_are_read_in_the_whole_space_beside_the_map():
    x, targets = plant_blobs()
    nowhere = np.random.default_rng(5).normal(size=(N, 2))
    scores = measure(Method("nowhere", "", lambda x, seed: Reduced(nowhere)), x, targets, 0).scores
    for name, places in {"class_knn": nowhere, "class_knn_full": x}.items():
        nearest = [np.linalg.norm(places - each, axis=1).argsort()[1:16] for each in places]  # the text itself is first
        votes = [np.bincount(targets[rows]).argmax() for rows in nearest]
        assert scores[name] == pytest.approx(np.mean(votes == targets))
    assert scores["class_knn_full"] > scores["class_knn"] + 0.3


def test_all_dimensions_restore_all(blobs):
    table = blobs.reductions.set_index(["method", "dims"]).sort_index()
    assert table.loc[("pca", C), "reconstruction"].item() == pytest.approx(1)
    x = plant_blobs()[0].astype(float)
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    assert table.loc[("pca", 2), "reconstruction"].item() == pytest.approx(values[:2].sum() / values.sum(), abs=1e-5)
    coded = table.loc[["autoencoder", "variational_autoencoder"], "reconstruction"]
    assert ((coded > 0.7) & (coded < 1)).all()
    assert np.isnan(table.loc["mds", "reconstruction"]).all()
    assert table.loc["variational_autoencoder", "active_units"].item() == 2


def test_pca_is_the_singular_value_decomposition():
    x = plant_blobs()[0].astype(float)
    left, values, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    projected = left[:, :2] * values[:2] * np.sign(axes[:2][[0, 1], np.abs(axes[:2]).argmax(axis=1)])
    np.testing.assert_allclose(project_on_axes(x, 0, 2).coordinates, projected, atol=1e-6)


def test_each_text_has_one_place_in_each_map_of_two_dimensions(blobs):
    table = blobs.coordinates
    assert list(table.columns) == ["method", "parameters", "index", "x", "y"]
    for _, rows in table.groupby(["method", "parameters"]):
        assert list(rows["index"]) == list(range(N))
    assert len(table) == 7 * N


def test_the_same_call_gives_the_same_maps_and_the_order_of_texts_does_not_matter(blobs):
    x, targets = plant_blobs()
    pd.testing.assert_frame_equal(reduce(x, targets).coordinates, blobs.coordinates)
    order = np.random.default_rng(1).permutation(N)
    shuffled = reduce(x[order], targets[order]).coordinates
    shuffled["index"] = order[shuffled["index"]]
    key = ["method", "parameters", "index"]
    expected = blobs.coordinates.sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(shuffled.sort_values(key, ignore_index=True), expected)


def test_equal_texts_share_a_place_and_count_once():
    x, targets = plant_blobs(40)
    twice = np.concatenate([x, x[[3, 3, 7]]])
    tables = reduce(twice, np.concatenate([targets, targets[[3, 3, 7]]]))
    assert set(tables.reductions["n"]) == {40}
    for _, rows in tables.coordinates.groupby(["method", "parameters"]):
        places = rows.set_index("index")[["x", "y"]].to_numpy()
        assert np.array_equal(places[40:], places[[3, 3, 7]])
        assert len(np.unique(places, axis=0)) == 40
    once = reduce(x, targets)
    merged = tables.coordinates[tables.coordinates["index"] < 40].reset_index(drop=True)
    pd.testing.assert_frame_equal(merged, once.coordinates)


@pytest.mark.parametrize(("n", "distinct"), [(1, 1), (2, 2), (9, 1), (9, 2), (3, 3), (4, 4), (7, 7)])
def test_few_texts_and_equal_ones_have_maps_without_scores(n, distinct):
    x, targets = plant_blobs(distinct)
    repeated = np.arange(n) % distinct
    tables = reduce(x[repeated], targets[repeated])
    assert np.isfinite(tables.coordinates[["x", "y"]]).all(axis=None)
    assert tables.reductions[["trustworthiness", "null_class_knn"]].isna().all(axis=None)
    if distinct < 3:
        assert (tables.coordinates[["x", "y"]] == 0).all(axis=None)


def test_a_method_that_takes_fewer_texts_says_so(monkeypatch):
    monkeypatch.setattr(reductions, "MDS_TEXTS", 50)
    monkeypatch.setattr(reductions, "SCORED", 70)
    tables = reduce(*plant_blobs())
    table = tables.reductions.set_index("method")
    assert table.loc["mds", "n"] == 50
    assert set(table.drop("mds")["n"]) == {70}
    of_mds = tables.coordinates[tables.coordinates["method"] == "mds"]
    assert len(set(of_mds["index"])) == len(of_mds) == 50
    assert len(tables.coordinates) == 6 * N + 50


def test_permuted_columns_keep_their_values_and_nothing_else():
    x = plant_blobs()[0]
    permuted = permute_columns(x, 0)
    assert np.array_equal(np.sort(permuted, axis=0), np.sort(x, axis=0))
    assert len({tuple(np.argsort(column)) for column in permuted.T}) == C
    correlations = np.corrcoef(permuted.T) - np.eye(C)
    assert np.abs(correlations).max() < 0.5 < np.abs(np.corrcoef(x.T) - np.eye(C)).max()


def test_perplexity_is_what_the_texts_allow():
    assert [limit_perplexity(30, n) for n in (1000, 91, 31, 4, 3)] == [30, 30, 10, 1, 1]
    assert [each.parameters for each in list_methods(1000, False)[3:6]] == [f"perplexity {p}" for p in (30, 5, 10)]
    assert [each.parameters for each in list_methods(300, False)[3:5]] == [f"perplexity {p}" for p in (30, 5)]


def test_tsne_begins_where_it_is_told(monkeypatch):
    x, begin = plant_blobs()[0], np.random.default_rng(0).normal(size=(N, 2)) * 40
    starts = []

    class NoTSNE:
        def __init__(self, dims, init, **settings):
            starts.append(init)

        def fit_transform(self, axes):
            return axes[:, :2]

    monkeypatch.setattr(reductions, "TSNE", NoTSNE)
    for start in (None, begin, begin * 0):
        embed_by_tsne(x, 0, 30, start)
    assert (starts[0], starts[2]) == ("pca", "pca")
    assert starts[1][:, 0].std() == pytest.approx(1e-4, rel=1e-4)
    np.testing.assert_allclose(starts[1] / 1e-4 * begin[:, 0].std(), begin, rtol=1e-4)


class Planted(Spaces):
    """Blobs at the pretrained network's sites, noise at the other's."""

    n_sites = 3

    def read(self, site):
        x, _ = plant_blobs(40)
        return {"test": x if site.network == PRETRAINED else permute_columns(x, 1)}

    def targets(self, split):
        return plant_blobs(40)[1]

    def identity(self, **more):
        return more


@pytest.fixture
def pretended_umap(monkeypatch):
    """A module `umap` that scales the first two columns; returns the settings that it was asked for."""
    settings = []

    class UMAP:
        def __init__(self, **asked):
            settings.append(asked)

        def fit_transform(self, x):
            return x[:, :2] * 3

    module = ModuleType("umap")
    module.UMAP = UMAP
    monkeypatch.setitem(sys.modules, "umap", module)
    return settings


SITES = [Site(network, 2, "last", "standardise") for network in (PRETRAINED, TUNED)]


def test_sites_are_reduced_once_and_then_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)  # an import fails
    spaces = Planted(None, tmp_path, 40, 0)
    tables = reduce_sites(spaces, SITES)
    assert spaces.left_out == ["no UMAP among the reductions: umap-learn is not installed"]
    assert list(tables[0]["model"].unique()) == list(tables[1]["model"].unique()) == [PRETRAINED, TUNED]
    assert list(tables[0].columns[-5:]) == ["n", "model", "layer", "pooling", "correction"]
    assert list(tables[1].columns) == [
        "model",
        "layer",
        "pooling",
        "correction",
        "method",
        "parameters",
        "index",
        "x",
        "y",
    ]
    monkeypatch.setattr(reductions, "measure", None)
    again = reduce_sites(Planted(None, tmp_path, 40, 0), SITES)
    for before, after in zip(tables, again, strict=True):
        pd.testing.assert_frame_equal(before, after)


def test_umap_is_used_where_it_is_installed(tmp_path, pretended_umap):
    spaces = Planted(None, tmp_path, 40, 0)
    table, coordinates = reduce_sites(spaces, SITES[:1])
    assert not spaces.left_out
    row = table[table["method"] == "umap"].iloc[0]
    assert row["parameters"] == "30 neighbours, min_dist 0.1"
    assert {"n_neighbors": 30, "min_dist": 0.1, "random_state": 0, "n_jobs": 1}.items() <= pretended_umap[0].items()
    places = coordinates[coordinates["method"] == "umap"][["x", "y"]].to_numpy()
    distinct = drop_duplicates(plant_blobs(40)[0])
    axes = project_on_axes(distinct.vectors, 0, 2).coordinates[distinct.of_text]
    np.testing.assert_allclose(places, axes * 3, rtol=1e-4)
