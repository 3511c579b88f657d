"""The benchmarks, at tiny size: that they measure what they say."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from lab.device import Device
from model import GPT2Config, load_lm

BENCH = Path(__file__).parent.parent / "bench"


def imported(name):
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def loading():
    return imported("loading")


def test_the_weights_that_loading_writes_are_those_that_both_read(loading, tiny, tmp_path):
    assert loading.write_official(tiny, tmp_path) == 4 * sum(p.numel() for p in load_lm(tmp_path).parameters())
    hf = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = torch.arange(1, 12)[None]
    with torch.no_grad():
        torch.testing.assert_close(load_lm(tmp_path)(ids), hf(ids).logits, atol=1e-5, rtol=0)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_both_loaders_are_measured(loading, tmp_path):
    loading.write_official(GPT2Config(1, 1, 64), tmp_path)  # 13 MB, mostly the embedding
    for loader in ("headgate", "transformers"):
        measured = loading.measure(loader, str(tmp_path))
        assert measured["seconds"] >= 0
        assert measured["peak_bytes"] >= 0


def test_the_median_of_the_timed_steps_counts(monkeypatch):
    pretraining, clock, durations = imported("pretraining"), [0.0], iter([90.0, 50.0, 2.5, 1.0, 70.0, 2.5, 3.0])
    monkeypatch.setattr(pretraining.time, "perf_counter", lambda: clock[0])

    def step():
        clock[0] += next(durations)

    assert pretraining.tokens_per_second(step, 5, 50) == 20


@pytest.mark.parametrize("way", range(8))
def test_every_way_of_pretraining_trains(tiny, monkeypatch, way):
    pretraining, steps, compiled = imported("pretraining"), [], []
    way = pretraining.WAYS[way]
    adamw = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: steps.append(adamw(self)))
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    make = pretraining.peer if way.code == "transformers" else pretraining.ours
    step = make(tiny, replace(way, sampled=min(way.sampled, 50)), Device.choose("cpu", way.precision))
    assert step() == pytest.approx(math.log(101), abs=1)
    step()
    assert len(steps) == 2
    assert bool(compiled) == way.compiled
