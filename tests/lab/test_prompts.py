"""Prompts: with and without examples, and the ids of prompt and label word side by side."""

import numpy as np
import pytest
from planted_lm import LABELS, TOKENIZER, write_texts

from data.prompts import Template, read_templates
from lab.label_words import choose_words
from lab.prompts import Demonstration, encode_prompts, write_prompt
from model import InputError

WORDS = choose_words(LABELS, ("fear=afraid,in fear of it all",), TOKENIZER)
TEMPLATE = Template("t", "Text: {text}\nMood:", "Mood:")
EXAMPLES = (Demonstration(3, "what a day", 0), Demonstration(8, "who is there?", 2))
ODD = ["", " ", "i'm", "a\n", " b", "c  ", "🦜", "x{text}", "é\u0301", "<|endoftext|>", "7", "..."]


def test_examples_come_in_the_template_of_the_text():
    expected = "Text: what a day\nMood: happy\n\nText: who is there?\nMood: afraid\n\nText: gone\nMood:"
    assert write_prompt(TEMPLATE, "gone", EXAMPLES, WORDS) == expected


def test_without_examples_it_is_the_template():
    for template in read_templates():
        assert write_prompt(template, "gone", (), WORDS) == template.fill("gone")


@pytest.mark.parametrize("template", read_templates(), ids=lambda template: template.name)
def test_the_ids_of_prompt_and_word_are_those_of_both_side_by_side(template):
    texts = write_texts("train", 1000 - len(ODD)).strings + ODD
    prompts = [write_prompt(template, text, EXAMPLES[: len(text) % 3], WORDS) for text in texts]
    sequences = encode_prompts(prompts, WORDS, TOKENIZER, 1024)
    for prompt, ids in zip(prompts, sequences, strict=True):
        assert ids == TOKENIZER.encode(prompt)
        for words in WORDS.words:
            for word in words:
                assert TOKENIZER.encode(f"{prompt} {word}") == ids + TOKENIZER.encode(f" {word}")


def test_a_prompt_that_would_take_the_word_in_is_refused():
    """GPT-2's own BPE never joins a word to what stands before its space; another vocabulary may."""

    class Joining:
        def encode(self, text: str) -> list[int]:
            return TOKENIZER.encode(text.replace("feel happy", "feelhappy"))

    assert encode_prompts(["then I cry"], WORDS, Joining(), 1024) == [TOKENIZER.encode("then I cry")]  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the label word 'happy' joins the end of 'then I feel'"):
        encode_prompts(["then I feel"], WORDS, Joining(), 1024)  # type: ignore[arg-type]


def test_what_does_not_fit_with_the_longest_word_is_refused():
    longest = max(map(len, WORDS.flat))
    assert longest > 1
    prompt = "a" + " day" * 19  # 20 tokens
    assert len(encode_prompts([prompt], WORDS, TOKENIZER, 20 + longest - 1)[0]) == 20
    with pytest.raises(InputError, match=r"a prompt has 20 tokens, and 19 fit .*; take fewer --shots"):
        encode_prompts([prompt], WORDS, TOKENIZER, 20 + longest - 2)


def test_every_template_of_ours_takes_every_text_of_the_sample():
    from data import read_corpus

    texts = read_corpus("sample").examples["text"].sample(100, random_state=np.random.RandomState(0))
    for template in read_templates():
        assert len(encode_prompts([template.fill(text) for text in texts], WORDS, TOKENIZER, 1024)) == 100
