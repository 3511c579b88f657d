"""What was put into simulated raters is found, and where nothing was put in nothing is."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.rate.answers import open_session, read_raters, read_session, record
from experiments.rate.items import make_items
from experiments.rate.report import report
from experiments.rate.simulate import simulate_raters
from experiments.rate.tables import COLUMNS, tabulate_agreement


@pytest.fixture
def ask(tmp_path, items):
    """The table of n simulated raters."""

    def measure(n: int, accuracy: float, gain: float = 0.0) -> pd.DataFrame:
        simulate_raters(tmp_path, items, n, accuracy, gain)
        return tabulate_agreement([read_session(tmp_path / f"{name}.jsonl") for name in read_raters(tmp_path)])

    return measure


def pick(table, task, measure, label="all", method=None):
    rows = table[(table["task"] == task) & (table["measure"] == measure) & (table["class"] == label)]
    rows = rows if method is None else rows[rows["method"] == method]
    assert len(rows) == 1
    return rows.iloc[0]


def test_known_accuracy_and_alpha_are_within_the_limits(ask):
    table = ask(8, 0.7)
    assert list(table) == COLUMNS
    # Classes are equally frequent, and so are answers: agreement by chance is 1/3.
    agree = 0.7**2 + 0.3**2 / 2
    for task in ("before", "after"):
        accuracy, alpha = pick(table, task, "accuracy"), pick(table, task, "alpha_nominal")
        equal, kappa = pick(table, task, "percent_agreement"), pick(table, task, "kappa")
        assert accuracy.ci_low <= 0.7 <= accuracy.ci_high
        assert alpha.ci_low <= (agree - 1 / 3) / (1 - 1 / 3) <= alpha.ci_high
        assert equal.ci_low <= agree <= equal.ci_high
        assert kappa.value == pytest.approx(alpha.value, abs=0.1)
        assert (accuracy.raters, accuracy["items"], accuracy.answers) == (8, 32, 128)
        for label in ("joy", "nan", "1"):
            assert 0.4 <= pick(table, task, "accuracy", label).value <= 1


def test_a_planted_effect_is_found_and_none_is_found_where_there_is_none(ask):
    planted = pick(ask(8, 0.6, gain=0.35), "after", "effect")
    assert planted.ci_low > 0
    assert planted.ci_low <= 0.35 <= planted.ci_high
    assert planted.value == pytest.approx(0.35, abs=0.12)
    harmful = pick(ask(8, 0.9, gain=-0.4), "after", "effect")
    assert harmful.ci_high < 0
    nothing = pick(ask(8, 0.7), "after", "effect")
    assert nothing.ci_low <= 0 <= nothing.ci_high


def test_the_effect_is_the_mean_over_pairs_by_hand(tmp_path, items):
    """One rater: right before on the first 4 of the pairs, right after on the first 12."""
    session = open_session(tmp_path, "ann", items)
    first, second = ([*half] for half in zip(*items.pairs, strict=True))
    right = {*first[:4], *second[:12]}
    for step in session.steps[:64]:
        predicted = items.texts[step.text].predicted
        wrong = next(label for label in items.labels if label != predicted)
        answer = predicted if step.text in right else wrong
        record(session, step, "read" if step.part in ("examples", "explained") else answer, 1)
    table = tabulate_agreement([read_session(session.path)])
    assert pick(table, "before", "accuracy").value == 4 / 16
    assert pick(table, "after", "accuracy").value == 12 / 16
    assert pick(table, "after", "effect").value == 8 / 16
    alpha = pick(table, "after", "alpha_nominal")
    assert np.isnan(alpha.value)
    assert "two raters" in alpha.note
    assert "choices" not in set(table["task"])
    page = report(["run: one"], table, simulated=False)
    assert "These raters surely predict the network better after reading them" in page
    assert "Nobody has compared explanations." in page
    assert "Nobody has marked words." in page
    assert "Simulated" not in page


def predict(session, n, right):
    """Answer the first n items; of the predictions before and after, the first ones are right, as many as this says."""
    count = {"before": 0, "after": 0}
    for step in session.steps[:n]:
        if step.part not in count:
            record(session, step, "read", 1)
            continue
        count[step.part] += 1
        predicted = session.items.texts[step.text].predicted
        wrong = next(label for label in session.items.labels if label != predicted)
        record(session, step, predicted if count[step.part] <= right else wrong, 1)


def test_a_pair_of_two_classes_is_no_part_of_the_effect_of_either(tmp_path, items):
    """One rater: wrong before on the text of the first pair alone."""
    of_class = {items.texts[pair[0]].predicted: pair for pair in items.pairs}
    first, second = of_class["joy"], of_class["nan"]
    rest = [pair for pair in items.pairs if pair not in (first, second)]
    session = open_session(tmp_path, "ann", replace(items, pairs=[[first[0], second[0]], *rest]))
    for step in session.steps[: 16 + 15 + 16 + 15]:
        predicted = items.texts[step.text].predicted
        answer = "joy" if predicted != "joy" else "nan"
        answer = answer if step.text == first[0] else predicted
        record(session, step, "read" if step.part in ("examples", "explained") else answer, 1)
    table = tabulate_agreement([read_session(session.path)])
    assert pick(table, "after", "effect").value == pytest.approx(1 / 15)
    for label in items.labels:
        effect = pick(table, "after", "effect", label)
        assert effect.value == 0
        assert effect.answers == sum(items.texts[pair[0]].predicted == label for pair in rest)


def test_who_stopped_before_the_explanations_is_no_part_of_the_effect(tmp_path, items):
    predict(open_session(tmp_path, "ann", items), 64, right=12)
    for name in ("bob", "cem"):
        predict(open_session(tmp_path, name, items), 32, right=2)
    table = tabulate_agreement([read_session(tmp_path / f"{name}.jsonl") for name in ("ann", "bob", "cem")])
    assert pick(table, "before", "accuracy").value == pytest.approx(16 / 48)
    assert pick(table, "before", "paired_accuracy").value == 12 / 16
    assert pick(table, "before", "paired_accuracy").raters == 1
    assert pick(table, "after", "paired_accuracy").value == 12 / 16
    assert pick(table, "after", "effect").value == 0
    assert "**Predicting the network.** 0.75" in report([], table, simulated=False)


def test_a_method_that_is_compared_with_two_others_has_rows_of_both(tmp_path, explained, items):
    others = make_items(explained, "one", items.method, "attention", 0)
    for name, each, side in (("ann", items, items.method), ("bob", others, "attention")):
        session = open_session(tmp_path, name, each)
        for step in session.steps[:86]:
            label = each.texts[step.text].predicted
            answer = ("left" if step.left == side else "right") if step.part == "choices" else label
            record(session, step, "read" if "ex" in step.part else answer, 1)
    table = tabulate_agreement([read_session(tmp_path / f"{name}.jsonl") for name in ("ann", "bob")])
    assert not table.duplicated(["task", "measure", "class", "method"]).any()
    page = report([], table, simulated=False)
    for against, value in (("random", 1), ("attention", 0)):
        method = f"integrated_gradients against {against}"
        assert pick(table, "choices", "preferred", method=method).value == value
        assert f"**Choosing.** `{method}`: the first was chosen in {value}" in page
        assert f"| choices, `{method}` | undefined" in page


def test_choices_are_counted_once_and_repeats_are_self_agreement(tmp_path, items):
    """The method is chosen first; of the two that come again, one is then chosen the other way."""
    session, again = open_session(tmp_path, "ann", items), 0
    seen = set()
    for step in session.steps[:86]:
        if step.part != "choices":
            text = items.texts[step.text]
            record(session, step, "read" if "ex" in step.part else text.predicted, 1)
            continue
        again += step.text in seen
        changed = step.text in seen and again == 2
        seen.add(step.text)
        record(session, step, "left" if (step.left == items.method) != changed else "right", 1)
    table = tabulate_agreement([read_session(session.path)])
    preferred = pick(table, "choices", "preferred")
    assert (preferred.value, preferred.answers, preferred.method) == (1, 20, f"{items.method} against random")
    assert preferred.ci_low == pytest.approx(0.025 ** (1 / 20))
    same = pick(table, "choices", "self_agreement")
    assert (same.value, same.answers) == (0.5, 2)
    assert "194 for a share of 0.60" in pick(table, "choices", "detectable_share").note


@pytest.mark.slow
def test_choices_for_a_method_are_found_and_none_where_raters_toss_a_coin(ask):
    assert pick(ask(8, 0.8), "choices", "preferred").ci_low > 0.5
    coin = pick(ask(8, 0.5), "choices", "preferred")
    assert coin.ci_low <= 0.5 <= coin.ci_high
    assert coin.answers == 160


@pytest.mark.slow
def test_marks_tell_the_method_that_raters_follow_from_another_one(ask):
    table = ask(8, 0.9)
    follows = pick(table, "marks", "token_f1_minus_random", method="integrated_gradients")
    other = pick(table, "marks", "token_f1_minus_random", method="attention")
    assert follows.ci_low > 0.2
    assert other.ci_low <= 0 <= other.ci_high
    assert pick(table, "marks", "token_f1", method="integrated_gradients").value == pytest.approx(0.9, abs=0.08)
    assert pick(table, "marks", "token_f1", method="random").value == pytest.approx(3 / 7, abs=0.02)
    assert pick(table, "marks", "alpha_nominal").value > 0.5
    assert pick(ask(8, 0.0), "marks", "token_f1", method="integrated_gradients").value < 0.2


def test_people_and_other_items_do_not_meet(tmp_path, explained, items):
    others = make_items(explained, "one", "attention", "random", 1)
    for name, each in (("ann", items), ("bob", others)):
        session = open_session(tmp_path, name, each)
        for step in session.steps[:32]:
            record(session, step, "read" if step.part == "examples" else "joy", 1)
    table = tabulate_agreement([read_session(tmp_path / f"{name}.jsonl") for name in ("ann", "bob")])
    assert pick(table, "before", "accuracy")["items"] == 32
    assert "two raters" in pick(table, "before", "alpha_nominal").note


def test_the_report_says_what_the_table_says(ask):
    page = report(["run: one"], ask(8, 0.7, gain=0.25), simulated=True)
    assert "**Simulated raters: no person answered." in page
    assert "These raters surely predict the network better" in page
    assert "plausibility, not faithfulness" in page
    page = report([], ask(8, 0.5), simulated=True)
    assert "That they help, or harm, is not shown" in page
    assert "That is not surely other than half" in page
