"""Does the network know what the official GPT-2 is known to know? `make verify`, or `python verify.py --help`.

Read the measures from top to bottom: a tour of what is known about the 124M weights. Others measured the 52 facts in
data/gpt2-facts.json and, new, the 18 maps in data/gpt2-patching.json, with other code; a `source` stands with each.

Everything runs in fp32, and the tolerances are for fp32: never less than one unit of the last decimal that the source
printed, nor than 1e-4 after one layer and 5e-4 after several, where the order of the sums shows.

Letters: B prompts, T tokens, L layers, H heads, D head width, C = H * D width, V vocabulary.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from rich.table import Column, Table
from torch import Tensor
from torch.nn import functional as F

from experiments.patch.published import BOS, patching_map, read_maps
from lab.cli import command
from lab.device import Device, DeviceName
from lab.heads import score_looking_back
from lab.progress import console
from model import GPT2LM, GPT2Config, InputError, Interventions, Tokenizer, Trace, load_lm
from model.checkpoint import read_config

FACTS, MAPS = (Path(__file__).parent / "data" / name for name in ("gpt2-facts.json", "gpt2-patching.json"))
Head = tuple[int, int]  # (layer, head), counted from 0
Prompt = tuple[str, str, str]  # a text, the right next token and the wrong one
Value = float | str | list[Any]  # a list of numbers, or of such lists


@dataclass(frozen=True)
class Options:
    """Replay the recorded facts about the official GPT-2 (124M). Exit code 0: all hold, 1: one does not."""

    model: str = "gpt2"  # the official weights: a checkpoint's folder, or a published name
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU; fp32 on each


def main(options: Options) -> int:
    device = Device.choose(options.device, "fp32")
    if read_config(options.model, dropout=0.1) != GPT2Config.preset("gpt2"):  # its own dropout does not matter here
        raise InputError(f"model {options.model!r}: expected the shape of the 124M gpt2, which the facts are about")
    started = time.perf_counter()
    lm, tokenizer = load_lm(options.model).to(device.device), Tokenizer.load(options.model)
    seconds = time.perf_counter() - started
    table, held = check(lm, tokenizer, json.loads(FACTS.read_text(encoding="utf-8")) + read_maps(MAPS))
    console.print(table)
    cost = f"loaded in {seconds:.1f} s" + (f", peak memory {n / 2**30:.1f} GiB" if (n := device.peak_memory()) else "")
    console.print(f"{held} of {table.row_count} facts hold on {device.device.type} in fp32; {cost}")
    return 0 if held == table.row_count else 1


@torch.no_grad()
def check(lm: GPT2LM, tokenizer: Tokenizer, facts: list[dict[str, Any]]) -> tuple[Table, int]:
    """Measure each fact -> a table with one row per fact, and how many hold."""
    columns = ("expected", "got", "difference", "tolerance", "")
    table, held = Table("fact", *(Column(name, no_wrap=True) for name in columns), box=None), 0
    for fact in track(facts, "measuring", console=console, transient=True):
        got = MEASURES[fact["measure"]](lm, tokenizer, **fact["inputs"])
        holds, cells = compare(got, fact["expected"], fact["tolerance"])
        cells += [f"{fact['tolerance']:g}", "ok" if holds else "MISS"]
        table.add_row(fact["fact"], *cells, style="" if holds else "bold red")
        held += holds
    return table, held


def parameters(lm: GPT2LM, tokenizer: Tokenizer) -> int:
    """How many numbers were trained. The output layer is the token embedding again, which counts once."""
    return sum(parameter.numel() for parameter in lm.parameters())


def continuation(lm: GPT2LM, tokenizer: Tokenizer, text: str, new_tokens: int) -> str:
    """What greedy search writes behind a text."""
    ids = encoded(lm, tokenizer, text, bos=False)  # (1, T)
    return tokenizer.decode(lm.generate(ids, new_tokens)[0, ids.shape[1] :].tolist())


def loss(lm: GPT2LM, tokenizer: Tokenizer, text: str, bos: bool, without: Head | None = None) -> float:
    """Mean cross-entropy of each token but the first, in nats; `without` a head, it is closed at every position."""
    ids = encoded(lm, tokenizer, text, bos=bos)  # (1, T)
    closed = without_head(lm, without, ids, at=slice(None)) if without else {}
    return F.cross_entropy(lm(ids, **closed)[0, :-1], ids[0, 1:]).item()


def probability(lm: GPT2LM, tokenizer: Tokenizer, text: str, answer: str) -> float:
    """Of one token, as the next one after BOS and a text."""
    (answer_id,) = tokenizer.encode(answer)
    return lm(encoded(lm, tokenizer, text))[0, -1].softmax(dim=-1)[answer_id].item()


def logit_difference(lm: GPT2LM, tokenizer: Tokenizer, prompts: list[Prompt], without: Head | None = None) -> float:
    """Logit of the right next token minus that of the wrong one, mean over prompts of one length.

    IOI, indirect object identification (Wang et al. 2022): who is given the bag is the name that stands there once.
    `without` a head, it is closed at the last position; heads behind it make up for much of that."""
    ids, answers = encoded_prompts(lm, tokenizer, prompts)  # (B, T), (B, 2)
    closed = without_head(lm, without, ids, at=slice(-1, None)) if without else {}
    right, wrong = lm(ids, **closed)[:, -1].gather(1, answers).unbind(dim=1)  # two of (B,)
    return (right - wrong).mean().item()


def attention_row(lm: GPT2LM, tokenizer: Tokenizer, text: str, bos: bool, head: Head, query: int) -> list[float]:
    """Where one query of a head looks: its attention weights on the keys 0 .. query."""
    return attention(lm, encoded(lm, tokenizer, text, bos=bos), head)[0, query, : query + 1].tolist()


def repetition_score(lm: GPT2LM, tokenizer: Tokenizer, head: Head, back: int) -> float:
    """How much a head looks `back` tokens back, on average over two rows of 100 random tokens said twice: back = 1
    for a previous-token, 100 for a duplicate-token, 99 for an induction head. The tolerance allows for another torch to
    draw other tokens."""
    tokens = torch.randint(100, 20_000, (2, 100), generator=torch.Generator().manual_seed(0))
    layer, h = head
    return score_looking_back(lm, tokens, back)[layer, h].item()


def direct_effect(lm: GPT2LM, tokenizer: Tokenizer, prompts: list[Prompt], head: Head) -> float:
    """What a head at the last position adds by itself to the logit difference (direct logit attribution).

    With ln_f's scale held as it is, logits are linear in the residual stream, and so a sum over all that write to it.
    The `constant` part of what a head writes counts as a bias, not as the head's."""
    ids, answers = encoded_prompts(lm, tokenizer, prompts)  # (B, T), (B, 2)
    (layer, h), D, ln_f, trace = head, lm.config.head_width, lm.trunk.ln_f, Trace("z", "resid_pre")
    lm.trunk(ids, trace=trace)
    z = trace.z[layer][:, h, -1] - constant(lm, head)  # (B, D)
    written = z @ lm.trunk.get_parameter(f"h.{layer}.attn.c_proj.weight")[:, h * D : (h + 1) * D].T  # (B, C)
    scale = (trace.resid_pre[-1][:, -1:].var(dim=-1, correction=0) + ln_f.eps).sqrt()  # (B, 1)
    normed = (written - written.mean(dim=-1, keepdim=True)) / scale * ln_f.weight  # (B, C)
    right, wrong = lm.trunk.wte.weight[answers].unbind(dim=1)  # two of (B, C)
    return (normed * (right - wrong)).sum(dim=-1).mean().item()


TOUR = (parameters, continuation, loss, probability, logit_difference, attention_row, repetition_score, direct_effect)
MEASURES: dict[str, Callable[..., Value]] = {measure.__name__: measure for measure in (*TOUR, patching_map)}


def encoded(lm: GPT2LM, tokenizer: Tokenizer, *texts: str, bos: bool = True) -> Tensor:
    """Texts of one length -> ids (B, T)."""
    return torch.tensor([[BOS] * bos + tokenizer.encode(text) for text in texts], device=lm.trunk.wte.weight.device)


def encoded_prompts(lm: GPT2LM, tokenizer: Tokenizer, prompts: list[Prompt]) -> tuple[Tensor, Tensor]:
    """Prompts of one length -> ids (B, T) after BOS, and their answers, right and wrong, of one token each (B, 2)."""
    answers = [tokenizer.encode(right) + tokenizer.encode(wrong) for _, right, wrong in prompts]
    ids = encoded(lm, tokenizer, *(text for text, _, _ in prompts))
    return ids, torch.tensor(answers, device=ids.device)


def attention(lm: GPT2LM, ids: Tensor, head: Head) -> Tensor:
    """One head's attention weights (B, T, T), query x key. The layers above it are not computed."""
    (layer, h), trace = head, Trace("weights")
    lm.trunk.run(lm.trunk.embed(ids), 0, layer + 1, trace=trace)
    return trace.weights[layer][:, h]


def constant(lm: GPT2LM, head: Head) -> Tensor:
    """b_V + W_V ln_1.bias, (D,): what a head emits wherever it looks.

    The values come from ln_1's weight * x + bias and the weights on them sum to 1, so this part of z depends on no
    text. The sources fold it into c_proj's bias before they set z to 0; in the weights as published that is to fill z
    with this constant. A plain z = 0 takes the constant away as well, which is another, stronger ablation."""
    (layer, h), C, D = head, lm.config.n_embd, lm.config.head_width
    block: Any = lm.trunk.h[layer]
    of_v = slice(2 * C + h * D, 2 * C + (h + 1) * D)  # c_attn makes q, k and v, each head by head
    return block.attn.c_attn.bias[of_v] + block.attn.c_attn.weight[of_v] @ block.ln_1.bias


def without_head(lm: GPT2LM, head: Head, ids: Tensor, at: slice) -> Interventions:
    """Fill a head with its constant `at` these positions of ids (B, T)."""
    gate = torch.ones(1, lm.config.n_layer, lm.config.n_head, ids.shape[1], device=ids.device)
    gate[0, *head, at] = 0
    fill = constant(lm, head).expand(*gate.shape[:3], 1, -1)  # looked at only where a gate is closed
    return {"head_gate": gate, "head_fill": fill}


def compare(got: Value, expected: Value, tolerance: float) -> tuple[bool, list[str]]:
    """Does the fact hold? And the cells expected, got and difference; a list is judged by its worst entry."""
    if isinstance(expected, str):
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(str(got), expected, strict=False))))
        start = 0 if got == expected else same  # a few characters are shown, from where they part
        texts = [("…" * (start > 0) + repr(str(text)[start:])[1:-1])[:16] for text in (expected, got)]
        return got == expected, [*texts, "none" if got == expected else f"at char {same}"]
    b, a = (torch.tensor(value, dtype=torch.float64) for value in (expected, got))
    difference = (a - b).abs()
    worst = torch.unravel_index(difference.argmax(), b.shape)  # a NaN counts as the largest, is within no tolerance
    form, place = ",.0f" if isinstance(expected, int) else ".5f", ",".join(str(int(index)) for index in worst)
    numbers = [f"{value[worst]:{form}}" + f" [{place}]" * bool(place) for value in (b, a)]
    return bool(difference[worst] <= tolerance), [*numbers, f"{difference[worst]:.1e}"]


if __name__ == "__main__":
    command(main, Options)
