"""What the trained head reads in the middle of the network: the logit lens (nostalgebraist 2020), with the classifier's
head in place of the unembedding.

Letters: N texts, K classes, and those of the forward pass.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch
from lab.device import Device
from lab.memory import map_texts
from model import GPT2Classifier, Trace


@torch.inference_mode()
def class_lens(clf: GPT2Classifier, sequences: Sequence[list[int]], device: Device) -> NDArray[np.float32]:
    """Return the class logits that the head reads from the residual stream at the last real token: (N, L + 1, K).

    They are read before each layer and after the last, where they are the classifier's own. `clf` is used as it is, on
    `device`."""
    logits = np.empty((len(sequences), clf.config.n_layer + 1, len(clf.labels)), dtype=np.float32)

    def read_batch(batch: Batch) -> Tensor:
        trace, lengths = Trace("resid_pre"), batch.lengths.to(device.device)
        with device.autocast():
            clf.trunk(batch.ids.to(device.device), lengths, trace=trace)
            by_layer = [clf.read(clf.trunk.norm(x), lengths) for x in trace.resid_pre]  # L + 1 of (B, K)
        return torch.stack(by_layer, dim=1).float().cpu()

    for batch, batch_logits in map_texts(read_batch, sequences, device, "class lens"):
        logits[batch.index] = batch_logits
    return logits


@torch.inference_mode()
def text_lens(clf: GPT2Classifier, ids: list[int], device: Device) -> NDArray[np.float32]:
    """Return the class lens at every token of one text, as if the text ended there: (T, L + 1, K)."""
    trace = Trace("resid_pre")
    with device.autocast():
        clf.trunk(torch.tensor([ids], device=device.device), trace=trace)
        logits = clf.score(clf.trunk.norm(trace.stacked("resid_pre")))[0]  # (1, L + 1, T, C) -> (L + 1, T, K)
    return logits.transpose(0, 1).float().cpu().numpy()


def settled_layer(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the first layer from which the predicted class no longer changes, (N,), for a class lens (N, L + 1, K).

    0: the embedding already settles it; L: only the last layer does."""
    predicted = logits.argmax(-1)
    same_as_last = predicted == predicted[:, -1:]
    settled = np.logical_and.accumulate(same_as_last[:, ::-1], axis=1)  # from the last layer back
    return logits.shape[1] - settled.sum(1)
