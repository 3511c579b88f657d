"""Linear probes: can a property be read off what a place in the network emits, by logistic regression?

Letters: N rows (a text or a word each), K classes.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

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
from lab.activations import Activations, Site
from lab.stats import interval, resamples

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
    text: NDArray[np.integer]  # (N,) which text each row is of
    control: NDArray[np.integer] | None = None  # (N,) class numbers that mean nothing, see `control_by_type`

    def __post_init__(self) -> None:
        control = self.y if self.control is None else self.control
        lengths = [len(column) for column in (self.y, self.split, self.text, control)]
        if len(set(lengths)) > 1:
            raise ValueError(f"y, split, text and control: expected one for each row, got {lengths}")
        if missing := SPLITS.keys() - set(self.split):
            raise ValueError(f"split: expected rows of {', '.join(SPLITS)}, got none of {', '.join(sorted(missing))}")
        if found := set(np.concatenate([self.y, control])) - set(range(len(self.names))):
            raise ValueError(f"y and control: expected 0..{len(self.names) - 1}, got {sorted(map(int, found))}")

    @property
    def tested(self) -> NDArray[np.integer]:
        """(n,) which text each row of test is of."""
        return self.text[self.split == "test"]


@dataclass(frozen=True, eq=False)
class Score:
    """What a probe gets right on test, with the strength that does best on val."""

    C: float
    val_accuracy: float
    correct: NDArray[np.bool_]  # (n,), the rows of test
    macro_f1: float
    control: float | None  # accuracy of a probe of the same strength on the control task, if there is one

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def selectivity(self) -> float | None:
        """How much more is read off than learnt by heart (Hewitt & Liang 2019, D19-1275)."""
        return None if self.control is None else self.accuracy - self.control


def with_intervals(values: NDArray[Any], text: NDArray[np.integer]) -> tuple[NDArray[np.floating], ...]:
    """The mean over n rows of each column of values (n, M), and its 95 % bootstrap interval: three of (M,).

    text (n,) says which text each row is of. Texts are resampled, each with all its rows, because the words of a text
    are not independent (Davison & Hinkley 1997, section 3.8). All columns are measured on the same resamples, so the
    interval of a difference between two measurements of the same rows is that of a paired comparison."""
    _, number = np.unique(text, return_inverse=True)
    rows = np.bincount(number)  # of each text
    sums = np.zeros((len(rows), values.shape[1]))
    np.add.at(sums, number, values)
    draws = np.concatenate([weights @ sums / (weights @ rows)[:, None] for weights in resamples(len(rows))])
    return (values.mean(0), *interval(draws))


def as_text(correct: NDArray[np.bool_]) -> str:
    """Which of n rows are right, as n characters 0 or 1."""
    return "".join(map(str, correct.astype(int)))


def from_text(columns: Sequence[str]) -> NDArray[np.int8]:
    """The inverse of `as_text`, of M of them: (n, M), 0 or 1."""
    digits = np.frombuffer("".join(columns).encode(), np.int8)
    return digits.reshape(len(columns), -1).T - np.int8(ord("0"))


def probe(x: NDArray[np.float32], task: Task) -> Score:
    """Logistic regression of features (N, width), levelled, for each of STRENGTHS, all fitted on train alone."""
    train, val, test = (task.split == split for split in SPLITS)
    scaled = _levelled(x, train)
    fitted = [_fitted(scaled[train], task.y[train], C) for C in STRENGTHS]
    on_val = [float(model.score(scaled[val], task.y[val])) for model in fitted]
    best = int(np.argmax(on_val))  # the strongest of equals
    predicted = fitted[best].predict(scaled[test])
    control = None
    if task.control is not None:
        model = _fitted(scaled[train], task.control[train], STRENGTHS[best])
        control = float(model.score(scaled[test], task.control[test]))
    return Score(
        STRENGTHS[best],
        on_val[best],
        correct=predicted == task.y[test],
        macro_f1=float(f1_score(task.y[test], predicted, average="macro")),
        control=control,
    )


def n_workers() -> int:
    """How many sites are fitted at the same time, each by one thread."""
    return min(cpu_count(), WORKERS)


def probe_sites(
    activations: Activations, chosen: Sequence[Site], task: Task, advance: Callable[[], object]
) -> list[Score]:
    """`probe` at each of these sites; `advance` is called after each."""
    return at_sites(activations, chosen, lambda x: probe(x, task), advance)


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


def control_by_type(words: Sequence[str], y: NDArray[np.integer], K: int, what: str, seed: int) -> NDArray[np.int64]:
    """A random label for each type of word, drawn as often as the labels y (N,) occur (Hewitt & Liang 2019): (N,).

    It is drawn anew for each property `what`. Types recur, so a probe that learns by heart which label the types of
    train have is right on test too. Whole texts do not recur: nobody could be right about a random label for each but
    by chance, and such a control would control nothing. So the classes of texts have none. Their last tokens recur, but
    in many corpora all texts end in the same one, and what a token tells by itself is read before layer 0."""
    types, of = np.unique(words, return_inverse=True)
    shares = np.bincount(y, minlength=K) / len(y)
    rng = np.random.default_rng((seed, *f"control of {what}".encode()))
    return rng.choice(K, len(types), p=shares)[of]


def code_length(x: NDArray[np.float32], y: NDArray[np.integer], K: int, seed: int) -> float:
    """Online code (Voita & Titov 2020, arXiv 2003.12298): the bits that tell y (N,) to one who knows x (N, width).

    The first portion of the rows, in random order, costs log2 K bits each; each later one what the probabilities of a
    probe cost that was fitted on all rows before it. To the t rows of these, one of each class is added: a probability
    p becomes (t p + 1) / (t + K), Laplace's rule of succession. So a class that has not occurred can be told, and for
    that all others pay at most log2(1 + K / t) bits a row. x is levelled as a whole, for both sides know it.
    """
    order = np.random.default_rng((seed, *b"order of the code")).permutation(len(y))
    x, y = _levelled(x, np.ones(len(y), bool))[order], y[order]
    ends = np.unique(np.ceil(len(y) * np.array(PORTIONS) / 100).astype(int))
    bits = ends[0] * np.log2(K)
    for t, end in pairwise(ends):
        model = _fitted(x[:t], y[:t], STRENGTHS[1])
        p = np.zeros((end - t, K))
        p[:, model.classes_] = model.predict_proba(x[t:end])
        bits -= np.log2((t * p[np.arange(end - t), y[t:end]] + 1) / (t + K)).sum()
    return float(bits)


def majority(task: Task) -> NDArray[np.bool_]:
    """Baseline: which rows of test are right if all have the label that is most frequent in train, (n,)."""
    train, _, test = (task.split == split for split in SPLITS)
    return task.y[test] == np.bincount(task.y[train]).argmax()


def by_type(words: Sequence[str], task: Task) -> NDArray[np.bool_]:
    """Baseline: which rows of test are right, (n,), if each has the label that the same word has most often in train,
    or the most frequent one where train does not have the word."""
    train, _, test = (task.split == split for split in SPLITS)
    types, of = np.unique(words, return_inverse=True)
    counts = np.zeros((len(types), len(task.names)), dtype=int)
    np.add.at(counts, (of[train], task.y[train]), 1)
    guess = np.where(counts.any(1), counts.argmax(1), counts.sum(0).argmax())
    return guess[of[test]] == task.y[test]


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
