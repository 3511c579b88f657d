"""What each token adds to the logit of a class, by formulas that take any network as a function.

A network is given in one of two ways. `Read` maps embeddings to logits and can be differentiated. `Keep` maps choices
of tokens to logits: what the network says where only the chosen tokens are left. So each formula can be tested on a
function whose answer is known in closed form.

Letters: T tokens, C width, K classes, N choices, n players (words).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.floating]
Read = Callable[[Tensor], Tensor]  # embeddings (B, T, C) -> logits (B, K)
Keep = Callable[[NDArray[np.bool_]], Floats]  # kept (N, T) -> logits (N, K)

NODES = (20, 50, 100, 200)  # of the integration; the next number where a class misses more than TOLERANCE
TOLERANCE = 0.01  # of the gap, or of SMALL_GAP where that is larger
SMALL_GAP = 0.1  # logits
EXACT = 10  # players at most whose 2^n choices are all computed
PAIRS = 25  # of permutations, each with its reverse, where there are more players


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
class Integral:
    """Integrated gradients of one text."""

    values: Floats  # (T, K)
    gap: Floats  # (K,), F(x) - F(baseline), to which the values of a class should add up
    nodes: int  # of the integration

    @property
    def misses(self) -> Floats:
        """How far the values of each class are from adding up to its gap, as a share of the gap: (K,)."""
        return np.abs(self.values.sum(axis=0) - self.gap) / np.maximum(np.abs(self.gap), SMALL_GAP)


def integrate_gradients(read: Read, x: Tensor, baseline: Tensor, tokens: int) -> Integral:
    """Return integrated gradients (Sundararajan, Taly and Yan 2017, eq. 1) of x (T, C): (x - baseline) times the mean
    gradient on the straight way from baseline to x.

    The mean is taken by Gauss and Legendre's rule, with more nodes until the values of all classes add up to F(x) -
    F(baseline) within TOLERANCE, or NODES ends. tokens: how many may be computed at once."""
    with torch.no_grad():
        gap = (read(x[None]) - read(baseline[None]))[0].double().cpu().numpy()
    for nodes in NODES:
        positions, weights = np.polynomial.legendre.leggauss(nodes)  # on [-1, 1], weights sum to 2
        mean = torch.zeros(1, dtype=torch.float64, device=x.device)
        for chosen in np.array_split(np.arange(nodes), -(-nodes * len(x) // tokens)):
            alpha = torch.tensor((positions[chosen] + 1) / 2, dtype=x.dtype, device=x.device)[:, None, None]
            weight = torch.tensor(weights[chosen] / 2, device=x.device)
            mean = mean + torch.einsum("n,nktc->ktc", weight, gradients(read, baseline + alpha * (x - baseline)))
        values = torch.einsum("ktc,tc->tk", mean, (x - baseline).double()).cpu().numpy()
        integral = Integral(values, gap, nodes)
        if (integral.misses <= TOLERANCE).all():
            break
    return integral


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
