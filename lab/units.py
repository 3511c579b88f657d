"""What can be taken out of the network, one `Ablation` each: heads, MLPs, layers, pieces of attention, words, pairs."""

from collections.abc import Callable, Iterable
from functools import partial

from data.batches import Batch
from model import GPT2Config, Interventions, masks

from .sweep import Ablation

Head = tuple[int, int]  # (layer, head), counted from 0


def each_head(config: GPT2Config) -> list[Ablation]:
    """Every head alone."""
    pairs = [(layer, head) for layer in range(config.n_layer) for head in range(config.n_head)]
    return [Ablation("head", closing(config, [(layer, head)]), layer, layer, head) for layer, head in pairs]


def each_layer(config: GPT2Config) -> list[Ablation]:
    """Of every layer: all its heads, its MLP, and both."""
    found = []
    for layer in range(config.n_layer):
        heads: Interventions = {"head_gate": masks.close_attention(config, [layer])}
        mlp: Interventions = {"mlp_gate": masks.close_mlps(config, [layer])}
        both: Interventions = {**heads, **mlp}
        for kind, gates in (("heads", heads), ("mlp", mlp), ("layer", both)):
            found.append(Ablation(kind, partial(given, gates), layer, layer))
    return found


def head_name(head: Head) -> str:
    """As it is written in tables: layer.head."""
    return f"{head[0]}.{head[1]}"


def parse_head(name: str) -> Head:
    """(layer, head) of a name as layer.head; ValueError for anything else."""
    layer, own = name.split(".")
    return int(layer), int(own)


# The arguments of the forward pass for a batch of texts.


def given(arguments: Interventions, batch: Batch) -> Interventions:
    """The same for any text."""
    return arguments


def closing(config: GPT2Config, heads: Iterable[Head]) -> Callable[[Batch], Interventions]:
    """Gates that close these heads."""
    return partial(given, {"head_gate": masks.close_heads(config, heads)})
