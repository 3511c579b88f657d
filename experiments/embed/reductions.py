"""The same texts reduced to two dimensions by each method, and how much of the space is left in each map.

PCA keeps the directions of most variance (Pearson 1901); a random projection keeps random ones, and shows what a method
must beat. MDS moves points until the distances in the map are those of the space (SMACOF: de Leeuw 1977). t-SNE (van
der Maaten & Hinton 2008) and UMAP (McInnes et al. 2018, 1802.03426) keep neighbours: distances between groups, their
sizes and their densities mean little there.

Each method is also run on the vectors with each column permuted among the texts: every dimension keeps its values, and
what lies near what is gone. A map of these is what the method makes of nothing.

Equal vectors are reduced once. Letters: N texts, C dimensions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from rich.progress import Progress
from sklearn.decomposition import PCA
from sklearn.manifold import MDS, TSNE
from sklearn.random_projection import GaussianRandomProjection
from threadpoolctl import threadpool_limits

from lab.progress import progress_bar

from . import autoencoders, quality
from .autoencoders import BETA, encode
from .clustering import DIMS
from .corrections import Floats
from .quality import classify, score_map
from .spaces import Site, Spaces

PERPLEXITY = 30.0
LOW_PERPLEXITY, SHARE = 5.0, 100  # beside it: 5, and N / 100 where that is more
UMAP_NEIGHBOURS, MIN_DIST = 30, 0.1
MDS_TEXTS = 1000  # at most: each step takes time and memory as N * N
SCORED = 2000  # texts whose scores are computed, at most: they need all distances
FEWEST = 3  # vectors that a method reduces; one or two have nothing to keep
WORKERS = 2  # processes; each has libraries and vectors of its own in memory
CONSTANTS = [  # that the tables depend on
    *(DIMS, PERPLEXITY, LOW_PERPLEXITY, SHARE, UMAP_NEIGHBOURS, MIN_DIST, MDS_TEXTS, SCORED),
    *(autoencoders.RECIPE, quality.NEIGHBOURS, list(quality.RECALLED)),
]
NULL_SCORES = ("trustworthiness", "continuity", "knn_recall_15", "spearman", "stress1", "class_knn")
COLUMNS = (
    *("method", "dims", "parameters", "seed", "trustworthiness", "continuity", "knn_recall_5", "knn_recall_15"),
    *("knn_recall_50", "spearman", "stress1", "class_knn", "reconstruction", "seconds"),
    *(f"null_{score}" for score in NULL_SCORES),
    *("class_knn_full", "active_units", "n"),
)


@dataclass(frozen=True, eq=False)
class Reduced:
    """N vectors in few dimensions."""

    coordinates: Floats  # (N, dims)
    reconstruction: float = np.nan  # share of the variance that can be restored from them (R squared)
    active_units: float = np.nan  # dimensions that a variational auto-encoder uses


@dataclass(frozen=True, eq=False)
class Method:
    """A way to reduce vectors (N, C), with a seed; `parameters` is what tables say of it."""

    name: str
    parameters: str
    reduce: Callable[[Floats, int], Reduced]
    most: int = 2**31  # texts


@dataclass(frozen=True, eq=False)
class Measured:
    """A map and its scores."""

    coordinates: Floats  # (n, dims)
    scores: dict[str, float]


@dataclass(frozen=True, eq=False)
class Tables:
    """`reductions`: a row for each method; `coordinates`: `method, parameters, index, x, y`, a row for each text."""

    reductions: pd.DataFrame
    coordinates: pd.DataFrame


def reduce_sites(spaces: Spaces, sites: Sequence[Site]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reduce the test vectors of these sites by each method; return the tables `reductions` and `coordinates`.

    Each site is kept when it is done. Where UMAP is not installed, its row is left out."""
    with_umap = can_import_umap()
    if not with_umap:
        spaces.left_out.append("no UMAP among the reductions: umap-learn is not installed")
    tables = []
    with progress_bar("maps") as bar:
        for site in sites:
            tables.append(reduce_site(spaces, site, with_umap, bar))
    return (
        pd.concat([each.reductions for each in tables], ignore_index=True),
        pd.concat([each.coordinates for each in tables], ignore_index=True),
    )


def reduce_site(spaces: Spaces, site: Site, with_umap: bool, bar: Progress) -> Tables:
    """Return the tables of a site, with columns that name it; they are computed unless they are kept."""

    @cache
    def compute() -> Tables:
        return reduce_vectors(spaces.read(site)["test"], spaces.targets("test"), with_umap, spaces.seed, bar, name)

    name = name_site(site)
    about = {"site": asdict(site), "constants": CONSTANTS, "umap": with_umap}
    reductions = spaces.keep(f"reductions-{name}", lambda: compute().reductions, **about)
    coordinates = spaces.keep(f"coordinates-{name}", lambda: compute().coordinates, **about)
    place = place_site(site)
    return Tables(reductions.assign(**place), pd.DataFrame({**place, **coordinates}))


def name_site(site: Site) -> str:
    return "-".join(map(str, asdict(site).values()))


def place_site(site: Site) -> dict[str, Any]:
    """Return the columns that name a site."""
    return {"model": site.network, "layer": site.layer, "pooling": site.pooling, "correction": site.correction}


def can_import_umap() -> bool:
    """Return whether UMAP is installed and works: numba, which it needs, lags behind numpy now and then."""
    try:
        import umap  # noqa: F401
    except ImportError:
        return False
    return True


def list_methods(n: int, with_umap: bool) -> list[Method]:
    """Return the methods for n texts, in the order of pictures; the first t-SNE is the one to look at."""
    perplexities = dict.fromkeys(
        limit_perplexity(p, n) for p in (PERPLEXITY, LOW_PERPLEXITY, max(LOW_PERPLEXITY, n / SHARE))
    )
    neighbours = f"{UMAP_NEIGHBOURS} neighbours, min_dist {MIN_DIST:g}"
    return [
        Method("pca", "", partial(project_on_axes, dims=2)),
        Method("random_projection", "Gaussian", project_randomly),
        Method("mds", "metric, from classical MDS", scale_distances, MDS_TEXTS),
        *[Method("tsne", f"perplexity {p:g}", partial(embed_by_tsne, perplexity=p)) for p in perplexities],
        *([Method("umap", neighbours, embed_by_umap)] if with_umap else []),
        Method("autoencoder", "", partial(encode_vectors, variational=False)),
        Method("variational_autoencoder", f"beta {BETA:g}", partial(encode_vectors, variational=True)),
        Method("pca", "", partial(project_on_axes, dims=DIMS)),
    ]


def limit_perplexity(perplexity: float, n: int) -> float:
    """Return the perplexity that n texts allow: t-SNE looks at three times as many neighbours."""
    return round(max(1.0, min(perplexity, (n - 1) / 3)), 1)


def project_on_axes(x: Floats, seed: int, dims: int) -> Reduced:
    """Project on the principal axes, as many as there are, at most `dims`."""
    pca = PCA(min(dims, *x.shape), svd_solver="full")
    return Reduced(pca.fit_transform(x), float(pca.explained_variance_ratio_.sum()))


def project_randomly(x: Floats, seed: int) -> Reduced:
    return Reduced(GaussianRandomProjection(2, random_state=seed).fit_transform(x))


def scale_distances(x: Floats, seed: int) -> Reduced:
    """Reduce by metric multi-dimensional scaling."""
    mds = MDS(2, init="classical_mds", n_init=1, normalized_stress=False, random_state=seed)
    return Reduced(mds.fit_transform(x.astype(float)))


def embed_by_tsne(x: Floats, seed: int, perplexity: float, start: Floats | None = None) -> Reduced:
    """Reduce by PCA, then by t-SNE, which starts from the first two axes, or from the map `start` (N, 2)."""
    axes = project_on_axes(x, seed, DIMS).coordinates.astype(np.float32)
    init = "pca" if start is None or not start[:, 0].std() else (start / start[:, 0].std() * 1e-4).astype(np.float32)
    tsne = TSNE(2, perplexity=limit_perplexity(perplexity, len(x)), init=init, random_state=seed, n_jobs=1)
    return Reduced(tsne.fit_transform(axes))


def embed_by_umap(x: Floats, seed: int) -> Reduced:
    """Reduce by PCA, then by UMAP, which starts from the first two axes."""
    import umap  # optional, and slow to import

    axes, neighbours = project_on_axes(x, seed, DIMS).coordinates, min(UMAP_NEIGHBOURS, len(x) - 1)
    reducer = umap.UMAP(n_neighbors=neighbours, min_dist=MIN_DIST, init="pca", random_state=seed, n_jobs=1)
    return Reduced(np.asarray(reducer.fit_transform(axes)))


def encode_vectors(x: Floats, seed: int, variational: bool) -> Reduced:
    """Reduce by an auto-encoder."""
    encoded = encode(x, 2, variational, seed)
    restored = 1 - float(((x - encoded.restored) ** 2).sum() / ((x - x.mean(axis=0)) ** 2).sum())
    return Reduced(encoded.numbers, restored, encoded.active_units if variational else np.nan)


def reduce_vectors(
    x: Floats, targets: NDArray[np.integer], with_umap: bool, seed: int, bar: Progress, name: str
) -> Tables:
    """Reduce vectors x (N, C) of texts of these classes, int (N,), by each method, and their columns permuted.

    Equal vectors are reduced and scored once, and have one place in each map."""
    distinct = drop_duplicates(x)
    n = len(distinct.vectors)
    methods = list_methods(n, with_umap)
    rows = [draw_rows(n, method.most, seed) for method in methods]
    jobs = [
        delayed(measure)(method, vectors[chosen], targets[distinct.first][chosen], seed)
        for method, chosen in zip(methods, rows, strict=True)
        for vectors in (distinct.vectors, permute_columns(distinct.vectors, seed))
    ]
    results: list[Measured] = []
    task = bar.add_task(f"reductions: {name}", total=len(jobs), note="")
    for result in run_in_processes(jobs):
        results.append(result)
        bar.advance(task)
    scores, coordinates = [], []
    for method, chosen, true, null in zip(methods, rows, results[::2], results[1::2], strict=True):
        scores.append(tabulate_scores(method, true, null, seed))
        if true.coordinates.shape[1] == 2:
            places = np.full((n, 2), np.nan)
            places[chosen] = true.coordinates
            coordinates.append(tabulate_coordinates(method.name, method.parameters, places[distinct.of_text]))
    return Tables(pd.DataFrame(scores), pd.concat(coordinates, ignore_index=True))


@dataclass(frozen=True, eq=False)
class Distinct:
    """Each of N vectors once, sorted: so a map does not depend on the order of the texts."""

    vectors: Floats  # (n, C)
    first: NDArray[np.integer]  # (n,): the first text that has the vector
    of_text: NDArray[np.integer]  # (N,): the vector that a text has


def drop_duplicates(x: Floats) -> Distinct:
    vectors, first, of_text = np.unique(x, axis=0, return_index=True, return_inverse=True)
    return Distinct(vectors, first, of_text.reshape(-1))


def run_in_processes(jobs: Sequence[Any]) -> Iterator[Any]:
    """Yield the results of joblib's jobs in order. Processes, because t-SNE does not let threads run side by side."""
    with threadpool_limits(limits=1):
        yield from Parallel(min(cpu_count(), WORKERS), return_as="generator")(jobs)


def draw_rows(n: int, most: int, seed: int) -> NDArray[np.integer]:
    """Draw `most` of n texts; all of them where there are fewer."""
    rng = np.random.default_rng((seed, *b"texts of a map"))
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def permute_columns(x: Floats, seed: int) -> Floats:
    """Return vectors (N, C) whose dimensions have the same values, but each in an order of its own."""
    return np.random.default_rng((seed, *b"permuted columns")).permuted(x, axis=0)


def measure(method: Method, x: Floats, targets: NDArray[np.integer], seed: int) -> Measured:
    """Reduce distinct vectors (N, C) and score the map; of one or two vectors, all lie at 0."""
    start = perf_counter()
    reduced = method.reduce(x, seed) if len(x) >= FEWEST else Reduced(np.zeros((len(x), 2)))
    seconds = perf_counter() - start
    rows = draw_rows(len(x), SCORED, seed)
    scores = score_map(x[rows], reduced.coordinates[rows], targets[rows])
    of_space = {"class_knn_full": classify(x[rows], targets[rows]), "n": len(rows), "seconds": seconds}
    of_method = {"reconstruction": reduced.reconstruction, "active_units": reduced.active_units}
    return Measured(reduced.coordinates, {**scores, **of_space, **of_method})


def tabulate_scores(method: Method, true: Measured, null: Measured, seed: int) -> dict[str, Any]:
    """Return a row of `reductions`."""
    about = {"method": method.name, "dims": true.coordinates.shape[1], "parameters": method.parameters, "seed": seed}
    values = {**about, **true.scores, **{f"null_{score}": null.scores[score] for score in NULL_SCORES}}
    return {column: values[column] for column in COLUMNS}


def tabulate_coordinates(method: str, parameters: str, places: Floats) -> pd.DataFrame:
    """Return the rows of `coordinates` of a map (N, 2); a text that is NaN there has none."""
    named = {"method": method, "parameters": parameters, "index": np.arange(len(places))}
    return pd.DataFrame({**named, "x": places[:, 0], "y": places[:, 1]}).dropna(ignore_index=True)
