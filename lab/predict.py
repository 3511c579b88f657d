"""Predict the classes of texts with a trained classifier."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from data.batches import Batch, token_batches
from model import GPT2Classifier

from .device import Device
from .memory import map_batches


def predict(model: GPT2Classifier, sequences: Sequence[list[int]], device: Device) -> np.ndarray:
    """Return the probabilities of N tokenised texts, float64 (N, K), in their order, on all ranks. Sets eval mode."""
    model.eval()
    logits = compute_rows(lambda batch: model(batch.ids, batch.lengths), sequences, len(model.labels), device)
    return torch.from_numpy(logits).softmax(dim=1).numpy()


def compute_rows(
    forward: Callable[[Batch], Tensor], sequences: Sequence[list[int]], width: int, device: Device
) -> np.ndarray:
    """Return what `forward` computes of N tokenised texts, (B, width) of a batch on the device: float64 (N, width), in
    their order, on all ranks."""
    texts = np.arange(len(sequences))
    batches = token_batches(sequences, np.zeros_like(texts), device.tokens, texts)
    rows = np.empty((len(sequences), width))

    def compute_batch(batch: Batch) -> np.ndarray:
        with torch.inference_mode(), device.autocast():
            computed = forward(batch.to(device.device))
        return computed.cpu().double().numpy()

    results = map_batches(compute_batch, device.share(batches), device)
    for index, of_batch in device.gather_rounds((batch.index.numpy(), computed) for batch, computed in results):
        rows[index] = of_batch
    return rows
