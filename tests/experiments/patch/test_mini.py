"""The identities of patching on the embedded network, whose weights were learnt: there they must hold, too."""

import numpy as np
import pytest
import torch

from experiments.patch.cells import HEAD_KINDS, KINDS, Cell, Metric, mix_z, patch_all_heads, patch_cells, record
from experiments.patch.estimates import estimate_cells, integrate_cells
from experiments.patch.paths import ADD, choose_receivers, edges_from, list_nodes, patch_edges, send, write_difference
from model import Tokenizer, load_classifier, load_lm, masks

pytestmark = pytest.mark.slow
CLEAN, CORRUPT = "I was so happy to see her at the door", "I was so angry to see her at the door"
TOKENS = 4096


@pytest.fixture(scope="module", params=["classifier", "language model"])
def runs(request):
    """A metric, and the runs of two texts that differ in one word: the clean and the corrupt one."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.load("gpt2-mini")
    model = load_lm("gpt2-mini") if request.param == "language model" else load_classifier("gpt2-mini", list("abc"))
    if request.param == "classifier":
        torch.nn.init.normal_(model.score.weight, std=0.3)
    metric = Metric.between(model.eval().requires_grad_(False), (1, 2))
    texts = [tokenizer.encode(text) for text in (CLEAN, CORRUPT)]
    assert len(texts[0]) == len(texts[1])
    clean, corrupt = (record(metric.trunk, ids) for ids in texts)
    assert abs(metric.read(clean.resid_pre[-1]) - metric.read(corrupt.resid_pre[-1])) > 0.01  # there is a gap
    return metric, clean, corrupt, texts


def test_the_whole_stream_of_any_layer_is_the_other_run(runs):
    metric, clean, _, _ = runs
    whole = metric.read(clean.resid_pre[-1])
    for layer, x in enumerate(clean.resid_pre):
        torch.testing.assert_close(metric.finish(x, layer), whole, atol=1e-5, rtol=1e-5)


def test_all_heads_make_the_other_run_where_the_last_token_is_the_same(runs):
    metric, clean, corrupt, _ = runs
    assert patch_all_heads(metric, corrupt, clean) == pytest.approx(float(metric.read(clean.resid_pre[-1])), abs=1e-4)


def test_pattern_and_values_are_z_and_queries_and_keys_are_the_pattern(runs):
    metric, clean, corrupt, _ = runs
    for layer in range(metric.trunk.config.n_layer):
        attn, heads = metric.trunk.h[layer].attn, torch.arange(metric.trunk.config.n_head)
        everywhere = torch.ones(len(heads), clean.resid_pre[0].shape[1], dtype=torch.bool)
        z, parts, pattern, q_and_k = (
            mix_z(attn, corrupt, clean, layer, heads, everywhere, set(kinds))
            for kinds in (["z"], ["pattern", "v"], ["pattern"], ["q", "k"])
        )
        torch.testing.assert_close(parts, z, atol=1e-5, rtol=0)
        torch.testing.assert_close(pattern, q_and_k, atol=1e-5, rtol=0)


def test_integrated_estimates_sum_to_the_joint_patch_and_first_order_ones_are_gate_gradients(runs):
    metric, clean, corrupt, texts = runs
    joint = patch_all_heads(metric, corrupt, clean) - float(metric.read(corrupt.resid_pre[-1]))
    assert float(integrate_cells(metric, texts[1], clean, TOKENS)["z"].sum()) == pytest.approx(
        joint, abs=2e-3 * abs(joint)
    )
    config, T = metric.trunk.config, len(texts[0])
    gate = torch.ones(1, config.n_layer, config.n_head, T, requires_grad=True)
    stream = metric.trunk.run(corrupt.resid_pre[0], head_gate=gate, head_fill=clean.stacked("z"))
    (gradient,) = torch.autograd.grad(metric.read(stream).sum(), gate)
    torch.testing.assert_close(estimate_cells(metric, texts[1], clean)["z"], -gradient[0], atol=1e-5, rtol=0)


def test_all_ways_together_are_the_activation_patch(runs):
    metric, clean, corrupt, _ = runs
    config = metric.trunk.config
    for node in list_nodes(config)[1:-1:5]:
        to = choose_receivers([edges_from(node, config)], config, torch.device("cpu"))
        sent = write_difference(metric.trunk, node, corrupt, clean)
        all_ways = send(metric, corrupt.resid_pre[0], sent, to, (0, config.n_layer), ADD["recomputed"])
        gates = {"mlp_gate": masks.close_mlps(config, [node.layer]), "mlp_fill": clean.stacked("mlp")}
        if node.kind == "head":
            gate = masks.close_heads(config, [(node.layer, node.head)])
            gates = {"head_gate": gate, "head_fill": clean.stacked("z")}
        patched = metric.read(metric.trunk.run(corrupt.resid_pre[0], **gates))
        torch.testing.assert_close(all_ways, patched, atol=2e-5, rtol=0)


def test_the_batching_changes_nothing_and_neither_does_the_neighbour(runs):
    metric, clean, corrupt, texts = runs
    config, T = metric.trunk.config, len(texts[0])
    cells = [Cell(kind, layer, None, at) for kind in KINDS[:4] for layer in range(config.n_layer) for at in range(T)]
    cells += [Cell(kind, layer, 3, None) for kind in HEAD_KINDS for layer in range(config.n_layer)]
    together, alone = (patch_cells(metric, corrupt, clean, cells, tokens) for tokens in (TOKENS, 1))
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    edges = edges_from(list_nodes(config)[4], config)
    together, alone = (
        patch_edges(metric, corrupt, clean, edges, "frozen", tokens) for tokens in (TOKENS, len(texts[0]))
    )
    np.testing.assert_allclose(together, alone, rtol=1e-5)
