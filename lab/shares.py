"""How much of a class's margin an ablation takes, once confidence is set aside: temperatures, shares and verdicts.

Letters: U ablated networks, N texts, R draws of a fill, K classes, S resamples of the texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax, logsumexp, softmax

from .metrics import Floats, Ints
from .stats import holm, interval, permutation_p, resamples, simultaneous_limits

METRIC = "specific_margin_tempered"
LEAST = 0.05  # share of a class's margin; smaller changes are of no interest
FEWEST = 10  # texts of a class that is judged: fewer show too little of their spread
BOUNDS = (-9, 9)  # of the logarithm of a temperature
SEED = 1  # of the resamples of val: independent of those of the texts that are measured


@dataclass(frozen=True)
class Temperatures:
    """Temperatures of the whole network and then of U ablated ones."""

    fitted: Floats  # (1 + U,)
    resampled: Floats  # (S, 1 + U), over the fitted ones: how other texts of val would change them


def fit_temperatures(baseline: Floats, ablated: Floats, targets: Ints) -> Temperatures:
    """Fit one temperature for each network on texts of val: baseline (N, K), ablated (U, N, R, K), targets int (N,).

    An ablation often makes a network more or less sure of everything. Temperature scaling (Guo et al. 2017, section
    4.2) divides all logits by one number, with which the true classes of held-out texts become most likely. Two
    networks that differ in nothing but how sure they are become the same.

    Where all texts are right with room to spare, ever lower temperatures fit better. But N texts cannot show that
    errors are rarer than about 1 in N: the loss of all N together is not taken below 1 nat."""
    networks = [baseline[:, None], *ablated]
    fitted = np.array([_fit_temperature(_Loss(logits, targets)) for logits in networks])
    N = len(targets)
    at_fit = [_Loss(logits, targets).measure(1 / T) for logits, T in zip(networks, fitted, strict=True)]
    losses, slopes, curvatures = (np.stack(values, axis=1) for values in zip(*at_fit, strict=True))  # (N, 1 + U)
    is_minimum = np.abs(slopes.mean(0)) < 1e-6 * curvatures.mean(0)
    changes = []
    for weights in resamples(N, SEED):
        loss, slope, curvature = (weights @ values / N for values in (losses, slopes, curvatures))
        with np.errstate(divide="ignore", invalid="ignore"):  # one step of Newton's method
            changes.append(np.where(is_minimum, -slope / curvature, (1 / N - loss) / slope))
    return Temperatures(fitted, np.exp(-np.nan_to_num(np.concatenate(changes)).clip(-1, 1)))


class _Loss:
    """The cross-entropy of one network's logits (N, R, K), as a function of the sharpness, 1 / temperature."""

    def __init__(self, logits: Floats, targets: Ints) -> None:
        self.logits, self.classes = logits.astype(np.float64), targets[:, None, None]

    def measure(self, sharpness: float) -> tuple[Floats, Floats, Floats]:
        """Return the loss of each text, mean over the draws, and its first and second derivative by the logarithm of
        the sharpness, (N,) each."""
        scaled = self.logits * sharpness
        log_p = log_softmax(scaled, axis=-1)
        p = np.exp(log_p)
        expected = (p * scaled).sum(-1, keepdims=True)
        slope = expected - np.take_along_axis(scaled, self.classes, axis=-1)
        variance = (p * (scaled - expected) ** 2).sum(-1, keepdims=True)
        loss = -np.take_along_axis(log_p, self.classes, axis=-1)
        return loss.mean((1, 2)), slope.mean((1, 2)), (slope + variance).mean((1, 2))


def _fit_temperature(loss: _Loss) -> float:
    N = len(loss.classes)

    def excess(log_temperature: float) -> float:
        """Return the slope of the mean loss or, if it is more, how much the loss lacks of 1 / N.

        This rises as the temperature falls, and is 0 at the temperature that is wanted."""
        losses, slopes, _ = loss.measure(np.exp(-log_temperature))
        return float(max(slopes.mean(), 1 / N - losses.mean()))

    low, high = BOUNDS
    if excess(high) >= 0:
        return float(np.exp(high))  # the logits say nothing about the classes
    if excess(low) <= 0:
        return float(np.exp(low))
    return float(np.exp(brentq(excess, low, high, xtol=1e-9)))


def temper(networks: Sequence[Floats], temperatures: Floats) -> tuple[Floats, Floats]:
    """Return the log-odds of each class after logits (N, R, K) were divided by a temperature, mean over the draws, and
    their derivative by the logarithm of the sharpness: (networks, N, K) each."""
    log_odds, slopes = [], []
    for logits, temperature in zip(networks, temperatures, strict=True):
        scaled = logits.astype(np.float64) / temperature
        others = np.stack([np.delete(scaled, k, axis=-1) for k in range(scaled.shape[-1])], axis=-2)  # (N, R, K, K - 1)
        log_odds.append((scaled - logsumexp(others, axis=-1)).mean(1))
        slopes.append((scaled - (softmax(others, axis=-1) * others).sum(-1)).mean(1))
    return np.stack(log_odds), np.stack(slopes)


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


def resample_margins(log_odds: Floats, targets: Ints) -> Floats:
    """Return `measure_margins` on each of S resamples of the texts: (S, U, K)."""
    return np.concatenate([measure_margins(log_odds, targets, weights) for weights in resamples(len(targets))])


def measure_shares(
    baseline: Floats,
    ablated: Floats,
    targets: Ints,
    labels: Sequence[str],
    temperatures: Temperatures,
    test: bool,
    least: float = LEAST,
    only: str | None = None,
) -> pd.DataFrame:
    """Return one row per unit and class: the columns of `measure_effects`, and `share, share_low, share_high, verdict`.

    `share` is the effect over the baseline; with `test`, p is `permutation_p` of the change of the log-odds. Intervals
    of effects hold one by one, limits of shares for all U x K at once. They cover other texts, also of those on which
    the temperatures were fitted, but no other seed of training. Classes that the whole network does not tell from the
    others have no share (the limits of their margins, for all K at once, reach 0); classes of fewer than FEWEST texts
    have one without limits. Both stay open, see `judge_shares`. `only`: this class alone, of K = 1."""
    chosen = [labels.index(only)] if only else np.arange(len(labels))
    log_odds, slopes = temper([baseline[:, None], *ablated], temperatures.fitted)  # (1 + U, N, K) each
    margins = measure_margins(log_odds, targets, np.ones((1, len(targets))))[0]  # (1 + U, K)
    drawn = resample_margins(log_odds, targets)
    told, _ = simultaneous_limits(margins[0], drawn[:, 0])  # temperatures change the size of a margin, not its sign
    sharper = 1 / temperatures.resampled - 1  # and log-odds are nearly linear in the sharpness
    drawn += sharper[:, :, None] * resample_margins(slopes, targets)
    low, high = interval(drawn[:, 1:] - drawn[:, :1])
    p = np.full(low.shape, np.nan)
    if test:
        p = permutation_p((log_odds[1:] - log_odds[0]).swapaxes(0, 1), targets)
    n = np.bincount(targets, minlength=len(labels))
    columns = {
        **{"unit": np.arange(len(low))[:, None], "class": np.array(labels), "metric": METRIC, "n": n},
        **{"baseline": margins[0], "ablated": margins[1:], "effect": margins[1:] - margins[0]},
        **{"ci_low": low, "ci_high": high, "p": p},
    }
    of_chosen = {name: np.broadcast_to(column, p.shape)[:, chosen].ravel() for name, column in columns.items()}
    margins = np.where(told > 0, margins, np.nan)
    drawn[:, :, n < FEWEST] = np.nan
    shares = judge_shares(margins[:, chosen], drawn[:, :, chosen], least)
    return pd.DataFrame(of_chosen | {"p_corrected": holm(of_chosen["p"])} | shares)


def judge_shares(margins: Floats, drawn: Floats, least: float) -> dict[str, NDArray[Any]]:
    """Return `share, share_low, share_high, verdict` of U ablations and K classes, (U * K,) each.

    margins: float (1 + U, K), of the whole network and then of each ablated one; drawn: the same on S resamples of the
    texts, (S, 1 + U, K). Where margins are NaN there is no share, and where `drawn` is, it has no limits.

    With thousands of texts nearly any change differs from none, so significance does not say whether it is worth
    knowing. Each share has limits that hold for all U x K at once (`simultaneous_limits`), and is compared with the
    smallest share of interest. An ablation `matters` to a class if both limits lie beyond `least` on one side; it is
    `negligible` if both lie within `least` of 0 (equivalence: Schuirmann 1987); else the matter is `open`."""
    share = margins[1:] / margins[0] - 1
    low, high = simultaneous_limits(share, drawn[:, 1:] / drawn[:, :1] - 1)
    matters, negligible = (low > least) | (high < -least), (low > -least) & (high < least)
    verdict = np.select([matters, negligible], ["matters", "negligible"], "open")
    columns = {"share": share, "share_low": low, "share_high": high, "verdict": verdict}
    return {name: values.ravel() for name, values in columns.items()}
