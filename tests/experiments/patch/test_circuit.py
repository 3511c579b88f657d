"""Edges are followed back from the logits in a network of which it is known who tells whom."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from planted import planted_circuit, subject_of

from experiments.patch import circuit
from experiments.patch.circuit import average_edges, measure_named, trace_back
from experiments.patch.measure import measure_edges
from experiments.patch.pairs import Pair
from experiments.patch.paths import edges_from, edges_into, find_node
from lab.shares import LEAST

WAY = [  # from the logits back
    ("head 1.2", "logits", "logits"), ("mlp 0", "head 1.2", "v"), ("head 0.1", "mlp 0", "mlp"),
    ("embedding", "head 0.1", "v"),
]  # fmt: skip
BESIDE = [("head 0.2", "logits", "logits"), ("embedding", "head 0.2", "v")]
DIRECTIONS = ("denoise", "noise")
SIGNS = {"denoise": 1, "noise": -1}
EDGE = ["sender", "receiver", "input"]


def subject_with(clf, folder):
    """Ten pairs of texts of 4 to 6 tokens: the first or second token says another class."""
    pairs, gaps = [], []
    for n in range(10):
        fillers = [3 + (n + i) % 3 for i in range(3 + n % 3)]
        first, at = 1 + n % 2, n % 2
        texts = [[*fillers[:at], word, *fillers[at:]] for word in (first, 3 - first)]
        pairs.append(Pair(n, "test", f"text {n}", "", *texts, (n % 2, 1 - n % 2), ("", "")))
        logits = torch.cat([clf(torch.tensor([ids])) for ids in texts])
        gaps.append((logits[0] - logits[1])[[n % 2, 1 - n % 2]].diff().neg().item())
    return subject_of(clf, pairs, gaps, folder)


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    """Plant a circuit, and open it: one subject for each `beside`, for which what was measured is kept."""
    return cache(lambda beside: subject_with(planted_circuit(beside), tmp_path_factory.mktemp("circuit")))


def find(name, kinds=("embedding", "head", "mlp", "logits")):
    return find_node(name, planted_circuit().config, kinds)


def trace(subject, direction, layer_norm="recomputed"):
    return trace_back(subject, direction, layer_norm, subject.table)


def name_edges(rows):
    return [tuple(row) for row in rows[EDGE].to_numpy()]


@pytest.mark.parametrize("layer_norm", ["recomputed", "frozen"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_way_back_is_exactly_the_planted_one(plant, direction, layer_norm):
    planted = plant(0)
    assert min(planted.table["gap"]) > 1
    measured, averages = trace(planted, direction, layer_norm)
    strong = averages[averages["strong"]]
    assert name_edges(strong) == WAY
    assert strong["share"].tolist() == pytest.approx([SIGNS[direction]] * 4, abs=0.01)  # but for that of head 1.0
    assert list(dict.fromkeys(averages["receiver"])) == ["logits", "head 1.2", "mlp 0", "head 0.1"]
    weak = averages[(averages["sender"] == "head 1.0") & (averages["receiver"] == "logits")]
    expected = SIGNS[direction] * 0.005 / 1.005  # where the scale is not the same, a small change does a bit less
    assert weak["share"].item() == pytest.approx(expected, rel=1e-3 if layer_norm == "frozen" else 0.6)
    rest = averages[~averages["strong"] & (averages["sender"] != "head 1.0")]
    assert rest["share"].abs().max() < 1e-5
    into = {name: len(edges_into(find(name), planted.config)) for name in ("logits", "head 1.2", "mlp 0", "head 0.1")}
    assert averages["receiver"].value_counts().to_dict() == into
    assert " ".join(measured) == "pair direction sender receiver input layer_norm effect estimate"
    assert len(measured) == 10 * len(averages)
    assert set(averages["layer_norm"]) == set(measured["layer_norm"]) == {layer_norm}
    assert set(averages["direction"]) == set(measured["direction"]) == {direction}
    assert set(averages["n"]) == {10}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_two_ways_are_followed_the_stronger_one_first(plant, direction):
    planted = plant(1.5)
    _, averages = trace(planted, direction)
    strong = averages[averages["strong"]]
    assert set(name_edges(strong)) == {*WAY, *BESIDE}
    shares = dict(zip(name_edges(strong), SIGNS[direction] * strong["share"], strict=True))
    assert shares[WAY[0]] > 1.5 * shares[BESIDE[0]] > 0.1
    order = list(dict.fromkeys(averages["receiver"]))
    assert order[:2] == ["logits", "head 1.2"]
    assert set(order[2:]) == {"mlp 0", "head 0.1", "head 0.2"}


def test_a_sender_that_two_receivers_hear_is_followed_once(tmp_path, monkeypatch):
    clf, done = planted_circuit(beside=9), []
    attn, row = clf.trunk.h[1].attn, 2 * 12 + 4  # head 1.1 reads what head 0.2 writes, and says so, too
    attn.c_attn.weight[row, 2:6] = torch.tensor([0.0, 0, 1, -1])
    attn.c_proj.weight[4:6, 4] = torch.tensor([2.0, -2])

    def note(subject, directions, name, *arguments):
        done.append(name)
        return measure_edges(subject, directions, name, *arguments)

    monkeypatch.setattr(circuit, "measure_edges", note)
    _, averages = trace(subject_with(clf, tmp_path), "denoise")
    strong = set(name_edges(averages[averages["strong"]]))
    assert strong == {*BESIDE, ("head 1.1", "logits", "logits"), ("head 0.2", "head 1.1", "v")}
    assert done == ["into logits", "into head 0.2", "into head 1.1"]  # head 0.2 is the stronger one


def test_a_way_that_works_against_the_class_is_followed_too(plant):
    planted = plant(-1)
    _, averages = trace(planted, "noise")
    strong = averages[averages["strong"]]
    assert set(name_edges(strong)) == {*WAY, *BESIDE}
    shares = dict(zip(name_edges(strong), strong["share"], strict=True))
    assert shares[WAY[0]] < -1
    assert shares[BESIDE[0]] > 0.1


def test_no_more_edges_and_receivers_are_followed_than_said(plant, monkeypatch):
    planted = plant(1.5)
    with monkeypatch.context() as patch:
        patch.setattr(circuit, "STRONGEST", 1)
        _, averages = trace(planted, "denoise")
        assert name_edges(averages[averages["strong"]]) == WAY
    monkeypatch.setattr(circuit, "FOLLOWED", 2)
    _, averages = trace(planted, "denoise")
    assert list(dict.fromkeys(averages["receiver"])) == ["logits", "head 1.2"]
    monkeypatch.setattr(circuit, "FOLLOWED", 10)
    monkeypatch.setattr(circuit, "LEAST_EDGE", 0.001)
    _, averages = trace(planted, "denoise")
    assert ("head 1.0", "logits", "logits") in name_edges(averages[averages["strong"]])
    assert "head 1.0" in set(averages["receiver"])


def test_an_edge_whose_limits_hold_0_is_not_strong():
    kept = pd.DataFrame({"pair": range(12), "clean": [f"text {n}" for n in range(12)], "gap": 1.0})
    effects = {"mlp 0": [0.5] * 12, "mlp 1": [2, -1.7] * 6, "head 0.1": [-0.03] * 12, "head 0.2": [0.009] * 12}
    tables = [pd.DataFrame({"pair": range(12), "sender": name, "effect": x}) for name, x in effects.items()]
    edges = pd.concat(tables).assign(direction="noise", receiver="logits", input="logits", layer_norm="frozen")
    table = average_edges(edges.assign(estimate=0.25 * edges["effect"]), kept, 4).set_index("sender")
    assert table["strong"].to_dict() == {"mlp 0": True, "mlp 1": False, "head 0.1": True, "head 0.2": False}
    assert table.loc["mlp 1", "share"] == pytest.approx(0.15)
    assert table.loc["mlp 1", "share_low"] < 0
    assert table["estimate"].tolist() == pytest.approx((0.25 * table["share"]).tolist())
    assert (table.loc[["mlp 0", "head 0.1"], "verdict"] == ["matters", "negligible"]).all()
    assert LEAST > 0.03
    few = average_edges(edges[edges["pair"] < 9].assign(estimate=0.0), kept[kept["pair"] < 9], 4)
    assert set(few.loc[few["strong"], "sender"]) == {"mlp 0", "mlp 1", "head 0.1"}  # too few texts for limits


def measure(subject, senders, receivers, layer_norm="recomputed"):
    ends = [find(name) for name in senders], [find(name) for name in receivers]
    return measure_named(subject, DIRECTIONS, *ends, layer_norm, subject.table)


def test_all_edges_of_named_nodes_are_measured_in_both_directions(plant):
    planted = plant(0)
    measured, averages = measure(planted, ["head 0.1"], ["head 1.2"])
    ends = [*edges_from(find("head 0.1"), planted.config), *edges_into(find("head 1.2"), planted.config)]
    expected = {(str(edge.sender), str(edge.receiver), edge.input) for edge in ends}
    for direction in DIRECTIONS:
        rows = averages[averages["direction"] == direction]
        assert set(name_edges(rows)) == expected
        assert name_edges(rows[rows["strong"]]) == [WAY[2], WAY[1]]
        assert rows.loc[rows["strong"], "share"].tolist() == pytest.approx([SIGNS[direction]] * 2, abs=0.01)
        assert rows.loc[~rows["strong"], "share"].abs().max() < 1e-5
    for sender, receiver, edges in (("head 0.1", None, ends[:12]), (None, "head 1.2", ends[12:])):
        alone = measure_edges(planted, DIRECTIONS, "alone", edges, "recomputed")
        chosen = measured[(measured["sender"] == sender) | (measured["receiver"] == receiver)]
        merged = chosen.merge(alone, on=["pair", "direction", *EDGE, "layer_norm"], suffixes=("", "_alone"))
        assert len(merged) == len(alone) == len(chosen)
        np.testing.assert_array_equal(merged[["effect", "estimate"]], merged[["effect_alone", "estimate_alone"]])


def test_an_edge_between_two_named_nodes_stands_there_once(plant):
    planted = plant(0)
    measured, averages = measure(planted, ["head 0.1", "mlp 0"], ["mlp 0", "head 1.2"])
    assert not measured.duplicated(["pair", "direction", *EDGE]).any()
    assert not averages.duplicated(["direction", *EDGE]).any()
    assert len(measured) == 10 * len(averages)
    strong = averages[averages["strong"] & (averages["direction"] == "noise")]
    assert name_edges(strong) == [WAY[2], WAY[1]]


def test_of_named_nodes_the_strongest_edges_of_each_direction_are_strong(plant, monkeypatch):
    monkeypatch.setattr(circuit, "NAMED", 2)
    planted = plant(1.5)
    _, averages = measure(planted, [], ["logits", "mlp 0", "head 0.2"])
    for direction in DIRECTIONS:
        strong = averages[averages["strong"] & (averages["direction"] == direction)]
        assert set(name_edges(strong)) == {WAY[0], WAY[2]}


def test_frozen_edges_add_up(plant):
    """To what their senders together bring to the logits, on the scale that these had."""
    planted = plant(1.5)
    measured, _ = measure(planted, [], ["logits"], "frozen")
    for pair in planted.pairs:
        rows = measured[(measured["pair"] == pair.number) & (measured["direction"] == "noise")]
        streams = []
        for ids in (pair.clean_ids, pair.corrupt_ids):
            clf = planted.model
            streams.append(clf.trunk.run(clf.trunk.embed(torch.tensor([ids])))[0, -1])
        scale = (streams[0].var(correction=0) + clf.config.layer_norm_epsilon).sqrt()
        weights = clf.score.weight[pair.answers[0]] - clf.score.weight[pair.answers[1]]
        expected = ((streams[1] - streams[0]) / scale) @ weights
        assert rows["effect"].sum() == pytest.approx(expected.item(), rel=1e-4)
