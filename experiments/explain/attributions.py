"""What each token adds to the logit of a class, by formulas that take any network as a function.

A network is given in one of two ways. `Read` maps embeddings to logits and can be differentiated. `Keep` maps choices
of tokens to logits: what the network says where only the chosen tokens are left. So each formula can be tested on a
function whose answer is known in closed form.

Letters: T tokens, C width, K classes, N choices, n players (words).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import factorial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.floating]
Read = Callable[[Tensor], Tensor]  # embeddings (B, T, C) -> logits (B, K)
Keep = Callable[[NDArray[np.bool_]], Floats]  # kept (N, T) -> logits (N, K)

STRETCHES, NODES = 4, 7  # of the way of integration at first, and points on each
MOST_NODES = 400
TOLERANCE = 0.01  # of the gap, or of SMALL_GAP where that is larger
SMALL_GAP = 0.1  # logits
EXACT = 10  # players at most whose 2^n choices are all computed
PAIRS = 12  # of permutations, each with its reverse, where there are more players
SETTINGS = {"pairs": PAIRS, "exact": EXACT, "nodes": [STRETCHES, NODES, MOST_NODES], "tolerance": TOLERANCE}


def gradients(read: Read, x: Tensor) -> Tensor:
    """Return the gradient of each logit by the embeddings x (B, T, C): float64 (B, K, T, C)."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = read(x)  # (B, K)
        by_class = [torch.autograd.grad(logit.sum(), x, retain_graph=True)[0] for logit in logits.unbind(dim=1)]
    return torch.stack(by_class, dim=1).double()


def multiply_gradient(read: Read, x: Tensor, baseline: Tensor) -> Floats:
    """Return gradient x (input - baseline): (T, K), for x and baseline (T, C).

    The first term of the Taylor series of F(x) - F(baseline), so exact where F is linear. Signed."""
    return torch.einsum("ktc,tc->tk", gradients(read, x[None])[0], (x - baseline).double()).cpu().numpy()


def measure_gradient(read: Read, x: Tensor) -> Floats:
    """Return the length of the gradient at each token: (T, K), for x (T, C). It has no sign and needs no baseline."""
    return gradients(read, x[None])[0].norm(dim=-1).T.cpu().numpy()


@dataclass(frozen=True, eq=False)
class Stretch:
    """Integrated gradients over a stretch of the way, from start to stop as shares of it."""

    start: float
    stop: float
    values: Floats  # (T, K)
    miss: Floats  # (K,), how far they are from adding up to what the logits gain there


@dataclass(frozen=True, eq=False)
class Integral:
    """Integrated gradients of one text."""

    values: Floats  # (T, K)
    gap: Floats  # (K,), F(x) - F(baseline), to which the values of a class should add up
    nodes: int  # points at which gradients were taken


def integrate_gradients(read: Read, x: Tensor, baseline: Tensor, tokens: int) -> Integral:
    """Return integrated gradients (Sundararajan, Taly and Yan 2017, eq. 1) of x (T, C): (x - baseline) times the mean
    gradient on the straight way from baseline to x.

    The way is cut into stretches with NODES points each (Gauss and Legendre's rule). On every stretch the values should
    add up to what the logits gain there. Stretches that miss it are halved, until all misses together are within
    TOLERANCE of the gap of each class, or MOST_NODES points are spent. tokens: how many are computed at once."""
    with torch.no_grad():
        gap = (read(x[None]) - read(baseline[None]))[0].double().cpu().numpy()
    ends = np.linspace(0, 1, STRETCHES + 1).tolist()
    measured: list[Stretch] = []
    pending, nodes = list(pairwise(ends)), 0
    while True:
        measured += integrate_stretches(read, x, baseline, pending, tokens)
        nodes += NODES * len(pending)
        shares = np.array([stretch.miss for stretch in measured]) / np.maximum(np.abs(gap), SMALL_GAP) / TOLERANCE
        if (shares.sum(axis=0) <= 1).all() or nodes >= MOST_NODES:
            return Integral(np.sum([stretch.values for stretch in measured], axis=0), gap, nodes)
        halved = [stretch for stretch, share in zip(measured, shares, strict=True) if share.max() > 1 / len(measured)]
        measured = [stretch for stretch in measured if stretch not in halved]
        middles = [(stretch.start + stretch.stop) / 2 for stretch in halved]
        pending = [(stretch.start, middle) for stretch, middle in zip(halved, middles, strict=True)]
        pending += [(middle, stretch.stop) for stretch, middle in zip(halved, middles, strict=True)]


def integrate_stretches(
    read: Read, x: Tensor, baseline: Tensor, ends: Sequence[tuple[float, float]], tokens: int
) -> list[Stretch]:
    """Return integrated gradients over each stretch, from (start, stop) on the way from baseline to x."""
    positions, weights = np.polynomial.legendre.leggauss(NODES)  # on [-1, 1], weights sum to 2
    widths = np.diff(np.array(ends), axis=1) / 2
    inner = np.mean(ends, axis=1, keepdims=True) + widths * positions  # (n, NODES)
    rows, step = max(1, tokens // len(x)), x - baseline

    def place(shares: NDArray[np.floating]) -> Tensor:
        return baseline + torch.tensor(shares, dtype=x.dtype, device=x.device)[:, None, None] * step

    flat = np.split(inner.ravel(), range(rows, inner.size, rows))
    slopes = [torch.einsum("nktc,tc->ntk", gradients(read, place(shares)), step.double()) for shares in flat]
    values = torch.cat(slopes).cpu().numpy().reshape(*inner.shape, len(x), -1)  # (n, NODES, T, K)
    values = np.einsum("nm,nmtk->ntk", widths * weights, values)
    with torch.no_grad():
        logits = np.array([read(place(np.array(pair))).double().cpu().numpy() for pair in ends])  # (n, 2, K)
    misses = np.abs(values.sum(axis=1) - np.diff(logits, axis=1)[:, 0])
    return [Stretch(start, stop, value, miss) for (start, stop), value, miss in zip(ends, values, misses, strict=True)]


def leave_one_out(keep: Keep, n_tokens: int) -> Floats:
    """Return F(all tokens) - F(all but one) for each token: (T, K)."""
    whole, *without = keep(np.concatenate([np.ones((1, n_tokens), bool), ~np.eye(n_tokens, dtype=bool)]))
    return whole - np.array(without)


@dataclass(frozen=True, eq=False)
class Shapley:
    """Shapley values of one text; `errors` are their standard errors, 0 where all choices were computed."""

    values: Floats  # (n, K)
    errors: Floats  # (n, K)
    gap: Floats  # (K,), F(all) - F(none), to which the values of a class add up


def measure_shapley(keep: Keep, player_of_token: NDArray[np.integer], pairs: int, seed: int) -> Shapley:
    """Return the Shapley value (Shapley 1953) of each player: what it adds to the logits of those that came before it,
    mean over all orders in which players can come.

    player_of_token: int (T,), 0 .. n - 1; all tokens of a player are kept or removed together. Up to EXACT players all
    2^n choices are computed. Else the orders are drawn at random, `pairs` of them, each with its reverse (antithetic:
    Mitchell et al. 2022, JMLR 23); each order's values add up to the gap exactly."""
    n = int(player_of_token.max()) + 1

    def keep_players(chosen: NDArray[np.bool_]) -> Floats:
        return keep(chosen[:, player_of_token])

    if n > EXACT:
        return sample_orders(keep_players, n, pairs, np.random.default_rng((seed, *b"orders")))
    numbers = np.arange(2**n)  # bit i of a choice: player i is in
    logits = keep_players((numbers[:, None] >> np.arange(n)) % 2 == 1)  # (2^n, K)
    values = []
    for player in range(n):
        without = numbers[(numbers >> player) % 2 == 0]
        sizes = [int(number).bit_count() for number in without]
        weights = np.array([factorial(size) * factorial(n - 1 - size) / factorial(n) for size in sizes])
        values.append(weights @ (logits[without | (1 << player)] - logits[without]))
    return Shapley(np.array(values), np.zeros((n, logits.shape[1])), logits[-1] - logits[0])


def sample_orders(keep: Keep, n: int, pairs: int, rng: np.random.Generator) -> Shapley:
    """Return Shapley values from pairs of orders; keep: players (N, n) -> logits (N, K)."""
    orders = [order for forth in [rng.permutation(n) for _ in range(pairs)] for order in (forth, forth[::-1])]
    # In row i of an order, its first i players are in.
    chosen = np.concatenate([np.argsort(order)[None] < np.arange(n + 1)[:, None] for order in orders])
    logits = keep(chosen).reshape(len(orders), n + 1, -1)
    added = np.array([steps[np.argsort(order)] for order, steps in zip(orders, np.diff(logits, axis=1), strict=True)])
    by_pair = added.reshape(pairs, 2, n, -1).mean(axis=1)  # (pairs, n, K)
    errors = by_pair.std(axis=0, ddof=1) / np.sqrt(pairs)
    return Shapley(by_pair.mean(axis=0), errors, logits[0, -1] - logits[0, 0])


def roll_out(weights: Floats) -> Floats:
    """Return attention rollout (Abnar and Zuidema 2020), (T, T), of the weights of all heads (L, H, T, T), query x key.

    The mean over the heads of a layer, with the residual connection as looking at oneself, half and half; multiplied
    over the layers. It knows neither values nor MLPs nor classes, so it explains none of them: a negative control."""
    T = weights.shape[-1]
    product: Floats = np.eye(T)
    for layer in weights.astype(float):
        mixed = layer.mean(axis=0) + np.eye(T)
        product = mixed / mixed.sum(axis=-1, keepdims=True) @ product
    return product


def sum_groups(values: Floats, groups: Sequence[int] | NDArray[np.integer]) -> Floats:
    """Return the sums over the tokens of each group: values (T, ...), groups int (T,) -> (n, ...)."""
    sums = np.zeros((int(np.max(groups)) + 1, *values.shape[1:]))
    np.add.at(sums, np.asarray(groups), values)
    return sums


def spread_groups(values: Floats, groups: NDArray[np.integer]) -> Floats:
    """Return the value of each group, shared equally among its tokens: (n, ...) -> (T, ...)."""
    return values[groups] / np.bincount(groups)[groups].reshape(-1, *[1] * (values.ndim - 1))
