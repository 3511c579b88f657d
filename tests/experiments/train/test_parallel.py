"""PyTorch's engines for several devices, against the plain network in one process."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from planted import draw_splits, draw_texts
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from two_processes import in_two

from data import Corpus, bucketed
from data.batches import Batch
from experiments.train.frozen import make_forwards, open_forwards
from experiments.train.parallel import gather, spread, whole_weights
from experiments.train.start import start_model
from experiments.train.steps import Step, make_forward
from experiments.train.training import Training
from experiments.train.words import choose_checkpoint
from lab.defaults import FEW, TrainOptions
from lab.device import Device
from lab.label_words import LabelWords
from lab.state import STATE, read_state
from lab.word_head import WordHead
from model import GPT2Classifier, GPT2Config, InputError, Trace, load_classifier

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


CASES = [
    (how, precision, recompute)
    for how in (run_changed, run_from_z)
    for precision, recompute in (("fp32", False), ("fp32", True), ("bf16", False))
]


def compare_all(folder, shard):
    return [compare(folder, shard, *case) for case in CASES]


def compare(folder, shard, how, precision, recompute):
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
def test_no_hook_touches_an_intervention(clf_reference, shard):
    for results in in_two(compare_all, clf_reference.folder, shard):
        for case, differences in zip(CASES, results, strict=True):
            assert {"logits", "z", "head_gate", "head_fill", "mlp_gate", "mlp_fill"} <= differences.keys()
            assert max(differences.values()) < 1e-5, (case, differences)


def find_whole(clf):
    """The names of the weights that lie whole in this process."""
    return {name for name, parameter in clf.named_parameters() if not hasattr(parameter, "full_tensor")}


def use_whole_weights(folder):
    """Which weights are whole: within, afterwards, and after a forward pass of training before and after it."""
    clf, device = load_classifier(folder), Device.choose("cpu", "fp32")
    forward, found = spread(clf, {"train": make_forward(clf)}, True, device)["train"], []
    for _ in range(2):
        loss = forward(draw_batch()).sum()
        found.append(find_whole(clf))
        loss.backward()
        with whole_weights(forward), torch.inference_mode():
            forward(draw_batch())
            found.append(find_whole(clf))
        found.append(find_whole(clf))
    return found, {name for name, _ in clf.named_parameters()}


@pytest.mark.slow
def test_weights_are_whole_no_longer_than_they_are_needed(clf_reference):
    for (first, within, after, again, *_), names in in_two(use_whole_weights, clf_reference.folder):
        assert (within, after) == (names, set())
        assert again == first == {name for name in names if ".h." not in name or ".ln_" in name}


# Steps.


def start_step(clf, shard, device, forward=None):
    """Plain gradient descent at a rate of 1; the gradient is clipped."""
    forward = spread(clf, {"train": forward or make_forward(clf)}, shard, device)["train"]
    optimizer = torch.optim.SGD(clf.parameters(), lr=1.0)
    return Step(clf, forward, optimizer, 0.1, torch.tensor([0.5, 2.0, 1.0, 3.0]), device)


BATCHES = {"whole": (LENGTHS, 10**6), "pieces": (LENGTHS, 30), "1 text": ((5,), 10**6)}


def change(folder, shard):
    """The weights after two steps in this process, and what these tell, for each kind of batch."""
    device, found = Device.choose("cpu", "fp32"), {}
    for name, (lengths, tokens) in BATCHES.items():
        clf = load_classifier(folder)
        step = start_step(clf, shard, device)
        step.tokens = tokens
        told = sum(step(draw_batch(lengths, seed)) for seed in range(2))
        found[name] = {name: whole(value).detach().numpy() for name, value in clf.named_parameters()}, told.numpy()
    return found


def assert_the_same(found, expected):
    (first, told), (second, more) = found
    weights, whole = expected
    for name, value in weights.items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], value, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(told + more, whole, rtol=1e-5)


@pytest.mark.slow
@ENGINES
def test_two_processes_take_the_steps_of_one(clf_reference, shard):
    expected, found = change(clf_reference.folder, False), in_two(change, clf_reference.folder, shard)
    for name in BATCHES:
        assert_the_same([each[name] for each in found], expected[name])


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


def change_in_need(folder):
    """The same as `change`, but the second process has memory for two texts at most, on the way there or back, and
    tells so, as a GPU does; and the tokens at the end."""
    device, found = Device.choose("cpu", "fp32"), []
    for when in ("forward", "backward"):
        clf = load_classifier(folder)
        step = start_step(clf, False, device, run_out(clf, 26 if device.rank else 10**6, when))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("experiments.train.steps.LIMITED", ("cpu",))
            told = sum(step(draw_batch(seed=seed)) for seed in range(2))
        weights = {name: value.detach().numpy() for name, value in clf.named_parameters()}
        found.append(((weights, told.numpy()), step.tokens))
    return found


@pytest.mark.slow
def test_a_process_that_runs_out_of_memory_goes_on_in_smaller_pieces_and_none_waits(clf_reference):
    expected = change(clf_reference.folder, False)["whole"]
    for (first, many), (second, few) in zip(*in_two(change_in_need, clf_reference.folder), strict=True):
        assert_the_same([first, second], expected)
        assert 13 <= few <= 26 < many == Device(torch.device("cpu"), "fp32").tokens


def end_in_need(folder, said):
    """The second process runs out of memory where weights are sharded."""
    clf, device = load_classifier(folder), Device.choose("cpu", "fp32")
    step = start_step(clf, True, device, run_out(clf, 26 if device.rank else 10**6, "forward"))
    try:
        step(draw_batch())
    except InputError as error:
        said.write_text(str(error))
        raise


@pytest.mark.slow
def test_with_shards_all_end_and_one_says_why(clf_reference, tmp_path):
    with pytest.raises(ChildFailedError):
        in_two(end_in_need, clf_reference.folder, tmp_path / "said")
    expected = "out of memory: with --shard all processes need pieces of one size; take more"
    assert (tmp_path / "said").read_text().startswith(expected)


def count_draws(folder):
    """The state of the generator after a step that was not rehearsed, for a CPU needs none, and after one that was."""
    clf, device = load_classifier(folder, dropout=0.3).train(), Device.choose("cpu", "fp32")
    step, states = start_step(clf, False, device), []
    with pytest.MonkeyPatch.context() as patch:
        for rehearsals in (0, 1):
            torch.manual_seed(3)
            step(draw_batch())
            states.append(torch.get_rng_state().tolist())
            assert len(step.rehearsed) == rehearsals
            patch.setattr("experiments.train.steps.LIMITED", ("cpu",))
    return states


@pytest.mark.slow
def test_a_rehearsal_draws_no_dropout(clf_reference):
    for first, second in in_two(count_draws, clf_reference.folder):
        assert first == second


# Trainings.


TEXTS = draw_splits()
LABELS = tuple(f"LABEL_{k}" for k in range(4))
WORDS = WordHead(None, LabelWords(LABELS, (("v",), ("x",), ("y",), ("z",)), (((7,),), ((89,),), ((3,),), ((5,),))))
SETTINGS = [
    {"recompute": True, "class_weights": True, "precision": "bf16"},
    {"tune": 1},
    {"tune": "head"},
    {"head": "words"},
    {"head": "words", "tune": 2},
    {"adapt": 1, "lm_weight": 0.5, "class_weights": True},
    {"compile": "on", "recompute": True},  # with shards, `--compile on` is refused
]


def sgd(parameters, lr, weight_decay):
    """AdamW would make whole steps of what is nothing but rounding in a gradient."""
    return torch.optim.SGD([parameter for parameter in parameters if parameter.requires_grad], lr)


def train_all(folders, run, shard):
    """Two epochs with each of the settings -> rows of the log, and the weights in the first process."""
    compiled = torch.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.train.training.adamw", sgd)
        patch.setattr("lab.device.TOKENS", 30)  # several pieces of a step, and batches of val
        patch.setattr(torch, "compile", lambda run, **how: compiled(run, backend="eager", **how))
        return [train(folders, run, shard, settings) for settings in SETTINGS if not (shard and "compile" in settings)]


def train(folders, run, shard, settings):
    device = Device.choose("cpu", settings.get("precision", "fp32"))
    if device.world == 1:
        settings = settings | {"compile": "off"}
    options = TrainOptions(**{"epochs": 2, "lr": 0.1, "batch_size": 4, "dropout": 0.0, "compile": "off"} | settings)
    options = replace(options, model=str(folders[options.head]), shard=shard).resolved(35, FEW)
    corpus = Corpus("corpus", LABELS, pd.DataFrame(), {})
    model = start_model(options, corpus, WORDS if options.head == "words" else None)
    rows = []
    with open_forwards(model, TEXTS, options, run, device) as forwards:
        training = Training(model, TEXTS, options, device, forwards)
        for training.epoch in range(1 - options.adapt, 3):
            training.step, training.totals = 0, torch.zeros(2)
            rows += [training.train(run, lambda note: None), training.evaluate()]
    weights = gather(choose_checkpoint(model), device).state_dict()
    numbers = [{key: value for key, value in row.items() if key not in ("split", "seconds")} for row in rows]
    return numbers, {name: value.numpy() for name, value in weights.items()} if device.first else {}


@pytest.mark.slow
@ENGINES
def test_trainings_in_two_processes_are_those_of_one(clf_reference, lm_reference, tmp_path, shard):
    folders = {"classifier": clf_reference.folder, "words": lm_reference.folder}
    expected = train_all(folders, tmp_path, False)
    first, second = in_two(train_all, folders, tmp_path, shard)
    assert len(first) == len(second) == len(SETTINGS) - shard
    for settings, (rows, weights), (own, got), (other, none) in zip(SETTINGS, expected, first, second, strict=False):
        assert (own, none) == (other, {})
        for row, reference in zip(own, rows, strict=True):
            assert row == pytest.approx(reference, abs=1e-2 if "precision" in settings else 1e-5), settings
        assert got.keys() == weights.keys()
        for name, value in weights.items():
            atol = 1e-2 if "precision" in settings else 1e-5
            np.testing.assert_allclose(got[name], value, atol=atol, err_msg=f"{settings} {name}")


def train_briefly(folder, run, shard):
    """Two epochs, the first of which is the best, in less time than a state is due -> where the state stands."""
    device, options = Device.choose("cpu", "fp32"), TrainOptions(epochs=2, batch_size=4, shard=shard).resolved(35, FEW)
    clf = load_classifier(folder)
    training = Training(clf, TEXTS, options, device, make_forwards(clf, options, device))
    rows = ({"split": "val", "loss": 0.0, "accuracy": 0.0, "macro_f1": score, "epoch": 1} for score in (0.9, 0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "evaluate", lambda: next(rows))
        patch.setattr("experiments.train.training.save", lambda *_: None)
        training.fit(run, None)
    state = read_state(run / STATE)
    return state["epoch"], state["best_epoch"]


@pytest.mark.slow
@ENGINES
def test_a_state_is_there_when_the_training_ends(clf_reference, tmp_path, shard):
    """For a process may die while the first one measures."""
    assert in_two(train_briefly, clf_reference.folder, tmp_path, shard) == [(3, 1), (3, 1)]


def train_wide(shard):
    """Two steps of a gpt2-xl of two blocks in bf16, recomputed -> losses, and the peak of memory in bytes by weight.

    No embedding is left out, as if the texts used all tokens."""
    device = Device.choose("cpu", "bf16")
    before = device.peak_memory()
    torch.manual_seed(0)
    model = GPT2Classifier(replace(GPT2Config.preset("gpt2-xl"), n_layer=2, dropout=0.0, attn_dropout=0.0), LABELS)
    n = sum(parameter.numel() for parameter in model.parameters())
    texts = {"train": draw_texts("train", (32, 31, 32, 29), 0)}
    options = TrainOptions(epochs=2, batch_size=4, recompute=True, shard=shard, lr=1e-4).resolved(1600, FEW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.train.training.choose_vocabulary", lambda model, texts: None)
        training = Training(model, texts, options, device, make_forwards(model, options, device))
    batches = [next(bucketed(texts["train"].sequences, texts["train"].targets, 4)) for _ in range(2)]
    return [training.take_step(batch)[0].item() for batch in batches], (device.peak_memory() - before) / n


@pytest.mark.slow
def test_a_wide_network_trains_in_bf16_and_shards_take_less_memory():
    """Of 143 million weights, each process holds 16 bytes, or half as many and all embeddings while it computes."""
    (whole, more), (others, _) = in_two(train_wide, False)
    (sharded, less), (rest, _) = in_two(train_wide, True)
    assert sharded + rest == pytest.approx(whole + others, rel=1e-2)
    assert sharded[1] + rest[1] < sharded[0] + rest[0]  # it learns
    assert 16 < more < 22
    assert less < 0.85 * more
