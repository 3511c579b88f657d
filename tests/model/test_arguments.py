"""What the forward pass takes and refuses; what stands in the padding; and the type of what comes out."""

import copy
import re

import pytest
import torch
from tiny import CASES, SHAPES, B, C, D, H, K, L, T, V, case, difference, random_value, texts
from torch.nn import functional as F

from model import Trace

TEXTS = texts(7, 11)


@pytest.fixture(scope="module", params=["classifier", "language model", "trunk"])
def call(request, clf_reference, lm_reference):
    """One of the three things that take interventions."""
    ours = {"classifier": clf_reference.ours, "language model": lm_reference.ours, "trunk": lm_reference.ours.trunk}
    return ours[request.param]


# Refused interventions.


def with_gate(name: str, value) -> dict:
    """Return the argument, and for a fill its gate too."""
    open_gate = torch.ones([1] * (len(SHAPES[name]) - 1))
    return {name: value} | ({name.replace("fill", "gate"): open_gate} if name.endswith("fill") else {})


def described(value) -> str:
    """What a message says of a value."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


def wrong_values():
    """(argument, a value that it cannot have): another shape, another kind of dtype, and no tensor."""
    for name, shape in SHAPES.items():
        dtype, other_dtype = (torch.bool, torch.float32) if name == "attn_mask" else (torch.float32, torch.bool)
        shapes = [shape[1:], (*shape, 1), (), (*shape[:-1], 0)]
        shapes += [(*shape[:axis], shape[axis] + 1, *shape[axis + 1 :]) for axis in range(len(shape))]
        values = [torch.ones(shape, dtype=dtype) for shape in shapes]
        values += [torch.ones(shape, dtype=wrong) for wrong in (other_dtype, torch.int64, torch.uint8)]
        for value in (*values, 0.5, True, [[1.0]], "all"):
            yield pytest.param(name, value, id=f"{name} {described(value)}")


@pytest.mark.parametrize(("name", "value"), list(wrong_values()))
def test_a_wrong_value_is_refused_by_name(call, name, value):
    kind = "bool" if name == "attn_mask" else "floating"
    expected, got = re.escape(str(SHAPES[name])), re.escape(described(value))
    with pytest.raises(ValueError, match=rf"^{name}: expected a {kind} tensor .*{expected}.*; got {got}$"):
        call(*TEXTS, **with_gate(name, value))


@pytest.mark.parametrize("name", ["head_fill", "mlp_fill"])
def test_a_fill_without_its_gate_is_refused(call, name):
    with pytest.raises(ValueError, match=f"{name} .*{name.replace('fill', 'gate')}"):
        call(*TEXTS, **{name: random_value(name)})


@pytest.mark.parametrize("name", ["head_mask", "attention_mask", "mask"])
@pytest.mark.parametrize("value", [torch.ones(1), None], ids=["tensor", "None"])
def test_an_unknown_argument_is_refused_by_name(call, name, value):
    with pytest.raises(TypeError, match=name):
        call(*TEXTS, **{name: value})


def test_none_means_not_given(call):
    assert torch.equal(call(*TEXTS, **dict.fromkeys(SHAPES)), call(*TEXTS))


def test_part_of_the_layers_wants_the_full_l_axis(clf_reference):
    trunk = clf_reference.ours.trunk
    with pytest.raises(ValueError, match=r"^mlp_gate: expected"):
        trunk.run(trunk.embed(*TEXTS), 1, 3, mlp_gate=torch.ones(1, 2, 1))


# Refused tokens and lengths.


@pytest.mark.parametrize(
    "ids",
    [torch.zeros(2, 11), torch.zeros(2, 11, dtype=torch.int32), torch.zeros(11, dtype=torch.int64),
     torch.tensor(3), torch.zeros(1, 2, 11, dtype=torch.int64), torch.zeros(2, 14, dtype=torch.int64),
     torch.zeros(2, 0, dtype=torch.int64), [[1, 2]]],
    ids=described,
)  # fmt: skip
def test_wrong_ids_are_refused(call, ids):
    got = re.escape(described(ids))
    with pytest.raises(ValueError, match=rf"^ids: expected int64 \(B, T\) with 1 <= T <= 13, got {got}"):
        call(ids)


@pytest.mark.parametrize(
    "lengths",
    [torch.tensor([7.0, 11.0]), torch.tensor([7, 11], dtype=torch.int32), torch.tensor([True, True]),
     torch.tensor([7]), torch.tensor([7, 11, 3]), torch.tensor([[7], [11]]), torch.tensor(7), [7, 11]],
    ids=described,
)  # fmt: skip
def test_lengths_of_another_type_or_shape_are_refused(call, lengths):
    with pytest.raises(ValueError, match=rf"^lengths: expected int64 \(2,\), got {re.escape(described(lengths))}"):
        call(TEXTS[0], lengths)


@pytest.mark.parametrize("lengths", [(0, 11), (7, 12), (-1, 11), (7, 0)], ids=str)
def test_lengths_out_of_range_are_refused(call, lengths):
    with pytest.raises(ValueError, match=rf"^lengths: expected 1 \.\. 11 .*got {re.escape(str(list(lengths)))}"):
        call(TEXTS[0], torch.tensor(lengths))


# Padding.


def loss_and_gradients(model, ids, lengths, target):
    """Cross-entropy of the classifier, and its gradient in every parameter."""
    changed = copy.deepcopy(model).requires_grad_(True)
    logits = changed(ids, lengths)
    loss = F.cross_entropy(logits, torch.full((len(ids),), target))
    return logits, loss, torch.autograd.grad(loss, list(changed.parameters()))


@pytest.mark.parametrize("pad", [0, 7, V - 1, V, 50256, -1])
@pytest.mark.parametrize("pads", [1, 2, 3, 8])
def test_padding_changes_neither_logits_nor_loss_nor_gradients(clf_reference, pad, pads):
    ids, lengths = texts(5)
    padded = F.pad(ids, (0, pads), value=pad)
    expected = loss_and_gradients(clf_reference.ours, ids, None, target=1)
    got = loss_and_gradients(clf_reference.ours, padded, lengths, target=1)
    assert difference(got[0], expected[0]) < 1e-6
    assert difference(got[1], expected[1]) < 1e-6
    scale = max(gradient.abs().max() for gradient in expected[2])
    assert max((a - b).abs().max() for a, b in zip(got[2], expected[2], strict=True)) < 1e-6 * scale


def test_a_batch_gives_each_text_what_it_gets_alone(clf_reference):
    ids, lengths = texts(7, 1, 11, 5, 2)
    alone = [clf_reference.ours(ids[i : i + 1, :n]) for i, n in enumerate(lengths.tolist())]
    assert difference(clf_reference.ours(ids, lengths), torch.cat(alone)) < 1e-6


def test_the_last_real_token_is_read_even_where_it_looks_like_padding(clf_reference):
    """The padding token may also end a text: what counts are the lengths."""
    ids, lengths = torch.tensor([[5, 3, 0, 0, 0]]), torch.tensor([3])
    logits = clf_reference.ours(ids, lengths)
    assert difference(logits, clf_reference.ours(ids[:, :3])) < 1e-6
    assert difference(logits, clf_reference.ours(ids, lengths - 1)) > 1e-3


@pytest.mark.parametrize("name", [None, *CASES])
def test_no_lengths_mean_full_rows(call, name):
    arguments, ids = case(name) if name else {}, TEXTS[0]
    assert torch.equal(call(ids, **arguments), call(ids, torch.full((B,), T), **arguments))


# Type and shape of the output.

OUTPUTS = {"classifier": (B, K), "language model": (B, T, V), "trunk": (B, T, C)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("gates", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_output_type_and_shape_follow_from_the_model_alone(call, request, dtype, gates):
    changed = copy.deepcopy(call).to(dtype)
    shape = OUTPUTS[request.node.callspec.params["call"]]
    for name in CASES:
        cast = {k: v if v.dtype == torch.bool else v.to(gates) for k, v in case(name).items()}
        for trace in (None, Trace(*Trace.NAMES)):
            got = changed(*TEXTS, trace=trace, **cast)
            assert (got.dtype, got.shape) == (dtype, shape), name
            assert got.isfinite().all(), name


@pytest.mark.parametrize("gates", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_gates_of_any_floating_type_do_the_same(call, gates):
    """Powers of two are exact in all of them."""
    gate, fill = torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1, 1), 0.25)
    expected = call(*TEXTS, head_gate=gate, head_fill=fill)
    assert torch.equal(call(*TEXTS, head_gate=gate.to(gates), head_fill=fill.to(gates)), expected)


@pytest.mark.parametrize("traced", [True, False])
def test_interventions_work_under_autocast(clf_reference, traced):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = clf_reference.ours(*TEXTS)
        for name in CASES:
            got = clf_reference.ours(*TEXTS, trace=Trace("z") if traced else None, **case(name))
            assert (got.dtype, got.shape) == (plain.dtype, plain.shape), name
            full = clf_reference.ours(*TEXTS, **case(name))
            assert difference(got.float(), full.float()) < 0.1, name


# Positions that do not exist.


@pytest.mark.parametrize("lengths", [(0, 4), (12, 4), (4, -1)], ids=str)
def test_reading_where_there_is_no_token_is_refused(clf_reference, lengths):
    ids, _ = TEXTS
    model = clf_reference.ours
    with pytest.raises(ValueError, match=r"lengths: expected 1 \.\. 11 real tokens"):
        model.read(model.trunk(ids), torch.tensor(lengths))


@pytest.mark.parametrize(
    "query", [torch.tensor([11, 1]), torch.tensor([-1, 1]), torch.tensor([1]), torch.tensor([1.0, 2.0])]
)
def test_a_query_that_does_not_exist_is_refused(clf_reference, query):
    trunk = clf_reference.ours.trunk
    with pytest.raises(ValueError, match="expected"):
        trunk.run(trunk.embed(TEXTS[0]), query=query)


@pytest.mark.parametrize(
    "z", [torch.zeros(B, H, T, D + 1), torch.zeros(1, H, T, D), torch.zeros(B, H, T, D).long(), 0.0]
)
def test_what_the_heads_emit_has_to_have_their_shape(clf_reference, z):
    trunk = clf_reference.ours.trunk
    with pytest.raises(ValueError, match=r"z: expected a floating tensor \(B, H, Q, D\) = \(2, 5, 11, 7\), got"):
        trunk.run(trunk.embed(TEXTS[0]), z=z)


@pytest.mark.parametrize("name", ["attn_mask", "attn_gate"])
def test_what_acts_before_the_output_of_the_heads_is_refused_beside_it(clf_reference, name):
    trunk = clf_reference.ours.trunk
    with pytest.raises(ValueError, match=f"{name}: with z, attention has been computed already"):
        trunk.run(trunk.embed(TEXTS[0]), z=torch.zeros(B, H, T, D), **{name: random_value(name)})


def test_arguments_on_another_device_are_refused_by_name(clf_reference):
    with pytest.raises(ValueError, match="head_gate: expected a tensor on cpu like the model, got one on meta"):
        clf_reference.ours(*TEXTS, head_gate=torch.ones(1, L, 1, 1, device="meta"))


@pytest.mark.parametrize(
    "argument", [{"start": 1}, {"stop": 1}, {"query": torch.tensor([1, 1])}, {"z": torch.zeros(1)}], ids=str
)
def test_what_enters_part_way_is_no_argument_of_a_whole_pass(call, argument):
    with pytest.raises(TypeError, match=next(iter(argument))):
        call(*TEXTS, **argument)
