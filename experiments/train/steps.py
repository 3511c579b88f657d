"""One step of a fine-tuning: on one device or many, in as many pieces as fit into memory."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.batches import Batch
from lab.compiled import compile_function
from lab.device import Compile, Device
from lab.memory import halve_until_it_fits
from lab.sweep import change_nothing
from model import GPT2Classifier, Intervention

Forward = Callable[[Batch], Tensor]  # logits (B, K) of a batch that lies on the device


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
    GPU runs out of memory, the step is taken again in smaller pieces. class_weights: float32 (K,), on the CPU; logits
    beyond these K are of no class, and no text counts as such."""

    def __init__(
        self,
        model: GPT2Classifier,
        forward: Forward,
        optimizer: torch.optim.Optimizer,
        clip: float,
        class_weights: Tensor,
        device: Device,
    ) -> None:
        self.forward, self.optimizer, self.clip, self.device = forward, optimizer, clip, device
        self.class_weights, self.class_weights_on_device = class_weights, class_weights.to(device.device)
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.tokens = device.tokens  # that a piece may hold, padding included

    def __call__(self, batch: Batch) -> Tensor:
        """Take a step on a batch that lies on the CPU. Return float32 (2,), of this process's share of the texts: the
        sum of their losses, unweighted as on val, and how many are classified right."""
        weight = self.class_weights[batch.targets].sum().item()
        if self.device.rank < len(batch.ids):
            totals = self.backward(batch.rows(slice(self.device.rank, None, self.device.world)), weight)
        else:  # the last batch of an epoch may have fewer texts than there are processes
            totals = self.accumulate([], weight)
        self.device.add_up(parameter.grad for parameter in self.trained if parameter.grad is not None)
        nn.utils.clip_grad_norm_(self.trained, self.clip)
        self.optimizer.step()
        return totals

    def backward(self, batch: Batch, weight: float) -> Tensor:
        """Compute the gradients of these texts' part of the loss, in pieces that fit. Return what `__call__` does."""
        B, T = batch.ids.shape
        totals, self.tokens = halve_until_it_fits(
            lambda tokens: self.accumulate(batch.split(tokens), weight), self.tokens, B * T, T
        )
        return totals

    def accumulate(self, pieces: list[Batch], weight: float) -> Tensor:
        """Add up the gradients of the pieces, from 0. weight: sum of the class weights of all texts of the batch."""
        self.optimizer.zero_grad()
        totals = torch.zeros(2, device=self.device.device)
        for piece in pieces:
            piece = piece.to(self.device.device)
            with self.device.autocast():
                logits = self.forward(piece).float()
            losses = F.cross_entropy(logits, piece.targets, reduction="none")  # (B,), of logits (B, K or more)
            ((losses * self.class_weights_on_device[piece.targets]).sum() / weight).backward()
            predicted = logits[:, : len(self.class_weights)].argmax(dim=1)
            totals += torch.stack([losses.detach().sum(), (predicted == piece.targets).sum()])
        for parameter in self.trained:
            if parameter.grad is None:  # this process has no texts
                parameter.grad = torch.zeros_like(parameter)
        return totals
