"""The sweeps of a study: forecast, run with a progress bar, and kept on disk, so that nothing is done twice."""

import hashlib
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data.batches import Batch, token_batches
from model import GPT2Classifier, InputError
from model.files import read_json, written_whole

from . import fills
from .device import Device
from .memory import fitting
from .output import write_json
from .progress import progress_bar
from .study import Study
from .sweep import BASELINE, RIDERS, Ablation, Fill, ablated, nothing, sweep
from .texts import Texts
from .units import each_head

AGREEMENT = {"fp32": 1e-3, "bf16": 0.1}  # how far logits may be off the CPU's in fp32, as a share of the largest
CHECKED = 8  # texts


@dataclass(frozen=True, eq=False)
class Plan:
    """Ablations that are to be run with one fill, by split. What they depend on besides their names is `made_of`."""

    name: str
    fill: str
    ablations: dict[str, list[Ablation]]
    made_of: str = ""

    def work(self, texts: dict[str, Texts], n_layer: int) -> int:
        """How much there is to compute, in layers times tokens."""
        draws = fills.DRAWS if self.fill == "resample" else 1
        layers = {split: sum(n_layer - own.start for own in ablations) for split, ablations in self.ablations.items()}
        return sum(draws * layers[split] * sum(map(len, texts[split].sequences)) for split in layers)


class Sweeps:
    """Runs plans on some texts of val and test; their logits are kept in `folder`, one .npy file for each."""

    def __init__(self, study: Study, folder: Path, limit: int, seed: int) -> None:
        self.study, self.folder, self.seed = study, folder, seed
        self.texts = {split: study.draw_texts(split, limit, seed) for split in ("val", "test")}

    @cached_property
    def means(self) -> fills.Means:
        train = self.study.texts["train"]
        return fills.means(self.study.clf, train.sequences, train.targets, self.study.device)

    def fills(self, name: str, split: str) -> list[Fill]:
        """What closed heads and MLPs emit: zero, mean, class_mean, or resample, which has ten draws."""
        if name == "resample":
            clf, donors = self.study.clf, self.study.texts["train"].sequences
            return fills.resample(clf, self.texts[split].sequences, donors, self.study.device, self.seed)
        if name == "zero":
            return [nothing]
        return [fills.mean(self.means) if name == "mean" else fills.class_mean(self.means, self.predicted(split))]

    def predicted(self, split: str) -> NDArray[np.int64]:
        """Classes (N,) that the network predicts with nothing taken out."""
        return self.baseline(split).argmax(axis=1)

    def baseline(self, split: str) -> NDArray[np.float32]:
        """Logits (N, K) of the network as it is."""
        return self.logits(Plan("none", "zero", {split: [BASELINE]}), split, lambda texts: None)[:, 0, 0]

    def run(self, plans: Sequence[Plan]) -> dict[tuple[str, str, str], NDArray[np.float32]]:
        """Logits (N, U, R, K) by name, fill and split."""
        todo = [(plan, split) for plan in plans for split in plan.ablations]
        total = sum(len(self.texts[split].targets) * len(plan.ablations[split]) for plan, split in todo)
        found = {}
        if any(plan.fill in ("mean", "class_mean") for plan in plans):
            _ = self.means  # has a progress bar of its own
        with progress_bar("texts x ablations") as bar:
            task = bar.add_task("", total=total, note="")
            for plan, split in todo:
                bar.update(task, description=f"{plan.name}, {plan.fill}, {split}")

                def advance(texts: int, size: int = len(plan.ablations[split])) -> None:
                    bar.advance(task, texts * size)

                found[plan.name, plan.fill, split] = self.logits(plan, split, advance)
        return found

    def logits(self, plan: Plan, split: str, advance: Callable[[int], object]) -> NDArray[np.float32]:
        """Logits (N, U, R, K) of a plan, written down as they come: after an interruption only the rest is done.

        `advance` hears of every number of texts that is done. Raises InputError where logits are not finite."""
        texts, ablations = self.texts[split], plan.ablations[split]
        donors = self.fills(plan.fill, split)
        shape = (len(texts), len(ablations), len(donors), len(self.study.clf.labels))
        logits = self.kept(self.folder / f"{split}-{plan.fill}-{plan.name}.npy", self.identity(plan, split), shape)
        left = self.study.device.run_on_first(lambda: np.flatnonzero(np.isnan(logits).any(axis=(1, 2, 3))))
        advance(len(logits) - len(left))
        study = self.study
        swept = sweep(study.clf, texts.sequences, ablations, donors, study.device, left)
        for index, own in study.device.gather_rounds(swept):
            if not np.isfinite(own).all():
                raise InputError(f"{study.run}: the logits of {plan.name} are not finite; try --precision fp32")
            logits[index] = own
            advance(len(index))
        logits.flush()
        return logits

    def kept(
        self, path: Path, identity: dict[str, Any], shape: tuple[int, ...]
    ) -> np.memmap[Any, np.dtype[np.float32]]:
        """The file of that name, if it was made of the same; else a new one, NaN where nothing has been computed.

        What other processes than the first write into it stays in their memory."""
        about = path.with_suffix(".json")

        def prepare() -> None:
            if path.is_file() and about.is_file() and read_json(about) == identity:
                return
            about.unlink(missing_ok=True)  # first: it vouches for the other
            np.save(content := BytesIO(), np.full(shape, np.nan, np.float32))
            with written_whole(path) as [temporary]:
                temporary.write_bytes(content.getbuffer())  # np.save or a mapped file may not notice a full disk
            write_json(about, identity)

        self.study.device.run_on_first(prepare)
        return np.lib.format.open_memmap(path, "r+" if self.study.device.first else "c")

    def identity(self, plan: Plan, split: str) -> dict[str, Any]:
        """What the logits of a plan depend on, as JSON."""
        return {
            **self.study.identity(self.texts[split]),
            "seed": self.seed,
            "ablations": [ablation.name for ablation in plan.ablations[split]],
            "made_of": plan.made_of,
            "fill": self.chosen(plan.fill, split),
        }

    def chosen(self, fill: str, split: str) -> str:
        """SHA-256 of what a fill chooses for each text: the donors, or the class left out; empty for other fills."""
        if fill == "resample":
            donors = self.study.texts["train"].sequences
            choice = fills.choose_donors(self.texts[split].sequences, donors, self.seed)
        elif fill == "class_mean":
            choice = self.predicted(split)
        else:
            return ""
        return hashlib.sha256(choice.tobytes()).hexdigest()

    def work(self, plans: Sequence[Plan]) -> int:
        """How much these plans have to compute, in layers times tokens."""
        return sum(plan.work(self.texts, self.study.clf.config.n_layer) for plan in plans)

    def rate(self) -> float:
        """How much of that all processes do per second, by every third head on a batch of texts of middling length."""
        config, device = self.study.clf.config, self.study.device
        by_length = np.argsort([len(ids) for ids in self.texts["test"].sequences])
        batch = self.batch(by_length[: len(by_length) // 2 + 1])
        heads = each_head(config)[::3]
        for _ in range(2):  # the first time also pays for start-up
            started = time.perf_counter()
            self.ablated(batch, heads, self.study.clf, device)  # the logits come to the CPU: a GPU is waited for
            seconds = time.perf_counter() - started
        layers = sum(config.n_layer - own.start for own in heads)
        return device.world * layers * batch.ids.numel() / seconds

    def check_device(self) -> None:
        """Raise InputError where logits of a few texts, with heads closed, are not those of the CPU."""
        study = self.study
        if study.device.device.type == "cpu":
            return
        batch = self.batch(np.arange(len(self.texts["test"].targets))[:CHECKED])
        heads = [BASELINE, *each_head(study.clf.config)]
        on_cpu = self.ablated(batch, heads, deepcopy(study.clf).cpu(), Device(torch.device("cpu"), "fp32"))
        here = self.ablated(batch, heads, study.clf, study.device)
        off = (here - on_cpu).abs().max() / on_cpu.abs().max()
        if not off < AGREEMENT[study.device.precision]:
            raise InputError(f"{study.device} computes other logits than the CPU, off by {off:.1%}; try --device cpu")

    def batch(self, among: NDArray[np.integer]) -> Batch:
        """The first of the batches in which the sweep takes these texts of test: the longest ones."""
        texts = self.texts["test"]
        return next(token_batches(texts.sequences, texts.targets, self.study.device.tokens // RIDERS, among))

    @staticmethod
    def ablated(batch: Batch, ablations: list[Ablation], clf: GPT2Classifier, device: Device) -> torch.Tensor:
        compute = partial(ablated, clf, batch.to(device.device), ablations, [nothing])
        with torch.inference_mode(), device.autocast():
            return fitting(compute, device.tokens, device.tokens, batch.ids.numel())[0]
