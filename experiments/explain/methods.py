"""Every method on one text, and what is known about each method before it is measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.words import word_of_token, words
from lab.contributions import token_contributions
from lab.device import Device
from lab.removals import Removal, mean_embedding, read_kept
from model import GPT2Classifier, Tokenizer, Trace

from .attributions import (
    PAIRS,
    Floats,
    Keep,
    integrate_gradients,
    leave_one_out,
    measure_gradient,
    measure_shapley,
    multiply_gradient,
    roll_out,
    spread_groups,
)


@dataclass(frozen=True)
class Method:
    """What is known about a method beforehand. `removal`: what stands for an absent token, if the method has such."""

    text: str
    removal: Removal | None = None
    signed: bool = True
    of_class: bool = True  # False: the same for all classes


METHODS = {
    "gradient_x_input": Method("gradient times (embedding - mean embedding)", "fill"),
    "gradient_norm": Method("length of the gradient", signed=False),
    "integrated_gradients": Method("mean gradient on the way from the mean embedding, times the way", "fill"),
    "leave_one_out_hide": Method("what the logit loses when no token may look at this one", "hide"),
    "leave_one_out_delete": Method("what the logit loses when the token is deleted", "delete"),
    "leave_one_out_fill": Method("what the logit loses when the mean embedding stands there", "fill"),
    "shapley": Method("what a word adds to the words before it, mean over orders; absent words are filled", "fill"),
    "direct_contribution": Method("what the last query of all heads takes from the token and adds to the logit"),
    "attention": Method("weight that the last query gives, mean over all heads", signed=False, of_class=False),
    "rollout": Method("attention multiplied through the layers: a negative control", signed=False, of_class=False),
}


@dataclass(frozen=True, eq=False)
class Parsed:
    """A text as tokens and words. Each token belongs to one group: its word, or itself alone."""

    text: str
    ids: list[int]
    pieces: list[tuple[str, int, int]]  # of each token
    groups: NDArray[np.integer]  # int64 (T,), 0 .. n - 1, in the order of the text
    words: list[str]  # of each group; empty where it is no word, such as white space


@dataclass(frozen=True, eq=False)
class Explanation:
    """What every method says about one text."""

    values: dict[str, Floats]  # by method, (T, K)
    sums: dict[str, tuple[Floats, Floats]]  # of methods whose values should add up: the gap (K,), and the sum (K,)
    nodes: int  # of integrated gradients
    shapley_errors: Floats  # (n, K), standard errors; 0: exact

    def as_json(self) -> dict[str, Any]:
        return {
            "values": {name: values.tolist() for name, values in self.values.items()},
            "sums": {name: [gap.tolist(), total.tolist()] for name, (gap, total) in self.sums.items()},
            "nodes": self.nodes,
            "shapley_errors": self.shapley_errors.tolist(),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Explanation":
        return cls(
            {name: np.array(values) for name, values in content["values"].items()},
            {name: (np.array(gap), np.array(total)) for name, (gap, total) in content["sums"].items()},
            content["nodes"],
            np.array(content["shapley_errors"]),
        )


def parse(text: str, tokenizer: Tokenizer) -> Parsed:
    """Return the tokens and words of a text."""
    text_words, pieces = words(text, tokenizer), tokenizer.pieces(text)
    of_token = word_of_token(text_words, pieces)
    # A token without a word is a group of its own: give it a number that no word has, then number all in order.
    distinct = np.where(of_token >= 0, of_token, len(text_words) + np.arange(len(pieces)))
    _, first, inverse = np.unique(distinct, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    groups = order[inverse.reshape(-1)]
    named = [""] * len(first)
    for token, group in enumerate(groups):
        if of_token[token] >= 0:
            named[group] = text_words[of_token[token]].text
    return Parsed(text, tokenizer.encode(text), pieces, groups, named)


def read_embeddings(clf: GPT2Classifier, classes: Sequence[int], x: Tensor) -> Tensor:
    """Map embeddings (B, T, C) to the logits of some classes, in the path of the gradient."""
    query = torch.full((len(x),), x.shape[1] - 1, device=x.device)
    return clf.read(clf.trunk.norm(clf.trunk.run(x, query=query)))[:, list(classes)]


@torch.no_grad()
def embed(clf: GPT2Classifier, ids: Sequence[int], device: Device) -> tuple[Tensor, Tensor]:
    """Return the embeddings of a text and its baseline, (T, C) each: the mean embedding at the same positions.

    Positions stay. LayerNorm makes the network blind to the length of an embedding until it is next to nothing, so on
    the way from zero all happens within the last thousandth, where no rule of integration finds it."""
    x = clf.trunk.embed(torch.tensor([list(ids)], device=device.device))[0]
    return x, mean_embedding(clf.trunk) + clf.trunk.wpe.weight[: len(ids)]


@torch.inference_mode()
def record_weights(clf: GPT2Classifier, ids: Sequence[int], device: Device) -> Floats:
    """Return the attention of every head in one text: (L, H, T, T), query x key."""
    trace = Trace("weights")
    clf.trunk(torch.tensor([list(ids)], device=device.device), trace=trace)
    return trace.stacked("weights")[0].cpu().numpy()


def explain(
    clf: GPT2Classifier,
    parsed: Parsed,
    device: Device,
    classes: Sequence[int] | None = None,
    pairs: int = PAIRS,
    seed: int = 0,
) -> Explanation:
    """Return what every method says about one text, for these classes; None: all. In fp32."""
    classes = range(len(clf.labels)) if classes is None else classes
    ids, T, K = parsed.ids, len(parsed.ids), len(classes)
    read = partial(read_embeddings, clf, classes)
    x, baseline = embed(clf, ids, device)
    integral = integrate_gradients(read, x, baseline, device.tokens)
    shapley = measure_shapley(make_keep(clf, ids, "fill", device, classes), parsed.groups, pairs, seed)
    values = {
        "gradient_x_input": multiply_gradient(read, x, baseline),
        "gradient_norm": measure_gradient(read, x),
        "integrated_gradients": integral.values,
        "shapley": spread_groups(shapley.values, parsed.groups),
        "direct_contribution": token_contributions(clf, ids, device)[:, list(classes)],
    }
    for removal in ("hide", "delete", "fill"):
        values[f"leave_one_out_{removal}"] = leave_one_out(make_keep(clf, ids, removal, device, classes), T)
    weights = record_weights(clf, ids, device)
    for name, looks in (("attention", weights[:, :, -1].mean(axis=(0, 1))), ("rollout", roll_out(weights)[-1])):
        values[name] = np.repeat(looks[:, None], K, axis=1).astype(float)
    gaps = {"gradient_x_input": integral.gap, "integrated_gradients": integral.gap, "shapley": shapley.gap}
    sums = {name: (gap, values[name].sum(axis=0)) for name, gap in gaps.items()}
    return Explanation({name: values[name] for name in METHODS}, sums, integral.nodes, shapley.errors)


def make_keep(
    clf: GPT2Classifier, ids: Sequence[int], removal: Removal, device: Device, classes: Sequence[int] | None = None
) -> Keep:
    """Return the function that reads a text of which only some tokens are kept: (N, T) -> logits (N, K) of these
    classes; None: all."""
    columns = list(range(len(clf.labels)) if classes is None else classes)
    return lambda kept: read_kept(clf, ids, kept, removal, device)[:, columns]
