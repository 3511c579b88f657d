"""The arguments that change what the forward pass computes: their names, shapes and checks."""

from collections.abc import Callable
from typing import Any, TypedDict

import torch
from torch import Tensor

from .config import GPT2Config


class Interventions(TypedDict, total=False):
    """Changes to a forward pass. Every axis is given; an axis of size 1 broadcasts."""

    attn_mask: Tensor | None  # bool  (B, L, H, T, T) query x key, True = may attend; before softmax, AND-ed with causal
    attn_gate: Tensor | None  # float (B, L, H, T, T) multiplies the softmaxed weights; nothing renormalises
    head_gate: Tensor | None  # float (B, L, H, T)    z <- gate * z + (1 - gate) * fill, before c_proj
    head_fill: Tensor | None  # float (B, L, H, T, D) what a closed head emits; None = 0
    mlp_gate: Tensor | None  #  float (B, L, T)       the same for an MLP's output, its bias included
    mlp_fill: Tensor | None  #  float (B, L, T, C)


Intervention = Callable[[Tensor, Tensor], Interventions]  # (ids, lengths) -> arguments, for batches of any length

AXES = {
    "attn_mask": "BLHTT",
    "attn_gate": "BLHTT",
    "head_gate": "BLHT",
    "head_fill": "BLHTD",
    "mlp_gate": "BLT",
    "mlp_fill": "BLTC",
}


def check_interventions(arguments: Interventions, config: GPT2Config, x: Tensor) -> dict[str, Tensor]:
    """Return the arguments that are not None, checked for a residual stream x (B, T, C).

    Raises TypeError for an unknown name, and ValueError for anything but a tensor on the device of x with the right
    kind of dtype, rank and sizes, and for a fill without its gate."""
    sizes = dict(B=x.shape[0], T=x.shape[1], L=config.n_layer, H=config.n_head, D=config.head_width, C=config.n_embd)
    if unknown := arguments.keys() - AXES.keys():
        raise TypeError(f"there is no argument {', '.join(map(repr, sorted(unknown)))}; there are {', '.join(AXES)}")
    values: dict[str, Any] = dict(arguments)
    interventions = {name: value for name, value in values.items() if value is not None}
    for name, value in interventions.items():
        check(name, value, [sizes[axis] for axis in AXES[name]])
        if value.device != x.device:
            raise ValueError(f"{name}: expected a tensor on {x.device} like the model, got one on {value.device}")
        if name.endswith("_fill") and (gate := name.replace("fill", "gate")) not in interventions:
            raise ValueError(f"{name} does nothing without {gate}: give both")
    return interventions


def check(name: str, value: Any, shape: list[int]) -> None:
    """Raise ValueError unless `value` has the kind of dtype that `name` wants, and `shape` or 1 on each axis."""
    dtype = "bool" if name == "attn_mask" else "floating"
    fits = (
        isinstance(value, Tensor)
        and (value.dtype == torch.bool if dtype == "bool" else value.is_floating_point())
        and value.dim() == len(shape)
        and all(n in (1, full) for n, full in zip(value.shape, shape, strict=True))
    )
    if not fits:
        expected = f"a {dtype} tensor ({', '.join(AXES[name])}) = {tuple(shape)}, or 1 on any axis"
        raise ValueError(f"{name}: expected {expected}; got {describe(value)}")


def check_z(z: Any, shape: tuple[int, ...], interventions: dict[str, Tensor]) -> None:
    """Raise ValueError unless z is floating (B, H, Q, D) = shape, and no intervention acts before it."""
    if not isinstance(z, Tensor) or not z.is_floating_point() or z.shape != shape:
        raise ValueError(f"z: expected a floating tensor (B, H, Q, D) = {shape}, got {describe(z)}")
    if late := {"attn_mask", "attn_gate"} & interventions.keys():
        raise ValueError(f"{' and '.join(sorted(late))}: with z, attention has been computed already; give either")


def check_past(records: dict[str, list[Tensor]], config: GPT2Config, B: int, interventions: dict[str, Tensor]) -> None:
    """Raise ValueError unless k and v of all layers are recorded, (1 or B, H, P, D), and no mask acts on keys."""
    expected = f"k and v of {config.n_layer} layers, each (1 or {B}, {config.n_head}, P, {config.head_width})"
    for name in ("k", "v"):
        shapes = [tuple(record.shape) for record in records.get(name, [])]
        fits = all(len(shape) == 4 and shape == (shape[0], *shapes[0][1:]) for shape in shapes)
        if len(shapes) != config.n_layer or not fits or shapes[0][0] not in (1, B):
            raise ValueError(f"past: expected {expected}, got {len(shapes)} of {name}: {sorted(set(shapes))}")
        if shapes[0][1::2] != (config.n_head, config.head_width):
            raise ValueError(f"past: expected {expected}, got {shapes[0]}")
    if masks := {"attn_mask", "attn_gate"} & interventions.keys():
        raise ValueError(f"{' and '.join(sorted(masks))}: they name no past tokens; give the whole texts, or no mask")


def check_lengths(lengths: Any, B: int, T: int) -> None:
    """Raise ValueError unless `lengths` is int64 (B,) and, where its values can be seen, within 1 .. T."""
    check_per_row("lengths", lengths, B, 1, T, "real tokens")


def check_query(query: Any, B: int, T: int) -> None:
    """Raise ValueError unless `query` is None or int64 (B,) and, where its values can be seen, within 0 .. T - 1."""
    if query is not None:
        check_per_row("query", query, B, 0, T - 1, "as a position")


def check_per_row(name: str, value: Any, B: int, low: int, high: int, what: str) -> None:
    if not isinstance(value, Tensor) or value.dtype != torch.int64 or value.shape != (B,):
        raise ValueError(f"{name}: expected int64 ({B},), got {describe(value)}")
    # Looking at values on a GPU would wait for it, and within torch.compile it would break the graph.
    visible = value.device.type == "cpu" and not torch.compiler.is_compiling()
    if visible and ((value < low) | (value > high)).any():
        raise ValueError(f"{name}: expected {low} .. {high} {what} per row, got {value.tolist()}")


def describe(value: Any) -> str:
    """Return the dtype and shape of a tensor, the type of anything else: for messages."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
