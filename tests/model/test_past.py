"""Keys and values of tokens that come before: what follows them is as if all had run at once."""

import pytest
import torch
from tiny import H, L, T, difference, random_value, texts

from model import Trace

P, ROWS = 4, 2
IDS, LENGTHS = texts(7, 11)
BEFORE, AFTER = IDS[:1, :P].expand(ROWS, P), IDS[:, P:]


@pytest.fixture(scope="module")
def model(lm_reference):
    return lm_reference.ours


def run_before(model, rows: slice = slice(1), **gates) -> Trace:
    past = Trace("k", "v")
    model.trunk(BEFORE[rows], trace=past, **gates)
    return past


def run_after(model, past: Trace, query=None, trace=None, **gates):
    x = model.trunk.embed(AFTER, LENGTHS - P, first=P)
    return model.trunk.norm(model.trunk.run(x, query=query, trace=trace, past=past, **gates))


def whole(model, trace=None, **gates):
    return model.trunk(torch.cat([BEFORE, AFTER], dim=1), LENGTHS, trace=trace, **gates)


@pytest.mark.parametrize("rows", [slice(1), slice(None)], ids=["of all texts", "of each text"])
def test_what_follows_is_as_if_all_ran_at_once(model, rows):
    after, expected = run_after(model, run_before(model, rows)), whole(model)
    for i, length in enumerate(LENGTHS):
        assert difference(after[i, : length - P], expected[i, P:length]) < 1e-6
    assert difference(after, run_after(model, run_before(model), trace=Trace("scores", "weights"))) < 1e-6


def test_texts_after_other_pasts_differ(model):
    past = Trace("k", "v")
    model.trunk(BEFORE[:1].flip(1), trace=past)
    assert difference(run_after(model, past), run_after(model, run_before(model))) > 1e-2
    unshifted = model.trunk.norm(model.trunk.run(model.trunk.embed(AFTER, LENGTHS - P), past=run_before(model)))
    assert difference(unshifted, run_after(model, run_before(model))) > 1e-2


def test_with_a_query_it_is_the_row_of_that_query(model):
    past, query = run_before(model), LENGTHS - P - 1
    expected = run_after(model, past)[torch.arange(ROWS), query]
    assert difference(run_after(model, past, query=query)[:, 0], expected) < 1e-6


def test_a_gate_acts_on_both_parts(model):
    gates = {"head_gate": random_value("head_gate", (1, L, H, 1)), "mlp_gate": random_value("mlp_gate", (1, L, 1))}
    gates["head_fill"] = random_value("head_fill", (1, L, H, 1, model.config.head_width))
    after, expected = run_after(model, run_before(model, **gates), **gates), whole(model, **gates)
    for i, length in enumerate(LENGTHS):
        assert difference(after[i, : length - P], expected[i, P:length]) < 1e-6
    assert difference(run_after(model, run_before(model), **gates), after) > 1e-3  # the past under another gate


def test_the_weights_reach_back(model):
    trace, plain = Trace("weights"), Trace("weights")
    run_after(model, run_before(model), trace=trace)
    whole(model, trace=plain)
    assert trace.weights[1].shape == (ROWS, H, T - P, T)
    assert difference(trace.weights[1][1], plain.weights[1][1, :, P:]) < 1e-6


def test_gradients_reach_the_past(model):
    past = run_before(model)
    run_after(model, past).sum().backward(inputs=past.k)
    assert all(k.grad is not None and k.grad.abs().sum() > 0 for k in past.k)


@pytest.mark.parametrize("name", ["attn_mask", "attn_gate"])
def test_masks_name_no_past_tokens(model, name):
    with pytest.raises(ValueError, match=f"{name}: they name no past tokens"):
        run_after(model, run_before(model), **{name: random_value(name, (1, 1, 1, 1, 1))})


def test_what_is_no_past_is_refused(model):
    with pytest.raises(ValueError, match="past: expected k and v of 3 layers"):
        run_after(model, Trace("k"))
    keys_alone = Trace("k")
    model.trunk(BEFORE[:1], trace=keys_alone)
    with pytest.raises(ValueError, match="got 0 of v"):
        run_after(model, keys_alone)
    three = Trace("k", "v")
    model.trunk(BEFORE[:1].expand(3, P), trace=three)
    with pytest.raises(ValueError, match="1 or 2"):
        run_after(model, three)
    part = Trace("k", "v")
    model.trunk.run(model.trunk.embed(BEFORE[:1]), 1, trace=part)
    with pytest.raises(ValueError, match="got 2 of k"):
        run_after(model, part)


def test_the_context_ends_where_it_ends(model):
    room = model.config.n_ctx - P
    with pytest.raises(ValueError, match=f"1 <= T <= {room}"):
        model.trunk.embed(torch.ones(1, room + 1, dtype=torch.int64), first=P)
    assert model.trunk.embed(torch.ones(1, room, dtype=torch.int64), first=P).shape[1] == room
