"""What are the clusters, and the classes, about? Words by every method of `keywords.py`, and how well they belong.

Letters: N texts, V candidates, C dimensions. A candidate is a word, or two in a row."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.preprocessing import normalize

from data.batches import Batch
from data.words import forms, words
from lab.device import Device
from lab.memory import map_texts
from lab.study import Study
from lab.texts import Texts
from lab.vectors import read_sites
from model import GPT2

from .corrections import CORRECTIONS, Floats
from .keywords import (
    DIVERSITY,
    PASSES,
    PRIOR,
    SCORES,
    TOP,
    Groups,
    choose_diverse,
    choose_top,
    draw_null_npmi,
    fit_topics,
    measure_diversity,
    measure_npmi,
    sum_groups,
)
from .spaces import Site, Spaces

Row = dict[str, Any]

MIN_TEXTS = 3  # that have a candidate, where any candidate is in so many
NULL_DRAWS = 50
CLUSTER, CLASS, LDA = "cluster", "class", "lda"  # groupings; "cluster" is that by k-means, others have their names
NAMES = "log_odds"  # the method that names clusters
COLUMNS = ["cluster", "size", "method", "rank", "word", "score", "npmi", "diversity", "null_npmi", "grouping", "model"]


@dataclass(frozen=True, eq=False)
class Candidates:
    """The words and pairs of words that texts may be about, in alphabetical order."""

    names: NDArray[np.str_]  # (V,)
    single: NDArray[np.bool_]  # (V,) which are one word
    counts: csr_matrix  # (N, V)
    occurrences: list[list[tuple[int, tuple[int, ...]]]]  # of each text: the candidate, and its tokens


def find_candidates(texts: Texts, study: Study, stop_words: frozenset[str]) -> Candidates:
    """Find the words of the texts that have a letter, are no single Latin letter and no stop word, and the pairs of
    them that stand side by side; in MIN_TEXTS texts at least, if any is. A prompt's other words are left out."""
    words_of_texts: list[list[tuple[str, tuple[int, ...]]]] = []
    for string, ids, of_text in zip(texts.strings, texts.sequences, study.find_text(texts), strict=True):
        truncated, of_this, before = len(study.tokenizer.encode(string)) - len(ids), [], None
        for word in words(string, study.tokenizer):
            tokens = tuple(token - truncated for token in word.tokens if token >= truncated)
            is_word = any(map(str.isalpha, word.text)) and (len(word.text) > 1 or not word.text.isascii())
            if (
                not is_word
                or not any(of_text[token] for token in tokens)
                or not stop_words.isdisjoint(forms(word.text))
            ):
                before = None
                continue
            of_this.append((name := word.text.lower(), tokens))
            if before:
                of_this.append((f"{before[0]} {name}", (*before[1], *tokens)))
            before = name, tokens
        words_of_texts.append(of_this)
    return count_candidates(words_of_texts)


def count_candidates(words_of_texts: Sequence[Sequence[tuple[str, tuple[int, ...]]]]) -> Candidates:
    """Count the candidates of each text, given with the tokens of each occurrence; rare ones are left out."""
    texts_of: dict[str, int] = {}
    for of_text in words_of_texts:
        for name in {name for name, _ in of_text}:
            texts_of[name] = texts_of.get(name, 0) + 1
    fewest = MIN_TEXTS if any(n >= MIN_TEXTS for n in texts_of.values()) else 1
    names = sorted(name for name, n in texts_of.items() if n >= fewest)
    number = {name: i for i, name in enumerate(names)}
    occurrences = [[(number[name], tokens) for name, tokens in of_text if name in number] for of_text in words_of_texts]
    rows = [i for i, of_text in enumerate(occurrences) for _ in of_text]
    columns = [candidate for of_text in occurrences for candidate, _ in of_text]
    shape = len(occurrences), len(names)
    counts = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)  # sums what is twice
    single = np.array([" " not in name for name in names], dtype=bool)
    return Candidates(np.array(names, dtype=str), single, counts, occurrences)


@torch.inference_mode()
def average_occurrences(trunk: GPT2, texts: Texts, candidates: Candidates, layer: int, device: Device) -> Floats:
    """Return the mean vector of each candidate's occurrences at a site of `lab.vectors`, each the mean over its tokens
    but position 0: float64 (V, C), NaN for one that stands there alone."""
    sums, n = np.zeros((len(candidates.names), trunk.config.n_embd)), np.zeros(len(candidates.names))

    def read_site(batch: Batch) -> NDArray[np.float32]:
        """Return the stream, (B, T, C)."""
        stream: NDArray[np.float32] = read_sites(trunk, batch, device)[1][layer].cpu().numpy()
        return stream

    for batch, x in map_texts(read_site, texts.sequences, device, "words in context"):
        for row, i in enumerate(batch.index.tolist()):
            for candidate, tokens in candidates.occurrences[i]:
                if inner := [token for token in tokens if token > 0]:
                    sums[candidate] += x[row, inner].mean(axis=0)
                    n[candidate] += 1
    return np.divide(sums, n[:, None], out=np.full_like(sums, np.nan), where=n[:, None] > 0)


@dataclass(frozen=True, eq=False)
class Directions:
    """Unit vectors of N texts and V candidates at a site, both corrected; NaN for a candidate without a vector."""

    texts: Floats  # (N, C)
    candidates: Floats  # (V, C)


def find_directions(spaces: Spaces, site: Site, candidates: Candidates) -> Directions:
    """Correct the vectors of texts and of candidates alike, by the texts of train. Corrected by random tokens, the
    candidates of emotion were less to the point."""
    network, layer = spaces.networks[site.network], site.layer
    raw = average_occurrences(network.trunk, spaces.texts["test"], candidates, layer, spaces.study.device)
    correct = CORRECTIONS[site.correction](spaces.vectors(site.network, "train").read(layer, site.pooling))
    corrected = correct(raw)
    lengths = np.linalg.norm(corrected, axis=1, keepdims=True)
    return Directions(normalize(spaces.read(site)["test"]), corrected / np.maximum(lengths, 1e-12))


def tabulate_topics(spaces: Spaces, members: pd.DataFrame, sites: Sequence[Site]) -> pd.DataFrame:
    """Return the TOP words of each cluster, class and LDA topic by each method, COLUMNS.

    members: `model, method, cluster` in the order of texts. `grouping` is `cluster` for k-means, which has all methods;
    the name of another clustering, which has log-odds alone; `class`, where `cluster` is the class, `model` is empty
    and the vectors are those of the last site; or `lda`, whose topics are no clusters. `npmi` and `diversity` are those
    of the list, or lists, that a word stands in, `null_npmi` that of words drawn by their frequency."""

    def compute() -> pd.DataFrame:
        candidates = find_candidates(spaces.texts["test"], spaces.study, spaces.stop_words)
        if not candidates.single.any():
            return pd.DataFrame(columns=COLUMNS)
        return judge(list_groupings(spaces, members, sites, candidates), candidates, spaces.seed)

    digest = hashlib.sha256(members.to_csv(index=False).encode()).hexdigest()
    constants = [TOP, PRIOR, DIVERSITY, PASSES, MIN_TEXTS, NULL_DRAWS, sorted(spaces.stop_words)]
    return spaces.keep("topics", compute, members=digest, sites=[asdict(site) for site in sites], constants=constants)


def list_groupings(spaces: Spaces, members: pd.DataFrame, sites: Sequence[Site], candidates: Candidates) -> list[Row]:
    """Return the words of all groupings that `tabulate_topics` names."""
    rows: list[Row] = []
    for site in sites:
        directions = find_directions(spaces, site, candidates)
        for method, each in members[members["model"] == site.network].groupby("method", sort=False):
            groups = each["cluster"].to_numpy()
            names = [str(i) for i in range(groups.max() + 1)]
            about = {"grouping": CLUSTER if method == "kmeans" else method, "model": site.network}
            listed = list_words(candidates, groups, names, directions if method == "kmeans" else None)
            rows += [row | about for row in listed]
    classes = list_words(candidates, spaces.targets("test"), spaces.labels, directions)
    rows += [row | {"grouping": CLASS, "model": ""} for row in classes]
    topics = list_topics(candidates, len(spaces.labels), spaces.seed)
    return rows + [row | {"grouping": LDA, "model": ""} for row in topics]


def list_words(
    candidates: Candidates, groups: Groups, names: Sequence[str], directions: Directions | None
) -> list[Row]:
    """Return the words of each group, `cluster, size, method, rank, word, score`: by all methods, or, without
    directions, by log-odds alone. names: of the groups; one without texts has no words."""
    n_groups, rows = len(names), []
    counts, words = candidates.counts[:, candidates.single], candidates.names[candidates.single]
    in_groups = sum_groups(counts, groups, n_groups)
    sizes = [int((groups == g).sum()) for g in range(n_groups)]
    for method in SCORES if directions else (NAMES,):
        scores = SCORES[method](counts, groups, n_groups)
        for g, name in enumerate(names):
            top = choose_top(scores[g], (in_groups[g] > 0) & (scores[g] > 0))
            rows += rank_words(name, sizes[g], method, words[top], scores[g, top])
    if directions:
        has = sum_groups((candidates.counts > 0).astype(float), groups, n_groups)  # texts, (G, V)
        for g, name in enumerate(names):
            if sizes[g]:
                centre = normalize(directions.texts[groups == g].mean(axis=0, keepdims=True))[0]
                cosines = directions.candidates @ centre
                enough = has[g] >= min(MIN_TEXTS, has[g].max(initial=1))
                chosen = choose_diverse(cosines, directions.candidates, enough & ~np.isnan(cosines), DIVERSITY)
                rows += rank_words(name, sizes[g], "keybert", candidates.names[chosen], cosines[chosen])
    return rows


def list_topics(candidates: Candidates, k: int, seed: int) -> list[Row]:
    """Return the words of each LDA topic, as `list_words`; its size is the number of texts that have most of it."""
    words = candidates.names[candidates.single]
    topics, main = fit_topics(candidates.counts[:, candidates.single], k, seed)
    rows = []
    for topic, scores in enumerate(topics):
        top = choose_top(scores, np.ones(len(words), dtype=bool))
        rows += rank_words(str(topic), int((main == topic).sum()), LDA, words[top], scores[top])
    return rows


def rank_words(cluster: str, size: int, method: str, words: Iterable[str], scores: Iterable[float]) -> list[Row]:
    return [
        {"cluster": cluster, "size": size, "method": method, "rank": i, "word": str(word), "score": float(score)}
        for i, (word, score) in enumerate(zip(words, scores, strict=True), 1)
    ]


def judge(rows: Sequence[Row], candidates: Candidates, seed: int) -> pd.DataFrame:
    """Add how well words belong together, and how much the lists of a grouping and method differ: COLUMNS.

    `npmi` leaves out pairs of candidates of which one holds a word of the other, so that the lists of `keybert` can be
    compared with those of single words; to `diversity`, a candidate of two words is one word."""
    table, has = pd.DataFrame(rows), (candidates.counts > 0).astype(float)
    number = {name: i for i, name in enumerate(candidates.names.tolist())}
    lists = ["grouping", "model", "method"]
    npmi = table.groupby([*lists, "cluster"])["word"].agg(
        lambda each: measure_npmi(has, [number[name] for name in each], list(each))
    )
    diversity = table.groupby(lists)["word"].agg(lambda each: measure_diversity([list(each)]))
    table = table.join(npmi.rename("npmi"), on=[*lists, "cluster"]).join(diversity.rename("diversity"), on=lists)
    rng = np.random.default_rng((seed, *b"words by frequency"))
    return table.assign(null_npmi=draw_null_npmi(has[:, candidates.single], rng, NULL_DRAWS))[COLUMNS]
