"""How many heads can go: cheap estimates of a head's importance, orders in which to close heads, a smallest set."""

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
from lab.units import Head, head_name
from model import GPT2Classifier

RANDOM_ORDERS = 5
POINTS = 12  # of a curve
KEEP = 0.95  # of the accuracy gained over the most frequent class


class Smallest(TypedDict):
    """The smallest set of heads that was found, greedily on val. Accuracies are of test."""

    fill: str
    open: Sequence[str]  # its heads, as layer.head
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
) -> NDArray[np.float32]:
    """The derivative of each text's loss (nats) by the gate of each head, at 1: float32 (N, L, H), one backward pass.

    It is (z_h - fill_h) . dL/dz_h, summed over the tokens. Minus it is the first-order estimate of what closing the
    head with this fill adds to the loss. For fill zero it is eq. 2 of Michel, Levy & Neubig 2019 (arXiv 1905.10650).
    The derivative is linear in the fill, so one pass with the mean of several draws gives the mean over the draws."""
    config = clf.config
    gradients = np.empty((len(sequences), config.n_layer, config.n_head), np.float32)

    def of_texts(batch: Batch) -> NDArray[np.float32]:
        on = batch.to(device.device)
        gates = torch.ones(len(on.ids), config.n_layer, config.n_head, 1, device=device.device, requires_grad=True)
        with device.autocast():
            logits = clf(on.ids, on.lengths, head_gate=gates, head_fill=mean_fill(fills, on)).float()  # (B, K)
        loss = F.cross_entropy(logits, on.targets, reduction="sum")
        return torch.autograd.grad(loss, gates)[0][..., 0].cpu().numpy()

    for batch, gradient in map_texts(of_texts, sequences, device, "gradients of the gates", targets):
        gradients[batch.index.numpy()] = gradient
    return gradients


def mean_fill(fills: Sequence[Fill], batch: Batch) -> Tensor | None:
    """What closed heads emit, mean over the draws of a fill: float, a shape of head_fill; None for fill zero."""
    drawn = [values for fill in fills if (values := fill(batch).get("head_fill")) is not None]
    return sum(drawn[1:], drawn[0]).to(batch.ids.device) / len(drawn) if drawn else None


def tabulate_importance(
    gradients: NDArray[np.floating], rises: NDArray[np.floating], targets: NDArray[np.integer], labels: Sequence[str]
) -> pd.DataFrame:
    """Estimates of the importance of each head beside the exact one, over all texts and over those of each class.

    gradients and rises float (N, L, H): of the gates, and how much closing the head raised each text's loss, both with
    the same fill.
    Columns `layer, head, class, n, absolute, normalised, signed, exact`: absolute is the mean over texts of
    |gradient| (the absolute value per text, as eq. 2 has it), normalised the same divided by its l2 norm over the
    heads of the layer (as the paper prunes), signed minus the mean gradient, and exact the mean rise."""
    tables = []
    classes = {"all": np.ones(len(targets), dtype=bool)} | {label: targets == k for k, label in enumerate(labels)}
    for label, own in classes.items():
        if not own.any():
            continue
        absolute = np.abs(gradients[own]).mean(axis=0)  # (L, H)
        norms = np.linalg.norm(absolute, axis=1, keepdims=True)
        normalised = np.divide(absolute, norms, out=np.zeros_like(absolute), where=norms > 0)
        layer, head = np.indices(absolute.shape)
        scores = {"absolute": absolute, "normalised": normalised}
        scores |= {"signed": -gradients[own].mean(axis=0), "exact": rises[own].mean(axis=0)}
        key = {"layer": layer.ravel(), "head": head.ravel(), "class": label, "n": own.sum()}
        tables.append(pd.DataFrame(key | {score: values.ravel() for score, values in scores.items()}))
    return pd.concat(tables, ignore_index=True)


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation over the heads of each estimate of `importance` with the exact one.

    Columns `fill, class, estimate, spearman`. `absolute` and `normalised`, which have no sign, are held against
    |exact|. NaN where all heads have the same estimate or effect."""
    rows = []
    for (fill, label), heads in table.groupby(["fill", "class"], sort=False):
        for estimate in ("absolute", "normalised", "signed"):
            exact = heads["exact"] if estimate == "signed" else heads["exact"].abs()
            with warnings.catch_warnings(action="ignore", category=ConstantInputWarning):
                spearman = spearmanr(heads[estimate], exact).statistic
            rows.append({"fill": fill, "class": label, "estimate": estimate, "spearman": spearman})
    return pd.DataFrame(rows)


def closing_orders(table: pd.DataFrame, seed: int) -> dict[str, list[Head]]:
    """Orders in which to close all heads, the least important first: by the exact rise of the loss, by gradient,
    and at random."""
    overall = table[table["class"] == "all"]
    heads: list[Head] = list(zip(overall["layer"].tolist(), overall["head"].tolist(), strict=True))
    by = {"measured": "exact", "gradient": "normalised"}
    found = {order: [heads[i] for i in np.argsort(overall[column], kind="stable")] for order, column in by.items()}
    rng = np.random.default_rng((seed, *b"orders"))
    return found | {f"random {i}": [heads[j] for j in rng.permutation(len(heads))] for i in range(RANDOM_ORDERS)}


def counts(n_heads: int) -> list[int]:
    """How many heads are closed at each point of a curve, from none to all."""
    return sorted({round(n_heads * point / POINTS) for point in range(POINTS + 1)})


def superfluous(order: Iterable[Head], accuracy: Callable[[list[Head]], float], floor: float) -> list[Head]:
    """Heads that can be closed together, found greedily: in this order each one is closed, and left closed unless the
    accuracy with all of them closed falls below the floor."""
    closed: list[Head] = []
    for head in order:
        if accuracy([*closed, head]) >= floor:
            closed.append(head)
    return closed


def strongest(significance: pd.DataFrame, fill: str, n: int) -> list[str]:
    """The n heads with the largest change of a specific margin on val, whichever the class, as layer.head."""
    heads = significance[(significance["kind"] == "head") & (significance["fill"] == fill)]
    largest = heads.assign(size=heads["val_effect"].abs()).groupby(["layer", "head"])["size"].max().nlargest(n)
    return [head_name(head) for head in largest.index]
