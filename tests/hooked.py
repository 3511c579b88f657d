"""Activation patching and path patching in a GPT-2 or GPT-Neo of `transformers`, by PyTorch hooks.

What `experiments/patch` has to come to: nothing of the project is imported. `share` is how much of the difference
between the two texts is put in: 1 patches, and the slope around 0 is what an estimate has to come to.

Letters: T tokens, C width, D head width, n senders."""

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

Records = dict[str, Sequence[Tensor]]  # by layer; of q, k, v and z the heads lie beside one another
Change = Callable[[Tensor], Tensor]
ANSWERS = (3, 1)  # which no network of the tests finds nearly alike: a metric near 0 would be lost in rounding
# Two texts that differ at positions 3 and 7 and end alike, and two that differ everywhere.
SOME = [5, 17, 40, 3, 88, 21, 9, 64, 33, 2, 71], [5, 17, 40, 61, 88, 21, 9, 12, 33, 2, 71]
ALL = [5, 17, 40, 3, 88, 21, 9, 64, 33, 2, 71], [71, 5, 17, 40, 3, 88, 21, 9, 64, 33, 2]


@dataclass
class Pair:
    """Two texts of T tokens, and the two answers whose logits are compared after the last token."""

    hf: Any
    base: list[int]
    source: list[int]
    answers: tuple[int, int]

    def __post_init__(self) -> None:
        self.of_base, self.of_source = (record(self.hf, ids) for ids in (self.base, self.source))
        self.width = self.hf.config.hidden_size // self.hf.config.num_attention_heads

    def head(self, head: int | None) -> slice:
        """Return the columns of a head, of q, k, v or z."""
        start = (head or 0) * self.width
        return slice(start, start + self.width)

    def read(self, rows: int = 1) -> Tensor:
        """Return the metric of `rows` copies of the base text, as the hooks that are on change it."""
        last = {} if hasattr(self.hf, "score") else {"logits_to_keep": 1}  # a classifier keeps but one of its own
        with torch.no_grad():
            logits = self.hf(torch.tensor([self.base] * rows), **last).logits.flatten(0, -2)
        return logits[:, self.answers[0]] - logits[:, self.answers[1]]


def on_input(module: Any, change: Change) -> Any:
    return module.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))


def on_output(module: Any, change: Change) -> Any:
    def hook(_: Any, args: Any, out: Any) -> Any:
        return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

    return module.register_forward_hook(hook)


def find_projection(block: Any, name: str) -> tuple[Any, int]:
    """Return what puts out q, k or v, and the column at which it begins: a GPT-Neo has a part for each."""
    if hasattr(block.attn, "c_attn"):
        return block.attn.c_attn, "qkv".index(name) * block.attn.embed_dim
    return getattr(block.attn.attention, f"{name}_proj"), 0


def find_merge(block: Any) -> Any:
    """Return what reads the heads' z side by side, and writes to the stream."""
    return block.attn.c_proj if hasattr(block.attn, "c_proj") else block.attn.attention.out_proj


def in_fp64(hf: Any, monkeypatch: Any) -> Any:
    """Return a copy that computes in 64 bits, GPT-Neo's scores too, which `transformers` rounds to 32."""
    module = sys.modules[type(hf).__module__]
    monkeypatch.setattr(module, "torch", SimpleNamespace(**vars(torch) | {"float32": torch.float64}))
    return copy.deepcopy(hf).double()


@contextmanager
def hooked(*handles: Any) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def record(hf: Any, ids: list[int]) -> Records:
    """Run a text and return its activations; resid_pre has one more, which enters ln_f."""
    seen: dict[str, list[Tensor]] = {name: [] for name in ("resid_pre", *"qkvz", "attn", "resid_mid", "mlp")}

    def note(name: str, columns: slice = slice(None)) -> Change:
        return lambda x: seen[name].append(x[..., columns]) or x

    handles = [on_input(hf.transformer.ln_f, note("resid_pre"))]
    for block in hf.transformer.h:
        handles += [
            on_input(block, note("resid_pre")),
            on_input(find_merge(block), note("z")),
            on_output(block.attn, note("attn")),
            on_input(block.ln_2, note("resid_mid")),
            on_output(block.mlp, note("mlp")),
        ]
        for name in "qkv":
            projection, start = find_projection(block, name)
            handles.append(on_output(projection, note(name, slice(start, start + hf.config.hidden_size))))
    with hooked(*handles), torch.no_grad():
        return seen | {"pattern": hf(torch.tensor([ids]), output_attentions=True).attentions}


def patch(pair: Pair, kind: str, layer: int, head: int | None, share: float = 1) -> Tensor:
    """Return the metric with an activation from the source run at each position alone, and last at all: (T + 1,)."""
    T, base, source, block = len(pair.base), pair.of_base, pair.of_source, pair.hf.transformer.h[layer]
    where = torch.cat([torch.eye(T), torch.ones(1, T)])[..., None]  # (T + 1, T, 1)
    columns, merge = pair.head(head), find_merge(block)

    def towards(wanted: Tensor, columns: slice = slice(None)) -> Change:
        def change(x: Tensor) -> Tensor:
            x = x.clone()
            x[..., columns] += share * where.to(x.dtype) * (wanted - x[..., columns])
            return x

        return change

    if kind == "resid_pre":
        handle = on_input(block, towards(source["resid_pre"][layer]))
    elif kind == "resid_mid":  # what attention adds makes it: a hook on ln_2 would not change the stream
        handle = on_output(block.attn, towards(source["resid_mid"][layer] - base["resid_pre"][layer]))
    elif kind == "attn":
        handle = on_output(block.attn, towards(source["attn"][layer]))
    elif kind == "mlp":
        handle = on_output(block.mlp, towards(source["mlp"][layer]))
    elif kind == "z":
        handle = on_input(merge, towards(source["z"][layer][..., columns], columns))
    elif kind == "pattern":
        v = base["v"][layer][..., columns]  # (1, T, D)
        handle = on_input(merge, towards(source["pattern"][layer][:, head] @ v, columns))
    else:
        projection, start = find_projection(block, kind)
        place = slice(start + columns.start, start + columns.stop)
        handle = on_output(projection, towards(source[kind][layer][..., columns], place))
    with hooked(handle):
        return pair.read(T + 1)


def written(pair: Pair, sender: str, layer: int, head: int | None) -> Tensor:
    """Return what a sender (embedding, head or mlp) writes to the stream in the source run, minus the base: (T, C)."""
    name = {"embedding": "resid_pre", "head": "z", "mlp": "mlp"}[sender]
    layer = 0 if sender == "embedding" else layer
    difference = (pair.of_source[name][layer] - pair.of_base[name][layer])[0]
    if head is None:
        return difference
    merge, of_head = find_merge(pair.hf.transformer.h[layer]), torch.zeros_like(difference)
    of_head[:, pair.head(head)] = difference[:, pair.head(head)]
    return (merge(of_head) - merge(torch.zeros_like(of_head))).detach()


def normalise(norm: Any, x: Tensor, sent: Tensor, layer_norm: str) -> Tensor:
    """Return LayerNorm of x + sent, `recomputed`, or `frozen`: with the deviation of x."""
    total = x + sent
    scaled = x if layer_norm == "frozen" else total
    deviation = ((scaled - scaled.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True).add(norm.eps).sqrt()
    return ((total - total.mean(-1, keepdim=True)) / deviation * norm.weight + norm.bias).detach()


def send(
    pair: Pair,
    senders: Sequence[tuple[str, int, int | None]],
    receiver: tuple[str, int, int | None],
    layer_norm: str,
    share: float = 1,
) -> Tensor:
    """Return the metric where one input of one receiver, (`q`, `k`, `v`, `mlp` or `logits`, layer, head), reads what
    each sender, (kind, layer, head), would have written: (n,)."""
    name, layer, head = receiver
    sent = share * torch.stack([written(pair, *sender) for sender in senders])  # (n, T, C)
    stream = pair.of_base["resid_mid" if name == "mlp" else "resid_pre"][layer]  # (1, T, C)
    if name == "logits":
        changed = normalise(pair.hf.transformer.ln_f, stream, sent, layer_norm)
        handle = on_output(pair.hf.transformer.ln_f, lambda _: changed)
    elif name == "mlp":
        block = pair.hf.transformer.h[layer]
        changed = normalise(block.ln_2, stream, sent, layer_norm)
        handle = on_input(block.mlp, lambda _: changed)
    else:
        block, columns = pair.hf.transformer.h[layer], pair.head(head)
        projection, start = find_projection(block, name)
        place = slice(start + columns.start, start + columns.stop)
        changed = projection(normalise(block.ln_1, stream, sent, layer_norm))[..., place].detach()

        def put_in(x: Tensor) -> Tensor:
            x = x.clone()
            x[..., place] = changed
            return x

        handle = on_output(projection, put_in)
    with hooked(handle):
        return pair.read(len(senders))
