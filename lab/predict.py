"""Predict the classes of texts with a trained classifier."""

from collections.abc import Sequence

import numpy as np
import torch

from data.batches import Batch, token_batches
from model import GPT2Classifier

from .device import Device
from .memory import map_batches


def predict(model: GPT2Classifier, sequences: Sequence[list[int]], device: Device) -> np.ndarray:
    """Return the probabilities of N tokenised texts, float64 (N, K), in their order, on all ranks. Sets eval mode."""
    texts = np.arange(len(sequences))
    batches = token_batches(sequences, np.zeros_like(texts), device.tokens, texts)
    probabilities = np.empty((len(sequences), len(model.labels)))
    model.eval()

    def predict_batch(batch: Batch) -> np.ndarray:
        on_device = batch.to(device.device)
        with torch.inference_mode(), device.autocast():
            logits = model(on_device.ids, on_device.lengths)  # (B, K)
        return logits.cpu().double().softmax(dim=1).numpy()

    predictions = map_batches(predict_batch, device.share(batches), device)
    for index, p in device.gather_rounds((batch.index.numpy(), p) for batch, p in predictions):
        probabilities[index] = p
    return probabilities
