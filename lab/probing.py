"""Linear probes: can a property be read off what a place in the network emits, by logistic regression?

Letters: N rows (a text or a word each), K classes.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from data import SPLITS

from .activations import Activations, Site
from .stats import DRAWS, interval

STRENGTHS = (0.01, 0.1, 1.0)  # values of LogisticRegression's C; the smallest regularises most
TOL, MAX_ITER = 3e-4, 200  # measured: accuracy is that of full convergence to 0.003
ROUNDING = 1e-10  # of a direction's variance, where a feature's is 1
PORTIONS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.25, 12.5, 25, 50, 100)  # % of the rows, as Voita & Titov have them
WORKERS = 4  # sites in memory at once, at most: 0.5 GB each for 20,000 words at the 124M shape

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Task:
    """N rows with a label each. Raises ValueError where these do not fit together, or a split has no rows."""

    y: NDArray[np.integer]  # (N,) class numbers
    names: tuple[str, ...]  # of the K classes
    split: NDArray[np.str_]  # (N,) train, val or test
    control: NDArray[np.integer]  # (N,) class numbers that mean nothing: a probe can only learn them by heart

    def __post_init__(self) -> None:
        if not len(self.y) == len(self.split) == len(self.control):
            lengths = f"{len(self.y)}, {len(self.split)} and {len(self.control)}"
            raise ValueError(f"y, split and control: expected one for each row, got {lengths}")
        if missing := SPLITS.keys() - set(self.split):
            raise ValueError(f"split: expected rows of {', '.join(SPLITS)}, got none of {', '.join(sorted(missing))}")
        if found := set(np.concatenate([self.y, self.control])) - set(range(len(self.names))):
            raise ValueError(f"y and control: expected 0..{len(self.names) - 1}, got {sorted(map(int, found))}")


class Accuracy(NamedTuple):
    """A share of correct rows and its 95 % bootstrap interval."""

    accuracy: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class Score:
    """What a probe gets right on test, with the strength that does best on val."""

    C: float
    val_accuracy: float
    accuracy: float
    ci_low: float
    ci_high: float
    macro_f1: float
    control: float  # accuracy of a probe of the same strength on the control task

    @property
    def selectivity(self) -> float:
        """How much more is read off than learnt by heart (Hewitt & Liang 2019, D19-1275)."""
        return self.accuracy - self.control


def accuracy(correct: NDArray[np.bool_], seed: int = 0) -> Accuracy:
    """Of rows (N,). How many of N resampled rows are correct is binomial, so that only their number need be drawn."""
    n, share = len(correct), float(correct.mean())
    low, high = interval(np.random.default_rng(seed).binomial(n, share, DRAWS) / n).tolist()
    return Accuracy(share, low, high)


def probe(x: NDArray[np.float32], task: Task, seed: int) -> Score:
    """Logistic regression of features (N, width), levelled, for each of STRENGTHS, all fitted on train alone."""
    train, val, test = (task.split == split for split in SPLITS)
    scaled = _levelled(x, train)
    fitted = [_fitted(scaled[train], task.y[train], C) for C in STRENGTHS]
    on_val = [float(model.score(scaled[val], task.y[val])) for model in fitted]
    best = int(np.argmax(on_val))  # the strongest of equals
    predicted = fitted[best].predict(scaled[test])
    control = _fitted(scaled[train], task.control[train], STRENGTHS[best])
    return Score(
        STRENGTHS[best],
        on_val[best],
        *accuracy(predicted == task.y[test], seed),
        macro_f1=float(f1_score(task.y[test], predicted, average="macro")),
        control=float(control.score(scaled[test], task.control[test])),
    )


def n_workers() -> int:
    """How many sites are fitted at the same time, each by one thread."""
    return min(cpu_count(), WORKERS)


def probe_sites(
    activations: Activations, chosen: Sequence[Site], task: Task, seed: int, advance: Callable[[], object]
) -> list[Score]:
    """`probe` at each of these sites; `advance` is called after each."""
    return at_sites(activations, chosen, lambda x: probe(x, task, seed), advance)


def at_sites(
    activations: Activations,
    chosen: Sequence[Site],
    measure: Callable[[NDArray[np.float32]], T],
    advance: Callable[[], object],
) -> list[T]:
    """What `measure` makes of the features (N, width) of each of these sites, as many at a time as there are cores."""
    jobs = (delayed(lambda own: measure(activations.of(own)))(site) for site in chosen)
    found = []
    # Threads share the filters of warnings: without this one, each would put back what another has just set.
    with threadpool_limits(limits=1), warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        for result in Parallel(n_workers(), prefer="threads", return_as="generator")(jobs):
            found.append(result)
            advance()
    return found


def control_by_type(words: Sequence[str], y: NDArray[np.integer], K: int, seed: int) -> NDArray[np.int64]:
    """A random label for each type of word, drawn as often as the labels y (N,) occur (Hewitt & Liang 2019): (N,)."""
    types, of = np.unique(words, return_inverse=True)
    shares = np.bincount(y, minlength=K) / len(y)
    return np.random.default_rng(seed).choice(K, len(types), p=shares)[of]


def control_by_text(y: NDArray[np.integer], seed: int) -> NDArray[np.integer]:
    """A random label for each text, drawn as often as the labels y (N,) occur: (N,)."""
    return np.random.default_rng(seed).choice(y, len(y))


def code_length(x: NDArray[np.float32], y: NDArray[np.integer], K: int, seed: int) -> float:
    """Online code (Voita & Titov 2020, arXiv 2003.12298): the bits that tell y (N,) to one who knows x (N, width).

    The first portion of the rows, in random order, costs log2 K bits each; each later one what the probabilities of a
    probe cost that was fitted on all rows before it. To the t rows of these, one of each class is added: a probability
    p becomes (t p + 1) / (t + K), Laplace's rule of succession. So a class that has not occurred can be told, and for
    that all others pay at most log2(1 + K / t) bits a row. x is levelled as a whole, for both sides know it.
    """
    order = np.random.default_rng(seed).permutation(len(y))
    x, y = _levelled(x, np.ones(len(y), bool))[order], y[order]
    ends = np.unique(np.ceil(len(y) * np.array(PORTIONS) / 100).astype(int))
    bits = ends[0] * np.log2(K)
    for t, end in pairwise(ends):
        model = _fitted(x[:t], y[:t], STRENGTHS[1])
        p = np.zeros((end - t, K))
        p[:, model.classes_] = model.predict_proba(x[t:end])
        bits -= np.log2((t * p[np.arange(end - t), y[t:end]] + 1) / (t + K)).sum()
    return float(bits)


def majority(task: Task) -> Accuracy:
    """Baseline: always the label that is most frequent in train."""
    train, _, test = (task.split == split for split in SPLITS)
    return accuracy(task.y[test] == np.bincount(task.y[train]).argmax())


def by_type(words: Sequence[str], task: Task) -> Accuracy:
    """Baseline: the label that the same word has most often in train, the most frequent one where it is not there."""
    train, _, test = (task.split == split for split in SPLITS)
    types, of = np.unique(words, return_inverse=True)
    counts = np.zeros((len(types), len(task.names)), dtype=int)
    np.add.at(counts, (of[train], task.y[train]), 1)
    guess = np.where(counts.any(1), counts.argmax(1), counts.sum(0).argmax())
    return accuracy(guess[of[test]] == task.y[test])


def _levelled(x: NDArray[np.float32], train: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Features (N, width) for a probe: standardised, and each principal component divided by the fourth root of its
    variance, all as it is on the rows of train, bool (N,).

    Half of the way to whitening. A fine-tuned network keeps nearly all that its classes do not need where it varies a
    million times less than elsewhere. Standardised alone, regularisation hides that, and lbfgs takes a thousand steps
    to it; whitened, noise drowns the rest where rows are few. A probe of the result is as linear as one of x.
    """
    scaled = StandardScaler(copy=False).fit(x[train]).transform(x.astype(np.float64))
    own = scaled[train]
    variance, axes = np.linalg.eigh(own.T @ own / len(own))
    return (scaled @ (axes * variance.clip(ROUNDING) ** -0.25)).astype(np.float32)


def _fitted(x: NDArray[np.floating], y: NDArray[np.integer], C: float) -> Any:
    """A classifier of scikit-learn. Where all labels are the same there is nothing to fit, but that one to predict."""
    if (y == y[0]).all():
        return DummyClassifier().fit(x, y)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return LogisticRegression(C=C, tol=TOL, max_iter=MAX_ITER).fit(x, y)
