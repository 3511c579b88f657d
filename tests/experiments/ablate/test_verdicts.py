"""Which units matter, and which do more than random parts of their size; all numbers are worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from experiments.ablate.verdicts import CONTROLS, judge_units, tabulate_single_controls
from lab.shares import METRIC

UNIT = ["kind", "layer", "head", "region"]


def effects(*rows, **columns):
    """kind, layer, head, region, class, share, verdict: on test with fill mean; limits lie 0.04 to either side."""
    table = pd.DataFrame(rows, columns=[*UNIT, "class", "share", "verdict"])
    limits = {"share_low": table["share"] - 0.04, "share_high": table["share"] + 0.04}
    table = table.assign(fill="mean", split="test", metric=METRIC, n=66, **limits)
    return table.astype({"layer": "Int64", "head": "Int64"}).assign(**columns)


def controls(shares, layer=1, kind="head", **columns):
    table = pd.DataFrame({"share": shares}).assign(
        kind=kind, layer=layer, draw=range(len(shares)), fill="mean", split="test", region="", **{"class": "joy"}
    )
    return table.assign(**columns).astype({"layer": "Int64"})[CONTROLS]


def judge(table, *of_controls):
    return judge_units(table, pd.concat(of_controls or [controls([])]))


SIGNS = np.where(np.arange(24) % 2, 1, -1)
SUBSPACES = SIGNS * np.arange(1, 25) / 100  # -0.01, 0.02, ..., -0.23, 0.24
LOW, HIGH = -0.21, 0.22  # 22 of 24 do less; with the one itself it is 95 %


@pytest.mark.parametrize(
    ("share", "verdict", "specific"),
    [
        (-0.22, "matters", True),
        (0.23, "matters", True),  # in either direction
        (-0.21, "matters", False),  # matters, but controls do as much
        (0.22, "matters", False),
        (-0.23, "open", False),
        (0.23, "negligible", False),
        (np.nan, "open", False),
    ],
)
def test_a_specific_head_matters_and_does_more_than_95_percent_of_the_subspaces(share, verdict, specific):
    table = judge(effects(("head", 1, 2, "", "joy", share, verdict)), controls(SUBSPACES))
    [row] = table.to_dict("records")
    assert row["controls"] == 24
    assert row["control_share"] == pytest.approx(LOW if share < 0 else HIGH)
    assert row["specific"] is specific
    assert (row["kind"], row["layer"], row["head"], row["fill"], row["class"], row["n"]) == (
        "head",
        1,
        2,
        "mean",
        "joy",
        66,
    )
    assert row["verdict"] == verdict


@pytest.mark.parametrize(
    "other", [{"layer": 0}, {"class": "fear"}, {"fill": "zero"}, {"split": "val"}, {"kind": "mlp"}]
)
def test_controls_of_another_layer_class_fill_split_or_kind_play_no_part(other):
    table = effects(("head", 1, 2, "", "joy", -0.23, "matters"))
    [row] = judge(table, controls(SUBSPACES), controls([9.0] * 24, **other)).to_dict("records")
    assert row["control_share"] == pytest.approx(LOW)
    assert row["specific"] is True
    alone = judge(table, controls(SUBSPACES, **other))
    assert alone["specific"].isna().all()
    assert alone[["controls", "control_share"]].isna().all(axis=None)


def test_controls_that_do_the_opposite_are_exceeded():
    table = effects(("head", 1, 2, "", "joy", -0.1, "matters"), ("head", 1, 3, "", "joy", 0.1, "matters"))
    assert judge(table, controls(np.abs(SUBSPACES)))["specific"].tolist() == [True, False]


def test_units_without_a_control_of_their_size_are_neither_specific_nor_not():
    kinds = ("heads", "mlp", "layer", "pair")
    table = effects(*((kind, 1, None, "0.3 & 1.5" if kind == "pair" else "", "joy", -0.9, "matters") for kind in kinds))
    judged = judge(table, controls(SUBSPACES), controls(SUBSPACES, kind="mlp"))
    assert judged["specific"].isna().all()
    assert judged["specific"].dtype == "boolean"
    assert (judged["kind"].tolist(), set(judged["verdict"])) == (list(kinds), {"matters"})


@pytest.mark.parametrize("kind", ["mask", "cut", "words"])
@pytest.mark.parametrize("layer", [None, 2])
@pytest.mark.parametrize(
    ("share", "specific"),  # limits 0.04 to either side; the control does -0.10
    [(-0.15, True), (-0.13, False), (0.15, True)],
)
def test_both_limits_of_a_region_lie_beyond_its_control(kind, layer, share, specific):
    table = effects(
        (kind, layer, None, "self", "joy", share, "matters"),
        (kind, layer, None, "random, as many as self", "joy", -0.10, "matters"),
        (kind, layer, None, "last query", "joy", share, "matters"),
    )
    other = effects((kind, 3, None, "random, as many as self", "joy", -0.9, "matters"))
    judged = judge(table, tabulate_single_controls(pd.concat([table, other])))
    assert judged["region"].tolist() == ["self", "last query"]  # the controls are no units
    assert judged["controls"].tolist()[0] == 1
    assert judged["control_share"].tolist()[0] == pytest.approx(-0.10)
    assert judged["specific"].isna().tolist() == [False, True]
    assert judged["specific"][0] == specific


def test_only_shares_of_test_are_judged():
    table = effects(("head", 1, 2, "", "joy", -0.23, "matters"))
    others = [table.assign(split="val", share=9.0), table.assign(metric="log_prob", share=9.0)]
    assert judge(pd.concat([*others, table]), controls(SUBSPACES))["share"].tolist() == [-0.23]


def test_paired_controls_stand_in_the_table_under_the_region_that_they_are_for():
    table = effects(
        ("head", 1, 2, "", "joy", -0.2, "matters"),
        ("mask", None, None, "self", "joy", -0.2, "matters"),
        ("mask", None, None, "random, as many as self", "joy", -0.1, "open"),
        ("words", None, None, "random, as many as feel", "fear", 0.3, "open"),
    )
    every = pd.concat([table, table.assign(split="val", share=0.7), table.assign(metric="recall")])
    found = tabulate_single_controls(every)
    assert list(found) == CONTROLS
    columns = ["kind", "class", "fill", "split", "share", "region", "draw"]
    assert found[columns].to_numpy().tolist() == [
        ["mask", "joy", "mean", "test", -0.1, "self", 0],
        ["words", "fear", "mean", "test", 0.3, "feel", 0],
        ["mask", "joy", "mean", "val", 0.7, "self", 0],
        ["words", "fear", "mean", "val", 0.7, "feel", 0],
    ]
    assert found["layer"].isna().all()
