"""Learnt gates: which heads does an optimiser keep open, if each open head costs something?

The sweep closes heads one at a time, and heads that stand in for one another then all look idle. Here all gates are
open or closed together: the classifier is frozen, its loss on training texts plus a price for each open head falls by
gradient descent, and the only parameters are those of the gates (`hard_concrete`). A closed head emits the fill.

The question `all` has the cross-entropy as its loss. That of a class has the log-loss of "this class or another", from
the classifier's log-odds: so heads that this class alone needs can be told from others. A price is a share (a
penalty) of the entropy of the answer in train: what there is to tell. At 0.01 a head stays open that tells 1 % of it.

Letters: S settings (a question and a penalty each), B texts, L layers, H heads, K classes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data.batches import Batch, bucketed
from lab.device import Device
from lab.kept import read_result, write_result
from lab.memory import map_batches
from lab.progress import console, forecast, progress_bar
from lab.sweep import Fill
from lab.sweeps import Sweeps
from lab.texts import OVERALL, Texts
from model import GPT2Classifier

from .hard_concrete import open_probability, sample_gates, settle_gates

PENALTIES = (0.001, 0.003, 0.01, 0.03)  # prices of an open head, as shares of the entropy of the answer
SEEDS = 3  # of texts and noise: what changes with them is no finding
STEPS, TEXTS = 180, 4  # of one seed, and texts of each step
RATE, START = 0.2, 2.0  # of Adam; log_alpha at the start: nearly all heads are open
FORGETS = (0.9, 0.9)  # betas of Adam: a text that a closed head costs dearly must not slow all later steps down
RISE = 1 / 3  # of the steps, in which the price rises to its full height: what is needed shows first
BOUND = 4.6  # of log_alpha: each gate stays open now and then, so that none is closed for good
PASSES = 2  # a forward and a backward pass take as long as two forward passes


def question_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss (nats) of each text for each question, (B, 1 + K): the cross-entropy, then the log-loss of each
    class against the rest. logits: (B, K)."""
    itself = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    others = logits[:, None].masked_fill(itself, -torch.inf).logsumexp(-1)  # (B, K)
    sign = 1 - 2.0 * F.one_hot(targets, logits.shape[-1])  # -1 for the true class
    overall = F.cross_entropy(logits, targets, reduction="none")
    return torch.cat([overall[:, None], F.softplus(sign * (logits - others))], dim=1)


def guess(texts: Texts, K: int) -> NDArray[np.float64]:
    """Return the frequency of each class in train, (K,), as a guess that knows no text: one text of each is added."""
    return (np.bincount(texts.targets, minlength=K) + 1) / (len(texts) + K)


def question_entropies(frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy (nats) of the answer to each question, (1 + K,), if classes have these frequencies."""
    p, q = frequencies, 1 - frequencies
    return np.array([-(p * np.log(p)).sum(), *-(p * np.log(p) + q * np.log(q))])


def find_questions(sweeps: Sweeps, only: str | None) -> dict[str, int]:
    """Return the questions, by name, and their columns in `question_losses`: all, and each class that has texts."""
    labels, present = sweeps.study.clf.labels, set(sweeps.study.texts["train"].targets.tolist())
    return {OVERALL: 0} | {
        label: 1 + k for k, label in enumerate(labels) if k in present and (only is None or label == only)
    }


def draw_batches(texts: Texts, seed: int) -> Iterator[tuple[Batch, Tensor]]:
    """Yield STEPS batches of texts of similar length, and the weight (B,) of each text.

    Each class is drawn as often as any other, so that a rare one is seen, and its texts weigh less in return: the
    weighted loss is, on average, that over all texts."""
    counts = np.bincount(texts.targets)
    odds = 1 / counts[texts.targets] / np.count_nonzero(counts)  # (N,), sum 1
    drawn = np.random.default_rng((seed, *b"gates")).choice(len(texts), STEPS * TEXTS, p=odds)
    weights = torch.from_numpy(1 / odds / len(texts)).float()
    for batch in bucketed([texts.sequences[i] for i in drawn], texts.targets[drawn], TEXTS, seed):
        index = torch.from_numpy(drawn)[batch.index]
        yield replace(batch, index=index), weights[index]


def learn_gates(
    clf: GPT2Classifier,
    texts: Texts,
    fills: Sequence[Fill],
    questions: Sequence[int],
    device: Device,
    seed: int,
    b: NDArray[np.floating] | float = 0.0,
    advance: Callable[[], object] = lambda: None,
) -> NDArray[np.float32]:
    """Return log_alpha of the gates for each question and penalty, float32 (questions, penalties, L, H).

    All settings are learnt side by side: gates differ from row to row of a batch. They meet the same texts and the same
    noise, so they differ in nothing but their question and penalty. fills: one or several draws, which take turns;
    b (K,): the label prior of a prompt, as it is in the whole network. `advance` is called after each step."""
    L, H, entropies = clf.config.n_layer, clf.config.n_head, question_entropies(guess(texts, len(clf.labels)))
    column = torch.tensor(questions).repeat_interleave(len(PENALTIES))  # (S,)
    price = torch.tensor(np.outer(entropies[list(questions)], PENALTIES), dtype=torch.float32).view(-1, 1, 1, 1)
    log_alpha = torch.full((len(column), 1, L, H), START, requires_grad=True)
    optimizer = torch.optim.Adam([log_alpha], lr=RATE, betas=FORGETS)
    generator = torch.Generator().manual_seed(seed)
    for step, (batch, weights) in enumerate(draw_batches(texts, seed)):
        gates = sample_gates(log_alpha, torch.rand(len(batch.ids), L, H, generator=generator))  # (S, B, L, H)
        slopes = differentiate_gates(clf, batch, gates.detach(), column, fills[step % len(fills)], device, b)
        explained = (weights[:, None, None] * slopes * gates).sum() / len(weights)  # has the gradient of the mean loss
        optimizer.zero_grad()
        asked = price * min(1, (step + 1) / (RISE * STEPS))
        (explained + (asked * open_probability(log_alpha)).sum()).backward()
        optimizer.step()
        log_alpha.data.clamp_(-BOUND, BOUND)
        advance()
    return log_alpha.detach().numpy().reshape(len(questions), len(PENALTIES), L, H)


def differentiate_gates(
    clf: GPT2Classifier,
    batch: Batch,
    gates: Tensor,
    column: Tensor,
    fill: Fill,
    device: Device,
    b: NDArray[np.floating] | float,
) -> Tensor:
    """Return the derivative of each text's loss by its gates under each setting: gates (S, B, L, H), the same shape.

    column (S,): the question of each setting, as a column of `question_losses`."""
    (S, B), prior = gates.shape[:2], torch.as_tensor(b, dtype=torch.float32, device=device.device)
    emitted, slopes = fill(batch.to(device.device)).get("head_fill"), torch.empty(S * B, *gates.shape[2:])
    ids, lengths, targets = batch.ids.repeat(S, 1), batch.lengths.repeat(S), batch.targets.repeat(S)

    def differentiate(rows: Batch) -> Tensor:
        gate = gates.flatten(0, 1)[rows.index, ..., None].to(device.device).requires_grad_()
        head_fill = emitted
        if emitted is not None:
            of_rows = emitted[rows.index % B] if len(emitted) > 1 else emitted
            head_fill = of_rows[..., : rows.ids.shape[1], :].to(device.device)  # without padding that only others need
        there = rows.to(device.device)
        with device.autocast():
            logits = clf(there.ids, there.lengths, head_gate=gate, head_fill=head_fill).float() - prior
        loss = question_losses(logits, there.targets).gather(1, column[rows.index // B, None].to(device.device))
        return torch.autograd.grad(loss.sum(), gate)[0][..., 0].cpu()

    for rows, derivatives in map_batches(differentiate, [Batch(ids, lengths, targets, torch.arange(S * B))], device):
        slopes[rows.index] = derivatives
    return slopes.view(gates.shape)


def find_gates(sweeps: Sweeps, fill: str, only: str | None) -> pd.DataFrame:
    """Learn the gates of a study, or read what an earlier call has learnt: one row per class, penalty, head and seed.

    Columns `class, penalty, layer, head, seed, log_alpha, probability, open`: the parameter, the probability of being
    open, and 1 where the gate without noise is above 1/2. only: the one class besides `all`; None: each."""
    study, texts, questions = sweeps.study, sweeps.study.texts["train"], find_questions(sweeps, only)
    fills, b = sweeps.fills(fill, "train"), sweeps.baseline_b
    settings = {"penalties": [*PENALTIES], "steps": STEPS, "batch": TEXTS, "rate": RATE, "start": START}
    about = {**study.identity(texts), **settings, "questions": questions, "prior": np.asarray(b).tolist()}
    about["fill"] = sweeps.hash_choice(fill, "train")

    def learn() -> list[list[object]]:
        S = len(questions) * len(PENALTIES)
        tokens = SEEDS * STEPS * TEXTS * float(np.mean([len(ids) for ids in texts.sequences]))
        work, rate = PASSES * S * study.clf.config.n_layer * tokens, sweeps.rate() / study.device.world
        console.print(forecast(f"{study.run}: {S} sets of gates, learnt {SEEDS} times, take", work, rate, study.device))
        learnt = []
        with progress_bar("steps") as bar:
            task = bar.add_task("learnt gates", total=SEEDS * STEPS, note="")
            for seed in range(sweeps.seed, sweeps.seed + SEEDS):
                path, identity = sweeps.folder / f"gates-{fill}-{seed}.json", {**about, "seed": seed}
                if (kept := read_result(path, identity)) is None:
                    single, columns = study.device.as_single(), list(questions.values())
                    log_alpha = learn_gates(
                        study.clf, texts, fills, columns, single, seed, b, lambda: bar.advance(task)
                    )
                    write_result(path, identity, kept := log_alpha.tolist())
                else:
                    bar.advance(task, STEPS)
                learnt.append(kept)
        return learnt

    learnt = study.device.run_on_first(learn)  # GPUs may round differently
    return tabulate_gates(np.array(learnt, np.float32), list(questions), sweeps.seed)


def tabulate_gates(log_alpha: NDArray[np.float32], classes: Sequence[str], seed: int) -> pd.DataFrame:
    """Return `find_gates` from log_alpha (seeds, classes, penalties, L, H)."""
    s, c, p, layer, head = (axis.ravel() for axis in np.indices(log_alpha.shape))
    parameter = torch.from_numpy(log_alpha.ravel())
    columns = {
        "class": np.array(classes, object)[c],
        "penalty": np.array(PENALTIES)[p],
        "layer": layer,
        "head": head,
        "seed": seed + s,
        "log_alpha": parameter.numpy(),
        "probability": open_probability(parameter).numpy(),
        "open": (settle_gates(parameter) > 0.5).int().numpy(),
    }
    return pd.DataFrame(columns)


def add_learnt(importance: pd.DataFrame, gates: pd.DataFrame) -> pd.DataFrame:
    """Return `importance` with the column `learnt`: the mean over penalties and seeds of the probability of being open;
    NaN for a class without gates."""
    learnt = gates.groupby(["class", "layer", "head"])["probability"].mean().rename("learnt")
    return importance.merge(learnt.reset_index(), on=["class", "layer", "head"], how="left")
