"""Do texts fall into groups, and are the groups the classes?

A method finds clusters in anything, so each score stands beside its null: the same method on vectors without groups.

Letters: N texts, C dimensions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from lab.progress import progress_bar
from lab.stats import LEVEL, holm

from .cluster_scores import (
    LABEL_DRAWS,
    NO_NOISE,
    NOISE,
    TREATMENTS,
    Labels,
    measure_label_p,
    measure_stability,
    score_against,
    score_inside,
    treat_noise,
)
from .clustering import (
    BY_DENSITY,
    DIMS,
    METHODS,
    METRICS,
    MIN_SAMPLES,
    MIN_SIZES,
    NEIGHBOURS,
    PARAMETERS,
    choose_eps,
    choose_min_size,
    cluster,
    measure_validity,
    order_by_size,
    project,
    sweep,
)
from .corrections import Floats
from .spaces import Site, Spaces

Row = dict[str, Any]

SEEDS, SUBSAMPLES, SHARE = 5, 10, 0.8  # of stability
NULLS = 20  # draws of each null: the smallest p is 1 / 21
WORKERS = 2
MAIN = "kmeans"  # which says whether there is structure
SWEEP = "hdbscan sweep"  # rows of one size each
NULL_COLUMNS = {"permuted": "null_silhouette", "cloud": "cloud_silhouette"}  # means over the draws
# What kept results depend on.
CONSTANTS = [DIMS, MIN_SAMPLES, MIN_SIZES, NEIGHBOURS, SEEDS, SUBSAMPLES, SHARE, NULLS, LABEL_DRAWS]
KEY = ["method", "space", "k", "parameters", "seed"]
SCORES = ["coverage", "silhouette", "ch", "db", "ari", "ami", "v", "matched_accuracy"]
AGAIN = ["stability_seed", "stability_subsample", "null_ami", "noise", "homogeneity", "purity", "largest"]
CHANCE = ["null_silhouette", "cloud_silhouette", "ami_last_token", "p", "p_structure"]
COLUMNS = [*KEY, *SCORES, *AGAIN, *CHANCE, "n", "model", "layer", "pooling", "correction"]


def find_clusters(spaces: Spaces, sites: Sequence[Site]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores of all methods at each site, COLUMNS, and the cluster of each text there, `model, method,
    index, cluster`, where -1 is noise and `index` the text's place in test.

    Where a method leaves texts out, three rows compare its clusters with the classes, as `noise` says: the others are
    struck out, one more class, or each a class of its own. `p` asks whether AMI is above chance, after Holm over all
    rows of the site; `p_structure` what `measure_structure_p` says of each method by itself. Rows of `hdbscan
    sweep` are the clusters of one smallest size each."""
    scores, members = [], []
    for site in sites:
        about = {"site": asdict(site), "methods": METHODS, "constants": CONSTANTS}
        assigned = spaces.keep(f"members-{site.network}", partial(assign_texts, spaces, site), **about)
        scored = spaces.keep(f"clusters-{site.network}", partial(score_site, spaces, site, assigned), **about)
        scores.append(scored)
        members.append(assigned)
    return pd.concat(scores, ignore_index=True), pd.concat(members, ignore_index=True)


def assign_texts(spaces: Spaces, site: Site) -> pd.DataFrame:
    """Return the cluster of each text by each method: `model, method, index, cluster`."""
    x, index = project(spaces.read(site)["test"]), spaces.texts["test"].positions
    tables = []
    for method in METHODS:
        labels = cluster(x, method, len(spaces.labels), spaces.seed)
        tables.append(pd.DataFrame({"model": site.network, "method": method, "index": index, "cluster": labels}))
    return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True, eq=False)
class Space:
    """The vectors at a site, what their texts are, and vectors without groups. N texts."""

    x: Floats  # (N, dims), principal components
    k: int  # clusters to find
    targets: Labels  # (N,) class numbers
    last: Labels  # (N,) last token of each text
    nulls: Mapping[str, Sequence[Floats]]  # by kind, (N, dims) each
    seed: int


def score_site(spaces: Spaces, site: Site, members: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a site, COLUMNS; members: `method, cluster` in the order of texts."""
    vectors, last = spaces.read(site)["test"], [ids[-1] for ids in spaces.texts["test"].sequences]
    nulls, targets = draw_nulls(vectors, spaces.seed), spaces.targets("test")
    space = Space(project(vectors), len(spaces.labels), targets, np.array(last), nulls, spaces.seed)
    labels = {str(method): rows["cluster"].to_numpy() for method, rows in members.groupby("method")}
    jobs = (delayed(score_method)(space, method, labels[method]) for method in METHODS)
    rows: list[Row] = []
    with threadpool_limits(limits=1), progress_bar("methods") as bar:
        task = bar.add_task(f"clusters: {site.network}", total=len(METHODS), note="")
        for of_method in Parallel(WORKERS, prefer="threads", return_as="generator")(jobs):
            rows += of_method
            bar.advance(task)
    rows += score_sweep(space)
    about = {"space": f"pca {space.x.shape[1]}", "seed": space.seed, "n": len(vectors), "model": site.network}
    about |= {"layer": site.layer, "pooling": site.pooling, "correction": site.correction}
    table = pd.DataFrame([about | row for row in rows]).reindex(columns=COLUMNS)
    return table.assign(p=holm(table["p"].to_numpy(float)))


def draw_nulls(vectors: Floats, seed: int) -> dict[str, list[Floats]]:
    """Draw vectors (N, dims) without groups, NULLS of each kind.

    permuted: the values of each dimension of vectors (N, C) are shuffled over the texts, so that no two dimensions have
    to do with each other. cloud: one cloud with the same spread in each principal component and texts as far from its
    middle, but in random directions; for dimensions that have to do with each other make no groups yet (as in SigClust,
    Liu et al. 2008, whose cloud is normal), and neither do a few texts far out."""
    rng, x = np.random.default_rng((seed, *b"vectors without groups")), project(vectors)
    spread = x.std(axis=0)
    radii = np.linalg.norm(x / np.where(spread > 0, spread, 1), axis=1, keepdims=True)  # (N, 1)
    directions = (normalize(rng.normal(size=x.shape)) for _ in range(NULLS))
    return {
        "permuted": [project(rng.permuted(vectors, axis=0)) for _ in range(NULLS)],
        "cloud": [radii * unit * spread for unit in directions],
    }


def score_method(space: Space, method: str, labels: Labels) -> list[Row]:
    """Return the rows of a method, one for each treatment of noise; labels: its clusters (N,)."""
    x, metric = space.x, METRICS[method]
    of_nulls = {kind: [cluster(x, method, space.k, space.seed) for x in draws] for kind, draws in space.nulls.items()}
    silhouettes = {
        kind: [
            score_inside(x, of_draw, metric)["silhouette"] for x, of_draw in zip(space.nulls[kind], each, strict=True)
        ]
        for kind, each in of_nulls.items()
    }
    shared = describe(x, method, labels) | measure_refound(space, method)
    shared |= {NULL_COLUMNS[kind]: average(values) for kind, values in silhouettes.items()}
    null_validities = [
        [measure_validity(value, of_draw) for value, of_draw in zip(silhouettes[kind], each, strict=True)]
        for kind, each in of_nulls.items()
    ]
    validity = measure_validity(shared["silhouette"], labels)
    shared["p_structure"] = measure_structure_p(validity, null_validities)
    rows = []
    for treatment in TREATMENTS if method in BY_DENSITY else (NO_NOISE,):
        treated, kept = treat_noise(labels, treatment)
        null_amis = [score_classes(of_draw, space.targets, treatment)["ami"] for of_draw in of_nulls["permuted"]]
        rows.append(
            shared
            | score_classes(labels, space.targets, treatment)
            | {"noise": treatment, "null_ami": average(null_amis)}
            | {"ami_last_token": score_classes(labels, space.last, treatment)["ami"]}
            | {"p": measure_label_p(treated[kept], space.targets[kept], space.seed)}
        )
    return rows


def score_classes(labels: Labels, classes: Labels, treatment: str) -> dict[str, float]:
    """Compare clusters with classes, noise as the treatment has it: see `score_against`."""
    treated, kept = treat_noise(labels, treatment)
    return score_against(treated[kept], classes[kept])


def describe(x: Floats, method: str, labels: Labels) -> Row:
    """Return what a method found, and how tight it is."""
    sizes = {"dbscan": lambda: f"eps {choose_eps(x):.3g}, min_samples {MIN_SAMPLES} with the text itself"}
    sizes["hdbscan"] = lambda: f"min size and min_samples {choose_min_size(x, dict(sweep(x)))}, with the text itself"
    parameters = sizes[method]() if method in sizes else PARAMETERS[method]
    about = {"method": method, "k": int(labels.max(initial=-1) + 1), "parameters": parameters}
    about |= {"coverage": float((labels != NOISE).mean()), "largest": float((labels == 0).mean())}
    return about | score_inside(x, labels, METRICS[method])


def measure_refound(space: Space, method: str) -> Row:
    """Return how well the method finds the same clusters again: `stability_seed`, with SEEDS other seeds and the texts
    in another order each time, and `stability_subsample`, in SUBSAMPLES parts of SHARE of the texts."""
    n, rng = len(space.x), np.random.default_rng((space.seed, *b"orders and subsamples"))
    draws = {"stability_seed": [rng.permutation(n) for _ in range(SEEDS)]}
    draws["stability_subsample"] = [rng.permutation(n)[: round(SHARE * n)] for _ in range(SUBSAMPLES)]
    seeds = rng.integers(2**31, size=SUBSAMPLES)
    stability = {}
    for name, chosen in draws.items():
        again = [cluster(space.x[rows], method, space.k, int(s)) for rows, s in zip(chosen, seeds, strict=False)]
        stability[name] = measure_stability(list(zip(chosen, again, strict=True)))
    return stability


def measure_structure_p(validity: float, nulls: Collection[Sequence[float]]) -> float:
    """Return the share of draws without groups, the true one counted in, whose clusters are at least as valid, by the
    kind of null where it is largest; 1 where there are no two clusters."""
    if not validity:
        return 1.0
    return max((1 + sum(np.asarray(draws) >= validity)) / (1 + len(draws)) for draws in nulls)


def score_sweep(space: Space) -> list[Row]:
    """Return a row for each smallest size of HDBSCAN; the classes are compared with the texts in clusters."""
    rows = []
    for size, labels in sweep(space.x):
        labels = order_by_size(labels)
        about = {"method": SWEEP, "parameters": str(size), "noise": TREATMENTS[0]}
        rows.append(describe(space.x, "hdbscan", labels) | about | score_classes(labels, space.targets, TREATMENTS[0]))
    return rows


def average(values: Sequence[float]) -> float:
    """Return the mean of the values that are defined; NaN where none is."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else np.nan


def state_structure(clusters: pd.DataFrame) -> list[str]:
    """Return a line for each network: are there groups, and do they go with the classes, or with the last token?

    k-means answers, the one test that was chosen beforehand. It finds groups where `p_structure` is below LEVEL; they
    go with the classes where `p` is. How many other methods find groups is said beside, each by itself."""
    lines = []
    for model, rows in clusters[clusters["method"] != SWEEP].groupby("model", sort=False):
        by_method = rows.drop_duplicates("method").set_index("method")
        main, others = by_method.loc[MAIN], by_method.drop(index=MAIN)
        null = np.nanmax([0.0, *main[["null_silhouette", "cloud_silhouette"]].to_numpy(float)])
        silhouettes = f"silhouette {main['silhouette']:.3f}, in vectors without groups {null:.3f}"
        if not main["p_structure"] < LEVEL:
            said = f"**no structure found**: k-means finds none tighter than in vectors without groups ({silhouettes})"
        else:
            more = "agree with the classes more than by chance" if main["p"] < LEVEL else "are not the classes"
            said = f"k-means finds groups ({silhouettes}). They {more}: AMI {main['ami']:.3f} with the classes"
            said += f", {main['ami_last_token']:.3f} with the last token"
        also = int((others["p_structure"] < LEVEL).sum())
        lines.append(f"{model}: {said}. By themselves, {also} of {len(others)} other methods find groups.")
    return lines
