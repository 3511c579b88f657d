"""How robust is the classifier: what is left of its accuracy when the most important words of a class are hidden?

The words were chosen on val (words.py), their loss is measured on test: beside as many random other words of the same
texts, and beside a bag of words that loses the same ones. Words too rare for words.py are among the others, and they
decide, too. So for a large k, when next to no other words are left, it can be the random ones that cost more.

Letters: N texts, R rows of the table, S resamples of the texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.words import Word
from lab.shares import FEWEST
from lab.stats import resamples, simultaneous_limits
from lab.study import Study
from lab.texts import OVERALL, Texts

from .attributions import Floats
from .words import REMOVAL, fit_bag_of_words, parse_texts, read_rows, remove_tokens, select_whole

TEXTS = 500  # of test at most
DRAWS = 5  # of random words in each text
SIZES = (1, 3, 10, 30, 100)  # words of a class
ROBUSTNESS = ["class", "k", "removal", "n", "removed", "whole", "value", "random", "difference", "ci_low", "ci_high"]
ROBUSTNESS += ["hit", "bag_of_words", "bag_of_words_whole", "words", "short"]
Hidden = tuple[int, ...]  # numbers of words in their text


@dataclass(frozen=True)
class Trial:
    """One text without the important words of a class, and without as many random other ones, in DRAWS draws."""

    label: str
    k: int
    vocabulary: int  # how many words are hidden wherever they stand
    text: int
    important: Hidden
    random: list[Hidden]  # fewer words where the text has no more others


def measure_robustness(study: Study, words: pd.DataFrame, folder: Path, seed: int) -> pd.DataFrame:
    """Return one row per class and k: accuracy on the texts of that true class when the k words of largest positive
    value for the class are hidden; class `all`: on all texts, without the k words of every class.

    words: what `measure_words` returns. folder: where results are kept. Of `n` texts a share `hit` has any of the
    `words` words (fewer than k where no more have a positive value); `removed` is the mean share of a text's words that
    is hidden. whole, value, random: the share classified right with nothing hidden, without these words, and without as
    many random others of the same text, mean over DRAWS draws; in a share `short` of the texts that are hit there are
    not as many others, and all of them are hidden. difference: value - random, with limits over the texts that hold for
    all rows at once; NaN for fewer than FEWEST texts. bag_of_words: accuracy of the bag of words, fitted on train, when
    the same words are struck from the texts; bag_of_words_whole: with nothing struck."""
    texts = select_whole(study.draw_texts("test", TEXTS, seed), study)
    parsed = parse_texts(texts, study)
    trials = plan_trials(words, texts, parsed, study.clf.labels, seed)
    if not trials:
        return pd.DataFrame(columns=ROBUSTNESS)
    hidden = {(trial.text, some) for trial in trials for some in ((), trial.important, *trial.random)}
    order = sorted(hidden)
    rows = [
        remove_tokens(texts.sequences[text], {token for word in some for token in parsed[text][word].tokens})
        for text, some in order
    ]
    logits = read_rows(study, rows, folder / "robustness.npy", seed, "without important words")
    network = {key: texts.targets[key[0]] == k for key, k in zip(order, logits.argmax(axis=1), strict=True)}
    struck = sorted({(trial.text, some) for trial in trials for some in ((), trial.important)})
    predicted = fit_bag_of_words(study).predict([strike(texts.strings[i], parsed[i], some) for i, some in struck])
    bag = {key: texts.targets[key[0]] == k for key, k in zip(struck, predicted, strict=True)}
    return tabulate_robustness(trials, network, bag, [len(of_text) for of_text in parsed])


def plan_trials(
    words: pd.DataFrame, texts: Texts, parsed: Sequence[Sequence[Word]], labels: Sequence[str], seed: int
) -> list[Trial]:
    """Return the trials of all classes and sizes. All of them take random words in the same DRAWS orders of a text."""
    rng, trials = np.random.default_rng((seed, *b"random words")), []
    orders = [[rng.permutation(len(of_text)).tolist() for _ in range(DRAWS)] for of_text in parsed]
    for label in (OVERALL, *labels):
        of_class = np.ones(len(texts), bool) if label == OVERALL else texts.targets == list(labels).index(label)
        for k in SIZES:
            vocabulary = choose_important(words, list(labels) if label == OVERALL else [label], k)
            for text in np.flatnonzero(of_class).tolist() if vocabulary else ():
                important = tuple(i for i, word in enumerate(parsed[text]) if word.text.lower() in vocabulary)
                others = [[i for i in order if i not in important] for order in orders[text]]
                random = [tuple(sorted(order[: len(important)])) for order in others]
                trials.append(Trial(label, k, len(vocabulary), text, important, random))
    return trials


def choose_important(words: pd.DataFrame, labels: Sequence[str], k: int) -> set[str]:
    """Return the k words of largest positive value of each of these classes, in one set."""
    positive = words[(words["value"] > 0) & words["class"].isin(labels)]
    return set(positive.sort_values("value", ascending=False, kind="stable").groupby("class").head(k)["word"])


def strike(text: str, of_text: Sequence[Word], numbers: Hidden) -> str:
    """Return a text with a space in the place of each of these words."""
    for number in sorted(numbers, reverse=True):
        text = text[: of_text[number].start] + " " + text[of_text[number].end :]
    return text


def tabulate_robustness(
    trials: Sequence[Trial],
    network: dict[tuple[int, Hidden], bool],
    bag: dict[tuple[int, Hidden], bool],
    n_words: Sequence[int],
) -> pd.DataFrame:
    """Return the table. network, bag: whether a text is classified right without these words; n_words: how many each
    text has."""
    each = pd.DataFrame(
        {
            "class": trial.label,
            "k": trial.k,
            "words": trial.vocabulary,
            "text": trial.text,
            "removed": len(trial.important) / max(n_words[trial.text], 1),
            "whole": network[trial.text, ()],
            "value": network[trial.text, trial.important],
            "random": np.mean([network[trial.text, some] for some in trial.random]),
            "hit": len(trial.important) > 0,
            "short": len(trial.random[0]) < len(trial.important) if trial.important else np.nan,
            "bag_of_words": bag[trial.text, trial.important],
            "bag_of_words_whole": bag[trial.text, ()],
        }
        for trial in trials
    )
    each["difference"] = each["value"] - each["random"]
    groups = each.groupby(["class", "k"], sort=False)
    table = groups.mean().drop(columns="text").assign(n=groups.size()).reset_index()
    number = groups.ngroup().to_numpy()
    members, differences = np.zeros((2, len(n_words), len(table)))
    members[each["text"], number], differences[each["text"], number] = 1, each["difference"]
    table["ci_low"], table["ci_high"] = limit_differences(differences, members)
    return table.assign(removal=REMOVAL)[ROBUSTNESS].astype({"words": int})


def limit_differences(differences: Floats, members: Floats) -> tuple[Floats, Floats]:
    """Return low and high 95 % limits of the mean difference of each row, that hold for all R rows at once, (R,) each.

    differences, members: (N, R), of each text, and 1 where it counts for a row, else 0. NaN for fewer than FEWEST
    texts. The mean over a class is a ratio of two sums, and the resampled one is linear in the texts (Cochran 1977,
    section 6.3): the size of the class stays. Where the important words cost none of a few texts, these show no spread
    at all. So a text that is lost and one that is won are added to the spread, not to the mean, in the manner of
    Agresti and Min (2005), who add half of each."""
    n = members.sum(axis=0)
    means = np.where(n >= FEWEST, differences.sum(axis=0) / n, np.nan)
    added = np.outer([1, -1], np.where(np.isnan(means), np.nan, 1))
    deviations = np.concatenate([differences - means * members, added]) / n
    resampled = np.concatenate([means + weights @ deviations for weights in resamples(len(deviations))])
    low, high = simultaneous_limits(means, resampled, np.maximum(n, FEWEST))  # of fewer there is no mean
    return low.clip(-1), high.clip(max=1)  # no share changes by more
