"""The tables of what prompts answer: scores, priors, and the predictions of the prompt that val chose.

Letters: N texts, K classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import entr

from lab.metrics import Ints, resampled_metrics, resampled_prediction_metrics
from lab.stats import interval, resamples
from lab.texts import Texts

from .priors import Floats, correct
from .scoring import ALL, ORDERED, Answers

PRIORS = ("uniform", "train")
KEY = ["template", "verbalizer", "shots", "draw", "order", "last_class", "correction"]  # of a row of scores, and prior
SEEN_BEFORE = "batch_transductive"  # the correction that looks at the texts to be classified
Row = dict[str, Any]


def tabulate_scores(
    answers: Sequence[Answers], targets: Mapping[str, Ints], labels: Sequence[str], shares: Floats, model: str
) -> pd.DataFrame:
    """Return two rows per answer, with all classes alike and with their shares in train as the prior: `model, template,
    verbalizer, shots, draw, order, last_class, correction, prior, split, n, accuracy, macro_f1, auc, ece, ci_low,
    ci_high, predicted_share_<label>..., label_mass, entropy`.

    targets: class numbers (N,) by split; shares: of each class in train (K,). The limits are those of macro-F1: a 95 %
    bootstrap over the texts, with the same resamples for all rows. `auc`: one class against the rest, mean over the
    classes that are defined. `label_mass`: probability of all label words together, mean over the texts; NaN for the
    channel, which does not ask for it, and for ensembles, whose members have theirs. `entropy`: of the corrected class
    probabilities, mean in nats."""
    weights = {split: np.concatenate([*resamples(len(each))]) for split, each in targets.items()}
    rows = []
    for answer in answers:
        key = {"model": model} | {name: getattr(answer, name) for name in KEY}
        has_mass = answer.correction != "channel" and ALL not in (answer.template, answer.draw)
        mass = np.exp(answer.log_probs).sum(axis=1).mean() if has_mass else np.nan
        for prior in PRIORS:
            log_probs = correct(answer.log_probs, answer.b, shares if prior == "train" else None)
            scores = score(log_probs, targets[answer.split], labels, weights[answer.split])
            entropy = scores.pop("entropy")
            about = {"prior": prior, "split": answer.split, "n": len(log_probs)}
            rows.append(key | about | scores | {"label_mass": mass, "entropy": entropy})
    return pd.DataFrame(rows)


def score(log_probs: Floats, targets: Ints, labels: Sequence[str], weights: NDArray[np.floating]) -> Row:
    """Return the scores of corrected log-probabilities (N, K) as a part of a row; weights: resamples (draws, N)."""
    probabilities, predicted = np.exp(log_probs), log_probs.argmax(axis=1)
    scores = resampled_metrics(np.ones((1, len(targets))), targets, probabilities, labels)
    low, high = interval(resampled_prediction_metrics(weights, targets, predicted, labels)["macro_f1"])
    predicted_shares = np.bincount(predicted, minlength=len(labels)) / len(predicted)
    return {
        "accuracy": scores["accuracy"][0],
        "macro_f1": scores["macro_f1"][0],
        "auc": scores["macro_roc_auc"][0],
        "ece": scores["ece"][0],
        "ci_low": low,
        "ci_high": high,
        **{f"predicted_share_{label}": share for label, share in zip(labels, predicted_shares, strict=True)},
        "entropy": entr(probabilities).sum(axis=1).mean(),
    }


def tabulate_biases(answers: Sequence[Answers], labels: Sequence[str]) -> pd.DataFrame:
    """Return the prior of each answer that has one: `template, verbalizer, shots, draw, order, source, split,
    b_<label>...`, where the source is the correction."""
    names = ["template", "verbalizer", "shots", "draw", "order", "source", "split"]
    rows = []
    for answer in answers:
        if answer.correction not in ("direct", "channel"):
            about = [getattr(answer, "correction" if name == "source" else name) for name in names]
            rows.append([*about, *answer.b])
    return pd.DataFrame(rows, columns=[*names, *(f"b_{label}" for label in labels)])


def choose(scores: pd.DataFrame, shots: int = 0) -> Row:
    """Return the row of scores that is best by macro-F1 on val, the first of equals. Test has no say.

    Ensembles do not stand for election, as they are fixed beforehand; nor do the transductive correction and the orders
    of one set of examples, which are studied apart. Raises ValueError where no row is left."""
    val = list_single(scores[(scores["split"] == "val") & (scores["shots"] == shots)])
    return pick_best(val, f"{shots} shots")


def choose_over_draws(scores: pd.DataFrame, shots: int) -> Row:
    """Return `template, verbalizer, correction, prior` that are best by mean macro-F1 on val over the draws.

    Nobody can choose a draw in advance: so the draws are averaged, and the way to ask is chosen. Raises ValueError
    where there are none."""
    val = list_draws(scores[(scores["split"] == "val") & (scores["shots"] == shots)])
    names = ["template", "verbalizer", "correction", "prior"]
    return pick_best(val.groupby(names, sort=False)["macro_f1"].mean().reset_index(), f"draws of {shots} shots")


def pick_best(val: pd.DataFrame, what: str) -> Row:
    """Return the row of largest macro-F1, the first of equals. Raises ValueError for an empty table."""
    if val.empty:
        raise ValueError(f"expected scores of {what} on val, got none")
    return {str(name): value for name, value in val.iloc[int(val["macro_f1"].argmax())].items()}


def choose_template(scores: pd.DataFrame) -> str:
    """Return the name of the template that is best without examples, by macro-F1 on val."""
    return str(choose(scores)["template"])


def list_single(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are neither an ensemble, nor transductive, nor another order of the same examples."""
    ensemble = (scores["template"] == ALL) | (scores["draw"] == ALL)
    return scores.loc[~ensemble & (scores["draw"] != ORDERED) & (scores["correction"] != SEEN_BEFORE)]


def list_draws(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of single settings with random examples."""
    single = list_single(scores)
    return single.loc[single["draw"].str.isdigit()]


def list_shots(scores: pd.DataFrame) -> list[int]:
    """Return the numbers of examples of each class that were drawn at random."""
    return sorted(scores.loc[scores["draw"].str.isdigit(), "shots"].unique().tolist())


def list_orders(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the settings that differ in the order of their examples alone."""
    return scores.loc[scores["draw"] == ORDERED]


def find_answers(answers: Sequence[Answers], row: Mapping[Any, Any], split: str) -> Answers:
    """Return the answers that a row of scores is about, on a split."""
    return next(
        each for each in answers if each.split == split and all(getattr(each, name) == row[name] for name in KEY)
    )


def tabulate_predictions(
    answers: Sequence[Answers],
    chosen: Mapping[Any, Any],
    texts: Mapping[str, Texts],
    labels: Sequence[str],
    shares: Floats,
) -> pd.DataFrame:
    """Return what the chosen row of scores predicts, one row per text: `split, index, text, label, predicted,
    lp_<label>..., b_<label>..., direct`.

    `direct`: the class that the same prompt names without a correction. `index` counts the texts of the split."""
    tables = []
    for split, each in texts.items():
        answer = find_answers(answers, chosen, split)
        corrected = correct(answer.log_probs, answer.b, shares if chosen["prior"] == "train" else None)
        direct = find_direct(answers, chosen, split).log_probs
        names = np.array(labels, dtype=object)
        columns = {
            "split": split,
            "index": each.positions,
            "text": each.strings,
            "label": names[each.targets],
            "predicted": names[corrected.argmax(axis=1)],
        }
        columns |= {f"lp_{label}": column for label, column in zip(labels, answer.log_probs.T, strict=True)}
        columns |= {f"b_{label}": b for label, b in zip(labels, answer.b, strict=True)}
        tables.append(pd.DataFrame(columns | {"direct": names[direct.argmax(axis=1)]}))
    return pd.concat(tables, ignore_index=True)


def find_direct(answers: Sequence[Answers], row: Mapping[Any, Any], split: str) -> Answers:
    """Return what the prompt of a row of scores says without a correction."""
    return find_answers(answers, {**row, "correction": "direct"}, split)
