"""`probe.py` from the command line to its tables, and a control: a property that is planted in one head."""

import json
from pathlib import Path

import commands
import numpy as np
import pandas as pd
import pytest
import torch
from commands import one_line
from planted import planted, planted_texts
from small_run import WORDS

import lab.probes
import probe
from lab.activations import record, sites
from lab.device import Device
from lab.probing import Task, control_by_text, probe_sites
from model import GPT2LM, GPT2Config, Tokenizer, save

PROBES = {"property", "network", "reading", "kind", "layer", "head", "C", "n", "val_accuracy", "accuracy"}
PROBES |= {"ci_low", "ci_high", "macro_f1", "control", "selectivity", "bits", "compression"}


def run_probe(monkeypatch, *arguments):
    """The exit code of `python probe.py arguments`."""
    return commands.exit_code(monkeypatch, probe, "--device", "cpu", "--words", "500", *arguments)


def table(name, folder="probe"):
    return pd.read_csv(f"runs/one/{folder}/{name}.csv", keep_default_na=False, na_values={"layer": "", "head": ""})


def test_all_of_it_lands_in_the_runs_folder(here, monkeypatch, capsys):
    assert run_probe(monkeypatch) == 0
    folder, out = Path("runs/one/probe"), " ".join(capsys.readouterr().out.split())
    assert "probes take about" in out
    assert "the property sentiment is left out" in out  # nltk has no data here
    assert "the property part of speech is left out" in out
    probes = table("probes")
    assert set(probes) == PROBES
    assert set(map(tuple, probes[["property", "network", "reading"]].drop_duplicates().to_numpy())) == {
        *(("emotion", network, reading) for network in ("trained", "random") for reading in ("last", "mean")),
        *((name, "trained", "word") for name in ("negated", "length", "position")),
    }
    assert (probes.groupby(["property", "network", "reading"]).size() == 3 + 2 * 3 + 2).all()
    assert set(probes.loc[probes["property"] == "emotion", "n"]) == {18}  # a tenth of the file, all of test
    assert set(table("baselines")["baseline"]) == {"most frequent class", "word type", "bag of words"}
    assert list(table("profiles").groupby(["property", "reading"])["n_heads"].apply(list).iloc[0]) == [1, 2, 4]
    assert set(table("lens")["class"]) == {"all", *WORDS}
    assert not (folder / "agreement.csv").exists()
    pictures = {"layers.png", "heads.png", "profiles.png", "lens.png", "contributions.png", "texts.png"}
    assert {path.name for path in folder.glob("*.png")} == pictures
    assert "python probe.py --device cpu --words 500" in (folder / "report.md").read_text()


@pytest.mark.slow
def test_the_class_lens_ends_at_the_runs_own_predictions(here, monkeypatch):
    assert run_probe(monkeypatch) == 0
    last = table("lens").query("layer == 2").set_index("class")
    metrics = json.loads(Path("runs/one/metrics.json").read_text())["test"]
    assert last.loc["all", "accuracy"] == pytest.approx(metrics["accuracy"])
    for label in WORDS:
        assert last.loc[label, "accuracy"] == pytest.approx(metrics["per_class"][label]["recall"])
    assert (last["decided"] == 1).all()


@pytest.mark.slow
def test_beside_ablation_it_says_whether_the_two_agree(here, monkeypatch):
    Path("runs/one/ablate").mkdir()
    heads = [(layer, head) for layer in range(2) for head in range(3)]
    key = {"kind": "head", "region": "", "fill": "zero", "split": "test"}
    rows = [
        {**key, "layer": layer, "head": head, "class": label, "metric": metric, "effect": -0.1 * layer - 0.01 * head}
        for layer, head in heads
        for label, metric in [("all", "log_prob"), ("joy", "specific_margin")]
    ]
    pd.DataFrame(rows).to_csv("runs/one/ablate/effects.csv", index=False)
    assert run_probe(monkeypatch) == 0
    agreement = table("agreement").set_index(["property", "reading", "class"])
    heads = table("probes").query("kind == 'head' and network == 'trained' and property == 'length'")
    ranks = heads["accuracy"].rank().to_numpy(), np.arange(6)  # in order of layer and head, effects grow
    for label in ("all", "joy"):
        assert agreement.loc[("length", "word", label), "spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


@pytest.mark.slow
def test_an_interrupted_experiment_goes_on_and_does_nothing_twice(here, monkeypatch):
    done, probed = [], lab.probes.probed

    def interrupted(*arguments):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(arguments)
        return probed(*arguments)

    monkeypatch.setattr(lab.probes, "probed", interrupted)
    assert run_probe(monkeypatch) == 130
    assert not Path("runs/one/probe/probes.csv").exists()
    monkeypatch.setattr(lab.probes, "probed", lambda *arguments: done.append(arguments) or probed(*arguments))
    assert run_probe(monkeypatch) == 0
    assert len(done) == 7
    first = Path("runs/one/probe/probes.csv").read_bytes()
    Path("runs/one/probe/agreement.csv").write_text("of an earlier call, beside ablate/")
    assert run_probe(monkeypatch) == 0
    assert len(done) == 7
    assert Path("runs/one/probe/probes.csv").read_bytes() == first
    assert not Path("runs/one/probe/agreement.csv").exists()
    assert not [path for path in Path("runs/one/probe/tasks").iterdir() if path.is_dir()]  # activations are gone
    assert run_probe(monkeypatch, "--seed", "1") == 0
    assert len(done) == 14


def test_a_network_that_was_never_fine_tuned_is_probed_on_the_runs_texts(here, monkeypatch, capsys):
    torch.manual_seed(0)
    save(GPT2LM(GPT2Config(1, 2, 10, n_ctx=17)), "never", Tokenizer.load("gpt2-mini"))
    assert run_probe(monkeypatch, "--model", "never") == 0
    assert "no class lens" in " ".join(capsys.readouterr().out.split())
    probes = table("probes", "probe-never")
    assert set(probes["layer"]) == {0, 1}
    assert not Path("runs/one/probe-never/lens.csv").exists()
    assert not Path("runs/one/probe").exists()


MISTAKES = {
    "no run": (("--run", "two"), "make train"),
    "texts": (("--texts", "3"), "--texts 3: expected at least 100"),
    "model": (("--model", "nothing"), "nothing"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(here, monkeypatch, capsys, mistake):
    arguments, expected = MISTAKES[mistake]
    assert run_probe(monkeypatch, *arguments) == 2
    assert expected in one_line(capsys)


def test_a_property_that_is_planted_in_one_head_is_found_there(tmp_path):
    sequences, targets = planted_texts()
    clf, y = planted().eval(), np.concatenate([own == 0 for own in targets.values()]).astype(int)
    split = np.repeat(list(targets), [len(own) for own in targets.values()])
    task = Task(y, ("other", "a"), split, control_by_text(y, 0))
    texts = [ids for own in sequences.values() for ids in own]
    last = [np.array([len(ids) - 1]) for ids in texts]
    read = record(clf.trunk, texts, {"last": last}, tmp_path, Device(torch.device("cpu"), "fp32"))["last"]
    heads = [site for site in sites(clf.config) if site.kind == "head"]
    found = dict(zip(heads, probe_sites(read, heads, task, 0, lambda: None), strict=True))
    most = max((y[split == "test"] == k).mean() for k in (0, 1))
    for site, score in found.items():
        if (site.layer, site.head) == (1, 2):
            assert score.accuracy == 1
            assert score.selectivity > 0.2
        else:
            assert score.accuracy < most + 0.05
