"""Baselines that a network must beat: the most frequent class, and the best of four bag-of-words classifiers."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from .metrics import Floats, Ints, classification_metrics, prediction_metrics, ranking_metrics

MOST = 100_000  # texts that a bag of words learns from
Split = tuple[Sequence[str], NDArray[np.integer]]  # N texts, their classes (N,)


def make_candidates(texts: Sequence[str]) -> dict[str, Pipeline]:
    """Return bag-of-words classifiers by name, not yet fitted, that find words in these texts."""
    pattern = r"(?u)\b\w\w+\b"  # scikit-learn's default
    if not any(re.search(pattern, text) for text in texts):  # emoji, say, or single letters
        pattern = r"\S+"
    words = {"token_pattern": pattern}
    pairs = words | {"ngram_range": (1, 2)}
    return {
        "binary unigrams + logistic regression": make_pipeline(
            CountVectorizer(binary=True, **words), LogisticRegression(max_iter=1000)
        ),
        "TF-IDF unigrams + balanced logistic regression (C=3)": make_pipeline(
            TfidfVectorizer(**words), LogisticRegression(C=3, class_weight="balanced", max_iter=1000)
        ),
        "TF-IDF 1-2-grams + linear SVM": make_pipeline(TfidfVectorizer(**pairs), LinearSVC(random_state=0)),
        "counts of 1-2-grams + naive Bayes": make_pipeline(CountVectorizer(**pairs), MultinomialNB()),
    }


def draw_train(train: Split) -> Split:
    """Return MOST texts drawn at random, where there are more: words and pairs of all would take gigabytes.

    One more of each class is among them, so that none is missing."""
    texts, targets = train
    if len(texts) <= MOST:
        return train
    drawn, (_, first) = np.random.default_rng(0).choice(len(texts), MOST, replace=False), np.unique(targets, True)
    chosen = np.union1d(drawn, first)
    return [texts[i] for i in chosen], targets[chosen]


@threadpool_limits.wrap(limits=1)  # on sparse counts, BLAS threads mostly wait for one another
def best_bag_of_words(train: Split, val: Split) -> tuple[str, Pipeline, dict[str, float]]:
    """Fit all candidates on MOST texts of train and choose by macro-F1 on val: its name, itself, and the macro-F1 of
    all."""
    texts, targets = draw_train(train)
    fitted = {name: pipeline.fit(texts, targets) for name, pipeline in make_candidates(texts).items()}
    val_f1 = {name: float(f1_score(val[1], model.predict(val[0]), average="macro")) for name, model in fitted.items()}
    best = max(val_f1, key=val_f1.__getitem__)
    return best, fitted[best], val_f1


def baselines(train: Split, val: Split, test: Split, labels: Sequence[str]) -> dict[str, Any]:
    """Fit on train, choose the bag of words by macro-F1 on val, and return the metrics of val and test; JSON-able.

    Bags of words learn from MOST texts of train; where that is a part of them, `name` says so. Returns
    `{"majority": {"name", "val": prediction_metrics, "test": ...},
    "bag_of_words": {the same for the chosen one, with its `macro_roc_auc`, "train": measure_on_train,
    "candidates": {name: {"val_macro_f1"}}}}`."""
    majority = DummyClassifier(strategy="most_frequent").fit(*train)
    best, fitted, val_f1 = best_bag_of_words(train, val)
    learnt = draw_train(train)
    limit = f", from {MOST:,} texts" if len(learnt[0]) < len(train[0]) else ""
    return {
        "majority": {
            "name": "most frequent class",
            "val": _measure(majority, val, labels),
            "test": _measure(majority, test, labels),
        },
        "bag_of_words": {
            "name": f"{best}{limit}",
            "train": measure_on_train(learnt[1], score_classes(fitted, learnt[0], len(labels))),
            "val": _measure_bag(fitted, val, labels),
            "test": _measure_bag(fitted, test, labels),
            "candidates": {name: {"val_macro_f1": f1} for name, f1 in val_f1.items()},
        },
    }


def _measure(classifier: Pipeline | DummyClassifier, split: Split, labels: Sequence[str]) -> dict[str, Any]:
    texts, targets = split
    return prediction_metrics(targets, classifier.predict(texts), labels)


def _measure_bag(fitted: Pipeline, split: Split, labels: Sequence[str]) -> dict[str, Any]:
    """Return `prediction_metrics`, and `macro_roc_auc` with its interval."""
    texts, targets = split
    metrics = _measure(fitted, split, labels)
    ranked = classification_metrics(targets, score_classes(fitted, texts, len(labels)), labels)
    metrics["macro_roc_auc"] = ranked["macro_roc_auc"]
    metrics["intervals"]["macro_roc_auc"] = ranked["intervals"]["macro_roc_auc"]
    return metrics


def score_classes(fitted: Pipeline, texts: Sequence[str], n_classes: int) -> Floats:
    """Return a score of each class in 0..1, float (N, K): probabilities, or of an SVM what grows with its decision
    function. A class without a text of train has 0."""
    if hasattr(fitted, "predict_proba"):
        of_known = fitted.predict_proba(texts)
    else:
        of_known = expit(fitted.decision_function(texts))
        if of_known.ndim == 1:  # two classes: one number, the second's
            of_known = np.stack([1 - of_known, of_known], axis=1)
    scores = np.zeros((len(texts), n_classes))
    scores[:, fitted.classes_] = of_known
    return scores


def measure_on_train(targets: Ints, scores: Floats) -> dict[str, Any]:
    """Return `n` and `macro_roc_auc` of the very texts that a classifier learnt from, without intervals.

    targets: class numbers (N,); scores: (N, K). One class against the rest, mean over the classes that are defined."""
    areas = [ranking_metrics(targets == k, of_class)["roc_auc"] for k, of_class in enumerate(scores.T)]
    defined = [area for area in areas if area is not None]
    return {"n": len(targets), "macro_roc_auc": float(np.mean(defined)) if defined else None}
