"""The forward passes that answer an experiment.

Every pass goes the same way: embed the tokens, run the blocks with the arguments that the switches stand for, read the
last token. There is no hook and no state, so the answer to one request cannot depend on another.

Letters: those of the forward pass; K classes, or of a language model the next tokens that are shown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lab.attention import MOST_TOKENS, list_tokens, pack, record_attention
from lab.removals import mean_embedding
from lab.texts import name_next_tokens
from lab.units import Head
from model import GPT2Classifier, InputError, Interventions, Trace, masks

from .experiment import Experiment
from .subject import Subject

SHOWN = 10  # likeliest next tokens of a language model, before and after
DRAWS = 20  # of as many random heads
Json = dict[str, Any]
T = TypeVar("T")
Closed = tuple[list[Head], list[int]]  # heads and MLPs that are closed together


@dataclass(frozen=True, eq=False)
class Pass:
    """The forward pass of an experiment: embeddings, and what its arguments are made of."""

    x: Tensor  # (1, T, C), of the tokens that are kept
    hidden: list[int]  # positions among these
    mask: Interventions  # what hides them
    gates: Interventions  # what switches heads and MLPs off
    fills: list[Interventions]

    @property
    def arguments(self) -> list[Interventions]:
        """The arguments of the forward pass, for each draw of the fill."""
        fills = self.fills if self.gates else self.fills[:1]  # without a gate, draws do not differ
        return [join(self.mask, self.gates, fill) for fill in fills]


@torch.inference_mode()
def prepare(subject: Subject, experiment: Experiment) -> Pass:
    """Return the forward pass that an experiment stands for."""
    trunk, device = subject.model.trunk, subject.device.device
    kept = experiment.kept
    ids = [experiment.ids[position] for position in kept]
    x = trunk.embed(torch.tensor([ids], device=device))
    for i, position in enumerate(kept):
        if experiment.tokens.get(position) == "fill":
            x[0, i] = mean_embedding(trunk) + trunk.wpe.weight[i]
    hidden = [i for i, position in enumerate(kept) if experiment.tokens.get(position) == "hide"]
    mask, gates = Interventions(), Interventions()
    if hidden:
        row = torch.tensor([[i in hidden for i in range(len(kept))]], device=device)
        mask["attn_mask"] = masks.hide_tokens(row)
    if experiment.heads:
        gates["head_gate"] = masks.close_heads(subject.model.config, experiment.heads).to(device)
    if experiment.mlps:
        gates["mlp_gate"] = masks.close_mlps(subject.model.config, experiment.mlps).to(device)
    return Pass(x, hidden, mask, gates, subject.compute_fills(experiment.fill, ids, experiment.other_ids))


def join(mask: Interventions, gates: Interventions, fill: Interventions) -> Interventions:
    """Return all of them as one, without the fills whose gates are not there: they would be an error."""
    used = {name: value for name, value in fill.items() if name.replace("fill", "gate") in gates}
    return {**mask, **gates, **used}  # type: ignore[typeddict-item]


def read_last(subject: Subject, x: Tensor, arguments: Interventions) -> Tensor:
    """Return the probabilities that are read at the last token of x (B, T, C): float64 (B, K), or (B, V) of next
    tokens."""
    trunk = subject.model.trunk
    query = torch.full((len(x),), x.shape[1] - 1, device=x.device)
    logits = subject.read(trunk.norm(trunk.run(x, query=query, **arguments)))
    probabilities = logits.double().softmax(dim=-1).cpu()
    is_classifier = isinstance(subject.model, GPT2Classifier)
    return probabilities if is_classifier else probabilities[:, : len(subject.tokenizer)]  # padding stands for nothing


def average(subject: Subject, prepared: Pass) -> Tensor:
    """Return the probabilities after the switches, the mean over the draws of the fill: (K,), or (V,)."""
    return torch.stack([read_last(subject, prepared.x, arguments)[0] for arguments in prepared.arguments]).mean(dim=0)


@dataclass(frozen=True, eq=False)
class Answer:
    """Probabilities before and after, float64 (K,); `shown` are the next tokens of a language model, None: classes."""

    labels: list[str]
    before: Tensor
    after: Tensor
    shown: Tensor | None

    @property
    def predicted(self) -> str:
        return self.labels[int(np.argmax(self.select(self.after)))]

    @property
    def predicted_before(self) -> str:
        return self.labels[int(np.argmax(self.select(self.before)))]

    def select(self, probabilities: Tensor) -> list[Any]:
        """Return probabilities (..., K or V) of what is shown, as lists."""
        return (probabilities if self.shown is None else probabilities[..., self.shown]).tolist()


@torch.inference_mode()
def answer(subject: Subject, experiment: Experiment) -> Answer:
    """Compute the probabilities of an experiment. `before`: of the whole text, with everything on."""
    whole = subject.model.trunk.embed(torch.tensor([experiment.ids], device=subject.device.device))
    before = read_last(subject, whole, {})[0]
    changed = experiment.heads or experiment.mlps or experiment.tokens
    after = average(subject, prepare(subject, experiment)) if changed else before
    if isinstance(subject.model, GPT2Classifier):
        return Answer(list(subject.labels), before, after, None)
    shown = torch.cat([before.topk(SHOWN).indices, after.topk(SHOWN).indices]).tolist()
    shown = list(dict.fromkeys(shown))  # each once, the likeliest before first
    return Answer(name_next_tokens(subject.tokenizer, shown), before, after, torch.tensor(shown))


def run(subject: Subject, experiment: Experiment) -> Json:
    """Return the answer of POST /api/run, without the seconds."""
    result = answer(subject, experiment)
    return {
        "tokens": list_tokens(subject.tokenizer.pieces(experiment.text)),
        "labels": result.labels,
        "before": result.select(result.before),
        "after": result.select(result.after),
        "predicted": result.predicted,
        "predicted_before": result.predicted_before,
        "ids": list(experiment.ids),
    }


@torch.inference_mode()
def record(subject: Subject, experiment: Experiment, look: Head, every: bool) -> Json:
    """Return attention under the switches: q and k of one head, and the maps of it or of every head.

    Of several draws of a fill the first one is shown. Raises InputError where a text is too long for every head."""
    kept = experiment.kept
    if every and len(kept) > MOST_TOKENS:
        raise InputError(
            f"all heads: expected at most {MOST_TOKENS} tokens, got {len(kept):,}; look at one, or shorten the text"
        )
    prepared = prepare(subject, experiment)
    tokens = list_tokens(subject.tokenizer.pieces(experiment.text))
    trunk = subject.model.trunk
    recording = record_attention(
        trunk, prepared.x, [tokens[position] for position in kept], prepared.arguments[0], prepared.hidden
    )
    return {**pack(recording, None if every else [look], [look]), "positions": kept}


def close_too(subject: Subject, experiment: Experiment) -> Iterator[Closed]:
    """Yield what is closed, heads and MLPs, where each unit is switched off too: every head in order, then every
    MLP."""
    config = subject.model.config
    heads, mlps = list(experiment.heads), list(experiment.mlps)
    for layer in range(config.n_layer):
        for head in range(config.n_head):
            yield [*heads, (layer, head)], mlps
    for layer in range(config.n_layer):
        yield heads, [*mlps, layer]


def draw_random(subject: Subject, experiment: Experiment) -> list[Closed]:
    """Draw as many heads and MLPs as the experiment switches off, at random: DRAWS times, the same for the same
    experiment. They are others than those of the experiment, or any where fewer others are left."""
    L, H = subject.model.config.n_layer, subject.model.config.n_head
    heads = choose_others([(layer, head) for layer in range(L) for head in range(H)], experiment.heads)
    mlps = choose_others(list(range(L)), experiment.mlps)
    rng = np.random.default_rng((len(experiment.heads), len(experiment.mlps), *b"random heads"))
    draws = []
    for _ in range(DRAWS):
        chosen = rng.choice(len(heads), len(experiment.heads), replace=False)
        draws.append(([heads[i] for i in chosen], rng.choice(mlps, len(experiment.mlps), replace=False).tolist()))
    return draws


def choose_others(units: list[T], closed: Sequence[T]) -> list[T]:
    """Return the units that are not closed, or all of them where fewer are left than are closed."""
    others = [unit for unit in units if unit not in closed]
    return others if len(others) >= len(closed) else units


def count_overlaps(experiment: Experiment, draws: Sequence[Closed]) -> int:
    """Return how many draws hold a unit that the experiment switches off, too."""
    closed: set[Head | int] = {*experiment.heads, *experiment.mlps}
    return sum(not closed.isdisjoint([*heads, *mlps]) for heads, mlps in draws)


@torch.inference_mode()
def run_each(subject: Subject, experiment: Experiment, closed: Sequence[Closed]) -> Tensor:
    """Return the probabilities with each of these (heads, MLPs) closed instead, in one pass for all: (n, K or V)."""
    config, device = subject.model.config, subject.device.device
    prepared = prepare(subject, experiment)
    gates: Interventions = {
        "head_gate": torch.cat([masks.close_heads(config, heads) for heads, _ in closed]).to(device),
        "mlp_gate": torch.cat([masks.close_mlps(config, mlps) for _, mlps in closed]).to(device),
    }
    x = prepared.x.expand(len(closed), -1, -1)
    draws = [read_last(subject, x, join(prepared.mask, gates, fill)) for fill in prepared.fills]
    return torch.stack(draws).mean(dim=0)


@torch.inference_mode()
def read_layers(subject: Subject, experiment: Experiment) -> Json:
    """Return the class lens under the switches: what the head reads at each layer and token, (L + 1, T, K), the mean
    over the draws of the fill."""
    result, prepared = answer(subject, experiment), prepare(subject, experiment)
    traces, trunk = [Trace("resid_pre") for _ in prepared.arguments], subject.model.trunk
    for trace, arguments in zip(traces, prepared.arguments, strict=True):
        trunk.run(prepared.x, trace=trace, **arguments)
    layers = []
    for layer in range(len(traces[0].resid_pre)):  # L + 1, one after the other: next tokens are many
        streams = (trace.resid_pre[layer][0, :, None] for trace in traces)  # (T, 1, C) each
        draws = (subject.read(trunk.norm(stream)).double().softmax(dim=-1) for stream in streams)  # (T, K or V) each
        layers.append(result.select((sum(draws, torch.zeros(())) / len(traces)).cpu()))
    return {"labels": result.labels, "probabilities": layers}
