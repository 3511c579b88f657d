"""What each argument of the forward pass does: against surgery on the weights, removed tokens and hand-made numbers."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from tiny import CASES, DEVICES, SHAPES, B, C, D, H, L, T, V, case, difference, random_classifier, random_value, texts
from torch import Tensor

from model import GPT2, GPT2Classifier, GPT2Config, Trace, masks

TEXTS = texts(7, 11)


def classified(model, ids, lengths, **arguments):
    return model(ids, lengths, **arguments)


def classified_in_full(model, ids, lengths, **arguments):
    return model(ids, lengths, trace=Trace("resid_mid"), **arguments)


def stream(model, ids, lengths, **arguments):
    """The plain path where the arguments allow it."""
    return model.trunk(ids, lengths, **arguments)


def explicit_stream(model, ids, lengths, **arguments):
    """Attention written out, because its weights are asked for."""
    return model.trunk(ids, lengths, trace=Trace("weights"), **arguments)


def last_query(model, ids, lengths, **arguments):
    return model.trunk.norm(model.trunk.run(model.trunk.embed(ids, lengths), query=lengths - 1, **arguments))


def last_query_explicit(model, ids, lengths, **arguments):
    x = model.trunk.embed(ids, lengths)
    return model.trunk.norm(model.trunk.run(x, query=lengths - 1, trace=Trace("scores"), **arguments))


PATHS = (classified, classified_in_full, stream, explicit_stream, last_query, last_query_explicit)
ON_EVERY_PATH = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
EVERY_CASE = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="module")
def model(clf_reference):
    """The classifier with random weights; no test of this file changes it."""
    return clf_reference.ours.requires_grad_(True)


@pytest.fixture(scope="module", autouse=True)
def _unchanged(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    yield
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def columns(head: int) -> slice:
    return slice(head * D, (head + 1) * D)


def operated(model, layer: int, operate):
    """A copy of the model with one block changed."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        operate(changed.trunk.h[layer])
    return changed


# Against weight surgery.


@ON_EVERY_PATH
@pytest.mark.parametrize("value", [0.0, 0.3, 2.0, -1.0])
@pytest.mark.parametrize("layer", range(L))
def test_a_gated_head_equals_its_scaled_columns(model, path, layer, value):
    gate = torch.ones(1, L, H, 1)
    gate[0, layer, 2] = value
    surgery = operated(model, layer, lambda block: block.attn.c_proj.weight[:, columns(2)].mul_(value))
    assert difference(path(model, *TEXTS, head_gate=gate), path(surgery, *TEXTS)) < 1e-6
    assert difference(path(model, *TEXTS, head_gate=gate), path(model, *TEXTS)) > 1e-3


@ON_EVERY_PATH
def test_a_filled_head_equals_a_shifted_bias(model, path):
    fill = random_value("head_fill", (1, L, H, 1, D))

    def shift(block):
        weight = block.attn.c_proj.weight
        block.attn.c_proj.bias += weight[:, columns(3)] @ fill[0, 1, 3, 0]
        weight[:, columns(3)] = 0

    gate = masks.close_heads(model.config, [(1, 3)])
    got = path(model, *TEXTS, head_gate=gate, head_fill=fill)
    assert difference(got, path(operated(model, 1, shift), *TEXTS)) < 2e-6
    assert difference(got, path(model, *TEXTS, head_gate=gate)) > 1e-3


@ON_EVERY_PATH
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_gated_mlp_equals_its_scaled_weight_and_bias(model, path, value):
    gate = torch.ones(1, L, 1)
    gate[0, 2] = value

    def scale(block):
        block.mlp.c_proj.weight.mul_(value)
        block.mlp.c_proj.bias.mul_(value)

    got = path(model, *TEXTS, mlp_gate=gate)
    assert difference(got, path(operated(model, 2, scale), *TEXTS)) < 1e-6
    assert difference(got, path(model, *TEXTS)) > 1e-3


@ON_EVERY_PATH
def test_a_filled_mlp_emits_its_fill(model, path):
    gate, fill = torch.ones(1, L, 1), random_value("mlp_fill", (1, L, 1, C))
    gate[0, 0] = 0

    def emit(block):
        block.mlp.c_proj.weight.zero_()
        block.mlp.c_proj.bias.copy_(fill[0, 0, 0])

    expected = path(operated(model, 0, emit), *TEXTS)
    assert difference(path(model, *TEXTS, mlp_gate=gate, mlp_fill=fill), expected) < 1e-6


@ON_EVERY_PATH
def test_a_uniform_attn_gate_equals_scaled_columns(model, path):
    gate = torch.ones(1, L, H, 1, 1)
    gate[0, 1, 4] = 0.3
    surgery = operated(model, 1, lambda block: block.attn.c_proj.weight[:, columns(4)].mul_(0.3))
    assert difference(path(model, *TEXTS, attn_gate=gate), path(surgery, *TEXTS)) < 1e-6


# Against removed tokens, and numbers worked out by hand.


@pytest.mark.parametrize("hidden", [0, 4, 9])
def test_a_hidden_token_equals_a_removed_one(model, hidden):
    """Without position embeddings, a text in which nobody sees a token is the text without it."""
    blind = copy.deepcopy(model)
    torch.nn.init.zeros_(blind.trunk.wpe.weight)
    ids, _ = texts(T, T)
    keep = torch.arange(T) != hidden
    got = blind.trunk(ids, attn_mask=keep.expand(1, 1, 1, 1, T))[:, keep]
    assert difference(got, blind.trunk(ids[:, keep])) < 1e-6
    assert difference(got, blind.trunk(ids)[:, keep]) > 1e-3


@pytest.fixture
def two_tokens():
    """Width 2, one head: ln_1 turns token 0 into (1, -1) and token 1 into (-1, 1); q = k = that, v = 10 times that."""
    trunk = GPT2(GPT2Config(1, 1, 2, n_ctx=2, vocab_size=2, layer_norm_epsilon=0.0))
    with torch.no_grad():
        trunk.wte.weight.copy_(torch.tensor([[3.0, 1.0], [1.0, 3.0]]))
        trunk.wpe.weight.zero_()
        trunk.h[0].attn.c_attn.weight.copy_(torch.cat([torch.eye(2), torch.eye(2), 10 * torch.eye(2)]))
    return trunk.eval()


FIRST_KEY_OFF = torch.tensor([False, True]).view(1, 1, 1, 1, 2)
QUARTER_AND_HALF = torch.tensor([0.25, 0.5]).view(1, 1, 1, 1, 2)
SMALL = 1 / (1 + math.exp(2 * math.sqrt(2)))  # scores -2/sqrt(2) and 2/sqrt(2) -> the weight of the first token


BY_HAND = {  # arguments: the weights of the second query, and the first number of its z
    "plain": ({}, [SMALL, 1 - SMALL], -10 + 20 * SMALL),
    "a mask renormalises": ({"attn_mask": FIRST_KEY_OFF}, [0, 1], -10),
    "a gate does not": ({"attn_gate": FIRST_KEY_OFF.float()}, [SMALL, 1 - SMALL], -10 + 10 * SMALL),
    "a fractional gate": ({"attn_gate": QUARTER_AND_HALF}, [SMALL, 1 - SMALL], -5 + 7.5 * SMALL),
}


@pytest.mark.parametrize(("arguments", "weights", "z"), BY_HAND.values(), ids=BY_HAND)
def test_attention_of_two_tokens_by_hand(two_tokens, arguments, weights, z):
    trace = Trace("weights", "z")
    two_tokens(torch.tensor([[0, 1]]), trace=trace, **arguments)
    assert trace.weights[0][0, 0, 1].tolist() == pytest.approx(weights, rel=1e-5)
    assert trace.z[0][0, 0, 1].tolist() == pytest.approx([z, -z], rel=1e-5)


# Patching: another text's activations as fill.


def test_patching_everything_adds_what_the_other_text_added(model):
    (ids, _), (others, _) = texts(T, T), texts(T, T, seed=1)
    donor, trace, plain = Trace("z", "mlp", "resid_pre"), Trace("resid_pre"), Trace("resid_pre")
    model.trunk(others, trace=donor)
    closed = {"head_gate": torch.zeros(1, 1, 1, 1), "mlp_gate": torch.zeros(1, 1, 1)}
    model.trunk(ids, trace=trace, head_fill=donor.stacked("z"), mlp_fill=donor.stacked("mlp"), **closed)
    model.trunk(ids, trace=plain)
    added = [notebook.resid_pre[-1] - notebook.resid_pre[0] for notebook in (trace, donor, plain)]
    assert difference(added[0], added[1]) < 1e-5
    assert difference(added[2], added[1]) > 1e-2


@ON_EVERY_PATH
def test_a_text_patched_with_its_own_z_is_itself(model, path):
    donor = Trace("z", "mlp")
    model(*TEXTS, trace=donor)
    fills = {"head_fill": donor.stacked("z"), "mlp_fill": donor.stacked("mlp")}
    gates = {"head_gate": random_value("head_gate"), "mlp_gate": random_value("mlp_gate")}
    assert difference(path(model, *TEXTS, **fills, **gates), path(model, *TEXTS)) < 2e-6


# Neutral and broadcast arguments, on every path.

AXES = [(name, axis) for name, shape in SHAPES.items() for axis in (None, *range(len(shape)), "all")]
EVERY_AXIS = pytest.mark.parametrize(("name", "axis"), AXES)


def shrunk(shape: tuple[int, ...], axis) -> tuple[int, ...]:
    """The shape with this axis, or all, of size 1."""
    return tuple(1 if axis in (i, "all") else n for i, n in enumerate(shape))


def close_to(shape: tuple[int, ...], name: str, value: Tensor) -> dict[str, Tensor]:
    """The argument, and for a fill its gate: one that is half closed."""
    gate = name.replace("fill", "gate")
    return {name: value} if name == gate else {name: value, gate: torch.full(shape[:-1], 0.5)}


@EVERY_AXIS
def test_neutral_arguments_change_nothing(model, name, axis):
    shape = shrunk(SHAPES[name], axis)
    gate = name.replace("fill", "gate")
    neutral = {gate: torch.ones(shape[: len(SHAPES[gate])], dtype=torch.bool if name == "attn_mask" else torch.float)}
    if name != gate:
        neutral[name] = random_value(name, shape)
    for path in PATHS:
        assert difference(path(model, *TEXTS, **neutral), path(model, *TEXTS)) < 1e-6, path.__name__


@EVERY_AXIS
def test_an_axis_of_size_one_broadcasts(model, name, axis):
    shape = shrunk(SHAPES[name], axis)
    value = random_value(name, shape, seed=5)
    whole = value.expand(SHAPES[name]).contiguous()
    for path in PATHS:
        got = path(model, *TEXTS, **close_to(shape, name, value))
        assert difference(got, path(model, *TEXTS, **close_to(SHAPES[name], name, whole))) < 1e-6, path.__name__


@pytest.mark.parametrize("name", [None, *CASES])
def test_all_paths_agree_and_an_intervention_changes_the_output(model, name):
    arguments = case(name) if name else {}
    lengths = TEXTS[1]
    expected = explicit_stream(model, *TEXTS, **arguments)
    assert difference(stream(model, *TEXTS, **arguments), expected) < 1e-5
    at_last = expected[torch.arange(B), lengths - 1][:, None]
    assert difference(last_query(model, *TEXTS, **arguments), at_last) < 1e-5
    assert difference(last_query_explicit(model, *TEXTS, **arguments), at_last) < 1e-5
    logits = model.score(at_last[:, 0])
    assert difference(classified(model, *TEXTS, **arguments), logits) < 1e-5
    assert difference(classified_in_full(model, *TEXTS, **arguments), logits) < 1e-5
    assert (difference(logits, classified(model, *TEXTS)) > 1e-3) == bool(name)


@EVERY_CASE
def test_the_language_model_takes_the_same_arguments(lm, name):
    got = lm(*TEXTS, **case(name))
    assert got.shape == (B, T, V)
    assert difference(lm.read(last_query(lm, *TEXTS, **case(name)))[1, 0], got[1, -1]) < 1e-5
    assert difference(got, lm(*TEXTS)) > 1e-3


@pytest.mark.parametrize("path", [classified, classified_in_full])
@EVERY_CASE
def test_one_forward_runs_a_different_ablation_in_each_row(model, path, name):
    ids, arguments = texts(T)[0], case(name)
    rows = [path(model, ids, None, **{key: value[i : i + 1] for key, value in arguments.items()}) for i in range(B)]
    assert difference(path(model, ids.expand(B, -1), None, **arguments), torch.cat(rows)) < 1e-6
    assert difference(rows[0], rows[1]) > 1e-3


@pytest.mark.parametrize("split", range(L + 1))
@pytest.mark.parametrize("layers", [L, 1], ids=["full L axis", "L axis of size 1"])
def test_the_trunk_can_be_entered_at_any_layer(model, split, layers):
    arguments = {name: value[:, :layers] for name, value in case("all").items()}
    trunk, (ids, lengths) = model.trunk, TEXTS
    x = trunk.run(trunk.embed(ids, lengths), 0, split, **arguments)
    full = trunk.run(x, split, L, **arguments)
    expected = model(ids, lengths, trace=Trace("z"), **arguments)
    assert difference(model.read(trunk.norm(full), lengths), expected) < 1e-6
    last = trunk.run(x, split, query=lengths - 1, **arguments)
    assert difference(model.read(trunk.norm(last)), expected) < 1e-5


@pytest.mark.parametrize("start", range(L))
@pytest.mark.parametrize("name", ["none", "head_gate", "head_fill", "mlp_fill"])
def test_the_trunk_can_be_entered_where_its_heads_have_spoken(model, start, name):
    """With the z of one layer given, q, k and v of it play no part, and gates and fills act on that z."""
    trunk, (ids, lengths), arguments = model.trunk, TEXTS, {} if name == "none" else case(name)
    plain, last = Trace("z"), Trace("z")
    x = trunk.run(trunk.embed(ids, lengths), 0, start)
    trunk.run(x, start, trace=plain)
    trunk.run(x, start, start + 1, query=lengths - 1, trace=last)
    blind = operated(model, start, lambda block: block.attn.c_attn.weight.fill_(torch.nan)).trunk
    assert difference(blind.run(x, start, z=plain.z[0], **arguments), trunk.run(x, start, **arguments)) < 1e-6
    of_last = trunk.run(x, start, query=lengths - 1, **arguments)
    z = last.z[0] if start == L - 1 else plain.z[0]
    assert difference(blind.run(x, start, query=lengths - 1, z=z, **arguments), of_last) < 1e-5


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 1), (0, L + 1), (L + 1, None)])
def test_layers_that_do_not_exist_are_refused(model, start, stop):
    with pytest.raises(ValueError, match=f"<= {L}, got {start} and {stop or L}"):
        model.trunk.run(torch.zeros(B, T, C), start, stop)


# Causality and empty rows.


@EVERY_CASE
def test_no_argument_lets_the_future_in(model, name):
    ids, _ = texts(T, T)
    changed = ids.clone()
    changed[:, 6] = (ids[:, 6] + 1) % V
    arguments = case(name) | {"attn_mask": torch.ones(1, 1, 1, T, T, dtype=torch.bool)}
    before, after = model.trunk(ids, **arguments), model.trunk(changed, **arguments)
    assert torch.equal(before[:, :6], after[:, :6])
    assert difference(after[:, 6:], before[:, 6:]) > 1e-3


EMPTY = {
    "everywhere": torch.zeros(1, 1, 1, 1, 1, dtype=torch.bool),
    "one head": (torch.arange(L * H) != H + 2).view(1, L, H, 1, 1),
    "the last query": (torch.arange(T) < TEXTS[1][:, None] - 1)[:, None, None, :, None],
    "the first key": torch.arange(T).bool()[None, None, None, None],  # the first query has no other
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("where", EMPTY)
@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("device", DEVICES)
def test_a_query_without_keys_gives_zero_and_finite_gradients(model, where, dtype, traced, device):
    changed = copy.deepcopy(model).to(device, dtype)
    mask, gate = EMPTY[where].to(device), torch.ones(1, L, H, 1, device=device, requires_grad=True)
    ids, lengths = (text.to(device) for text in TEXTS)
    trace = Trace("z") if traced else None
    logits = changed(ids, lengths, attn_mask=mask, head_gate=gate, trace=trace)
    logits.float().logsumexp(-1).sum().backward()
    gradients = [gate.grad, *(parameter.grad for parameter in changed.parameters())]
    assert all(gradient.isfinite().all() for gradient in gradients)
    if traced:
        empty = ~(mask & torch.ones(T, T, device=device).tril().bool()).any(-1).expand(B, L, H, T)
        z = trace.stacked("z")
        assert empty.any()
        assert (z[empty] == 0).all()
        assert z[~empty].any(-1).all()


@ON_EVERY_PATH
def test_empty_rows_leave_the_projections_bias(model, path):
    """With no attention at all, only the bias of c_proj is left of it."""
    blind = copy.deepcopy(model)
    for block in blind.trunk.h:
        torch.nn.init.zeros_(block.attn.c_proj.weight)
    got = path(model, *TEXTS, attn_mask=EMPTY["everywhere"])
    assert difference(got, path(blind, *TEXTS)) < 1e-6


# Gradients.


@pytest.fixture(scope="module")
def double():
    """A small model in float64, for derivatives by finite differences."""
    return random_classifier(GPT2Config(2, 2, 6, n_ctx=5, vocab_size=11), ["a", "b", "c"]).double()


SMALL_SHAPES = {
    "attn_gate": (1, 2, 2, 3, 3),
    "head_gate": (1, 2, 2, 3),
    "head_fill": (1, 2, 2, 3, 3),
    "mlp_gate": (1, 2, 3),
    "mlp_fill": (1, 2, 3, 6),
}


@pytest.mark.parametrize("name", SMALL_SHAPES)
@pytest.mark.parametrize("traced", [True, False])
def test_gradients_of_every_gate_and_fill_equal_finite_differences(double, name, traced):
    ids, lengths = torch.tensor([[1, 2, 3]]), torch.tensor([3])
    value = random_value(name, SMALL_SHAPES[name]).double().requires_grad_(True)
    gate = {name.replace("fill", "gate"): torch.full(SMALL_SHAPES[name][:-1], 0.5).double()}

    def logits(value):
        arguments = (gate if name.endswith("fill") else {}) | {name: value}
        return double(ids, lengths, trace=Trace("weights") if traced else None, **arguments)

    assert torch.autograd.gradcheck(logits, (value,), eps=1e-5, atol=1e-7, rtol=1e-5)
    gradient = torch.autograd.grad(logits(value).logsumexp(-1).sum(), value)[0]
    reached = gradient.abs().amax(dim=tuple(i for i in range(value.dim()) if i != 1))
    assert (reached > 0).all()  # of every layer


@pytest.mark.parametrize("path", [classified, classified_in_full])
def test_head_importance_is_z_times_its_gradient(model, path):
    """Michel et al. 2019: dL/dgate = sum over D of z * dL/dz, where the gate is 1."""
    trace, gate = Trace("z"), torch.ones(B, L, H, T, requires_grad=True)
    z = torch.autograd.grad(model(*TEXTS, trace=trace).logsumexp(-1).sum(), trace.z)
    expected = torch.stack([(z * gradient).sum(-1) for z, gradient in zip(trace.z, z, strict=True)], dim=1)
    got = torch.autograd.grad(path(model, *TEXTS, head_gate=gate).logsumexp(-1).sum(), gate)[0]
    assert difference(got, expected) < 1e-5
    assert (got.abs().amax(dim=(0, 3)) > 0).all()


# No state.


def describe_settings(model) -> list:
    """Everything a module keeps besides its parameters: attributes, buffers, hooks."""
    skipped = {"_parameters", "_modules"}
    kept = [{name: vars(module)[name] for name in vars(module).keys() - skipped} for module in model.modules()]
    return copy.deepcopy(kept)


@EVERY_CASE
def test_a_call_leaves_nothing_behind(model, name):
    before, settings = model(*TEXTS), describe_settings(model)
    arguments = case(name)
    copies = {key: value.clone() for key, value in arguments.items()}
    model(*TEXTS, **arguments)
    model(*TEXTS, trace=Trace(*Trace.NAMES), **arguments)
    with pytest.raises(ValueError, match="head_gate"):
        model(*TEXTS, **arguments | {"head_gate": torch.zeros(1, L, H + 1, 1)})
    assert describe_settings(model) == settings
    assert torch.equal(model(*TEXTS), before)
    assert all(torch.equal(arguments[key], copies[key]) for key in copies)


def test_there_are_no_buffers_and_no_hooks(model):
    model(*TEXTS, **case("all"))
    assert list(model.buffers()) == []
    hooks = [vars(module)[name] for module in model.modules() for name in vars(module) if name.endswith("_hooks")]
    assert hooks
    assert not any(hooks)


# Dropout.


def dropping(model, dropout: float, attn_dropout: float):
    """The same weights with other rates, in training mode."""
    other = GPT2Classifier(replace(model.config, dropout=dropout, attn_dropout=attn_dropout), model.labels)
    other.load_state_dict(model.state_dict())
    return other.train()


@ON_EVERY_PATH
@pytest.mark.parametrize("name", [None, "all"])
def test_training_without_dropout_equals_evaluation(model, path, name):
    arguments = case(name) if name else {}
    assert torch.equal(path(dropping(model, 0.0, 0.0), *TEXTS, **arguments), path(model, *TEXTS, **arguments))


@ON_EVERY_PATH
@pytest.mark.parametrize("rates", [(0.5, 0.0), (0.0, 0.5)], ids=["dropout", "attn_dropout"])
def test_each_dropout_acts_in_training_alone_on_every_path(model, path, rates):
    noisy = dropping(model, *rates)
    torch.manual_seed(0)
    first, second = path(noisy, *TEXTS), path(noisy, *TEXTS)
    assert difference(first, second) > 1e-3
    assert difference(path(noisy.eval(), *TEXTS), path(model, *TEXTS)) < 1e-6


@pytest.mark.parametrize("query", [None, TEXTS[1] - 1], ids=["all queries", "last query"])
@pytest.mark.parametrize("names", [(), ("weights",)], ids=["fused", "explicit"])
def test_attention_dropout_acts_in_a_single_block_on_every_path(model, query, names):
    """One block alone, so that no other block's dropout can stand in for it."""
    noisy = dropping(model, 0.0, 0.5)
    x = model.trunk.embed(*TEXTS)
    torch.manual_seed(0)
    first, second = (noisy.trunk.run(x, 1, 2, query=query, trace=Trace(*names)) for _ in range(2))
    assert difference(first, second) > 1e-3


def test_dropout_acts_on_the_embeddings_and_on_what_each_sublayer_adds(model):
    noisy, trace = dropping(model, 0.5, 0.0).trunk, Trace("resid_pre", "resid_mid")
    torch.manual_seed(0)
    noisy(*TEXTS, trace=trace)
    added = [trace.resid_pre[0]]
    for before, middle, after in zip(trace.resid_pre, trace.resid_mid, trace.resid_pre[1:], strict=False):
        added += [middle - before, after - middle]
    for part in added:
        assert 0.4 < (part == 0).float().mean() < 0.6


@pytest.mark.parametrize("name", ["weights", "z"])
def test_attention_dropout_acts_after_the_recorded_weights(model, name):
    """In layer 0: the recorded weights are whole, and z, averaged over many draws, is what it is without dropout."""
    noisy, trace, clean = dropping(model, 0.0, 0.5), Trace("weights", "z"), Trace("weights", "z")
    ids = texts(T)[0].expand(2000, -1)
    torch.manual_seed(0)
    noisy.trunk(ids, trace=trace)
    model.trunk(ids[:1], trace=clean)
    got, expected = getattr(trace, name)[0].mean(0), getattr(clean, name)[0][0]
    spread = getattr(trace, name)[0].std(0).max()
    assert (spread > 0.1) == (name == "z")
    assert (got - expected).abs().max() <= (1e-6 if name == "weights" else 6 * spread / math.sqrt(2000))
