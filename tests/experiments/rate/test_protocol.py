from collections import Counter

from experiments.rate.protocol import plan_steps


def steps_of(plan, part):
    return [step for step in plan if step.part == part]


def test_the_parts_come_in_order_with_all_their_texts(items):
    plan = plan_steps(items, 5, swapped=False)
    parts = list(dict.fromkeys(step.part for step in plan))
    assert parts == ["examples", "before", "explained", "after", "choices", "marks"]
    assert len({step.name for step in plan}) == len(plan) == 4 * 16 + 22 + 10
    first, second = ([*half] for half in zip(*items.pairs, strict=True))
    texts = {part: [step.text for step in steps_of(plan, part)] for part in parts}
    assert texts["examples"] == texts["explained"] == items.examples
    assert sorted(texts["before"]) == sorted(first)
    assert sorted(texts["after"]) == sorted(second)
    assert sorted(texts["marks"]) == sorted(items.marked)
    swapped = plan_steps(items, 5, swapped=True)
    assert sorted(step.text for step in steps_of(swapped, "before")) == sorted(second)
    assert sorted(step.text for step in steps_of(swapped, "after")) == sorted(first)


def test_one_in_ten_choices_comes_twice_and_sides_are_random(items):
    choices = steps_of(plan_steps(items, 5, swapped=False), "choices")
    counts = Counter(step.text for step in choices)
    assert sorted(counts) == sorted(items.choices)
    assert Counter(counts.values()) == {1: 18, 2: 2}
    assert all({step.left, step.right} == {"integrated_gradients", "random"} for step in choices)
    lefts = [
        step.left == "random" for seed in range(20) for step in steps_of(plan_steps(items, seed, False), "choices")
    ]
    assert 0.4 < sum(lefts) / len(lefts) < 0.6  # 440 sides, standard error 0.024


def test_methods_are_shown_in_the_parts_that_explain_and_in_no_other(items):
    for step in plan_steps(items, 5, swapped=False):
        shown = {"explained": 1, "choices": 2}.get(step.part, 0)
        assert bool(step.left) + bool(step.right) == shown
        if step.part == "explained":
            assert step.left == "integrated_gradients"


def test_each_rater_has_an_order_of_its_own(items):
    plans = [plan_steps(items, seed, swapped=False) for seed in (5, 6)]
    for part in ("before", "after", "choices", "marks"):
        first, second = ([step.text for step in steps_of(plan, part)] for plan in plans)
        assert first != second


def test_a_seed_gives_the_same_order_and_another_one_another(items):
    assert plan_steps(items, 5, False) == plan_steps(items, 5, False)
    assert plan_steps(items, 5, False) != plan_steps(items, 6, False)
