"""The page of a paper: what was run, its scores, and what others published, from pretended runs."""

import re

import pandas as pd
import pytest
from pretended import SETTINGS, measured

from experiments.paper import results
from experiments.paper.report import report


def page(*runs, prompts=None):
    asked = pd.DataFrame() if prompts is None else prompts
    return report(runs, results.tidy(runs), results.differences(runs), asked, "python paper.py")


@pytest.mark.parametrize(
    ("corpus", "n", "expected"),
    [
        (
            "emotion",
            2000,
            {"tingtone/jq_emo_gpt* | *0.947* |", "distilbert-base-uncased-emotion* |  | *0.927* | *0.8825* |"},
        ),
        ("dair-ai/emotion/split", 2000, {"*0.947*", "*0.927*"}),
        ("owner/rotten_tomatoes", 1066, {"*0.84 to 0.86*", "*0.980* | *0.911* |", "*0.918* | *0.882* |"}),
        ("emotion", 1999, set()),
        ("emotion", 1066, set()),
        ("words", 2000, set()),
        ("emotion/words", 2000, set()),
        ("owner/super_emotion", 2000, set()),
    ],
)
def test_published_numbers_stand_beside_the_corpus_they_are_about(corpus, n, expected):
    text = page(measured(corpus, n))
    assert all(number in text for number in expected)
    assert bool(re.search(r"\| \*[^*]", text)) == bool(expected)


def test_only_published_weights_of_a_known_revision_are_official():
    model = {"name": "gpt2", "revision": "607a30d", "sha256": "248dfc"}
    official = page(measured("words", model=model))
    assert "gpt2, revision 607a30d, SHA-256 of the weights 248dfc\n" in official
    assert "official" not in official
    others = [
        {"model": model | {"revision": None}},
        {"model": model | {"name": "folder"}},
        {"model": {"name": "gpt2"}, "settings": SETTINGS | {"init": "random"}},
    ]
    for changes in others:
        assert "not results of the official GPT-2 weights" in page(measured("words", **changes))


def test_the_page_names_both_starts():
    gpt2 = {"name": "gpt2", "revision": "607a30d", "sha256": "248dfc"}
    random = measured("words", model={"name": "gpt2"}, settings=SETTINGS | {"init": "random"})
    text = page(measured("words", model=gpt2), random)
    assert "- model: gpt2, revision 607a30d, SHA-256 of the weights 248dfc\n- model: gpt2 from random weights\n" in text
    assert "**Not all of these are results of the official GPT-2 weights.**" in text
    assert "**These are not results of the official GPT-2 weights.**" in page(measured("words"), random)


def test_runs_from_different_commits_or_devices_are_told():
    commits = [measured("words", git=commit, device="cpu") for commit in ("abc", "abc", "def")]
    text = page(*commits)
    assert "- commit: abc; for some of the runs: def\n" in text
    assert "- device: cpu\n" in text


def test_the_page_says_which_class_a_split_lacks():
    run = measured()
    assert "has no text of" not in page(run)
    run.metrics["test"]["per_class"]["fear"]["n"] = 0
    assert "\n- words: test has no text of fear; means over the classes leave that out\n" in page(run)


PROMPTS = pd.DataFrame(
    {"corpus": corpus, "way": way, "shots": shots, "template": "i_feel", "verbalizer": "all words"}
    | {"correction": "domain_pmi", "prior": "train", "draws": draws, "metric": metric, "n": 300}
    | {"value": 0.25, "ci_low": 0.125, "ci_high": 0.375, "sd": 0.0625, "worst": 0.1875}
    for corpus in ("owner/rotten_tomatoes", "emotion")
    for way, shots, draws in (("direct", 0, 1), ("zero_shot", 0, 1), ("all_templates", 0, 1), ("few_shot", 4, 5))
    for metric in ("macro_f1", "accuracy")
)


def read_prompts(*runs):
    return page(*runs, prompts=PROMPTS).split("## Without a head: prompts")[1]


def test_prompts_stand_beside_what_others_published_of_their_corpus():
    section = read_prompts(measured("owner/rotten_tomatoes", 1066), measured("emotion", 2000))
    rows = [row for row in section.splitlines() if row.startswith("|")]
    assert rows[2:8] == [
        "| owner/rotten\\_tomatoes (300) | no examples, no correction | i\\_feel, all words, domain pmi, train prior "
        "| 0.250 [0.125, 0.375] |  | 0.250 [0.125, 0.375] |",
        "|  | no examples, corrected | i\\_feel, all words, domain pmi, train prior | 0.250 [0.125, 0.375] |  "
        "| 0.250 [0.125, 0.375] |",
        "|  | 4 of each class: examples, corrected, mean over draws | i\\_feel, all words, domain pmi, train prior "
        "| 0.250 [0.125, 0.375] | 0.062, 0.188 | 0.250 [0.125, 0.375] |",
        rows[2].replace("owner/rotten\\_tomatoes", "emotion"),
        *rows[3:5],
    ]
    quoted = [row for row in rows if "*" in row]
    assert len(quoted) == 14
    assert "| corpus | network | prompt (examples: all together) | accuracy, % | source |" in section
    for network, accuracy in (("GPT-2 1.5B", 80.9), ("GPT-Neo 2.7B", 84.6)):
        assert f"| {network} | 8 examples, domain-context calibration | *{accuracy}* | Zhou et al. " in section
    assert all(row.startswith("| rotten\\_tomatoes | ") for row in quoted)
    assert (
        "| GPT-2 124M | 4 examples, mean (sd) of 5 seeds | *55.4 (7.4)* | Zhou et al. 2024, IDAICL, table 8 |"
        in section
    )
    assert "SST-2" in section


def test_prompts_on_another_sample_are_not_set_beside_published_ones():
    assert "Quoted" not in read_prompts(measured("owner/rotten_tomatoes", 1065))
    assert "Quoted" not in read_prompts(measured("emotion", 2000))
