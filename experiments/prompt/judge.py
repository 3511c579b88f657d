"""Is prompting better than no reading at all? What val chose, on test, beside the most frequent class and others.

Letters: N texts, K classes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lab.baselines import best_bag_of_words
from lab.metrics import resampled_prediction_metrics
from lab.predict import predict
from lab.stats import bootstrap
from lab.study import Study
from lab.texts import Texts

from .priors import Floats, correct
from .scoring import Answers
from .tables import ALL, Ints, Row, choose, choose_over_draws, find_answers, list_draws, list_single, pick_best

MAJORITY, BAG, CLASSIFIER = "majority", "bag_of_words", "classifier"
DIRECT, ZERO_SHOT, FEW_SHOT, TEMPLATES, DRAWS = "direct", "zero_shot", "few_shot", "all_templates", "all_draws"
METRICS = ("macro_f1", "accuracy")
ABOUT = ["shots", "template", "verbalizer", "correction", "prior"]


@dataclass(frozen=True, eq=False)
class Way:
    """A way to classify the test texts, once or, as few-shot prompts do, with several draws."""

    name: str
    about: Row  # what val chose, by the names of ABOUT
    predicted: list[Ints]  # class numbers (N,), of each draw
    average: Callable[..., Any] = np.mean  # over the draws


def predict_references(study: Study, test: Texts) -> dict[str, Ints]:
    """Return the classes (N,) that others name for these test texts: the most frequent class of train, the best bag of
    words (chosen on val), and the run's own classifier where it has one."""
    corpus = study.corpus
    train, val = ((corpus.split(split)["text"].tolist(), corpus.targets(split)) for split in ("train", "val"))
    texts = corpus.split("test")["text"].iloc[test.positions].tolist()
    references = {
        MAJORITY: np.full(len(test), np.bincount(train[1]).argmax()),
        BAG: np.asarray(best_bag_of_words(train, val)[1].predict(texts)),
    }
    if study.has_classifier:
        references[CLASSIFIER] = predict(study.clf, test.sequences, study.device).argmax(axis=1)
    return references


def judge(
    answers: Sequence[Answers],
    scores: pd.DataFrame,
    references: Mapping[str, Ints],
    targets: Ints,
    labels: Sequence[str],
    shares: Floats,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what val chose with its scores on test, and how far it is from others on the same texts.

    The first table: `way, shots, template, verbalizer, correction, prior, draws, metric, n, value, ci_low, ci_high, sd,
    worst`; ways `direct` and `zero_shot` (the best template, and the best way to ask, without examples), `few_shot K`
    (mean over draws), `all_templates` and `all_draws K` (ensembles), and the references. The second: `way, reference,
    metric, n, value, reference_value, difference, ci_low, ci_high`, where `same_prompt` is the prompt of the way without
    a correction, and `members` is the median of those of an ensemble. Limits: 95 %, a bootstrap over the texts, which
    compares on the same texts."""
    ways = {way.name: way for way in list_ways(answers, scores, shares)}
    others = {name: Way(name, {}, [predicted]) for name, predicted in references.items()}
    chosen = [row for way in (ways | others).values() for row in measure_way(way, targets, labels)]
    compared = [
        row
        for way in ways.values()
        for reference in (
            *others.values(),
            *list_members(way, answers, scores, shares),
            *([ways[ZERO_SHOT]] if way.about["shots"] else []),
        )
        for row in compare(way, reference, targets, labels)
    ]
    return pd.DataFrame(chosen), pd.DataFrame(compared)


def list_ways(answers: Sequence[Answers], scores: pd.DataFrame, shares: Floats) -> Iterator[Way]:
    """Yield what val chose: without a correction, with any, for each number of shots over the draws, and ensembles."""

    def read(name: str, row: Row) -> Way:
        return Way(name, {column: row[column] for column in ABOUT}, [classify(answers, row, shares)])

    direct = scores[(scores["correction"] == "direct") & (scores["prior"] == "uniform")]
    yield read(DIRECT, choose(direct))
    yield read(ZERO_SHOT, choose(scores))
    val = scores[(scores["split"] == "val") & (scores["correction"] != "batch_transductive")]
    templates = val[val["template"] == ALL]
    if len(templates):
        yield read(TEMPLATES, pick_best(templates, "ensembles of templates"))
    for shots in list_shots(scores):
        row = choose_over_draws(scores, shots) | {"shots": shots}
        rows = select(list_draws(scores), row, "test").to_dict("records")
        yield Way(f"{FEW_SHOT} {shots}", row, [classify(answers, each, shares) for each in rows])
        draws = val[(val["shots"] == shots) & (val["draw"] == ALL)]
        if len(draws):
            yield read(f"{DRAWS} {shots}", pick_best(draws, "ensembles of draws"))


def list_shots(scores: pd.DataFrame) -> list[int]:
    """Return the numbers of shots for which several draws were scored."""
    draws = list_draws(scores).groupby("shots")["draw"].nunique()
    return [int(shots) for shots, n in draws.items() if n > 1]


def select(scores: pd.DataFrame, about: Mapping[str, Any], split: str) -> pd.DataFrame:
    """Return the rows of a split that agree with the names of ABOUT."""
    same = [scores[name] == about[name] for name in ABOUT]
    return scores[np.logical_and.reduce(same) & (scores["split"] == split)]


def classify(answers: Sequence[Answers], row: Mapping[str, Any], shares: Floats) -> Ints:
    """Return the classes (N,) of the test texts that a row of scores names."""
    answer = find_answers(answers, row, "test")
    log_probs = correct(answer.log_probs, answer.b, shares if row["prior"] == "train" else None)
    return np.asarray(log_probs.argmax(axis=1))


def list_members(way: Way, answers: Sequence[Answers], scores: pd.DataFrame, shares: Floats) -> Iterator[Way]:
    """Yield the median member of an ensemble or, of another way, the same prompts without a correction."""
    single, about = list_single(scores), way.about
    if way.name == TEMPLATES:
        rows = pd.concat([select(single, about | {"template": name}, "test") for name in single["template"].unique()])
    elif way.name.startswith(DRAWS):
        rows = select(list_draws(scores), about, "test")
    elif (about["correction"], about["prior"]) != ("direct", "uniform"):
        direct = about | {"correction": "direct", "prior": "uniform"}
        rows = select(list_draws(scores) if about["shots"] else single, direct, "test")
        yield Way("same_prompt", direct, [classify(answers, row, shares) for row in rows.to_dict("records")])
        return
    else:
        return
    yield Way("members", about, [classify(answers, row, shares) for row in rows.to_dict("records")], np.median)


def measure_way(way: Way, targets: Ints, labels: Sequence[str]) -> Iterator[Row]:
    """Yield the scores of a way on test, with limits, and their spread over the draws."""
    limits = bootstrap(lambda weights: average_scores(way, weights, targets, labels), len(targets))
    each = [average_scores(Way("", {}, [one]), np.ones((1, len(targets))), targets, labels) for one in way.predicted]
    for metric in METRICS:
        values = np.array([scores[metric][0] for scores in each])
        low, high = limits[metric] or (np.nan, np.nan)
        spread = {"sd": values.std(ddof=1), "worst": values.min()} if len(values) > 1 else {"sd": np.nan, "worst": np.nan}
        about = {"way": way.name} | {name: way.about.get(name) for name in ABOUT} | {"draws": len(values)}
        value = {"metric": metric, "n": len(targets), "value": way.average(values), "ci_low": low, "ci_high": high}
        yield about | value | spread


def compare(way: Way, reference: Way, targets: Ints, labels: Sequence[str]) -> Iterator[Row]:
    """Yield how far a way is from a reference, by metric, on the same texts."""

    def measure_both(weights: Floats) -> dict[str, Floats]:
        one, other = (average_scores(each, weights, targets, labels) for each in (way, reference))
        return {metric: one[metric] - other[metric] for metric in METRICS}

    limits, all_texts = bootstrap(measure_both, len(targets)), np.ones((1, len(targets)))
    value, reference_value = (average_scores(each, all_texts, targets, labels) for each in (way, reference))
    for metric in METRICS:
        low, high = limits[metric] or (np.nan, np.nan)
        values = {"value": value[metric][0], "reference_value": reference_value[metric][0]}
        about = {"way": way.name, "reference": reference.name, "metric": metric, "n": len(targets)}
        difference = values["value"] - values["reference_value"]
        yield about | values | {"difference": difference, "ci_low": low, "ci_high": high}


def average_scores(way: Way, weights: Floats, targets: Ints, labels: Sequence[str]) -> dict[str, Floats]:
    """Return each metric on each resample, averaged over the draws of a way: weights (draws, N) -> (draws,)."""
    of_draws = [resampled_prediction_metrics(weights, targets, predicted, labels) for predicted in way.predicted]
    return {metric: way.average([scores[metric] for scores in of_draws], axis=0) for metric in METRICS}
