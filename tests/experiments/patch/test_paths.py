"""Path patching against hooks in `transformers`, edge by edge, and against what follows from the definition."""

import pytest
import torch
from hooked import ALL, ANSWERS, SOME, Pair, in_fp64, send
from tiny import H, L, T, difference
from torch import nn

from experiments.patch import paths
from experiments.patch.cells import Cell, patch_cells, record
from experiments.patch.paths import (
    ADD,
    Edge,
    Node,
    choose_receivers,
    edges_from,
    edges_into,
    estimate_edges,
    patch_edges,
)
from model import InputError

EMBEDDING, LOGITS = Node("embedding", -1), Node("logits", L)


def heads_of(layer):
    return [Node("head", layer, head) for head in range(H)]


def senders_before(layer, *, with_heads):
    """Whatever writes to the stream before a layer, or with its heads."""
    senders = [EMBEDDING]
    for earlier in range(layer):
        senders += [*heads_of(earlier), Node("mlp", earlier)]
    return senders + heads_of(layer) * with_heads


def all_receivers():
    """Every input of every receiver, with all that sends to it."""
    receivers = [(LOGITS, "logits", senders_before(L, with_heads=False))]
    for layer in range(L):
        before = senders_before(layer, with_heads=False)
        receivers += [(head, name, before) for head in heads_of(layer) for name in "qkv"]
        receivers.append((Node("mlp", layer), "mlp", senders_before(layer, with_heads=True)))
    return receivers


ALL_EDGES = [Edge(sender, receiver, name) for receiver, name, senders in all_receivers() for sender in senders]


def runs(metric, texts):
    return [record(metric.trunk, ids) for ids in texts]


def by_hooks(pair, layer_norm, share=1.0):
    """What hooks make of ALL_EDGES."""
    effects = []
    for receiver, name, senders in all_receivers():
        triples = [(node.kind, node.layer, node.head) for node in senders]
        effects.append(send(pair, triples, (name, receiver.layer, receiver.head), layer_norm, share))
    return torch.cat(effects)


@pytest.mark.parametrize("layer_norm", ADD)
@pytest.mark.parametrize("texts", [SOME, SOME[::-1], ALL], ids=["some", "back", "all"])
def test_each_edge_is_what_hooks_make_of_it(network, metric, texts, layer_norm):
    pair = Pair(network.hf, *texts, ANSWERS)
    got = patch_edges(metric, *runs(metric, texts), ALL_EDGES, layer_norm, tokens=500)
    assert difference(got, by_hooks(pair, layer_norm)) < 1e-5


@pytest.mark.parametrize("layer_norm", ADD)
@pytest.mark.parametrize("texts", [SOME, ALL], ids=["some", "all"])
def test_an_estimate_is_the_slope_along_the_edge(network, metric, texts, layer_norm, monkeypatch):
    pair = Pair(in_fp64(network.hf, monkeypatch), *texts, ANSWERS)
    up, down = (by_hooks(pair, layer_norm, share) for share in (1e-4, -1e-4))
    source = record(metric.trunk, texts[1])
    shuffled = torch.randperm(len(ALL_EDGES), generator=torch.Generator().manual_seed(0))
    got = estimate_edges(metric, texts[0], source, [ALL_EDGES[i] for i in shuffled], layer_norm)
    assert difference(got, ((up - down) / 2e-4).float()[shuffled]) < 1e-4


def test_edges_are_listed_from_both_ends(metric):
    config = metric.trunk.config
    receivers = {receiver for receiver, _, _ in all_receivers()}
    assert {edge for receiver in receivers for edge in edges_into(receiver, config)} == set(ALL_EDGES)
    senders = senders_before(L, with_heads=False)
    assert {edge for sender in senders for edge in edges_from(sender, config)} == set(ALL_EDGES)
    assert [len(edges_from(node, config)) for node in (EMBEDDING, heads_of(1)[2], Node("mlp", 1), LOGITS)] == [
        3 * H * L + L + 1,
        3 * H * (L - 2) + (L - 1) + 1,
        3 * H * (L - 2) + (L - 2) + 1,
        0,
    ]


def test_a_node_goes_by_its_name(metric):
    config = metric.trunk.config
    assert paths.find_node("head 2.3", config, ["head"]) == Node("head", 2, 3)
    assert paths.find_node("mlp 1", config, ["head", "mlp"]) == Node("mlp", 1)
    assert [str(node) for node in (EMBEDDING, LOGITS)] == ["embedding", "logits"]
    for name, kinds in (("head 3.0", ["head"]), ("mlp 1", ["head"]), ("head 2.03", ["head"])):
        with pytest.raises(InputError, match=f"'{name}': expected one of head, as in head 2.2, head 2.3, head 2.4"):
            paths.find_node(name, config, kinds)


def patched_cell(sender):
    """The activation patch of all that a sender writes."""
    kind = {"embedding": "resid_pre", "head": "z", "mlp": "mlp"}[sender.kind]
    return Cell(kind, max(0, sender.layer), sender.head)


@pytest.mark.parametrize("texts", [SOME, ALL], ids=["some", "all"])
def test_the_paths_to_all_receivers_are_the_activation_patch(metric, texts):
    base, source = runs(metric, texts)
    for sender in senders_before(L, with_heads=False):
        to = choose_receivers([edges_from(sender, metric.trunk.config), []], metric.trunk.config, torch.device("cpu"))
        first = max(0, sender.layer + (sender.kind == "mlp"))
        x, sent = base.resid_pre[first].repeat(2, 1, 1), paths.write_difference(metric.trunk, sender, base, source)
        with torch.no_grad():
            everybody, nobody = paths.send(metric, x, sent.repeat(2, 1, 1), to, (first, L), ADD["recomputed"])
        (expected,) = patch_cells(metric, base, source, [patched_cell(sender)], tokens=500)
        assert abs(everybody - expected) < 1e-5
        assert abs(nobody - metric.read(base.resid_pre[-1])) < 1e-5


def test_the_way_to_the_logits_is_in_closed_form(network, metric):
    """It gives the logits of the final stream plus what the sender writes."""
    base, source = runs(metric, ALL)
    edges, ln_f, final = edges_into(LOGITS, metric.trunk.config), metric.trunk.ln_f, base.resid_pre[-1]
    read_out = network.hf.lm_head if hasattr(network.hf, "lm_head") else network.hf.score
    parts = [paths.write_difference(metric.trunk, edge.sender, base, source) for edge in edges]
    with torch.no_grad():
        logits = torch.cat([read_out(ln_f(final + part))[:, -1] for part in parts])
    got = patch_edges(metric, base, source, edges, "recomputed", tokens=500)
    assert difference(got, logits[:, ANSWERS[0]] - logits[:, ANSWERS[1]]) < 1e-5


@pytest.mark.parametrize("texts", [SOME, ALL], ids=["some", "all"])
def test_frozen_ways_to_the_logits_add_up(metric, texts):
    base, source = runs(metric, texts)
    plain, edges = metric.read(base.resid_pre[-1]), edges_into(LOGITS, metric.trunk.config)
    got = patch_edges(metric, base, source, edges, "frozen", tokens=500)
    final, changed = base.resid_pre[-1][0, -1], source.resid_pre[-1][0, -1]
    ln_f = metric.trunk.ln_f
    scale = (final.var(correction=0) + ln_f.eps).sqrt()
    under_one_scale = ((changed - changed.mean()) / scale * ln_f.weight + ln_f.bias)[None] @ metric.weights
    assert difference(plain + (got - plain).sum(), under_one_scale) < 1e-5
    recomputed = patch_edges(metric, base, source, edges, "recomputed", tokens=500)
    assert difference(plain + (recomputed - plain).sum(), under_one_scale) > 0.001


def test_an_edge_between_equal_texts_carries_nothing(metric):
    base, _ = runs(metric, SOME)
    got = patch_edges(metric, base, base, ALL_EDGES, "recomputed", tokens=500)
    assert difference(got, metric.read(base.resid_pre[-1]).expand(len(got))) < 1e-5


@pytest.mark.parametrize("layer_norm", ADD)
def test_the_batching_and_the_order_do_not_matter(metric, layer_norm):
    base, source = runs(metric, SOME)
    edges = ALL_EDGES[::5]
    shuffled = torch.randperm(len(edges), generator=torch.Generator().manual_seed(0))
    expected = patch_edges(metric, base, source, edges, layer_norm, tokens=1)
    for tokens in (3 * T, 10**6):
        got = patch_edges(metric, base, source, [edges[i] for i in shuffled], layer_norm, tokens)
        assert difference(got, expected[shuffled]) < 1e-5


# What is added to a stream, and what LayerNorm makes of it.


def test_a_frozen_scale_is_that_of_the_stream():
    norm = nn.LayerNorm(3, eps=0.0)
    norm.weight.data, norm.bias.data = torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 5, 0])
    x, sent = torch.tensor([[-2.0, 0, 2]]), torch.tensor([[5.0, 2, 2]])  # mean 0, variance 8 / 3; mean 3
    scale = (8 / 3) ** 0.5
    got = paths.add_with_frozen_scale(norm, x, sent)
    torch.testing.assert_close(got, torch.tensor([[0 / scale, -1 / scale * 2 + 5, 1 / scale * 3]]))
    scale = (2 / 3) ** 0.5  # of 3, 2, 4
    got = paths.add_exactly(norm, x, sent)
    torch.testing.assert_close(got, torch.tensor([[0 / scale, -1 / scale * 2 + 5, 1 / scale * 3]]))
