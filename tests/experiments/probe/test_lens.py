"""The class lens and the direct contributions, against `transformers` and against taking parts out by hand."""

import numpy as np
import pytest
import torch

from experiments.probe.lens import Part, class_lens, contributions, decided, parts, text_lens
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
    for ids, own in zip(texts, got, strict=True):
        with torch.no_grad():
            *middle, end = hf.transformer(torch.tensor([ids]), output_hidden_states=True).hidden_states
            want = [hf.score(hf.transformer.ln_f(x[0, -1])) for x in middle] + [hf.score(end[0, -1])]
        close(own, torch.stack(want).numpy())


def test_the_last_layer_of_the_class_lens_is_the_classifier(clf, texts):
    close(class_lens(clf, texts, CPU)[:, -1], logits(clf, texts))


def test_the_lens_of_a_text_is_that_of_all_its_beginnings(clf, texts):
    got = text_lens(clf, texts[2], CPU)
    assert got.shape == (13, L + 1, K)
    close(got, class_lens(clf, [texts[2][: t + 1] for t in range(13)], CPU))


def test_decided_is_where_the_prediction_begins_to_stay():
    predicted = [[2, 2, 2, 2], [0, 2, 2, 2], [1, 2, 0, 0], [2, 1, 2, 1], [1, 1, 0, 1]]
    lens = np.eye(3, dtype=np.float32)[predicted]
    assert decided(lens).tolist() == [0, 1, 2, 3, 3]
    assert decided(lens[:, :1]).tolist() == [0] * 5
    assert decided(lens).dtype == np.int64


def test_every_part_is_there_once(tiny):
    found = parts(tiny)
    assert found[0] == Part("embedding")
    assert found[-1] == Part("final bias")
    assert found[1:7] == [*(Part("head", 0, head) for head in range(5)), Part("head", 1, 0)]
    assert found[16:22] == [Part(kind, layer) for kind in ("attention bias", "mlp") for layer in range(3)]
    assert len(set(found)) == len(found) == 2 + L * (H + 2)


def test_contributions_add_up_to_the_logits(clf, texts):
    got = contributions(clf, texts, CPU)
    assert (got.shape, got.dtype) == ((len(texts), 23, K), np.float32)
    close(got.sum(1), logits(clf, texts))
    close(contributions(clf, texts, Device(CPU.device, "bf16")), got)


def vectors(clf, ids):
    """What each part, all but the final bias, adds to the residual stream at the last token of one text, by hand."""
    trace = Trace("resid_pre", "z", "mlp")
    with torch.no_grad():
        clf(torch.tensor([ids]), trace=trace)

    def of(part):
        if part.kind == "embedding":
            return trace.resid_pre[0][0, -1]
        if part.kind == "mlp":
            return trace.mlp[part.layer][0, -1]
        projection = clf.trunk.h[part.layer].attn.c_proj
        if part.kind == "attention bias":
            return projection.bias
        z = torch.zeros(H, D)
        z[part.head] = trace.z[part.layer][0, part.head, -1]
        return projection(z.flatten()) - projection.bias

    return of, trace.resid_pre[-1][0, -1]


@torch.no_grad()
def test_a_contribution_is_what_is_lost_without_the_part_under_a_frozen_scale(clf, texts):
    ln_f, own = clf.trunk.ln_f, parts(clf.config)
    for ids, got in zip(texts, contributions(clf, texts, CPU), strict=True):
        of, final = vectors(clf, ids)
        scale = (final.var(correction=0) + ln_f.eps).sqrt()

        def read(x, scale=scale):
            return clf.score((x - x.mean()) / scale * ln_f.weight + ln_f.bias)

        whole = read(final)
        want = [whole - read(final - of(part)) for part in own[:-1]] + [clf.score(ln_f.bias)]
        close(got, torch.stack(want).numpy(), scale=whole.numpy())


def test_a_head_that_writes_nothing_contributes_nothing(clf, texts):
    before = contributions(clf, texts, CPU)
    last = L - 1
    clf.trunk.h[last].attn.c_proj.weight.data[:, 2 * D : 3 * D] = 0
    after = contributions(clf, texts, CPU)
    own = parts(clf.config).index(Part("head", last, 2))
    assert (after[:, own] == 0).all()
    assert (np.delete(after, own, axis=1) != 0).all()
    assert (before[:, own] != 0).all()
