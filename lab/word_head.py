"""The head of a run of `train.py --head words`: a language model that answers a prompt with a label word.

Nothing is added to the network. A template turns each text into a prompt, and the logits of one word for each class,
behind the prompt, are the logits of the classes."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.prompts import Template, read_templates
from model import GPT2Classifier, InputError, Tokenizer, load_classifier, load_lm
from model.checkpoint import read_labels

from .label_words import LabelWords, choose_words, read_with_words
from .prompts import encode_prompts
from .texts import Texts


@dataclass(frozen=True)
class WordHead:
    """How such a run asks and what it answers: a template, and one word for each class."""

    template: Template
    words: LabelWords

    def describe(self) -> dict[str, Any]:
        """Return it as JSON, for run.json."""
        words = {label: of_class[0] for label, of_class in zip(self.words.labels, self.words.words, strict=True)}
        return {"template": asdict(self.template), "words": words}

    def check(self, texts: Mapping[str, Texts], tokenizer: Tokenizer) -> None:
        """Raise InputError where a word behind a prompt has other tokens than alone, see `encode_prompts`."""
        for each in texts.values():
            encode_prompts(each.strings, self.words, tokenizer, sys.maxsize)  # `read_texts` has seen to the length


def choose_word_head(template: str, words: Sequence[str], labels: Sequence[str], tokenizer: Tokenizer) -> WordHead:
    """Return the head of this template, a name or a file of one, and of the first label word of each class.

    words: as for `choose_words`. Raises InputError where there is not one template, and as `choose_words` does."""
    templates = read_templates([template])
    if len(templates) > 1:
        names = ", ".join(each.name for each in templates)
        raise InputError(f"--template {template}: expected one to train on, got {names}; leave one in the file")
    return WordHead(templates[0], choose_words(labels, words, tokenizer).first())


def read_word_head(record: dict[str, Any], tokenizer: Tokenizer) -> WordHead | None:
    """Return the head that a run's manifest describes; None of a run with a head of its own."""
    if "prompt" not in record:
        return None
    labels, words = record["prompt"]["words"].keys(), record["prompt"]["words"].values()
    ids = tuple((tuple(tokenizer.encode(f" {word}")),) for word in words)
    return WordHead(
        Template(**record["prompt"]["template"]), LabelWords(tuple(labels), tuple((word,) for word in words), ids)
    )


def load_network(
    folder: Path, head: WordHead | None, labels: Sequence[str] | None = None, names: Sequence[str] = ()
) -> GPT2Classifier:
    """Load the classifier of a checkpoint: one with a head of its own as `load_classifier` does, else a language model
    that is read with label words. In fp32 and eval mode.

    Raises InputError where label words shall be read from a classifier."""
    if head is None:
        return load_classifier(folder, labels, names=names or None)
    if classes := read_labels(folder):
        raise InputError(
            f"{folder}: expected a language model, for the run answers in label words, got a classifier of "
            f"{', '.join(classes)}"
        )
    return read_with_words(load_lm(folder), head.words)
