"""Maps from layer to layer: texts that keep their neighbours keep their places."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import procrustes

from experiments.embed import maps, reductions
from experiments.embed.maps import draw_map, draw_maps
from experiments.embed.spaces import PRETRAINED, TUNED, Spaces

N, C, LAYERS = 60, 11, 3
NETWORKS, POOLINGS = (PRETRAINED, TUNED), ("last", "mean_without_first")


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setattr(reductions, "WORKERS", 1)


class Drifting(Spaces):
    """Vectors that are nearly the same from layer to layer, others for each network and pooling."""

    n_sites = LAYERS

    def read(self, site):
        line = NETWORKS.index(site.network) * 2 + POOLINGS.index(site.pooling)
        x = np.random.default_rng(line).normal(size=(N, C))
        return {"test": (x + 0.1 * np.random.default_rng(10 + site.layer).normal(size=(N, C))).astype(np.float32)}

    def identity(self, **more):
        return more


@pytest.fixture
def drifting(tmp_path):
    return Drifting(None, tmp_path, N, 0)


def test_each_text_has_a_place_at_every_site(drifting):
    table = draw_maps(drifting, NETWORKS)
    assert list(table.columns) == ["model", "layer", "pooling", "correction", "method", "parameters", "index", "x", "y"]
    sites = table.groupby(["model", "layer", "pooling"])
    assert set(sites.groups) == set(product(NETWORKS, range(LAYERS), POOLINGS))
    for _, rows in sites:
        assert list(rows["index"]) == list(range(N))
    assert set(table["correction"]) == {"standardise"}


def test_the_first_map_is_that_of_the_site_alone_and_the_next_starts_from_it(drifting):
    table = draw_maps(drifting, NETWORKS).set_index(["model", "pooling", "layer"]).sort_index()
    for network, pooling in product(NETWORKS, POOLINGS):
        start = None
        for layer in range(LAYERS):
            places = table.loc[(network, pooling, layer), ["x", "y"]].to_numpy()
            x = drifting.read(maps.Site(network, layer, pooling))["test"]
            np.testing.assert_allclose(places, draw_map(x, 0, start), rtol=1e-5)
            start = places


def test_texts_that_keep_their_neighbours_keep_their_places(drifting):
    before, after = (drifting.read(maps.Site(PRETRAINED, layer, "last"))["test"] for layer in (0, 1))
    start = draw_map(before, 0)
    followed, alone = (procrustes(start, draw_map(after, 0, begin))[2] for begin in (start, None))
    assert followed < 0.7 * alone


def test_layers_that_are_kept_are_not_drawn_again(drifting, monkeypatch):
    table = draw_maps(drifting, NETWORKS)
    drawn = []
    draw = maps.draw_layer
    monkeypatch.setattr(
        maps, "draw_layer", lambda spaces, sites, before: drawn.append(1) or draw(spaces, sites, before)
    )
    pd.testing.assert_frame_equal(draw_maps(drifting, NETWORKS), table)
    assert not drawn
    (drifting.folder / "maps-standardise-2.json").unlink()
    pd.testing.assert_frame_equal(draw_maps(drifting, NETWORKS), table)
    assert len(drawn) == 1
    draw_maps(drifting, NETWORKS[:1])
    assert len(drawn) == 1 + LAYERS


def test_equal_texts_and_few_texts_have_places():
    x = np.random.default_rng(0).normal(size=(20, C))
    twice = np.concatenate([x, x[4:6]])
    start = np.random.default_rng(1).normal(size=(22, 2))
    places = draw_map(twice, 0, start)
    assert np.array_equal(places[20:], places[4:6])
    assert np.array_equal(places[:20], draw_map(x, 0, start[:20]))
    for n in (1, 2):
        assert (draw_map(x[:n], 0, start[:n]) == 0).all()
        assert (draw_map(x[[0, n - 1] * 5], 0) == 0).all()
