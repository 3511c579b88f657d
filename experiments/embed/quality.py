"""How much of the space is left in a map: neighbours, distances, classes.

Letters: N texts, C dimensions of the space, d of the map."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from .corrections import Floats

RECALLED = (5, 15, 50)  # neighbours that a map should keep
NEIGHBOURS = 15  # of trustworthiness, continuity and classes


def score_map(x: Floats, y: Floats, targets: NDArray[np.integer]) -> dict[str, float]:
    """Return the scores of a map y (N, d) of the vectors x (N, C); targets: class numbers, int (N,).

    A score is NaN where there are too few texts for its neighbours, and each is where all texts lie in one place.

    Trustworthiness is 1 where all neighbours in the map are neighbours in the space, and loses by the rank of those
    that are not; continuity is the same with map and space swapped (Venna & Kaski 2001). Recall is the share of the k
    nearest in the space that are among the k nearest in the map."""
    enough = len(x) > 2 * NEIGHBOURS and has_spread(x) and has_spread(y)
    x, y = x.astype(float), y.astype(float)
    scores = {
        "trustworthiness": float(trustworthiness(x, y, n_neighbors=NEIGHBOURS)) if enough else np.nan,
        "continuity": float(trustworthiness(y, x, n_neighbors=NEIGHBOURS)) if enough else np.nan,
    }
    scores |= {f"knn_recall_{k}": recall_neighbours(x, y, k) for k in RECALLED}
    return {**scores, **compare_distances(x, y), "class_knn": classify(y, targets)}


def has_spread(x: Floats) -> bool:
    """Return whether any two of the vectors (N, C) differ."""
    return bool((x != x[:1]).any())


def find_neighbours(x: Floats, k: int) -> NDArray[np.integer]:
    """Return the numbers of the k nearest others of each vector, nearest first: int (N, k)."""
    return NearestNeighbors(n_neighbors=k).fit(x).kneighbors(return_distance=False)


def recall_neighbours(x: Floats, y: Floats, k: int) -> float:
    """Return the mean share of the k nearest in x (N, C) that are among the k nearest in y (N, d)."""
    if 2 * k >= len(x) or not (has_spread(x) and has_spread(y)):
        return np.nan
    pairs = zip(find_neighbours(x, k), find_neighbours(y, k), strict=True)
    return float(np.mean([len(np.intersect1d(in_space, in_map)) / k for in_space, in_map in pairs]))


def compare_distances(x: Floats, y: Floats) -> dict[str, float]:
    """Return the rank correlation of all distances in space and map, and stress-1 (Kruskal 1964): by how much the
    distances of the map are off, when the map is drawn at the scale that suits it best."""
    if not (has_spread(x) and has_spread(y)):
        return {"spearman": np.nan, "stress1": np.nan}
    in_space, in_map = pdist(x), pdist(y)
    scale = (in_map @ in_space) / (in_map @ in_map)
    stress = np.linalg.norm(in_space - scale * in_map) / np.linalg.norm(in_space)
    several = len(in_space) > 1 and has_spread(in_space) and has_spread(in_map)
    return {"spearman": float(spearmanr(in_space, in_map)[0]) if several else np.nan, "stress1": float(stress)}


def classify(x: Floats, targets: NDArray[np.integer]) -> float:
    """Return the accuracy of giving each text the most frequent class of its nearest others; of equals, the first."""
    if len(x) <= 2 * NEIGHBOURS or not has_spread(x):
        return np.nan
    votes = np.eye(targets.max() + 1)[targets[find_neighbours(x, NEIGHBOURS)]].sum(axis=1)  # (N, K)
    return float((votes.argmax(axis=1) == targets).mean())
