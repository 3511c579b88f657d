"""Units that only ablations close: regions of attention, words, pairs of heads, and heads one by one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data.batches import Batch
from lab.sweep import Ablation
from lab.units import Head, closing, head_name
from model import GPT2Config, Interventions, masks

RANDOM = "random, as many as "  # begins the region of a control; the class of words that it is for follows
BANDS = (4, 8)  # tokens that a query sees of the nearest past, itself included
REGIONS: dict[str, Callable[[int], Tensor]] = {
    "self": masks.self_token,
    "previous token": masks.previous_token,
    "first token": masks.first_token,
    **{f"last {width} tokens": partial(masks.band, width=width) for width in BANDS},
}


def each_pair(config: GPT2Config, pairs: Iterable[tuple[Head, Head]]) -> list[Ablation]:
    """Two heads together."""
    return [
        Ablation("pair", closing(config, pair), min(pair)[0], region=f"{head_name(pair[0])} & {head_name(pair[1])}")
        for pair in pairs
    ]


def closing_one_by_one(config: GPT2Config, order: Sequence[Head], counts: Iterable[int]) -> list[Ablation]:
    """The first n heads of an order together, for each of these n."""
    found = []
    for n in counts:
        closed = list(order[:n])
        start = min((layer for layer, _ in closed), default=config.n_layer - 1)
        found.append(Ablation("curve", closing(config, closed), start, region=" ".join(map(head_name, closed))))
    return found


def each_region(config: GPT2Config, rows: Sequence[int] = ()) -> list[Ablation]:
    """Pieces of the attention maps, in all layers at once and in each alone: of kind `mask`, where each row
    renormalises over what is left, and of kind `cut`, where nothing does.

    Each of REGIONS, and everything but it; the last query's row, and these rows, which negative numbers count from
    each text's end. A row without any key is 0 in both kinds, so rows are of kind `mask` only."""
    found = []
    for layer in (None, *range(config.n_layer)):
        acting = partial(in_layer, config, layer)
        for region, keys in REGIONS.items():
            for title, inside in ((region, True), (f"all but {region}", False)):
                for kind in ("mask", "cut"):
                    arguments = partial(without, acting, kind, keys, inside)
                    found.append(Ablation(kind, arguments, layer or 0, layer, region=title))
        for row in (-1, *rows):
            title = "last query" if row == -1 else f"query {row}"
            found.append(Ablation("mask", partial(without_row, acting, row), layer or 0, layer, region=title))
    return found


def each_word_class(hidden: Mapping[str, Sequence[NDArray[np.bool_]]], rng: np.random.Generator) -> list[Ablation]:
    """Words hidden from all queries, by class, and beside each class equally many random tokens of each text.

    hidden: by class, one bool (T,) per text of the split, True where a token is of such a word."""
    found = []
    for title, texts in hidden.items():
        for region, tokens in (
            (title, texts),
            (RANDOM + title, [rng.permutation(own) for own in texts]),
        ):
            rows = [torch.from_numpy(own) for own in tokens]
            found.append(Ablation("words", partial(hiding, rows), region=region))
    return found


def in_layer(config: GPT2Config, layer: int | None, mask: Tensor) -> Tensor:
    """An attn_mask that acts in one layer, or in all for None."""
    return mask if layer is None else masks.restrict(mask, config, layers=[layer])


def without(
    acting: Callable[[Tensor], Tensor], kind: str, region: Callable[[int], Tensor], inside: bool, batch: Batch
) -> Interventions:
    """Nothing inside a region of the attention map, or nothing outside of it."""
    own = region(batch.ids.shape[1])
    kept = acting(~own if inside else own)
    return {"attn_mask": kept} if kind == "mask" else {"attn_gate": kept.float()}


def without_row(acting: Callable[[Tensor], Tensor], row: int, batch: Batch) -> Interventions:
    """One query of each text attends to nothing; texts that are too short to have it stay whole."""
    positions = torch.arange(batch.ids.shape[1])
    at = (batch.lengths.cpu() + row if row < 0 else torch.full_like(batch.lengths.cpu(), row))[:, None]  # (B, 1)
    return {"attn_mask": acting((positions != at)[:, None, None, :, None])}


def hiding(hidden: Sequence[Tensor], batch: Batch) -> Interventions:
    """No query attends to these tokens, bool (T,) for every text of the split."""
    rows = pad_sequence([hidden[i] for i in batch.index.tolist()], batch_first=True)  # (B, T)
    return {"attn_mask": masks.hide_tokens(rows)}
