"""One step of a fine-tuning against one plain backward pass over the whole batch."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import DEVICES
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

from data import bucketed
from experiments.train.steps import Step, make_forward
from lab.device import Device
from model import GPT2Classifier, GPT2Config, masks

CPU = Device(torch.device("cpu"), "fp32")
CLASS_WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0])
LENGTHS = (3, 13, 1, 7, 7, 2, 11)
NO_CLIP = 1e9


def batch_of(lengths=LENGTHS, seed=0):
    """Texts of these lengths, padded together; of each class, as far as they go."""
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(0, 101, length).tolist() for length in lengths]
    [batch] = bucketed(sequences, np.arange(len(lengths)) % 4, len(lengths), seed)
    return batch


def step_of(clf, clip=NO_CLIP, device=CPU, compiled="off", recompute=False, **intervention):
    """Plain gradient descent at a rate of 1: what a weight loses is its gradient."""
    forward = make_forward(clf, compiled, recompute, **intervention)
    return Step(clf, forward, torch.optim.SGD(clf.parameters(), lr=1.0), clip, CLASS_WEIGHTS, device)


def lost(clf, step, batch):
    """What each weight loses in a step, by name, and what the step tells."""
    before = {name: parameter.detach().clone() for name, parameter in clf.named_parameters()}
    told = step(batch)
    return {name: before[name] - parameter.detach() for name, parameter in clf.named_parameters()}, told


def gradients(clf, batch, **arguments):
    """Of the weighted mean over the batch, in one plain backward pass; None for what is not trained."""
    loss = F.cross_entropy(clf(batch.ids, batch.lengths, **arguments), batch.targets, weight=CLASS_WEIGHTS)
    named = {name: parameter for name, parameter in clf.named_parameters() if parameter.requires_grad}
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def assert_equal(got, expected, tolerance=1e-5):
    """The same tensors by name, up to a share of the largest value of all."""
    assert got.keys() == expected.keys()
    scale = max(value.abs().max() for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, atol=tolerance * scale.item(), rtol=0, msg=name)


def head_and_last_block(clf):
    """Train no more than `--tune 1` does."""
    clf.requires_grad_(False)
    for part in (clf.score, clf.trunk.ln_f, clf.trunk.h[-1]):
        part.requires_grad_(True)


@pytest.mark.parametrize(("tokens", "pieces"), [(10**6, 1), (3 * 13 + 12, 3), (1, 7)])
@pytest.mark.parametrize("device", DEVICES)
def test_the_pieces_make_the_gradient_of_the_whole_batch(clf, monkeypatch, tokens, pieces, device):
    """On any device, that of the CPU."""
    batch, seen, forward = batch_of(), [], clf.forward
    expected = gradients(clf, batch)
    monkeypatch.setattr(clf, "forward", lambda ids, *rest, **how: seen.append(ids.shape) or forward(ids, *rest, **how))
    step = step_of(clf.to(device), device=Device(torch.device(device), "fp32"))
    step.tokens = tokens
    moved, _ = lost(clf, step, batch)
    assert_equal({name: change.cpu() for name, change in moved.items()}, expected, 1e-5 if device == "cpu" else 1e-4)
    assert len(seen) == pieces
    assert all(B == 1 or tokens >= B * T for B, T in seen)


def test_an_intervention_acts_on_every_piece_of_a_step(clf, monkeypatch):
    monkeypatch.setattr("lab.device.TOKENS", 39)
    batch, window = batch_of(), masks.last_tokens(2)
    expected, whole = gradients(clf, batch, **window(batch.ids, batch.lengths)), gradients(clf, batch)
    got, _ = lost(clf, step_of(clf, intervention=window), batch)
    assert_equal(got, expected)
    with pytest.raises(AssertionError):
        assert_equal(got, whole)


def test_a_second_step_starts_from_nothing(clf):
    step, batch = step_of(clf), batch_of()
    step(batch)
    expected = gradients(clf, batch)
    assert_equal(lost(clf, step, batch)[0], expected)


def test_what_is_not_trained_stays_and_has_no_gradient(clf):
    head_and_last_block(clf)
    batch = batch_of()
    expected = gradients(clf, batch)
    moved, _ = lost(clf, step_of(clf), batch)
    assert {name for name, change in moved.items() if change.any()} == expected.keys()
    assert_equal({name: moved[name] for name in expected}, expected)
    assert all((parameter.grad is None) == (name not in expected) for name, parameter in clf.named_parameters())


@pytest.mark.parametrize("tokens", [10**6, 30])
@pytest.mark.parametrize("tune", ["all", "1"])
@pytest.mark.parametrize("lengths", [LENGTHS, (5, 9)], ids=["7 texts", "2 texts"])
def test_the_mean_over_three_processes_is_the_whole(clf, lengths, tune, tokens):
    """Each runs as many pieces, also the one that has no text, and none reads a text of another."""
    if tune == "1":
        head_and_last_block(clf)
    batch, told, shares, pieces = batch_of(lengths), torch.zeros(2), [], []
    expected, (_, whole) = gradients(clf, batch), lost(deepcopy(clf), step_of(clf, clip=1e-9), batch)
    for rank in range(3):
        own = deepcopy(clf)
        step = step_of(own, device=replace(CPU, rank=rank, world=3))
        step.tokens = tokens
        moved, of_share = lost(own, step, batch)
        told += of_share
        shares.append(moved)
        pieces.append(step.cut(batch, tokens))
    assert_equal({name: sum(share[name] for share in shares) / 3 for name in expected}, expected)
    torch.testing.assert_close(told, whole)
    assert len({len(own) for own in pieces}) == 1
    assert sorted(i for own in pieces for piece, weight in own if weight for i in piece.index) == [*range(len(lengths))]


@pytest.mark.parametrize("tokens", [10**6, 30])
def test_the_whole_gradient_is_clipped(clf, tokens):
    batch = batch_of()
    expected = gradients(clf, batch)
    norm = torch.cat([own.flatten() for own in expected.values()]).norm()
    step = step_of(clf, clip=norm.item() / 7)
    step.tokens = tokens
    assert_equal(lost(clf, step, batch)[0], {name: own / 7 for name, own in expected.items()})


@pytest.mark.parametrize("tokens", [10**6, 30])
def test_it_tells_the_plain_losses_and_how_many_are_right(clf, tokens):
    batch = batch_of()
    with torch.no_grad():
        logits = clf(batch.ids, batch.lengths)
    losses = F.cross_entropy(logits, batch.targets, reduction="none")
    step = step_of(clf)
    step.tokens = tokens
    told = step(batch)
    right = int((logits.argmax(dim=1) == batch.targets).sum())
    assert 0 < right < len(LENGTHS)
    assert told.tolist() == pytest.approx([losses.sum().item(), right], rel=1e-5)


def with_dropout(clf):
    """The same weights with dropout on."""
    noisy = GPT2Classifier(replace(clf.config, dropout=0.3, attn_dropout=0.3), clf.labels)
    noisy.load_state_dict(clf.state_dict())
    return noisy.train()


def kept_bytes(clf, batch, recompute):
    """How much a forward pass keeps for the backward pass, beside the weights and what checkpoints hold themselves."""
    kept = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in clf.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = clf(batch.ids, batch.lengths, recompute=recompute)
    assert logits.requires_grad
    return sum(kept.values())


def test_a_step_that_recomputes_has_the_same_gradients_and_keeps_less(clf):
    batch, model = batch_of(), with_dropout(clf)
    state, changes = deepcopy(model.state_dict()), []
    for recompute in (False, True):
        torch.manual_seed(5)
        model.load_state_dict(state)
        changes.append(lost(model, step_of(model, recompute=recompute), batch)[0])
    assert_equal(changes[1], changes[0], tolerance=1e-6)
    entering = clf.config.n_layer * batch.ids.numel() * clf.config.n_embd * 4  # bytes that enter the blocks
    plain, again = (kept_bytes(model, batch, recompute) for recompute in (False, True))
    assert again + entering < plain / 5


@pytest.mark.slow
@pytest.mark.parametrize("recomputed", [False, True])
def test_compiled_steps_are_the_plain_ones_and_no_shape_needs_another_graph(monkeypatch, recomputed):
    """Of two texts or more: PyTorch compiles once more where an axis is of size 1."""
    torch._dynamo.reset()
    compiled, counter, graphs = torch.compile, CompileCounterWithBackend("aot_eager"), set()
    monkeypatch.setattr(torch, "compile", lambda model, **how: compiled(model, backend=counter, **how))
    clf = GPT2Classifier(GPT2Config(1, 3, 15, n_ctx=13, vocab_size=101, dropout=0.0, attn_dropout=0.0), list("abcd"))
    step = step_of(clf, compiled="on", recompute=recomputed)
    for seed, lengths in enumerate([LENGTHS, (5, 3), (13, 1, 4, 4), (6, 6, 6), (2, 2, 8, 2, 9)]):
        batch = batch_of(lengths, seed)
        expected = gradients(clf, batch)
        assert_equal(lost(clf, step, batch)[0], expected, tolerance=1e-4)
        graphs.add(counter.frame_count)
    assert len(graphs) == 1
    assert not torch._dynamo.utils.counters["graph_break"]
    torch._dynamo.reset()
