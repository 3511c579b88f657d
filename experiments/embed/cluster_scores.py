"""How good are clusters: tight in themselves, like the classes, and the same when they are found again?

Scores from within need no labels: silhouette (Rousseeuw 1987), the ratio of Calinski & Harabasz (1974) and that of
Davies & Bouldin (1979, low is good). Scores against classes count pairs (adjusted Rand index, Hubert & Arabie 1985) or
bits (adjusted mutual information, Vinh et al. 2010); both are 0 by chance and 1 for the same groups. V and purity are
not adjusted: they grow with the number of clusters.

Letters: N texts."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import xlogy
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    calinski_harabasz_score,
    davies_bouldin_score,
    homogeneity_completeness_v_measure,
    silhouette_score,
)
from sklearn.metrics.cluster import contingency_matrix

from .corrections import Floats

Labels = NDArray[np.integer]  # cluster of each text (N,), or NOISE

NOISE = -1
NO_NOISE = "none"  # the treatment where a method leaves out no text
TREATMENTS = ("struck out", "one class", "singletons")  # of noise, where clusters are compared with classes
LABEL_DRAWS = 999


def score_inside(x: Floats, labels: Labels, metric: str) -> dict[str, float]:
    """Return `silhouette, ch, db` of the texts in clusters; NaN for fewer than two clusters, or one for each text.

    x: (N, dims); metric: of the silhouette, `euclidean` or `cosine`."""
    x, labels = x[labels != NOISE], labels[labels != NOISE]
    if not 2 <= len(np.unique(labels)) < len(labels):
        return dict.fromkeys(("silhouette", "ch", "db"), np.nan)
    return {
        "silhouette": float(silhouette_score(x, labels, metric=metric)),
        "ch": float(calinski_harabasz_score(x, labels)),
        "db": float(davies_bouldin_score(x, labels)),
    }


def treat_noise(labels: Labels, treatment: str) -> tuple[Labels, NDArray[np.bool_]]:
    """Return the labels with noise as this treatment has it, (N,), and which texts are compared, bool (N,)."""
    noise = labels == NOISE
    if treatment == "singletons":
        labels = labels.copy()
        labels[noise] = labels.max() + 1 + np.arange(noise.sum())
    return labels, ~noise if treatment == "struck out" else np.ones(len(labels), dtype=bool)


def score_against(labels: Labels, classes: Labels) -> dict[str, float]:
    """Return `ari, ami, v, homogeneity, purity, matched_accuracy`; NaN where there are no texts.

    purity: share of texts in their cluster's most frequent class. matched_accuracy: share of texts in their cluster's
    class, where clusters and classes are paired one to one for the largest share (Kuhn 1955)."""
    if not len(labels):
        return dict.fromkeys(("ari", "ami", "v", "homogeneity", "purity", "matched_accuracy"), np.nan)
    counts = contingency_matrix(classes, labels)
    homogeneity, _, v = homogeneity_completeness_v_measure(classes, labels)
    return {
        "ari": float(adjusted_rand_score(classes, labels)),
        "ami": float(adjusted_mutual_info_score(classes, labels)),
        "v": float(v),
        "homogeneity": float(homogeneity),
        "purity": float(counts.max(axis=0).sum() / len(labels)),
        "matched_accuracy": float(counts[linear_sum_assignment(-counts)].sum() / len(labels)),
    }


def measure_label_p(labels: Labels, classes: Labels, seed: int) -> float:
    """Return how often shuffled classes (N,) share as much information with the clusters (N,) as the true ones do.

    p = (1 + such draws) / (1 + LABEL_DRAWS); NaN where there are no texts. Shuffling keeps all sizes, so the mutual
    information, and AMI too, grow with the sum of n log n over the cells of the table alone."""
    if not len(labels):
        return np.nan
    rng = np.random.default_rng((seed, *b"shuffled classes"))
    clusters, classes = np.unique(labels, return_inverse=True)[1], np.unique(classes, return_inverse=True)[1]
    n_classes = classes.max() + 1

    def sum_cells(drawn: Labels) -> float:
        counts = np.bincount(clusters * n_classes + drawn)
        return float(xlogy(counts, counts).sum())

    true = sum_cells(classes) - 1e-9  # sums in another order are equal up to rounding
    return (1 + sum(sum_cells(rng.permutation(classes)) >= true for _ in range(LABEL_DRAWS))) / (1 + LABEL_DRAWS)


def measure_stability(groupings: Sequence[tuple[NDArray[np.integer], Labels]]) -> float:
    """Return the mean adjusted Rand index of all pairs on the texts that both have; noise counts as one cluster.

    groupings: numbers of the texts, different ones, and the cluster of each (Ben-Hur et al. 2002)."""
    agreements = []
    for (one, labels), (other, others) in combinations(groupings, 2):
        _, i, j = np.intersect1d(one, other, assume_unique=True, return_indices=True)
        agreements.append(adjusted_rand_score(labels[i], others[j]))
    return float(np.mean(agreements)) if agreements else np.nan
