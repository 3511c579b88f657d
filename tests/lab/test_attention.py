import base64

import numpy as np
import pytest
import torch
from tiny import D, H, L, random_classifier

from lab.attention import list_tokens, measure_values, pack, record_attention
from model import GPT2Classifier, GPT2Config, Trace, masks

T = 7
TOKENS = list_tokens([(f"t{i}", 2 * i, 2 * i + 2) for i in range(T)])


@pytest.fixture
def clf(tiny: GPT2Config) -> GPT2Classifier:
    return random_classifier(tiny, list("abcd"))


def record(clf: GPT2Classifier, hidden: tuple[int, ...] = ()):
    ids = torch.arange(1, T + 1)[None]
    arguments = {}
    if hidden:
        gone = torch.zeros(1, T, dtype=torch.bool)
        gone[0, list(hidden)] = True
        arguments["attn_mask"] = masks.hide_tokens(gone)
    with torch.inference_mode():
        return record_attention(clf.trunk, clf.trunk.embed(ids), TOKENS, arguments, hidden)


def unpack_maps(text: str) -> np.ndarray:
    """Read lower triangles one byte after the other: (n, T, T)."""
    values = iter(base64.b64decode(text))
    maps = []
    for _ in range(len(base64.b64decode(text)) // (T * (T + 1) // 2)):
        maps.append(np.zeros((T, T)))
        for i in range(T):
            for j in range(i + 1):
                maps[-1][i, j] = next(values) / 255
    return np.array(maps)


def test_a_packed_recording_unpacks_to_itself(clf):
    recording = record(clf)
    packed = pack(recording)
    assert packed["tokens"] == TOKENS
    assert packed["maps"]["heads"] == packed["neurons"]["heads"] == [(i, j) for i in range(L) for j in range(H)]
    for name, whole in (("weights", recording.weights), ("moved", recording.moved)):
        maps = unpack_maps(packed["maps"][name])
        assert np.abs(maps - whole.flatten(0, 1).numpy()).max() <= 0.5 / 255 + 1e-6
        assert np.abs(maps).max() > 0.5
    for name, whole in (("q", recording.q), ("k", recording.k)):
        values = np.frombuffer(base64.b64decode(packed["neurons"][name]), "<f4").reshape(L * H, T, D)
        np.testing.assert_array_equal(values, whole.flatten(0, 1).numpy())


def test_some_heads_are_packed_in_the_order_asked_for(clf):
    recording = record(clf)
    packed = pack(recording, maps=[(2, 1), (0, 4)], neurons=[(1, 3)])
    maps = unpack_maps(packed["maps"]["weights"])
    assert np.abs(maps[0] - recording.weights[2, 1].numpy()).max() < 0.003
    assert np.abs(maps[1] - recording.weights[0, 4].numpy()).max() < 0.003
    values = np.frombuffer(base64.b64decode(packed["neurons"]["k"]), "<f4").reshape(1, T, D)
    np.testing.assert_array_equal(values[0], recording.k[1, 3].numpy())
    nothing = pack(recording, maps=[], neurons=[])
    assert nothing["maps"] == {"heads": [], "weights": "", "moved": ""}
    assert nothing["neurons"] == {"heads": [], "q": "", "k": ""}


def test_what_moves_is_the_value_as_it_enters_the_residual_stream(clf):
    recording = record(clf)
    trace = Trace("v")
    clf(torch.arange(1, T + 1)[None], trace=trace)
    lengths = measure_values(clf.trunk, trace.stacked("v")[0].detach())
    for layer in range(L):
        c_proj = clf.trunk.h[layer].attn.c_proj.weight
        for head in range(H):
            shares = np.zeros((T, T))
            for j in range(T):
                z = torch.zeros(H * D)
                z[head * D : (head + 1) * D] = trace.v[layer][0, head, j]
                written = c_proj @ z  # what this value alone adds
                assert lengths[layer, head, j].item() == pytest.approx(written.norm().item(), rel=1e-4)
                shares[j:, j] = recording.weights[layer, head, j:, j] * written.norm().item()
            shares /= shares.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(recording.moved[layer, head].numpy(), shares, atol=1e-5)


def test_a_head_without_queries_looks_everywhere_alike(clf):
    C = H * D
    with torch.no_grad():
        for block in clf.trunk.h:
            block.attn.c_attn.weight[:C] = 0
            block.attn.c_attn.bias[:C] = 0
    weights = record(clf).weights
    for i in range(T):
        np.testing.assert_allclose(weights[:, :, i, : i + 1].numpy(), 1 / (i + 1), rtol=1e-6)
        assert (weights[:, :, i, i + 1 :] == 0).all()


def test_nobody_looks_at_a_hidden_token(clf):
    recording = record(clf, hidden=(0, 3))
    assert pack(recording)["hidden"] == [0, 3]
    assert (recording.weights[..., [0, 3]] == 0).all()
    assert (recording.weights[:, :, 0] == 0).all()  # the first query has no key left
    assert (recording.moved[:, :, 0] == 0).all()
    np.testing.assert_allclose(recording.weights[:, :, 1:].sum(dim=-1).numpy(), 1, rtol=1e-5)
    np.testing.assert_allclose(recording.moved[:, :, 1:].sum(dim=-1).numpy(), 1, rtol=1e-5)
