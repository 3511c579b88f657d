"""Who is timed on recording what a network emits for each text, the input of probes: the residual stream before and
behind each layer, the outputs of the heads, and those of the MLPs, all at the last token.

`transformers` gives the streams as hidden states, and the rest to hooks. headgate also writes them to disk, as
probe.py needs it, and reads them from there."""

from contextlib import ExitStack, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.activations import record
from lab.device import Device
from model import GPT2Config

from .arithmetic import count_passes
from .contestants import EndTurn, Job, from_pretrained, load_headgate, run_batches
from .slices import BATCH, TOKENS, Amount, draw_texts
from .table import compare
from .turns import take_turns

SHARE = 8  # texts for each one that is swept


def time_recording(config: GPT2Config, folder: str, amount: Amount, device: Device) -> list[dict[str, Any]]:
    """Return a row for each way to record, on texts of random tokens."""
    n = SHARE * amount.texts  # texts of a chunk
    batches = [np.arange(start, min(start + BATCH, n)) for start in range(0, n, BATCH)]
    chunks = [batches[:1], *([round_ * n + batch for batch in batches] for round_ in range(amount.rounds))]
    job = Job(folder, device, draw_texts(amount.rounds * n, TOKENS), chunks)
    jobs = {"headgate": job, "transformers, hidden states": job}
    (timed,) = take_turns([record_headgate, record_hf], [list(jobs.values())])
    return compare("recording", config, jobs, [count_passes] * 2, timed, [outcome.output for outcome in timed])


def record_headgate(job: Job, end_turn: EndTurn) -> NDArray[np.floating]:
    """Record with `record` of probe.py, which makes its own batches of a chunk's texts.

    Returns float32 (n, L + 1 + L + L, C): n texts in the order of the chunks; streams, heads side by side, MLPs."""
    clf = load_headgate(job)
    results = []
    end_turn()
    for chunk in job.chunks:
        sequences = [job.texts.sequences[i] for positions in chunk for i in positions]
        last = [np.array([len(ids) - 1]) for ids in sequences]
        with TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # where it draws a progress bar
            files = record(clf.trunk, sequences, {"last": last}, Path(folder), job.device)["last"].files
            results.append(np.concatenate([np.load(files[kind]) for kind in ("resid", "head", "mlp")]).swapaxes(0, 1))
        end_turn()
    return np.concatenate(results)


def record_hf(job: Job, end_turn: EndTurn) -> NDArray[np.floating]:
    """Record with hidden states and hooks of transformers. Returns the same as `record_headgate`."""
    from transformers import GPT2Model

    hf: Any = from_pretrained(GPT2Model, job)

    def read(ids: Tensor) -> Tensor:
        heads: list[Tensor] = []  # of each layer, (B, C)
        mlps: list[Tensor] = []
        streams: list[Tensor] = []  # the last one: transformers norms it
        with ExitStack() as hooks:
            for block in hf.h:
                merge, mlp = block.attn.c_proj, block.mlp
                hooks.enter_context(merge.register_forward_pre_hook(lambda _, inputs: heads.append(inputs[0][:, -1])))
                hooks.enter_context(mlp.register_forward_hook(lambda _, inputs, x: mlps.append(x[:, -1])))
            hooks.enter_context(hf.ln_f.register_forward_pre_hook(lambda _, inputs: streams.append(inputs[0][:, -1])))
            states = hf(ids, use_cache=False, output_hidden_states=True).hidden_states[:-1]
        return torch.stack([*(x[:, -1] for x in states), *streams, *heads, *mlps], dim=1)

    return run_batches(job, end_turn, read)
