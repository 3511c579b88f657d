"""What each part of the network adds directly to the logits, against taking parts out by hand."""

import numpy as np
import pytest
import torch

from lab.contributions import Component, components, contributions, token_contributions
from lab.device import Device
from model import Trace, load_classifier

CPU = Device(torch.device("cpu"), "fp32")
L, H, D, C, K, V = 3, 5, 7, 35, 4, 101


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(5)
    return [rng.integers(0, V, n).tolist() for n in (3, 7, 13, 5, 7, 1, 11)]


@pytest.fixture(autouse=True)
def several_batches(monkeypatch):
    monkeypatch.setattr("lab.device.TOKENS", 29)


@pytest.fixture
def clf(each_clf):
    return load_classifier(each_clf.folder)


def logits(clf, texts):
    with torch.no_grad():
        return np.stack([clf(torch.tensor([ids]))[0].numpy() for ids in texts])


def close(got, want, scale=None):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want if scale is None else scale).max())


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


def test_the_contributions_of_tokens_add_up_to_those_of_the_heads(clf, texts):
    of_heads = [component.kind == "head" for component in components(clf.config)]
    for ids, added in zip(texts, contributions(clf, texts, CPU), strict=True):
        by_token = token_contributions(clf, ids, CPU)
        assert by_token.shape == (len(ids), K)
        close(by_token.sum(axis=0), added[of_heads].sum(axis=0))


def test_a_token_that_the_last_query_may_not_attend_to_adds_what_is_lost_of_each_head(clf, texts):
    """Cut one key out of the last query, layer by layer: z loses w v, whose logits under the frozen scale are added."""
    ids = torch.tensor([texts[2]])
    T, by_token = ids.shape[1], token_contributions(clf, texts[2], CPU)
    trace = Trace("resid_pre", "z", "weights", "v")
    clf(ids, trace=trace)
    end, total = trace.resid_pre[-1][0, -1].double(), np.zeros(K)
    for layer in range(L):
        attn = clf.trunk.h[layer].attn
        lost = trace.weights[layer][0, :, -1, 4, None] * trace.v[layer][0, :, 4]  # (H, D)
        written = lost.flatten().double() @ attn.c_proj.weight.T.double()  # (C,)
        centred = (written - written.mean()) / (
            (end - end.mean()).square().mean() + clf.config.layer_norm_epsilon
        ).sqrt()
        total += (clf.score.weight.double() @ (clf.trunk.ln_f.weight.double() * centred)).detach().numpy()
    assert T == 13
    close(by_token[4], total, scale=by_token)
