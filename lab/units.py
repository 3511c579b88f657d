"""The units that can be taken out of the network, one `Ablation` each: heads, MLPs, layers, regions, words, pairs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import product
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from model import GPT2Config, Intervention, Interventions, masks

from .sweep import Ablation

Head = tuple[int, int]  # (layer, head), counted from 0
RANDOM = "random, as many as "  # begins the region of a control; the class of words that it is for follows
SUBSPACE = "random subspace "  # begins the region of a control of a head or an MLP; the number of its draw follows
BANDS = (4, 8)  # tokens that a query sees of the nearest past, itself included
REGIONS: dict[str, Callable[[int], Tensor]] = {
    "self": masks.self_token,
    "previous token": masks.previous_token,
    "first token": masks.first_token,
    **{f"last {width} tokens": partial(masks.band, width=width) for width in BANDS},
}


def head_name(head: Head) -> str:
    """Write a head as tables do: `layer.head`."""
    return f"{head[0]}.{head[1]}"


def parse_head(name: str) -> Head:
    """Read `layer.head` -> (layer, head). Raises ValueError for anything else."""
    layer, head = name.split(".")
    return int(layer), int(head)


def each_head(config: GPT2Config) -> list[Ablation]:
    """Return an ablation of every head alone, in the order of layers and heads."""
    return [
        Ablation("head", always({"head_gate": masks.close_heads(config, [(layer, head)])}), layer, layer, head)
        for layer, head in product(range(config.n_layer), range(config.n_head))
    ]


def each_layer(config: GPT2Config) -> list[Ablation]:
    """Return three ablations of every layer: all its heads, its MLP, and both."""
    ablations = []
    for layer in range(config.n_layer):
        heads: Interventions = {"head_gate": masks.close_attention(config, [layer])}
        mlp: Interventions = {"mlp_gate": masks.close_mlps(config, [layer])}
        both: Interventions = {**heads, **mlp}
        for kind, gates in (("heads", heads), ("mlp", mlp), ("layer", both)):
            ablations.append(Ablation(kind, always(gates), layer, layer))
    return ablations


def random_subspaces(config: GPT2Config, kind: str, n: int, seed: int) -> list[Ablation]:
    """Return, for each layer, n ablations of random subspaces, which a unit of this kind is compared with.

    A subspace has as many dimensions as a head: D of the C of all heads' outputs side by side (kind `head`), or of the
    C of the MLP's output (kind `mlp`). The region says which draw it is."""
    ablations = []
    for layer, draw in product(range(config.n_layer), range(n)):
        rng = np.random.default_rng((seed, layer, draw, *kind.encode()))
        # Orthonormal columns of a Gaussian matrix: every subspace is as likely as any other.
        basis, _ = np.linalg.qr(rng.normal(size=(config.n_embd, config.head_width)))
        gates = find_gates(config, kind, layer)
        region = f"{SUBSPACE}{draw}"
        ablations.append(Ablation(kind, always(gates), layer, layer, None, region, torch.from_numpy(basis).float()))
    return ablations


def find_gates(config: GPT2Config, kind: str, layer: int) -> Interventions:
    """Return the gates that close all of what units of this kind (`head`, `mlp`) are parts of in a layer."""
    if kind == "mlp":
        return {"mlp_gate": masks.close_mlps(config, [layer])}
    return {"head_gate": masks.close_attention(config, [layer])}


def each_pair(config: GPT2Config, pairs: Iterable[tuple[Head, Head]]) -> list[Ablation]:
    """Return an ablation of two heads together for each pair."""
    return [
        Ablation("pair", close(config, pair), min(pair)[0], region=" & ".join(map(head_name, pair))) for pair in pairs
    ]


def closing_one_by_one(config: GPT2Config, order: Sequence[Head], counts: Iterable[int]) -> list[Ablation]:
    """Return, for each count n, an ablation of the first n heads of an order together."""
    ablations = []
    for n in counts:
        heads = order[:n]
        start = min((layer for layer, _ in heads), default=config.n_layer - 1)
        ablations.append(Ablation("curve", close(config, heads), start, region=" ".join(map(head_name, heads))))
    return ablations


def each_region(
    config: GPT2Config, rows: Sequence[int] = (), seed: int | None = None, in_each_layer: bool = False
) -> list[Ablation]:
    """Return ablations of pieces of the attention maps, in all layers at once and in each layer alone.

    The pieces are each of REGIONS and everything but it, in two kinds: `mask`, where each row renormalises over what is
    left, and `cut`, where nothing does. Then the rows of single queries: the last, and `rows`, of which negative
    numbers count from the text's end. A row without any key is 0 in both kinds, so rows are of kind `mask` only.

    With `seed`, a piece is followed by its control: as many random cells of the same rows. Pieces of one layer alone
    have one only with `in_each_layer`."""
    ablations = []
    for layer in (None, *range(config.n_layer)):
        for region, keys in REGIONS.items():
            for title, inside in ((region, True), (f"all but {region}", False)):
                hidden = {title: hide_region(keys, inside)}
                if seed is not None and (layer is None or in_each_layer):
                    hidden[RANDOM + title] = hide_random_cells(config, keys, inside, seed)
                for name, intervention in hidden.items():
                    mask = in_layer(config, layer, intervention)
                    ablations.append(Ablation("mask", mask, layer or 0, layer, region=name))
                    ablations.append(Ablation("cut", cut(mask), layer or 0, layer, region=name))
        for row in (-1, *rows):
            mask = in_layer(config, layer, masks.close_query(row))
            title = "last query" if row == -1 else f"query {row}"
            ablations.append(Ablation("mask", mask, layer or 0, layer, region=title))
    return ablations


def each_word_class(
    sequences: Sequence[list[int]], hidden: Mapping[str, Sequence[NDArray[np.bool_]]], rng: np.random.Generator
) -> list[Ablation]:
    """Return ablations that hide words from all queries: each class, and as many random tokens of each text.

    sequences: token ids of the texts; hidden: by class, one bool (T,) per text, True where a token is of such a word.
    """
    ablations = []
    for title, rows in hidden.items():
        random = [rng.permutation(row) for row in rows]
        for region, tokens in ((title, rows), (RANDOM + title, random)):
            ablations.append(Ablation("words", hide_words(sequences, tokens), region=region))
    return ablations


# Interventions: (ids, lengths) -> arguments of the forward pass.


def always(arguments: Interventions) -> Intervention:
    """Return the intervention with the same arguments for any texts."""

    def intervention(ids: Tensor, lengths: Tensor) -> Interventions:
        return arguments

    return intervention


def close(config: GPT2Config, heads: Iterable[Head]) -> Intervention:
    """Close these heads."""
    return always({"head_gate": masks.close_heads(config, heads)})


def hide_region(region: Callable[[int], Tensor], inside: bool) -> Intervention:
    """Mask what is inside a region of the attention map, or what is outside of it."""

    def intervention(ids: Tensor, lengths: Tensor) -> Interventions:
        pairs = region(ids.shape[1])
        return {"attn_mask": ~pairs if inside else pairs}

    return intervention


def hide_random_cells(config: GPT2Config, region: Callable[[int], Tensor], inside: bool, seed: int) -> Intervention:
    """Mask, in each row of the attention map, as many random keys as `hide_region` masks there.

    Both count the keys that a layer's window lets a query see. The keys are drawn anew for each text, from its token
    ids: copies of a text share them, and so do regions of as many keys."""

    def intervention(ids: Tensor, lengths: Tensor) -> Interventions:
        T = ids.shape[1]
        pairs = region(T)[0, 0, 0].cpu().numpy() == inside
        windows = [min(config.window(layer), T) for layer in range(config.n_layer)]
        hidden = {window: np.zeros((len(ids), T, T), dtype=bool) for window in windows}
        for window, cells in hidden.items():
            n = (pairs & masks.band(T, window)[0, 0, 0].numpy()).sum(1)  # hidden keys of each query
            for i, (text, length) in enumerate(zip(ids.tolist(), lengths.tolist(), strict=True)):
                cells[i, :length, :length] = rank_keys(seed, tuple(text[:length]), window) < n[:length, None]
        layers = [hidden[window] for window in (windows if len(hidden) > 1 else hidden)]
        return {"attn_mask": ~torch.from_numpy(np.stack(layers, axis=1)).to(ids.device)[:, :, None]}

    return intervention


@lru_cache(maxsize=128)  # all regions of all layers ask for the texts of a batch in turn
def rank_keys(seed: int, text: tuple[int, ...], window: int) -> NDArray[np.int16]:
    """Return, for each query of a text, the random ranks (T, T) of the keys that it may attend to; others come last."""
    T = len(text)
    noise = np.random.default_rng((seed, *text)).random((T, T))
    noise[~masks.band(T, window)[0, 0, 0].numpy()] = np.inf
    return noise.argsort(axis=1).argsort(axis=1).astype(np.int16)


def in_layer(config: GPT2Config, layer: int | None, mask: Intervention) -> Intervention:
    """Let an attn_mask act in one layer alone; None: in all, as it does anyway."""
    if layer is None:
        return mask
    return lambda ids, lengths: {"attn_mask": masks.restrict(mask_of(mask, ids, lengths), config, layers=[layer])}


def cut(mask: Intervention) -> Intervention:
    """Take the same out after the softmax, so that nothing renormalises."""
    return lambda ids, lengths: {"attn_gate": mask_of(mask, ids, lengths).float()}


def mask_of(intervention: Intervention, ids: Tensor, lengths: Tensor) -> Tensor:
    return cast(Tensor, intervention(ids, lengths)["attn_mask"])


def hide_words(sequences: Sequence[list[int]], hidden: Sequence[NDArray[np.bool_]]) -> Intervention:
    """Hide from all queries the tokens of each text that are True in its row, bool (T,).

    Texts are recognised by their token ids: copies of a text share a row."""
    rows = {tuple(text): torch.from_numpy(row) for text, row in zip(sequences, hidden, strict=True)}

    def intervention(ids: Tensor, lengths: Tensor) -> Interventions:
        texts = [tuple(text[:n]) for text, n in zip(ids.tolist(), lengths.tolist(), strict=True)]
        return {"attn_mask": masks.hide_tokens(pad_sequence([rows[text] for text in texts], batch_first=True))}

    return intervention
