"""Which words tell a group of texts from the others?

TF-IDF counts a word's share of a text and weighs down words that many texts have (Spaerck Jones 1972); a group's score
is the mean over its texts. Class TF-IDF takes all texts of a group for one (Grootendorst 2022, 2203.05794). Log-odds
compare a word's odds in a group with those in all others, and divide by how uncertain few counts are (Monroe et al.
2008). A keyword by vectors lies in the direction of the group's mean, and away from keywords before it (KeyBERT,
Grootendorst 2020). LDA explains each text as a mixture of topics, whatever the groups are (Blei et al. 2003).

Letters: N texts, V words, G groups, C dimensions. Counts are how often each text has each word, sparse (N, V)."""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.preprocessing import normalize

from .corrections import Floats

Groups = NDArray[np.integer]  # group of each text, 0 .. G - 1, or -1

TOP = 10  # words of a group
PRIOR = 500  # words' worth of the whole corpus that log-odds begin with
DIVERSITY = 0.3  # of keywords by vectors: 0 looks at the group alone, 1 at the keywords before alone
PASSES = 20  # of LDA over the texts


def sum_groups(counts: csr_matrix, groups: Groups, n_groups: int) -> Floats:
    """Return the counts of each group: float64 (G, V)."""
    kept = np.flatnonzero(groups >= 0)
    members = csr_matrix((np.ones(len(kept)), (groups[kept], kept)), shape=(n_groups, len(groups)))
    return np.asarray((members @ counts).todense(), dtype=np.float64)


def score_tfidf(counts: csr_matrix, groups: Groups, n_groups: int) -> Floats:
    """Return the mean TF-IDF over the texts of each group, (G, V); each text has length 1, as scikit-learn has it."""
    sizes = np.bincount(groups[groups >= 0], minlength=n_groups)
    return sum_groups(TfidfTransformer().fit_transform(counts), groups, n_groups) / np.maximum(sizes, 1)[:, None]


def score_class_tfidf(counts: csr_matrix, groups: Groups, n_groups: int) -> Floats:
    """Return the share of a word in a group's words times log(1 + A / f), (G, V).

    f: how often all groups have the word; A: words of a group, on average, which BERTopic rounds down."""
    in_groups = sum_groups(counts, groups, n_groups)
    frequency = np.maximum(in_groups.sum(axis=0), 1e-12)  # of no group: 0 there anyway
    return normalize(in_groups, "l1") * np.log(1 + in_groups.sum() / n_groups / frequency)


def score_class_tfidf_sqrt(counts: csr_matrix, groups: Groups, n_groups: int) -> Floats:
    """Return the same with the square root of the share, so that common words weigh less, (G, V)."""
    in_groups = sum_groups(counts, groups, n_groups)
    frequency = np.maximum(in_groups.sum(axis=0), 1e-12)
    return np.sqrt(normalize(in_groups, "l1")) * np.log(1 + in_groups.sum() / n_groups / frequency)


def score_log_odds(counts: csr_matrix, groups: Groups, n_groups: int) -> Floats:
    """Return z of a word's log-odds in a group less those in all other texts, noise among them, (G, V).

    Both sides begin with PRIOR words that are distributed as in all texts (the informative Dirichlet prior)."""
    inside, total = sum_groups(counts, groups, n_groups), np.asarray(counts.sum(axis=0), dtype=np.float64)
    prior = PRIOR * total / max(total.sum(), 1)
    parts = []
    for side in (inside, total - inside):
        words = side + prior
        rest = side.sum(axis=1, keepdims=True) + prior.sum() - words
        parts.append((np.log(words) - np.log(np.maximum(rest, 1e-12)), 1 / words))  # a single word has no rest
    (log_odds, variance), (others, variance_of_others) = parts
    return (log_odds - others) / np.sqrt(variance + variance_of_others)


SCORES: dict[str, Callable[[csr_matrix, Groups, int], Floats]] = {
    "tfidf": score_tfidf,
    "c_tfidf": score_class_tfidf,
    "c_tfidf_sqrt": score_class_tfidf_sqrt,
    "log_odds": score_log_odds,
}


def choose_top(scores: Floats, allowed: NDArray[np.bool_]) -> NDArray[np.integer]:
    """Return the TOP words with the highest scores (V,) of those allowed, bool (V,); of equals, the first."""
    order = np.argsort(-np.round(scores, 9), kind="stable")  # sums in another order are equal up to rounding
    return order[allowed[order]][:TOP]


def choose_diverse(cosines: Floats, vectors: Floats, allowed: NDArray[np.bool_], diversity: float) -> list[int]:
    """Return TOP candidates of those allowed, bool (V,), by maximal marginal relevance (Carbonell & Goldstein 1998).

    cosines (V,): of each candidate with the group, the highest comes first; the next one is always that with the
    highest (1 - diversity) cos(word, group) - diversity max cos(word, word before). vectors: (V, C), unit length."""
    left = np.flatnonzero(allowed).tolist()
    chosen: list[int] = []
    nearest = np.full(len(cosines), 0.0)  # cosine with the nearest word before
    while left and len(chosen) < TOP:
        gain = (1 - diversity) * cosines[left] - diversity * nearest[left] if chosen else cosines[left]
        chosen.append(left.pop(int(np.round(gain, 9).argmax())))
        alike = vectors @ vectors[chosen[-1]]
        nearest = np.maximum(nearest, alike) if len(chosen) > 1 else alike
    return chosen


def fit_topics(counts: csr_matrix, k: int, seed: int) -> tuple[Floats, Groups]:
    """Fit LDA with k topics: the probability of each word in each topic, (k, V), and the main topic of each text."""
    lda = LatentDirichletAllocation(k, learning_method="batch", max_iter=PASSES, random_state=seed)
    main = lda.fit_transform(counts).argmax(axis=1)
    return normalize(lda.components_, "l1"), main


def measure_npmi(has: csr_matrix, words: Sequence[int] | NDArray[np.integer], names: Sequence[str] = ()) -> float:
    """Return the coherence of words: normalised pointwise mutual information, mean over pairs (Bouma 2009).

    has: 1 where a text has a word, (N, V). A pair that is always together has 1, an independent one 0, one that is
    never together -1. names: of these words, where some are two in a row; a pair of which one holds a word of the other
    ("feel sad" and "sad") is left out, for it stands together whatever the texts say. NaN where no pair is left."""
    parts = [set(name.split()) for name in names] or [set()] * len(words)
    some = np.asarray(has[:, list(words)].todense(), dtype=np.float64)
    together, n = some.T @ some, len(some)
    values = []
    for i, j in combinations(range(len(words)), 2):
        if parts[i].isdisjoint(parts[j]):
            p, p_i, p_j = together[i, j] / n, together[i, i] / n, together[j, j] / n
            values.append(-1.0 if p == 0 else 1.0 if p == 1 else np.log(p / (p_i * p_j)) / -np.log(p))
    return float(np.mean(values)) if values else np.nan


def draw_null_npmi(has: csr_matrix, rng: np.random.Generator, draws: int) -> float:
    """Return the mean coherence of TOP words that are drawn by how many texts have them."""
    frequency = np.asarray(has.sum(axis=0), dtype=np.float64).ravel()
    n = min(TOP, int((frequency > 0).sum()))
    chosen = [rng.choice(len(frequency), n, replace=False, p=frequency / frequency.sum()) for _ in range(draws)]
    return float(np.mean([measure_npmi(has, words) for words in chosen]))


def measure_diversity(lists: Sequence[Sequence[str]]) -> float:
    """Return the share of different words in these lists (Dieng et al. 2020); NaN where there are none."""
    words = [word for each in lists for word in each]
    return len(set(words)) / len(words) if words else np.nan
