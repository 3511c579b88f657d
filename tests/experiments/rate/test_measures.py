"""Agreement against Krippendorff's worked examples and nltk, the rest against numbers by hand and other libraries."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from nltk.metrics.agreement import AnnotationTask
from scipy.stats import binom, binomtest
from sklearn.metrics import average_precision_score, cohen_kappa_score

from experiments.rate.measures import (
    MISSING,
    average,
    average_together,
    compare_marks,
    count_needed,
    count_pairs,
    expect_random,
    find_detectable,
    measure_agreement,
    measure_alpha,
    measure_kappa,
    measure_share,
)


def read(*raters: str, first: int = 1) -> np.ndarray:
    """Answers as a worked example prints them: a row of digits per rater, a point where there is none."""
    return np.array([[MISSING if c == "." else int(c) - first for c in rater] for rater in raters]).T


BINARY = read("0100000010", "1110010000", first=0)
TWO = read("112243335441", "212223335444")
FOUR = read("123321412...", "1233224125.3", ".333234225 1.".replace(" ", ""), "1233244125 1.".replace(" ", ""))


def alpha_of(answers, K, ordinal=False):
    return float(measure_alpha(count_pairs(answers, K).sum(axis=0), ordinal))


def test_alpha_is_that_of_the_worked_examples():
    assert alpha_of(BINARY, 2) == pytest.approx(0.0952, abs=5e-5)
    assert alpha_of(TWO, 5) == pytest.approx(0.6920, abs=5e-5)
    assert alpha_of(FOUR, 5) == pytest.approx(float(Fraction(904, 1216)))
    assert alpha_of(FOUR, 5, ordinal=True) == pytest.approx(0.8154, abs=5e-5)


def test_alpha_is_that_of_nltk():
    rng = np.random.default_rng(0)
    for _ in range(20):
        answers = rng.integers(0, 4, (11, 3))
        answers[rng.random(answers.shape) < 0.2] = MISSING
        answers[(answers != MISSING).sum(axis=1) < 2] = 0  # nltk counts items that one rater answered
        triples = [(str(r), str(i), int(v)) for (i, r), v in np.ndenumerate(answers) if v != MISSING]
        assert alpha_of(answers, 4) == pytest.approx(AnnotationTask(triples).alpha())


def test_one_deviating_answer_is_0_and_none_is_undefined_and_says_why():
    same = np.zeros((12, 3), dtype=int)
    alpha, agree = measure_agreement(count_pairs(same, 2))
    assert np.isnan(alpha.value)
    assert alpha.note == "undefined: all answers are equal"
    assert agree.value == 1
    same[4, 1] = 1
    assert alpha_of(same[:, :2], 2) == pytest.approx(0, abs=1e-12)
    for value in measure_agreement(count_pairs(same[:, :1], 2)):
        assert np.isnan(value.value)
        assert value.note == "undefined: no item has answers of two raters"


def test_equal_pairs_by_hand():
    answers = np.array([[0, 0, 1], [1, 1, MISSING], [2, MISSING, MISSING], [0, 1, MISSING]])
    # Krippendorff's weights: 3 answers of which 1 of 3 pairs agree, 2 that agree, 2 that do not.
    _, agree = measure_agreement(count_pairs(answers, 3))
    assert agree.value == pytest.approx((3 * 1 / 3 + 2) / 7)


@pytest.mark.slow
def test_limits_hold_the_true_value_as_often_as_they_say():
    rng, inside = np.random.default_rng(0), []
    for _ in range(200):
        truth = rng.integers(0, 3, 60)
        answers = np.where(rng.random((60, 4)) < 0.7, truth[:, None], rng.integers(0, 3, (60, 4)))
        alpha, _ = measure_agreement(count_pairs(answers, 3))
        inside.append(alpha.low <= 0.7**2 <= alpha.high)  # both copy the truth, else chance
    assert 0.89 <= np.mean(inside) <= 0.99


def test_kappa_is_the_mean_over_pairs():
    expected = [cohen_kappa_score(TWO[:, 0], TWO[:, 1])]
    value = measure_kappa(TWO)
    assert value.value == pytest.approx(expected[0])
    assert value.note.startswith("1 pairs")
    pairs = [
        cohen_kappa_score(*(FOUR[(FOUR[:, i] != MISSING) & (FOUR[:, j] != MISSING)][:, [i, j]].T))
        for i, j in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    ]
    assert measure_kappa(FOUR).value == pytest.approx(np.mean(pairs))
    assert np.isnan(measure_kappa(TWO[:, :1]).value)
    assert np.isnan(measure_kappa(np.full((5, 3), MISSING)).value)
    assert "undefined" in measure_kappa(np.zeros((5, 2), dtype=int)).note


def test_power_is_that_of_the_formula_and_of_exact_counts():
    assert [np.ceil(count_needed(share)) for share in (0.6, 0.65, 0.7)] == [194, 85, 47]
    assert [find_detectable(n) for n in range(6)] == [1] * 6  # even 5 of 5 have p = 0.06
    for n in (6, 8, 10, 47, 85, 194):
        significant = [k for k in range(n + 1) if 2 * k > n and binomtest(k, n).pvalue <= 0.05]
        power = sum(binom.pmf(k, n, find_detectable(n)) for k in significant)
        assert power == pytest.approx(0.8)
    assert find_detectable(1000) == pytest.approx(0.544, abs=0.002)
    critical = next(k for k in range(194) if 2 * binom.sf(k - 1, 194, 0.5) <= 0.05)
    assert binom.sf(critical - 1, 194, 0.6) == pytest.approx(0.8, abs=0.05)


def test_a_share_has_exact_limits():
    value = measure_share(np.zeros((10, 1)))
    assert (value.value, value.low) == (0, 0)
    assert value.high == pytest.approx(1 - 0.025 ** (1 / 10))
    for empty in (np.empty((0, 0)), np.full((2, 3), np.nan)):
        assert measure_share(empty).note == "no answers"


def test_choices_of_one_text_are_not_independent():
    """Where the text decides, 8 raters say no more than one does."""
    chosen = np.repeat(np.arange(20) < 14, 8).reshape(20, 8).astype(float)
    each_of_another_text = chosen.reshape(160, 1)
    assert measure_share(each_of_another_text).low > 0.6
    value = measure_share(chosen)
    assert value.value == 0.7
    assert value.low <= 0.5
    assert measure_share(np.ones((20, 2))).low == pytest.approx(0.025 ** (1 / 40))  # not 1, as resamples say
    assert np.isnan(measure_share(np.ones((9, 2))).low)


def test_means_by_hand():
    values = np.array([[1, np.nan], [0, 1], [np.nan, np.nan], [1, 1]] * 5, dtype=float)
    value = average(values)
    assert value.value == pytest.approx(4 / 5)  # an item counts as often as it was answered
    assert value.low < 4 / 5 < value.high
    assert "no limits" in average(values[:8]).note
    assert average(values[2:3]).note == "no answers"


def test_means_together_are_paired_and_wider_than_alone():
    rng = np.random.default_rng(0)
    first = rng.normal(1, 1, 30)
    second = np.where(np.arange(30) < 9, first, np.nan)
    alone, [whole, few] = average_together([first])[0], average_together([first, second])
    assert whole.value == pytest.approx(first.mean())
    assert few.value == pytest.approx(first[:9].mean())
    assert np.isnan(few.low)
    assert (alone.low, alone.high) == (whole.low, whole.high)  # few ones are no member of the family
    many = average_together([rng.normal(1, 1, 30) for _ in range(10)] + [first])[-1]
    assert many.high - many.low > alone.high - alone.low


def test_marks_by_hand():
    marked = np.array([True, False, True, False, False])
    scores = compare_marks(np.array([5.0, 4.0, 3.0, 2.0, 1.0]), marked)
    assert scores == pytest.approx({"token_f1": 1 / 2, "iou": 0.0, "auprc": (1 + 2 / 3) / 2})  # IOU 1 / 3
    scores = compare_marks(np.array([5.0, 1.0, 4.0, 2.0, 3.0]), marked)
    assert scores == pytest.approx({"token_f1": 1, "iou": 1.0, "auprc": 1})
    two_of_three = compare_marks(np.array([5.0, 4.0, 3.0, 2.0]), np.array([True, True, False, True]))
    assert (two_of_three["token_f1"], two_of_three["iou"]) == (pytest.approx(2 / 3), 1.0)  # IOU 2 / 4
    tied = compare_marks(np.zeros(4), np.array([True, False, False, False]))
    assert tied["token_f1"] == 1  # ties in order


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 1), (5, 2), (5, 3), (5, 5)])
def test_random_values_give_the_mean_over_all_orders(n, k):
    marked = np.arange(n) < k
    orders = [compare_marks(np.array(order, dtype=float), marked) for order in permutations(range(n))]
    expected = {name: np.mean([scores[name] for scores in orders]) for name in orders[0]}
    assert expect_random(n, k) == pytest.approx(expected)
    assert expected["auprc"] == pytest.approx(
        np.mean([average_precision_score(marked, order) for order in permutations(range(n))])
    )
