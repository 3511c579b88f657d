"""agreement.csv: what raters say, by task, class and method."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lab.texts import OVERALL

from .answers import Session
from .items import RANDOM
from .measures import (
    MISSING,
    Agreement,
    Floats,
    Value,
    average,
    average_together,
    compare_marks,
    count_needed,
    count_pairs,
    expect_random,
    find_detectable,
    measure_agreement,
    measure_kappa,
    measure_share,
)

COLUMNS = ["task", "measure", "class", "method", "raters", "items", "answers", "value", "ci_low", "ci_high", "note"]
MARKS = ("token_f1", "iou", "auprc")
SHARES = (0.6, 0.65, 0.7)  # for which the report says how many choices they need
Row = dict[str, Any]


def tabulate_agreement(sessions: Sequence[Session]) -> pd.DataFrame:
    """Return the table. Answers to other items are answers to other texts, so they are never compared."""
    answers = list_answers(sessions)
    labels = list(dict.fromkeys(label for session in sessions for label in session.items.labels))
    rows = [
        *tabulate_predictions(answers, labels),
        *tabulate_effect(answers, labels),
        *tabulate_choices(answers, labels),
        *tabulate_marks(list_marks(sessions), labels),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def list_answers(sessions: Sequence[Session]) -> pd.DataFrame:
    """Return one row per answer: `rater, part, item, pair, class, pair_class, answer, right, method, against, chosen,
    again`. right: is it the class predicted; again: is it a choice that was asked before."""
    rows = []
    for session in sessions:
        items = session.items
        pair_of = {text: number for number, pair in enumerate(items.pairs) for text in pair}
        seen = set()
        for step in session.steps[: len(session.answers)]:
            answer, text = session.answers[step.name]["answer"], items.texts[step.text]
            number = pair_of.get(step.text, MISSING)
            alike = {items.texts[i].predicted for i in items.pairs[number]}
            rows.append(
                {
                    "rater": session.pseudonym,
                    "part": step.part,
                    "item": f"{items.version} {step.text}",
                    "pair": f"{items.version} {number}",
                    "class": text.predicted,
                    "pair_class": text.predicted if len(alike) == 1 else "",
                    "answer": answer,
                    "right": answer == text.predicted,
                    "method": items.method,
                    "against": items.against,
                    "chosen": {"left": step.left, "right": step.right}.get(str(answer), ""),
                    "again": (step.part, step.text) in seen,
                }
            )
            seen.add((step.part, step.text))
    columns = ["rater", "part", "item", "pair", "class", "pair_class", "answer", "right", "method", "against", "chosen"]
    return pd.DataFrame(rows, columns=[*columns, "again"])


def make_row(task: str, measure: str, label: str, method: Hashable, answers: pd.DataFrame, value: Value) -> Row:
    counts = answers["rater"].nunique(), answers["item"].nunique(), len(answers)
    cells = (task, measure, label, method, *counts, value.value, value.low, value.high, value.note)
    return dict(zip(COLUMNS, cells, strict=True))


def spread(answers: pd.DataFrame, column: str, index: str = "item") -> Floats:
    """Return a column as float (items, raters), NaN where a rater gave no answer."""
    return answers.pivot(index=index, columns="rater", values=column).to_numpy(float)


def encode(answers: pd.DataFrame, column: str, values: Sequence[Any]) -> np.ndarray:
    """Return a column as int (items, raters): the place among these values, or MISSING."""
    codes = answers.assign(code=pd.Categorical(answers[column], values).codes)
    return np.nan_to_num(spread(codes, "code"), nan=MISSING).astype(int)


def tabulate_predictions(answers: pd.DataFrame, labels: Sequence[str]) -> Iterator[Row]:
    """Yield accuracy and agreement before and after; a class agrees as far as raters agree on it or not."""
    for task in ("before", "after"):
        rows = answers[answers["part"] == task]
        for label in (OVERALL, *labels) if len(rows) else ():
            of_class = rows if label == OVERALL else rows[rows["class"] == label]
            yield make_row(task, "accuracy", label, "", of_class, average(spread(of_class, "right")))
            codes = encode(rows, "answer", labels)
            if label == OVERALL:
                yield make_row(task, "kappa", label, "", rows, measure_kappa(codes))
                agreement = measure_agreement(count_pairs(codes, len(labels)))
            else:
                of_label = np.where(codes == MISSING, MISSING, codes == labels.index(label))
                agreement = measure_agreement(count_pairs(of_label, 2))
            yield from tabulate_both(task, label, "", rows, agreement)


def tabulate_both(task: str, label: str, method: Hashable, rows: pd.DataFrame, agreement: Agreement) -> Iterator[Row]:
    yield make_row(task, "alpha_nominal", label, method, rows, agreement.alpha)
    yield make_row(task, "percent_agreement", label, method, rows, agreement.equal)


def tabulate_effect(answers: pd.DataFrame, labels: Sequence[str]) -> Iterator[Row]:
    """Yield accuracy after minus before, paired: of one rater, and two texts that are like each other; and both of
    these alone, where a rater has answered both."""
    before, after = (answers[answers["part"] == part].set_index(["pair", "rater"]) for part in ("before", "after"))
    both = after.join(before["right"].rename("right_before"), how="inner").reset_index()
    if both.empty:
        return
    both[["before", "after"]] = both[["right_before", "right"]].astype(float)
    both["difference"] = both["after"] - both["before"]
    means = dict.fromkeys(("before", "after", "difference"), "mean")
    of_pair = both.groupby("pair").agg(means | {"pair_class": "first"})
    for task in ("before", "after"):
        yield make_row(task, "paired_accuracy", OVERALL, "", both, average(of_pair[[task]].to_numpy()))
    names = [OVERALL, *labels]
    masks = [of_pair["pair_class"].isin([label]) | (label == OVERALL) for label in names]
    values = average_together([of_pair["difference"].where(mask).to_numpy(float) for mask in masks])
    for label, value in zip(names, values, strict=True):
        rows = both if label == OVERALL else both[both["pair_class"] == label]
        yield make_row("after", "effect", label, "", rows, value)


def tabulate_choices(answers: pd.DataFrame, labels: Sequence[str]) -> Iterator[Row]:
    """Yield how often a method was chosen, whether raters agree with each other and with themselves, and power."""
    choices = answers[answers["part"] == "choices"]
    for (method, against), rows in choices.groupby(["method", "against"], sort=False):
        rows, compared = rows.assign(preferred=rows["chosen"] == method), f"{method} against {against}"
        first = rows[~rows["again"]]
        for label in (OVERALL, *labels):
            of_class = first if label == OVERALL else first[first["class"] == label]
            share = measure_share(spread(of_class, "preferred"))
            yield make_row("choices", "preferred", label, compared, of_class, share)
        needed = ", ".join(f"{np.ceil(count_needed(share)):.0f} for a share of {share:.2f}" for share in SHARES)
        detectable = Value(find_detectable(len(first)), note=f"choices needed for 80 % power: {needed}")
        yield make_row("choices", "detectable_share", OVERALL, compared, first, detectable)
        codes = encode(first, "chosen", [method, against])
        yield make_row("choices", "kappa", OVERALL, compared, first, measure_kappa(codes))
        yield from tabulate_both("choices", OVERALL, compared, first, measure_agreement(count_pairs(codes, 2)))
        twice = rows[rows["again"]].merge(first, on=["rater", "item"], suffixes=("", "_first"))
        twice["same"] = twice["chosen"] == twice["chosen_first"]
        yield make_row("choices", "self_agreement", OVERALL, compared, twice, measure_share(spread(twice, "same")))


def list_marks(sessions: Sequence[Session]) -> pd.DataFrame:
    """Return one row per marked text, rater and method: `rater, item, class, marked, method, token_f1, iou, auprc`."""
    rows = []
    for session in sessions:
        for step in (step for step in session.steps[: len(session.answers)] if step.part == "marks"):
            text = session.items.texts[step.text]
            real = np.array(text.real)
            marked = np.isin(np.flatnonzero(real), session.answers[step.name]["answer"])
            item = f"{session.items.version} {step.text}"
            about = {"rater": session.pseudonym, "item": item, "class": text.predicted, "marked": marked}
            for method, values in text.values.items():
                by_chance = expect_random(len(marked), int(marked.sum()))
                scores = by_chance if method == RANDOM else compare_marks(np.array(values)[real], marked)
                rows.append(about | {"method": method} | scores)
    return pd.DataFrame(rows, columns=["rater", "item", "class", "marked", "method", *MARKS])


def tabulate_marks(marks: pd.DataFrame, labels: Sequence[str]) -> Iterator[Row]:
    """Yield how well each method ranks the words that people marked, and what it does better than random values."""
    if marks.empty:
        return
    yield from tabulate_marked(marks[marks["method"] == RANDOM])
    for measure in MARKS:
        for method, rows in marks.groupby("method", sort=False):
            for label in (OVERALL, *labels):
                of_class = rows if label == OVERALL else rows[rows["class"] == label]
                yield make_row("marks", measure, label, method, of_class, average(spread(of_class, measure)))
        means = marks.groupby(["method", "item"], sort=False)[measure].mean().unstack("method")
        better = means.drop(columns=RANDOM).sub(means[RANDOM], axis=0)
        values = average_together([better[method].to_numpy(float) for method in better])
        for method, value in zip(better.columns, values, strict=True):
            yield make_row("marks", f"{measure}_minus_random", OVERALL, method, marks[marks["method"] == method], value)


def tabulate_marked(marks: pd.DataFrame) -> Iterator[Row]:
    """Yield whether raters mark the same words, and as many; marks: one row per text and rater."""
    words, coincidences = [], []
    raters = sorted(marks["rater"].unique())
    for _, rows in marks.groupby("item"):
        by_rater = dict(zip(rows["rater"], rows["marked"], strict=True))
        missing = np.full(len(rows["marked"].iloc[0]), MISSING)
        words.append(np.column_stack([by_rater.get(rater, missing) for rater in raters]).astype(int))
        coincidences.append(count_pairs(words[-1], 2).sum(axis=0))
    yield from tabulate_both("marks", OVERALL, "", marks, measure_agreement(np.array(coincidences)))
    yield make_row("marks", "kappa", OVERALL, "", marks, measure_kappa(np.concatenate(words)))
    counted = marks.assign(n=[marked.sum() for marked in marks["marked"]])
    sizes = sorted(counted["n"].unique())
    alpha = measure_agreement(count_pairs(encode(counted, "n", sizes), len(sizes)), ordinal=True).alpha
    if not alpha.note:
        alpha = Value(alpha.value, alpha.low, alpha.high, "of how many words of a text are marked")
    yield make_row("marks", "alpha_ordinal", OVERALL, "", marks, alpha)
