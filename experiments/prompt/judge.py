"""Is prompting better than no reading at all? What val chose, on test, beside the most frequent class and others.

Letters: N texts, K classes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.baselines import best_bag_of_words
from lab.metrics import Ints, resampled_prediction_metrics
from lab.predict import predict
from lab.stats import bootstrap
from lab.study import Study
from lab.texts import Texts

from .priors import Floats, correct
from .scoring import ALL, Answers
from .tables import (
    SEEN_BEFORE,
    Row,
    choose,
    choose_over_draws,
    find_answers,
    list_draws,
    list_shots,
    list_single,
    pick_best,
)

MAJORITY, BAG, CLASSIFIER = "majority", "bag_of_words", "classifier"  # ways that read no prompt
DIRECT, ZERO_SHOT, FEW_SHOT, TEMPLATES, DRAWS = "direct", "zero_shot", "few_shot", "all_templates", "all_draws"
SAME_PROMPT, MEMBERS, CHANCE = "same_prompt", "members", "chance"  # what a way is compared with, besides
PERMUTATIONS = 1000
METRICS = ("macro_f1", "accuracy")
Weights = NDArray[np.floating]  # how often each text was drawn, and what is computed from it
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
        read = study.texts["test"].select(test.positions)  # prompts where the run was trained on these
        references[CLASSIFIER] = predict(study.clf, read.sequences, study.device).argmax(axis=1)
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
    worst`; ways `direct` and `zero_shot` (the best prompt without a correction, and the best of all, without examples),
    `few_shot` (the best way to ask, mean over the draws), `all_templates`, `all_draws` (ensembles), and the references.

    The second: `way, shots, reference, metric, n, value, reference_value, difference, ci_low, ci_high`. References:
    those of `predict_references`; `same_prompt`, without a correction; `members`, the median member of an ensemble;
    `zero_shot`; and `chance`, the same predictions dealt out to the texts at random. Limits: 95 %, a bootstrap over the
    texts, where both are resampled together; for chance, over 1,000 deals."""
    ways = list(list_ways(answers, scores, shares))
    others = [Way(name, {}, [predicted]) for name, predicted in references.items()]
    chosen = [row for way in (*ways, *others) for row in measure_way(way, targets, labels)]
    compared: list[Row] = []
    for way in ways:
        best = [other for other in ways if other.name == ZERO_SHOT and way.about["shots"]]
        for reference in (*others, *list_members(way, answers, scores, shares), *best):
            compared += compare(way, reference, targets, labels)
        compared += compare_with_chance(way, targets, labels)
    return pd.DataFrame(chosen).astype({"shots": "Int64"}), pd.DataFrame(compared)


def list_ways(answers: Sequence[Answers], scores: pd.DataFrame, shares: Floats) -> Iterator[Way]:
    """Yield what val chose: without a correction, with any, for each number of shots over the draws, and ensembles."""

    def read(name: str, row: Row) -> Way:
        return Way(name, {column: row[column] for column in ABOUT}, [classify(answers, row, shares)])

    direct = scores[(scores["correction"] == "direct") & (scores["prior"] == "uniform")]
    yield read(DIRECT, choose(direct))
    yield read(ZERO_SHOT, choose(scores))
    val = scores[(scores["split"] == "val") & (scores["correction"] != SEEN_BEFORE)]
    templates = val[val["template"] == ALL]
    if len(templates):
        yield read(TEMPLATES, pick_best(templates, "ensembles of templates"))
    for shots in list_shots(scores):
        row = choose_over_draws(scores, shots) | {"shots": shots}
        rows = select(list_draws(scores), row, "test").to_dict("records")
        yield Way(FEW_SHOT, row, [classify(answers, each, shares) for each in rows])
        draws = val[(val["shots"] == shots) & (val["draw"] == ALL)]
        if len(draws):
            yield read(DRAWS, pick_best(draws, "ensembles of draws"))


def select(scores: pd.DataFrame, about: Mapping[Any, Any], split: str) -> pd.DataFrame:
    """Return the rows of a split that agree with the names of ABOUT."""
    same = [scores[name] == about[name] for name in ABOUT]
    return scores[np.logical_and.reduce(same) & (scores["split"] == split)]


def classify(answers: Sequence[Answers], row: Mapping[Any, Any], shares: Floats) -> Ints:
    """Return the classes (N,) of the test texts that a row of scores names."""
    answer = find_answers(answers, row, "test")
    log_probs = correct(answer.log_probs, answer.b, shares if row["prior"] == "train" else None)
    return np.asarray(log_probs.argmax(axis=1))


def list_members(way: Way, answers: Sequence[Answers], scores: pd.DataFrame, shares: Floats) -> Iterator[Way]:
    """Yield the median member of an ensemble; of another way, the same prompts without a correction, if it has one."""
    single, about = list_single(scores), way.about
    of_draws = list_draws(scores) if about["shots"] else single

    def read(name: str, rows: pd.DataFrame, average: Callable[..., Any]) -> Way:
        return Way(name, about, [classify(answers, row, shares) for row in rows.to_dict("records")], average)

    if way.name == TEMPLATES:
        rows = [select(single, about | {"template": name}, "test") for name in single["template"].unique()]
        yield read(MEMBERS, pd.concat(rows), np.median)
    elif way.name == DRAWS:
        yield read(MEMBERS, select(of_draws, about, "test"), np.median)
    elif (about["correction"], about["prior"]) != ("direct", "uniform"):
        direct = about | {"correction": "direct", "prior": "uniform"}
        yield read(SAME_PROMPT, select(of_draws, direct, "test"), np.mean)


def measure_way(way: Way, targets: Ints, labels: Sequence[str]) -> Iterator[Row]:
    """Yield the scores of a way on test, with limits, and their spread over the draws."""
    limits = bootstrap(lambda weights: average_scores(way, weights, targets, labels), len(targets))
    for metric, value in score_once(way, targets, labels).items():
        each = [score_once(Way("", {}, [one]), targets, labels)[metric] for one in way.predicted]
        low, high = limits[metric] or (np.nan, np.nan)
        several = len(each) > 1
        yield {
            "way": way.name,
            **{name: way.about.get(name) for name in ABOUT},
            "draws": len(each),
            **{"metric": metric, "n": len(targets), "value": value, "ci_low": low, "ci_high": high},
            "sd": np.std(each, ddof=1) if several else np.nan,
            "worst": min(each) if several else np.nan,
        }


def compare(way: Way, reference: Way, targets: Ints, labels: Sequence[str]) -> Iterator[Row]:
    """Yield how far a way is from a reference, by metric, on the same texts."""

    def subtract(weights: Weights) -> Mapping[str, Weights]:
        one, other = (average_scores(each, weights, targets, labels) for each in (way, reference))
        return {metric: one[metric] - other[metric] for metric in METRICS}

    limits, other = bootstrap(subtract, len(targets)), score_once(reference, targets, labels)
    for metric, value in score_once(way, targets, labels).items():
        low, high = limits[metric] or (np.nan, np.nan)
        yield describe_difference(way, reference.name, metric, len(targets), value, other[metric], low, high)


def compare_with_chance(way: Way, targets: Ints, labels: Sequence[str]) -> Iterator[Row]:
    """Yield how far a way is from the same predictions dealt out to the texts at random.

    Who names all classes alike often has a larger macro-F1 than the most frequent class, without reading a word."""
    deals = np.random.default_rng(0).permuted(np.tile(targets, (PERMUTATIONS, 1)), axis=1)  # which is dealt is the same
    scores = [score_deals(predicted, deals, len(labels)) for predicted in way.predicted]
    for metric, value in score_once(way, targets, labels).items():
        dealt = way.average([of_draw[metric] for of_draw in scores], axis=0)
        low, high = value - np.quantile(dealt, 0.975), value - np.quantile(dealt, 0.025)
        yield describe_difference(way, CHANCE, metric, len(targets), value, dealt.mean(), low, high)


def score_deals(predicted: Ints, deals: Ints, K: int) -> dict[str, Weights]:
    """Return each metric of predictions (N,) under each of several assignments of the classes, deals (R, N): (R,)."""
    hits = np.stack([((deals == k) & (predicted == k)).sum(axis=1) for k in range(K)], axis=1)  # (R, K)
    occurs = np.bincount(deals[0], minlength=K) + np.bincount(predicted, minlength=K)
    f1 = 2 * hits[:, occurs > 0] / occurs[occurs > 0]
    return {"macro_f1": f1.mean(axis=1), "accuracy": hits.sum(axis=1) / len(predicted)}


def describe_difference(
    way: Way, reference: str, metric: str, n: int, value: float, other: float, low: float, high: float
) -> Row:
    """Return a row of the table of differences."""
    about = {"way": way.name, "shots": way.about["shots"], "reference": reference, "metric": metric, "n": n}
    values = {"value": value, "reference_value": other, "difference": value - other}
    return about | values | {"ci_low": low, "ci_high": high}


def score_once(way: Way, targets: Ints, labels: Sequence[str]) -> dict[str, float]:
    """Return each metric of a way on the texts as they are."""
    scores = average_scores(way, np.ones((1, len(targets))), targets, labels)
    return {metric: float(scores[metric][0]) for metric in METRICS}


def average_scores(way: Way, weights: Weights, targets: Ints, labels: Sequence[str]) -> dict[str, Weights]:
    """Return each metric on each resample, averaged over the draws of a way: weights (draws, N) -> (draws,)."""
    of_draws = [resampled_prediction_metrics(weights, targets, predicted, labels) for predicted in way.predicted]
    return {metric: way.average([scores[metric] for scores in of_draws], axis=0) for metric in METRICS}
