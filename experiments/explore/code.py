"""An experiment as Python that gives the same numbers, and as a request that another program can send."""

import json
import shlex

from .experiment import Experiment
from .subject import Subject

Code = list[str]


def write_code(subject: Subject, experiment: Experiment, address: str) -> dict[str, str]:
    """Return `python`, a script to run in headgate's folder, and `command`, a call of curl."""
    body = json.dumps(write_body(experiment), ensure_ascii=False)
    header = "content-type: application/json"
    command = f"curl {address}api/run -H {shlex.quote(header)} -d {shlex.quote(body)}"
    return {"python": write_python(subject, experiment), "command": command}


def write_body(experiment: Experiment) -> dict[str, object]:
    """Return the body of a request for this experiment, without what is as by default."""
    body: dict[str, object] = {"text": experiment.text}
    if experiment.heads:
        body["heads"] = [list(head) for head in experiment.heads]
    if experiment.mlps:
        body["mlps"] = list(experiment.mlps)
    if experiment.tokens:
        body["tokens"] = {str(position): removal for position, removal in experiment.tokens.items()}
    if experiment.fill != "zero":
        body["fill"] = experiment.fill
    if experiment.other:
        body["other"] = experiment.other
    return body


def write_python(subject: Subject, experiment: Experiment) -> str:
    """Return a script that computes `before` and `after`."""
    opener, arguments = subject.call.partition("(")[0], write_arguments(experiment)
    closed = experiment.heads or experiment.mlps
    fills = bool(closed) and experiment.fill != "zero"
    lines = [
        "import torch",
        "",
        f"from experiments.explore.subject import {opener}",
        *(["from model import masks"] if arguments else []),
        "",
        f"subject = {subject.call}",
        "model, trunk, device = subject.model, subject.model.trunk, subject.device.device",
        f"ids = subject.tokenizer.encode({experiment.text!r})",
        f"before = model(torch.tensor([ids], device=device)){'' if subject.labels else '[:, -1]'}.softmax(dim=-1)[0]",
        "",
        *write_embedding(experiment),
        "arguments = {}",
        *arguments,
        *(write_draws(experiment) if fills else []),
        *write_reading(fills),
        "print(before.tolist(), after.tolist(), sep='\\n')",
    ]
    return "\n".join(lines) + "\n"


def write_embedding(experiment: Experiment) -> Code:
    """Return the lines that delete and fill tokens."""
    lines = []
    if len(experiment.kept) < len(experiment.ids):
        deleted = sorted(set(range(len(experiment.ids))) - set(experiment.kept))
        lines.append(f"ids = [token for i, token in enumerate(ids) if i not in {deleted}]  # deleted")
    lines.append("x = trunk.embed(torch.tensor([ids], device=device))  # (1, T, C)")
    for i, position in enumerate(experiment.kept):
        if experiment.tokens.get(position) == "fill":
            lines.append(f"x[0, {i}] = trunk.wte.weight.mean(dim=0) + trunk.wpe.weight[{i}]  # filled")
    return lines


def write_arguments(experiment: Experiment) -> Code:
    """Return the lines that make the arguments of the forward pass."""
    lines = []
    hidden = [i for i, position in enumerate(experiment.kept) if experiment.tokens.get(position) == "hide"]
    if hidden:
        lines.append(f"hidden = torch.tensor([[i in {hidden} for i in range(len(ids))]], device=device)")
        lines.append('arguments["attn_mask"] = masks.hide_tokens(hidden)')
    if experiment.heads:
        heads = [tuple(head) for head in experiment.heads]
        lines.append(f'arguments["head_gate"] = masks.close_heads(model.config, {heads}).to(device)')
    if experiment.mlps:
        lines.append(f'arguments["mlp_gate"] = masks.close_mlps(model.config, {list(experiment.mlps)}).to(device)')
    return lines


def write_draws(experiment: Experiment) -> Code:
    """Return the lines that compute what switched-off parts emit."""
    lines = [f"other = subject.tokenizer.encode({experiment.other!r})"] if experiment.fill == "text" else []
    call = f"subject.compute_fills({experiment.fill!r}, ids{', other' if experiment.fill == 'text' else ''})"
    parts = [name for name, closed in (("head", experiment.heads), ("mlp", experiment.mlps)) if closed]
    pairs = ", ".join(f'"{part}_fill": fill["{part}_fill"]' for part in parts)
    return [*lines, f"draws = [{{{pairs}}} for fill in {call}]"]


def write_reading(fills: bool) -> Code:
    """Return the lines that run the blocks and read the last token."""
    if not fills:
        return [
            "x = trunk.norm(trunk.run(x, **arguments))[:, -1:]",
            "after = subject.read(x).softmax(dim=-1)[0]",
        ]
    return [
        "streams = [trunk.norm(trunk.run(x, **arguments, **fill))[:, -1:] for fill in draws]",
        "after = torch.stack([subject.read(x).softmax(dim=-1)[0] for x in streams]).mean(dim=0)",
    ]
