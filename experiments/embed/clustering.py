"""Six methods that look for clusters, in the 50 principal components of vectors and never in a picture.

k-means moves K centres until each text is at its nearest (Lloyd 1982); on vectors of unit length, so that angles count
(Dhillon & Modha 2001). Agglomerative clustering joins the two nearest clusters again and again: nearest by the spread
that joining adds (Ward 1963), or by the mean cosine distance. DBSCAN joins texts with many neighbours within a distance
(Ester et al. 1996), HDBSCAN does so at all distances and keeps what lasts (Campello et al. 2013); both leave the rest
out, as noise. Spectral clustering cuts the graph of nearest neighbours where it is thin (Ng et al. 2001).

Letters: N texts, C dimensions, K clusters."""

import warnings
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from sklearn.cluster import DBSCAN, HDBSCAN, AgglomerativeClustering, KMeans, SpectralClustering
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import cosine_distances
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from .cluster_scores import NOISE, Labels, score_inside
from .corrections import Floats

DIMS = 50  # principal components in which clusters are looked for
MIN_SAMPLES = 10  # texts within DBSCAN's distance of one that is no noise, itself among them
MIN_SIZES = (5, 10, 15, 30, 60)  # texts of the smallest cluster that HDBSCAN may find
NEIGHBOURS = 15  # of each text in the graph of spectral clustering


def project(x: Floats) -> Floats:
    """Return the principal components of x (N, C), at most DIMS, those of most variance first: float64 (N, dims)."""
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)  # of least variance first; faster than an SVD of many texts
    return centred @ axes[:, ::-1][:, :DIMS]


def cluster(x: Floats, method: str, k: int, seed: int) -> Labels:
    """Return the cluster of each row of x (N, dims), int64 (N,): 0 is the largest, NOISE is none.

    k: clusters to find; methods by density find as many as there are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ConvergenceWarning)  # fewer different texts than clusters
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        warnings.filterwarnings("ignore", "The number of connected components")
        if method in BY_DENSITY:
            labels = BY_DENSITY[method](x)
        elif k >= len(x):
            labels = np.arange(len(x))
        elif k <= 1:
            labels = np.zeros(len(x), dtype=int)
        else:
            labels = PARTITIONS[method](x, k, seed)
    return order_by_size(labels)


def order_by_size(labels: Labels) -> Labels:
    """Number clusters by their size from 0 on, those of equal size by their first text."""
    names, first, sizes = np.unique(labels[labels != NOISE], return_index=True, return_counts=True)
    ordered = np.full(len(labels), NOISE)
    for number, i in enumerate(np.lexsort((first, -sizes))):
        ordered[labels == names[i]] = number
    return ordered


def find_k_means(x: Floats, k: int, seed: int) -> Labels:
    return KMeans(k, n_init=10, random_state=seed).fit_predict(normalize(x))


def find_ward(x: Floats, k: int, seed: int) -> Labels:
    return AgglomerativeClustering(k, linkage="ward").fit_predict(x)


def find_average(x: Floats, k: int, seed: int) -> Labels:
    # Distances are computed before: the method's own cosine refuses vectors of length 0.
    return AgglomerativeClustering(k, metric="precomputed", linkage="average").fit_predict(cosine_distances(x))


def find_spectral(x: Floats, k: int, seed: int) -> Labels:
    neighbours = min(NEIGHBOURS, len(x))
    spectral = SpectralClustering(k, affinity="nearest_neighbors", n_neighbors=neighbours, random_state=seed)
    return spectral.fit_predict(x)


def find_dbscan(x: Floats) -> Labels:
    return DBSCAN(eps=choose_eps(x), min_samples=MIN_SAMPLES).fit_predict(x)


def choose_eps(x: Floats) -> float:
    """Return the distance at the knee of the sorted distances to the farthest of MIN_SAMPLES neighbours, each text its
    own first: the point farthest below the line from the first to the last (Satopaa et al. 2011)."""
    nearest = NearestNeighbors(n_neighbors=min(MIN_SAMPLES, len(x))).fit(x)
    distances = np.sort(nearest.kneighbors(x)[0][:, -1])
    height = max(distances[-1] - distances[0], 1e-12)
    below = np.linspace(0, 1, len(distances)) - (distances - distances[0]) / height
    return max(float(distances[below.argmax()]), 1e-12)


def find_hdbscan(x: Floats) -> Labels:
    swept = dict(sweep(x))
    return swept[choose_min_size(x, swept)] if swept else np.full(len(x), NOISE)


def sweep(x: Floats) -> Iterator[tuple[int, Labels]]:
    """Yield HDBSCAN's clusters for each of MIN_SIZES. min_samples is the same number and, as scikit-learn has it,
    counts the text itself; the package hdbscan does not count it."""
    for size in MIN_SIZES:
        if size <= len(x) / 2:
            # In 50 dimensions, a tree of neighbours takes longer than all distances.
            yield size, HDBSCAN(min_cluster_size=size, algorithm="brute", copy=True).fit_predict(x)


def choose_min_size(x: Floats, swept: Mapping[int, Labels]) -> int:
    """Return the smallest size whose clusters have the highest validity, of equals the first; no class is looked at."""
    inside = {size: score_inside(x, labels, METRICS["hdbscan"]) for size, labels in swept.items()}
    return max(swept, key=lambda size: measure_validity(inside[size]["silhouette"], swept[size]), default=MIN_SIZES[0])


def measure_validity(silhouette: float, labels: Labels) -> float:
    """Return the mean silhouette of all texts, where that of noise is 0: high for tight clusters of many texts.

    silhouette: of the texts in clusters; where it is undefined, validity is 0."""
    return 0.0 if np.isnan(silhouette) else silhouette * float((labels != NOISE).mean())


PARTITIONS: dict[str, Callable[[Floats, int, int], Labels]] = {
    "kmeans": find_k_means,
    "agglomerative_ward": find_ward,
    "agglomerative_average": find_average,
    "spectral": find_spectral,
}
BY_DENSITY: dict[str, Callable[[Floats], Labels]] = {"dbscan": find_dbscan, "hdbscan": find_hdbscan}
PARAMETERS = {
    "kmeans": "unit length, 10 starts",
    "agglomerative_ward": "",
    "agglomerative_average": "cosine",
    "spectral": f"{NEIGHBOURS} neighbours",
}
METHODS = ("kmeans", "agglomerative_ward", "agglomerative_average", "dbscan", "hdbscan", "spectral")
METRICS = dict.fromkeys(METHODS, "euclidean") | dict.fromkeys(("kmeans", "agglomerative_average"), "cosine")
