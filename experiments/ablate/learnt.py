"""Learnt gates: which heads does an optimiser keep open, if each open head costs something?

The sweep closes heads one at a time, and heads that stand in for one another then all look idle. Here all gates are
open or closed together: the classifier is frozen, its loss on the texts of val plus a price for each open head falls by
gradient descent, and the only parameters are those of the gates (`hard_concrete`). A closed head emits the fill. Not
train: the network knows those texts by heart, and there it seems to need every head.

The question `all` has the cross-entropy as its loss. That of a class has the log-loss of "this class or another", from
the classifier's log-odds: so heads that this class alone needs can be told from others. A price is a share (a
penalty) of the entropy of the answer in train: what there is to tell. At 0.01 a head stays open if closing it would
cost more than 1 % of that, on average over random states of all other gates. Of two heads that do the same, each is
needed whenever the other happens to be closed, so that both may stay open.

Letters: S settings (a question and a penalty each), B texts, L layers, H heads, K classes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data.batches import Batch, bucketed
from lab.device import Device
from lab.kept import Identity, read_result, write_result
from lab.memory import map_batches
from lab.progress import console, forecast, progress_bar
from lab.sweep import Fill
from lab.sweeps import Sweeps
from lab.texts import OVERALL, Texts
from model import GPT2Classifier

from .hard_concrete import BETA, HIGH, LOW, open_probability, sample_gates, settle_gates

PENALTIES = (0.01, 0.03, 0.1)  # prices of an open head, as shares of the entropy of the answer
SEEDS = 3  # of texts and noise: what changes with them is no finding
STEPS, TEXTS = 200, 8  # of one seed, and texts of each step
RATE, START = 0.2, 2.0  # of Adam; log_alpha at the start: nearly all heads are open
FORGETS = (0.9, 0.9)  # betas of Adam: a text that a closed head costs dearly must not slow all later steps down
RISE = 1 / 3  # of the steps, in which the price rises to its full height: what is needed shows first
FALL = 1 / 2  # of the steps, the last ones, in which the rate falls to 0: the noise of single steps averages out
BOUND = 4.6  # of log_alpha: each gate stays open now and then, so that none is closed for good
PASSES = 2  # a forward and a backward pass take as long as two forward passes


@dataclass(frozen=True, eq=False)
class Lesson:
    """What gates are learnt from. fills: one or several draws, which take turns; columns: the questions, as columns of
    `question_losses`; entropies (questions,): what there is to tell; b (K,): the label prior of a prompt, as it is in
    the whole network."""

    clf: GPT2Classifier
    texts: Texts
    fills: Sequence[Fill]
    columns: Sequence[int]
    entropies: NDArray[np.floating]
    device: Device
    b: NDArray[np.floating] | float = 0.0

    @property
    def prices(self) -> NDArray[np.floating]:
        """Return what an open head costs, in nats: (questions, penalties)."""
        return np.outer(self.entropies, PENALTIES)


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
    """Return the questions, by name, and their columns in `question_losses`: all, and each class that val has."""
    labels, present = sweeps.study.clf.labels, set(sweeps.texts["val"].targets.tolist())
    return {OVERALL: 0} | {
        label: 1 + k for k, label in enumerate(labels) if k in present and (only is None or label == only)
    }


def prepare_lesson(sweeps: Sweeps, fill: str, columns: Sequence[int]) -> Lesson:
    """Return a lesson on the texts of val that the sweep takes, with the sweep's fill."""
    study = sweeps.study
    entropies = question_entropies(guess(study.texts["train"], len(study.clf.labels)))[list(columns)]
    fills, device = sweeps.fills(fill, "val"), study.device.as_single()
    return Lesson(study.clf, sweeps.texts["val"], fills, columns, entropies, device, sweeps.baseline_b)


def draw_batches(texts: Texts, rng: np.random.Generator) -> Iterator[tuple[Batch, Tensor]]:
    """Yield STEPS batches of texts of similar length, and the weight (B,) of each text.

    Each class is drawn as often as any other, so that a rare one is seen, and its texts weigh less in return: the
    weighted loss is, on average, that over all texts."""
    counts = np.bincount(texts.targets)
    odds = 1 / counts[texts.targets] / np.count_nonzero(counts)  # (N,), sum 1
    drawn = rng.choice(len(texts), STEPS * TEXTS, p=odds)
    weights = torch.from_numpy(1 / odds / len(texts)).float()
    order = int(rng.integers(2**32))  # of the batches
    for batch in bucketed([texts.sequences[i] for i in drawn], texts.targets[drawn], TEXTS, order):
        index = torch.from_numpy(drawn)[batch.index]
        yield replace(batch, index=index), weights[index]


def learn_gates(
    lesson: Lesson, rng: np.random.Generator, advance: Callable[[], object] = lambda: None
) -> NDArray[np.float32]:
    """Return log_alpha of the gates for each question and penalty, float32 (questions, penalties, L, H).

    All settings are learnt side by side: gates differ from row to row of a batch. They meet the same texts and the same
    noise, so they differ in nothing but their question and penalty. `advance` is called after each step."""
    L, H = lesson.clf.config.n_layer, lesson.clf.config.n_head
    column = torch.tensor(lesson.columns).repeat_interleave(len(PENALTIES))  # (S,)
    price = torch.tensor(lesson.prices, dtype=torch.float32).view(-1, 1, 1, 1)
    log_alpha = torch.full((len(column), 1, L, H), START, requires_grad=True)
    optimizer = torch.optim.Adam([log_alpha], lr=RATE, betas=FORGETS)
    for step, (batch, weights) in enumerate(draw_batches(lesson.texts, rng)):
        noise = torch.from_numpy(rng.random((len(batch.ids), L, H), dtype=np.float32))
        gates = sample_gates(log_alpha, noise)  # (S, B, L, H)
        slopes = differentiate_gates(lesson, batch, gates.detach(), column, lesson.fills[step % len(lesson.fills)])
        explained = (weights[:, None, None] * slopes * gates).sum() / len(weights)  # has the gradient of the mean loss
        optimizer.zero_grad()
        asked = price * min(1, (step + 1) / (RISE * STEPS))
        (explained + (asked * open_probability(log_alpha)).sum()).backward()
        optimizer.param_groups[0]["lr"] = RATE * min(1, (STEPS - step) / (FALL * STEPS))
        optimizer.step()
        log_alpha.data.clamp_(-BOUND, BOUND)
        advance()
    return log_alpha.detach().numpy().reshape(len(lesson.columns), len(PENALTIES), L, H)


def differentiate_gates(lesson: Lesson, batch: Batch, gates: Tensor, column: Tensor, fill: Fill) -> Tensor:
    """Return the derivative of each text's loss by its gates under each setting: gates (S, B, L, H), the same shape.

    column (S,): the question of each setting, as a column of `question_losses`."""
    (S, B), device = gates.shape[:2], lesson.device
    prior = torch.as_tensor(lesson.b, dtype=torch.float32, device=device.device)
    emitted, slopes = fill(batch.to(device.device)).get("head_fill"), torch.empty(S * B, *gates.shape[2:])
    ids, lengths, targets = batch.ids.repeat(S, 1), batch.lengths.repeat(S), batch.targets.repeat(S)

    def differentiate(rows: Batch) -> Tensor:
        gate = gates.flatten(0, 1)[rows.index, ..., None].to(device.device).requires_grad_()
        head_fill = emitted
        if emitted is not None:
            of_rows = emitted[rows.index % B] if len(emitted) > 1 else emitted
            head_fill = of_rows[..., : rows.ids.shape[1], :].to(device.device)  # without padding that only others need
        on_device = rows.to(device.device)
        with device.autocast():
            logits = lesson.clf(on_device.ids, on_device.lengths, head_gate=gate, head_fill=head_fill).float() - prior
        loss = question_losses(logits, on_device.targets).gather(1, column[rows.index // B, None].to(device.device))
        return torch.autograd.grad(loss.sum(), gate)[0][..., 0].cpu()

    for rows, derivatives in map_batches(differentiate, [Batch(ids, lengths, targets, torch.arange(S * B))], device):
        slopes[rows.index] = derivatives
    return slopes.view(gates.shape)


def find_gates(sweeps: Sweeps, fill: str, only: str | None) -> pd.DataFrame:
    """Learn the gates of a study, or read what an earlier call has learnt: one row per class, penalty, head and seed.

    Columns `class, penalty, price, layer, head, seed, log_alpha, probability, open`: `price` in nats, the parameter,
    the probability of being open, and 1 where the gate without noise is above 1/2. only: the one class besides `all`;
    None: each."""
    questions = find_questions(sweeps, only)
    lesson = prepare_lesson(sweeps, fill, list(questions.values()))
    about = identify_lesson(sweeps, fill, lesson)
    paths = [sweeps.folder / f"gates-{fill}-{i}.json" for i in range(SEEDS)]

    def learn() -> list[object]:
        learnt = [read_result(path, about | {"seed": [sweeps.seed, i]}) for i, path in enumerate(paths)]
        if missing := [i for i in range(SEEDS) if learnt[i] is None]:
            announce_learning(sweeps, lesson, len(missing))
        with progress_bar("steps") as bar:
            task = bar.add_task("learnt gates", total=SEEDS * STEPS, completed=(SEEDS - len(missing)) * STEPS, note="")
            for i in missing:
                rng = np.random.default_rng((sweeps.seed, i, *b"gates"))
                learnt[i] = learn_gates(lesson, rng, partial(bar.advance, task)).tolist()
                write_result(paths[i], about | {"seed": [sweeps.seed, i]}, learnt[i])
        return learnt

    learnt = sweeps.study.device.run_on_first(learn)  # GPUs may round differently
    return tabulate_gates(np.array(learnt, np.float32), lesson.prices, list(questions))


def identify_lesson(sweeps: Sweeps, fill: str, lesson: Lesson) -> Identity:
    """Return what learnt gates depend on, besides the seed."""
    train = sweeps.study.texts["train"]  # where means, donors and the entropies come from
    return {
        **sweeps.study.identity(lesson.texts, train),
        "columns": [*lesson.columns],
        "penalties": [*PENALTIES],
        "steps": [STEPS, TEXTS],
        "adam": [RATE, *FORGETS, FALL],
        "gates": [START, BOUND, RISE, BETA, LOW, HIGH],
        "prior": np.asarray(lesson.b).tolist(),
        "fill": sweeps.hash_choice(fill, "val"),
    }


def announce_learning(sweeps: Sweeps, lesson: Lesson, seeds: int) -> None:
    """Print how long it takes to learn the gates of so many seeds."""
    S = len(lesson.columns) * len(PENALTIES)
    tokens = seeds * STEPS * TEXTS * float(np.mean([len(ids) for ids in lesson.texts.sequences]))
    work, rate = PASSES * S * lesson.clf.config.n_layer * tokens, sweeps.rate() / sweeps.study.device.world
    take = forecast(f"{sweeps.study.run}: {S} sets of gates, learnt {seeds} times, take", work, rate, lesson.device)
    console.print(f"{take}; to measure what they keep takes about as long again")


def tabulate_gates(
    log_alpha: NDArray[np.float32], prices: NDArray[np.floating], classes: Sequence[str]
) -> pd.DataFrame:
    """Return `find_gates` from log_alpha (seeds, classes, penalties, L, H) and prices (classes, penalties)."""
    s, c, p, layer, head = (axis.ravel() for axis in np.indices(log_alpha.shape))
    parameter = torch.from_numpy(log_alpha.ravel())
    columns = {
        "class": np.array(classes, object)[c],
        "penalty": np.array(PENALTIES)[p],
        "price": prices[c, p],
        "layer": layer,
        "head": head,
        "seed": s,
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
