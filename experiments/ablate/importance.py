"""How many heads can go? Cheap estimates of a head's importance, orders in which to close heads, a greedy search."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TypedDict

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import ConstantInputWarning, spearmanr
from torch import Tensor
from torch.nn import functional as F

from data.batches import Batch
from lab.device import Device
from lab.memory import map_texts
from lab.sweep import Fill
from lab.texts import OVERALL
from lab.units import Head, head_name
from model import GPT2Classifier

RANDOM_ORDERS = 5
POINTS = 12  # of a curve
KEEP = 0.95  # of the accuracy gained over the most frequent class


class Smallest(TypedDict):
    """The smallest set of heads that the greedy search on val found. Accuracies are on test."""

    fill: str
    open: Sequence[str]  # the heads of the set, as layer.head
    n_heads: int  # of the network
    majority: float  # accuracy of always naming the most frequent class
    accuracy: float  # with all heads
    accuracy_test: float  # with the set
    kept_val: float  # share of what accuracy gains over the majority that the set keeps, on val
    kept_test: float  # and on test


def gate_gradients(
    clf: GPT2Classifier,
    sequences: Sequence[list[int]],
    targets: NDArray[np.integer],
    fills: Sequence[Fill],
    device: Device,
    b: NDArray[np.floating] | float = 0.0,
) -> NDArray[np.float32]:
    """Return the derivative of each text's loss (nats) by the gate of each head, at 1: float32 (N, L, H).

    A gate multiplies a head's output: at 1 the head is open, at 0 a fill stands in its place. How fast the loss changes
    as the gate begins to close is one derivative, and a single backward pass gives it for all heads at once, where
    closing each of them would take a forward pass per head. Minus the derivative is the first-order estimate of what
    closing the head adds to the loss.

    It is (z_h - fill_h) . dL/dz_h, summed over the tokens; for fill zero, eq. 2 of Michel, Levy & Neubig 2019 (arXiv
    1905.10650). It is linear in the fill, so one pass with the mean of several draws gives the mean over the draws.

    b: (K,), the label prior of a prompt, which is taken out of the logits and does not change with the gates."""
    config, prior = clf.config, torch.as_tensor(b, dtype=torch.float32, device=device.device)
    gradients = np.empty((len(sequences), config.n_layer, config.n_head), np.float32)

    def differentiate(batch: Batch) -> NDArray[np.float32]:
        on_device = batch.to(device.device)
        shape = len(batch.ids), config.n_layer, config.n_head, 1
        gates = torch.ones(shape, device=device.device, requires_grad=True)
        fill = average_fills(fills, on_device)
        with device.autocast():
            logits = clf(on_device.ids, on_device.lengths, head_gate=gates, head_fill=fill).float() - prior  # (B, K)
        loss = F.cross_entropy(logits, on_device.targets, reduction="sum")
        return torch.autograd.grad(loss, gates)[0][..., 0].cpu().numpy()

    for batch, gradient in map_texts(differentiate, sequences, device, "gradients of the gates", targets):
        gradients[batch.index.numpy()] = gradient
    return gradients


def average_fills(fills: Sequence[Fill], batch: Batch) -> Tensor | None:
    """Average what closed heads emit over the draws of a fill: float, a shape of head_fill; None for fill zero."""
    draws = [values for fill in fills if (values := fill(batch).get("head_fill")) is not None]
    return sum(draws[1:], draws[0]).to(batch.ids.device) / len(draws) if draws else None


def tabulate_importance(
    gradients: NDArray[np.floating], rises: NDArray[np.floating], targets: NDArray[np.integer], labels: Sequence[str]
) -> pd.DataFrame:
    """Return estimates of each head's importance beside the exact one, over all texts and over those of each class.

    gradients and rises float (N, L, H): the gate gradients, and by how much closing the head raised each text's loss,
    both with the same fill.
    Columns `layer, head, class, n, absolute, normalised, signed, exact`. `absolute`: mean over texts of |gradient| (the
    absolute value per text, as eq. 2 of Michel et al. has it). `normalised`: the same divided by its l2 norm over the
    heads of the layer (as they prune). `signed`: minus the mean gradient. `exact`: the mean rise."""
    tables = []
    members = {OVERALL: np.ones(len(targets), dtype=bool)} | {label: targets == k for k, label in enumerate(labels)}
    for label, chosen in members.items():
        if not chosen.any():
            continue
        absolute = np.abs(gradients[chosen]).mean(axis=0)  # (L, H)
        norms = np.linalg.norm(absolute, axis=1, keepdims=True)
        layer, head = np.indices(absolute.shape)
        columns = {
            "layer": layer.ravel(),
            "head": head.ravel(),
            "class": label,
            "n": chosen.sum(),
            "absolute": absolute.ravel(),
            "normalised": np.divide(absolute, norms, out=np.zeros_like(absolute), where=norms > 0).ravel(),
            "signed": -gradients[chosen].mean(axis=0).ravel(),
            "exact": rises[chosen].mean(axis=0).ravel(),
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def correlate_estimates(importance: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's rank correlation, over the heads, of each estimate of `tabulate_importance` with the exact one.

    Columns `fill, class, estimate, spearman`. `absolute` and `normalised` have no sign and are compared with |exact|.
    `signed` has one, and so has `learnt`, where there are learnt gates: a gate stays open where closing it would raise
    the loss, and not where it would lower it. NaN where all heads have the same estimate or effect."""
    rows = []
    for (fill, label), heads in importance.groupby(["fill", "class"], sort=False):
        for estimate in ("absolute", "normalised", "signed", "learnt"):
            if estimate not in heads or heads[estimate].isna().all():
                continue
            exact = heads["exact"] if estimate in ("signed", "learnt") else heads["exact"].abs()
            with warnings.catch_warnings(action="ignore", category=ConstantInputWarning):
                spearman = spearmanr(heads[estimate], exact).statistic
            rows.append({"fill": fill, "class": label, "estimate": estimate, "spearman": spearman})
    return pd.DataFrame(rows)


def order_heads(importance: pd.DataFrame, seed: int) -> dict[str, list[Head]]:
    """Order all heads for closing, the least important first: by the exact rise of the loss (`measured`), by
    `gradient`, and at random."""
    overall = importance[importance["class"] == OVERALL]
    heads: list[Head] = list(zip(overall["layer"].tolist(), overall["head"].tolist(), strict=True))
    orders = {}
    for name, column in {"measured": "exact", "gradient": "normalised"}.items():
        orders[name] = [heads[i] for i in np.argsort(overall[column], kind="stable")]
    rng = np.random.default_rng((seed, *b"orders"))
    for i in range(RANDOM_ORDERS):
        orders[f"random {i}"] = [heads[j] for j in rng.permutation(len(heads))]
    return orders


def curve_points(n_heads: int) -> list[int]:
    """Return how many heads are closed at each point of a curve, from none to all."""
    return sorted({round(n_heads * point / POINTS) for point in range(POINTS + 1)})


def find_superfluous(order: Iterable[Head], accuracy: Callable[[list[Head]], float], floor: float) -> list[Head]:
    """Find heads that can be closed together, greedily: close each in this order, and leave it closed unless the
    accuracy with all of them closed falls below the floor."""
    closed: list[Head] = []
    for head in order:
        if accuracy([*closed, head]) >= floor:
            closed.append(head)
    return closed


def find_strongest(significance: pd.DataFrame, fill: str, n: int) -> list[str]:
    """Find the n heads with the largest change of a specific margin on val, whichever the class: as layer.head."""
    heads = significance[(significance["kind"] == "head") & (significance["fill"] == fill)]
    largest = heads.assign(size=heads["val_effect"].abs()).groupby(["layer", "head"])["size"].max().nlargest(n)
    return [head_name(head) for head in largest.index]
