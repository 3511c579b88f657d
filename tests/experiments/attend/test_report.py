"""What the report says of tables whose answer is known."""

import json

import numpy as np
import pandas as pd
import pytest

from experiments.attend.patterns import PATTERNS, RANDOM, tabulate_patterns
from experiments.attend.report import read_ablation, report
from experiments.attend.words import ANY, tabulate_words
from lab.shares import METRIC


@pytest.fixture
def tables():
    """Head 1.2 looks at the token before, on texts and random tokens, 0.1 at the first on texts only."""
    rng, n = np.random.default_rng(0), 40
    targets = np.arange(n) % 2
    random = {pattern: rng.uniform(0.15, 0.2, (n, 2, 3)) for pattern in PATTERNS}
    random["previous"][:, 1, 2] = 0.8 + rng.normal(size=n) / 100
    scores = {pattern: values.copy() for pattern, values in random.items()}
    scores["first"][:, 0, 1] = 0.6 + rng.normal(size=n) / 100
    random_rates = dict.fromkeys(PATTERNS, np.full((n, 2), 0.25))
    rates = random_rates | {"induction": np.full((n, 2), np.nan)}
    members = {"feel": [np.ones(5, dtype=bool)] * n, "label": [np.zeros(5, dtype=bool)] * n}
    masses = {"feel": rng.uniform(0, 0.1, (n, 2, 3)), "label": np.zeros((n, 2, 3)), ANY: np.full((n, 2, 3), 0.5)}
    masses["feel"][:, 1, 0] = 0.9
    either = np.where(np.arange(n) // 2 % 2, 0.2, -0.2)[:, None]  # the mean of random tokens is 0.25
    masses["feel"][:, 1, 1:] = np.array([0.24, 0.26]) + either
    masses["feel"][targets == 1, 0, 0] = 0.95
    words = tabulate_words(masses, members, np.full(n, 9), [9, 9], targets, ["sad", "glad_2"])
    return tabulate_patterns(scores, rates, targets, ["sad", "glad_2"], random, random_rates), words


def write(tables, ablation="no ablation yet"):
    return report(["run: x"], *tables, missing=["the class z is left out"], ablation=ablation, head="1.2")


def test_the_answer_names_the_heads_with_their_numbers(tables):
    page = write(tables)
    answer = page.split("## The patterns")[0]
    previous, first, itself, _, induction, _ = [line for line in answer.splitlines() if line.startswith("- **")]
    assert "1 of 6 heads looks there surely more" in previous
    assert "on texts and on random tokens: 1.2 (0.80, +0.5" in previous
    row = tables[0].query("pattern == 'previous' and layer == 1 and head == 2").set_index("class").loc["all"]
    assert f"[{row['excess_low']:+.3f}, {row['excess_high']:+.3f}]; random tokens +0.5" in previous
    assert "Base rate: 0.25" in previous
    assert "No head looks there surely more" in first
    assert "On texts only: 1 head." in first
    assert "The largest on texts: 0.1 (0.60, +0.3" in first
    assert itself.endswith("not surely above the base rate.")
    assert "not surely" not in first
    assert "No text has a query with such a key" in induction
    assert "- the class z is left out" in page
    assert "no ablation yet" in page
    for source in ("Jain and Wallace 2019", "Wiegreffe and Pinter 2019"):
        assert source in page
    assert "nan" not in page.lower().replace("finance", "")


def test_words_name_the_heads_and_the_classes_that_differ(tables):
    page = write(tables)
    row = next(line for line in page.splitlines() if line.startswith("| feel"))
    assert "| feel | 40 | 2 | 2 |" in row  # heads 1.1 and 1.2 are less and more, but not surely
    assert "1.0: 0.90" in row
    assert "| label | 0 | too few texts |  |  |" in page
    line = next(line for line in page.splitlines() if line.startswith("- feel"))
    assert "head 0.0" in line
    assert "glad\\_2" in line
    difference = tables[1].query("words == 'feel' and layer == 0 and head == 0").set_index("class")["difference"]
    assert line.count(f"others {difference['glad_2'] - difference['sad']:.2f}") == 1
    assert "- label: no class has enough texts to be compared." in page


def test_of_few_texts_nothing_is_said_that_sounds_like_a_finding(tables):
    heads, words = tables
    columns = ["ci_low", "ci_high", "excess_low", "excess_high"]
    few = heads["pattern"].isin(["first", "induction"]) & (heads["class"] != RANDOM)
    heads.loc[few, ["n", "score", "base_rate", "excess"]] = [6, 0.5, 0.25, 0.25]
    heads.loc[few, columns] = np.nan
    words = words.assign(n=1, ci_low=np.nan, ci_high=np.nan)
    page = write((heads, words))
    _, first, *_, induction, _ = [line for line in page.splitlines() if line.startswith("- **")]
    assert first.startswith(
        "- **first token.** 6 texts with such a key: too few for limits. Base rate: 0.25. The largest"
    )
    assert induction.endswith("The largest on texts: 0.0 (0.50, +0.250).")
    assert "No head" not in first + induction
    assert "| first token | 6 | 0.25 | too few texts |  | 0 |" in page
    assert "| feel | 1 | too few texts |  |" in page


def test_without_random_tokens_heads_are_judged_on_texts(tables):
    heads, words = tables
    page = write((heads[heads["class"] != RANDOM], words))
    previous, first, itself, *_ = [line for line in page.splitlines() if line.startswith("- **")]
    assert "1 of 6 heads looks there surely more than uniform attention does, on texts: 0.1 (0.60" in first
    assert "on texts: 1.2 (" in previous
    assert "No head looks there surely more than uniform attention does, on texts. Base" in itself
    assert "There are no random tokens to compare with" in page


def test_the_ablation_of_the_same_weights_stands_beside(tables, tmp_path):
    assert "has no ablation yet" in read_ablation(tmp_path, "0123")
    folder = tmp_path / "ablate"
    folder.mkdir()
    row = {"kind": "head", "layer": 1, "head": 2, "region": "", "fill": "mean", "split": "test", "metric": METRIC}
    rows = [
        row | {"class": "sad", "share": -0.02, "share_low": -0.03, "share_high": -0.01, "verdict": "negligible"},
        row | {"head": 0, "class": "sad", "share": 0.01, "share_low": 0, "share_high": 0.02, "verdict": "negligible"},
        row | {"class": "glad_2", "share": -0.4, "share_low": -0.5, "share_high": -0.3, "verdict": "matters"},
        row | {"class": "glad_2", "share": -0.9, "share_low": -0.99, "share_high": -0.8, "fill": "zero"},
        row | {"class": "sad", "share": -0.9, "share_low": -0.99, "share_high": -0.8, "split": "val"},
    ]
    pd.DataFrame(rows).to_csv(folder / "effects.csv", index=False)
    (folder / "study.json").write_text(json.dumps({"weights": "0123"}))
    assert "of other weights" in read_ablation(tmp_path, "4567")
    page = write(tables, read_ablation(tmp_path, "0123"))
    assert "| 1.2 | glad\\_2 | -40.0% [-50.0%, -30.0%] | matters |" in page
    assert "| 1.0 | sad | +1.0% [+0.0%, +2.0%] | negligible |" in page  # follows no pattern, but looks at feel
    pd.DataFrame(rows).assign(kind="mlp").to_csv(folder / "effects.csv", index=False)
    assert "closed no heads" in read_ablation(tmp_path, "0123")


def test_classes_are_sorted_by_their_distance_from_the_others(tables):
    """Of 40 texts 30 are of a: 0.3 above the others, 0.075 above all texts. b, with 10, is 0.2 above all at head 1."""
    heads, words = tables
    one = words[(words["words"] == "feel") & (words["layer"] == 0) & (words["head"] < 2)]
    rows = one.assign(n=one["class"].map({"all": 40, "sad": 30, "glad_2": 10}), minus_all=0.0)
    rows = rows.assign(minus_all_low=-1.0, minus_all_high=1.0).set_index(["class", "head"])
    columns = ["minus_all", "minus_all_low", "minus_all_high"]
    rows.loc[("sad", 0), columns] = 0.075, 0.05, 0.1
    rows.loc[("glad_2", 1), columns] = 0.15, 0.1, 0.2
    page = write((heads, rows.reset_index()))
    line = next(line for line in page.splitlines() if line.startswith("- feel"))
    assert "2 are surely not 0" in line
    assert line.index("sad, head 0.0, 0.075 [0.050, 0.10], others 0.30") < line.index("head 0.1, 0.15 [0.10, 0.20]")
