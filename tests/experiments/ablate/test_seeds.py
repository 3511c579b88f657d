"""What repeats over runs with other seeds."""

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from experiments.ablate.seeds import check_alike, compare_seeds, measure_agreement
from lab.study import Study
from model import InputError

UNIT = ["kind", "layer", "head", "region"]


def verdicts(*rows, label="joy", fill="mean"):
    """kind, layer, head, share, verdict, specific."""
    table = pd.DataFrame(rows, columns=["kind", "layer", "head", "share", "verdict", "specific"])
    table = table.astype({"layer": "Int64", "head": "Int64", "specific": "boolean"})
    return table.assign(region="", fill=fill, **{"class": label})


def heads(*shares, **columns):
    return verdicts(*(("head", 0, h, share, "open", False) for h, share in enumerate(shares)), **columns)


def test_shares_and_counts_over_runs_by_hand():
    runs = [
        verdicts(("head", 0, 1, -0.1, "matters", True), ("mlp", 0, None, -0.3, "matters", None)),
        verdicts(("head", 0, 1, -0.2, "matters", False), ("mlp", 0, None, 0.1, "open", None)),
        verdicts(("head", 0, 1, -0.6, "matters", True), ("mlp", 0, None, np.nan, "open", None)),
    ]
    table = compare_seeds(runs)
    expected = [*UNIT, "fill", "class", "runs", "mean_share", "sd_share", "matters_in", "specific_in"]
    assert list(table) == expected
    head, mlp = table.to_dict("records")
    assert (head["kind"], head["layer"], head["head"], head["fill"], head["class"]) == ("head", 0, 1, "mean", "joy")
    assert head["mean_share"] == pytest.approx(-0.3)
    assert head["sd_share"] == pytest.approx(0.07**0.5)  # 0.04 + 0.01 + 0.09, over n - 1 = 2
    assert (head["runs"], head["matters_in"], head["specific_in"]) == (3, 3, 2)
    assert mlp["mean_share"] == pytest.approx(-0.1)  # of the runs where there is one
    assert (mlp["runs"], mlp["matters_in"]) == (3, 1)
    assert pd.isna(mlp["specific_in"])
    assert pd.isna(mlp["head"])


def test_units_fills_and_classes_stay_apart():
    runs = [pd.concat([heads(x, 2 * x), heads(3 * x, label="fear"), heads(4 * x, fill="zero")]) for x in (0.1, 0.3)]
    table = compare_seeds(runs)
    assert table["mean_share"].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert table[["head", "class", "fill"]].to_numpy().tolist() == [
        [0, "joy", "mean"],
        [1, "joy", "mean"],
        [0, "fear", "mean"],
        [0, "joy", "zero"],
    ]


def test_a_unit_that_one_run_lacks_counts_where_it_is():
    table = compare_seeds([heads(0.1, 0.2), heads(0.3)])
    assert table["runs"].tolist() == [2, 1]
    assert table["mean_share"].tolist() == pytest.approx([0.2, 0.2])
    assert table["sd_share"].isna().tolist() == [False, True]


def test_agreement_by_hand():
    [row] = measure_agreement([heads(1, 2, 3, 4), heads(1, 2, 4, 3), heads(10, 20, 30, 40)]).to_dict("records")
    assert (row["kind"], row["fill"], row["class"], row["runs"], row["units"]) == ("head", "mean", "joy", 3, 4)
    assert row["w"] == pytest.approx(12 * 41 / (9 * 60))  # rank sums 3, 6, 10, 11 lie around 7.5: squares add up to 41
    assert 0 < row["p"] < 0.05
    alike, opposite = measure_agreement([heads(1, 2, 3), heads(4, 5, 6)]), measure_agreement([heads(1, 2), heads(2, 1)])
    assert (alike["w"][0], opposite["w"][0]) == (1, 0)


def test_agreement_leaves_out_units_without_a_share_in_some_run():
    runs = [heads(1, 2, 3, np.nan), heads(4, np.nan, 5, 6)]
    [row] = measure_agreement(runs).to_dict("records")
    assert (row["units"], row["w"]) == (2, 1)
    [row] = measure_agreement([heads(1, 2, 3), heads(1, 2)]).to_dict("records")  # as one that a run does not have
    assert (row["units"], row["w"]) == (2, 1)
    assert measure_agreement([heads(1), heads(2)]).empty
    assert measure_agreement([heads(np.nan, np.nan), heads(1, 2)]).empty


def test_agreement_is_measured_for_each_kind_fill_and_class():
    def run(*shares):
        mlps = verdicts(*(("mlp", layer, None, share, "open", None) for layer, share in enumerate(shares)))
        return pd.concat([heads(*shares), heads(*shares, label="fear"), heads(*shares, fill="zero"), mlps])

    table = measure_agreement([run(1, 2, 3), run(1, 2, 3)])
    keys = [["head", "mean", "joy"], ["head", "mean", "fear"], ["head", "zero", "joy"], ["mlp", "mean", "joy"]]
    assert table[["kind", "fill", "class"]].to_numpy().tolist() == keys
    assert set(table["units"]) == {3}


SETTINGS = {
    "run": "a",
    "seed": 0,
    "lr": 0.1,
    "init": "pretrained",
    "corpus": "emotion",
    "device": "cpu",
    "compile": False,
}
RECORD = {"settings": SETTINGS, "model": {"sha256": "12"}, "corpus": {"sha256": {"train.csv": "34", "test.csv": "56"}}}


def study(name="a", record=RECORD, **settings):
    changed = deepcopy(record)
    changed["settings"] |= {"run": name} | settings
    nothing = SimpleNamespace()
    return Study(Path("runs") / name, changed, nothing, nothing, nothing, {}, nothing, "78")


def test_runs_that_differ_in_their_seed_alone_are_alike():
    check_alike([study()])
    moved = deepcopy(RECORD)
    moved["corpus"]["sha256"] = {"elsewhere/test.csv": "56", "elsewhere/train.csv": "34"}  # the same content
    others = study("b", seed=1), study("c", seed=2, device="cuda", compile=True), study("d", moved, seed=3)
    check_alike([study(), *others])


OTHERS = {
    "corpus": {"corpus": {"sha256": {"train.csv": "35", "test.csv": "56"}}},
    "model": {"model": {"sha256": "13"}},
    "lr": {"settings": SETTINGS | {"lr": 0.2}},
    "init": {"settings": SETTINGS | {"init": "random"}},
    "epochs": {"settings": SETTINGS | {"epochs": 3}},  # a setting that one of them has
}


@pytest.mark.parametrize("what", OTHERS)
def test_runs_that_differ_in_more_are_refused(what):
    with pytest.raises(InputError) as refused:
        check_alike([study(), study("b", seed=1), study("c", RECORD | OTHERS[what], seed=2)])
    expected = f"--run: runs/a and runs/c differ in their {what}; expected runs that differ in their seed alone"
    assert str(refused.value) == expected


def test_all_that_differs_is_named():
    with pytest.raises(InputError, match=r"runs/a and runs/b differ in their init, lr; expected"):
        check_alike([study(), study("b", seed=1, lr=0.2, init="random")])


def test_shapes_without_weights_are_compared():
    def fresh(name, seed, layers):
        return study(name, RECORD | {"model": {"shape": {"n_layer": layers}}}, seed=seed)

    check_alike([fresh("a", 0, 3), fresh("b", 1, 3)])
    with pytest.raises(InputError, match="differ in their model;"):
        check_alike([fresh("a", 0, 3), fresh("b", 1, 4)])


def test_runs_of_one_seed_are_refused():
    with pytest.raises(InputError, match="--run: runs/a and runs/b have the same seed; expected runs with different"):
        check_alike([study(), study("b")])


def test_two_others_of_one_seed_are_refused():
    with pytest.raises(InputError, match="--run: runs/b and runs/c have the same seed"):
        check_alike([study(), study("b", seed=1), study("c", seed=1)])
