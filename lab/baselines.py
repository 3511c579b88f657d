"""What a network must beat: always the commonest class, and the best of a few bag-of-words classifiers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from .metrics import prediction_metrics

Split = tuple[Sequence[str], NDArray[np.integer]]  # N texts, their classes (N,)


def bag_of_words() -> dict[str, Pipeline]:
    """Unfitted candidates by name."""
    return {
        "binary unigrams + logistic regression": make_pipeline(
            CountVectorizer(binary=True), LogisticRegression(max_iter=1000)
        ),
        "TF-IDF unigrams + balanced logistic regression (C=3)": make_pipeline(
            TfidfVectorizer(), LogisticRegression(C=3, class_weight="balanced", max_iter=1000)
        ),
        "TF-IDF 1-2-grams + linear SVM": make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LinearSVC(random_state=0)),
        "counts of 1-2-grams + naive Bayes": make_pipeline(CountVectorizer(ngram_range=(1, 2)), MultinomialNB()),
    }


@threadpool_limits.wrap(limits=1)  # on sparse counts, BLAS threads mostly wait for one another
def baselines(train: Split, val: Split, test: Split, labels: Sequence[str]) -> dict[str, Any]:
    """Fits on train, chooses the bag of words by macro-F1 on val, and reports val and test; JSON-able.

    `{"majority": {"name", "val": prediction_metrics, "test": ...},
    "bag_of_words": {the same for the chosen one, "candidates": {name: {"val_macro_f1", "val_accuracy"}}}}`.
    """
    majority = DummyClassifier(strategy="most_frequent").fit(*train)
    fitted = {name: pipeline.fit(*train) for name, pipeline in bag_of_words().items()}
    on_val = {name: _metrics(pipeline, val, labels) for name, pipeline in fitted.items()}
    best = max(on_val, key=lambda name: on_val[name]["macro_f1"])
    return {
        "majority": {
            "name": "most frequent class",
            "val": _metrics(majority, val, labels),
            "test": _metrics(majority, test, labels),
        },
        "bag_of_words": {
            "name": best,
            "val": on_val[best],
            "test": _metrics(fitted[best], test, labels),
            "candidates": {
                name: {"val_macro_f1": metrics["macro_f1"], "val_accuracy": metrics["accuracy"]}
                for name, metrics in on_val.items()
            },
        },
    }


def _metrics(classifier: Pipeline | DummyClassifier, split: Split, labels: Sequence[str]) -> dict[str, Any]:
    texts, targets = split
    return prediction_metrics(targets, classifier.predict(texts), labels)
