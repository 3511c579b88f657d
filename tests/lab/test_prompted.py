"""A prompt as a study: what its classifier reads, and what its numbers depend on."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from planted_lm import DEVICE, LABELS, TOKENIZER, open_planted, write_texts
from scipy.special import log_softmax

from data.prompts import Template, read_templates
from lab.label_words import score_words
from lab.prompted import DOMAIN, REFERENCE, make_prompt_study
from lab.prompts import Demonstration
from lab.study import Study
from model import GPT2Classifier, GPT2Config

FEELING, EMOTION = read_templates(["feeling", "emotion"])
EXAMPLES = (Demonstration(0, "we saw rain", 1), Demonstration(1, "her sun", 0))


@pytest.fixture(scope="module")
def prompted():
    return open_planted()


@pytest.fixture(scope="module")
def study():
    texts = {split: write_texts(split, n) for split, n in (("train", 400), ("val", 31), ("test", 29))}
    clf = GPT2Classifier(GPT2Config(1, 1, 32), LABELS)
    return Study(Path("one"), {}, clf, TOKENIZER, SimpleNamespace(files={}), texts, DEVICE, "cd" * 32)


def test_its_texts_are_prompts_and_its_classifier_reads_the_label_words(study, prompted):
    asked = make_prompt_study(study, prompted, FEELING, EXAMPLES, 0, {"contexts": ["was day", "sun"]})
    assert {name: len(texts) for name, texts in asked.texts.items()} == {
        **{"train": REFERENCE, "val": 31, "test": 29},
        **{"contexts": 2, DOMAIN: 1},
    }
    joy, sadness = (prompted.words.words[k][0] for k in (0, 1))
    examples = f"we saw rain\nThe feeling of this text is {sadness}\n\nher sun\nThe feeling of this text is {joy}\n\n"
    prompt = f"{examples}{study.texts['test'].strings[3]}\nThe feeling of this text is"
    assert asked.texts["test"].strings[3] == prompt
    assert asked.texts["contexts"].strings[1] == f"{examples}sun\nThe feeling of this text is"
    assert asked.texts[DOMAIN].strings == [f"{examples}The feeling of this text is"]
    for texts in asked.texts.values():
        assert texts.sequences == [TOKENIZER.encode(string) for string in texts.strings]
    np.testing.assert_array_equal(asked.texts["test"].targets, study.texts["test"].targets)
    logits = asked.clf(torch.tensor([TOKENIZER.encode(prompt)])).numpy()
    scores = prompted.words.read_classes(
        score_words(prompted.lm, [TOKENIZER.encode(prompt)], prompted.words, DEVICE), "all words"
    )
    np.testing.assert_allclose(log_softmax(logits, axis=1), log_softmax(scores, axis=1), atol=1e-4)


def test_the_most_frequent_class_is_that_of_all_of_train(study, prompted):
    targets = np.r_[np.zeros(REFERENCE, int), np.ones(100, int)]
    train = replace(study.texts["train"], targets=targets)
    bare = replace(study, texts=study.texts | {"train": train})
    test = bare.texts["test"]
    asked = make_prompt_study(bare, prompted, FEELING, (), 0)
    asked.texts["train"].targets[:] = 2
    assert asked.majority(asked.texts["test"]) == (test.targets == 0).mean()


def test_numbers_depend_on_the_template_the_examples_and_the_label_words(study, prompted):
    def identify(template=FEELING, examples=(), asked=prompted):
        return make_prompt_study(study, asked, template, examples, 0).identity(study.texts["val"])

    identities = [
        identify(),
        identify(EMOTION),
        identify(Template("feeling", "{text}. The feeling of this text is", FEELING.domain)),
        identify(examples=EXAMPLES),
        identify(asked=replace(prompted, words=prompted.words.first())),
        identify(asked=replace(prompted, weights="ef" * 32)),
    ]
    assert identify() == identities[0]
    assert all(one != other for i, one in enumerate(identities) for other in identities[:i])


@pytest.mark.parametrize("template", [FEELING, EMOTION, Template("quoted", '"{text}" It was', "It was")])
def test_the_tokens_of_the_text_are_found_in_its_prompt(study, prompted, template):
    asked = make_prompt_study(study, prompted, template, EXAMPLES, 0)
    for prompt, text, mask in zip(
        asked.texts["test"].strings, study.texts["test"].strings, asked.find_text(asked.texts["test"]), strict=True
    ):
        pieces = [piece for piece, _, _ in TOKENIZER.pieces(prompt)]
        assert len(mask) == len(pieces)
        assert "".join(piece for piece, of_text in zip(pieces, mask, strict=True) if of_text).strip() == text
    assert not asked.find_text(asked.texts[DOMAIN])[0].any()


def test_it_says_what_is_asked(study, prompted):
    say = make_prompt_study(study, prompted, FEELING, EXAMPLES[:0], 0).describe()
    assert say == "the language model planted, asked with the prompt feeling and no example"
    examples = (*EXAMPLES, Demonstration(2, "wind", 2))
    assert make_prompt_study(study, prompted, FEELING, examples, 0).describe().endswith("and 1 example of each class")


def test_the_tokens_of_the_text_are_those_that_are_read_of_a_long_one(study):
    prompts = [FEELING.fill(text) for text in study.texts["val"].strings]
    whole = [TOKENIZER.encode(prompt) for prompt in prompts]
    texts = replace(study.texts["val"], strings=prompts, sequences=[ids[-9:] for ids in whole])
    masks = replace(study, template=FEELING).find_text(texts)
    template = len(TOKENIZER.encode("\nThe feeling of this text is"))
    assert {len(mask) for mask in masks} == {9}
    assert {mask.tolist().count(True) for mask in masks} == {9 - template}
    assert not any(mask[-template:].any() for mask in masks)
    assert all(mask.all() for mask in study.find_text(study.texts["val"]))
