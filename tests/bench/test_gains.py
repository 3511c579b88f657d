"""Differences between runs, against plain loops and by hand."""

import numpy as np
import pandas as pd
import pytest
from pictures_on_disk import assert_whole
from sklearn.metrics import accuracy_score, f1_score

from bench import gains
from bench.gains import JUDGED, Measured, describe, differences, report, tidy
from lab.stats import compare_with_first

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


def test_the_rows_are_paired_by_seed_and_text_and_all_arms_are_judged_together():
    arms = {arm: runs_of(**{arm: right}) for arm, right in {"none": 0.6, "head": 0.7, "tlm-both": 0.65}.items()}
    rows = differences([run for runs in arms.values() for run in runs]).set_index(["metric", "arm"])
    rng, draws = np.random.default_rng(3), {key: [] for key in rows.index}
    for _ in range(80):
        chosen = rng.integers(0, N, N)
        guesses = {arm: [(TARGETS[chosen], run.predicted[chosen]) for run in runs] for arm, runs in arms.items()}
        of_arms = {("accuracy", arm): np.mean([a == b for a, b in each]) for arm, each in guesses.items()}
        of_arms |= {
            ("macro_f1", arm): np.mean([f1_score(*pair, average="macro") for pair in each])
            for arm, each in guesses.items()
        }
        for metric, arm in draws:
            draws[metric, arm].append(of_arms[metric, arm] - of_arms[metric, "none"])
    for metric in ("accuracy", "macro_f1"):
        scores = np.array([[run.metrics["test"][metric] for run in runs] for runs in arms.values()])
        of_texts = np.array([np.var(draws[metric, arm], ddof=1) for arm in ("head", "tlm-both")])
        low, high, p = compare_with_first(scores, of_texts)
        for i, arm in enumerate(("head", "tlm-both")):
            row, by_seed = rows.loc[metric, arm], scores[i + 1] - scores[0]
            assert row["by_seed"] == " ".join(f"{each:+.4f}" for each in by_seed)
            assert row["difference"] == pytest.approx(np.mean(by_seed)) == pytest.approx(row["value"] - row["none"])
            assert (row["ci_low"], row["ci_high"]) == pytest.approx((low[i], high[i]), abs=0.01)
            assert row["p"] == pytest.approx(p[i], abs=0.03)
            assert (row["n"], row["seeds"]) == (N, 3)


def test_holm_counts_all_comparisons_of_the_judged_metric_in_a_call():
    measured = [
        run_of(arm, seed, right, texts, corpus)
        for corpus, texts in (("words", 97), ("words", 50), ("films", 97))
        for arm, right in (("none", 0.6), ("head", 0.68), ("attention", 0.61))
        for seed in range(3)
    ]
    frame = differences(measured)
    judged = frame[frame["metric"] == JUDGED]
    p = judged["p"].to_numpy()
    by_hand, largest = {}, 0.0
    for i, position in enumerate(np.argsort(p)):
        largest = max(largest, min(1, (6 - i) * p[position]))
        by_hand[position] = largest
    assert judged["p_holm"].tolist() == pytest.approx([by_hand[i] for i in range(6)])
    others = frame[frame["metric"] != JUDGED]
    assert others["p_holm"].isna().all()
    assert set(others["verdict"]) == {"not judged"}


def test_the_judged_table_comes_first_and_the_other_says_that_it_is_not():
    page = report(differences(runs_of(none=0.5, head=0.6)), "a command")
    first, second = page.split("\n## ")[1:]
    assert first.startswith("macro-F1 on test\n")
    assert second.startswith("accuracy on test, which is not judged\n")
    assert "| p by Holm | verdict |" in first
    assert "verdict" not in second
    assert "Holm" not in second
    assert "corrected by Holm's method for 1 comparison, is below 0.05." in page
    alone = report(differences(runs_of(1, none=0.5, head=0.6)), "a command")
    assert "|  | not judged: one seed |" in alone
    assert "nan" not in alone


def test_a_large_gain_is_clear_and_no_gain_is_an_answer():
    frame = differences(runs_of(4, none=0.5, head=0.9, **{"tlm-both": 0.5, "attention": 0.1}))
    verdicts = frame[frame["metric"] == JUDGED].set_index("arm")["verdict"].to_dict()
    assert verdicts == {"head": "clear gain", "tlm-both": "no clear difference", "attention": "clear loss"}
    judged = frame[frame["metric"] == JUDGED]
    assert (judged["p_holm"] >= judged["p"]).all()
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
