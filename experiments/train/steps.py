"""One step of a fine-tuning: on one device or many, in as many pieces as fit into memory."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.batches import Batch
from lab.device import Device
from lab.memory import fitting
from model import GPT2Classifier


class Step:
    """`step(batch)` takes one step of an optimizer on a classifier.

    The loss is the mean over the texts of the whole batch, weighted by class, however they are shared out: over the
    processes of `torchrun`, and within each over pieces that fit into memory, whose gradients add up. A GPU that runs
    out of memory gets smaller pieces, and the step is taken again. class_weights: float32 (K,), on the CPU."""

    def __init__(
        self,
        model: GPT2Classifier,
        optimizer: torch.optim.Optimizer,
        clip: float,
        class_weights: Tensor,
        device: Device,
        compiled: bool,
        recompute: bool,
    ) -> None:
        self.optimizer, self.clip, self.device, self.recompute = optimizer, clip, device, recompute
        self.class_weights, self.class_weights_on_device = class_weights, class_weights.to(device.device)
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.forward: Callable[..., Tensor] = torch.compile(model, dynamic=True) if compiled else model
        self.tokens = device.tokens  # at once, padding included

    def __call__(self, batch: Batch) -> Tensor:
        """A batch on the CPU -> float32 (2,): the sum of its texts' losses, each with weight 1 as on val, and how many
        are classified right; of this process's share."""
        weight = self.class_weights[batch.targets].sum().item()
        if self.device.rank < len(batch.ids):
            totals = self.gradients(batch.rows(slice(self.device.rank, None, self.device.world)), weight)
        else:  # one batch of an epoch may have few texts
            totals = self.accumulated([], weight)
        self.device.add_up(parameter.grad for parameter in self.trained if parameter.grad is not None)
        nn.utils.clip_grad_norm_(self.trained, self.clip)
        self.optimizer.step()
        return totals

    def gradients(self, batch: Batch, weight: float) -> Tensor:
        """Leave the gradients of these texts' part of the loss -> what `__call__` returns."""
        B, T = batch.ids.shape
        totals, self.tokens = fitting(
            lambda tokens: self.accumulated(batch.split(tokens), weight), self.tokens, B * T, T
        )
        return totals

    def accumulated(self, pieces: list[Batch], weight: float) -> Tensor:
        """Gradients of the pieces, added up."""
        self.optimizer.zero_grad()
        totals = torch.zeros(2, device=self.device.device)
        for piece in pieces:
            piece = piece.to(self.device.device)
            with self.device.autocast():
                logits = self.forward(piece.ids, piece.lengths, recompute=self.recompute).float()  # (B, K)
            (F.cross_entropy(logits, piece.targets, self.class_weights_on_device, reduction="sum") / weight).backward()
            logits = logits.detach()
            losses = F.cross_entropy(logits, piece.targets, reduction="sum")
            totals += torch.stack([losses, (logits.argmax(dim=1) == piece.targets).sum()])
        for parameter in self.trained:
            if parameter.grad is None:  # no texts for this process
                parameter.grad = torch.zeros_like(parameter)
        return totals
