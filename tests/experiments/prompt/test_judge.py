"""What val chose, beside what reads no prompt: planted answers that know much, or nothing."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from prompted_tables import LABELS, SHARES, make_all, make_answers, make_texts, tabulate
from sklearn.metrics import accuracy_score, f1_score

from experiments.prompt import judge as judged
from experiments.prompt.judge import judge, predict_references
from experiments.prompt.report import is_better_than_majority, list_ways
from lab.stats import resamples
from lab.texts import Texts

TEXTS = make_texts()
TARGETS = TEXTS["test"].targets
REFERENCES = {
    "majority": np.full(len(TARGETS), 2),
    "bag_of_words": np.where(np.arange(len(TARGETS)) % 4, TARGETS, 0),
    "classifier": TARGETS,
}


def compare(signal):
    answers = make_all(TEXTS, signal)
    scores = tabulate(answers, TEXTS)
    return (scores, *judge(answers, scores, REFERENCES, TARGETS, LABELS, SHARES))


@pytest.fixture(scope="module")
def knowing():
    return compare(4.0)


@pytest.fixture(scope="module")
def ignorant():
    return compare(0.0)


def find_row(table, **about):
    rows = table[np.logical_and.reduce([table[name] == value for name, value in about.items()])]
    assert len(rows) == 1
    return rows.iloc[0]


def test_every_way_stands_in_the_table_of_what_was_chosen(knowing):
    _, chosen, _ = knowing
    columns = "way,shots,template,verbalizer,correction,prior,draws,metric,n,value,ci_low,ci_high,sd,worst"
    assert list(chosen) == columns.split(",")
    ways = chosen[["way", "draws"]][chosen["metric"] == "macro_f1"].astype(str).agg(" ".join, axis=1).tolist()
    few = ["few_shot 3", "all_draws 1"]
    references = ["majority 1", "bag_of_words 1", "classifier 1"]
    assert ways == ["direct 1", "zero_shot 1", "all_templates 1", *few, *few, *references]
    assert chosen["shots"].dropna().tolist() == [0] * 6 + [1] * 4 + [4] * 4
    assert find_row(chosen, way="direct", metric="accuracy")["correction"] == "direct"
    assert set(chosen[chosen["way"] == "majority"]["template"].isna()) == {True}


def test_values_are_those_of_the_rows_of_scores(knowing):
    scores, chosen, _ = knowing
    row = find_row(chosen, way="zero_shot", metric="macro_f1")
    names = ["shots", "template", "verbalizer", "correction", "prior"]
    same = find_row(scores, split="test", order="", **row[names].to_dict())
    assert [row["value"], row["ci_low"], row["ci_high"]] == pytest.approx(
        same[["macro_f1", "ci_low", "ci_high"]].tolist()
    )
    few = find_row(chosen, way="few_shot", shots=4, metric="macro_f1")
    of_draws = scores[np.logical_and.reduce([scores[name] == few[name] for name in names])]
    of_draws = of_draws[(of_draws["split"] == "test") & of_draws["draw"].isin(list("012"))]["macro_f1"]
    assert len(of_draws) == 3
    assert [few["value"], few["sd"], few["worst"]] == pytest.approx([of_draws.mean(), of_draws.std(), of_draws.min()])


def test_differences_are_paired_by_text(knowing):
    _, chosen, compared = knowing
    assert ",".join(compared) == "way,shots,reference,metric,n,value,reference_value,difference,ci_low,ci_high"
    row = find_row(compared, way="zero_shot", reference="classifier", metric="accuracy")
    assert row["reference_value"] == 1
    assert row["difference"] == pytest.approx(find_row(chosen, way="zero_shot", metric="accuracy")["value"] - 1)
    answers = make_answers(TEXTS, 4.0)
    direct = next(each for each in answers if (each.correction, each.split) == ("direct", "test"))
    predicted, other = direct.log_probs.argmax(axis=1), REFERENCES["bag_of_words"]
    gains = (predicted == TARGETS).astype(int) - (other == TARGETS)
    differences = [(weights * gains).mean() for chunk in resamples(len(TARGETS)) for weights in chunk]
    way, reference = (judged.Way(name, {"shots": 0}, [each]) for name, each in (("a", predicted), ("b", other)))
    _, row = judged.compare(way, reference, TARGETS, LABELS)
    assert [row["ci_low"], row["ci_high"]] == pytest.approx(np.quantile(differences, [0.025, 0.975]))


def test_the_correction_is_compared_with_the_same_prompt_without_it(knowing):
    scores, chosen, compared = knowing
    template = find_row(chosen, way="zero_shot", metric="macro_f1")["template"]
    row = find_row(compared, way="zero_shot", reference="same_prompt", metric="macro_f1")
    direct = {"template": template, "correction": "direct", "prior": "uniform", "split": "test", "shots": 0}
    assert row["reference_value"] == pytest.approx(find_row(scores, **direct)["macro_f1"])
    assert row["ci_low"] > 0.1
    assert "same_prompt" not in set(compared[compared["way"] == "direct"]["reference"])


def test_an_ensemble_is_compared_with_its_median_member(knowing):
    scores, chosen, compared = knowing
    about = find_row(chosen, way="all_draws", shots=4, metric="macro_f1")
    members = scores[(scores["shots"] == 4) & (scores["split"] == "test") & scores["draw"].isin(list("012"))]
    members = members[(members["correction"] == about["correction"]) & (members["prior"] == about["prior"])]
    row = find_row(compared, way="all_draws", shots=4, reference="members", metric="macro_f1")
    assert row["reference_value"] == pytest.approx(members["macro_f1"].median())
    assert row["value"] == pytest.approx(about["value"])


def test_chance_is_what_the_same_predictions_are_worth_on_average(ignorant):
    rng = np.random.default_rng(5)
    predicted = rng.permutation(TARGETS)
    way = judged.Way("a", {"shots": 0}, [predicted])
    f1, accuracy = judged.compare_with_chance(way, TARGETS, LABELS)
    counts = np.bincount(TARGETS), np.bincount(predicted)
    n = len(TARGETS)
    assert accuracy["value"] == accuracy_score(TARGETS, predicted)
    assert accuracy["reference_value"] == pytest.approx((counts[0] * counts[1]).sum() / n**2, abs=0.01)
    expected = np.mean(2 * counts[0] * counts[1] / n / (counts[0] + counts[1]))
    assert f1["reference_value"] == pytest.approx(expected, abs=0.01)
    dealt = [(rng.permutation(predicted) == TARGETS).mean() for _ in range(4000)]
    assert accuracy["ci_low"] == pytest.approx(accuracy["value"] - np.quantile(dealt, 0.975), abs=0.02)
    assert accuracy["ci_high"] == pytest.approx(accuracy["value"] - np.quantile(dealt, 0.025), abs=0.02)


def judge_ways(tables):
    scores, chosen, compared = tables
    ways = [way for way in list_ways(chosen, compared, scores) if way["way"] not in REFERENCES]
    return {(way["way"], way["shots"]): way for way in ways}


def test_a_prompt_that_knows_the_class_is_better(knowing):
    ways = judge_ways(knowing)
    assert len(ways) == 7
    assert [name for name, way in ways.items() if not way["better"]] == [("direct", 0)]
    assert ways["zero_shot", 0]["minus"]["chance"]["macro_f1"]["ci_low"] > 0.3


def test_deals_are_scored_as_predictions_are():
    rng = np.random.default_rng(3)
    predicted, deals = rng.integers(0, 2, len(TARGETS)), np.stack([rng.permutation(TARGETS) for _ in range(5)])
    scores = judged.score_deals(predicted, deals, 3)
    assert scores["accuracy"] == pytest.approx([accuracy_score(deal, predicted) for deal in deals])
    assert scores["macro_f1"] == pytest.approx([f1_score(deal, predicted, average="macro") for deal in deals])


def test_a_prompt_that_knows_nothing_is_no_better_though_its_macro_f1_is_larger(ignorant):
    ways = judge_ways(ignorant)
    assert not any(way["better"] for way in ways.values())
    minus = ways["few_shot", 4]["minus"]
    assert minus["majority"]["macro_f1"]["difference"] > 0.04
    assert minus["majority"]["accuracy"]["difference"] < 0
    assert minus["chance"]["macro_f1"]["ci_low"] < 0 < minus["chance"]["macro_f1"]["ci_high"]


def test_both_metrics_must_be_surely_larger():
    sure, unsure = {"ci_low": 0.01}, {"ci_low": -0.01}
    assert is_better_than_majority({"macro_f1": sure, "accuracy": sure})
    assert not is_better_than_majority({"macro_f1": sure, "accuracy": unsure})
    assert not is_better_than_majority({"macro_f1": unsure, "accuracy": sure})


@pytest.mark.parametrize("has_classifier", [True, False])
def test_references_are_about_the_same_texts(monkeypatch, has_classifier):
    words = ("bad", "mad", "glad")
    targets = {"train": np.array([0, 1, 2] * 5 + [2] * 6), "val": np.array([0, 1, 2] * 3), "test": np.arange(9) % 3}

    def read_split(split):
        return pd.DataFrame({"text": [f"so {words[k]} today" for k in targets[split]]})

    corpus = SimpleNamespace(split=read_split, targets=targets.get)
    positions = np.array([1, 5, 6])
    prompts = [[k] for k in (0, 2, 0, 0, 0, 0, 1, 0, 0)]  # what the run reads of all texts of test
    read = {"test": Texts("test", np.arange(9), ["in its prompt"] * 9, prompts, targets["test"])}
    study = SimpleNamespace(corpus=corpus, clf=None, device=None, has_classifier=has_classifier, texts=read)
    monkeypatch.setattr(judged, "predict", lambda clf, sequences, device: np.eye(3)[[ids[0] for ids in sequences]])
    test = Texts("test", positions, ["as it is"] * 3, [[], [], []], targets["test"][positions])
    references = predict_references(study, test)
    assert references["majority"].tolist() == [2, 2, 2]
    assert references["bag_of_words"].tolist() == [1, 2, 0]
    assert ("classifier" in references) == has_classifier
    if has_classifier:
        assert references["classifier"].tolist() == [2, 0, 1]
