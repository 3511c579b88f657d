"""The sweeps of a study: forecast, run with a progress bar, and kept on disk, so that nothing is done twice."""

import hashlib
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

from data.batches import Batch, token_batches
from model import GPT2Classifier, InputError

from . import fills
from .device import Device
from .kept import Identity, open_array
from .memory import halve_until_it_fits
from .progress import progress_bar
from .study import Study
from .sweep import BASELINE, COPIES, Ablation, Fill, fill_zeros, run_ablations, sweep
from .texts import Texts
from .units import each_head

AGREEMENT = {"fp32": 1e-3, "bf16": 0.1}  # how far logits may be off the CPU's in fp32, as a share of the largest
CHECKED = 8  # texts
Logits = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Plan:
    """Ablations to be run with one fill, by split. `made_of` says what they depend on besides their names."""

    name: str
    fill: str
    ablations: dict[str, list[Ablation]]
    made_of: str = ""


class Sweeps:
    """Runs plans on some texts of val and test; `folder` keeps their logits.

    neutral: the texts of the study, `val` or `domain`, whose mean log-probabilities b (K,) are taken out of those of
    val and test; they are measured under the same ablation, with the same draw of the fill. What is kept on disk is as
    the network has it. None: nothing is taken out."""

    def __init__(self, study: Study, folder: Path, limit: int, seed: int, neutral: str | None = None) -> None:
        self.study, self.folder, self.seed, self.neutral = study, folder, seed, neutral
        self.texts = {split: study.draw_texts(split, limit, seed) for split in ("val", "test")}
        if neutral == "val" and len(self.texts["val"]) < 2:
            raise InputError("the label prior is a mean over val: expected at least 2 texts of val; take more --texts")

    @property
    def splits(self) -> list[str]:
        """The names of all texts that a plan runs on: val, test, and those that b comes from."""
        return [*self.texts, *([self.neutral] if self.neutral and self.neutral not in self.texts else [])]

    def find_texts(self, split: str) -> Texts:
        """Return the texts that are swept: of val or test, or others of the study by their name."""
        return self.texts[split] if split in self.texts else self.study.texts[split]

    @cached_property
    def means(self) -> fills.Means:
        train = self.study.texts["train"]
        return fills.measure_means(self.study.clf, train.sequences, train.targets, self.study.device)

    def fills(self, name: str, split: str) -> list[Fill]:
        """Return what closed heads and MLPs emit: one fill, or ten for `resample`."""
        match name:
            case "zero":
                return [fill_zeros]
            case "mean":
                return [fills.mean(self.means)]
            case "class_mean":
                return [fills.class_mean(self.means, self.predicted(split))]
            case "resample":
                clf, donors = self.study.clf, self.study.texts["train"].sequences
                return fills.resample(clf, self.find_texts(split).sequences, donors, self.study.device, self.seed)
        raise ValueError(f"expected a fill of {get_args(fills.FillName)}, got {name!r}")

    def predicted(self, split: str) -> NDArray[np.int64]:
        """Return the classes (N,) that the network predicts with nothing taken out."""
        return self.baseline(split).argmax(axis=1)

    def baseline(self, split: str) -> Logits:
        """Return the logits (N, K) of the network as it is."""
        return self.logits(Plan("none", "zero", {split: [BASELINE]}), split, int)[:, 0, 0]

    @property
    def baseline_b(self) -> Logits | float:
        """What is taken out of the log-probabilities of the network as it is: b (K,), or 0."""
        return self.measure_b(Plan("none", "zero", {"val": [BASELINE]}))[0, 0] if self.neutral else 0.0

    def run(self, plans: Sequence[Plan]) -> dict[tuple[str, str, str], Logits]:
        """Return the logits (N, U, R, K) of plans, by name, fill and split."""
        steps = [(plan, split) for plan in map(self.add_neutral, plans) for split in plan.ablations]
        total = sum(len(self.find_texts(split)) * len(plan.ablations[split]) for plan, split in steps)
        logits = {}
        if any(plan.fill in fills.FROM_MEANS for plan in plans):
            _ = self.means  # has a progress bar of its own
        with progress_bar("texts x ablations") as bar:
            task = bar.add_task("", total=total, note="")
            for plan, split in steps:
                bar.update(task, description=f"{plan.name}, {plan.fill}, {split}")

                def advance(texts: int, ablations: int = len(plan.ablations[split])) -> None:
                    bar.advance(task, texts * ablations)

                logits[plan.name, plan.fill, split] = self.logits(plan, split, advance)
        return logits

    def add_neutral(self, plan: Plan) -> Plan:
        """Let a plan also run on the texts that b comes from, first, with the ablations of another split."""
        if not self.neutral or self.neutral in plan.ablations:
            return plan
        return replace(plan, ablations={self.neutral: next(iter(plan.ablations.values())), **plan.ablations})

    def logits(self, plan: Plan, split: str, advance: Callable[[int], object]) -> Logits:
        """Return the logits (N, U, R, K) of a plan; of val and test without b, if there is one: then they are
        log-probabilities up to a constant of the text.

        `advance` is called with each number of texts that are done. Raises InputError where logits are not finite."""
        plan = self.add_neutral(plan)
        logits = self.sweep_plan(plan, split, advance)
        if not self.neutral or split not in self.texts:
            return logits
        return np.asarray(log_softmax(logits, axis=-1) - self.measure_b(plan))

    def measure_b(self, plan: Plan) -> Logits:
        """Return b (U, R, K) under each ablation and draw: the mean log-probabilities of the neutral texts."""
        assert self.neutral
        logits = self.sweep_plan(self.add_neutral(plan), self.neutral, int)
        return np.asarray(log_softmax(logits, axis=-1).mean(axis=0))

    def sweep_plan(self, plan: Plan, split: str, advance: Callable[[int], object]) -> Logits:
        """Return the logits (N, U, R, K) of a plan as the network has them. They are written down as they come: after
        an interruption only the rest is computed. advance, errors: as for `logits`."""
        study, texts, ablations = self.study, self.find_texts(split), plan.ablations[split]
        drawn = self.fills(plan.fill, split)
        shape = (len(texts), len(ablations), len(drawn), len(study.clf.labels))
        path = self.folder / f"{split}-{plan.fill}-{plan.name}.npy"
        logits = open_array(path, self.identity(plan, split), shape, study.device)
        left = study.device.run_on_first(lambda: np.flatnonzero(np.isnan(logits).any(axis=(1, 2, 3))))
        advance(len(texts) - len(left))
        rounds = sweep(study.clf, texts.sequences, ablations, drawn, study.device, left)
        for index, batch_logits in study.device.gather_rounds(rounds):
            if not np.isfinite(batch_logits).all():
                raise InputError(f"{study.run}: the logits of {plan.name} are not finite; try --precision fp32")
            logits[index] = batch_logits
            advance(len(index))
        logits.flush()
        return logits

    def identity(self, plan: Plan, split: str) -> Identity:
        """Return what the logits of a plan depend on."""
        return {
            **self.study.identity(self.find_texts(split)),
            "seed": self.seed,
            "ablations": [ablation.name for ablation in plan.ablations[split]],
            "made_of": plan.made_of,
            "fill": self.hash_choice(plan.fill, split),
        }

    def hash_choice(self, fill: str, split: str) -> str:
        """Return the SHA-256 of what a fill chooses for each text, its donors or the class left out; else nothing."""
        if fill == "resample":
            donors = self.study.texts["train"].sequences
            choice = fills.choose_donors(self.find_texts(split).sequences, donors, self.seed)
        elif fill == "class_mean":
            choice = self.predicted(split)
        else:
            return ""
        return hashlib.sha256(choice.tobytes()).hexdigest()

    def work(self, plans: Sequence[Plan]) -> int:
        """Count what these plans have to compute, in layers times tokens."""
        work = 0
        for plan in map(self.add_neutral, plans):
            draws = fills.DRAWS if plan.fill == "resample" else 1
            for split, ablations in plan.ablations.items():
                layers = sum(self.study.clf.config.n_layer - ablation.start for ablation in ablations)
                work += draws * layers * sum(map(len, self.find_texts(split).sequences))
        return work

    def rate(self) -> float:
        """Measure how much of that all processes compute per second: every third head, on texts of middling length."""
        config, device = self.study.clf.config, self.study.device
        by_length = np.argsort([len(ids) for ids in self.texts["test"].sequences])
        batch = self.first_batch(by_length[: len(by_length) // 2 + 1])
        heads = each_head(config)[::3]
        for _ in range(2):  # the first time also pays for start-up
            started = time.perf_counter()
            self.ablate_batch(batch, heads, self.study.clf, device)  # its logits are on the CPU: a GPU has finished
            seconds = time.perf_counter() - started
        layers = sum(config.n_layer - head.start for head in heads)
        return device.world * layers * batch.ids.numel() / seconds

    def check_device(self) -> None:
        """Raise InputError where the logits of a few texts, with heads closed, are not those of the CPU."""
        study = self.study
        if study.device.device.type == "cpu":
            return
        batch = self.first_batch(np.arange(len(self.texts["test"]))[:CHECKED])
        ablations = [BASELINE, *each_head(study.clf.config)]
        on_cpu = self.ablate_batch(batch, ablations, deepcopy(study.clf).cpu(), Device(torch.device("cpu"), "fp32"))
        on_device = self.ablate_batch(batch, ablations, study.clf, study.device)
        off = (on_device - on_cpu).abs().max() / on_cpu.abs().max()
        if not off < AGREEMENT[study.device.precision]:
            raise InputError(f"{study.device} computes other logits than the CPU, off by {off:.1%}; try --device cpu")

    def first_batch(self, among: NDArray[np.integer]) -> Batch:
        """Return the first batch that the sweep would make of these texts of test: the longest ones."""
        texts = self.texts["test"]
        return next(token_batches(texts.sequences, texts.targets, self.study.device.tokens // COPIES, among))

    @staticmethod
    def ablate_batch(batch: Batch, ablations: list[Ablation], clf: GPT2Classifier, device: Device) -> torch.Tensor:
        compute = partial(run_ablations, clf, batch.to(device.device), ablations, [fill_zeros])
        with torch.inference_mode(), device.autocast():
            return halve_until_it_fits(compute, device.tokens, device.tokens, batch.ids.numel())[0]
