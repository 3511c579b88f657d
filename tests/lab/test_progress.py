"""What is said of the time that work takes: the line, and its arithmetic."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from planted import texts_of

import pretrain
import train
from experiments.probe import tasks
from experiments.probe.tasks import PRODUCTS, PRODUCTS_PER_SITE, Probes
from lab import progress, sweeps
from lab.device import Device
from lab.progress import announce_training, forecast, progress_bar
from lab.study import Study
from lab.sweep import Ablation, change_nothing
from lab.sweeps import Plan, Sweeps
from model import GPT2Config

CPU, GPU = Device(torch.device("cpu"), "fp32"), Device(torch.device("cuda"), "bf16")
LABELS = ("anger", "joy", "love")


@pytest.mark.parametrize(("seconds", "minutes"), [(0.1, 1), (89, 1), (91, 2), (3600, 60), (36_000, 600)])
def test_a_forecast_is_the_work_at_the_rate_of_the_device(seconds, minutes):
    assert forecast("7 probes take", 4e9 * seconds, 4e9, CPU) == f"7 probes take about {minutes} min on {CPU}"


def test_the_progress_bar_shows_what_is_done_and_its_note():
    with progress.console.capture() as shown, progress_bar("steps") as bar:
        bar.update(bar.add_task("epoch 1/2", total=11, note=""), completed=7, note="loss 0.3")
    assert re.search(r"epoch 1/2 .*7/11 *steps  loss 0\.3 .*done in", shown.get())


# A training. Its rate is a share of that of products.


@pytest.fixture
def rates(monkeypatch):
    """Products per second, by the type of the device."""
    found = {"cpu": 1e9, "cuda": 1e15}
    monkeypatch.setattr(Device, "product_rate", lambda self: found[self.device.type])
    return found


def announced(capsys, *arguments):
    announce_training(*arguments)
    return re.findall(r"(\S+) takes about (\d+) min on cpu", capsys.readouterr().out)


def test_a_training_is_announced_where_it_is_long_and_so_is_a_shorter_one(rates, capsys):
    an_hour = 3600 * progress.TRAINING_SHARE * 1e9
    assert announced(capsys, CPU, an_hour, an_hour / 12) == [("Training", "60"), ("gpt2-mini", "5")]
    assert announced(capsys, CPU, an_hour, an_hour) == [("Training", "60")]
    assert announced(capsys, CPU, an_hour / 4, 1) == []
    assert announced(capsys, CPU, an_hour / 3.9, an_hour) == [("Training", "15")]
    assert announced(capsys, GPU, 1e30, 1) == []
    rates["cpu"] = 0
    assert announced(capsys, CPU, 800 * progress.SLOWEST, 1) == []  # of which the rate is not asked
    rates["cpu"] = 1e9 / 4
    assert announced(capsys, CPU, an_hour, an_hour / 12) == [("Training", "240"), ("gpt2-mini", "20")]


@pytest.mark.parametrize(("tune", "passes"), [("all", 3), ("head", 1), (4, 2)])
def test_the_work_of_a_training_is_its_passes_through_the_blocks(monkeypatch, tune, passes):
    """A backward pass costs two forward ones; 4 of 12 blocks have a third of both."""
    told = []
    monkeypatch.setattr(train, "announce_training", lambda *work: told.append(work))
    texts = {"train": texts_of("train", [[1] * 7, [2] * 4], [0, 0]), "val": texts_of("val", [[3] * 99], [0])}
    config, mini = GPT2Config.preset("gpt2"), GPT2Config.preset("gpt2-mini")
    passes = 1 + 2 / 3 if tune == 4 else passes
    for device in (CPU, replace(CPU, world=5)):
        train.announce(config, texts, train.Options(epochs=3, tune=tune), device)
        tokens = 3 * 11 / device.world
        assert told.pop() == (device, *(pytest.approx(passes * tokens * own.block_weights) for own in (config, mini)))


@pytest.mark.parametrize(("options", "passes", "of_language"), [({"adapt": 5}, 8, 5), ({"lm_weight": 0.5}, 3, 3)])
def test_the_work_of_a_language_model_is_also_that_of_its_output_layer(monkeypatch, options, passes, of_language):
    told = []
    monkeypatch.setattr(train, "announce_training", lambda *work: told.append(work))
    texts = {"train": texts_of("train", [[1] * 7, [2] * 4], [0, 0]), "val": texts_of("val", [[3] * 99], [0])}
    config, mini = GPT2Config.preset("gpt2"), GPT2Config.preset("gpt2-mini")
    train.announce(config, texts, train.Options(epochs=3, **options), CPU)
    works = [3 * 11 * (passes * own.block_weights + of_language * 3 * own.n_embd) for own in (config, mini)]
    assert told == [(CPU, *map(pytest.approx, works))]  # 3 different tokens


def test_the_work_of_a_pretraining_is_that_of_the_steps_that_are_left(monkeypatch, capsys):
    told = []
    monkeypatch.setattr("experiments.pretrain.training.announce_training", lambda *work: told.append(work))
    config, of_mini = GPT2Config(2, 2, 16, n_ctx=31), GPT2Config.preset("gpt2-mini")
    training = SimpleNamespace(steps=100, step=30, device=CPU, lm=SimpleNamespace(config=config))
    training.options = pretrain.Options("", batch_size=5, sampled=0)
    training.multiply_adds = lambda own: {config: 7, of_mini: 11}[own]
    pretrain.Pretraining.announce(training)
    assert told == [(CPU, 70 * 5 * 31 * 7, 70 * 5 * 31 * 11)]
    assert "70 of 100 steps to do" in capsys.readouterr().out


# The sweep. Its rate is that of a trial batch.


def study_of(clf, sequences, device=CPU):
    """A study of a classifier on such texts in each split."""
    n = len(sequences)
    targets = np.arange(n) % len(clf.labels)
    corpus = SimpleNamespace(files={"a": "1"})
    texts = {split: texts_of(split, sequences, targets) for split in ("train", "val", "test")}
    return Study("runs/one", {}, clf.eval(), None, corpus, texts, device, "weights")


def random_texts(n, lengths, vocab_size=101):
    rng = np.random.default_rng(0)
    return [rng.integers(vocab_size, size=length).tolist() for length in rng.choice(lengths, n)]


def test_the_work_of_a_sweep_is_counted_in_layers_times_tokens(clf, tmp_path):
    own = Sweeps(study_of(clf, [[1] * 5, [2] * 2, [3] * 4]), tmp_path, 0, 0)  # 3 layers, 11 tokens
    last, whole = Ablation("one", change_nothing, start=2), Ablation("two", change_nothing)
    assert own.work([Plan("a", "zero", {"val": [last, whole]})]) == (1 + 3) * 11
    assert own.work([Plan("a", "resample", {"val": [last]})]) == 10 * 11
    assert (
        own.work([Plan("a", "zero", {"val": [last], "test": [whole, whole]}), Plan("b", "mean", {"val": [last]})])
        == (1 + 6 + 1) * 11
    )


@pytest.mark.parametrize("slower", [1, 4])
def test_the_rate_of_a_sweep_is_that_of_a_trial_batch(clf, tmp_path, monkeypatch, slower):
    """Every third of 15 heads, on the three texts of middling length; 100 s of start-up do not count."""
    seconds, now, batches = iter([100, 7 * slower]), [0], []

    def trial(batch, heads, own, device):
        now[0] += next(seconds)
        batches.append(batch)
        assert [(head.layer, head.head) for head in heads] == [(0, 0), (0, 3), (1, 1), (1, 4), (2, 2)]

    monkeypatch.setattr(Sweeps, "ablate_batch", staticmethod(trial))
    monkeypatch.setattr(sweeps.time, "perf_counter", lambda: now[0])
    study = study_of(clf, [[1] * n for n in (5, 3, 11, 13, 2)], replace(CPU, world=3))
    rate = Sweeps(study, tmp_path, 0, 0).rate()
    assert batches[0].ids.shape == (3, 5)
    layers = 3 + 3 + 2 + 2 + 1
    assert rate == pytest.approx(3 * layers * 15 / (7 * slower))


# The probes. Their rate is that of the CPU, whatever computes the activations.


@pytest.mark.parametrize(("cores", "threads", "workers"), [(2, 2, 2), (16, 8, 4), (1, 1, 1)])
def test_the_rate_of_the_probes_is_that_of_their_workers_on_the_cpu(rates, monkeypatch, cores, threads, workers):
    monkeypatch.setattr("experiments.probe.linear.cpu_count", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert tasks.fitting_rate() == workers * rates["cpu"] / threads
    rates["cpu"] /= 4
    assert tasks.fitting_rate() == workers * 1e9 / 4 / threads


@pytest.mark.parametrize("device", [CPU, GPU])
def test_the_forecast_of_the_probes_is_that_of_the_cpu(clf, rates, monkeypatch, tmp_path, capsys, device):
    """2 tasks at 22 sites: 7 streams and MLPs of 35 features, 15 heads of 7."""
    assert Probes(study_of(clf, [[1]]), tmp_path, 0).work([]) == 0
    rows = np.repeat(["train", "val", "test"], [13, 3, 5])
    both = [SimpleNamespace(split=rows, names=names) for names in ("ab", "abcde")]
    own = Probes(study_of(clf, [[1]], device), tmp_path, 0)
    assert own.work(both) == PRODUCTS * 13 * (2 + 5) * (7 * 35 + 15 * 7) + PRODUCTS_PER_SITE * 2 * 22
    monkeypatch.setattr(own, "run_job", lambda *arguments: iter([]))
    monkeypatch.setattr(own, "work", lambda probed: 3 * 3600 * tasks.fitting_rate())
    columns = ["head", "control", "selectivity", "bits", "compression"]
    monkeypatch.setattr(pd, "concat", lambda tables, **options: pd.DataFrame(columns=columns))
    own.run([SimpleNamespace(name="texts", tasks={("emotion", "last"): both[0]})])
    assert f"44 probes take about 180 min on {CPU}" in " ".join(capsys.readouterr().out.split())
