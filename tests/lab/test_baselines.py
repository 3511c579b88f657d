import json
from pathlib import Path

import numpy as np
import pytest

from lab.baselines import baselines, draw_train, make_candidates, measure_on_train, score_classes

EMOTION = Path(__file__).parents[2].parent / "shared" / "emotion"
LABELS = ["sadness", "joy", "love", "anger", "fear", "surprise"]
WORDS = ["gloomy", "sunny", "tender"]


def synthetic(seed, n):
    """One word tells the class (0 half of the time), among words that tell nothing."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    fillers = rng.choice(["i", "feel", "so", "very", "today"], (n, 4))
    return [" ".join([*row, WORDS[target]]) for row, target in zip(fillers, targets, strict=True)], targets


def test_known_answers():
    train, val, test = synthetic(0, 200), synthetic(1, 60), synthetic(2, 80)
    result = baselines(train, val, test, LABELS[:3])
    majority, bag = result["majority"], result["bag_of_words"]
    assert majority["test"]["accuracy"] == (test[1] == 0).mean()
    assert majority["val"]["per_class"]["sadness"]["recall"] == 1
    assert majority["test"]["macro_f1"] == majority["test"]["per_class"]["sadness"]["f1"] / 3
    assert bag["test"]["accuracy"] == bag["val"]["macro_f1"] == 1
    low, high = majority["test"]["intervals"]["accuracy"]
    assert low < majority["test"]["accuracy"] < high
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert baselines(train, val, test, LABELS[:3]) == result


def test_the_choice_is_made_on_val_and_on_macro_f1():
    train, val, test = synthetic(0, 200), synthetic(1, 60), synthetic(2, 80)
    noisy = (val[0], np.where(np.arange(60) % 3 == 0, 2, val[1]))
    upside_down = (test[0], (test[1] + 1) % 3)
    bag = baselines(train, noisy, upside_down, LABELS[:3])["bag_of_words"]
    assert bag["candidates"].keys() == make_candidates(train[0]).keys()
    assert bag["test"]["accuracy"] == 0
    chosen = bag["candidates"][bag["name"]]
    assert chosen["val_macro_f1"] == max(candidate["val_macro_f1"] for candidate in bag["candidates"].values())
    assert chosen["val_macro_f1"] == bag["val"]["macro_f1"]


def count_pairs(positive, scores):
    """ROC AUC by definition: how often a text of the class scores higher than another; ties count half."""
    won = [np.sign(one - other) / 2 + 0.5 for one in scores[positive] for other in scores[~positive]]
    return np.mean(won)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_roc_auc_counts_pairs_whatever_classifier_is_chosen(monkeypatch, n_classes):
    splits = []
    for seed, n in ((0, 90), (1, 30), (2, 41)):
        texts, targets = synthetic(seed, n)
        targets = np.where(np.arange(n) % 3 == 0, (targets + 1) % 3, targets) % n_classes
        splits.append((texts, targets))
    for name, candidate in make_candidates(splits[0][0]).items():
        monkeypatch.setattr("lab.baselines.make_candidates", lambda texts, only={name: candidate}: only)
        bag = baselines(*splits, LABELS[:n_classes])["bag_of_words"]
        for split, (texts, targets) in zip(("train", "val", "test"), splits, strict=True):
            read = candidate.decision_function if "SVM" in name else candidate.predict_proba
            scores = read(texts)
            scores = np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
            areas = [count_pairs(targets == k, scores[:, k].round(9)) for k in range(n_classes)]
            assert bag[split]["macro_roc_auc"] == pytest.approx(np.mean(areas), abs=1e-6)
            assert bag[split]["n"] == len(texts)
        low, high = bag["test"]["intervals"]["macro_roc_auc"]
        assert low < bag["test"]["macro_roc_auc"] < high


def test_a_class_without_texts_of_train_has_no_score_and_no_area():
    texts, targets = ["so sad", "so glad", "sad sad", "glad"], np.array([0, 2, 0, 2])
    for candidate in make_candidates(texts).values():
        scores = score_classes(candidate.fit(texts, targets), texts, 4)
        assert scores.shape == (4, 4)
        assert (scores[:, [1, 3]] == 0).all()
        assert list(scores.argmax(axis=1)) == [0, 2, 0, 2]
        assert measure_on_train(targets, scores) == {"n": 4, "macro_roc_auc": 1.0}


def test_candidates_are_what_they_are_called():
    binary, balanced, svm, bayes = (dict(pipeline.steps) for pipeline in make_candidates(["some text"]).values())
    assert binary["countvectorizer"].fit_transform(["so so sad"]).toarray().tolist() == [[1, 1]]
    assert balanced["tfidfvectorizer"].fit(["so sad"]).get_feature_names_out().tolist() == ["sad", "so"]
    for pairs in (svm["tfidfvectorizer"], bayes["countvectorizer"]):
        assert pairs.fit(["so sad now"]).get_feature_names_out().tolist() == ["now", "sad", "sad now", "so", "so sad"]
    assert bayes["countvectorizer"].transform(["so so sad"]).toarray().tolist() == [[0, 1, 0, 2, 1]]
    logistic = balanced["logisticregression"]
    assert (logistic.C, logistic.class_weight) == (3, "balanced")
    assert binary["logisticregression"].max_iter == logistic.max_iter == 1000  # ten times what scikit-learn allows


def test_texts_without_a_word_of_two_letters_have_baselines_too():
    split = ["😀 a", "😡 b", "😀 c", "😡 d"] * 5, np.array([0, 1, 0, 1] * 5)
    assert baselines(split, split, split, LABELS[:2])["bag_of_words"]["test"]["accuracy"] == 1


@pytest.mark.slow
@pytest.mark.skipif(not EMOTION.is_dir(), reason=f"needs the emotion corpus in {EMOTION}")
def test_emotion_reaches_the_published_figures():
    def read(split):
        lines = (EMOTION / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        texts, labels = zip(*(line.rsplit(";", 1) for line in lines), strict=True)
        return texts, np.array([LABELS.index(label) for label in labels])

    result = baselines(read("train"), read("val"), read("test"), LABELS)
    assert result["majority"]["test"]["accuracy"] == 0.3475
    assert result["bag_of_words"]["test"]["accuracy"] == pytest.approx(0.888, abs=0.004)
    assert result["bag_of_words"]["test"]["macro_f1"] == pytest.approx(0.843, abs=0.005)


def test_of_many_texts_a_bag_of_words_learns_from_some_that_have_all_classes(monkeypatch):
    monkeypatch.setattr("lab.baselines.MOST", 40)
    targets = np.array([0] * 300 + [1] * 300 + [2])
    texts = [f"{('sunny', 'stormy', 'ghostly')[k]} word{n}" for n, k in enumerate(targets)]
    result = baselines((texts, targets), (texts, targets), (texts, targets), LABELS[:3])
    bag = result["bag_of_words"]
    assert bag["name"].endswith(", from 40 texts")
    assert bag["name"].removesuffix(", from 40 texts") in bag["candidates"]
    assert bag["test"]["accuracy"] > 0.99
    learnt, of_learnt = draw_train((texts, targets))
    assert bag["train"]["n"] == len(learnt) == len(set(learnt)) <= 43
    assert set(of_learnt) == {0, 1, 2}
    assert all(texts[targets.tolist().index(k)] in learnt for k in range(3))
    assert [targets[texts.index(text)] for text in learnt] == of_learnt.tolist()
    assert draw_train((texts[:40], targets[:40])) == (texts[:40], pytest.approx(targets[:40]))
