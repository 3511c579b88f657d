"""What the kept results of probes depend on, and that nothing is computed twice."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.probe import tasks
from experiments.probe.linear import Task
from experiments.probe.sources import Source
from experiments.probe.tasks import Probes
from lab.device import Device
from lab.study import Study
from model import GPT2
from model.files import read_json

KEY = "length", "word"
CPU = Device(torch.device("cpu"), "fp32")


@pytest.fixture
def study(clf):
    corpus = SimpleNamespace(files={"x": "12"})
    return Study(None, {}, clf.eval(), None, corpus, None, CPU, "34")


def task(**changes):
    """Whether a text begins with an even token, of 40 texts; one word of each is kept."""
    y, split = np.arange(40) % 2, np.resize(["train", "train", "val", "test"], 40)
    return replace(Task(y, ("odd", "even"), split, np.arange(40), np.roll(y, 1)), **changes)


def source(own=None, sequences=None, positions=None):
    sequences = [[i, i + 1, i + 2] for i in range(40)] if sequences is None else sequences
    positions = [np.array([0])] * 40 if positions is None else positions
    return Source("words", sequences, {"word": positions}, {KEY: own or task()}, ["x"] * 40)


def changed(array, i=0):
    return np.where(np.arange(len(array)) == i, 1 - array, array)


SOURCES = {
    "texts": source(sequences=[[i + 1, i + 1, i + 2] for i in range(40)]),
    "positions": source(positions=[np.array([1])] * 40),
    "labels": source(task(y=changed(task().y))),
    "names": source(task(names=("no", "yes"))),
    "split": source(task(split=np.resize(["train", "test", "val", "train"], 40))),
    "which words are of one text": source(task(text=np.arange(40) // 2)),
    "control": source(task(control=changed(task().control))),
    "no control": source(task(control=None)),
}


@pytest.mark.parametrize("what", SOURCES)
def test_the_identity_is_another_where_the_rows_are(study, tmp_path, what):
    probes = Probes(study, tmp_path, 0)
    own = probes.identity("trained", source(), KEY)
    assert own == probes.identity("trained", source(), KEY)
    assert own != probes.identity("trained", SOURCES[what], KEY)


STUDIES = {
    "weights": lambda own: replace(own, weights="35"),
    "corpus": lambda own: replace(own, corpus=SimpleNamespace(files={"x": "13"})),
    "precision": lambda own: replace(own, device=Device(CPU.device, "bf16")),
}


@pytest.mark.parametrize("what", [*STUDIES, "network", "seed", "strengths"])
def test_the_identity_is_another_where_the_network_or_the_seed_is(study, tmp_path, monkeypatch, what):
    own = Probes(study, tmp_path, 0).identity("trained", source(), KEY)
    other = STUDIES[what](study) if what in STUDIES else study
    if what == "strengths":
        monkeypatch.setattr(tasks, "STRENGTHS", (0.5,))
    seed, network = int(what == "seed"), "random" if what == "network" else "trained"
    found = Probes(other, tmp_path, seed).identity(network, source(), KEY)
    assert [name for name in own if own[name] != found[name]] == [what]


@pytest.fixture
def calls(monkeypatch):
    """How often activations were recorded, and tasks done."""
    found = {"record": 0, "score_sites": 0}

    def counted(name):
        plain = getattr(tasks, name)

        def call(*arguments):
            found[name] += 1
            return plain(*arguments)

        monkeypatch.setattr(tasks, name, call)

    for name in found:
        counted(name)
    monkeypatch.setattr(tasks, "fitting_rate", lambda: 1e12)
    return found


def test_what_is_kept_is_not_computed_again_and_what_is_not_is(study, tmp_path, calls):
    probes = Probes(study, tmp_path, 0)
    probes.sites = probes.sites[:1] + probes.sites[4:7]  # one of the stream, three heads
    first = probes.run([source()])
    assert calls == {"record": 1, "score_sites": 1}
    again = probes.run([source()])
    assert calls == {"record": 1, "score_sites": 1}
    for name, table in first.items():
        pd.testing.assert_frame_equal(again[name], table)
    assert not list(tmp_path.glob(".*"))  # the activations are gone
    other = probes.run([SOURCES["labels"]])
    assert calls == {"record": 2, "score_sites": 2}
    assert not other["probes"].equals(first["probes"])
    kept = read_json(tmp_path / "trained-length-word.json")
    assert kept["about"] == probes.identity("trained", SOURCES["labels"], KEY)


def test_only_what_is_missing_is_computed(study, tmp_path, calls):
    """Two tasks on the same rows, of which one is kept."""
    probes = Probes(study, tmp_path, 0)
    probes.sites = probes.sites[:1] + probes.sites[4:7]
    one, key = source(), ("position", "word")
    probes.run([one])
    both = replace(one, tasks={**one.tasks, key: task(y=changed(task().y))})
    table = probes.run([both])["probes"]
    assert calls == {"record": 2, "score_sites": 2}
    assert set(table["property"]) == {"length", "position"}
    assert (table.groupby("property").size() == 4).all()


def test_the_random_weights_are_not_those_that_a_training_with_this_seed_begins_with(study, tmp_path):
    def weights(trunk):
        return trunk.h[0].attn.c_attn.weight

    one, same, other = (weights(Probes(study, tmp_path, seed).random) for seed in (3, 3, 4))
    torch.manual_seed(3)
    assert (one == same).all()
    assert (one != other).any()
    assert (one != weights(GPT2(study.clf.config))).any()


def test_a_network_of_random_weights_is_probed_for_some_properties_alone(study, tmp_path, calls):
    probes = Probes(study, tmp_path, 0)
    probes.sites = probes.sites[:1] + probes.sites[4:7]
    of_text = replace(source(), name="texts", tasks={("emotion", "word"): task(control=None)})
    found = probes.run([of_text, source()])
    assert calls == {"record": 3, "score_sites": 3}
    table = found["probes"]
    assert set(map(tuple, table[["property", "network"]].drop_duplicates().to_numpy())) == {
        ("emotion", "trained"),
        ("emotion", "random"),
        ("length", "trained"),
    }
    assert set(found["profiles"]["network"]) == {"trained"}
    emotion, length = table["property"] == "emotion", table["property"] == "length"
    assert table.loc[emotion, ["bits", "compression"]].notna().all(axis=None)
    assert table.loc[emotion, ["control", "selectivity"]].isna().all(axis=None)
    assert table.loc[length, ["bits", "compression"]].isna().all(axis=None)
    assert table.loc[length, ["control", "selectivity"]].notna().all(axis=None)
    trained, random = (table[emotion & (table["network"] == network)] for network in ("trained", "random"))
    assert trained["correct"].tolist() != random["correct"].tolist()
