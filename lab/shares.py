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
FEWEST = 10  # texts that a verdict rests on: fewer show too little of their spread
FEWEST_VAL = 40  # texts of val on which temperatures are known well enough to judge anything
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

    Where nearly all texts are right, the best temperature hangs on the few that are not, or there is none, because
    ever lower ones fit better. So the mean loss is not taken below `find_floor`: 10 nats of all texts together.
    Of fewer than FEWEST_VAL texts, `resampled` is NaN: how other texts would change the fit is not known."""
    fitted, at_fit = [], []
    for logits in (baseline[:, None], *ablated):
        network_loss = _Loss(logits, targets)
        fitted.append(_fit_temperature(network_loss))
        at_fit.append(network_loss.measure(1 / fitted[-1]))
    N, floor = len(targets), find_floor(len(targets))
    losses, slopes, curvatures = (np.stack(values, axis=1) for values in zip(*at_fit, strict=True))  # (N, 1 + U)
    is_minimum = np.abs(slopes.mean(0)) < 1e-6 * curvatures.mean(0)
    changes = []
    for weights in resamples(N, SEED):
        loss, slope, curvature = (weights @ values / N for values in (losses, slopes, curvatures))
        with np.errstate(divide="ignore", invalid="ignore"):  # one step of Newton's method
            changes.append(np.where(is_minimum, -slope / curvature, (floor - loss) / slope))
    drift = np.exp(-np.nan_to_num(np.concatenate(changes)).clip(-1, 1))
    return Temperatures(np.array(fitted), drift if N >= FEWEST_VAL else np.full_like(drift, np.nan))


def leave_as_they_are(ablated: Floats) -> Temperatures:
    """Return temperatures of 1, which change nothing, of the whole network and of U ablated ones."""
    return Temperatures(np.ones(1 + len(ablated)), np.ones((1, 1 + len(ablated))))


def find_floor(n: int) -> float:
    """Return the mean loss (nats) below which n texts cannot say how sure a network may be."""
    return min(10 / n, 0.1)


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
    floor = find_floor(len(loss.classes))

    def excess(log_temperature: float) -> float:
        """Return the slope of the mean loss or, if it is more, how much the loss lacks of the floor.

        This rises as the temperature falls, and is 0 at the temperature that is wanted."""
        losses, slopes, _ = loss.measure(np.exp(-log_temperature))
        return float(max(slopes.mean(), floor - losses.mean()))

    low, high = BOUNDS
    if excess(high) >= 0:
        return float(np.exp(high))  # the logits say nothing about the classes
    if excess(low) <= 0:
        return float(np.exp(low))
    return float(np.exp(brentq(excess, low, high, xtol=1e-9)))


def temper(networks: Sequence[Floats], temperatures: Floats) -> tuple[Floats, Floats]:
    """Return the log-odds of each class after logits (N, R, K) were divided by a temperature, mean over the draws, and
    their derivative by the logarithm of the sharpness: (networks, N, K) each."""
    shape = len(networks), len(networks[0]), networks[0].shape[-1]
    log_odds, slopes = np.empty(shape), np.empty(shape)
    for u, (logits, temperature) in enumerate(zip(networks, temperatures, strict=True)):
        scaled = logits.astype(np.float64) / temperature
        for k in range(shape[-1]):
            others = np.delete(scaled, k, axis=-1)  # (N, R, K - 1)
            log_odds[u, :, k] = (scaled[..., k] - logsumexp(others, axis=-1)).mean(1)
            slopes[u, :, k] = (scaled[..., k] - (softmax(others, axis=-1) * others).sum(-1)).mean(1)
    return log_odds, slopes


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


def tabulate_shares(
    baseline: Floats, ablated: Floats, targets: Ints, labels: Sequence[str], temperatures: Temperatures | None = None
) -> pd.DataFrame:
    """Return one row per unit and class: `unit, class, metric, n, baseline, ablated, effect, share`.

    `baseline` and `ablated` are specific margins of tempered logits; `share` is the effect over the baseline. Without
    temperatures, the logits stay as they are, and how sure the networks are counts as well."""
    log_odds, _ = temper([baseline[:, None], *ablated], (temperatures or leave_as_they_are(ablated)).fitted)
    margins = measure_margins(log_odds, targets, np.ones((1, len(targets))))[0]
    return _tabulate(margins, targets, labels, is_tempered=temperatures is not None)


def _tabulate(margins: Floats, targets: Ints, labels: Sequence[str], is_tempered: bool) -> pd.DataFrame:
    """Return the table of margins (1 + U, K), those of the whole network first."""
    columns = {
        "unit": np.arange(len(margins) - 1)[:, None],
        "class": np.array(labels),
        "metric": METRIC if is_tempered else "specific_margin",
        "n": np.bincount(targets, minlength=len(labels)),
        "baseline": margins[0],
        "ablated": margins[1:],
        "effect": margins[1:] - margins[0],
        "share": margins[1:] / margins[0] - 1,
    }
    shape = margins[1:].shape
    return pd.DataFrame({name: np.broadcast_to(column, shape).ravel() for name, column in columns.items()})


def measure_shares(
    baseline: Floats,
    ablated: Floats,
    targets: Ints,
    labels: Sequence[str],
    temperatures: Temperatures | None = None,
    least: float = LEAST,
    only: str | None = None,
    permute: bool = True,
) -> pd.DataFrame:
    """Return `tabulate_shares` of test with `ci_low, ci_high, p, p_corrected, share_low, share_high, verdict`.

    p is `permutation_p` of the change of the log-odds, unless `permute` is False. Intervals of effects hold one by one,
    limits of shares for all U x K at once. They cover other texts, also of those of val, on which the temperatures were
    fitted, but no other seed of training. Classes that the whole network does not tell from the others have no share
    (the limits of their margins, for all K at once, reach 0); classes of fewer than FEWEST texts have one without
    limits. Both stay open, see `judge_shares`. `only`: this class alone, of K = 1."""
    tempering = temperatures or leave_as_they_are(ablated)
    log_odds, slopes = temper([baseline[:, None], *ablated], tempering.fitted)  # (1 + U, N, K) each
    margins = measure_margins(log_odds, targets, np.ones((1, len(targets))))[0]  # (1 + U, K)
    drawn = resample_margins(log_odds, targets)
    lowest, _ = simultaneous_limits(margins[0], drawn[:, 0])  # before: temperatures never change the sign of a margin
    drawn += (1 / tempering.resampled - 1)[:, :, None] * resample_margins(slopes, targets)  # nearly linear in it
    ci_low, ci_high = interval(drawn[:, 1:] - drawn[:, :1])
    p = permutation_p((log_odds[1:] - log_odds[0]).swapaxes(0, 1), targets) if permute else np.nan * ci_low
    columns = {"ci_low": ci_low, "ci_high": ci_high, "p": p}
    table = _tabulate(margins, targets, labels, is_tempered=temperatures is not None)
    table = table.assign(**{name: values.ravel() for name, values in columns.items()})
    margins = np.where(lowest > 0, margins, np.nan)
    drawn[:, :, np.bincount(targets, minlength=len(labels)) < FEWEST] = np.nan
    if only:
        k = labels.index(only)
        table, margins, drawn = table[table["class"] == only].reset_index(drop=True), margins[:, [k]], drawn[:, :, [k]]
    return table.assign(p_corrected=holm(table["p"].to_numpy()), **judge_shares(margins, drawn, least))


def judge_shares(margins: Floats, drawn: Floats, least: float) -> dict[str, NDArray[Any]]:
    """Return `share, share_low, share_high, verdict` of U ablations and K classes, (U * K,) each.

    margins: float (1 + U, K), of the whole network and then of each ablated one; drawn: the same on S resamples of the
    texts, (S, 1 + U, K). Where margins are NaN there is no share, and where `drawn` is, it has no limits.

    With thousands of texts nearly any change differs from none, so significance does not say whether it is worth
    knowing. Each share has limits that hold for all U x K at once (`simultaneous_limits`), and is compared with the
    smallest share of interest, see `judge_limits`."""
    share = margins[1:] / margins[0] - 1
    low, high = simultaneous_limits(share, drawn[:, 1:] / drawn[:, :1] - 1)
    columns = {"share": share, "share_low": low, "share_high": high, "verdict": judge_limits(low, high, least)}
    return {name: values.ravel() for name, values in columns.items()}


def judge_limits(low: Floats, high: Floats, least: float) -> NDArray[np.str_]:
    """Return the verdict on each share, by its limits: it `matters` if both lie beyond `least` on one side; it is
    `negligible` if both lie within `least` of 0 (equivalence: Schuirmann 1987); else, or without limits, `open`."""
    matters, negligible = (low > least) | (high < -least), (low > -least) & (high < least)
    return np.select([matters, negligible], ["matters", "negligible"], "open")
