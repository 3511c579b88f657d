"""What a prediction loses without its rationale, and with nothing but it: one text, any network.

A rationale is the tokens that an order puts first. Letters: T tokens, M orders, S sizes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from .attributions import Floats, Keep

TOKENS, SHARES = (1, 2, 3, 5, 10), (1, 5, 10, 20, 50)  # sizes of a rationale: tokens, and per cent of the text
AOPC = "aopc"  # the mean over the sizes that are shares
SIZES = (*map(str, TOKENS), *(f"{share}%" for share in SHARES), AOPC)
KINDS = ("comprehensiveness", "sufficiency")
METRICS = (*KINDS, *(f"{kind}_log_odds" for kind in KINDS))
DRAWS = 20  # of random rationales per text and size
STEPS = 6  # of the search
Orders = NDArray[np.integer]  # (M, T), positions of tokens, the most important first


def count_tokens(n_tokens: int) -> dict[str, int]:
    """Return how many tokens a rationale of each size has in a text of n_tokens; no size of more tokens than that.

    Shares are rounded up, in whole numbers: as floats, 10 % of 70 tokens would be 8."""
    counts = {str(count): count for count in TOKENS if count <= n_tokens}
    return counts | {f"{share}%": -(-share * n_tokens // 100) for share in SHARES}


def list_counts(n_tokens: int) -> list[int]:
    """Return the different numbers of tokens in `count_tokens`, in order."""
    return sorted(set(count_tokens(n_tokens).values()))


def spread_counts(values: Floats, n_tokens: int) -> Floats:
    """Return values by different counts of tokens (..., counts) as values by SIZES: (..., S), NaN where the text is too
    short. AOPC is the mean over different shares: in a text of 20 tokens 1 % and 5 % are one."""
    counts, column = count_tokens(n_tokens), {count: i for i, count in enumerate(list_counts(n_tokens))}
    spread = np.full((*values.shape[:-1], len(SIZES)), np.nan)
    for i, size in enumerate(SIZES[:-1]):
        if size in counts:
            spread[..., i] = values[..., column[counts[size]]]
    shares = sorted({counts[f"{share}%"] for share in SHARES})
    spread[..., -1] = values[..., [column[count] for count in shares]].mean(axis=-1)
    return spread


def order_tokens(values: Floats) -> Orders:
    """Return the positions of tokens by falling value, ties by position: values (T,) -> int (T,)."""
    return np.argsort(-values, kind="stable")


def mark_rationales(orders: Orders, counts: Sequence[int]) -> NDArray[np.bool_]:
    """Return which tokens are among the first of each order: bool (M, counts, T)."""
    return np.argsort(orders, axis=1)[:, None] < np.array(counts)[:, None]


def log_odds(logits: Floats, predicted: int) -> Floats:
    """Return the log-odds of a class: its logit minus the logsumexp of the others, logits (..., K) -> (...)."""
    return logits[..., predicted] - logsumexp(np.delete(logits, predicted, axis=-1), axis=-1)


def measure_losses(keep: Keep, predicted: int, rationales: dict[str, NDArray[np.bool_]]) -> Floats:
    """Return what the prediction of a class loses without each rationale, and with it alone: (METRICS, M, counts).

    rationales: by kind, bool (M, counts, T), those that are removed and those that alone are kept. The network reads
    all of them, and the whole text, in one call; of equal rationales all losses are equal to the last bit."""
    shape = rationales[KINDS[0]].shape
    removed, alone = (rationales[kind].reshape(-1, shape[-1]) for kind in KINDS)
    logits = keep(np.concatenate([np.ones((1, shape[-1]), bool), ~removed, alone]))
    readings = np.stack([softmax(logits, axis=-1)[:, predicted], log_odds(logits, predicted)])
    return (readings[:, :1] - readings[:, 1:]).reshape(len(METRICS), *shape[:2])


def search(keep: Keep, predicted: int, n_tokens: int, most: int, kind: str) -> Orders:
    """Return the order of a greedy search for the best rationale of at most `most` tokens: int (T,).

    Each step reads the network on every token that is left. For comprehensiveness it removes the one whose removal
    lowers the log-odds most; for sufficiency, beginning with nothing, it adds the one that raises them most. After
    STEPS tokens the rest follow in the order of one more step: in a long text each step takes long."""
    chosen: list[int] = []
    while len(chosen) < most:
        left = np.setdiff1d(np.arange(n_tokens), chosen)
        with_one = np.eye(n_tokens, dtype=bool)[left]
        with_one[:, chosen] = True
        if kind == "comprehensiveness":
            gains = -log_odds(keep(~with_one), predicted)
        else:
            gains = log_odds(keep(with_one), predicted)
        ranked = left[order_tokens(gains)].tolist()
        chosen += ranked[:1] if len(chosen) < STEPS else ranked
    return np.array([*chosen, *np.setdiff1d(np.arange(n_tokens), chosen)])


def average_draws(losses: Floats) -> Floats:
    """Return the mean over random rationales, losses (..., draws, counts) -> (..., counts), exact where all are equal:
    where nothing can differ, rounding would else look like a difference that is the same in all texts."""
    first = losses[..., :1, :]
    return (first + (losses - first).mean(axis=-2, keepdims=True))[..., 0, :]
