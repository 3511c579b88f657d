"""The class lens, against `transformers`."""

import numpy as np
import pytest
import torch

from experiments.probe.lens import class_lens, settled_layer, text_lens
from lab.device import Device

CPU = Device(torch.device("cpu"), "fp32")
L, H, D, C, K, V = 3, 5, 7, 35, 4, 101


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(5)
    return [rng.integers(0, V, n).tolist() for n in (3, 7, 13, 5, 7, 1, 11)]


@pytest.fixture(autouse=True)
def several_batches(monkeypatch):
    monkeypatch.setattr("lab.device.TOKENS", 29)


def logits(clf, texts):
    with torch.no_grad():
        return np.stack([clf(torch.tensor([ids]))[0].numpy() for ids in texts])


def close(got, want, scale=None):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want if scale is None else scale).max())


def test_the_class_lens_reads_each_layer_as_transformers_would(each_clf, texts):
    hf, got = each_clf.hf, class_lens(each_clf.ours, texts, CPU)
    assert (got.shape, got.dtype) == ((len(texts), L + 1, K), np.float32)
    for ids, by_layer in zip(texts, got, strict=True):
        with torch.no_grad():
            *middle, end = hf.transformer(torch.tensor([ids]), output_hidden_states=True).hidden_states
            want = [hf.score(hf.transformer.ln_f(x[0, -1])) for x in middle] + [hf.score(end[0, -1])]
        close(by_layer, torch.stack(want).numpy())


def test_the_lens_of_a_text_is_that_of_all_its_beginnings(clf, texts):
    got = text_lens(clf, texts[2], CPU)
    assert got.shape == (13, L + 1, K)
    close(got, class_lens(clf, [texts[2][: t + 1] for t in range(13)], CPU))


def test_the_settled_layer_is_where_the_prediction_begins_to_stay():
    predicted = [[2, 2, 2, 2], [0, 2, 2, 2], [1, 2, 0, 0], [2, 1, 2, 1], [1, 1, 0, 1]]
    lens = np.eye(3, dtype=np.float32)[predicted]
    assert settled_layer(lens).tolist() == [0, 1, 2, 3, 3]
    assert settled_layer(lens[:, :1]).tolist() == [0] * 5
    assert settled_layer(lens).dtype == np.int64
