"""Texts with repeated tokens, of one token and more, and what `transformers` attends to in them."""

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def sequences():
    """Token ids below 20, so that many come twice, of 1 .. 13 tokens."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 20, n).tolist() for n in (5, 13, 1, 2, 9, 13, 7, 1, 12, 3)]


@pytest.fixture(scope="session")
def windows(each_clf):
    """How many keys up to its own a query may see, by layer."""
    types = getattr(each_clf.hf.config, "attention_layers", ["global"] * 3)
    return [each_clf.hf.config.window_size if kind == "local" else 10**6 for kind in types]


@pytest.fixture(scope="session")
def attentions(each_clf, sequences):
    """The eager attention of each text alone, (L, H, T, T) each."""
    with torch.no_grad():
        outputs = [each_clf.hf.transformer(torch.tensor([ids]), output_attentions=True) for ids in sequences]
    return [torch.cat(output.attentions).double().numpy() for output in outputs]
