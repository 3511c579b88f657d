"""Prompts of texts: a template, filled; before it examples of the task, each with its label word."""

from collections.abc import Sequence
from dataclasses import dataclass

from data.prompts import Template
from model import InputError, Tokenizer

from .label_words import LabelWords

BETWEEN = "\n\n"  # two examples


@dataclass(frozen=True)
class Demonstration:
    """A text of train that stands in a prompt as an example, with its class."""

    index: int  # in train
    text: str
    target: int  # class number


def write_prompt(template: Template, text: str, demonstrations: Sequence[Demonstration], words: LabelWords) -> str:
    """Return the prompt of a text: each example in the same template with the first word of its class, then the text.

    Without examples it is the template, filled."""
    examples = [f"{template.fill(each.text)} {words.words[each.target][0]}" for each in demonstrations]
    return BETWEEN.join([*examples, template.fill(text)])


def write_domain_prompt(template: Template, demonstrations: Sequence[Demonstration], words: LabelWords) -> str:
    """Return the prompt without a text, behind the same examples."""
    examples = write_prompt(template, "", demonstrations, words).removesuffix(template.fill(""))
    return examples + template.domain


def encode_prompts(prompts: Sequence[str], words: LabelWords, tokenizer: Tokenizer, n_ctx: int) -> list[list[int]]:
    """Return the token ids of prompts, to which any label word can be appended.

    Raises InputError where a prompt with the longest word is longer than the context, and where the ids of prompt and
    word together are not those of the two side by side."""
    longest, sequences = max(words.flat, key=len), []
    room = n_ctx - len(longest) + 1  # the word's last token is predicted, not read
    every_word = [word for each in words.words for word in each]
    for i, prompt in enumerate(prompts):
        ids = tokenizer.encode(prompt)
        if len(ids) > room:
            raise InputError(
                f"a prompt has {len(ids):,} tokens, and {room:,} fit into the network's context; take fewer --shots, "
                f"or a corpus of shorter texts: {prompt[-80:]!r}"
            )
        for word in every_word if not i else every_word[:1]:  # what stands before the last word makes no difference
            if tokenizer.encode(f"{prompt} {word}") != ids + tokenizer.encode(f" {word}"):
                raise InputError(
                    f"the label word {word!r} joins the end of {prompt[-40:]!r}; end the template in a word"
                )
        sequences.append(ids)
    return sequences
