"""Linear probes: can logistic regression read a property from what a place in the network emits?

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
ROUNDING = 1e-10  # the smallest variance of a direction that counts, where each feature's is 1
PORTIONS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.25, 12.5, 25, 50, 100)  # % of the rows, those of Voita & Titov
WORKERS = 4  # sites in memory at once, at most: 0.5 GB each for 20,000 words at the 124M shape

T = TypeVar("T")
Advance = Callable[[], object]  # called after each site


@dataclass(frozen=True, eq=False)
class Task:
    """N labelled rows. Raises ValueError if the columns do not fit together, or if a split has no rows."""

    y: NDArray[np.integer]  # (N,) class numbers
    names: tuple[str, ...]  # of the K classes
    split: NDArray[np.str_]  # (N,) `train`, `val` or `test`
    text: NDArray[np.integer]  # (N,) number of the text that each row comes from
    control: NDArray[np.integer] | None = None  # (N,) class numbers that mean nothing, see `draw_control`

    def __post_init__(self) -> None:
        control = self.y if self.control is None else self.control
        lengths = [len(column) for column in (self.y, self.split, self.text, control)]
        if len(set(lengths)) > 1:
            raise ValueError(f"y, split, text and control: expected one for each row, got {lengths}")
        if missing := SPLITS.keys() - set(self.split):
            raise ValueError(f"split: expected rows of {', '.join(SPLITS)}, got none of {', '.join(sorted(missing))}")
        if outside := set(np.concatenate([self.y, control])) - set(range(len(self.names))):
            raise ValueError(f"y and control: expected 0..{len(self.names) - 1}, got {sorted(map(int, outside))}")

    @property
    def tested(self) -> NDArray[np.integer]:
        """Return the number of the text that each row of test comes from, (n,)."""
        return self.text[self.split == "test"]


@dataclass(frozen=True, eq=False)
class Score:
    """What a probe gets right on test, at the strength that does best on val."""

    C: float
    val_accuracy: float
    correct: NDArray[np.bool_]  # (n,), by row of test
    macro_f1: float
    control: float | None  # accuracy of a probe of the same strength on the control task, if there is one

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def selectivity(self) -> float | None:
        """Return how much more the probe reads than it memorises (Hewitt & Liang 2019, D19-1275)."""
        return None if self.control is None else self.accuracy - self.control


def bootstrap_means(values: NDArray[Any], text: NDArray[np.integer]) -> tuple[NDArray[np.floating], ...]:
    """Return the mean of each column of values (n, M) and the ends of its 95 % bootstrap interval: three of (M,).

    text (n,) numbers the text that each row comes from. Texts are resampled, each with all its rows, because the words
    of a text are not independent (Davison & Hinkley 1997, section 3.8). All columns are measured on the same resamples,
    so the interval of a difference between two measurements of the same rows is that of a paired comparison."""
    _, text_of_row = np.unique(text, return_inverse=True)
    rows = np.bincount(text_of_row)  # of each text
    sums = np.zeros((len(rows), values.shape[1]))
    np.add.at(sums, text_of_row, values)
    draws = np.concatenate([weights @ sums / (weights @ rows)[:, None] for weights in resamples(len(rows))])
    return (values.mean(0), *interval(draws))


def encode_correct(correct: NDArray[np.bool_]) -> str:
    """Return n characters, 1 where a row is right and 0 where it is wrong."""
    return "".join(map(str, correct.astype(int)))


def decode_correct(columns: Sequence[str]) -> NDArray[np.int8]:
    """Return M columns of `encode_correct` as numbers 0 and 1, (n, M)."""
    digits = np.frombuffer("".join(columns).encode(), np.int8)
    return digits.reshape(len(columns), -1).T - np.int8(ord("0"))


def probe(x: NDArray[np.float32], task: Task) -> Score:
    """Fit a logistic regression to features (N, width) on train at each of STRENGTHS; score the one best on val."""
    train, val, test = (task.split == split for split in SPLITS)
    features = _half_whitened(x, train)
    models = [_fit(features[train], task.y[train], C) for C in STRENGTHS]
    on_val = [float(model.score(features[val], task.y[val])) for model in models]
    best = int(np.argmax(on_val))  # of equals, the one that regularises most
    predicted = models[best].predict(features[test])
    control = None
    if task.control is not None:
        model = _fit(features[train], task.control[train], STRENGTHS[best])
        control = float(model.score(features[test], task.control[test]))
    return Score(
        C=STRENGTHS[best],
        val_accuracy=on_val[best],
        correct=predicted == task.y[test],
        macro_f1=float(f1_score(task.y[test], predicted, average="macro")),
        control=control,
    )


def n_workers() -> int:
    """Return how many sites are fitted at the same time, each by one thread."""
    return min(cpu_count(), WORKERS)


def probe_sites(activations: Activations, chosen: Sequence[Site], task: Task, advance: Advance) -> list[Score]:
    """Probe each of these sites, in order."""
    return map_sites(activations, chosen, lambda x: probe(x, task), advance)


def map_sites(
    activations: Activations, chosen: Sequence[Site], measure: Callable[[NDArray[np.float32]], T], advance: Advance
) -> list[T]:
    """Return `measure` of the features (N, width) of each of these sites, in order, several at a time."""
    jobs = (delayed(lambda site: measure(activations.of(site)))(site) for site in chosen)
    results = []
    # Threads share the filters of warnings: without this one, each thread would undo what another has just set.
    with threadpool_limits(limits=1), warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        for result in Parallel(n_workers(), prefer="threads", return_as="generator")(jobs):
            results.append(result)
            advance()
    return results


def draw_control(words: Sequence[str], y: NDArray[np.integer], K: int, name: str, seed: int) -> NDArray[np.int64]:
    """Draw a random label for each word type, as often as the labels y (N,) occur (Hewitt & Liang 2019): (N,).

    Each property `name` has its own draw. Types recur, so a probe that memorises the labels of the types in train is
    right on test too. Whole texts do not recur: a random label for each could only be guessed, and such a control would
    control nothing. So classes of texts have none. Their last tokens recur, but in many corpora all texts end in the
    same one, and what a token tells by itself is read before layer 0."""
    types, type_of_row = np.unique(words, return_inverse=True)
    shares = np.bincount(y, minlength=K) / len(y)
    rng = np.random.default_rng((seed, *f"control of {name}".encode()))
    return rng.choice(K, len(types), p=shares)[type_of_row]


def code_length(x: NDArray[np.float32], y: NDArray[np.integer], K: int, seed: int) -> float:
    """Return the bits of the online code of y (N,) given x (N, width) (Voita & Titov 2020, arXiv 2003.12298).

    The first portion of the rows, in random order, costs log2 K bits per row. Each later portion costs its code length
    under a probe fitted on all rows before it. One row of each class is added to those t rows: a probability p becomes
    (t p + 1) / (t + K), Laplace's rule of succession. So a class that has not occurred yet can be sent too, for which
    all other classes pay at most log2(1 + K / t) bits per row. x is half-whitened as a whole: both sides know it.
    """
    order = np.random.default_rng((seed, *b"order of the code")).permutation(len(y))
    x, y = _half_whitened(x, np.ones(len(y), bool))[order], y[order]
    ends = np.unique(np.ceil(len(y) * np.array(PORTIONS) / 100).astype(int))
    bits = ends[0] * np.log2(K)
    for t, end in pairwise(ends):
        model = _fit(x[:t], y[:t], STRENGTHS[1])
        p = np.zeros((end - t, K))
        p[:, model.classes_] = model.predict_proba(x[t:end])
        bits -= np.log2((t * p[np.arange(end - t), y[t:end]] + 1) / (t + K)).sum()
    return float(bits)


def majority_correct(task: Task) -> NDArray[np.bool_]:
    """Return which rows of test are right, (n,), if all have the most frequent label of train. A baseline."""
    train, _, test = (task.split == split for split in SPLITS)
    return task.y[test] == np.bincount(task.y[train]).argmax()


def word_type_correct(words: Sequence[str], task: Task) -> NDArray[np.bool_]:
    """Return which rows of test are right, (n,), if each has the most frequent label of its word in train, or of all
    rows where train does not have the word. A baseline."""
    train, _, test = (task.split == split for split in SPLITS)
    types, type_of_row = np.unique(words, return_inverse=True)
    counts = np.zeros((len(types), len(task.names)), dtype=int)
    np.add.at(counts, (type_of_row[train], task.y[train]), 1)
    guess = np.where(counts.any(1), counts.argmax(1), counts.sum(0).argmax())
    return guess[type_of_row[test]] == task.y[test]


def _half_whitened(x: NDArray[np.float32], train: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Standardise features (N, width) and divide each principal component by the fourth root of its variance. Means,
    variances and components are those of the rows of train, bool (N,).

    A fine-tuned network keeps nearly all that its classes do not need in directions that vary a million times less than
    others. If features are only standardised, regularisation hides those directions, and lbfgs needs a thousand steps;
    if they are whitened, noise drowns the rest where rows are few. This is half-way. It is linear, so a probe of the
    result is as linear as one of x.
    """
    standard = StandardScaler(copy=False).fit(x[train]).transform(x.astype(np.float64))
    on_train = standard[train]
    variance, axes = np.linalg.eigh(on_train.T @ on_train / len(on_train))
    return (standard @ (axes * variance.clip(ROUNDING) ** -0.25)).astype(np.float32)


def _fit(x: NDArray[np.floating], y: NDArray[np.integer], C: float) -> Any:
    """Fit a classifier of scikit-learn; one that always predicts the same label if y has only one."""
    if (y == y[0]).all():
        return DummyClassifier().fit(x, y)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return LogisticRegression(C=C, tol=TOL, max_iter=MAX_ITER).fit(x, y)
