"""The maps of patching that others published of the official GPT-2, and the same maps measured here: `make verify`."""

import json
from pathlib import Path
from typing import Any, Literal

import torch

from lab.device import TOKENS
from model import GPT2LM, Tokenizer

from .cells import HEAD_KINDS, Cell, Kind, Metric, patch_cells, record
from .estimates import estimate_cells, look_up
from .pairs import BOS

METHODS: tuple[Literal["patched", "estimated"], ...] = ("patched", "estimated")


def read_maps(path: Path) -> list[dict[str, Any]]:
    """Read maps as facts, like those of gpt2-facts.json: one for each map and method. The file counts in units."""
    file = json.loads(path.read_text(encoding="utf-8"))
    facts = []
    for entry in file["maps"]:
        kind, by_position = entry["kind"], entry["by_position"]
        axes = ["head"] * (kind in HEAD_KINDS) + ["position"] * by_position
        for method in METHODS:
            facts.append(
                {
                    "fact": f"{method}: {kind} by {', '.join(axes)}",
                    "measure": "patching_map",
                    "inputs": {"prompts": file["prompts"], "kind": kind, "by_position": by_position, "method": method},
                    "expected": (torch.tensor(entry[method], dtype=torch.float64) * file["unit"]).tolist(),
                    "tolerance": file["tolerance"],
                    "source": file["source"],
                }
            )
    return facts


def patching_map(
    lm: GPT2LM, tokenizer: Tokenizer, prompts: list[tuple[str, str, str]], kind: Kind, by_position: bool, method: str
) -> list[Any]:
    """How much of the logit difference comes back with one activation from the clean run, cell by cell.

    Each prompt is clean once, and its neighbour, with the two names swapped, is the corrupt text; all are of one
    length. The map is (layer, position), (layer, head) or (layer, head, position), nested: the sum of the effects over
    prompts, `patched` or `estimated`, by the sum of the gaps between clean and corrupt."""
    texts = [[BOS, *tokenizer.encode(text)] for text, _, _ in prompts]
    heads = range(lm.config.n_head) if kind in HEAD_KINDS else [None]
    positions = range(len(texts[0])) if by_position else [None]
    cells = [Cell(kind, layer, h, p) for layer in range(lm.config.n_layer) for h in heads for p in positions]
    effects, gap = torch.zeros(len(cells)), 0.0
    for i, (_, *answers) in enumerate(prompts):
        clean, corrupt = texts[i], texts[i ^ 1]
        (right,), (wrong,) = (tokenizer.encode(answer) for answer in answers)
        metric = Metric.between(lm, (right, wrong))
        source, base = record(lm.trunk, clean), record(lm.trunk, corrupt)
        plain = metric.read(base.resid_pre[-1]).item()
        gap += metric.read(source.resid_pre[-1]).item() - plain
        if method == "patched":
            effects += patch_cells(metric, base, source, cells, TOKENS) - plain
        else:
            estimates = estimate_cells(metric, corrupt, source)
            effects += torch.tensor([look_up(estimates, cell) for cell in cells])
    shape = [lm.config.n_layer, *(len(axis) for axis in (heads, positions) if None not in axis)]
    return (effects / gap).view(shape).tolist()
