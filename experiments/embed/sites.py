"""How vectors of texts are spread at each site, and what can be read from them: sites.csv.

Anisotropy. If directions were spread evenly, the cosine of two texts would be 0 on average. In GPT-2 it is far from 0,
because all vectors share a direction (Ethayarajh 2019, D19-1006). Often a few dimensions make up most of it (Timkey &
van Schijndel 2021, 2109.04404), and position 0 has larger values than any other (Sun et al. 2024, 2402.17762).

Classes. A probe and the nearest neighbours say what can be read with labels. Clusters say what stands out without any:
their agreement with the labels (AMI) is 0 by chance, and permuted labels show how far from 0 chance goes.

Letters: N texts, C dimensions, K classes."""

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize
from threadpoolctl import threadpool_limits

from lab.metrics import ranking_metrics
from lab.progress import progress_bar
from lab.vectors import POOLINGS

from .clustering import DIMS, PARAMETERS, cluster, project
from .corrections import CORRECTIONS, Floats
from .spaces import SPLITS, Site, Spaces

Ints = NDArray[np.integer]

NEIGHBOURS = 15
STRENGTH = 0.01  # LogisticRegression's C
LABEL_DRAWS = 19
WORKERS = 4  # sites in memory at once, at most
TOKEN = "token"  # a pooling of which there is nothing to classify
WITHOUT_FIRST = {"mean": "mean_without_first", TOKEN: "token_without_first"}  # the same pooling without position 0
STANDARDISED_LATER = ("centre", "standardise")  # a probe standardises: these two change nothing for it
COLUMNS = (
    *("model", "layer", "pooling", "correction", "anisotropy", "anisotropy_without_first", "top_dim", "top_dim_share"),
    *("effective_rank", "norm_first", "norm_rest", "knn_accuracy", "probe_auc"),
    *("ami", "null_ami", "probe_accuracy"),
)


def tabulate_sites(spaces: Spaces) -> pd.DataFrame:
    """Return a row for each network, site, pooling and correction: COLUMNS, measured on test.

    Pooling `token` is a random token of each text; it has no classes. `anisotropy_without_first` is that of the same
    pooling without position 0 where there is one, and leaves out texts of one token. Norms are those of the tokens, so
    they stand at correction `none` only. Where a value is not defined, it is NaN."""
    constants = {"neighbours": NEIGHBOURS, "strength": STRENGTH, "k-means": [DIMS, PARAMETERS["kmeans"], LABEL_DRAWS]}
    tables = [
        spaces.keep(f"sites-{network}", partial(measure_network, spaces, network), **constants)
        for network in spaces.networks
    ]
    return pd.concat(tables, ignore_index=True).reindex(columns=list(COLUMNS))


def measure_network(spaces: Spaces, network: str) -> pd.DataFrame:
    """Return the rows of a network, several places at a time."""
    places = [(layer, pooling) for layer in range(spaces.n_sites) for pooling in (*POOLINGS, TOKEN)]
    for split in SPLITS:
        spaces.vectors(network, split)  # recorded before there are threads, which then only read
    jobs = (delayed(measure_place)(spaces, network, layer, pooling) for layer, pooling in places)
    rows: list[dict[str, Any]] = []
    # Threads share the filters of warnings: without this one, each thread would undo what another has just set.
    quiet = warnings.catch_warnings(action="ignore", category=ConvergenceWarning)
    with threadpool_limits(limits=1), quiet, progress_bar("sites and poolings") as bar:
        task = bar.add_task(f"sites: {network}", total=len(places), note="")
        for of_place in Parallel(min(cpu_count(), WORKERS), prefer="threads", return_as="generator")(jobs):
            rows += of_place
            bar.advance(task)
    return pd.DataFrame(rows)


def measure_place(spaces: Spaces, network: str, layer: int, pooling: str) -> list[dict[str, Any]]:
    """Return the rows of one layer and pooling, one for each correction."""
    recorded = spaces.vectors(network, "test")
    longer, K = recorded.lengths > 1, len(spaces.labels)
    y_train, y_test = (spaces.targets(split) for split in SPLITS)
    rows: list[dict[str, Any]] = []
    probed: dict[str, float] = {}
    clustered: dict[str, float] = {}
    for correction in CORRECTIONS:
        site = Site(network, layer, pooling, correction)
        train, test = spaces.read(site).values()
        bare = spaces.read(replace(site, pooling=WITHOUT_FIRST.get(pooling, pooling)))["test"][longer]
        row = {"model": network, "layer": layer, "pooling": pooling, "correction": correction, **describe_spread(test)}
        row["anisotropy_without_first"] = measure_anisotropy(bare)
        if correction == "none":
            first, rest = (float(pd.Series(each).mean()) for each in recorded.norms[layer])  # without NaN
            row |= {"norm_first": first, "norm_rest": rest}
        if pooling != TOKEN:
            if correction not in STANDARDISED_LATER:
                probed = probe(train, test, y_train, y_test, K)
            if correction != "centre":  # principal components are centred anyway
                clustered = score_clusters(test, y_test, K, spaces.seed)
            row |= probed | clustered | {"knn_accuracy": score_neighbours(train, test, y_train, y_test)}
        rows.append(row)
    return rows


def describe_spread(x: Floats) -> dict[str, float]:
    """Return `anisotropy, top_dim, top_dim_share, effective_rank` of vectors (N, C).

    The share of one dimension means nothing where the whole is nearly nothing: it is NaN where the anisotropy is not
    above 1 / sqrt(N)."""
    contributions = find_contributions(x)
    anisotropy, top = float(contributions.sum()), int(contributions.argmax())
    above_chance = anisotropy > 1 / np.sqrt(len(x))
    return {
        "anisotropy": anisotropy,
        "top_dim": top,
        "top_dim_share": float(contributions[top]) / anisotropy if above_chance else np.nan,
        "effective_rank": measure_rank(x),
    }


def find_contributions(x: Floats) -> Floats:
    """Return what each dimension adds to the mean cosine of all pairs of different rows of x (N, C): float64 (C,).

    A cosine is the sum over dimensions of the products of two unit vectors' values (Timkey & van Schijndel 2021, eq.
    4). Over all pairs, a dimension's products sum to the square of its sum, less the squares. NaN for less than two
    rows."""
    if (n := len(x)) < 2:
        return np.full(x.shape[1], np.nan)
    unit = normalize(x.astype(np.float64))
    return (unit.sum(axis=0) ** 2 - (unit**2).sum(axis=0)) / (n * (n - 1))


def measure_anisotropy(x: Floats) -> float:
    """Return the mean cosine over all pairs of different rows of x (N, C), NaN for less than two rows."""
    return float(find_contributions(x).sum())


def measure_rank(x: Floats) -> float:
    """Return the effective rank of x (N, C): e to the entropy of the singular values, as shares of their sum (RankMe,
    Garrido et al. 2023, 2210.02885). It is the number of directions if all are equally strong; NaN for zeros."""
    x = x.astype(np.float64)
    values = np.sqrt(np.linalg.eigvalsh(x.T @ x if len(x) > x.shape[1] else x @ x.T).clip(0))  # faster than an SVD
    if not values.any():
        return np.nan
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def score_neighbours(train: Floats, test: Floats, y_train: Ints, y_test: Ints) -> float:
    """Return the accuracy on test of the most frequent class among the 15 nearest texts of train, by cosine."""
    neighbours = KNeighborsClassifier(min(NEIGHBOURS, len(train)), metric="cosine").fit(train, y_train)
    return float(neighbours.score(test, y_test))


def probe(train: Floats, test: Floats, y_train: Ints, y_test: Ints, K: int) -> dict[str, float]:
    """Return `probe_auc` and `probe_accuracy` on test of a logistic regression, fitted on standardised train.

    The AUC is that of one class against the rest, averaged over the classes where it is defined; NaN where there are
    none."""
    scaler = StandardScaler().fit(train)
    one_class = (y_train == y_train[0]).all()
    model = DummyClassifier() if one_class else LogisticRegression(C=STRENGTH, max_iter=200)
    model.fit(scaler.transform(train), y_train)
    probabilities = np.zeros((len(test), K))
    probabilities[:, model.classes_] = model.predict_proba(scaler.transform(test))
    of_classes = [ranking_metrics(y_test == k, probabilities[:, k])["roc_auc"] for k in range(K)]
    defined = [auc for auc in of_classes if auc is not None]
    accuracy = float((probabilities.argmax(axis=1) == y_test).mean())
    return {"probe_auc": float(np.mean(defined)) if defined else np.nan, "probe_accuracy": accuracy}


def score_clusters(x: Floats, targets: Ints, K: int, seed: int) -> dict[str, float]:
    """Return `ami`, how far K clusters of x (N, C) agree with the classes int (N,), and `null_ami`, the largest AMI of
    LABEL_DRAWS draws in which the classes were dealt out to the texts at random: so p <= 0.05 where AMI is above it."""
    clusters, rng = cluster(project(x), "kmeans", K, seed), np.random.default_rng((seed, *b"permuted classes"))
    nulls = [adjusted_mutual_info_score(rng.permutation(targets), clusters) for _ in range(LABEL_DRAWS)]
    return {"ami": float(adjusted_mutual_info_score(targets, clusters)), "null_ami": float(max(nulls))}
