"""The units that every experiment knows, one `Ablation` each: heads, all heads of a layer, MLPs, whole layers."""

from itertools import product

from torch import Tensor

from model import GPT2Config, Intervention, Interventions, masks

from .sweep import Ablation

Head = tuple[int, int]  # (layer, head), counted from 0


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


def always(arguments: Interventions) -> Intervention:
    """Return the intervention with the same arguments for any texts."""

    def intervention(ids: Tensor, lengths: Tensor) -> Interventions:
        return arguments

    return intervention


def head_name(head: Head) -> str:
    """Write a head as tables do: `layer.head`."""
    return f"{head[0]}.{head[1]}"


def parse_head(name: str) -> Head:
    """Read `layer.head` -> (layer, head). Raises ValueError for anything else."""
    layer, head = name.split(".")
    return int(layer), int(head)
