"""The tables of `probe.py`, against cases that are worked out by hand."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t

from experiments.probe import linear, tables
from experiments.probe.linear import Task, bootstrap_means, code_length, encode_correct, probe
from lab.activations import Site, record
from lab.contributions import Component
from lab.device import Device

LABELS = ("a", "b")


@pytest.fixture(scope="module")
def read(clf_reference, tmp_path_factory):
    """Activations of 60 texts at their first token, and a task on them: the parity of that token."""
    rng = np.random.default_rng(0)
    texts = rng.integers(0, 101, (60, 5)).tolist()
    y = np.array([ids[0] % 2 for ids in texts])
    task = Task(y, LABELS, np.repeat(["train", "val", "test"], 20), np.arange(60) // 3, rng.permutation(y))
    first = [np.array([0])] * 60
    cpu = Device(torch.device("cpu"), "fp32")
    folder = tmp_path_factory.mktemp("activations")
    return record(clf_reference.ours.trunk, texts, {"first": first}, folder, cpu)["first"], task


def test_each_site_has_the_score_of_a_probe_and_the_code_of_texts_not_trained_on(read, monkeypatch):
    monkeypatch.setattr(linear, "STRENGTHS", (0.1, 0.1))  # or the control might have another one than the task
    activations, task = read
    chosen, advanced = [Site("resid", 0), Site("head", 1, 2), Site("mlp", 2)], []
    rows = tables.score_sites(activations, chosen, task, 0, True, lambda: advanced.append(1))
    assert len(advanced) == 3
    for site, row in zip(chosen, rows, strict=True):
        x, score = activations.of(site), probe(activations.of(site), task)
        assert (row["kind"], row["layer"], row["head"]) == (site.kind, site.layer, site.head)
        assert (row["accuracy"], row["n"]) == (score.accuracy, 20)
        control = probe(x, Task(task.control, LABELS, task.split, task.text)).accuracy
        assert (row["control"], row["selectivity"]) == (control, score.accuracy - control)
        _, low, high = bootstrap_means(score.correct[:, None], np.arange(40, 60) // 3)  # of texts of three rows
        assert (row["ci_low"], row["ci_high"]) == (low, high)
        assert row["correct"] == encode_correct(score.correct)
        assert row["bits"] == pytest.approx(code_length(x[20:], task.y[20:], 2, 0))
        assert row["compression"] == pytest.approx(40 / row["bits"])
    task = Task(task.y, LABELS, task.split, task.text)
    [without] = tables.score_sites(activations, chosen[:1], task, 0, False, lambda: None)
    assert without["bits"] is without["compression"] is without["control"] is without["selectivity"] is None


def test_heads_stand_side_by_side_in_the_order_of_val(read):
    activations, task = read
    order = [(2, 0), (0, 4), (1, 1)]
    rows = [
        {"kind": "head", "layer": layer, "head": head, "val_accuracy": 0.9 - 0.1 * i, "accuracy": 0.1 * i}
        for i, (layer, head) in enumerate(order)
    ]
    rows = [{"kind": "mlp", "layer": 0, "head": None, "val_accuracy": 1.0}, *rows[::-1]]
    profile = tables.profile_heads(activations, rows, task)
    assert [row["heads"] for row in profile] == ["2.0", "2.0 0.4"]  # of 3 heads: 1 and 2 together
    both = np.concatenate([activations.of(Site("head", 2, 0)), activations.of(Site("head", 0, 4))], axis=1)
    one, two = probe(activations.of(Site("head", 2, 0)), task), probe(both, task)
    assert [row["accuracy"] for row in profile] == [one.accuracy, two.accuracy]
    paired = bootstrap_means((one.correct.astype(int) - two.correct)[:, None], task.tested)
    assert [profile[0][name] for name in ("difference", "difference_low", "difference_high")] == [*paired]
    assert [profile[1][name] for name in ("difference", "difference_low", "difference_high")] == [0, 0, 0]


def probes_of(correct, **columns):
    """Rows of `probes`: correct (places, n), and other columns."""
    table = pd.DataFrame({"property": "emotion", "reading": "last", "correct": map(encode_correct, correct)})
    return table.assign(**columns).astype({"head": "Int64"})


def test_places_stand_to_their_rivals_in_pairs():
    """Four hundred rows; a place that is right where its rival is and on eight more is above it, however wide their
    intervals are; one that is right as often on other rows is level with it."""
    rng = np.random.default_rng(0)
    some = rng.random(400) < 0.6
    more = some | np.isin(np.arange(400), np.flatnonzero(~some)[:8])
    correct = np.stack([some, more, rng.permutation(some), more])
    probes = probes_of(
        correct,
        network=["trained", "trained", "random", "random"],
        kind=["resid", "resid", "head", "head"],
        layer=[0, 1, 0, 1],
        head=[None, None, 2, 2],
        val_accuracy=[0.5, 0.6, 0.9, 0.4],  # on val the third is best of the random ones, though not on test
    )
    rivals = {"most frequent class": some, "bag of words": ~some}
    columns = {"baseline": [*rivals], "correct": map(encode_correct, rivals.values())}
    baselines = pd.DataFrame({"property": "emotion", **columns})
    table = tables.differences(probes, baselines, {"emotion": np.arange(400)})
    compared = {(row.network, row.layer, row.rival): row for row in table.itertuples()}
    assert len(compared) == len(table) == 4 * 2 + 2 + 2
    verdicts = {key: row.verdict for key, row in compared.items()}
    assert [verdicts["trained", layer, "most frequent class"] for layer in (0, 1)] == ["level with", "above"]
    assert [verdicts["trained", layer, "best layer"] for layer in (0, 1)] == ["below", "level with"]
    assert verdicts["random", 0, "most frequent class"] == verdicts["trained", 1, "random weights"] == "level with"
    assert {verdicts[*place, "bag of words"] for place in (("trained", 0), ("random", 1))} == {"above"}
    assert compared["trained", 1, "most frequent class"].difference == pytest.approx(8 / 400)
    _, low, high = bootstrap_means((more.astype(int) - some)[:, None], np.arange(400))
    assert (compared["trained", 1, "most frequent class"].ci_low, high) == (low, pytest.approx(high))
    of_two_texts = tables.differences(probes, baselines, {"emotion": np.repeat([0, 1], 200)})
    assert set(of_two_texts.loc[of_two_texts["rival"] == "random weights", "ci_low"]) != set(
        table.loc[table["rival"] == "random weights", "ci_low"]
    )


def test_with_no_difference_one_in_twenty_says_otherwise():
    """Places as good as the baseline on other rows: texts of seven rows that are right together."""
    rng, texts = np.random.default_rng(0), np.repeat(np.arange(101), 7)
    right = rng.random((301, 101)) < 0.7
    correct = right[:, texts]
    probes = probes_of(correct[1:], network="trained", kind="head", layer=0, head=np.arange(300), val_accuracy=0.5)
    columns = {"property": "emotion", "baseline": "bag of words", "correct": encode_correct(correct[0])}
    baselines = pd.DataFrame([columns])
    verdicts = tables.differences(probes, baselines, {"emotion": texts})["verdict"]
    assert 0.85 < (verdicts == "level with").mean() < 0.995
    as_if_independent = tables.differences(probes, baselines, {"emotion": np.arange(707)})["verdict"]
    assert (as_if_independent == "level with").mean() < 0.75


def test_the_lens_counts_what_is_right_and_what_is_decided():
    """Three texts, two layers: the second text changes its mind to be wrong, the third is right from the start."""
    predicted = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 1]])  # texts x (layers + 1)
    table = tables.lens_by_layer(np.eye(2, dtype=np.float32)[predicted], np.array([0, 1, 1]), LABELS)
    assert table.index.tolist() == list(range(9))
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
    table = tables.contributions(values, [Component("embedding"), Component("head", 1, 0)], np.array([1, 0, 1]), LABELS)
    assert table.index.tolist() == list(range(12))
    means = table.set_index(["class", "kind", "logit"])["mean"]
    assert means["b", "head", "a"] == (values[0, 1, 0] + values[2, 1, 0]) / 2
    assert means["a", "embedding", "b"] == values[1, 0, 1]
    assert means["all", "head", "b"] == values[:, 1, 1].mean()
    assert table.loc[table["kind"] == "head", ["layer", "head"]].drop_duplicates().to_numpy().tolist() == [[1, 0]]


def test_a_contribution_to_a_class_is_contrasted_with_the_other_logits_inside_and_outside_the_class():
    labels = ["no", "yes", "so"]
    listed = [Component("embedding"), Component("head", 0, 0), Component("head", 0, 1), Component("mlp", 0)]
    values = np.random.default_rng(0).normal(size=(3, 4, 3))  # a text of each class
    table = tables.contributions(values, listed, np.arange(3), labels)
    contrasts = tables.contrast_classes(table.sample(frac=1, random_state=0))
    assert len(contrasts) == 4 * 3
    for (i, component), (k, label) in product(enumerate(listed), enumerate(labels)):
        rows = contrasts[(contrasts["kind"] == component.kind) & (contrasts["class"] == label)]
        row = rows if component.head is None else rows[rows["head"] == component.head]
        by_text = [values[j, i, k] - np.delete(values[j, i], k).mean() for j in range(3)]
        assert row["inside"].item() == pytest.approx(by_text[k])
        assert row["outside"].item() == pytest.approx(np.delete(by_text, k).mean())


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
    table = tables.agreement(pd.concat([probes, probes.assign(network="random", accuracy=0.5)]), both)
    assert table[["class", "fill", "metric"]].to_numpy().tolist() == [
        ["all", "mean", "log_prob"],
        ["a", "mean", "specific_margin"],
    ]
    assert table["spearman"].tolist() == pytest.approx([1, -1])


def test_agreement_of_seven_heads_by_the_formula_in_the_order_of_both_tables():
    accuracy, drop = [0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9], [2, 1, 4, 3, 7, 5, 6]  # ranks 1 .. 7 and these
    rho = 1 - 6 * sum((rank - i) ** 2 for i, rank in enumerate(drop, 1)) / (7 * (7**2 - 1))
    p = 2 * t.sf(rho * (5 / (1 - rho**2)) ** 0.5, 5)
    heads = pd.DataFrame({"kind": "head", "layer": [0, 0, 0, 1, 1, 1, 1], "head": [0, 1, 2, 0, 1, 2, 3]})
    probes = pd.concat(
        heads.assign(property=name, reading=reading, network="trained", accuracy=accuracy)
        for name, reading in (("position", "word"), ("emotion", "mean"), ("emotion", "last"))
    )
    effects = pd.concat(
        heads.assign(
            **{"class": "all", "split": "test", "fill": fill, "metric": "log_prob"}, effect=np.array(drop) * -1.0
        )
        for fill in ("zero", "mean")
    )
    table = tables.agreement(probes, effects)
    assert table[["property", "reading", "fill"]].to_numpy().tolist() == [
        [*task, fill]
        for task in (("position", "word"), ("emotion", "mean"), ("emotion", "last"))
        for fill in ("zero", "mean")
    ]
    assert table["spearman"].tolist() == pytest.approx([rho] * 6)
    assert table["p"].tolist() == pytest.approx([p] * 6)


@pytest.mark.filterwarnings("error")
def test_agreement_is_empty_where_there_is_nothing_to_rank():
    """A class without test texts, and one on which all heads do the same."""
    key = {"property": "emotion", "reading": "last", "network": "trained", "kind": "head", "layer": 0}
    probes = pd.DataFrame([{**key, "head": head, "accuracy": 0.1 * head} for head in range(4)])
    closed = {"kind": "head", "split": "test", "fill": "mean", "layer": 0, "metric": "specific_margin"}
    sizes = {"none": [np.nan] * 4, "same": [0.3] * 4, "b": [0.1, 0.2, 0.3, -0.4]}
    effects = pd.DataFrame(
        [{**closed, "head": h, "class": label, "effect": size[h]} for label, size in sizes.items() for h in range(4)]
    )
    table = tables.agreement(probes, effects).set_index("class")
    assert table["spearman"].isna().to_dict() == table["p"].isna().to_dict() == {"none": True, "same": True, "b": False}
    assert table.loc["b", "spearman"] == pytest.approx(1)
    two = tables.agreement(probes[:2], effects)
    assert len(two) == 3
    assert two["spearman"].isna().all()
