"""Words in context: what a word's vector says of the word, and what of the words before it. words.csv.

Self-similarity is the mean cosine of a word's occurrences in different texts: 1 for a static vector, less where context
changes it. In a space where all cosines are high it is high for any words, so the mean cosine of random tokens is taken
off. The first singular value's share says how well one static vector could stand for all occurrences (Ethayarajh 2019,
D19-1006).

Senses. Of a word of two meanings, each occurrence goes to the sense whose other occurrences point into its direction.
Where the cue stands before the word, the vector can know it. Where it stands behind, a causal network cannot: there all
vectors are the same, self-similarity is 1 to rounding, and accuracy is that of chance.

A word's vector is the mean over its tokens, as its static vector is the mean over the rows of `wte`. Position 0 is left
out. Letters: n occurrences, C dimensions, S sites, K senses."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.preprocessing import normalize
from torch import Tensor

from data.batches import Batch
from data.senses import LEFT, RIGHT, AmbiguousWord, read_senses
from data.words import forms, words
from lab.device import Device
from lab.memory import map_texts
from lab.progress import progress_bar
from lab.texts import Texts
from lab.vectors import read_sites
from model import GPT2, Tokenizer

from .corrections import Floats
from .sites import measure_anisotropy
from .spaces import Spaces

MOST_WORDS, FEWEST, MOST = 30, 20, 200  # words of the corpus; texts that one must stand in; occurrences that are read
DRAWS = 999  # permutations of the senses
SAME = 1e-5  # vectors that differ by less, as a share of their length, differ by rounding
TIE = 1e-6  # so do cosines
COLUMNS = (
    *("word", "layer", "n", "self_similarity", "adjusted", "mev", "sense_accuracy", "cue_side"),
    *("model", "mev_adjusted", "similarity_to_wte", "similarity_to_mean", "null_accuracy", "p"),
)


@dataclass(frozen=True)
class Occurrence:
    """A word in a text that the network reads."""

    ids: tuple[int, ...]  # token ids of the text
    tokens: tuple[int, ...]  # positions of the word's
    sense: str = ""


Groups = dict[tuple[str, str], list[Occurrence]]  # by word and cue side; the words of the corpus have no side


def tabulate_words(spaces: Spaces) -> pd.DataFrame:
    """Return a row for each network, site, word and cue side: COLUMNS.

    `cue_side` is `left` or `right` for words of two senses, and missing for words of the corpus, which have no senses.
    `adjusted` and `mev_adjusted` are less what random tokens of test have at that site, without position 0.
    `null_accuracy` is the mean of `sense_accuracy` when senses are permuted, `p` the share of such draws that are at
    least as good."""
    groups = {**find_corpus_words(spaces), **find_ambiguous_words(read_senses(), spaces)}
    drawn = hashlib.sha256(repr(groups).encode()).hexdigest()
    tables = [
        spaces.keep(
            f"words-{network}",
            partial(measure_words, spaces, network, groups),
            occurrences=drawn,
            constants=[DRAWS, SAME, TIE],
        )
        for network in spaces.networks
    ]
    return pd.concat(tables, ignore_index=True).reindex(columns=list(COLUMNS))


def find_corpus_words(spaces: Spaces) -> Groups:
    """Return the words that stand in most texts, 20 at least, and their occurrences, 200 at most, drawn at random.

    Stop words are left out."""
    study, texts_of = spaces.study, defaultdict(set)
    for texts in spaces.texts.values():
        for word, occurrence in list_words(texts, study.find_text(texts), study.tokenizer):
            if spaces.stop_words.isdisjoint(forms(word)):
                texts_of[word].add(occurrence)
    frequent = [word for word in texts_of if count_texts(texts_of[word]) >= FEWEST]
    frequent = sorted(frequent, key=lambda word: (-count_texts(texts_of[word]), word))[:MOST_WORDS]
    if not frequent:
        spaces.left_out.append(f"words in context: no word of the corpus stands in {FEWEST} of these texts")
    rng = np.random.default_rng((spaces.seed, *b"occurrences of words"))
    groups: Groups = {}
    for word in frequent:
        candidates = sorted(texts_of[word], key=lambda each: (each.ids, each.tokens))
        chosen = rng.permutation(len(candidates))[:MOST]
        groups[word, ""] = [candidates[i] for i in np.sort(chosen)]
    return groups


def count_texts(occurrences: set[Occurrence]) -> int:
    return len({each.ids for each in occurrences})


def list_words(
    texts: Texts, of_text: Sequence[NDArray[np.bool_]], tokenizer: Tokenizer
) -> list[tuple[str, Occurrence]]:
    """Return the words of letters in these texts, in lower case, but those with the first token that the network reads.

    of_text: which tokens are of the text and not of a prompt, bool (T,) each."""
    occurrences = []
    for string, ids, counts in zip(texts.strings, texts.sequences, of_text, strict=True):
        cut = len(tokenizer.encode(string)) - len(ids)  # a long text was truncated to its end
        for word in words(string, tokenizer):
            tokens = tuple(token - cut for token in word.tokens)
            if word.text.isalpha() and min(tokens) > 0 and counts[list(tokens)].all():
                occurrences.append((word.text.lower(), Occurrence(tuple(ids), tokens)))
    return occurrences


def find_ambiguous_words(ambiguous: Sequence[AmbiguousWord], spaces: Spaces) -> Groups:
    """Return the occurrences of words of several senses, cue left and right; a word whose sentences are too long for
    the network is left out, and a line says so."""
    tokenizer, longest = spaces.study.tokenizer, spaces.study.clf.config.n_ctx
    groups: Groups = {}
    for each in ambiguous:
        of_word = {(each.word, side): read_occurrences(each, side, tokenizer) for side in (LEFT, RIGHT)}
        if max(len(one.ids) for group in of_word.values() for one in group) > longest:
            spaces.left_out.append(f"senses of {each.word}: a sentence has more than the network's {longest} tokens")
            continue
        groups |= of_word
    return groups


def read_occurrences(ambiguous: AmbiguousWord, side: str, tokenizer: Tokenizer) -> list[Occurrence]:
    """Return the word in its sentences of one side, as the tokenizer reads them by themselves, without a prompt."""
    occurrences = []
    for string, (start, end), sense in zip(*ambiguous.read(side), strict=True):
        tokens = [i for i, (_, first, last) in enumerate(tokenizer.pieces(string)) if first < end and last > start]
        occurrences.append(Occurrence(tuple(tokenizer.encode(string)), tuple(tokens), sense))
    return occurrences


def measure_words(spaces: Spaces, network: str, groups: Groups) -> pd.DataFrame:
    """Return the rows of a network."""
    trunk, recorded = spaces.networks[network].trunk, spaces.vectors(network, "test")
    vectors = record_occurrences(trunk, [each for group in groups.values() for each in group], spaces.study.device)
    wte = trunk.wte.weight.detach().float().cpu().numpy()
    rows = []
    with progress_bar("sites") as bar:
        task = bar.add_task(f"words in context: {network}", total=spaces.n_sites, note="")
        for layer in range(spaces.n_sites):
            random_tokens = recorded.read(layer, "token_without_first")[recorded.lengths > 1]
            of_layer = measure_groups(vectors[layer], groups, wte, random_tokens, spaces.seed)
            rows += [{"model": network, "layer": layer, **row} for row in of_layer]
            bar.advance(task)
    return pd.DataFrame(rows)


def measure_groups(x: Floats, groups: Groups, wte: Floats, random_tokens: Floats, seed: int) -> list[dict[str, Any]]:
    """Return the rows of a site without its name: x (n, C), the vectors of all groups in order; wte (V, C);
    random_tokens (N, C)."""
    rows, start, baseline, shares = [], 0, measure_anisotropy(random_tokens), dict[int, float]()
    for (word, side), group in groups.items():
        n = len(group)
        if n not in shares:
            shares[n] = find_first_share(random_tokens[:n])
        of_group, start = x[start : start + n], start + n
        static = np.stack([wte[np.array(each.ids)[list(each.tokens)]].mean(axis=0) for each in group])
        row: dict[str, Any] = {"word": word, "n": n, "cue_side": side or None}
        row |= describe_context(of_group, static, [each.ids for each in group])
        row["adjusted"], row["mev_adjusted"] = row["self_similarity"] - baseline, row["mev"] - shares[n]
        if side:
            row |= score_senses(of_group, [each.sense for each in group], seed)
        rows.append(row)
    return rows


@torch.inference_mode()
def record_occurrences(trunk: GPT2, occurrences: Sequence[Occurrence], device: Device) -> Floats:
    """Return the mean vector over the word's tokens of n occurrences at all sites of `lab.vectors`: float32 (S, n, C).

    Each text is read once. The caller moves the trunk to `device` and sets eval mode."""
    config = trunk.config
    rows_of_texts: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, each in enumerate(occurrences):
        rows_of_texts[each.ids].append(row)
    texts, rows = [list(ids) for ids in rows_of_texts], list(rows_of_texts.values())
    vectors = np.empty((config.n_layer + 2, len(occurrences), config.n_embd), np.float32)

    def average_words(batch: Batch) -> tuple[list[int], Tensor]:
        """Return the rows of a batch of texts and their vectors (S, rows, C)."""
        _, sites = read_sites(trunk, batch, device)
        chosen = [(place, row) for place, text in enumerate(batch.index.tolist()) for row in rows[text]]
        stacked = torch.stack(sites)  # (S, B, T, C)
        averaged = [stacked[:, place, list(occurrences[row].tokens)].mean(dim=1) for place, row in chosen]
        return [row for _, row in chosen], torch.stack(averaged, dim=1).cpu()

    for _, (filled, averaged) in map_texts(average_words, texts, device, "words in context"):
        vectors[:, filled] = averaged.numpy()
    return vectors


def describe_context(x: Floats, static: Floats, texts: Sequence[tuple[int, ...]]) -> dict[str, float]:
    """Return `self_similarity, mev, similarity_to_wte, similarity_to_mean` of a word's vectors x (n, C).

    static (n, C): its rows of `wte`. texts (n,): pairs in the same text are no pairs of self-similarity. The mean is
    that of all other occurrences."""
    x = x.astype(np.float64)
    unit = normalize(x)
    others = normalize((x.sum(axis=0) - x) / max(len(x) - 1, 1))
    return {
        "self_similarity": measure_self_similarity(x, texts),
        "mev": find_first_share(x),
        "similarity_to_wte": float((unit * normalize(static.astype(np.float64))).sum(axis=1).mean()),
        "similarity_to_mean": float((unit * others).sum(axis=1).mean()) if len(x) > 1 else np.nan,
    }


def measure_self_similarity(x: Floats, texts: Sequence[Any]) -> float:
    """Return the mean cosine of all pairs of rows of x (n, C) that are of different texts (n,); NaN without any."""
    text, _ = pd.factorize(pd.Series(list(texts)))
    sums = np.zeros((text.max() + 1, x.shape[1]))
    np.add.at(sums, text, normalize(x.astype(np.float64)))
    pairs = len(x) ** 2 - (np.bincount(text) ** 2).sum()
    return float(((sums.sum(axis=0) ** 2).sum() - (sums**2).sum()) / pairs) if pairs else np.nan


def find_first_share(x: Floats) -> float:
    """Return the share of the first one in the squared singular values of x (n, C), the maximum explainable variance;
    NaN for zeros."""
    x = x.astype(np.float64)
    squares = np.linalg.eigvalsh(x @ x.T)
    return float(squares[-1] / squares.sum()) if x.any() else np.nan


def score_senses(x: Floats, senses: Sequence[str], seed: int) -> dict[str, float]:
    """Return `sense_accuracy, null_accuracy, p` of a word's vectors x (n, C), see `tabulate_words`.

    Each occurrence is left out in turn and goes to the nearest centroid of the others, by cosine, after the mean of all
    n is subtracted. Of k equally near senses, each counts 1 / k. Chance is near 1 / K, but not there: what is left out
    moves its centroid away, and vectors of few texts lie in groups. Permuted senses show where it is."""
    x = x.astype(np.float64)
    centred = x - x.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1)
    centred[lengths <= SAME * np.linalg.norm(x, axis=1)] = 0
    labels, names = pd.factorize(pd.Series(list(senses)))
    rng = np.random.default_rng((seed, *b"permuted senses"))
    permuted = rng.permuted(np.tile(labels, (DRAWS, 1)), axis=1)
    rates = score_labels(centred @ centred.T, np.vstack([labels, permuted]), len(names))
    at_least = int((rates[1:] >= rates[0] - TIE).sum())
    return {
        "sense_accuracy": float(rates[0]),
        "null_accuracy": float(rates[1:].mean()),
        "p": (1 + at_least) / (1 + DRAWS),
    }


def score_labels(products: Floats, labels: NDArray[np.integer], K: int) -> Floats:
    """Return the leave-one-out accuracy of the nearest centroid for many labellings at once: float64 (M,).

    products (n, n): of the n vectors with each other. labels int (M, n), in 0 .. K - 1. A centroid has the direction of
    the sum of its vectors, so all cosines follow from the products; without one vector, its products are taken off."""
    member = (labels[:, :, None] == np.arange(K)).astype(float)  # (M, n, K)
    squares = np.diag(products)[:, None]  # (n, 1)
    with_sums = np.einsum("ij,mjk->mik", products, member)  # products of each vector with the sum of each sense
    squared_sums = np.einsum("mik,mik->mk", member, with_sums)[:, None]
    squared_sums = (squared_sums - member * (2 * with_sums - squares)).clip(0)
    scale = np.sqrt(squared_sums * squares)
    cosines = (with_sums - member * squares) / np.where(scale > 0, scale, np.inf)
    nearest = cosines >= cosines.max(axis=2, keepdims=True) - TIE
    return np.asarray(((nearest * member).sum(axis=2) / nearest.sum(axis=2)).mean(axis=1))
