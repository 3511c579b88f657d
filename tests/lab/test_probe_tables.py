"""The tables of `probe.py`, against cases that are worked out by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from lab import probe_tables
from lab.activations import Site, record
from lab.device import Device
from lab.lens import Part
from lab.probe_sources import SHARES, of_texts, of_words
from lab.probing import Task, code_length, probe
from lab.study import Part as Texts
from model import Tokenizer

LABELS = ("a", "b")


@pytest.fixture(scope="module")
def read(clf_reference, tmp_path_factory):
    """Activations of 60 texts at their first token, and a task on them: the parity of that token."""
    rng = np.random.default_rng(0)
    texts = rng.integers(0, 101, (60, 5)).tolist()
    y = np.array([ids[0] % 2 for ids in texts])
    task = Task(y, LABELS, np.repeat(["train", "val", "test"], 20), rng.permutation(y))
    first = [np.array([0])] * 60
    cpu = Device(torch.device("cpu"), "fp32")
    folder = tmp_path_factory.mktemp("activations")
    return record(clf_reference.ours.trunk, texts, {"first": first}, folder, cpu)["first"], task


def test_each_site_has_the_score_of_a_probe_and_the_code_of_texts_not_trained_on(read):
    activations, task = read
    chosen, advanced = [Site("resid", 0), Site("head", 1, 2), Site("mlp", 2)], []
    rows = probe_tables.probed(activations, chosen, task, 0, True, lambda: advanced.append(1))
    assert len(advanced) == 3
    for site, row in zip(chosen, rows, strict=True):
        x, score = activations.of(site), probe(activations.of(site), task, 0)
        assert (row["kind"], row["layer"], row["head"]) == (site.kind, site.layer, site.head)
        assert (row["accuracy"], row["control"], row["n"]) == (score.accuracy, score.control, 20)
        assert row["selectivity"] == score.accuracy - score.control
        assert row["bits"] == pytest.approx(code_length(x[20:], task.y[20:], 2, 0))
        assert row["compression"] == pytest.approx(40 / row["bits"])
    without = probe_tables.probed(activations, chosen[:1], task, 0, False, lambda: None)
    assert without[0]["bits"] is without[0]["compression"] is None


def test_heads_stand_side_by_side_in_the_order_of_val(read):
    activations, task = read
    order = [(2, 0), (0, 4), (1, 1)]
    rows = [
        {"kind": "head", "layer": layer, "head": head, "val_accuracy": 0.9 - 0.1 * i, "accuracy": 0.1 * i}
        for i, (layer, head) in enumerate(order)
    ]
    rows = [{"kind": "mlp", "layer": 0, "head": None, "val_accuracy": 1.0}, *rows[::-1]]
    found = probe_tables.profile(activations, rows, task, 0)
    assert [row["heads"] for row in found] == ["2.0", "2.0 0.4"]  # of 3 heads: 1 and 2 together
    both = np.concatenate([activations.of(Site("head", 2, 0)), activations.of(Site("head", 0, 4))], axis=1)
    assert found[1]["accuracy"] == probe(both, task, 0).accuracy


def test_the_lens_counts_what_is_right_and_what_is_decided():
    """Three texts, two layers: the second text changes its mind to be wrong, the third is right from the start."""
    predicted = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 1]])  # texts x (layers + 1)
    table = probe_tables.lens_by_layer(np.eye(2, dtype=np.float32)[predicted], np.array([0, 1, 1]), LABELS)
    rows = table.set_index(["class", "layer"])
    assert rows.loc["all", "accuracy"].tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3])
    assert rows.loc["a", "accuracy"].tolist() == [0, 1, 1]
    assert rows.loc["b", "accuracy"].tolist() == [1, 0.5, 0.5]
    assert rows.loc["b", "decided"].tolist() == [0.5, 1, 1]
    assert rows["n"].groupby("class").first().to_dict() == {"all": 3, "a": 1, "b": 2}
    assert (rows["ci_low"] <= rows["accuracy"]).all()
    assert rows.loc[("b", 0), "ci_low"] == rows.loc[("b", 0), "ci_high"] == 1


def test_contributions_are_means_over_the_texts_of_a_class():
    values = np.arange(12, dtype=np.float32).reshape(3, 2, 2)  # texts x parts x classes
    table = probe_tables.contributions(values, [Part("embedding"), Part("head", 1, 0)], np.array([1, 0, 1]), LABELS)
    own = table.set_index(["class", "kind", "logit"])["mean"]
    assert own["b", "head", "a"] == (values[0, 1, 0] + values[2, 1, 0]) / 2
    assert own["a", "embedding", "b"] == values[1, 0, 1]
    assert own["all", "head", "b"] == values[:, 1, 1].mean()
    assert table.loc[table["kind"] == "head", ["layer", "head"]].drop_duplicates().to_numpy().tolist() == [[1, 0]]


def test_agreement_is_a_rank_correlation_over_the_heads_with_the_size_of_the_effect():
    key = {"property": "emotion", "reading": "last", "network": "trained", "kind": "head"}
    probes = pd.DataFrame([{**key, "layer": 0, "head": head, "accuracy": 0.1 * head} for head in range(4)])
    closed = {"kind": "head", "split": "test", "fill": "mean", "layer": 0}
    drops, margins = [-0.1, -0.2, -0.3, -0.4], [0.4, -0.3, 0.2, -0.1]
    effects = pd.DataFrame(
        [{**closed, "head": h, "class": "all", "metric": "log_prob", "effect": drops[h]} for h in range(4)]
        + [{**closed, "head": h, "class": "a", "metric": "specific_margin", "effect": margins[h]} for h in range(4)]
    )
    both = pd.concat([effects, effects.assign(split="val", effect=0.0), effects.assign(kind="mlp", effect=1.0)])
    table = probe_tables.agreement(pd.concat([probes, probes.assign(network="random", accuracy=0.5)]), both)
    assert table[["class", "fill", "metric"]].to_numpy().tolist() == [
        ["all", "mean", "log_prob"],
        ["a", "mean", "specific_margin"],
    ]
    assert table["spearman"].tolist() == pytest.approx([1, -1])


def test_texts_and_their_words_stay_in_their_split():
    tokenizer = Tokenizer.load("gpt2-mini")
    texts = {split: [f"the {split} has {word} words" for word in ("four", "brave", "unsaid")] for split in SHARES}
    parts = [
        Texts(split, np.arange(3), own, [tokenizer.encode(text) for text in own], np.array([0, 1, 0]))
        for split, own in texts.items()
    ]
    source = of_texts(parts, LABELS, 0)
    task = source.tasks["emotion", "last"]
    assert task.split.tolist() == ["train"] * 3 + ["val"] * 3 + ["test"] * 3
    assert [
        tokenizer.decode([ids[at[0]]]) for ids, at in zip(source.sequences, source.positions["last"], strict=True)
    ] == [" words"] * 9
    [words], _ = of_words(parts, tokenizer, 45, 0)
    own = words.tasks["length", "word"].split
    for split in SHARES:
        assert {word for word, at in zip(words.words, own, strict=True) if at == split} >= {split, "brave"}
        assert not {word for word, at in zip(words.words, own, strict=True) if at == split} & (set(SHARES) - {split})


def test_texts_without_words_have_no_properties_of_words():
    tokenizer = Tokenizer.load("gpt2-mini")
    parts = [Texts(split, np.arange(2), [":)", "7"], [[25, 8], [22]], np.array([0, 1])) for split in SHARES]
    found, missing = of_words(parts, tokenizer, 45, 0)
    assert found == []
    assert "no word of letters" in missing[-1]
