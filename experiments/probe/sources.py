"""What is probed: texts and words of the corpus and of Brown, with labels, in train, val and test; and baselines."""

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

from .linear import Task, as_text, by_type, control_by_type, majority, with_intervals

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
LAST, MEAN, WORD = "last", "mean", "word"  # readings: the last token of a text, the mean over all, a word's last token
EMOTION, SPEECH = "emotion", "part of speech"
AGAINST_RANDOM = (EMOTION, SPEECH)  # properties that are also looked for in a network with random weights
Key = tuple[str, str]  # property and reading


@dataclass(frozen=True, eq=False)
class Source:
    """Texts that the network reads once, the positions that are kept by reading (None: the mean over the text), and
    tasks on these rows."""

    name: str
    sequences: list[list[int]]
    positions: Mapping[str, Sequence[NDArray[np.integer]] | None]
    tasks: Mapping[Key, Task]
    words: list[str] | None = None  # of the rows; None where these are texts


def of_texts(splits: Sequence[Texts], labels: Sequence[str]) -> Source:
    """The classes of texts, read at their last tokens and at the mean over their tokens. They have no control task: see
    `control_by_type`."""
    sequences = [ids for texts in splits for ids in texts.sequences]
    y = np.concatenate([texts.targets for texts in splits])
    task = Task(y, tuple(labels), _splits(splits), np.arange(len(y)))
    last = [np.array([len(ids) - 1]) for ids in sequences]
    return Source("texts", sequences, {LAST: last, MEAN: None}, {(EMOTION, LAST): task, (EMOTION, MEAN): task})


def of_words(splits: Sequence[Texts], tokenizer: Tokenizer, n_words: int, seed: int) -> tuple[list[Source], list[str]]:
    """Properties of words of the same texts, and lines about what is missing. No source where a split has no words."""
    texts, sequences = (
        [text for texts in splits for text in texts.strings],
        [ids for texts in splits for ids in texts.sequences],
    )
    found, missing = word_properties(texts, sequences, tokenizer, n_words, seed)
    split = _splits(splits)
    if set(split[found["length"].text]) != set(SHARES):
        return [], ["the properties of words are left out: train, val or test has no word of letters"]
    return [_of_labelled("words", found, split, seed)], missing


def of_brown(tokenizer: Tokenizer, config: GPT2Config, n_words: int, seed: int) -> Source:
    """Parts of speech of words of the Brown corpus, split by sentence. LookupError where nltk has no such data."""
    own = parts_of_speech(tokenizer, n_words, config.n_ctx, seed)
    rng = np.random.default_rng((seed, *b"splits of Brown"))
    split = rng.choice(list(SHARES), len(own.sequences), p=list(SHARES.values()))
    return _of_labelled("Brown", {SPEECH: own}, split, seed)


def _splits(splits: Sequence[Texts]) -> NDArray[np.str_]:
    return np.repeat([texts.split for texts in splits], [len(texts.sequences) for texts in splits])


def _of_labelled(name: str, labelled: Mapping[str, Labelled], split: NDArray[np.str_], seed: int) -> Source:
    """Properties of the same words; `split` is that of each text."""
    tasks = {}
    for what, own in labelled.items():
        control = control_by_type(own.words, own.y, len(own.names), what, seed)
        tasks[what, WORD] = Task(own.y, own.names, split[own.text], own.text, control)
    shared = next(iter(labelled.values()))
    return Source(name, shared.sequences, {WORD: shared.positions}, tasks, shared.words)


def baselines(sources: Sequence[Source], splits: Sequence[Texts]) -> pd.DataFrame:
    """What can be had without the network, on test: `property, baseline, n, accuracy, ci_low, ci_high, correct`, the
    last the rows of test that are right, as the probes have them. Of texts, a bag of words that is fitted on the texts
    that the probes have; of words, the label that the same word mostly has."""
    rows: list[dict[str, Any]] = []
    for source in sources:
        for what, task in {what: task for (what, _), task in source.tasks.items()}.items():
            rivals = {"most frequent class": majority(task)}
            if source.words is not None:
                rivals["word type"] = by_type(source.words, task)
            else:
                rivals["bag of words"] = _by_bag_of_words(*splits)
            scores = zip(*with_intervals(np.stack([*rivals.values()], axis=1), task.tested), strict=True)
            for (baseline, correct), (mean, low, high) in zip(rivals.items(), scores, strict=True):
                key = {"property": what, "baseline": baseline, "n": len(correct)}
                rows.append(key | {"accuracy": mean, "ci_low": low, "ci_high": high, "correct": as_text(correct)})
    return pd.DataFrame(rows)


def _by_bag_of_words(train: Texts, val: Texts, test: Texts) -> NDArray[np.bool_]:
    """Which texts of test the best bag of words gets right, (n,)."""
    _, fitted, _ = best_bag_of_words((train.strings, train.targets), (val.strings, val.targets))
    return np.asarray(fitted.predict(test.strings) == test.targets)
