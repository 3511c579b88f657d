"""Label words: which are chosen and refused, and what a language model says of them, against `transformers`."""

import numpy as np
import pytest
import torch
from planted_lm import TOKENIZER

from lab.device import Device
from lab.label_words import LabelWords, choose_words, read_with_words, score_words
from model import InputError

CPU = Device(torch.device("cpu"), "fp32")
EMOTIONS = ("sadness", "joy", "love", "anger", "fear", "surprise")
SHORT = LabelWords(("x", "y"), (("p", "q"), ("r", "s", "t")), (((5,), (17,)), ((3,), (99,), (42,))))
LONG = LabelWords(("x", "y"), (("p", "q"), ("r", "s")), (((5, 6, 7), (17,)), ((5, 8), (3,))))  # two begin alike


def score_with_transformers(reference, ids: list[int], words: LabelWords) -> list[float]:
    """Return the log-probability of each word: one forward pass for each, over the prompt and the word."""
    sums = []
    for word in words.flat:
        with torch.no_grad():
            log_probs = reference.hf(torch.tensor([[*ids, *word]])).logits[0].log_softmax(dim=-1)
        sums.append(sum(log_probs[len(ids) - 1 + n, token].item() for n, token in enumerate(word)))
    return sums


@pytest.mark.parametrize("words", [SHORT, LONG], ids=["of one token", "of several tokens"])
def test_words_are_scored_as_by_transformers(lm_reference, words):
    sequences = [[4, 9, 31, 7], [4, 9, 2], [4, 9, 31, 8, 8, 8]]
    done: list[int] = []
    ours = score_words(lm_reference.ours, sequences, words, CPU, done.append)
    expected = [score_with_transformers(lm_reference, ids, words) for ids in sequences]
    np.testing.assert_allclose(ours, expected, atol=2e-5)
    assert sum(done) == 3 * len(words.beginnings)


def test_a_word_of_two_tokens_is_the_product_of_two_forward_passes(lm):
    """By hand, on a language of five words."""
    lm.trunk.wte.weight.data[5:] = 0
    words = LabelWords(("x", "y"), (("p",), ("q",)), (((1, 2),), ((3,),)))
    table = [lm(torch.tensor([ids]))[0, -1].double().exp() for ids in ([4, 0], [4, 0, 1])]
    first, second = (row / row.sum() for row in table)
    expected = [np.log((first[1] * second[2]).item()), np.log(first[3].item())]
    np.testing.assert_allclose(score_words(lm, [[4, 0]], words, CPU)[0], expected, atol=1e-5)


def test_a_class_is_as_probable_as_its_words_together():
    log_probs = np.log([[0.1, 0.2, 0.05, 0.15, 0.3]])
    np.testing.assert_allclose(np.exp(SHORT.read_classes(log_probs, "all words")), [[0.3, 0.5]])
    np.testing.assert_allclose(np.exp(SHORT.read_classes(log_probs, "first word")), [[0.1, 0.05]])
    assert SHORT.verbalizers == ("all words", "first word")
    assert SHORT.first().verbalizers == ("first word",)


@pytest.mark.parametrize("words", [SHORT, SHORT.first()], ids=["several words", "one word"])
def test_a_classifier_reads_the_words_of_its_language_model(lm_reference, words):
    lm, sequences = lm_reference.ours, [[4, 9, 31, 7], [4, 9, 2, 5]]
    clf = read_with_words(lm, words)
    assert clf.trunk is lm.trunk
    assert clf.labels == ("x", "y")
    ours = clf(torch.tensor(sequences)).log_softmax(dim=-1)
    scores = words.read_classes(score_words(lm, sequences, words, CPU), "all words")
    expected = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    np.testing.assert_allclose(ours.detach(), expected, atol=1e-5)
    assert all(not parameter.requires_grad for parameter in clf.score.parameters())


def test_with_one_word_each_the_head_is_linear(lm):
    clf = read_with_words(lm, SHORT.first())
    assert torch.equal(clf.score.weight, lm.trunk.wte.weight[[5, 3]])
    assert torch.nn.Linear is type(clf.score)
    clf.score.weight.data.zero_()
    assert lm.trunk.wte.weight[5].abs().sum() > 0, "the head is a copy"


def test_words_of_several_tokens_are_no_head(lm):
    with pytest.raises(InputError, match="label words 'p', 'r': expected one token each; "):
        read_with_words(lm, LONG)


def test_ours_come_first_then_the_label_itself_and_those_given_before_all():
    words = choose_words((*EMOTIONS, "customer service"), ("love=loving,dear",), TOKENIZER)
    assert words.words[0][:2] == ("sad", "unhappy")
    assert words.words[2] == ("loving", "dear")
    assert words.words[6] == ("customer service",)
    assert words.find_long() == ["customer service"]
    line = words.describe(TOKENIZER)
    assert "\n" not in line
    assert "customer service: customer| service" in line
    assert "1 of several tokens" in line
    assert "several" not in choose_words(EMOTIONS, (), TOKENIZER).describe(TOKENIZER)
    assert words.ids[2] == tuple(tuple(TOKENIZER.encode(f" {word}")) for word in ("loving", "dear"))


def test_the_case_of_a_label_does_not_matter_to_ours():
    assert choose_words(("Joy", "SADNESS"), (), TOKENIZER).words[1][0] == "sad"


def test_a_label_may_hold_an_equals_sign_and_is_named_once():
    words = choose_words(("a", "a=b"), ("a=b=glad", "a=sad"), TOKENIZER)
    assert words.words == (("sad",), ("glad",))
    with pytest.raises(InputError, match="--words a=mad: expected each class once; give its words as a=word,word"):
        choose_words(("a", "b"), ("a=glad", "a=mad"), TOKENIZER)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("joy", "--words joy: expected label=word"),
        ("joy=", "--words joy=: expected label=word"),
        ("joy=glad,", "expected label=word"),
        ("hope=glad", "with a class of sadness, joy"),
        ("joy=sad", "label words 'sad' and 'sad': the second begins with the first"),
        ("joy=glad,glad", "'glad' and 'glad'"),
        ("joy=sad and more", "'sad' and 'sad and more'"),
    ],
)
def test_words_that_cannot_be_told_apart_are_refused(given, message):
    with pytest.raises(InputError) as refused:
        choose_words(EMOTIONS, (given,), TOKENIZER)
    assert message in str(refused.value)
