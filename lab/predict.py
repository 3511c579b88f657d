"""What a trained classifier gets right: predictions, metrics beside the baselines, and pictures."""

from collections.abc import Sequence

import numpy as np
import torch

from data.batches import Batch, token_batches
from model import GPT2Classifier

from .device import Device
from .memory import map_batches


def predict(model: GPT2Classifier, sequences: Sequence[list[int]], device: Device) -> np.ndarray:
    """Probabilities float64 (N, K) of N tokenized texts, in their order."""
    everything = np.arange(len(sequences))
    batches = token_batches(sequences, np.zeros_like(everything), device.tokens, everything)
    probabilities = np.empty((len(sequences), len(model.labels)))
    model.eval()

    def predicted(batch: Batch) -> np.ndarray:
        own = batch.to(device.device)
        with torch.inference_mode(), device.autocast():
            logits = model(own.ids, own.lengths)  # (B, K)
        return logits.cpu().double().softmax(dim=1).numpy()

    own = ((batch.index.numpy(), p) for batch, p in map_batches(predicted, device.share(batches), device))
    for index, p in device.gather_rounds(own):
        probabilities[index] = p
    return probabilities
