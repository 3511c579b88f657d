"""What the report says of planted answers."""

import re

import numpy as np
import pandas as pd
import pytest
from planted_lm import CUES, open_planted, write_texts
from prompted_tables import (
    LABELS,
    SHARES,
    make_all,
    make_answers,
    make_correlations,
    make_curve,
    make_effects,
    make_few_shot,
    make_texts,
    tabulate,
)

from data.prompts import Template
from experiments.prompt.judge import judge
from experiments.prompt.report import describe_prompt, report
from experiments.prompt.scoring import Setting, list_answers, score_setting
from experiments.prompt.tables import choose, tabulate_predictions

TEXTS = make_texts()
NONE = pd.DataFrame()
FIRST = {
    "template": "i_feel",
    "lines": ["*so* glad `today`", "", "I feel"],
    "ids": [40, 1254],
    "words": {"anger": [("mad", [8805])], "fear": [("afraid", [7787])], "joy": [("over|joyed", [625, 2633, 276])]},
    "mass": 0.0123,
}


def write(answers, curve=NONE, effects=NONE, correlations=NONE, left_out=(), with_classifier=True, texts=TEXTS):
    scores, targets = tabulate(answers, texts), texts["test"].targets
    references = {"majority": np.full(len(targets), 2), "bag_of_words": targets}
    references |= {"classifier": targets} if with_classifier else {}
    chosen, compared = judge(answers, scores, references, targets, LABELS, SHARES)
    predictions = tabulate_predictions(answers, choose(scores), texts, LABELS, SHARES)
    tables = (scores, chosen, compared, predictions, curve, effects, correlations)
    page = report(["run: x"], LABELS, FIRST, *tables, left_out=left_out)
    assert "nan" not in page.lower()
    assert "None" not in page
    for table in re.findall(r"(?m)(?:^\|.*\n)+", page):
        assert len({row.count(" | ") for row in table.splitlines()}) == 1
    return page


def read_section(page, title):
    return page.split(f"## {title}")[1].split("\n## ")[0]


def test_without_examples_the_page_says_what_was_not_done():
    page = write(make_answers(TEXTS, 4.0), left_out=["No head was closed: a reason"])
    assert "- No head was closed: a reason\n" in page
    answer = read_section(page, "The answer")
    assert "**Without examples, the prompt that val chose is better than the most frequent class.**" in answer
    assert "**It reads something of the texts**: the same predictions" in answer
    assert "What the correction does: the same prompt has macro-F1" in answer
    assert "No row below is marked as the best on test" in answer
    for title in ("Which examples", "The same examples without a prompt", "The same heads?"):
        assert f"## {title}" not in page
    assert " of each class" not in page
    assert "ECE (expected calibration error)" in page


def test_what_knows_nothing_is_called_so():
    page = write(make_all(TEXTS, 0.0), make_curve(), make_effects(), make_correlations(0.1, -0.2, 0.3))
    answer = read_section(page, "The answer")
    assert "the prompt that val chose is no better than the most frequent class.**" in answer
    assert "**It is not sure that it reads the texts at all**" in answer
    assert len(re.findall(r"With \d examples? of each class the prompt is no better than", answer)) == 2
    heads = read_section(page, "The same heads?")
    assert "is 0.100 [-0.200, 0.900], p 0.300: it is not sure that the prompt uses the heads that" in heads
    assert "after Holm's correction) for none of the classes." in heads


def test_the_whole_page():
    page = write(make_all(TEXTS, 4.0), make_curve(), make_effects(), make_correlations())
    answer = read_section(page, "The answer")
    assert (
        "With 1 example of each class the prompt is better than the most frequent class**, as a mean over 3" in answer
    )
    assert "- All draws together (4 of each class): macro-F1 " in answer
    assert "- All templates together: macro-F1 " in answer
    examples = read_section(page, "Which examples, in which order")
    assert "The same examples (1 of each class) in 6 orders: macro-F1 0." in examples
    assert "| 1 | far to near | batch | 0." in examples
    assert "| 1 | far to near | direct | 0." in examples
    curve = read_section(page, "The same examples without a prompt")
    assert "| probe of the frozen network | 4 | 12 | 5 | 0.440 | 0.400 to 0.480 | 0.500 |" in curve
    assert "| probe of the frozen network | 300 | 900 | 1 | 0.770 | 0.770 to 0.770 | 0.800 |" in curve
    heads = read_section(page, "The same heads?")
    assert "is 0.610 [0.200, 0.900], p 0.001: the prompt uses in part the heads that the classifier uses" in heads
    assert "after Holm's correction) for anger, fear, joy." in heads
    assert (
        "0.700 in the prompt and 0.950 in the classifier, so that two networks with the same heads would reach" in heads
    )
    assert "would reach about 0.815." in heads
    corrections = read_section(page, "Label-prior corrections")
    assert "**Batch transductive has seen the test texts**" in corrections
    assert "| 0 | channel | 1 | 0." in corrections
    assert "| 4 | batch | 3 | 0." in corrections


def test_the_spread_and_the_last_class_are_those_of_the_tables():
    answers = make_all(TEXTS, 2.0)
    page, scores = write(answers), tabulate(answers, TEXTS)
    rows = scores[(scores["split"] == "test") & (scores["prior"] == "uniform")]
    few = rows[(rows["shots"] == 4) & (rows["correction"] == "batch") & rows["draw"].isin(list("012"))]["macro_f1"]
    spread = (
        f"| 4 | batch | 3 | {few.mean():.3f} ({few.std():.3f}) | {few.min():.3f}, {few.median():.3f}, {few.max():.3f} |"
    )
    assert spread in page
    asked = rows[(rows["correction"] == "direct") & rows["draw"].isin([*"012", "orders"])]
    last, others = asked[asked["last_class"] == "fear"], asked[asked["last_class"] != "fear"]
    assert len(last) == 2 + 2  # draws, and orders
    share = f"{last['predicted_share_fear'].mean():.0%}, {others['predicted_share_fear'].mean():.0%}"
    assert f"| fear | 4 | {last['accuracy'].mean():.3f} | {share} |" in page


def test_without_a_classifier_the_bag_stands_alone():
    page = write(make_answers(TEXTS, 4.0), with_classifier=False)
    assert "a bag of words has macro-F1 1.000" in page
    assert "own classifier" not in page


def test_where_no_correction_helps_the_page_says_so():
    answers = [each for each in make_answers(TEXTS, 4.0) if each.correction == "direct"]
    shares = np.full(3, 1 / 3)
    scores, targets = tabulate(answers, TEXTS), TEXTS["test"].targets
    scores = scores[scores["prior"] == "uniform"].reset_index(drop=True)
    chosen, compared = judge(answers, scores, {"majority": targets * 0}, targets, LABELS, shares)
    predictions = tabulate_predictions(answers, choose(scores), TEXTS, LABELS, shares)
    page = report(["run: x"], LABELS, FIRST, scores, chosen, compared, predictions, NONE, NONE, NONE)
    assert "On val no correction did better than the network's answers as they are." in page


def test_a_class_without_test_texts_leaves_cells_empty():
    texts = TEXTS | {"test": TEXTS["test"].select(np.flatnonzero(TEXTS["test"].targets))}
    effects, correlations = make_effects(), make_correlations()
    absent = correlations["class"] == "anger"
    names = ["spearman", "ci_low", "ci_high", "p", "reliability_prompt", "reliability_classifier"]
    correlations[names] = correlations[names].mask(absent)
    page = write(make_all(texts, 3.0), make_curve(), effects, correlations, texts=texts)
    assert "| anger |  |  |  |  |" in read_section(page, "The same heads?")
    assert "| anger | 0% |" in read_section(page, "Label-prior corrections")


def test_one_draw_has_no_spread():
    page = write(make_answers(TEXTS, 3.0) + make_few_shot(TEXTS, 3.0, 4, draws=1))
    assert re.search(r"\| 4 \| batch \| 1 \| 0\.\d{3} \| ", page)
    assert "With 4 examples of each class the prompt is better than the most frequent class**: macro-F1" in page


def test_the_first_prompt_is_printed_as_it_is_read():
    section = read_section(write(make_answers(TEXTS, 4.0)), "What the network reads")
    assert "\n    *so* glad `today`\n    \n    I feel␣____\n" in section
    assert "- Token ids: 40 1254\n" in section
    assert "  - joy: over\\|joyed (625 2633 276)\n" in section
    assert "have a probability of 0.012 here" in section


def test_the_first_prompt_is_described_by_what_was_scored(tmp_path):
    prompted, template = open_planted(), Template("t", "{text} It was", "It was")
    texts = {split: write_texts(split, 6) for split in ("val", "test")}
    scored = score_setting(Setting(template), texts, ["the day"], prompted, tmp_path, 0, int)
    answers = list(list_answers(scored, prompted.words, transductive=False))
    text = texts["test"].strings[0]
    assert CUES[0] in text
    section = describe_prompt(prompted, template, text, answers)
    assert section["lines"] == [f"{text} It was"]
    assert prompted.tokenizer.decode(section["ids"]) == f"{text} It was"
    words = {word: ids for each in section["words"].values() for word, ids in each}
    assert list(section["words"]) == list(prompted.words.labels)
    assert all(prompted.tokenizer.decode(ids) == f" {word}" for word, ids in words.items())
    assert section["mass"] == pytest.approx(np.exp(scored.texts["test"][0]).sum(), rel=1e-5)
