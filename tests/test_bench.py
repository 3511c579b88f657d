"""The benchmarks, at tiny size: that they measure what they say."""

import math
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import exit_code, one_line
from planted import texts_of
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from bench import (
    contestants,
    corpora,
    frozen,
    loading,
    precision,
    pretraining,
    prompts,
    recording,
    scaling,
    slices,
    speed,
    table,
    turns,
)
from bench.arithmetic import Work
from experiments.patch.cells import Cell
from lab.device import Device
from model import GPT2Classifier, GPT2Config, Tokenizer, Trace, load_classifier, load_lm, masks, save
from model.config import PRESETS
from model.layouts import config_to_hf

CPU = Device(torch.device("cpu"), "fp32")
TINY = GPT2Config(3, 5, 35, n_ctx=13)


def make_job(folder, chunks, lengths=(3, 5, 5, 2, 7, 5, 11), **options):
    """Return a job on texts of random tokens; `chunks` holds lists of lists of positions."""
    rng = np.random.default_rng(0)
    texts = texts_of("test", [rng.integers(50_000, size=n).tolist() for n in lengths], np.arange(len(lengths)) % 4)
    batches = [[np.array(positions) for positions in chunk] for chunk in chunks]
    return contestants.Job(str(folder), CPU, texts, batches, **options)


@pytest.fixture
def checkpoint(tmp_path):
    """Random weights that are large enough for a head to make a difference."""
    torch.manual_seed(0)
    clf = GPT2Classifier(TINY, list("abcd"))
    for parameter in clf.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save(clf, tmp_path / "checkpoint", Tokenizer.load("gpt2-mini"))
    return tmp_path / "checkpoint"


@pytest.fixture
def end_turn():
    """Notes that it was called."""
    calls = []
    return type("Turn", (), {"calls": calls, "__call__": lambda self: calls.append("turn")})()


def test_the_trainer_takes_the_same_steps(checkpoint, end_turn, monkeypatch):
    monkeypatch.setattr(contestants, "LR", 0.02)
    todo = make_job(checkpoint, [[[0, 1, 4]], [[5, 3, 2, 6], [0, 1, 4]], [[0, 1, 4]]], dropout=0.0)
    ours = contestants.train_headgate(todo, end_turn)
    theirs = contestants.train_hf(todo, end_turn)
    assert len(end_turn.calls) == 2 * (1 + 3)
    assert ours.shape == (4,)
    assert ours[3] < ours[2] < ours[0] - 0.1
    np.testing.assert_allclose(theirs, ours, atol=1e-4)


def test_the_trainer_that_makes_its_own_batches_takes_the_same_steps(checkpoint, end_turn, monkeypatch):
    monkeypatch.setattr(contestants, "LR", 0.02)
    todo = make_job(checkpoint, [[[0, 1, 4]], [[5, 3, 2], [6, 1, 4]], [[0, 1, 4]]], dropout=0.0)
    ours = contestants.train_headgate(todo, end_turn)
    theirs = contestants.train_hf_padding(todo, end_turn)
    assert len(end_turn.calls) == 2 * (1 + 3)
    assert ours[3] < ours[0] - 0.1
    np.testing.assert_allclose(theirs, ours, atol=1e-4)


def test_its_own_batches_are_those_of_a_trainer_that_groups_by_length(tmp_path, monkeypatch):
    import transformers

    monkeypatch.setattr(slices, "BATCH", 3)
    lengths = np.random.default_rng(0).integers(1, 40, size=90)
    arguments = transformers.TrainingArguments(
        str(tmp_path), train_sampling_strategy="group_by_length", per_device_train_batch_size=3, use_cpu=True
    )
    dataset = [{"input_ids": [0] * n} for n in lengths.tolist()]
    trainer = transformers.Trainer(
        torch.nn.Linear(1, 1), arguments, lambda rows: [row["number"] for row in rows], dataset
    )
    sampler = trainer._get_train_sampler()
    sampler.generator = torch.Generator().manual_seed(0)
    order = list(sampler)
    wanted = {tuple(order[start : start + 3]) for start in range(0, 90, 3)}
    chunks = slices.group_by_trainer(lengths, slices.Amount(5, 6, 0, 0))[1:]  # all 30 batches
    assert {tuple(batch.tolist()) for chunk in chunks for batch in chunk} == wanted


def test_all_trainings_have_dropout(checkpoint, end_turn):
    for contestant in (contestants.train_headgate, contestants.train_hf, contestants.train_hf_padding):
        with_, without = (contestant(make_job(checkpoint, [[[0, 1]]], dropout=rate), end_turn) for rate in (0.5, 0.0))
        assert abs(with_[0] - without[0]) > 1e-3


def test_ten_epochs_of_the_head_are_the_same_whether_blocks_run_once_or_not(checkpoint, end_turn, monkeypatch):
    """And not for lack of moving; block 0 runs for a tenth of the texts."""
    monkeypatch.setattr(frozen, "LR", 0.05)
    monkeypatch.setattr(frozen, "BATCH", 2)
    todo = make_job(checkpoint, [[[1, 4]], [[0, 1, 4]], [[5], [3, 2]]], dropout=0.0)
    through, run = [], contestants.load_classifier

    def load(*arguments, **options):
        clf = run(*arguments, **options)
        through.append(0)
        clf.trunk.h[0].register_forward_hook(lambda block, inputs, x: through.append(through.pop() + len(x)))
        return clf

    monkeypatch.setattr(contestants, "load_classifier", load)
    ours, again = (frozen.train_head(todo, end_turn, once) for once in (True, False))
    assert through == [2 + 3 + 3, 10 * (2 + 3 + 3)]
    assert len(end_turn.calls) == 2 * (1 + 3)
    assert ours.shape == (10 * (1 + 2 + 2),)
    assert ours[9] < ours[0] - 0.1
    np.testing.assert_allclose(again, ours, atol=1e-5)


def skip_without_lens(contestant):
    if contestant.endswith("_lens"):
        pytest.importorskip("transformer_lens", reason="not among the requirements: the benchmark goes without it")


@pytest.mark.parametrize("contestant", ["sweep_headgate", "sweep_hooks", "sweep_lens"])
def test_every_sweep_closes_the_heads_it_is_told(checkpoint, end_turn, contestant):
    skip_without_lens(contestant)
    heads = ((0, 3), (1, 0), (2, 4))
    todo = make_job(checkpoint, [[[1]], [[1, 5, 2], [6]], [[3]]], heads=heads)
    logits = getattr(contestants, contestant)(todo, end_turn)
    assert len(end_turn.calls) == 1 + 3
    clf = load_classifier(checkpoint)
    for row, i in enumerate([1, 1, 5, 2, 6, 3]):
        ids = torch.tensor([todo.texts.sequences[i]])
        with torch.no_grad():
            wanted = [clf(ids, head_gate=masks.close_heads(TINY, [head]))[0] for head in heads]
            assert all((own - clf(ids)[0]).abs().max() > 1e-3 for own in wanted)
        np.testing.assert_allclose(logits[row], torch.stack(wanted), atol=2e-5)


@pytest.mark.parametrize("contestant", ["patch_headgate", "patch_hooks", "patch_lens"])
def test_every_way_to_patch_replaces_one_head_at_one_position(checkpoint, end_turn, contestant):
    """The network's own gate and fill are the reference. Token 5 of 7 differs."""
    skip_without_lens(contestant)
    cells = tuple(Cell("z", *place) for place in ((1, 0, 6), (0, 3, 5), (2, 4, 6), (1, 2, 4), (2, 1, 5)))
    todo = make_job(checkpoint, [[[1]], [[1, 3], [0]]], lengths=(7, 7, 2, 7), cells=cells)
    patched = getattr(contestants, contestant)(todo, end_turn)
    assert len(end_turn.calls) == 1 + 2
    assert patched.shape == (4, 5)
    clf = load_classifier(checkpoint)
    for row, i in zip(patched, [1, 1, 3, 0], strict=True):
        ids, source = torch.tensor([todo.texts.sequences[i]]), Trace("z")
        with torch.no_grad():
            clf(slices.change_token(ids), trace=source)
            unpatched, *wanted = [
                clf(ids, head_gate=gate, head_fill=source.stacked("z"))[0, :2].numpy() @ [1, -1]
                for gate in (torch.ones(1, 3, 5, 7), *(open_all_but(cell) for cell in cells))
            ]
        np.testing.assert_allclose(row, wanted, atol=1e-6)
        assert (np.abs(row[:3] - unpatched) > 1e-5).all()
        np.testing.assert_allclose(row[3:], unpatched, atol=1e-6)  # before token 5; not read in the last layer


def open_all_but(cell):
    """Return a gate (1, L, H, T) for texts of 7 tokens."""
    gate = torch.ones(1, TINY.n_layer, TINY.n_head, 7)
    gate[0, cell.layer, cell.head, cell.position] = 0
    return gate


def test_every_way_to_read_prompts_says_the_same(tmp_path, end_turn, monkeypatch):
    """Against one plain pass over examples and text."""
    torch.manual_seed(0)
    clf = GPT2Classifier(replace(TINY, n_ctx=64), list("abc"))
    for parameter in clf.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save(clf, tmp_path / "checkpoint", Tokenizer.load("gpt2-mini"))
    monkeypatch.setattr(prompts, "TOKENS", 5)
    monkeypatch.setattr(prompts, "BEGINNING", 40)
    texts = prompts.draw_prompts(5)
    assert {tuple(ids[:40]) for ids in texts.sequences} == {tuple(texts.sequences[0][:40])}
    assert len({tuple(ids[40:]) for ids in texts.sequences}) == 5
    todo = contestants.Job(str(tmp_path / "checkpoint"), CPU, texts, [[np.array([0, 2])], [np.array([1, 3, 4])]])
    lm = load_lm(tmp_path / "checkpoint")
    with torch.no_grad():
        ids = torch.tensor(texts.select(np.array([0, 2, 1, 3, 4])).sequences)
        wanted = lm(ids)[:, -1].log_softmax(dim=-1)[:, prompts.ASKED]
    for read in (prompts.read_sharing, prompts.read_with_cache, prompts.read_again, prompts.read_hf_again):
        np.testing.assert_allclose(read(todo, end_turn), wanted, atol=1e-5)
        assert len(end_turn.calls) == 3
        end_turn.calls.clear()


def test_both_ways_to_record_say_what_the_network_emits_at_the_last_token(checkpoint, end_turn):
    todo = make_job(checkpoint, [[[1]], [[1, 2], [6]]])
    clf = load_classifier(checkpoint)
    for record in (recording.record_headgate, recording.record_hf):
        rows = record(todo, end_turn)
        assert len(end_turn.calls) == 1 + 2
        end_turn.calls.clear()
        for row, i in zip(rows, [1, 1, 2, 6], strict=True):
            trace = Trace("resid_pre", "z", "mlp")
            with torch.no_grad():
                clf(torch.tensor([todo.texts.sequences[i]]), trace=trace)
            wanted = [*(x[0, -1] for x in trace.resid_pre), *(z[0, :, -1].flatten() for z in trace.z)]
            wanted += [x[0, -1] for x in trace.mlp]
            np.testing.assert_allclose(row, torch.stack(wanted), atol=1e-5)


def test_the_two_texts_of_a_pair_differ_in_one_token():
    ids = torch.tensor(slices.draw_texts(3, 20).sequences)
    others = slices.change_token(ids)
    assert (ids != others).nonzero().tolist() == [[0, 5], [1, 5], [2, 5]]
    assert max(ids.max(), others.max()) < 50256  # which transformers takes for padding


def test_the_cells_that_are_patched():
    cells = contestants.list_cells(GPT2Config(2, 3, 6))
    assert len(set(cells)) == len(cells) == 2 * 3 * 20
    assert cells[19:21] == (Cell("z", 0, 0, 19), Cell("z", 0, 1, 0))
    some = contestants.pick_some_cells(GPT2Config(2, 3, 6))
    assert some[:2] == (Cell("z", 0, 0, 1), Cell("z", 0, 0, 3))
    assert some[-1] == Cell("z", 1, 1, 19)
    assert len(some) == 2 * 10


def test_the_heads_that_are_closed():
    assert contestants.list_heads(GPT2Config(2, 3, 6)) == ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2))
    assert contestants.pick_one_per_layer(GPT2Config(4, 3, 6)) == ((0, 0), (1, 1), (2, 2), (3, 0))


# Contestants for the processes of `take_turns`, which import this file.


def noted(job, end_turn):
    """Writes what it does into a file."""

    def note(what):
        with (Path(job.folder) / "log").open("a") as log:
            log.write(f"{job.dropout:g} {what}\n")

    note("ready")
    end_turn()
    for chunk in job.chunks:
        note(f"{chunk}")
        end_turn()
    note("end")
    return np.array([job.dropout])


def broken(job, end_turn):
    sys.exit(7)


@pytest.mark.slow
def test_contestants_take_turns(tmp_path):
    todo = make_job(tmp_path, [])
    first = [replace(todo, chunks="ab", dropout=rate) for rate in (0, 1)]
    second = [replace(todo, chunks="c", dropout=rate) for rate in (2, 3)]
    outcomes = turns.take_turns([noted, noted], [first, second])
    log = (tmp_path / "log").read_text().splitlines()
    assert log[:8] == ["0 ready", "1 ready", "0 a", "1 a", "0 b", "1 b", "0 end", "1 end"]
    assert log[8:] == ["2 ready", "3 ready", "2 c", "3 c", "2 end", "3 end"]
    assert [[outcome.output.item() for outcome in together] for together in outcomes] == [[0, 1], [2, 3]]
    for together, chunks in zip(outcomes, (2, 1), strict=True):
        for outcome in together:
            assert len(outcome.seconds) == chunks
            assert min(outcome.seconds) > 0
            assert outcome.peak_bytes > 2**20
            assert outcome.product_rate > 1e6
            assert outcome.bandwidth > 1e6


@pytest.mark.slow
def test_a_contestant_that_stops_is_told(tmp_path, capsys):
    with pytest.raises(ChildProcessError, match="exit code 7"):
        turns.take_turns([broken], [[make_job(tmp_path, [])]])


def test_waiting_takes_no_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(turns.time, "perf_counter", lambda: now[0])

    class Pipe:
        def send(self, message):
            now[0] += 50

        def recv(self):
            now[0] += 100

    clock = turns.Clock(Pipe(), CPU)
    for seconds in (1.0, 2.0, 4.0):
        now[0] += seconds
        clock()
    assert clock.seconds == [1, 2, 4]


def test_chunks_of_fine_tuning_range_from_short_texts_to_long_ones(monkeypatch):
    monkeypatch.setattr(slices, "BATCH", 2)
    lengths = np.repeat(np.arange(12), 2)
    batches = [np.array([2 * i, 2 * i + 1]) for i in (5, 3, 11, 0, 7, 1, 9, 2, 10, 4, 8, 6)]
    chunks = slices.deal([*batches, np.array([23])], lengths, slices.Amount(2, 3, 0, 0))
    assert [[index.tolist() for index in chunk] for chunk in chunks] == [
        [[2, 3], [10, 11], [18, 19]],
        [[2, 3], [10, 11], [18, 19]],
        [[6, 7], [14, 15], [22, 23]],
    ]


def test_batches_of_fine_tuning_are_full(monkeypatch):
    monkeypatch.setattr(slices, "BATCH", 5)
    lengths = np.random.default_rng(0).integers(1, 40, size=103)
    for make in (slices.group_by_length, slices.group_by_trainer, slices.shuffle):
        chunks = make(lengths, slices.Amount(3, 2, 0, 0))
        assert [[len(index) for index in chunk] for chunk in chunks] == 4 * [[5, 5]]
    spread = [
        np.mean([np.ptp(lengths[index]) for chunk in make(lengths, slices.Amount(3, 6, 0, 0)) for index in chunk])
        for make in (slices.group_by_length, slices.group_by_trainer, slices.shuffle)
    ]
    assert max(spread[:2]) < spread[2] / 2


def test_batches_of_the_sweep_need_no_padding():
    lengths = np.array([9, 4, 5, 5, 6, 1, 5, 6, 4, 30, 5, 6])  # median 5
    warm_up, *chunks = slices.group_without_padding(lengths, slices.Amount(2, 0, 4, 0), 3)
    assert [[index.tolist() for index in chunk] for chunk in chunks] == [[[1, 8], [2, 3]], [[6, 10], [4, 7]]]
    assert [index.tolist() for index in warm_up] == [[1, 8]]


def test_speeds_and_what_is_extrapolated(tmp_path):
    config = GPT2Config(2, 3, 6)  # 12 * 2 * 36 = 864 weights
    chunks = [[[0]], [[0, 3], [1]], [[4, 5]], [[6]]]  # timed: 10, 12 and 11 tokens
    tuned = table.measure_speed("fine-tuning", config, make_job(tmp_path, chunks), [9.0, 0.5, 2.0, 1.0], 1e6)
    assert (tuned["slowest"], tuned["per_second"], tuned["fastest"]) == (1, 1, 6)
    assert tuned["tokens_per_second"] == 11  # of 20, 6 and 11
    assert tuned["utilisation"] == pytest.approx(3 * 864 * 11 / 1e6)
    assert tuned["whole_seconds_extrapolated"] == pytest.approx(48_000 * (38 / 7) / 11)
    alone = table.measure_speed("head alone", config, make_job(tmp_path, chunks), [9.0, 0.5, 2.0, 1.0], 1e6)
    assert alone["utilisation"] == pytest.approx(10 * 864 * 11 / 1e6)
    swept = table.measure_speed(
        "head sweep", config, make_job(tmp_path, chunks, heads=((0, 0), (1, 2))), [9.0, 0.5, 2.0, 1.0], 1e6
    )
    assert (swept["slowest"], swept["per_second"], swept["fastest"]) == (2, 2, 12)
    assert swept["tokens_per_second"] == 22
    assert swept["utilisation"] == pytest.approx(864 * 22 / 1e6)
    assert swept["whole_seconds_extrapolated"] == pytest.approx(2_000 * (38 / 7) * 6 / 22)
    cells = Cell("z", 0, 0, 1), Cell("z", 0, 2, 0), Cell("z", 1, 1, 1)
    patched = table.measure_speed(
        "patching", config, make_job(tmp_path, chunks, cells=cells), [9.0, 0.5, 2.0, 1.0], 1e6
    )
    assert (patched["texts"], patched["heads"]) == (6, 3)
    assert (patched["slowest"], patched["per_second"], patched["fastest"]) == (3, 3, 18)
    assert patched["utilisation"] == pytest.approx(864 * 33 / 1e6)
    assert patched["whole_seconds_extrapolated"] == pytest.approx(64 * (38 / 7) * 6 * 20 / 33)


def test_codes_are_compared_round_by_round(tmp_path):
    todo = make_job(tmp_path, [[[0]], [[0, 3]], [[1]], [[2]]])
    outcomes = [
        turns.Outcome([1.0, *seconds], np.array([]), bytes_, rate, 2 * rate)
        for seconds, bytes_, rate in (((1.0, 2.0, 4.0), 5, 3e9), ((1.5, 40.0, 4.0), 6, 7e9))
    ]
    jobs = {"headgate": todo, "other": todo}
    outputs = [np.array([-4.0, 2.0]), np.array([-4.0, 2.5])]
    counts = [lambda config, job, chunk, n=n: Work(n * sum(map(len, chunk)), 5 * sum(map(len, chunk))) for n in (3, 4)]
    ours, other = table.compare("fine-tuning", TINY, jobs, counts, outcomes, outputs)
    assert (ours["code"], ours["headgate_times"], ours["largest_difference"], ours["peak_bytes"]) == (
        "headgate",
        1,
        0,
        5,
    )
    assert (other["code"], other["headgate_times"], other["largest_difference"]) == ("other", 1.5, 0.125)
    assert ours["product_rate"] == other["product_rate"] == 7e9
    # texts per second: 2, 1/2, 1/4 and 4/3, 1/40, 1/4
    assert ours["of_remaining"] == pytest.approx(3 / 2 / 7e9)
    assert other["of_remaining"] == pytest.approx(4 / 4 / 7e9)
    assert ours["of_bandwidth"] == pytest.approx(4 * 5 / 2 / 14e9)


@pytest.mark.parametrize("training", [True, False])
def test_utilisation_counts_what_the_plain_network_computes(tmp_path, training):
    import transformers

    todo = make_job(tmp_path, [[[0]], [[1, 2, 5]]], heads=() if training else ((0, 0),))
    trunk = transformers.GPT2Model(transformers.GPT2Config(**config_to_hf(TINY)))
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        out = trunk(slices.make_batch(todo.texts, todo.chunks[1][0]).ids).last_hidden_state
        if training:
            out.sum().backward()
    counts = counter.get_flop_counts()["Global"]
    flops = sum(count for op, count in counts.items() if "mm" in str(op) and "bmm" not in str(op))
    told = table.measure_speed("fine-tuning" if training else "head sweep", TINY, todo, [9.0, 1.0], product_rate=1.0)
    assert 2 * told["utilisation"] == flops  # an addition for each multiplication


def test_points_differ_from_the_base_in_one_dimension():
    base = scaling.Point(texts=10, tokens=20, layers=30, heads=40)
    points = scaling.vary(base, (0.5, 1, 3))
    assert len(points) == 12
    assert points["tokens", 60] == scaling.Point(10, 60, 30, 40)
    assert points["heads", 20] == scaling.Point(10, 20, 30, 20)
    assert points["layers", 30] == base


def test_a_point_becomes_a_job(tmp_path):
    point = scaling.Point(texts=35, tokens=3, layers=2, heads=5)
    todo = scaling.make_job(point, "head sweep", tmp_path, CPU, repeats=2)
    assert todo.texts.lengths.tolist() == [3] * 35
    assert [[len(index) for index in chunk] for chunk in todo.chunks] == [[32], [32, 3], [32, 3]]
    assert todo.heads == ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))
    assert scaling.make_job(point, "fine-tuning", tmp_path, CPU, repeats=2).heads == ()


def test_the_picture_tells_how_time_grows(saved, tmp_path):
    rows = [
        (task, code, dimension, value, value**power / 100)
        for task, dimensions in (("fine-tuning", 3), ("head sweep", 4))
        for dimension in list(scaling.AXES)[:dimensions]
        for code, power in zip(scaling.CODES[task], (1, 1.5), strict=True)
        for value in (4, 8, 16)
    ]
    scaling.draw_scaling(
        pd.DataFrame(rows, columns=["task", "code", "dimension", "value", "seconds"]), tmp_path / "x.png", "a machine"
    )
    (figure,) = saved
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in panels] == 3 * ["fine-tuning"] + 4 * ["head sweep"]
    for axes in panels:
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["slope 1.00", "slope 1.50"]
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        np.testing.assert_allclose(axes.lines[1].get_ydata(), [0.08, 8**1.5 / 100, 0.64])
    assert "a machine" in figure.get_suptitle()


@pytest.fixture
def here(monkeypatch, tmp_path):
    """Contestants that work in this process, at a tiny shape, and take 1 second for their first chunk, 2, 3, ..."""

    def take_turns(contestants, jobs):
        def outcome(contestant, job):
            output = contestant(job, lambda: None)
            return turns.Outcome([1.0 + n for n in range(len(job.chunks))], output, 2**30, 1e9, 1e10)

        return [[outcome(*own) for own in zip(contestants, together, strict=True)] for together in jobs]

    for module in (frozen, speed, scaling, prompts, precision, recording):
        monkeypatch.setattr(module, "take_turns", take_turns)
    for name, width in (("tiny", 12), ("gpt2-mini", 8)):
        monkeypatch.setitem(PRESETS, name, dict(n_layer=2, n_head=3 if name == "tiny" else 8, n_embd=width))
    monkeypatch.chdir(tmp_path)


def test_the_effects_of_heads_in_bf16_are_ranked_as_in_fp32(here, checkpoint):
    todo = make_job(checkpoint, [])
    assert 0.9 < precision.correlate_bf16(str(checkpoint), todo.texts, 5, CPU) < 1


@pytest.mark.slow
def test_the_table_and_its_files(here, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed, "console", Console(width=100, highlight=False, markup=False))
    monkeypatch.setattr(speed, "correlate_bf16", lambda *arguments: 0.98765)
    find_spec = speed.importlib.util.find_spec  # transformers asks it, too
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: name != speed.LENS and find_spec(name))
    assert exit_code(monkeypatch, speed, "--quick", "--model", "tiny", "--device", "cpu") == 0
    rows = pd.read_csv("runs/bench/speed.csv")
    hooks = ["headgate", "transformers, hooks"]
    asked = ["headgate", "transformers, cache", "headgate, examples again", "transformers, examples again"]
    trainers = ["Trainer, headgate's batches", "Trainer, its own batches", "Trainer, random order"]
    tuned = ["headgate", *trainers, "headgate", "headgate, blocks in each epoch"]
    assert rows["code"].tolist() == [*tuned, *hooks, *hooks, *asked, "headgate", "transformers, hidden states"]
    tasks = {"fine-tuning": 4, "head alone": 2, "head sweep": 2, "patching": 2, "prompts": 4, "recording": 2}
    assert rows["task"].tolist() == [task for task, n in tasks.items() for _ in range(n)]
    assert rows["heads"].tolist() == [0, 0, 0, 0, 0, 0, 6, 2, 2 * 3 * 20, 2 * 10, 0, 0, 0, 0, 0, 0]
    # In 2, 3 and 4 seconds 3 chunks of 2 batches of 32 texts, of one, of 24 texts, of 2 pairs, of 100 or 8 prompts, and
    # of 192 texts
    rates = [64, 64, 64, 64, 32, 32, 24 * 6, 24 * 2, 2 * 120, 2 * 20, 100, 100, 8, 8, 192, 192]
    np.testing.assert_allclose(rows["per_second"], [n / 3 for n in rates])
    np.testing.assert_allclose(rows["headgate_times"], [1, 1, 1, 1, 1, 1, 1, 3, 1, 6, 1, 1, 12.5, 12.5, 1, 1])
    assert rows["whole_seconds_extrapolated"].iloc[8] == pytest.approx(64 * 120 / 80)
    assert rows["whole_seconds_extrapolated"].iloc[4] == pytest.approx(16_000 / 32 * 3)
    assert (rows["largest_difference"] < 1e-5).all()
    assert (rows["bf16_spearman"] == 0.98765).all()
    heads = rows[rows["task"] == "head sweep"]  # the hooks' product is the whole network for each head
    assert heads["of_remaining"].iloc[1] > heads["utilisation"].iloc[1]
    assert heads["of_remaining"].iloc[0] < heads["utilisation"].iloc[0]
    assert (rows["of_bandwidth"] > 0).all()
    latency = pd.read_csv("runs/bench/latency.csv").loc[0]
    assert latency[["shape", "tokens", "requests"]].tolist() == ["tiny", 20, 50]
    assert 0 < latency["median_ms"] <= latency["p95_ms"]
    grown = pd.read_csv("runs/bench/scaling.csv")
    assert len(grown) == 3 * 2 * (3 + 4)
    assert (grown["seconds"] == 2).all()
    assert (tmp_path / "runs/bench/scaling.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "…" not in out
    assert "fine-tuning, tiny" in out
    assert "3.00 x" in out
    assert "patching, tiny" in out
    assert "6.00 x" in out
    assert "0.9877" in out
    assert "A switch in the live page, tiny in fp32, 20 tokens" in out
    assert "TransformerLens is not installed" in out


def test_an_unknown_shape_is_told(monkeypatch, capsys):
    assert exit_code(monkeypatch, speed, "--model", "gpt-neo-125m") == 2
    assert "--model gpt-neo-125m: expected the shape of a GPT-2" in capsys.readouterr().err
    assert exit_code(monkeypatch, speed, "--model", "gpt5") == 2
    assert "gpt5" in one_line(capsys)


def test_the_weights_that_loading_writes_are_those_that_both_read(tiny, tmp_path):
    import transformers

    assert loading.write_official(tiny, tmp_path) == 4 * sum(p.numel() for p in load_lm(tmp_path).parameters())
    hf = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = torch.arange(1, 12)[None]
    with torch.no_grad():
        torch.testing.assert_close(load_lm(tmp_path)(ids), hf(ids).logits, atol=1e-5, rtol=0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_both_loaders_are_measured(tmp_path):
    loading.write_official(GPT2Config(1, 1, 64), tmp_path)  # 13 MB, mostly the embedding
    for loader in ("headgate", "transformers"):
        measured = loading.measure(loader, str(tmp_path))
        assert measured["seconds"] >= 0
        assert measured["peak_bytes"] >= 0


def test_the_timed_steps_count_together(monkeypatch):
    """For a training takes whole and cut blocks in turn."""
    clock, durations = [0.0], iter([90.0, 50.0, 8.0, 8.0, 9.0, 1.0, 4.0, 1.0, 4.0])
    monkeypatch.setattr(pretraining.time, "perf_counter", lambda: clock[0])

    def step():
        clock[0] += next(durations)

    assert pretraining.tokens_per_second(step, 4, 50) == 20
    assert not [*durations]


@pytest.mark.parametrize("way", range(8))
def test_every_way_of_pretraining_trains(tiny, monkeypatch, way):
    steps, compiled = [], []
    way = pretraining.WAYS[way]
    adamw = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: steps.append(adamw(self)))
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    make = pretraining.prepare_transformers if way.code == "transformers" else pretraining.prepare_headgate
    step = make(tiny, replace(way, sampled=min(way.sampled, 50)), Device.choose("cpu", way.precision))
    assert step() == pytest.approx(math.log(101), abs=1)
    step()
    assert len(steps) == 2
    assert bool(compiled) == way.compiled


@pytest.mark.slow
def test_corpora_of_each_size_are_trained_on_in_processes_of_their_own(monkeypatch, tmp_path, legible):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(corpora.__file__).parents[1]))
    assert exit_code(monkeypatch, corpora, "--texts", "300", "600") == 0
    rows = pd.read_csv("runs/bench/corpora.csv")
    assert [*zip(rows["texts"], rows["stage"], strict=True)] == [(n, s) for n in (300, 600) for s in corpora.STAGES]
    assert (rows["cpu_seconds"] > 0).all()
    for _, peaks in rows.groupby("texts")["peak_bytes"]:
        assert peaks.is_monotonic_increasing
        assert 1e8 < peaks.iloc[0] < peaks.iloc[-1] < 2e9
    assert [*legible] == ["corpora.png"]
    corpora.write_corpus(tmp_path, 1000)
    lines = [(tmp_path / f"{split}.txt").read_text().splitlines() for split in ("train", "val", "test")]
    assert [len(part) for part in lines] == [800, 100, 100]
    for line in chain.from_iterable(lines):
        text, label = line.split(";")
        planted = {word: name for name, own in corpora.PLANTED.items() for word in own}
        assert [planted[word] for word in text.split() if word in planted] == [label]
