"""Who is timed on the head alone: ten epochs in which the frozen blocks run once, or in each epoch."""

from contextlib import nullcontext, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data import bucketed
from experiments.train.frozen import make_forwards, open_forwards
from experiments.train.steps import Step
from lab.defaults import TrainOptions
from lab.device import Device
from lab.optim import adamw
from model import GPT2Config

from .arithmetic import count_head_alone, count_head_alone_again
from .contestants import CLIP, LR, WEIGHT_DECAY, EndTurn, Job, load_headgate
from .slices import BATCH, EPOCHS, TOKENS, Amount, draw_texts
from .table import compare
from .turns import take_turns


def time_head_alone(config: GPT2Config, folder: str, amount: Amount, device: Device) -> list[dict[str, Any]]:
    """Return a row for each way to train the head alone, on texts of random tokens."""
    n = BATCH * max(1, amount.steps // 4)  # texts of a chunk, which is read ten times
    texts = draw_texts(3 * n, TOKENS)
    chunks = [[np.arange(start, start + n)] for start in (0, 0, n, 2 * n)]  # the first one to warm up
    job = Job(folder, device, texts, chunks, dropout=0.0)
    jobs = {"headgate": job, "headgate, blocks in each epoch": job}
    (timed,) = take_turns([partial(train_head, once=True), partial(train_head, once=False)], [list(jobs.values())])
    counts = [count_head_alone, count_head_alone_again]
    return compare("head alone", config, jobs, counts, timed, [outcome.output for outcome in timed])


def train_head(job: Job, end_turn: EndTurn, once: bool) -> NDArray[np.floating]:
    """Train the head alone as train.py does, for ten epochs of each chunk. Returns the loss of every step.

    once: let the frozen blocks run once for a chunk, else in each step."""
    device, options = job.device, TrainOptions(tune="head", dropout=job.dropout)
    clf = load_headgate(job, job.dropout).requires_grad_(False)
    clf.score.requires_grad_(True)
    optimizer, totals = adamw(clf.parameters(), LR, WEIGHT_DECAY), []
    whole = make_forwards(clf, options, device)
    end_turn()
    for chunk in job.chunks:
        texts = job.texts.select(np.concatenate(chunk))
        splits = {"train": texts, "val": texts.select(np.arange(0))}
        with TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # where it draws a progress bar
            opened = open_forwards(clf, splits, options, Path(folder), device) if once else nullcontext(whole)
            with opened as forwards:
                step = Step(clf, forwards["train"], optimizer, CLIP, torch.ones(len(clf.labels)), device)
                for epoch in range(EPOCHS):
                    for batch in bucketed(texts.sequences, texts.targets, BATCH, 0, epoch):
                        totals.append(step(batch) / len(batch.ids))  # loss first
        end_turn()
    return torch.stack(totals)[:, 0].cpu().numpy()
