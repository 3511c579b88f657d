"""`pretrain.py` from the command line to the files of a run, on a network small enough to train in seconds."""

import json
import math
import re
from pathlib import Path

import commands
import numpy as np
import pandas as pd
import pytest
import torch
from commands import one_line
from small_run import write_shape
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import lab.heads
import lab.state
import pretrain
from data.books import read_books
from experiments.pretrain import training as pretraining
from experiments.pretrain.softmax import SampledSoftmax
from lab import output, progress
from lab.device import Device
from lab.state import read_state
from model import GPT2Config, Tokenizer, load_lm
from model.layouts import config_to_hf

FAST = ("--batch-size", "2", "--epochs", "2", "--lr", "0.02", "--device", "cpu")
FILES = {
    *("config.json", "model.safetensors", "vocab.json", "merges.txt", "tokenizer_config.json"),
    *(".lock", "run.json", "metrics.json", "log.jsonl", "learning_curves.png", "heads.csv", "heads.png", "sample.txt"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder with a text in which every word says the next one, and the shape of a tiny model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretraining, "EVALUATIONS", 4)
    order = np.random.default_rng(0).integers(3, size=600)
    sentences = ["the cat sat on a mat.", "my old dog ran home.", "she said that it rained."]
    book = "\n".join(sentences[i] for i in order)
    (tmp_path / "books.txt").write_text(f"{book}\n<|endoftext|>\n{book[6000:8000]}\n")
    write_shape(tmp_path / "tiny", GPT2Config(2, 2, 16, n_ctx=31))
    return tmp_path


def run_pretrain(monkeypatch, *arguments):
    """The exit code of `python pretrain.py arguments`."""
    return commands.exit_code(monkeypatch, pretrain, *arguments)


def pretrain_tiny(monkeypatch, name, *arguments):
    return run_pretrain(monkeypatch, "--model", "tiny", "--corpus", "books.txt", "--run", name, *FAST, *arguments)


def log_of(run):
    return pd.read_json(Path("runs", run, "log.jsonl"), lines=True)


@pytest.fixture
def only_trained(monkeypatch):
    """Training alone: the heads and the pictures take longer than the tiny training."""
    monkeypatch.setattr(pretrain, "finish", lambda run, *others: None)


def test_a_run_learns_and_leaves_everything(here, monkeypatch, capsys):
    assert pretrain_tiny(monkeypatch, "one", "--sampled", "64") == 0
    run = here / "runs" / "one"
    assert {path.name for path in run.iterdir()} == FILES
    log = log_of("one")
    held_out = log[log["split"] == "held-out"]
    assert held_out["loss"].iloc[0] == pytest.approx(math.log(50257), rel=0.02)
    assert held_out["loss"].iloc[-1] < 4
    steps = 2 * ((read_books("books.txt", Tokenizer.load("tiny")).train.numel() // 31 - 1) // 2)
    assert held_out["step"].tolist() == [0, *(min(steps, n * math.ceil(steps / 4)) for n in (1, 2, 3, 4))]
    assert held_out["tokens"].tolist() == [62 * step for step in held_out["step"]]
    heads = pd.read_csv(run / "heads.csv")
    assert heads.groupby("weights", sort=False).size().to_dict() == {"trained": 4, "random": 4}
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["settings"]["sampled"] == 64
    assert record["model"]["init"] == "random"
    assert record["corpus"]["books"] == {"train": 1, "held_out": 1}
    assert not (here / "runs" / "latest").exists()  # only train.py moves it
    out = capsys.readouterr().out
    for start in pretrain.PROMPTS:
        assert start in out
        assert start in (run / "sample.txt").read_text()


@pytest.mark.slow
def test_the_scores_are_those_of_the_weights_that_were_kept(here, monkeypatch):
    assert pretrain_tiny(monkeypatch, "one") == 0
    lm, tokens = load_lm("runs/one"), read_books("books.txt", Tokenizer.load("tiny")).held_out.long()
    blocks = [tokens[start : start + 32] for start in range(0, len(tokens) - 31, 31)]
    with torch.no_grad():
        losses = [F.cross_entropy(lm(block[None, :-1])[0], block[1:]).item() for block in blocks]
    scores = json.loads(Path("runs/one/metrics.json").read_text())["held_out"]
    assert scores["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert scores["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert scores["tokens"] == 31 * len(blocks)


@pytest.mark.slow
def test_the_lowest_held_out_loss_is_kept(here, monkeypatch, only_trained):
    losses, measured, kept = [5.0, 3.0, 4.0, 2.0, 6.0], [], []
    monkeypatch.setattr(pretraining, "held_out_loss", lambda *_: measured.append(losses[len(measured)]) or measured[-1])
    monkeypatch.setattr(pretraining, "save", lambda *_: kept.append(measured[-1]))
    assert pretrain_tiny(monkeypatch, "one") == 0
    assert kept == [5, 3, 2]


def interrupted_at(monkeypatch, module, name, call):
    """Ctrl-C when this function of the module is called for this time; returns the list of its calls."""
    original, calls = getattr(module, name), []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, interrupted)
    return calls


def same_training(one, other):
    pd.testing.assert_frame_equal(log_of(one).drop(columns="seconds"), log_of(other).drop(columns="seconds"))
    for ours, expected in zip(load_lm(f"runs/{one}").parameters(), load_lm(f"runs/{other}").parameters(), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--sampled", "64"), ("--sampled", "0", "--dropout", "0.3")], ids=str)
def test_an_interrupted_training_goes_on_as_if_nothing_had_been(here, monkeypatch, capsys, only_trained, options):
    assert pretrain_tiny(monkeypatch, "whole", *options) == 0
    steps = interrupted_at(monkeypatch, torch.Tensor, "backward", 100)
    assert pretrain_tiny(monkeypatch, "parts", *options) == 130
    assert "the same command with --resume goes on with it" in " ".join(capsys.readouterr().out.split())
    first = json.loads(Path("runs/parts/run.json").read_text())
    assert first["status"] == "unfinished"
    torch.manual_seed(12345)
    assert pretrain_tiny(monkeypatch, "parts", *options) == 0
    total = log_of("whole")["step"].max()
    assert len(steps) < 100 + total  # it did not begin anew
    assert re.search(rf"(\d+) of {total} steps to do", capsys.readouterr().out)[1] != str(total)
    same_training("parts", "whole")
    states = [read_state(Path(f"runs/{name}/state.safetensors"))["parts"][0] for name in ("parts", "whole")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    record = json.loads(Path("runs/parts/run.json").read_text())
    assert record["started"] == first["started"]
    assert [again["command"] for again in record["resumed"]] == [first["command"]]


POINTS = {
    "weights": (pretraining, "save", 3),
    "state": (lab.state, "save_file", 3),
    "heads": (lab.heads, "score_heads", 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_wherever_it_is_interrupted_the_run_ends_whole(here, monkeypatch, point):
    assert pretrain_tiny(monkeypatch, "whole", "--epochs", "0.5") == 0
    interrupted_at(monkeypatch, *POINTS[point])
    assert pretrain_tiny(monkeypatch, "parts", "--epochs", "0.5") == 130
    assert pretrain_tiny(monkeypatch, "parts", "--epochs", "0.5") == 0
    assert {path.name for path in Path("runs/parts").iterdir()} == FILES
    same_training("parts", "whole")
    for name in ("metrics.json", "heads.csv", "sample.txt"):
        assert Path("runs/parts", name).read_bytes() == Path("runs/whole", name).read_bytes()


def test_every_step_and_seed_draws_other_tokens(here, monkeypatch, only_trained):
    drawn, draw = [], SampledSoftmax.draw
    monkeypatch.setattr(SampledSoftmax, "draw", lambda self: drawn.append(draw(self)) or drawn[-1])
    for seed in ("0", "1"):
        assert pretrain_tiny(monkeypatch, seed, "--seed", seed, "--sampled", "64", "--epochs", "0.2") == 0
    assert len(drawn) > 10
    assert len({tuple(tokens.tolist()) for tokens in drawn}) == len(drawn)


@pytest.mark.slow
def test_with_other_settings_or_another_text_an_unfinished_run_is_not_touched(here, monkeypatch, capsys, only_trained):
    assert pretrain_tiny(monkeypatch, "one") == 0  # never finished: `finish` is left out
    before = Path("runs/one/state.safetensors").read_bytes()
    assert pretrain_tiny(monkeypatch, "one", "--weight-decay", "0.5") == 2
    assert "--weight-decay 0.1, now 0.5" in one_line(capsys)
    (here / "books.txt").write_text((here / "books.txt").read_text().replace("cat", "cow"))
    assert pretrain_tiny(monkeypatch, "one") == 2
    assert "--corpus" in one_line(capsys)
    (here / "tiny" / "config.json").write_text(json.dumps(config_to_hf(GPT2Config(2, 2, 16, n_ctx=29))))
    assert pretrain_tiny(monkeypatch, "one") == 2
    assert "--model" in one_line(capsys)
    assert Path("runs/one/state.safetensors").read_bytes() == before


def test_a_name_that_is_taken(here, monkeypatch, capsys):
    assert pretrain_tiny(monkeypatch, "one", "--epochs", "0.1") == 0
    capsys.readouterr()
    assert pretrain_tiny(monkeypatch, "one", "--epochs", "0.1") == 2
    assert "got one that is taken" in one_line(capsys)
    Path("runs/other").mkdir()
    output.write_json(Path("runs/other/run.json"), {"status": "unfinished", "settings": {"epochs": 3}})  # of train.py
    assert pretrain_tiny(monkeypatch, "other") == 2
    assert "not as this pretrain.py writes it; move it away, or choose another --run" in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--corpus", "none.txt"), "none.txt: expected a text file, found nothing"),
        (("--epochs", "-1"), "--epochs -1.0: expected at least 0"),
        (("--batch-size", "0"), "--batch-size 0: expected at least 1"),
        (("--batch-size", "1000"), "take a longer text or a smaller --batch-size"),
        (("--lr", "0"), "--lr 0.0: expected at least 1e-09"),
        (("--dropout", "1"), "--dropout 1.0: expected at least 0 and below 1"),
        (("--sampled", "-4"), "--sampled -4: expected at least 0"),
        (("--model", "gpt9"), "model 'gpt9'"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(here, monkeypatch, capsys, arguments, expected):
    assert pretrain_tiny(monkeypatch, "one", *arguments) == 2
    assert expected in one_line(capsys)
    assert not (here / "runs").exists()


def test_a_loss_that_explodes_is_one_line(here, monkeypatch, capsys):
    assert pretrain_tiny(monkeypatch, "one", "--lr", "1e30") == 2
    assert "begin anew with a lower --lr" in one_line(capsys)


def test_weights_that_explode_in_the_last_step_do_not_replace_good_ones(here, monkeypatch, capsys):
    losses = iter([5.0, math.nan])
    monkeypatch.setattr(pretraining, "held_out_loss", lambda *_: next(losses))
    assert pretrain_tiny(monkeypatch, "one") == 2
    assert "the loss became nan before step" in one_line(capsys)
    assert read_state(Path("runs/one/state.safetensors"))["step"] == 0


def test_a_tokenizer_with_more_tokens_than_the_model_is_one_line(here, monkeypatch, capsys):
    (here / "tiny" / "config.json").write_text(
        json.dumps(config_to_hf(GPT2Config(2, 2, 16, n_ctx=31, vocab_size=5003)))
    )
    assert pretrain_tiny(monkeypatch, "one") == 2
    assert "the tokenizer has 50257 tokens, the model only 5003" in one_line(capsys)


@pytest.mark.slow
def test_training_compiles_to_one_graph(here, monkeypatch, only_trained):
    torch._dynamo.reset()
    counter, compiled = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compiled(function, fullgraph=True, backend=counter))
    assert pretrain_tiny(monkeypatch, "one", "--compile", "on", "--epochs", "0.2", "--sampled", "64") == 0
    assert counter.frame_count == 1
    assert pretrain_tiny(monkeypatch, "two", "--epochs", "0.2", "--sampled", "64") == 0
    np.testing.assert_allclose(log_of("one")["loss"], log_of("two")["loss"], rtol=1e-4)
    torch._dynamo.reset()


def test_defaults_follow_from_the_device():
    options = pretrain.Options("books.txt")
    cpu, gpu = options.resolved(False, 50257), options.resolved(True, 50257)
    assert (cpu.epochs, cpu.dropout, cpu.sampled) == (5, 0.0, 4096)
    assert (gpu.epochs, gpu.dropout, gpu.sampled) == (20, 0.1, 0)
    complete = pretrain.Options("books.txt", epochs=5, dropout=0.0, sampled=7)
    assert complete.resolved(False, 50257) == complete == complete.resolved(True, 50257)
    assert options.resolved(False, 300).sampled == 0  # all of them


def untrained(config, sampled):
    """A training of this shape that has not begun."""
    books = read_books("books.txt", Tokenizer.load("tiny"))
    options = pretrain.Options("books.txt", batch_size=2, sampled=sampled).resolved(False, 50257)
    return pretrain.Pretraining(pretrain.GPT2LM(config), books, options, Device(torch.device("cpu"), "fp32"))


def test_the_arithmetic_of_a_step_is_what_torch_counts(here):
    config = GPT2Config(2, 2, 64, n_ctx=31, dropout=0.0, attn_dropout=0.0)
    for sampled in (0, 64):
        training = untrained(config, sampled)
        drawn = training.softmax.draw() if sampled else None
        with FlopCounterMode(display=False) as counted:
            training.batch_loss(torch.randint(50257, (2, 32)), drawn).backward()
        assert 62 * training.multiply_adds(config) == pytest.approx(counted.get_total_flops() / 2, rel=0.1)


def test_blocks_are_cut_short_in_three_steps_of_four(here, monkeypatch):
    monkeypatch.setattr(pretraining, "SHORT", 5)
    training = untrained(GPT2Config(2, 2, 16, n_ctx=15, dropout=0.0, attn_dropout=0.0), 0)
    blocks = torch.arange(2 * 16).reshape(2, 16)
    whole = [training.cut(blocks).shape[1] == 16 for training.step in range(9)]
    assert whole == [True, *3 * [False], True, *3 * [False], True]
    training.step = 1
    pieces = training.cut(blocks)
    assert pieces.shape == (6, 6)
    assert pieces[:, :-1].flatten().tolist() == blocks[:, :-1].flatten().tolist()  # each token is read once
    assert pieces[:, 1:].flatten().tolist() == blocks[:, 1:].flatten().tolist()  # and each is once a target
    training = untrained(GPT2Config(2, 2, 16, n_ctx=13, dropout=0.0, attn_dropout=0.0), 0)
    assert all(training.cut(blocks) is blocks for training.step in range(5))  # 13 is no multiple of 5


def test_the_arithmetic_counts_what_is_cut(here, monkeypatch):
    config = GPT2Config(2, 2, 64, n_ctx=40, dropout=0.0, attn_dropout=0.0)
    plain = untrained(config, 0).multiply_adds(config)
    monkeypatch.setattr(pretraining, "SHORT", 8)
    attention = 3 * 2 * 64  # a backward pass costs two forward ones; layers; width
    assert plain - untrained(config, 0).multiply_adds(config) == attention * (40 - (40 + 3 * 8) / 4)


def test_a_long_training_on_a_cpu_is_announced(here, monkeypatch, capsys, only_trained):
    options = ("--epochs", "0.1", "--compile", "off", "--precision", "fp32")
    monkeypatch.setattr(progress, "SLOWEST", 1e4)
    monkeypatch.setattr(Device, "product_rate", lambda self: 1e4)
    assert pretrain_tiny(monkeypatch, "slow", *options) == 0
    said = re.search(r"of (\d+) steps to do.*about (\d+) min on cpu", " ".join(capsys.readouterr().out.split()))
    steps, minutes = map(int, said.groups())
    config = GPT2Config(2, 2, 16, n_ctx=31)
    assert minutes == round(steps * 62 * untrained(config, 4096).multiply_adds(config) / 0.6e4 / 60)
    monkeypatch.setattr(Device, "product_rate", lambda self: 1e9)
    assert pretrain_tiny(monkeypatch, "fast", *options) == 0
    assert "takes about" not in capsys.readouterr().out


@pytest.mark.slow
def test_bf16_learns_too(here, monkeypatch, only_trained):
    assert pretrain_tiny(monkeypatch, "one", "--precision", "bf16", "--epochs", "0.5") == 0
    assert log_of("one")["loss"].iloc[-1] < 8
