"""Take out what the network says of the classes whatever the text is: label-prior corrections.

A language model prefers some label words to others after any text: they are frequent, or the last example bore them. So
it names one class for all texts. All remedies are one operation: y = argmax(lp - b), with lp the log-probabilities of
the classes and b (K,) what the prompt says without a text. Only the source of b differs. They are no calibration of
probabilities (Guo et al. 2017): that is measured apart, as ECE.

Letters: N texts, M inputs that b is estimated from, K classes."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from model import InputError

# A correction: where b comes from.
#   direct             b = 0 (Brown et al. 2020)
#   contextual         inputs without content: N/A, nothing, [MASK] (Zhao et al. 2021, contextual calibration)
#   domain_pmi         the prompt without a text (Holtzman et al. 2021, domain-conditional PMI)
#   domain_context     random words of train (Fei et al. 2023, domain-context calibration)
#   batch              the mean over the texts of val, without their labels (Zhou et al. 2023, batch calibration)
#   batch_transductive the same over the texts to be classified themselves, as published
#   channel            none: log P(text | label word) in the place of lp (Min et al. 2022, noisy channel)
Correction = Literal["direct", "contextual", "domain_pmi", "domain_context", "batch", "batch_transductive", "channel"]
CONTENT_FREE = ("N/A", "", "[MASK]")  # for GPT-2 the last is three ordinary tokens
CONTEXTS = 20  # draws of random words
Floats = NDArray[np.float64]


def average_probabilities(log_probs: Floats) -> Floats:
    """Return b (K,) of M inputs without content: the log of their mean probability, normalised over the classes.

    log_probs: (M, K). The mean is arithmetic, as published: a constant added to a class's logit does not cancel out
    with several inputs, because each input has its own normaliser. With one input it does."""
    return np.asarray(log_softmax(logsumexp(log_probs, axis=0) - np.log(len(log_probs))))


def average_texts(log_probs: Floats) -> Floats:
    """Return b (K,) of N texts: the mean of their log-probabilities (N, K). Raises InputError for a single text, of
    which nothing would be left."""
    if len(log_probs) < 2:
        raise InputError(f"batch correction: expected at least 2 texts, got {len(log_probs)}; take more --texts")
    return np.asarray(log_probs.mean(axis=0))


def correct(log_probs: Floats, b: Floats, shares: Floats | None = None) -> Floats:
    """Return the log-probabilities of the classes (N, K) with the prior b (K,) taken out, normalised over the classes.

    shares: of each class in train (K,), the prior to put in its place; None: all classes alike."""
    return np.asarray(log_softmax(log_probs - b + (0 if shares is None else np.log(shares)), axis=1))
