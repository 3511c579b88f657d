"""Which map and which clusters a text's row holds, of tables with several."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from experiments.embed.documents import tabulate_documents
from experiments.embed.spaces import PRETRAINED, TUNED

INDEX = np.array([1, 4, 6])  # of the texts drawn from test
SEQUENCES = [[7], [8, 9], [5, 6, 7]]
TEXTS = SimpleNamespace(positions=INDEX, targets=np.array([0, 1, 1]), sequences=SEQUENCES)
CORPUS = SimpleNamespace(split=lambda name: pd.DataFrame({"text": [f"{name} {i}" for i in range(8)]}))
TOKENIZER = SimpleNamespace(decode=lambda ids: f"token {ids[0]}")
SPACES = SimpleNamespace(
    texts={"test": TEXTS}, labels=("joy", "fear"), study=SimpleNamespace(corpus=CORPUS, tokenizer=TOKENIZER)
)


def place(network, method, parameters, start, index=INDEX):
    """A map in which each text has a place of its own, from `start` on."""
    x = start + np.arange(len(index)) / 10
    about = {"model": network, "layer": 2, "pooling": "last", "correction": "standardise"}
    return pd.DataFrame({**about, "method": method, "parameters": parameters, "index": index, "x": x, "y": -x})


MAPS = [
    place(PRETRAINED, "tsne", "perplexity 30", 10),
    place(TUNED, "pca", "", 20),
    place(TUNED, "tsne", "perplexity 30", 30, INDEX[::-1]),  # rows in another order than the texts
    place(TUNED, "tsne", "perplexity 5", 40),
    place(TUNED, "tsne", "perplexity 30, from the layer before", 50),
]
CLUSTERS = {(TUNED, "kmeans"): [0, 1, 0], (TUNED, "dbscan"): [-1, 0, 0], (PRETRAINED, "kmeans"): [1, 0, 1]}
MEMBERS = pd.concat(
    pd.DataFrame({"model": model, "method": method, "index": INDEX[::-1], "cluster": clusters[::-1]})
    for (model, method), clusters in CLUSTERS.items()
)


def test_a_text_has_its_place_in_the_first_tsne_of_the_fine_tuned_network():
    table = tabulate_documents(SPACES, MEMBERS, pd.concat(MAPS), np.zeros(3, dtype=int))
    assert table["x"].tolist() == [30.2, 30.1, 30.0]
    assert table["y"].tolist() == [-30.2, -30.1, -30.0]


def test_without_a_tsne_of_the_fine_tuned_network_a_text_has_no_place():
    table = tabulate_documents(SPACES, MEMBERS, pd.concat(MAPS[:2]), np.zeros(3, dtype=int))
    assert table[["x", "y"]].isna().all(axis=None)


def test_a_text_has_its_clusters_by_network_and_its_words():
    table = tabulate_documents(SPACES, MEMBERS, pd.concat(MAPS), np.array([1, 1, 0]))
    expected = {
        "split": ["test"] * 3,
        "index": [1, 4, 6],
        "text": ["test 1", "test 4", "test 6"],
        "label": ["joy", "fear", "fear"],
        "predicted": ["fear", "fear", "joy"],
        "cluster_kmeans": [0, 1, 0],
        "cluster_dbscan": [-1, 0, 0],
        "last_token": ["token 7", "token 9", "token 7"],
        "length": [1, 2, 3],
        "pretrained_cluster_kmeans": [1, 0, 1],
    }
    assert table.drop(columns=["x", "y"]).to_dict("list") == expected
