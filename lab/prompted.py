"""The language model of a run, opened for prompts."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.prompts import TEXT, Template
from model import GPT2LM, InputError, Tokenizer, load_lm
from model.checkpoint import read_labels
from model.names import find
from model.weights import hash_weights

from .device import Device
from .label_words import LabelWords, choose_words, read_with_words
from .prompts import Demonstration, encode_prompts, write_domain_prompt, write_prompt
from .study import Study
from .texts import Texts, check_pair

REFERENCE = 300  # texts of train whose prompts stand for all: what a closed head emits instead is made of them
DOMAIN = "domain"  # the name of the prompt without a text


@dataclass(frozen=True, eq=False)
class Prompted:
    """A language model that is asked for classes; it is in eval mode on the device, and nothing in it is trained."""

    name: str
    lm: GPT2LM
    tokenizer: Tokenizer
    words: LabelWords
    device: Device
    weights: str  # SHA-256 of its weights

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of prompts. Raises InputError as `encode_prompts` does."""
        return encode_prompts(prompts, self.words, self.tokenizer, self.lm.config.n_ctx)

    def identity(self, sequences: Sequence[list[int]], seed: int) -> dict[str, Any]:
        """Return what numbers that the model gives for these texts, token ids, depend on, as JSON."""
        texts = hashlib.sha256(repr(sequences).encode()).hexdigest()
        return {"weights": self.weights, "texts": texts, "seed": seed, "precision": self.device.precision}


def open_prompted(study: Study, model: str | None, words: Sequence[str]) -> Prompted:
    """Open the language model that a run began with, or its own where it was trained with --head words.

    model: another checkpoint, instead; words: as for `choose_words`, in the place of those that were learnt. Raises
    InputError where the run began with random weights, which know no words, and for a classifier."""
    settings = study.record["settings"]
    talks = settings.get("head") == "words"
    if settings["init"] == "random" and not talks and not model:
        raise InputError(f"{study.run} began with random weights, which cannot be asked; name a model with --model")
    name = model or (str(study.run) if talks else study.record["model"]["name"])
    folder = find(name)
    if read_labels(folder):
        raise InputError(f"{name} is a classifier, which cannot be asked; name a language model with --model")
    tokenizer, lm = Tokenizer.load(folder), load_lm(folder)
    check_pair(tokenizer, lm.config)
    lm = lm.to(study.device.device).requires_grad_(False)
    learnt = study.record["prompt"]["words"] if talks and not model else {}
    pairs = [f"{label}={word}" for label, word in learnt.items() if not any(w.startswith(f"{label}=") for w in words)]
    chosen = choose_words(study.corpus.labels, [*pairs, *words], tokenizer)
    named = replace(chosen, labels=study.clf.labels)  # which may call a class otherwise
    return Prompted(name, lm, tokenizer, named, study.device, hash_weights(folder))


@dataclass(frozen=True, eq=False, kw_only=True)
class PromptStudy(Study):
    """A study of a language model that is asked: its classifier reads the label words, and its texts are prompts.

    `texts` has val and test, REFERENCE texts of train, the prompt without a text (DOMAIN), and other inputs without
    content by name, all of class 0."""

    bare: Study  # the run with its texts as the corpus has them
    prompted: Prompted
    template: Template
    demonstrations: tuple[Demonstration, ...]

    def majority(self, texts: Texts) -> float:
        return self.bare.majority(texts)

    def identity(self, *texts: Texts) -> dict[str, Any]:
        words = [list(ids) for ids in self.prompted.words.flat]
        return super().identity(*texts) | {"prompt": self.fill(TEXT), "words": words}

    def describe(self) -> str:
        """Return what is asked, in words."""
        shots = len(self.demonstrations) // len(self.clf.labels)
        examples = f"{shots} example{'s' * (shots > 1)} of each class" if self.demonstrations else "no example"
        return f"the language model {self.prompted.name}, asked with the prompt {self.template.name} and {examples}"

    def provenance(self, texts: str, seed: int) -> list[str]:
        asked = [self.describe(), f"prompt: {self.template.prompt!r}", self.prompted.words.describe(self.tokenizer)]
        return [*asked, *self.bare.provenance(texts, seed)]

    def fill(self, text: str) -> str:
        return write_prompt(self.template, text, self.demonstrations, self.prompted.words)

    def find_text(self, texts: Texts) -> list[NDArray[np.bool_]]:
        if texts.split == DOMAIN:
            return [np.zeros(len(ids), dtype=bool) for ids in texts.sequences]
        return super().find_text(texts)


def make_prompt_study(
    study: Study,
    prompted: Prompted,
    template: Template,
    demonstrations: tuple[Demonstration, ...],
    seed: int,
    neutral: Mapping[str, Sequence[str]] | None = None,
) -> PromptStudy:
    """Return the study of a prompt: a classifier that reads the label words, and the prompts of the study's texts.

    neutral: texts without content, by name. Raises InputError as `read_with_words` and `encode_prompts` do."""
    words, study = prompted.words, replace(study.without_template(), weights=prompted.weights)

    def ask(texts: Texts) -> Texts:
        prompts = [write_prompt(template, text, demonstrations, words) for text in texts.strings]
        return replace(texts, strings=prompts, sequences=prompted.encode(prompts), truncated=0)

    def make_texts(name: str, strings: Sequence[str]) -> Texts:
        n = len(strings)
        return Texts(name, np.arange(n), list(strings), [[]] * n, np.zeros(n, dtype=np.int64))

    clf = read_with_words(prompted.lm, words)
    texts = {**study.texts, "train": study.draw_texts("train", REFERENCE, seed)}
    texts |= {name: make_texts(name, strings) for name, strings in (neutral or {}).items()}
    domain = make_texts(DOMAIN, [write_domain_prompt(template, demonstrations, words)])
    prompts = {name: ask(each) for name, each in texts.items()}
    prompts[DOMAIN] = replace(domain, sequences=prompted.encode(domain.strings))
    inherited = {**vars(study), "clf": clf, "texts": prompts, "template": template}
    inherited |= {"tokenizer": prompted.tokenizer, "has_classifier": True}
    return PromptStudy(**inherited, bare=study, prompted=prompted, demonstrations=demonstrations)
