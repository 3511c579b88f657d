"""Differences between runs, against plain loops, numbers worked out by hand, and a simulation."""

import numpy as np
import pandas as pd
import pytest
from pictures_on_disk import assert_whole
from scipy.stats import t, ttest_1samp
from sklearn.metrics import accuracy_score, f1_score

from bench import gains
from bench.gains import Measured, compare, describe, differences, interval, judge, report, tidy

LABELS, N = ("a", "b", "c"), 211
TARGETS = np.random.default_rng(7).integers(0, 3, N)


def run_of(arm, seed, right, texts=97, corpus="words"):
    """A run that gets this share of the test texts right."""
    rng = np.random.default_rng((seed, *arm.encode()))
    predicted = np.where(rng.random(N) < right, TARGETS, (TARGETS + rng.integers(1, 3, N)) % 3)
    scores = {
        "accuracy": accuracy_score(TARGETS, predicted),
        "macro_f1": f1_score(TARGETS, predicted, average="macro"),
    }
    return Measured(corpus, texts, arm, 0.1, seed, {"val": scores, "test": scores}, LABELS, TARGETS, predicted)


def runs_of(seeds=3, **right):
    return [run_of(arm, seed, share) for arm, share in right.items() for seed in range(seeds)]


def test_the_interval_of_equal_texts_is_student_t_of_the_seeds():
    by_seed = np.array([0.03, 0.01, 0.02, 0.05])
    low, high, p = interval(by_seed, 0.0, 100)
    reach = t.ppf(0.975, 3) * by_seed.std(ddof=1) / 2
    assert (low, high) == pytest.approx((0.0275 - reach, 0.0275 + reach))
    assert p == pytest.approx(ttest_1samp(by_seed, 0).pvalue)


def test_the_interval_of_equal_seeds_is_that_of_the_texts():
    low, high, p = interval(np.array([0.02, 0.02]), 0.0001, 1000)
    assert (low, high) == pytest.approx((0.02 - 0.01962, 0.02 + 0.01962), abs=1e-5)  # t of 999 degrees of freedom
    assert p == pytest.approx(0.0458, abs=1e-4)


def test_both_spreads_add_up():
    """0.01 of texts and 0.02 of seeds, as standard errors; freedom (1 + 4)^2 / (1 / 50 + 16 / 2) = 3.117."""
    by_seed = 0.02 * np.sqrt(3) * np.array([-1, 0, 1])  # variance 0.0012, over 3
    low, high, p = interval(by_seed, 0.0001, 51)
    assert high == -low == pytest.approx(t.ppf(0.975, 25 / (1 / 50 + 8)) * np.sqrt(0.0005))
    assert p == pytest.approx(1)


def test_one_seed_is_not_judged_and_no_change_is_none():
    assert np.isnan(interval(np.array([0.1]), 0.01, 10)).all()
    assert interval(np.zeros(3), 0.0, 10) == (0, 0, 1)
    assert judge(0.1, np.nan) == "not judged: one seed"
    assert [judge(0.1, 0.05), judge(0.1, 0.049), judge(-0.1, 0.049)] == [
        "no clear difference",
        "clear gain",
        "clear loss",
    ]


def test_the_interval_holds_the_truth_in_most_worlds():
    """Texts and seeds are drawn anew in each world: the differences of 3 seeds share what the texts add."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(2000):
        by_seed = 0.01 + 0.01 * rng.normal() + 0.02 * rng.normal(size=3)
        low, high, _ = interval(by_seed, 0.0001, 500)
        held += low < 0.01 < high
    assert 0.93 < held / 2000 < 0.99


def test_the_rows_are_paired_by_seed_and_text():
    arm, none = runs_of(head=0.7), runs_of(none=0.6)
    rows = {row["metric"]: row for row in compare(arm, none)}
    rng, draws = np.random.default_rng(3), {"accuracy": [], "macro_f1": []}
    for _ in range(200):
        chosen = rng.integers(0, N, N)
        for metric, values in draws.items():
            score = accuracy_score if metric == "accuracy" else lambda a, b: f1_score(a, b, average="macro")
            pairs = zip(arm, none, strict=True)
            each = [
                score(TARGETS[chosen], a.predicted[chosen]) - score(TARGETS[chosen], b.predicted[chosen])
                for a, b in pairs
            ]
            values.append(np.mean(each))
    for metric, row in rows.items():
        by_seed = [a.metrics["test"][metric] - b.metrics["test"][metric] for a, b in zip(arm, none, strict=True)]
        assert row["by_seed"] == " ".join(f"{each:+.4f}" for each in by_seed)
        assert row["difference"] == pytest.approx(np.mean(by_seed)) == pytest.approx(row["value"] - row["none"])
        low, high, p = interval(np.array(by_seed), np.var(draws[metric], ddof=1), N)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high), abs=0.01)
        assert row["p"] == pytest.approx(p, abs=0.03)
        assert (row["n"], row["seeds"]) == (N, 3)


def test_a_large_gain_is_clear_and_no_gain_is_an_answer():
    frame = differences(runs_of(4, none=0.5, head=0.9, **{"tlm-both": 0.5, "attention": 0.1}))
    verdicts = frame[frame["metric"] == gains.JUDGED].set_index("arm")["verdict"].to_dict()
    assert verdicts == {"head": "clear gain", "tlm-both": "no clear difference", "attention": "clear loss"}
    assert (frame["p_holm"] >= frame["p"]).all()
    said = describe(frame[frame["metric"] == "macro_f1"])
    assert said == "A clear gain: head on 97 texts of words. A clear loss: attention on 97 texts of words."
    page = report(differences(runs_of(none=0.5, head=0.5)), "a command")
    assert "No arm has a clear gain. No arm has a clear loss." in page
    assert "| words | 97 | head | 10.0% |" in page
    assert "nothing is judged" in report(differences(runs_of(1, none=0.5, head=0.9)), "a command")


def test_each_corpus_and_number_of_texts_has_its_own_reference():
    measured = [
        run_of(arm, seed, right, texts, corpus)
        for corpus, texts, right in (("words", 97, 0.9), ("words", 50, 0.6), ("films", 97, 0.4))
        for arm in ("none", "head")
        for seed in range(2)
    ]
    frame = differences(measured)
    assert frame[["corpus", "texts"]].drop_duplicates().to_numpy().tolist() == [
        ["words", 97],
        ["words", 50],
        ["films", 97],
    ]
    assert frame[frame["metric"] == "accuracy"]["none"].tolist() == pytest.approx([0.9, 0.6, 0.4], abs=0.1)
    table = tidy(measured)
    assert len(table) == 12
    assert list(table.columns[-4:]) == ["val_accuracy", "val_macro_f1", "test_accuracy", "test_macro_f1"]


def test_the_picture_is_whole(tmp_path):
    def draw(folder, seed):
        others = {"attention": 0.5, "tlm-self": 0.4, "tlm-both": 0.7, "tlm-both-spare-first": 0.5 + 0.1 * seed}
        frame = differences(runs_of(none=0.5, head=0.6, **others))
        gains.draw(frame, "gpt2-mini", folder / "differences.png")

    assert_whole(draw, tmp_path)


def test_a_single_seed_is_drawn_without_interval(tmp_path):
    gains.draw(differences(runs_of(1, none=0.5, head=0.6)), "gpt2-mini", tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_the_table_survives_the_disk(tmp_path):
    frame = differences(runs_of(none=0.5, head=0.6))
    frame.to_csv(tmp_path / "d.csv", index=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "d.csv"), frame, check_dtype=False)
