"""An experiment as Python that gives the same numbers, and as a request that another program can send."""

import json
import shlex

from data.reading import USUAL
from lab.study import ITS_OWN

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
    """Return a script that computes `before` and `after`, with a plain call of the network where that suffices."""
    is_filled = bool(experiment.heads or experiment.mlps) and experiment.fill != "zero"
    is_plain = not is_filled and subject.source is not None
    arguments = write_arguments(experiment, "" if is_plain else ".to(ids.device)")
    place = "" if is_plain else ", device=subject.device.device"
    lines = [
        "import torch",
        "",
        *write_opening(subject, is_plain, bool(arguments)),
        f"ids = torch.tensor([tokenizer.encode({experiment.text!r})]{place})",
        f"before = model(ids){write_softmax(subject)}",
        "",
        *write_tokens(experiment),
        *arguments,
        *(write_draws(experiment) if is_filled else []),
        *write_reading(subject, experiment, bool(arguments), is_filled),
        "print(before.tolist(), after.tolist(), sep='\\n')",
    ]
    return "\n".join(lines) + "\n"


def write_opening(subject: Subject, is_plain: bool, needs_masks: bool) -> Code:
    """Return the lines that load the network and, unless it is a plain one, the texts that fills are made of."""
    masks = ", masks" if needs_masks else ""
    if is_plain:
        load = "load_classifier" if subject.labels else "load_lm"
        opened = f"{load}({subject.source!r}), Tokenizer.load({subject.source!r})"
        return [f"from model import Tokenizer, {load}{masks}", "", f"model, tokenizer = {opened}"]
    return [
        *["from data import ReadOptions"] * (subject.options.read != USUAL),
        f"from experiments.explore.subject import {subject.call.partition('(')[0]}",
        *["from lab.study import StudyOptions"] * (subject.options != ITS_OWN),
        *["from model import masks"] * needs_masks,
        "",
        f"subject = {subject.call}",
        "model, tokenizer = subject.model, subject.tokenizer",
    ]


def write_softmax(subject: Subject) -> str:
    """Return how probabilities come from the logits, of a language model those at the last token."""
    return f"{'' if subject.labels else '[:, -1]'}.softmax(dim=-1)[0]"


def write_tokens(experiment: Experiment) -> Code:
    """Return the lines that delete tokens, and replace the embeddings of others."""
    lines = []
    if len(experiment.kept) < len(experiment.ids):
        lines.append(f"ids = ids[:, {experiment.kept}]  # the others are deleted")
    if filled := [i for i, position in enumerate(experiment.kept) if experiment.tokens.get(position) == "fill"]:
        lines.append("trunk = model.trunk")
        lines.append("x = trunk.embed(ids)  # (1, T, C)")
        lines.append(f"x[0, {filled}] = trunk.wte.weight.mean(dim=0) + trunk.wpe.weight[{filled}]  # filled")
    return lines


def write_arguments(experiment: Experiment, place: str) -> Code:
    """Return the lines that make the arguments of the forward pass. place: what moves a tensor to the network."""
    arguments = {}
    if "hide" in experiment.tokens.values():
        hidden = [experiment.tokens.get(position) == "hide" for position in experiment.kept]
        arguments["attn_mask"] = f"masks.hide_tokens(torch.tensor([{hidden}]))"
    if experiment.heads:
        arguments["head_gate"] = f"masks.close_heads(model.config, {[tuple(head) for head in experiment.heads]})"
    if experiment.mlps:
        arguments["mlp_gate"] = f"masks.close_mlps(model.config, {list(experiment.mlps)})"
    rows = [f'    "{name}": {value}{place},' for name, value in arguments.items()]
    return ["arguments = {", *rows, "}"] if rows else []


def write_draws(experiment: Experiment) -> Code:
    """Return the lines that compute what switched-off parts emit."""
    lines = [f"other = tokenizer.encode({experiment.other!r})"] if experiment.fill == "text" else []
    call = (
        f"subject.compute_fills({experiment.fill!r}, ids[0].tolist(){', other' if experiment.fill == 'text' else ''})"
    )
    parts = [name for name, closed in (("head", experiment.heads), ("mlp", experiment.mlps)) if closed]
    pairs = ", ".join(f'"{part}_fill": fill["{part}_fill"]' for part in parts)
    return [*lines, f"draws = [{{{pairs}}} for fill in {call}]"]


def write_reading(subject: Subject, experiment: Experiment, has_arguments: bool, is_filled: bool) -> Code:
    """Return the line that runs the network."""
    passed = (", **arguments" if has_arguments else "") + (", **fill" if is_filled else "")
    replaces = "fill" in experiment.tokens.values()
    logits = f"model.read(trunk.norm(trunk.run(x{passed})))" if replaces else f"model(ids{passed})"
    probabilities = f"{logits}{write_softmax(subject)}"
    if not is_filled:
        return [f"after = {probabilities}"]
    return [f"after = torch.stack([{probabilities} for fill in draws]).mean(dim=0)"]
