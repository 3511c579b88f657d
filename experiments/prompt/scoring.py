"""What a language model says behind the prompts of all texts, and of inputs without content.

All that one prompt is asked runs together, so that its examples run once.

Letters: N texts, K classes, W label words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.prompts import Template
from lab.kept import open_array
from lab.label_words import LabelWords, Verbalizer, score_words
from lab.language import Advance, sum_log_probs
from lab.prompted import Prompted
from lab.prompts import BETWEEN, Demonstration, write_domain_prompt, write_prompt
from lab.texts import Texts

from .priors import CONTENT_FREE, CONTEXTS, Correction, average_probabilities, average_texts

Floats = NDArray[np.float64]
ALL = "all"  # the template, or the draw, of an ensemble
NEAREST = "nearest"  # the draw where each text has its own examples
ORDERED = "orders"  # the draw whose orders are studied: draw 0 again, under a name that no mean over draws takes in


@dataclass(frozen=True, eq=False)
class Setting:
    """One way to ask: a template with examples in an order, the same for all texts, or the nearest of each text."""

    template: Template
    shots: int = 0  # examples of each class
    draw: str = ""  # which examples: 0, 1, ..., NEAREST or ORDERED
    order: str = ""  # in which order: 0, 1, ... or near_to_far, far_to_near
    demonstrations: tuple[Demonstration, ...] = ()
    nearest: Mapping[str, Sequence[tuple[Demonstration, ...]]] = field(default_factory=dict)  # by split, of each text

    @property
    def name(self) -> str:
        """Its name, as that of a file."""
        return "-".join(filter(None, (self.template.name, str(self.shots), self.draw, self.order)))

    def find_last_class(self, words: LabelWords) -> str:
        """Return the label of the last example; nothing where there is none, or each text has its own."""
        return words.labels[self.demonstrations[-1].target] if self.demonstrations else ""

    def describe(self, words: LabelWords) -> dict[str, Any]:
        """Return what answers and tables say of it."""
        about = {"template": self.template.name, "shots": self.shots, "draw": self.draw, "order": self.order}
        return about | {"last_class": self.find_last_class(words)}

    def write_prompts(self, texts: Texts, words: LabelWords) -> list[str]:
        """Return the prompt of each text."""
        examples = self.nearest.get(texts.split) or [self.demonstrations] * len(texts)
        return [write_prompt(self.template, *pair, words) for pair in zip(texts.strings, examples, strict=True)]


@dataclass(frozen=True, eq=False)
class Scored:
    """The log-probabilities of W label words behind the prompts of a setting: (N, W) each.

    Inputs without content have no nearest examples: with these, only `texts` has rows."""

    setting: Setting
    texts: dict[str, Floats]  # by split
    content_free: Floats
    domain: Floats
    contexts: Floats


@dataclass(frozen=True, eq=False)
class Answers:
    """What a prompt says of the texts of a split, and the prior that a correction takes out of it.

    template, draw: `all` for an ensemble over templates or draws, whose members are corrected each by its own prior."""

    template: str
    verbalizer: Verbalizer
    shots: int
    draw: str
    order: str
    last_class: str
    correction: Correction
    split: str
    log_probs: Floats  # (N, K): of the label words behind the text; for `channel`, of the text behind the label word
    b: Floats  # (K,), in the same unit


def draw_contexts(train: Texts, seed: int) -> list[str]:
    """Return texts of random words of train, each of as many as a text has on average (Fei et al. 2023)."""
    split = [text.split() for text in train.strings]
    words, length = [word for text in split for word in text], max(1, round(np.mean([*map(len, split)])))
    rng = np.random.default_rng((seed, *b"words of train without order"))
    return [" ".join(words[i] for i in rng.integers(len(words), size=length)) for _ in range(CONTEXTS)]


def list_prompts(setting: Setting, texts: Mapping[str, Texts], contexts: Sequence[str], words: LabelWords) -> list[str]:
    """Return all prompts of a setting: of the texts of each split, of inputs without content, and without a text."""
    prompts = [prompt for each in texts.values() for prompt in setting.write_prompts(each, words)]
    if setting.nearest:
        return prompts
    neutral = [
        write_prompt(setting.template, text, setting.demonstrations, words) for text in (*CONTENT_FREE, *contexts)
    ]
    return [*prompts, *neutral, write_domain_prompt(setting.template, setting.demonstrations, words)]


def score_setting(
    setting: Setting,
    texts: Mapping[str, Texts],
    contexts: Sequence[str],
    prompted: Prompted,
    folder: Path,
    seed: int,
    advance: Advance,
) -> Scored:
    """Score all prompts of a setting; what is in `folder` is taken from there. advance: as for `read_next`."""
    words, device = prompted.words, prompted.device
    sequences = prompted.encode(list_prompts(setting, texts, contexts, words))
    about = prompted.identity(sequences, seed) | {"words": [list(ids) for ids in words.flat]}
    kept = open_array(folder / f"{setting.name}.npy", about, (len(sequences), len(words.flat)), device)
    if np.isnan(kept).any():
        kept[:] = score_words(prompted.lm, sequences, words, device, advance)
        kept.flush()
    else:
        advance(len(sequences) * len(words.beginnings))
    log_probs = np.array(kept, dtype=np.float64)
    by_split, start = {}, 0
    for split, each in texts.items():
        by_split[split] = log_probs[start : start + len(each)]
        start += len(each)
    rest = log_probs[start:]
    n = len(CONTENT_FREE)
    return Scored(setting, by_split, content_free=rest[:n], contexts=rest[n:-1], domain=rest[-1:])


def list_answers(scored: Scored, words: LabelWords, transductive: bool) -> Iterator[Answers]:
    """Yield the answers of a setting: of each verbalizer, correction and split."""
    for verbalizer in words.verbalizers:
        for split in scored.texts:
            log_probs = words.read_classes(scored.texts[split], verbalizer)
            for correction, b in find_priors(scored, words, verbalizer, split, transductive).items():
                answered: dict[str, Any] = {"correction": correction, "split": split, "log_probs": log_probs, "b": b}
                yield Answers(**scored.setting.describe(words), verbalizer=verbalizer, **answered)


def find_priors(
    scored: Scored, words: LabelWords, verbalizer: Verbalizer, split: str, transductive: bool
) -> dict[Correction, Floats]:
    """Return b (K,) of each correction for the texts of a split."""

    def read(log_probs: Floats) -> Floats:
        return words.read_classes(log_probs, verbalizer)

    priors: dict[Correction, Floats] = {"direct": np.zeros(len(words.labels))}
    if not scored.setting.nearest:
        priors["contextual"] = average_probabilities(read(scored.content_free))
        priors["domain_pmi"] = average_probabilities(read(scored.domain))
        priors["domain_context"] = average_probabilities(read(scored.contexts))
    priors["batch"] = average_texts(read(scored.texts["val"]))
    if transductive:
        priors["batch_transductive"] = average_texts(read(scored.texts[split]))
    return priors


def score_channel(
    setting: Setting, texts: Texts, prompted: Prompted, folder: Path, seed: int, advance: Advance
) -> Floats:
    """Return the log-probability of each text behind the first word of each class: (N, K) (Min et al. 2022).

    Each class takes a pass over all texts. advance: is called with each number of texts that are done."""
    template, words, device = setting.template, prompted.words, prompted.device
    columns = []
    examples = "".join(
        template.fill_channel(words.words[each.target][0], each.text) + BETWEEN for each in setting.demonstrations
    )
    for k, of_class in enumerate(words.words):
        start = len(prompted.tokenizer.encode(examples + template.fill_channel(of_class[0], "").rstrip(" ")))
        sequences = prompted.encode([examples + template.fill_channel(of_class[0], text) for text in texts.strings])
        about = prompted.identity(sequences, seed) | {"start": start}
        path = folder / f"channel-{setting.name}-{texts.split}-{k}.npy"
        kept = open_array(path, about, (len(sequences),), device)
        if np.isnan(kept).any():
            kept[:] = sum_log_probs(prompted.lm, sequences, start, device, advance)
            kept.flush()
        else:
            advance(len(sequences))
        columns.append(np.array(kept, dtype=np.float64))
    return np.stack(columns, axis=1)
