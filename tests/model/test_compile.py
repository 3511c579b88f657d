"""torch.compile(fullgraph=True): gates are inputs of one graph, not part of it."""

import pytest
import torch
from tiny import CASES, H, L, case, difference, random_value, texts
from torch._dynamo.testing import CompileCounter

from model import Trace

TEXTS = texts(7, 11)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def other_values(arguments: dict) -> dict:
    """The same arguments with other numbers in them."""
    return {name: ~value if value.dtype == torch.bool else 1 - 0.5 * value for name, value in arguments.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, *CASES])
def test_one_graph_serves_every_value(clf_reference, name):
    model, arguments = clf_reference.ours, case(name) if name else {}
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    swapped = TEXTS[0].flip(0), TEXTS[1].flip(0)
    for texts_, values in ((TEXTS, arguments), (TEXTS, other_values(arguments)), (swapped, arguments)):
        assert difference(compiled(*texts_, **values), model(*texts_, **values)) < 1e-5
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", [None, "head_gate"])
def test_one_dynamic_graph_serves_every_shape(clf_reference, name):
    """Training compiles so: batches come in dozens of shapes, and one graph each would be no gain."""
    model, counter = clf_reference.ours, CompileCounter()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    arguments = {name: random_value(name, (1, L, H, 1))} if name else {}
    for lengths in [(7, 11), (5, 3, 2), (13, 1, 4, 4, 9), (6, 6), (2, 2, 8, 2)]:
        assert difference(compiled(*texts(*lengths), **arguments), model(*texts(*lengths), **arguments)) < 1e-5
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attn_mask", "head_fill"])
def test_gradients_through_a_compiled_graph_equal_eager_ones(clf_reference, name):
    model, arguments = clf_reference.ours.requires_grad_(True), case(name)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for value in (value for value in arguments.values() if value.is_floating_point()):
        value.requires_grad_(True)
    leaves = [value for value in arguments.values() if value.requires_grad] or list(model.parameters())
    losses = [call(*TEXTS, **arguments).logsumexp(-1).sum() for call in (compiled, model)]
    for got, expected in zip(*(torch.autograd.grad(loss, leaves) for loss in losses), strict=True):
        assert difference(got, expected) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, "attn_mask", "head_gate"])
def test_a_traced_pass_compiles(lm_reference, name):
    model, arguments = lm_reference.ours, case(name) if name else {}

    def traced(ids, lengths, arguments):
        trace = Trace("z", "weights")
        logits = model(ids, lengths, trace=trace, **arguments)
        return logits, trace.stacked("z"), trace.stacked("weights")

    got = torch.compile(traced, fullgraph=True, backend="aot_eager")(*TEXTS, arguments)
    for compiled, eager in zip(got, traced(*TEXTS, arguments), strict=True):
        assert difference(compiled, eager) < 1e-5
    assert got[1].shape[1] == L


def test_a_wrong_shape_is_refused_by_a_compiled_model_too(clf_reference):
    compiled = torch.compile(clf_reference.ours, backend="eager")
    with pytest.raises(ValueError, match="head_gate: expected"):
        compiled(*TEXTS, head_gate=torch.ones(1, 2, 1, 1))
