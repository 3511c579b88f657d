"""Which words of a corpus does the network go by, and would a bag of words go by the same ones?

Each word is hidden where it stands, one place at a time, on texts of val: test stays unseen, for robustness.py asks
there what happens without these words.

Letters: N texts, M places of words, W words, K classes."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr, t
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from data.words import Word, words
from lab.baselines import make_candidates
from lab.kept import open_array
from lab.progress import progress_bar
from lab.removals import Remains, Removal, read_remains, remove
from lab.shares import FEWEST
from lab.stats import LEVEL, holm
from lab.study import Study
from lab.texts import Texts, find_whole

from .attributions import Floats

TEXTS = 2000  # of val at most
MOST = 30  # texts in which one word is hidden: else nearly all the time would go into `i`, `feel` and `the`
ROWS = 512  # read between two looks at the disk
REMOVAL: Removal = "hide"
BAG_OF_WORDS = "binary unigrams + logistic regression"
WORDS = ["class", "word", "n", "texts", "value", "ci_low", "ci_high", "bag_of_words", "frequency"]
COMPARED = ["class", "n", "spearman", "p", "p_corrected", "sure", "seen", "other_sign", "no_weight"]


@dataclass(frozen=True)
class Place:
    """One occurrence of a word."""

    text: int  # position among the texts
    word: str  # in lower case
    tokens: tuple[int, ...]


def measure_words(study: Study, folder: Path, seed: int) -> pd.DataFrame:
    """Return one row per class and word that at least FEWEST texts of val have, the largest value of a class first.

    value: what the logit of the class loses when the word is hidden, mean over `n` places in `texts` texts. A logit is
    taken minus the mean over the classes, for the same number added to all of them changes nothing. The limits hold
    for all words of a class at once. bag_of_words: see `weigh_words`. frequency: share of the texts that have the word.
    folder: where results are kept."""
    texts, labels = select_whole(study.draw_texts("val", TEXTS, seed), study), study.clf.labels
    everywhere = [
        Place(text, word.text.lower(), word.tokens)
        for text, of_text in enumerate(parse_texts(texts, study))
        for word in of_text
    ]
    frequencies = Counter(word for _, word in {(place.text, place.word) for place in everywhere})
    places = draw_places(everywhere, seed)
    if not places:
        return pd.DataFrame(columns=WORDS)
    losses = measure_losses(study, texts, places, folder, seed)
    table = tabulate_words(places, losses, len(texts), labels)
    vocabulary = table["word"].unique().tolist()
    weights = pd.DataFrame(weigh_words(fit_bag_of_words(study), vocabulary), vocabulary, labels).stack(
        future_stack=True
    )
    table["bag_of_words"] = weights.loc[list(zip(table["word"], table["class"], strict=True))].to_numpy()
    table["frequency"] = table["word"].map(frequencies) / len(texts)
    return table[WORDS]


def select_whole(texts: Texts, study: Study) -> Texts:
    """Return the texts that the network reads from their first token on."""
    return texts.select(np.flatnonzero(find_whole(texts, study.tokenizer)))


def parse_texts(texts: Texts, study: Study) -> list[list[Word]]:
    """Return the words of each text, punctuation marks among them, and none of its template."""
    return [
        [word for word in words(string, study.tokenizer) if of_text[list(word.tokens)].any()]
        for string, of_text in zip(texts.strings, study.find_text(texts), strict=True)
    ]


def draw_places(places: Iterable[Place], seed: int) -> list[Place]:
    """Return the places of each word that stands in at least FEWEST texts: those in MOST of its texts, drawn at random,
    or in all where it has fewer."""
    holders: dict[str, dict[int, list[Place]]] = {}  # of each word, by text
    for place in places:
        holders.setdefault(place.word, {}).setdefault(place.text, []).append(place)
    rng, drawn = np.random.default_rng((seed, *b"places of words")), []
    for word in sorted(holders):
        by_text = list(holders[word].values())
        if len(by_text) >= FEWEST:
            chosen = rng.choice(len(by_text), min(MOST, len(by_text)), replace=False)
            drawn += [place for i in sorted(chosen) for place in by_text[i]]
    return drawn


def measure_losses(study: Study, texts: Texts, places: Sequence[Place], folder: Path, seed: int) -> Floats:
    """Return what the logit of each class, minus the mean over the classes, loses at each place: float64 (M, K)."""
    numbers = sorted({place.text for place in places})
    rows = [remove_tokens(texts.sequences[text], ()) for text in numbers]
    rows += [remove_tokens(texts.sequences[place.text], place.tokens) for place in places]
    logits = read_rows(study, rows, folder / "words.npy", seed, "important words")
    logits -= logits.mean(axis=1, keepdims=True)
    whole = logits[np.searchsorted(numbers, [place.text for place in places])]
    return whole - logits[len(numbers) :]


def remove_tokens(ids: Sequence[int], tokens: Iterable[int], removal: Removal = REMOVAL) -> Remains:
    """Return what is left of a text without the tokens at these positions."""
    kept = np.ones(len(ids), dtype=bool)
    kept[list(tokens)] = False
    return remove(ids, kept, removal)


def read_rows(study: Study, rows: Sequence[Remains], path: Path, seed: int, title: str) -> Floats:
    """Return the logits of what is left of many texts, float64 (rows, K). They are kept at `path`, so that a call that
    was interrupted goes on; `title` is that of the progress bar."""
    content = hashlib.sha256()
    for row in rows:
        content.update(repr((row.ids.tolist(), row.positions.tolist(), row.filled.tolist())).encode())
    identity = study.identity() | {"seed": seed, "rows": content.hexdigest()}
    logits = open_array(path, identity, (len(rows), len(study.clf.labels)), study.device)
    with progress_bar("texts") as bar:
        task = bar.add_task(title, total=len(rows), note="")
        for start in range(0, len(rows), ROWS):
            some = slice(start, start + ROWS)
            if np.isnan(logits[some]).any():
                logits[some] = read_remains(study.clf, rows[some], study.device)
            bar.advance(task, len(logits[some]))
    logits.flush()
    return np.array(logits, dtype=np.float64)


def tabulate_words(places: Sequence[Place], losses: Floats, n_texts: int, labels: Sequence[str]) -> pd.DataFrame:
    """Return one row per class and word, the largest value of a class first: `class, word, n, texts, value, ci_low,
    ci_high`. losses: float (M, K), of each place in n_texts texts."""
    vocabulary = sorted({place.word for place in places})
    index = np.array([place.text for place in places]), np.searchsorted(vocabulary, [place.word for place in places])
    counts = np.zeros((n_texts, len(vocabulary)))
    np.add.at(counts, index, 1)
    columns = {"word": vocabulary, "n": counts.sum(axis=0).astype(int), "texts": (counts > 0).sum(axis=0)}
    tables = []
    for label, of_class in zip(labels, losses.T, strict=True):
        sums = np.zeros_like(counts)
        np.add.at(sums, index, of_class)
        value, reach = estimate_means(sums, counts)
        limits = {"value": value, "ci_low": value - reach, "ci_high": value + reach}
        table = pd.DataFrame({"class": label, **columns, **limits})
        tables.append(table.sort_values("value", ascending=False, kind="stable"))
    return pd.concat(tables, ignore_index=True)


def estimate_means(sums: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Return the mean of each word, and how far its limits reach on both sides, (W,) each: 95 % for all words at once
    (Bonferroni), by Student's t over the texts that have the word.

    sums, counts: over the places of a word in a text, (N, W). The mean is a ratio of two sums, whose variance is that
    of the texts' deviations (Cochran 1977, section 6.3). Ten texts may all lack the rare place where a word decides,
    and then they show too little of its spread. So the mean variance of all words is added to that of each one, as
    Tusher, Tibshirani and Chu (2001) add a constant to each standard error. Words of no effect with losses as those of
    the first gpt2-mini, fine-tuned on emotion, then had any limits beyond 0 in 1 to 4 % of simulated classes, and
    without the addition in nearly all of them."""
    n, total = (counts > 0).sum(axis=0), counts.sum(axis=0)
    means = sums.sum(axis=0) / total
    variances = n * n / (n - 1) * (((sums - means * counts) / total) ** 2).sum(axis=0)  # of one text
    errors = np.sqrt((variances + variances.mean()) / n)
    return means, t.isf(LEVEL / 2 / len(means), n - 1) * errors


@threadpool_limits.wrap(limits=1)  # on sparse counts, BLAS threads mostly wait for one another
def fit_bag_of_words(study: Study) -> Pipeline:
    """Fit the bag of words whose weights can be read: on all of train, whether a text has a word or not."""
    train = study.texts["train"]
    return make_candidates(train.strings)[BAG_OF_WORDS].fit(train.strings, train.targets)


def weigh_words(bag: Pipeline, vocabulary: Sequence[str]) -> Floats:
    """Return what the bag of words adds to the logit of each class for each word, (W, K), minus the mean over classes.

    A word of several parts (`well-being`) has the sum of what the bag knows of them; one that it does not know at all
    has NaN: a single letter, a punctuation mark, a word that train lacks. Two classes: -w / 2 and w / 2."""
    vectorizer, classifier = bag[0], bag[-1]
    weights = (
        classifier.coef_ if len(classifier.classes_) > 2 else np.concatenate([-classifier.coef_, classifier.coef_]) / 2
    )
    features = vectorizer.transform(vocabulary)
    sums = features @ (weights - weights.mean(axis=0)).T
    return np.where(features.getnnz(axis=1)[:, None] > 0, sums, np.nan)


def compare_with_bag_of_words(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per class of a table of `measure_words`.

    spearman: rank correlation of value and weight over the n words that the bag of words knows, NaN for fewer than
    FEWEST; p: of no correlation, `p_corrected` by Holm over the classes. sure: words whose limits leave out 0. Of these
    the bag of words sees `seen` as well, with a weight of the same sign; the others are named, the largest value first:
    those of the `other_sign`, and those with `no_weight`."""
    rows = []
    for label, of_class in table.groupby("class", sort=False):
        known = of_class.dropna(subset="bag_of_words")
        enough = len(known) >= FEWEST and known["value"].nunique() > 1 and known["bag_of_words"].nunique() > 1
        spearman, p = spearmanr(known["value"], known["bag_of_words"]) if enough else (np.nan, np.nan)
        sure = of_class[(of_class["ci_low"] > 0) | (of_class["ci_high"] < 0)]
        sure = sure.sort_values("value", key=lambda value: -value.abs(), kind="stable")
        unknown = sure["bag_of_words"].isna() | (sure["bag_of_words"] == 0)
        seen = np.sign(sure["value"]) == np.sign(sure["bag_of_words"])
        row = {"class": label, "n": len(known), "spearman": spearman, "p": p, "sure": len(sure), "seen": seen.sum()}
        names = {"other_sign": sure["word"][~seen & ~unknown], "no_weight": sure["word"][unknown]}
        rows.append(row | {name: json.dumps(some.tolist(), ensure_ascii=False) for name, some in names.items()})
    compared = pd.DataFrame(rows, columns=COMPARED)
    return compared.assign(p_corrected=holm(compared["p"].to_numpy(dtype=float)))
