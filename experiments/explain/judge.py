"""Which method is the most faithful one, which are not surely worse, and which find no more than chance does.

Letters: N texts, R removals, X metrics, M methods, S sizes, D resamples of the texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.removals import REMOVALS
from lab.stats import simultaneous_limits
from lab.texts import OVERALL

from .attributions import Floats
from .limits import average, limit_means, resample_means
from .methods import METHODS
from .rationales import KINDS, METRICS, SIZES

RANDOM_NETWORK, GREEDY = "random_network", "greedy"
MEASURED = (*METHODS, RANDOM_NETWORK, GREEDY)
LOG_ODDS = [f"{kind}_log_odds" for kind in KINDS]
ROUNDING = 1e-4  # log-odds, or share of the search: where nothing differs, fp32 makes less of it
CELL = ["removal", "metric", "method"]
TABLE = ["method", "removal", "metric", "size", "class", "n", "value", "random", "difference", "ci_low", "ci_high"]


@dataclass(frozen=True, eq=False)
class Losses:
    """What N predictions lose, NaN where a text has fewer tokens than the size."""

    values: Floats  # (N, R, X, M + 1, S), by MEASURED and then the mean random rationale
    tokens: Floats  # (N, S), of the rationale
    predicted: NDArray[np.integer]  # (N,), class numbers

    @property
    def differences(self) -> Floats:
        """What they lose more than by random rationales: (N, R, X, M, S)."""
        return self.values[:, :, :, :-1] - self.values[:, :, :, -1:]


def is_circular(method: str, removal: str) -> bool:
    """Return whether the removal that judges a method is the one that made it."""
    return method in METHODS and METHODS[method].removal == removal


def tabulate_losses(losses: Losses, labels: Sequence[str]) -> pd.DataFrame:
    """Return one row per class, size, removal, metric and method: means over the texts that are predicted to be of the
    class. Limits are those of the difference, and hold for all methods of the same class, size, removal and metric."""
    index = pd.MultiIndex.from_product([REMOVALS, METRICS, MEASURED], names=CELL)
    circular = [is_circular(method, removal) for removal, _, method in index]
    tables = []
    for k, label in enumerate([OVERALL, *labels], start=-1):
        for s, size in enumerate(SIZES):
            texts = ~np.isnan(losses.tokens[:, s]) & (losses.predicted == k if k >= 0 else True)
            values, differences = losses.values[texts, ..., s], losses.differences[texts, ..., s]
            low, high = limit_means(differences)
            columns = {
                "value": average(values[:, :, :, :-1]),
                "random": np.broadcast_to(average(values[:, :, :, -1:]), low.shape),
                "difference": average(differences),
                "ci_low": low,
                "ci_high": high,
            }
            table = pd.DataFrame({name: column.ravel() for name, column in columns.items()}, index=index)
            table = table.assign(
                size=size, n=int(texts.sum()), circular=circular, tokens=average(losses.tokens[texts, s])
            )
            tables.append(table.assign(**{"class": label}).reset_index())
    return pd.concat(tables, ignore_index=True)[[*TABLE, "circular", "tokens"]]


def judge_methods(losses: Losses) -> pd.DataFrame:
    """Return one row per method, without the search: `method, verdict, score, comprehensiveness, sufficiency,
    better_in, judged_in, best, tied, score_difference, score_low, score_high`.

    What counts are log-odds, AOPC, all texts, and the removals that did not make the method. Limits hold for all
    methods, removals and kinds at once: else a method could be better somewhere by chance. A method is `better` than
    random where the limits say so in all of judged_in cells (removal and kind), `no better` where in none; `not judged`
    where there are too few texts for limits. `comprehensiveness` is the share of what the search reaches over random,
    mean over the removals in which the search surely reaches anything; `score` is the mean of it and the same of
    sufficiency. One method is surely above another by limits that hold for all pairs at once, as the same texts choose
    the best, and on the removals that judge both, as others may be easier: `score_difference, score_low, score_high`
    compare with the best in this way. The best is, of METHODS that are not `no better` and that no other such method is
    surely above, the one with the largest score. `tied` with it are those that it is not surely above either."""
    columns = [METRICS.index(metric) for metric in LOG_ODDS]
    differences = losses.differences[..., -1][:, :, columns]  # (N, R, 2, M + the search)
    low, high = (
        limit.reshape(differences.shape[1:]) for limit in limit_means(differences.reshape(len(differences), -1))
    )
    circular = np.array([[is_circular(method, removal) for method in MEASURED] for removal in REMOVALS])[:, None]
    better = np.stack([low[:, 0] > ROUNDING, high[:, 1] < -ROUNDING], axis=1)  # (R, 2, M)
    judged = (~np.isnan(low) & ~circular)[..., :-1]
    better_in, judged_in = (better[..., :-1] & judged).sum(axis=(0, 1)), judged.sum(axis=(0, 1))
    counted = judged & better[..., -1:]
    by_kind = average_counted(divide_by_search(differences.mean(axis=0)), counted)  # (2, M)
    conditions = [judged_in == 0, better_in == judged_in, better_in > 0]
    verdicts = np.select(conditions, ["not judged", "better", "partly"], "no better")
    judgements = pd.DataFrame({"method": MEASURED[:-1], "verdict": verdicts, "score": by_kind.mean(axis=0)})
    judgements = judgements.assign(comprehensiveness=by_kind[0], sufficiency=by_kind[1])
    judgements = judgements.assign(better_in=better_in, judged_in=judged_in)
    return judgements.assign(**compare_with_best(judgements, differences, counted))


def divide_by_search(differences: Floats) -> Floats:
    """Return the shares of what the search, the last one, reaches: (..., M + 1) -> (..., M)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return differences[..., :-1] / differences[..., -1:]


def average_counted(values: Floats, counted: NDArray[np.bool_]) -> Floats:
    """Return the mean over the removals that count: values (..., R, 2, M), counted (R, 2, M) -> (..., 2, M)."""
    with np.errstate(invalid="ignore"):
        return np.where(counted, values, 0).sum(axis=-3) / counted.sum(axis=0)


def compare_with_best(
    judgements: pd.DataFrame, differences: Floats, counted: NDArray[np.bool_]
) -> dict[str, NDArray[np.generic]]:
    """Return `best, tied, score_difference, score_low, score_high` of each method: differences (N, R, 2, M + 1)."""
    scores = judgements["score"].to_numpy()
    candidates = judgements["method"].isin(list(METHODS)) & judgements["verdict"].isin(["better", "partly"])
    candidates = candidates.to_numpy() & ~np.isnan(scores)
    if not candidates.any():
        columns = ("score_difference", "score_low", "score_high")
        return {"best": candidates, "tied": candidates, **{name: np.full(len(scores), np.nan) for name in columns}}
    means = compare_pairs(divide_by_search(differences.mean(axis=0)), counted)
    resampled = compare_pairs(divide_by_search(resample_means(differences)), counted)
    low, high = simultaneous_limits(means, resampled, np.full(means.shape, len(differences)))
    unbeaten = candidates & ~(low[candidates] > ROUNDING).any(axis=0)
    best = int(np.where(unbeaten if unbeaten.any() else candidates, scores, -np.inf).argmax())
    return {
        "best": np.arange(len(scores)) == best,
        "tied": (judgements["verdict"] != "no better").to_numpy() & ~np.isnan(scores) & ~(high[:, best] < -ROUNDING),
        "score_difference": means[:, best],
        "score_low": low[:, best],
        "score_high": high[:, best],
    }


def compare_pairs(shares: Floats, counted: NDArray[np.bool_]) -> Floats:
    """Return how far each method is above each other one, on the removals that count for both: shares (..., R, 2, M),
    counted (R, 2, M) -> (..., M, M)."""
    both = counted[..., :, None] & counted[..., None, :]
    above = shares[..., :, None] - shares[..., None, :]
    with np.errstate(invalid="ignore"):
        return (np.where(both, above, 0).sum(axis=-4) / both.sum(axis=0)).mean(axis=-3)
