"""The class lens and the direct contributions, against `transformers` and against taking components out by hand."""

import numpy as np
import pytest
import torch

from experiments.probe.lens import Component, class_lens, components, contributions, settled_layer, text_lens
from lab.device import Device
from model import Trace

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


def test_the_class_lens_reads_each_layer_as_transformers_would(clf_reference, texts):
    hf, got = clf_reference.hf, class_lens(clf_reference.ours, texts, CPU)
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


def test_every_component_is_listed_once(tiny):
    listed = components(tiny)
    assert listed[0] == Component("embedding")
    assert listed[-1] == Component("final bias")
    assert listed[1:7] == [*(Component("head", 0, head) for head in range(5)), Component("head", 1, 0)]
    assert listed[16:22] == [Component(kind, layer) for kind in ("attention bias", "mlp") for layer in range(3)]
    assert len(set(listed)) == len(listed) == 2 + L * (H + 2)


def test_contributions_add_up_to_the_logits(clf, texts):
    got = contributions(clf, texts, CPU)
    assert (got.shape, got.dtype) == ((len(texts), 23, K), np.float32)
    close(got.sum(1), logits(clf, texts))
    close(contributions(clf, texts, Device(CPU.device, "bf16")), got)


def vectors(clf, ids):
    """What each component but the final bias adds to the residual stream at the last token of one text, by hand."""
    trace = Trace("resid_pre", "z", "mlp")
    with torch.no_grad():
        clf(torch.tensor([ids]), trace=trace)

    def added_by(component):
        if component.kind == "embedding":
            return trace.resid_pre[0][0, -1]
        if component.kind == "mlp":
            return trace.mlp[component.layer][0, -1]
        projection = clf.trunk.h[component.layer].attn.c_proj
        if component.kind == "attention bias":
            return projection.bias
        z = torch.zeros(H, D)
        z[component.head] = trace.z[component.layer][0, component.head, -1]
        return projection(z.flatten()) - projection.bias

    return added_by, trace.resid_pre[-1][0, -1]


@torch.no_grad()
def test_a_contribution_is_what_is_lost_without_the_component_under_a_frozen_scale(clf, texts):
    ln_f, listed = clf.trunk.ln_f, components(clf.config)
    for ids, got in zip(texts, contributions(clf, texts, CPU), strict=True):
        added_by, final = vectors(clf, ids)
        scale = (final.var(correction=0) + ln_f.eps).sqrt()

        def read(x, scale=scale):
            return clf.score((x - x.mean()) / scale * ln_f.weight + ln_f.bias)

        whole = read(final)
        want = [whole - read(final - added_by(component)) for component in listed[:-1]] + [clf.score(ln_f.bias)]
        close(got, torch.stack(want).numpy(), scale=whole.numpy())
