"""PyTorch's engines for several devices, against the plain network in one process."""


import numpy as np
import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from two_processes import in_two

from data import bucketed
from data.batches import Batch
from experiments.train.parallel import spread
from experiments.train.steps import Step, make_forward
from lab.device import Device
from model import Trace, load_classifier

ENGINES = pytest.mark.parametrize("shard", [False, True], ids=["DDP", "FSDP2"])
LENGTHS = (3, 13, 1, 7, 7, 2, 11)


def draw_batch(lengths=LENGTHS, seed=0):
    """Texts of these lengths, padded together; of each class, as far as they go."""
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(0, 101, length).tolist() for length in lengths]
    [batch] = bucketed(sequences, np.arange(len(lengths)) % 4, len(lengths), seed)
    return batch


def draw_arguments(clf, batch):
    """Every gate, mask and fill, different in each text, layer, head and place."""
    generator = torch.Generator().manual_seed(5)
    (B, T), (L, H, C) = batch.ids.shape, (clf.config.n_layer, clf.config.n_head, clf.config.n_embd)

    def rand(*shape):
        return torch.rand(shape, generator=generator)

    return {
        "attn_mask": rand(B, L, H, T, T) < 0.7,
        "attn_gate": rand(B, L, H, T, T),
        "head_gate": rand(B, L, H, T),
        "head_fill": rand(B, L, H, T, C // H),
        "mlp_gate": rand(B, L, T),
        "mlp_fill": rand(B, L, T, C),
    }


def whole(value):
    """On every process."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def run_changed(clf, batch, arguments, recompute):
    """What a changed network gives: logits, heads, and the gradients of weights, gates and fills."""
    trace = Trace("z")

    def forward(batch: Batch):
        return clf(batch.ids, batch.lengths, trace=trace, recompute=recompute, **arguments)

    def collect(logits):
        logits.float().pow(2).sum().backward()
        named = [*clf.named_parameters(), *arguments.items()]
        gradients = {name: whole(value.grad) for name, value in named if value.requires_grad}
        return gradients | {"logits": logits, "z": trace.stacked("z")}

    return forward, collect


def run_from_z(clf, batch, arguments, recompute):
    """The same of a network whose heads in block 1 are given."""
    gates = {name: value for name, value in arguments.items() if not name.startswith("attn")}
    B, (H, D) = len(batch.ids), arguments["head_fill"].shape[2::2]
    z = torch.rand(B, H, batch.ids.shape[1], D, generator=torch.Generator().manual_seed(7), requires_grad=True)

    def forward(batch: Batch):
        x = clf.trunk.run(clf.trunk.embed(batch.ids, batch.lengths), stop=1)
        x = clf.trunk.run(x, 1, z=z, recompute=recompute, **gates)
        return clf.read(clf.trunk.norm(x), batch.lengths)

    def collect(logits):
        inputs = {"z": z} | gates
        return {"logits": logits} | dict(
            zip(inputs, torch.autograd.grad(logits.float().pow(2).sum(), list(inputs.values())), strict=True)
        )

    return forward, collect


def compare(folder, precision, shard, recompute, how):
    """How far what an engine computes is from what the plain network does, as shares of the largest number."""
    device, batch, found = Device.choose("cpu", precision), draw_batch(), []
    for engine in (False, True):
        clf = load_classifier(folder)
        arguments = draw_arguments(clf, batch)
        for value in arguments.values():
            value.requires_grad_(value.is_floating_point())
        forward, collect = how(clf, batch, arguments, recompute)
        if engine:
            forward = spread(clf, {"train": forward}, shard, device)["train"]
        with device.autocast():
            logits = forward(batch)
        found.append(collect(logits))
    plain, spread_out = found
    assert plain.keys() == spread_out.keys()
    return {name: float((spread_out[name] - value).abs().max() / value.abs().max()) for name, value in plain.items()}


@pytest.mark.slow
@ENGINES
@pytest.mark.parametrize("how", [run_changed, run_from_z])
@pytest.mark.parametrize(("precision", "recompute"), [("fp32", False), ("fp32", True), ("bf16", False)])
def test_no_hook_touches_an_intervention(clf_reference, precision, shard, recompute, how):
    for differences in in_two(compare, clf_reference.folder, precision, shard, recompute, how):
        assert {"logits", "z", "head_gate", "head_fill", "mlp_gate", "mlp_fill"} <= differences.keys()
        assert max(differences.values()) < (1e-5 if precision == "fp32" else 1e-2), differences


# Steps.


def start_step(clf, shard, device, forward=None):
    """Plain gradient descent at a rate of 1; the gradient is clipped."""
    forward = spread(clf, {"train": forward or make_forward(clf)}, shard, device)["train"]
    optimizer = torch.optim.SGD(clf.parameters(), lr=1.0)
    return Step(clf, forward, optimizer, 0.1, torch.tensor([0.5, 2.0, 1.0, 3.0]), device)


def change(folder, lengths, shard, tokens=10**6):
    """The weights after two steps in this process, and what these tell."""
    clf, device = load_classifier(folder), Device.choose("cpu", "fp32")
    step = start_step(clf, shard, device)
    step.tokens = tokens
    told = sum(step(draw_batch(lengths, seed)) for seed in range(2))
    return {name: whole(value).detach().numpy() for name, value in clf.named_parameters()}, told.numpy()


def assert_the_same(found, expected):
    (first, told), (second, more) = found
    weights, whole = expected
    for name, value in weights.items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], value, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(told + more, whole, rtol=1e-5)


@pytest.mark.slow
@ENGINES
@pytest.mark.parametrize(
    ("lengths", "tokens"), [(LENGTHS, 10**6), (LENGTHS, 30), ((5,), 10**6)], ids=["whole", "pieces", "1 text"]
)
def test_two_processes_take_the_steps_of_one(clf_reference, lengths, tokens, shard):
    expected = change(clf_reference.folder, lengths, False)
    assert_the_same(in_two(change, clf_reference.folder, lengths, shard, tokens), expected)


def run_out(clf, limit, when):
    """A forward pass after which memory runs out, in itself or on the way back, for pieces of more tokens."""

    def raise_error(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    def forward(batch: Batch):
        logits = clf(batch.ids, batch.lengths)
        if batch.ids.numel() > limit:
            raise_error() if when == "forward" else logits.register_hook(raise_error)
        return logits

    return forward


def change_in_need(folder, shard, when):
    """The same as `change`, but the second process has memory for two texts at most; and the tokens at the end."""
    clf, device = load_classifier(folder), Device.choose("cpu", "fp32")
    step = start_step(clf, shard, device, run_out(clf, 26 if device.rank else 10**6, when))
    told = sum(step(draw_batch(seed=seed)) for seed in range(2))
    return ({name: value.detach().numpy() for name, value in clf.named_parameters()}, told.numpy()), step.tokens


@pytest.mark.slow
@pytest.mark.parametrize("when", ["forward", "backward"])
def test_a_process_that_runs_out_of_memory_goes_on_in_smaller_pieces_and_none_waits(clf_reference, when):
    (first, many), (second, few) = in_two(change_in_need, clf_reference.folder, False, when)
    assert_the_same([first, second], change(clf_reference.folder, LENGTHS, False))
    assert 13 <= few <= 26 < many == Device(torch.device("cpu"), "fp32").tokens


@pytest.mark.slow
def test_with_shards_all_end_and_one_says_why(clf_reference):
    with pytest.raises(ChildFailedError, match="out of memory: with --shard all processes need pieces of one size"):
        in_two(change_in_need, clf_reference.folder, True, "forward")


def count_draws(folder):
    """The state of the generator after a step that was rehearsed, and after the same one that was not."""
    clf, device = load_classifier(folder, dropout=0.3).train(), Device.choose("cpu", "fp32")
    step, states = start_step(clf, False, device), []
    for _ in range(2):
        torch.manual_seed(3)
        step(draw_batch())
        states.append(torch.get_rng_state().sum().item())
    assert len(step.rehearsed) == 1
    return states


@pytest.mark.slow
def test_a_rehearsal_draws_no_dropout(clf_reference):
    for first, second in in_two(count_draws, clf_reference.folder):
        assert first == second


# Trainings.
