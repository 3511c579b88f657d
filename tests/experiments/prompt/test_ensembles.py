"""An ensemble is the product of its members, each corrected by its own prior."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.prompt.ensembles import add_ensembles, average_answers
from experiments.prompt.priors import correct
from experiments.prompt.scoring import Answers

RNG = np.random.default_rng(0)


def answer(template="a", shots=0, draw="", order="", correction="batch", split="test", verbalizer="all words"):
    log_probs, b = -RNG.exponential(3, (7, 3)), -RNG.exponential(3, 3)
    return Answers(template, verbalizer, shots, draw, order, "joy", correction, split, log_probs, b)


def test_it_is_the_mean_of_the_corrected_log_probabilities():
    members = [answer("a"), answer("b"), answer("c")]
    [*same, ensemble] = add_ensembles(members)
    assert same == members
    assert (ensemble.template, ensemble.draw, ensemble.order, ensemble.last_class) == ("all", "", "", "")
    product = np.ones((7, 3))
    for each in members:
        p = np.exp(each.log_probs - each.b)
        product *= p / p.sum(axis=1, keepdims=True)
    product **= 1 / 3
    expected = product / product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(correct(ensemble.log_probs, ensemble.b)), expected, rtol=1e-10)


def test_an_ensemble_of_one_is_itself():
    for one in (answer(), answer(shots=4, draw="2", order="0")):
        ensemble = average_answers([one])
        np.testing.assert_array_equal(ensemble.log_probs, one.log_probs)
        np.testing.assert_array_equal(ensemble.b, one.b)
        assert add_ensembles([one]) == [one]  # it would say nothing new


def test_classes_in_another_order_are_predicted_in_that_order():
    members, order = [answer("a"), answer("b")], [2, 0, 1]
    permuted = [replace(each, log_probs=each.log_probs[:, order], b=each.b[order]) for each in members]
    one, other = average_answers(members), average_answers(permuted)
    np.testing.assert_allclose(correct(other.log_probs, other.b), correct(one.log_probs, one.b)[:, order])


def test_each_verbalizer_correction_and_split_has_its_own():
    kinds = [
        {"correction": correction, "split": split, "verbalizer": verbalizer}
        for correction in ("direct", "channel")
        for split in ("val", "test")
        for verbalizer in ("all words", "first word")
    ]
    answers = [answer(template, **kind) for template in "ab" for kind in kinds]
    ensembles = add_ensembles(answers)[len(answers) :]
    assert [{name: getattr(each, name) for name in kind} for each, kind in zip(ensembles, kinds, strict=True)] == kinds
    for each, one, other in zip(ensembles, answers[:8], answers[8:], strict=True):
        np.testing.assert_allclose(each.log_probs, (one.log_probs + other.log_probs) / 2)


def test_members_are_draws_and_neither_their_orders_nor_the_nearest_examples():
    draws = [answer(shots=2, draw=draw, order="0") for draw in ("0", "1", "2")]
    orders = [answer(shots=2, draw="orders", order=order) for order in ("0", "1", "2")]
    alone = [answer(shots=1, draw="0", order="0")]
    nearest = [answer(shots=2, draw="nearest", order=order) for order in ("near_to_far", "far_to_near")]
    others = [answer(shots=4, draw=draw, order="0") for draw in ("0", "1")]
    elsewhere = [answer("b", shots=2, draw=draw, order="0") for draw in ("0", "1")]
    answers = [*draws, *orders, *alone, *nearest, *others, *elsewhere]
    ensembles = add_ensembles(answers)[len(answers) :]
    assert [(each.template, each.shots, each.draw) for each in ensembles] == [
        ("a", 2, "all"),
        ("a", 4, "all"),
        ("b", 2, "all"),
    ]
    assert ensembles[0].b == pytest.approx(sum(each.b for each in draws) / 3)
