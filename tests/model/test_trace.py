"""The notebook of a forward pass: what it records, where, and that looking changes nothing."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny import CASES, B, C, D, H, L, T, case, difference, texts

from model import Trace

TEXTS = texts(7, 11)
SHAPES = {
    "resid_pre": (B, T, C),
    "q": (B, H, T, D),
    "k": (B, H, T, D),
    "v": (B, H, T, D),
    "scores": (B, H, T, T),
    "weights": (B, H, T, T),
    "z": (B, H, T, D),
    "resid_mid": (B, T, C),
    "mlp": (B, T, C),
}
EVERY_NAME = pytest.mark.parametrize("name", SHAPES)


@pytest.fixture(scope="module")
def model(clf_reference):
    return clf_reference.ours


def traced(model, *names: str, **arguments) -> Trace:
    trace = Trace(*names)
    model(*TEXTS, trace=trace, **arguments)
    return trace


def test_these_are_all_the_names():
    assert set(Trace.NAMES) == set(SHAPES)


@EVERY_NAME
def test_one_record_per_layer_of_the_right_shape(model, name):
    trace = traced(model, name)
    layers = L + 1 if name == "resid_pre" else L
    assert [tuple(record.shape) for record in getattr(trace, name)] == [SHAPES[name]] * layers
    assert trace.stacked(name).shape == (B, layers, *SHAPES[name][1:])
    assert torch.equal(trace.stacked(name)[:, 1], getattr(trace, name)[1])


@pytest.mark.parametrize("names", [*((name,) for name in SHAPES), tuple(SHAPES)], ids=str)
@pytest.mark.parametrize("arguments", [None, *CASES])
def test_looking_changes_nothing(model, names, arguments):
    interventions = case(arguments) if arguments else {}
    for call in (model, model.trunk):
        assert difference(call(*TEXTS, trace=Trace(*names), **interventions), call(*TEXTS, **interventions)) < 1e-6


@EVERY_NAME
def test_the_records_are_in_the_path(model, name):
    """A gradient reaches every record, and adding the record's tangent moves the loss as the gradient says."""
    trace = Trace(name)
    model.requires_grad_(True)
    loss = model(*TEXTS, trace=trace).logsumexp(-1).sum()
    gradients = torch.autograd.grad(loss, getattr(trace, name))
    assert all(gradient.any() for gradient in gradients)


@EVERY_NAME
def test_a_pass_that_recomputes_records_each_thing_once_and_leaves_nothing_behind(model, name):
    """With dropout, gradients of a loss on the records included: they are those of a plain pass."""
    noisy = type(model)(replace(model.config, dropout=0.3, attn_dropout=0.3), model.labels).train()
    noisy.load_state_dict(model.state_dict())
    before = {module: set(vars(module)) for module in noisy.modules()}
    results = []
    for recompute in (False, True):
        trace = Trace(name)
        torch.manual_seed(5)
        logits = noisy(*TEXTS, trace=trace, recompute=recompute)
        loss = logits.logsumexp(-1).sum() + sum(record.square().mean() for record in getattr(trace, name))
        gradients = torch.autograd.grad(loss, [*noisy.parameters(), *getattr(trace, name)])
        assert len(getattr(trace, name)) == (L + 1 if name == "resid_pre" else L)
        results.append([logits, *gradients])
    for plain, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-5, atol=1e-6)
    assert {module: set(vars(module)) for module in noisy.modules()} == before


def test_the_gradient_of_z_is_what_a_patch_does(model):
    """Finite differences: z is moved by a fill, where its gate is closed."""
    double = copy.deepcopy(model).double()
    trace = Trace("z")
    gradient = torch.autograd.grad(double(*TEXTS, trace=trace).logsumexp(-1).sum(), trace.z)[1]
    direction, step = torch.randn(B, H, T, D, generator=torch.Generator().manual_seed(0)).double(), 1e-6

    def loss(sign):
        fill = trace.stacked("z").detach().clone()
        fill[:, 1] += sign * step * direction
        gate = torch.ones(1, L, 1, 1)
        gate[:, 1] = 0
        return double(*TEXTS, head_gate=gate, head_fill=fill).logsumexp(-1).sum()

    slope = (loss(+1) - loss(-1)) / (2 * step)
    assert slope.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-6)


# What is recorded is what flows on.


def test_the_stream_adds_up(model):
    """resid_pre + attention = resid_mid, and resid_mid + mlp = the next resid_pre, whatever the gates."""
    trace = traced(model, "resid_pre", "resid_mid", "mlp", "z", **case("all"))
    for layer, block in enumerate(model.trunk.h):
        attention = block.attn.c_proj(trace.z[layer].transpose(1, 2).reshape(B, T, C))
        assert difference(trace.resid_pre[layer] + attention, trace.resid_mid[layer]) < 1e-6
        assert difference(trace.resid_mid[layer] + trace.mlp[layer], trace.resid_pre[layer + 1]) < 1e-6


def test_the_last_resid_pre_enters_the_final_norm(model):
    trace = Trace("resid_pre")
    out = model.trunk(*TEXTS, trace=trace)
    assert torch.equal(model.trunk.ln_f(trace.resid_pre[-1]), out)
    assert torch.equal(trace.resid_pre[0], model.trunk.embed(*TEXTS))


def test_z_and_mlp_are_recorded_after_gate_and_fill(model):
    arguments = {name: value for name, value in case("all").items() if not name.startswith("attn")}
    trace, plain = traced(model, "z", "mlp", **arguments), traced(model, "z")
    gate, fill = arguments["head_gate"][:, 0, :, :, None], arguments["head_fill"][:, 0]
    assert difference(trace.z[0], gate * plain.z[0] + (1 - gate) * fill) < 1e-6  # layer 0: no gate acted before it
    closed = traced(model, "mlp", mlp_gate=torch.zeros(1, 1, 1), mlp_fill=arguments["mlp_fill"])
    assert torch.equal(closed.stacked("mlp"), arguments["mlp_fill"])


def test_weights_are_recorded_after_the_mask_and_before_the_gate(model):
    mask, gate = case("attn_mask")["attn_mask"], case("attn_gate")["attn_gate"]
    trace, plain = traced(model, "weights", "v", "z", attn_mask=mask, attn_gate=gate), traced(model, "weights")
    allowed = mask[:, 0] & torch.ones(T, T).tril().bool()
    kept = plain.weights[0] * allowed  # layer 0: softmax over fewer keys = the weights left, scaled to sum 1
    renormalised = (kept / kept.sum(-1, keepdim=True)).nan_to_num(0)
    assert difference(trace.weights[0], renormalised) < 1e-5
    assert difference((trace.weights[0] * gate[:, 0]) @ trace.v[0], trace.z[0]) < 1e-6


def test_weights_are_rows_of_probabilities_over_the_past(model):
    weights = traced(model, "weights").stacked("weights")
    assert torch.allclose(weights.sum(-1), torch.ones(B, L, H, T))
    assert (weights >= 0).all()
    assert not weights.triu(1).any()


def test_scores_are_scaled_products_of_q_and_k(model):
    trace = traced(model, "q", "k", "scores", **case("attn_mask"))
    b, layer, head, query, key = 1, 2, 3, 5, 8  # a pair that the causal mask hides: scores come before it
    score = sum(trace.q[layer][b, head, query, d] * trace.k[layer][b, head, key, d] for d in range(D)) / D**0.5
    assert trace.scores[layer][b, head, query, key].item() == pytest.approx(score.item(), rel=1e-5)


def test_q_k_and_v_come_from_the_normed_stream(model):
    trace = traced(model, "resid_pre", "q", "k", "v")
    for layer, block in enumerate(model.trunk.h):
        q, k, v = block.attn.c_attn(block.ln_1(trace.resid_pre[layer])).chunk(3, dim=-1)
        for got, expected in ((trace.q, q), (trace.k, k), (trace.v, v)):
            head_2 = expected[..., 2 * D : 3 * D]
            assert difference(got[layer][:, 2], head_2) < 1e-6


def test_part_of_the_layers_records_those(model):
    full, part = Trace("z", "resid_pre"), Trace("z", "resid_pre")
    model(*TEXTS, trace=full)
    model.trunk.run(full.resid_pre[1], 1, 2, trace=part)
    assert len(part.z) == 1
    assert difference(part.z[0], full.z[1]) < 1e-6
    assert difference(part.resid_pre[1], full.resid_pre[2]) < 1e-6


def test_the_last_query_path_records_that_query(model):
    full, last = Trace("z", "weights", "resid_mid"), Trace("z", "weights", "resid_mid")
    ids, lengths = TEXTS
    model.trunk(ids, lengths, trace=full, **case("all"))
    model.trunk.run(model.trunk.embed(ids, lengths), query=lengths - 1, trace=last, **case("all"))
    rows = torch.arange(B)
    assert difference(last.z[-1][:, :, 0], full.z[-1][rows, :, lengths - 1]) < 1e-5
    assert difference(last.weights[-1][:, :, 0], full.weights[-1][rows, :, lengths - 1]) < 1e-5
    assert difference(last.resid_mid[-1][:, 0], full.resid_mid[-1][rows, lengths - 1]) < 1e-5
    assert difference(last.z[0], full.z[0]) < 1e-6
    with pytest.raises(ValueError, match="without `query`"):
        last.stacked("z")


# Misuse.


@pytest.mark.parametrize("name", ["pattern", "Z", "hook_z", "logits"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}'.*resid_pre"):
        Trace("z", name)


@pytest.mark.parametrize("names", [("z",), ()], ids=str)
def test_a_used_notebook_is_refused(model, names):
    trace = traced(model, *names)
    with pytest.raises(ValueError, match="trace"):
        model(*TEXTS, trace=trace)
    assert all(len(records) == L for records in trace.records.values())


@pytest.mark.parametrize("read", [lambda trace: trace.z, lambda trace: trace.stacked("z")])
def test_what_was_not_asked_for_is_an_attribute_error(model, read):
    with pytest.raises(AttributeError, match="'z'"):
        read(traced(model, "weights"))
