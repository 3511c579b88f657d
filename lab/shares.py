"""How much of a class's margin an ablation takes, once confidence is set aside: temperatures, shares and verdicts.

Letters: U ablated networks, N texts, R draws of a fill, K classes, S resamples of the texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax

from .effects import read_logits
from .metrics import Floats, Ints
from .stats import holm, interval, permutation_p, resamples, simultaneous_limits

METRIC = "specific_margin_tempered"
LEAST = 0.05  # share of a class's margin; smaller changes are of no interest
FEWEST = 20  # texts of a class that is judged: fewer show too little of their spread
BOUNDS = (-9, 9)  # of the logarithm of a temperature


@dataclass(frozen=True)
class Tempered:
    """Log-odds of each class, mean over the draws, after each network's logits were divided by its temperature."""

    whole: Floats  # (N, K)
    ablated: Floats  # (U, N, K)


def fit_temperatures(logits: Floats, targets: Ints) -> Floats:
    """Fit one temperature for each of U networks: logits float (U, N, R, K), targets int (N,) -> float64 (U,).

    An ablation often makes a network more or less sure of everything. Temperature scaling (Guo et al. 2017, section
    4.2) divides all logits by one number, with which the true classes of held-out texts become most likely. Two
    networks that differ in nothing but how sure they are become the same.

    Where all texts are right with room to spare, ever lower temperatures fit better. But N texts cannot show that
    errors are rarer than about 1 in N: the loss of all N together is not taken below 1 nat."""
    return np.array([_fit_temperature(network.astype(np.float64), targets) for network in logits])


def _fit_temperature(logits: Floats, targets: Ints) -> float:
    """Return the temperature of one network: logits (N, R, K)."""
    classes = targets[:, None, None]
    true = np.take_along_axis(logits, classes, axis=-1)

    def rise_of_loss(log_temperature: float) -> float:
        """Return how the mean loss changes as the logits grow, or how much of 1 / N it lacks, if that is more.

        As the temperature falls this rises, and it is 0 at the temperature that is wanted."""
        sharpness = np.exp(-log_temperature)
        log_p = log_softmax(logits * sharpness, axis=-1)
        rise = (np.exp(log_p) * logits).sum(-1).mean() - true.mean()
        loss = -np.take_along_axis(log_p, classes, axis=-1).mean()
        return float(max(rise, 1 / len(targets) - loss))

    low, high = BOUNDS
    if rise_of_loss(high) >= 0:
        return float(np.exp(high))  # the logits say nothing about the classes
    if rise_of_loss(low) <= 0:
        return float(np.exp(low))
    return float(np.exp(brentq(rise_of_loss, low, high, xtol=1e-9)))


def temper(baseline: Floats, ablated: Floats, temperatures: tuple[float, Floats]) -> Tempered:
    """Divide logits by their temperatures: baseline (N, K), ablated (U, N, R, K), temperatures a number and (U,)."""
    whole, units = temperatures
    return Tempered(
        whole=read_logits(baseline[None, :, None] / whole).log_odds[0],
        ablated=read_logits(ablated / units[:, None, None, None]).log_odds,
    )


def measure_margins(log_odds: Floats, targets: Ints, weights: Floats) -> Floats:
    """Return specific margins: log_odds (U, N, K), targets (N,), weights (S, N) -> (S, U, K).

    That of a class is the mean of its log-odds over its own texts, minus their mean over all others, NaN where there
    are none of either. weights: how often each text counts."""
    margins = np.empty((len(weights), len(log_odds), log_odds.shape[-1]))
    for k in range(log_odds.shape[-1]):
        of_class = weights * (targets == k)  # (S, N)
        others = weights - of_class
        values = log_odds[:, :, k].T  # (N, U)
        with np.errstate(invalid="ignore"):
            margins[:, :, k] = of_class @ values / of_class.sum(1, keepdims=True)
            margins[:, :, k] -= others @ values / others.sum(1, keepdims=True)
    return margins


def measure_shares(
    tempered: Tempered, targets: Ints, labels: Sequence[str], test: bool, least: float, only: str | None = None
) -> pd.DataFrame:
    """Return one row per unit and class: the columns of `measure_effects`, and `share, share_low, share_high, verdict`.

    `share` is the effect over the baseline; with `test`, p is `permutation_p` of the change of the log-odds. Intervals
    of the effects hold one by one, limits of the shares for all U x K at once; neither covers other seeds of training
    or other texts for the temperatures. The verdicts: see `judge_shares`. `only`: this class alone, and U limits."""
    chosen = [labels.index(only)] if only else np.arange(len(labels))
    networks = np.concatenate([tempered.whole[None], tempered.ablated])  # (1 + U, N, K)
    margins = measure_margins(networks, targets, np.ones((1, len(targets))))[0, :, chosen].T  # (1 + U, K)
    drawn = np.concatenate([measure_margins(networks, targets, weights) for weights in resamples(len(targets))])
    drawn, n = drawn[:, :, chosen], np.bincount(targets, minlength=len(labels))[chosen]
    low, high = interval(drawn[:, 1:] - drawn[:, :1])
    p = np.full(low.shape, np.nan)
    if test:
        p = permutation_p((tempered.ablated - tempered.whole).swapaxes(0, 1), targets)[:, chosen]
    columns = {
        "unit": np.arange(len(low))[:, None],
        "class": np.array(labels)[chosen],
        "metric": METRIC,
        "n": n,
        "baseline": margins[0],
        "ablated": margins[1:],
        "effect": margins[1:] - margins[0],
        "ci_low": low,
        "ci_high": high,
        "p": p,
        "p_corrected": holm(p.ravel()).reshape(p.shape),
    }
    columns |= judge_shares(margins, drawn, n, least)
    return pd.DataFrame({name: np.broadcast_to(column, p.shape).ravel() for name, column in columns.items()})


def judge_shares(margins: Floats, drawn: Floats, n: Ints, least: float) -> dict[str, NDArray]:
    """Return `share, share_low, share_high, verdict` of U ablations and K classes, (U, K) each.

    margins: float (1 + U, K), of the whole network and then of each ablated one; drawn: the same on S resamples of the
    texts, (S, 1 + U, K); n: texts of each class, int (K,).

    With thousands of texts nearly any change differs from none, so significance does not say whether it is worth
    knowing. Each share has limits that hold for all U x K at once (`simultaneous_limits`), and is compared with the
    smallest share of interest. An ablation `matters` to a class if both limits lie beyond `least` on one side; it is
    `negligible` if both lie within `least` of 0 (equivalence: Schuirmann 1987); else the matter is `open`.

    Classes that the whole network does not tell from others have no share: the limits of their margins, for all K at
    once, reach 0. Classes of fewer than FEWEST texts have a share without limits."""
    told, _ = simultaneous_limits(margins[0], drawn[:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(told > 0, margins[1:] / margins[0] - 1, np.nan)
        changes = np.where((told > 0) & (n >= FEWEST), drawn[:, 1:] / drawn[:, :1] - 1, np.nan)
    low, high = simultaneous_limits(share, changes)
    matters, negligible = (low > least) | (high < -least), (low > -least) & (high < least)
    verdict = np.select([matters, negligible], ["matters", "negligible"], "open")
    return {"share": share, "share_low": low, "share_high": high, "verdict": verdict}
