"""One step of a fine-tuning: on one device or many, in as many pieces as fit into memory."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from data.batches import Batch
from lab.compiled import compile_function
from lab.device import Compile, Device
from lab.memory import halve_until_it_fits
from lab.sweep import change_nothing
from model import GPT2Classifier, InputError, Intervention

from .language import Outputs

# Of a batch that lies on the device: logits (B, K), or these and losses of the language model, see `Outputs`.
Forward = Callable[[Batch], Any]
LIMITED = ("cuda",)  # devices that tell when their memory has run out; on a CPU the system kills the process


def make_forward(
    model: GPT2Classifier,
    compiled: Compile = "off",
    recompute: bool = False,
    intervention: Intervention = change_nothing,
) -> Forward:
    """Return the forward pass of the whole network. intervention: acts on every one."""
    run: Callable[..., Tensor] = compile_function(model, compiled, dynamic=True)

    def forward(batch: Batch) -> Tensor:
        arguments = intervention(batch.ids, batch.lengths)
        return run(batch.ids, batch.lengths, recompute=recompute, **arguments)

    return forward


class Step:
    """`step(batch)` takes one step of an optimizer on a classifier.

    The loss is the mean over the texts of the whole batch, weighted by class. The processes of `torchrun` share the
    batch, and each cuts its share into pieces that fit into memory; gradients add up to those of the whole. Where a
    GPU runs out of memory, the step is taken again in smaller pieces, by this process alone: the others wait for its
    gradients, not for its pieces. forward: see `spread`. class_weights: float32 (K,), on the CPU; logits beyond these K
    are of no class, and no text counts as such. lm_weight: of the language model's loss on a text, where `forward`
    computes it. While `adapting` is set, the step is on that loss alone, which `adapt` computes, and every text counts
    alike."""

    def __init__(
        self,
        model: GPT2Classifier,
        forward: Forward,
        optimizer: torch.optim.Optimizer,
        clip: float,
        class_weights: Tensor,
        device: Device,
        lm_weight: float = 0.0,
        adapt: Forward | None = None,
    ) -> None:
        self.lm_weight, self.adapt, self.adapting = lm_weight, adapt, False
        self.forward, self.optimizer, self.clip, self.device = forward, optimizer, clip, device
        self.class_weights, self.class_weights_on_device = class_weights, class_weights.to(device.device)
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.tokens = device.tokens  # that a piece may hold, padding included
        self.rehearsed: list[tuple[int, int]] = []  # tokens and length of pieces that fitted into memory

    def __call__(self, batch: Batch) -> Tensor:
        """Take a step on a batch that lies on the CPU. Return float32 (2,), of this process's share of the texts: the
        sum of their losses, unweighted as on val, and how many are classified right. The losses are those of the
        classes or, while adapting, of the language model."""
        accumulate = partial(self.accumulate, batch)
        T = batch.ids.shape[1]
        available = math.ceil(len(batch.ids) / self.device.world) * T
        if is_sharded(self.forward):
            totals = self.in_step(accumulate)
        elif isinstance(self.forward, DistributedDataParallel):
            if len(self.optimizer.state) != len(self.trained):  # its moments will take memory from the first step on
                self.rehearsed.clear()
            self.rehearse(accumulate, self.forward, available, T)
            totals = accumulate(self.tokens)
        else:
            totals, self.tokens = halve_until_it_fits(accumulate, self.tokens, available, T)
        nn.utils.clip_grad_norm_(self.trained, self.clip)
        self.optimizer.step()
        return totals

    def in_step(self, accumulate: Callable[[int], Tensor]) -> Tensor:
        """Call `accumulate` where weights are sharded: all processes gather them for each piece, so none can take
        smaller pieces than the others. Raises InputError where memory runs out."""
        try:
            return accumulate(self.tokens)
        except torch.OutOfMemoryError:
            advice = "take more processes, --recompute, or shorter texts"
            raise InputError(f"out of memory: with --shard all processes need pieces of one size; {advice}") from None

    def rehearse(
        self, accumulate: Callable[[int], Tensor], forward: DistributedDataParallel, available: int, T: int
    ) -> None:
        """Compute the gradients of a step larger than any before, for nothing, to see how large its pieces may be.

        Were memory to run out while gradients are being added up, the others would wait for ever. Here nobody waits."""
        if self.device.device.type not in LIMITED:
            return
        held = count_in_piece(min(self.tokens, available), T)
        if any(most >= held and longest >= T for most, longest in self.rehearsed):
            return
        cuda = [torch.cuda.current_device()] if self.device.device.type == "cuda" else []
        with forward.no_sync(), torch.random.fork_rng(cuda):  # dropout falls as if this had not been
            _, self.tokens = halve_until_it_fits(accumulate, self.tokens, available, T)
        self.rehearsed.append((count_in_piece(min(self.tokens, available), T), T))

    def cut(self, batch: Batch, tokens: int) -> list[tuple[Batch, float]]:
        """Cut this process's share of the texts into pieces of at most `tokens` tokens, and give each a weight.

        Every process has as many; where the texts do not go round, a piece is any text, with a weight of 0."""
        (B, T), world = batch.ids.shape, self.device.world
        stride = world * max(1, tokens // T)
        starts = range(self.device.rank, B + self.device.rank, stride)
        return [
            (batch.rows(slice(start, start + stride, world)), 1.0) if start < B else (batch.rows(slice(1)), 0.0)
            for start in starts
        ]

    def accumulate(self, batch: Batch, tokens: int) -> Tensor:
        """Add up the gradients of this process's share, from 0, in pieces. Return what `__call__` does."""
        self.optimizer.zero_grad()
        totals = torch.zeros(2, device=self.device.device)
        # The engines take the mean over processes, so each counts for as many.
        of_all = self.weigh(self.class_weights, batch.targets).sum().item() / self.device.world
        pieces = self.cut(batch, tokens)
        for n, (piece, weight) in enumerate(pieces, start=1):
            waits = isinstance(self.forward, DistributedDataParallel) and n < len(pieces)
            with self.forward.no_sync() if waits else nullcontext():  # type: ignore[attr-defined]
                totals += weight * self.backward(piece.to(self.device.device), weight / of_all)
        return totals

    def backward(self, batch: Batch, weight: float) -> Tensor:
        """Add the gradients of a piece. weight: of a text, beside that of its class. Return its sums, float32 (2,)."""
        with self.device.autocast():
            outputs = self.adapt(batch) if self.adapt and self.adapting else self.forward(batch)
        logits = (outputs.logits if isinstance(outputs, Outputs) else outputs).float()  # (B, K or more)
        losses = F.cross_entropy(logits, batch.targets, reduction="none")  # (B,)
        minimised = losses
        if self.adapting:  # the head has a gradient of 0: the engines wait for one
            losses = outputs.lm_losses
            minimised = losses + 0 * minimised
        elif isinstance(outputs, Outputs):
            minimised = losses + self.lm_weight * outputs.lm_losses
        weights = self.weigh(self.class_weights_on_device, batch.targets)
        ((minimised * weights).sum() * weight).backward()
        predicted = logits[:, : len(self.class_weights)].argmax(dim=1)
        return torch.stack([losses.detach().sum(), (predicted == batch.targets).sum()])

    def weigh(self, class_weights: Tensor, targets: Tensor) -> Tensor:
        """Return the weight of texts of these classes, float32 (B,): of its class or, while adapting, 1."""
        weights = class_weights[targets]
        return torch.ones_like(weights) if self.adapting else weights


def is_sharded(forward: Forward) -> bool:
    """Return whether each process keeps a part of the weights of this pass, see `spread`."""
    return isinstance(forward, FSDPModule)


def count_in_piece(tokens: int, T: int) -> int:
    """Return how many tokens of texts of T tokens a piece of at most `tokens` tokens holds."""
    return max(1, tokens // T) * T
