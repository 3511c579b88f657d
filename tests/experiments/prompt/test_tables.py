"""Scores, priors and predictions of planted answers, and what val chooses."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from prompted_tables import (
    LABELS,
    MASS,
    PREFERENCE,
    SHARES,
    make_all,
    make_answers,
    make_few_shot,
    make_orders,
    make_texts,
    tabulate,
)
from scipy.special import softmax
from sklearn.metrics import f1_score, roc_auc_score

from experiments.prompt.priors import average_probabilities, average_texts
from experiments.prompt.scoring import Answers
from experiments.prompt.tables import (
    choose,
    choose_over_draws,
    choose_template,
    list_orders,
    list_shots,
    tabulate_biases,
    tabulate_predictions,
    tabulate_scores,
)
from lab.stats import resamples

TEXTS = make_texts()
COLUMNS = (
    "model,template,verbalizer,shots,draw,order,last_class,correction,prior,split,n,accuracy,macro_f1,auc,ece,ci_low,"
    "ci_high,predicted_share_anger,predicted_share_fear,predicted_share_joy,label_mass,entropy"
)


def test_scores_are_those_of_a_plain_computation():
    answers = make_answers(TEXTS, 2.0)
    scores = tabulate(answers, TEXTS)
    assert ",".join(scores) == COLUMNS
    assert len(scores) == 2 * len(answers)
    targets = TEXTS["test"].targets
    for prior, shares in (("uniform", np.ones(3)), ("train", SHARES)):
        answer = next(each for each in answers if (each.correction, each.split) == ("batch", "test"))
        p = softmax(answer.log_probs - answer.b, axis=1) * shares
        p /= p.sum(axis=1, keepdims=True)
        predicted, right = p.argmax(axis=1), p.argmax(axis=1) == targets
        gaps = [
            abs((right - p.max(axis=1))[(p.max(axis=1) > i / 15) & (p.max(axis=1) <= (i + 1) / 15)].sum())
            for i in range(15)
        ]
        weights = np.concatenate([*resamples(len(targets))])
        f1 = [f1_score(targets, predicted, average="macro", sample_weight=row) for row in weights]
        row = scores[(scores["correction"] == "batch") & (scores["split"] == "test") & (scores["prior"] == prior)].iloc[
            0
        ]
        assert row["accuracy"] == right.mean()
        assert row["macro_f1"] == pytest.approx(f1_score(targets, predicted, average="macro"))
        assert row["auc"] == pytest.approx(roc_auc_score(targets, p, multi_class="ovr"))
        assert row["ece"] == pytest.approx(sum(gaps) / len(targets))
        assert [row["ci_low"], row["ci_high"]] == pytest.approx(np.quantile(f1, [0.025, 0.975]))
        assert row["label_mass"] == pytest.approx(MASS)
        assert row["entropy"] == pytest.approx(-(p * np.log(p)).sum(axis=1).mean())
        for k, label in enumerate(LABELS):
            assert row[f"predicted_share_{label}"] == pytest.approx((predicted == k).mean())


def test_the_toy_of_three_texts_is_as_by_hand():
    log_probs = np.log([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.7, 0.1, 0.2]])
    contextual = average_probabilities(np.log([[0.5, 0.3, 0.2]]))
    setting = {"template": "t", "verbalizer": "first word", "shots": 0, "draw": "", "order": "", "last_class": ""}
    answers = [
        Answers(**setting, correction=correction, split="test", log_probs=log_probs, b=b)
        for correction, b in (("contextual", contextual), ("batch", average_texts(log_probs)), ("direct", np.zeros(3)))
    ]
    scores = tabulate_scores(answers, {"test": np.array([0, 1, 0])}, LABELS, SHARES, "tiny")
    uniform = scores[scores["prior"] == "uniform"].set_index("correction")
    assert uniform["accuracy"].to_dict() == pytest.approx({"contextual": 1, "batch": 1 / 3, "direct": 2 / 3})
    shares = uniform[[f"predicted_share_{label}" for label in LABELS]] * 3
    np.testing.assert_allclose(shares.loc[["contextual", "batch", "direct"]], [[2, 1, 0], [0, 2, 1], [3, 0, 0]])
    p = np.array([[0.444444, 0.370370, 0.185185], [0.352941, 0.470588, 0.176471], [0.512195, 0.121951, 0.365854]])
    assert uniform.loc["contextual", "entropy"] == pytest.approx(-(p * np.log(p)).sum(axis=1).mean(), abs=1e-5)


def test_where_a_correction_helps_val_chooses_it():
    scores = tabulate(make_answers(TEXTS, 5.0), TEXTS)
    test = scores[(scores["split"] == "test") & (scores["prior"] == "uniform")].set_index("correction")
    assert test.loc["direct", "predicted_share_joy"] > 0.7
    assert test.loc["domain_pmi", "macro_f1"] > 0.95 > 0.75 > test.loc["direct", "macro_f1"]
    assert choose(scores)["correction"] in ("domain_pmi", "batch")
    assert choose(scores)["split"] == "val"


def test_no_mass_is_claimed_for_the_channel_and_for_ensembles():
    scores = tabulate(make_all(TEXTS, 1.0), TEXTS)
    without = (scores["correction"] == "channel") | (scores["template"] == "all") | (scores["draw"] == "all")
    assert scores["label_mass"][without].isna().all()
    assert scores["label_mass"][~without].notna().all()


def set_macro_f1(scores, rows, value):
    return scores.assign(macro_f1=scores["macro_f1"].where(~rows, value))


def test_test_has_no_say_and_of_equals_the_first_is_chosen():
    scores = tabulate(make_answers(TEXTS, 1.0) + make_answers(TEXTS, 1.0, 1, template="mood"), TEXTS)
    scores = set_macro_f1(scores, scores["split"] == "val", 0.5)
    scores = set_macro_f1(scores, (scores["split"] == "test") & (scores["template"] == "mood"), 0.9)
    assert choose_template(scores) == "feeling"
    assert choose(scores)["correction"] == "direct"
    mood = (scores["template"] == "mood") & (scores["correction"] == "batch") & (scores["prior"] == "train")
    best = set_macro_f1(scores, mood & (scores["split"] == "val"), 0.51)
    assert choose_template(best) == "mood"
    assert (choose(best)["correction"], choose(best)["prior"]) == ("batch", "train")


def test_ensembles_transductive_rows_and_studied_orders_are_not_chosen():
    scores = tabulate(make_all(TEXTS, 1.0), TEXTS)
    barred = (scores["template"] == "all") | (scores["draw"] == "all") | (scores["correction"] == "batch_transductive")
    barred |= scores["order"].isin(list("12345"))
    scores = set_macro_f1(scores, barred, 1.0)
    for shots in (0, 1, 4):
        row = choose(scores, shots)
        assert row["macro_f1"] < 1
        assert row["shots"] == shots
    assert choose_over_draws(scores, 1)["macro_f1"] < 1
    with pytest.raises(ValueError, match="expected scores of 16 shots on val, got none"):
        choose(scores, 16)


def test_over_draws_the_mean_decides_not_the_best_draw():
    scores = tabulate(make_few_shot(TEXTS, 1.0, 4), TEXTS)
    scores = set_macro_f1(scores, scores["split"] == "val", 0.3)
    lucky = (scores["correction"] == "direct") & (scores["draw"] == "1")
    steady = (scores["correction"] == "batch") & (scores["prior"] == "train")
    scores = set_macro_f1(set_macro_f1(scores, lucky, 0.6), steady, 0.45)
    row = choose_over_draws(scores, 4)
    assert (row["correction"], row["prior"], row["macro_f1"]) == ("batch", "train", pytest.approx(0.45))
    assert choose(scores, 4)["correction"] == "direct"


def test_shots_that_were_asked_for_are_told_from_studied_orders():
    few, orders = make_few_shot(TEXTS, 1.0, 4), make_orders(TEXTS, 1.0)
    assert list_shots(tabulate(few, TEXTS)) == [4]
    assert list_shots(tabulate(few + orders, TEXTS)) == [4]
    assert list_shots(tabulate(make_all(TEXTS, 1.0), TEXTS)) == [1, 4]
    assert set(list_orders(tabulate(few + orders, TEXTS))["order"]) == set("012345")
    assert list_shots(tabulate(make_few_shot(TEXTS, 1.0, 1, draws=1) + orders, TEXTS)) == [1]
    assert list_orders(tabulate(few, TEXTS)).empty


def test_priors_are_listed_but_those_that_are_none():
    biases = tabulate_biases(make_all(TEXTS, 1.0), LABELS)
    columns = "template,verbalizer,shots,draw,order,source,split,b_anger,b_fear,b_joy"
    assert list(biases) == columns.split(",")
    assert set(biases["source"]) == {"domain_pmi", "batch", "batch_transductive"}
    planted = biases[biases["source"] == "domain_pmi"][["b_anger", "b_fear", "b_joy"]]
    np.testing.assert_allclose(planted, np.tile(PREFERENCE, (len(planted), 1)))


def test_predictions_are_those_of_the_chosen_row():
    answers = make_answers(TEXTS, 3.0)
    scores = tabulate(answers, TEXTS)
    row = scores[(scores["correction"] == "domain_pmi") & (scores["prior"] == "train")].iloc[0].to_dict()
    table = tabulate_predictions(answers, row, TEXTS, LABELS, SHARES)
    columns = "split,index,text,label,predicted,lp_anger,lp_fear,lp_joy,b_anger,b_fear,b_joy,direct"
    assert list(table) == columns.split(",")
    assert table["split"].value_counts().to_dict() == {"val": 61, "test": 53}
    test = table[table["split"] == "test"].reset_index()
    log_probs = test[["lp_anger", "lp_fear", "lp_joy"]].to_numpy()
    corrected = log_probs - [0, 0, 6] + np.log([0.2, 0.3, 0.5])
    names = np.array(LABELS)
    assert test["predicted"].tolist() == names[corrected.argmax(axis=1)].tolist()
    assert test["direct"].tolist() == names[log_probs.argmax(axis=1)].tolist()
    assert test["predicted"].tolist() != test["direct"].tolist()
    assert table[table["split"] == "test"]["index"].tolist() == list(range(0, 106, 2))
    assert test["label"].tolist() == names[TEXTS["test"].targets].tolist()


def test_permuted_classes_are_the_same_scores():
    answers, order = make_answers(TEXTS, 1.0), np.array([2, 0, 1])
    permuted = [replace(each, log_probs=each.log_probs[:, order], b=each.b[order]) for each in answers]
    targets = {split: np.argsort(order)[each.targets] for split, each in TEXTS.items()}
    scores = tabulate(answers, TEXTS)
    other = tabulate_scores(permuted, targets, np.array(LABELS)[order].tolist(), SHARES[order], "tiny")
    pd.testing.assert_frame_equal(scores, other[scores.columns])
