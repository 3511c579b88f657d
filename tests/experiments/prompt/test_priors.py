"""Label-prior corrections by hand: the same numbers as published formulas give, and what they must not see."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from experiments.prompt.priors import average_probabilities, average_texts, correct
from model import InputError

P = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.7, 0.1, 0.2]])
CONTENT_FREE = np.array([[0.5, 0.3, 0.2]])
SHIFT = np.array([4.0, -2.0, 7.0])


def test_contextual_calibration_of_a_toy():
    corrected = np.exp(correct(np.log(P), average_probabilities(np.log(CONTENT_FREE))))
    expected = [[0.444444, 0.370370, 0.185185], [0.352941, 0.470588, 0.176471], [0.512195, 0.121951, 0.365854]]
    np.testing.assert_allclose(corrected, expected, atol=1e-6)
    assert corrected.argmax(axis=1).tolist() == [0, 1, 0]


def test_batch_correction_of_a_toy_in_log_space():
    corrected = correct(np.log(P), average_texts(np.log(P)))
    assert corrected.argmax(axis=1).tolist() == [1, 1, 2]
    geometric = P.prod(axis=0) ** (1 / 3)
    np.testing.assert_allclose(np.exp(corrected), P / geometric / (P / geometric).sum(axis=1, keepdims=True))


def test_the_mean_of_several_inputs_is_of_their_probabilities():
    inputs = np.array([[0.02, 0.01, 0.01], [0.3, 0.1, 0.2]])  # much more of the second is on label words
    b = average_probabilities(np.log(inputs))
    np.testing.assert_allclose(np.exp(b), [0.5, 0.171875, 0.328125])


def test_a_text_that_is_the_input_without_content_is_even():
    np.testing.assert_allclose(np.exp(correct(np.log(P[:1]), average_probabilities(np.log(P[:1])))), 1 / 3, atol=1e-12)


def test_after_batch_correction_no_class_is_preferred_on_average():
    log_probs = np.log(P)
    np.testing.assert_allclose((log_probs - average_texts(log_probs)).mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(average_texts(log_probs), average_texts(log_probs[[2, 0, 1]]), rtol=1e-15)


def test_of_a_single_text_nothing_would_be_left():
    with pytest.raises(InputError, match="expected at least 2 texts, got 1"):
        average_texts(np.log(P[:1]))


@given(st.lists(st.floats(-20, 20), min_size=3, max_size=3), st.integers(0, 2**32 - 1))
def test_a_constant_of_the_label_words_is_invisible_to_each_correction_with_one_input_or_a_mean_of_logs(shift, seed):
    """T1: added to the logits of the label words; what the network says otherwise is the rest of the mass."""
    rng = np.random.default_rng(seed)
    logits, neutral = rng.normal(size=(7, 3)), rng.normal(size=(1, 3))

    def corrected(b_of, constant):
        moved = [log_softmax(np.c_[x + constant, np.zeros(len(x))], axis=1)[:, :3] for x in (logits, neutral)]
        return correct(moved[0], b_of(*moved))

    for b_of in (lambda texts, free: average_probabilities(free), lambda texts, free: average_texts(texts)):
        np.testing.assert_allclose(corrected(b_of, np.array(shift)), corrected(b_of, 0), atol=1e-9)


def test_direct_answers_and_several_inputs_do_see_it():
    """T1: the arithmetic mean over several inputs is as published, and is not invariant."""
    logits = np.log(P)
    assert (correct(logits + SHIFT, np.zeros(3)).argmax(1) != correct(logits, np.zeros(3)).argmax(1)).any()
    inputs = np.array([[5.0, 0.0, 1.0], [-3.0, 0.0, 0.5]])

    def b_of(constant):
        return average_probabilities(log_softmax(np.c_[inputs + constant, np.zeros(2)], axis=1)[:, :3]) - constant

    assert np.ptp(b_of(SHIFT) - b_of(0)) > 0.1


def test_the_shares_of_train_take_the_place_of_the_prior():
    b, shares = np.log([0.2, 0.3, 0.5]), np.array([0.7, 0.2, 0.1])
    corrected = np.exp(correct(np.log(P), b, shares))
    expected = P / [0.2, 0.3, 0.5] * shares
    np.testing.assert_allclose(corrected, expected / expected.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(correct(np.log(P), b, np.full(3, 1 / 3)), correct(np.log(P), b))
