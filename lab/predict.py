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
    return predict_with(lambda batch: model(batch.ids, batch.lengths), sequences, len(model.labels), device)


def predict_with(
    forward: Callable[[Batch], Tensor], sequences: Sequence[list[int]], n_classes: int, device: Device
) -> np.ndarray:
    """Return the same from the logits (B, K) that `forward` computes of a batch on the device."""
    texts = np.arange(len(sequences))
    batches = token_batches(sequences, np.zeros_like(texts), device.tokens, texts)
    probabilities = np.empty((len(sequences), n_classes))

    def predict_batch(batch: Batch) -> np.ndarray:
        with torch.inference_mode(), device.autocast():
            logits = forward(batch.to(device.device))
        return logits.cpu().double().softmax(dim=1).numpy()

    predictions = map_batches(predict_batch, device.share(batches), device)
    for index, p in device.gather_rounds((batch.index.numpy(), p) for batch, p in predictions):
        probabilities[index] = p
    return probabilities
