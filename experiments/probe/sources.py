"""The texts and words to probe, from the corpus and from Brown, with labels, in train, val and test; and baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.properties import Labelled, parts_of_speech, word_properties
from lab.baselines import best_bag_of_words
from lab.texts import Texts
from model import GPT2Config, Tokenizer

from .linear import Task, bootstrap_means, draw_control, encode_correct, majority_correct, word_type_correct

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
LAST, MEAN, WORD = (
    "last",
    "mean",
    "word",
)  # readings: a text's last token, the mean over its tokens, a word's last token
EMOTION, SPEECH = "emotion", "part of speech"
AGAINST_RANDOM = (EMOTION, SPEECH)  # properties that are also probed in a network with random weights
MAJORITY, BAG_OF_WORDS, WORD_TYPE = "most frequent class", "bag of words", "word type"  # baselines
Key = tuple[str, str]  # property and reading


@dataclass(frozen=True, eq=False)
class Source:
    """Texts that the network reads once, and tasks on rows taken from them."""

    name: str
    sequences: list[list[int]]
    positions: Mapping[str, Sequence[NDArray[np.integer]] | None]  # by reading: those kept; None: the mean over a text
    tasks: Mapping[Key, Task]
    words: list[str] | None = None  # of the rows; None where the rows are texts


def collect_texts(splits: Sequence[Texts], labels: Sequence[str]) -> Source:
    """Return the classes of texts, read at their last tokens and at the mean over their tokens. They have no control
    task: see `draw_control`."""
    sequences = [ids for texts in splits for ids in texts.sequences]
    y = np.concatenate([texts.targets for texts in splits])
    task = Task(y, tuple(labels), _split_of_texts(splits), np.arange(len(y)))
    last = [np.array([len(ids) - 1]) for ids in sequences]
    return Source("texts", sequences, {LAST: last, MEAN: None}, {(EMOTION, LAST): task, (EMOTION, MEAN): task})


def collect_words(
    splits: Sequence[Texts], tokenizer: Tokenizer, n_words: int, seed: int
) -> tuple[list[Source], list[str]]:
    """Return the properties of words of these texts, and lines about what is missing. No source where a split has no
    words."""
    strings = [text for texts in splits for text in texts.strings]
    sequences = [ids for texts in splits for ids in texts.sequences]
    properties, missing = word_properties(strings, sequences, tokenizer, n_words, seed)
    split = _split_of_texts(splits)
    if set(split[properties["length"].text]) != set(SHARES):
        return [], ["the properties of words are left out: train, val or test has no word of letters"]
    return [_make_source("words", properties, split, seed)], missing


def collect_brown(tokenizer: Tokenizer, config: GPT2Config, n_words: int, seed: int) -> Source:
    """Return the parts of speech of words of the Brown corpus, split by sentence. Raises LookupError where nltk does
    not have the corpus."""
    labelled = parts_of_speech(tokenizer, n_words, config.n_ctx, seed)
    rng = np.random.default_rng((seed, *b"splits of Brown"))
    split = rng.choice(list(SHARES), len(labelled.sequences), p=list(SHARES.values()))
    return _make_source("Brown", {SPEECH: labelled}, split, seed)


def _split_of_texts(splits: Sequence[Texts]) -> NDArray[np.str_]:
    return np.repeat([texts.split for texts in splits], [len(texts.sequences) for texts in splits])


def _make_source(name: str, properties: Mapping[str, Labelled], split: NDArray[np.str_], seed: int) -> Source:
    """Return several properties of the same words, with control tasks; `split` is that of each text."""
    tasks = {}
    for what, labelled in properties.items():
        control = draw_control(labelled.words, labelled.y, len(labelled.names), what, seed)
        tasks[what, WORD] = Task(labelled.y, labelled.names, split[labelled.text], labelled.text, control)
    shared = next(iter(properties.values()))
    return Source(name, shared.sequences, {WORD: shared.positions}, tasks, shared.words)


def score_baselines(sources: Sequence[Source], splits: Sequence[Texts]) -> pd.DataFrame:
    """Score on test what needs no network: `property, baseline, n, accuracy, ci_low, ci_high, correct`, the last as
    the probes have it. The baselines of texts are the most frequent class and a bag of words, fitted on the texts that
    the probes learn from; those of words are the most frequent class and the most frequent label of the same word."""
    rows: list[dict[str, Any]] = []
    for source in sources:
        tasks = {what: task for (what, _), task in source.tasks.items()}  # one of the readings: they share their rows
        for what, task in tasks.items():
            rivals = {MAJORITY: majority_correct(task)}
            if source.words is not None:
                rivals[WORD_TYPE] = word_type_correct(source.words, task)
            else:
                rivals[BAG_OF_WORDS] = _bag_of_words_correct(*splits)
            scores = zip(*bootstrap_means(np.stack([*rivals.values()], axis=1), task.tested), strict=True)
            for (baseline, correct), (mean, low, high) in zip(rivals.items(), scores, strict=True):
                key = {"property": what, "baseline": baseline, "n": len(correct)}
                rows.append(
                    key | {"accuracy": mean, "ci_low": low, "ci_high": high, "correct": encode_correct(correct)}
                )
    return pd.DataFrame(rows)


def _bag_of_words_correct(train: Texts, val: Texts, test: Texts) -> NDArray[np.bool_]:
    """Return which texts of test the best bag of words gets right, (n,)."""
    _, pipeline, _ = best_bag_of_words((train.strings, train.targets), (val.strings, val.targets))
    return np.asarray(pipeline.predict(test.strings) == test.targets)
