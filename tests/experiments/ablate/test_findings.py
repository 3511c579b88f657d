"""Findings against plain calls of the network and by hand; and whether they can say no."""

from functools import partial
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from planted import learnt, planted, planted_texts, sweeps_of
from torch.nn import functional as F

import lab.effects
from experiments.ablate import findings, importance
from lab import units
from lab.stats import permutation_p, resamples
from lab.sweeps import Plan, Sweeps
from lab.units import each_head, each_layer, parse_head
from model import GPT2Config, Trace, masks

FILLS = ("zero", "mean", "resample", "class_mean")
KINDS = ("head", "heads", "mlp", "layer", "pair")


@pytest.fixture(scope="module")
def network():
    clf, sequences, targets = learnt()
    predicted = clf(torch.tensor(sequences["test"])).argmax(1).numpy()
    assert (predicted == targets["test"]).mean() > 0.95
    return clf, sequences, targets


@pytest.fixture
def sweeps(network, tmp_path):
    return sweeps_of(*network, tmp_path)


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch):
    """Enough permutations for a family of 60 tests, and a bootstrap that is only looked at where a test says so."""
    monkeypatch.setattr(lab.effects, "permutation_p", partial(permutation_p, draws=1999))
    monkeypatch.setattr("lab.stats.DRAWS", 100)


def plain(network, closed, split="test", fill=None):
    """Logits (N, K) with these heads closed, by one call."""
    clf, sequences, _ = network
    gate = masks.close_heads(clf.config, closed)
    with torch.no_grad():
        return clf(torch.tensor(sequences[split]), head_gate=gate, head_fill=fill).double()


def mean_z(network):
    """The mean output of each head over all training tokens, as a head_fill."""
    clf, sequences, _ = network
    trace = Trace("z")
    with torch.no_grad():
        clf(torch.tensor(sequences["train"]), trace=trace)
    return trace.stacked("z").mean(dim=(0, 3))[None, :, :, None]


def log_odds(logits):
    """(N, K) -> (N, K): log p - log(1 - p)."""
    p = logits.softmax(1).numpy()
    return np.log(p) - np.log1p(-p)


# Nothing to find.


def survivors(sweeps, fill):
    """By kind of unit: whether any specific margin survives Holm's correction, on test."""
    config = sweeps.study.clf.config
    pairs = list(combinations([(layer, head) for layer in range(2) for head in range(3)], 2))
    by_plan = {"heads": each_head(config), "layers": each_layer(config), "pairs": units.each_pair(config, pairs)}
    plans = [Plan(name, fill, {"test": ablations}) for name, ablations in by_plan.items()]
    effects = findings.measure_plans(sweeps, plans, sweeps.run(plans), "")["effects"]
    specific = effects[effects["metric"] == "specific_margin"]
    assert specific["effect"].abs().max() > 0.1  # closing something does something
    return (specific["p_corrected"] < 0.05).groupby(specific["kind"]).any()[list(KINDS)]


def shuffled(network, seed):
    """The network, and texts of which test has labels that have nothing to do with them."""
    clf, sequences, targets = network
    rng = np.random.default_rng((seed, 7))
    return clf, sequences, targets | {"test": rng.permutation(targets["test"])}


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("shuffles", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_where_labels_are_shuffled_nothing_survives_beyond_the_nominal_rate(network, fill, shuffles, tmp_path):
    """Each family may be wrong once in 20 shuffles; 5 times in 20 it is with probability 0.003."""
    wrong = sum(
        survivors(sweeps_of(*shuffled(network, seed), tmp_path / str(seed)), fill).astype(int)
        for seed in range(shuffles)
    )
    assert wrong.max() < max(2, shuffles / 4), wrong


def test_a_fill_that_knew_the_label_would_be_noticed(network, tmp_path, monkeypatch):
    monkeypatch.setattr(Sweeps, "predicted", lambda self, split: self.texts[split].targets)
    assert survivors(sweeps_of(*shuffled(network, 0), tmp_path), "class_mean")[["mlp", "layer"]].all()


# One thing to find.


@pytest.mark.parametrize("fill", FILLS)
def test_one_planted_head_is_found_and_only_it(fill, tmp_path):
    sequences, targets = planted_texts()
    clf = planted()
    predicted = clf(torch.tensor(sequences["test"])).argmax(1).numpy()
    assert (predicted == targets["test"]).mean() > 0.9
    sweeps, heads = sweeps_of(clf, sequences, targets, tmp_path), each_head(clf.config)
    plan = Plan("heads", fill, {"val": heads, "test": heads})
    table = findings.measure_plans(sweeps, [plan], sweeps.run([plan]), "")["significance"]
    best = table.iloc[0]
    assert (best["layer"], best["head"], best["class"]) == (1, 2, "a")
    assert best["test_effect"] < -1
    assert best["p_holm"] < 0.02
    others = table[(table["layer"] != 1) | (table["head"] != 2)]
    assert others["test_effect"].abs().max() > 1e-5  # the others do something too
    assert others["p_holm"].min() > 0.05


# Tables.


@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_importance_stands_beside_the_exact_rise_of_the_loss(network, sweeps, fill):
    heads = each_head(network[0].config)
    logits = sweeps.run([Plan("heads", fill, {"val": heads})])["heads", fill, "val"]
    table = findings.estimate_importance(sweeps, logits, fill)
    assert set(table["fill"]) == {fill}
    targets = torch.tensor(network[2]["val"])
    values = mean_z(network) if fill == "mean" else None
    for row in table[table["class"].isin(["all", "b"])].itertuples():
        chosen = targets == 1 if row.n < len(targets) else targets >= 0
        logits = plain(network, [(row.layer, row.head)], "val", values), plain(network, [], "val")
        closed, whole = (F.cross_entropy(each[chosen], targets[chosen]).item() for each in logits)
        assert row.exact == pytest.approx(closed - whole, abs=1e-5)
        assert row.n == chosen.sum()


def test_curves_say_what_is_left_when_the_first_heads_of_an_order_are_closed(network, sweeps, monkeypatch):
    monkeypatch.setattr(importance, "POINTS", 3)
    monkeypatch.setattr(importance, "RANDOM_ORDERS", 2)
    heads = [(layer, head) for layer in range(2) for head in range(3)]
    scores = {"exact": [3, 1, 5, 0, 4, 2], "normalised": [0, 1, 2, 3, 4, 5]}
    layers, numbers = zip(*heads, strict=True)
    estimates = pd.DataFrame({"layer": layers, "head": numbers, "class": "all"} | scores)
    table = findings.measure_curves(sweeps, estimates, "zero")
    orders = importance.order_heads(estimates, sweeps.seed)
    assert orders["measured"] == [(1, 0), (0, 1), (1, 2), (0, 0), (1, 1), (0, 2)]
    assert sorted(table["closed"].unique()) == [0, 2, 4, 6]
    targets = network[2]["test"]
    for (order, closed), rows in table.groupby(["order", "closed"]):
        logits = plain(network, orders[order][:closed])
        values = rows.set_index(["class", "metric"])["value"]
        right = logits.argmax(1).numpy() == targets
        assert values["all", "accuracy"] == pytest.approx(right.mean())
        assert values["c", "recall"] == pytest.approx(right[targets == 2].mean())
        log_probs = logits.log_softmax(1).numpy()[np.arange(len(targets)), targets]
        assert values["all", "log_prob"] == pytest.approx(log_probs.mean(), abs=1e-5)
    assert set(table["order"]) == {"measured", "gradient", "random 0", "random 1"}


def test_pairs_are_named_and_stand_beside_the_heads_they_are_of(network, sweeps):
    heads = each_head(network[0].config)
    singles = sweeps.run([Plan("heads", "zero", {"test": heads})])["heads", "zero", "test"]
    tables, table = findings.measure_pairs(sweeps, ["1.2", "0.1", "1.0"], singles, "zero", "")
    assert set(zip(table["first"], table["second"], strict=True)) == {("0.1", "1.0"), ("0.1", "1.2"), ("1.0", "1.2")}
    assert set(tables["effects"]["region"]) == {"0.1 & 1.0", "0.1 & 1.2", "1.0 & 1.2"}
    targets, whole = network[2]["test"], log_odds(plain(network, []))

    def effect(k, *closed):
        return (log_odds(plain(network, closed)) - whole)[targets == k, k].mean()

    for row in table.itertuples():
        first, second = parse_head(row.first), parse_head(row.second)
        k = "abcd".index(row[table.columns.get_loc("class") + 1])
        assert row.first_effect == pytest.approx(effect(k, first), abs=1e-4)
        assert row.second_effect == pytest.approx(effect(k, second), abs=1e-4)
        assert row.pair == pytest.approx(effect(k, first, second), abs=1e-4)
        assert row.interaction == pytest.approx(row.pair - row.first_effect - row.second_effect, abs=1e-9)
    _, of_b = findings.measure_pairs(sweeps, ["1.2", "0.1"], singles, "zero", "b")
    assert of_b["class"].tolist() == ["b"]


def test_words_are_compared_with_random_tokens_in_pairs(network, sweeps):
    """The interval is that of the difference on the same resamples."""
    sequences, targets = network[1], network[2]["test"]
    tokens = {"even": [np.array(ids) % 2 == 0 for ids in sequences["test"]], "none": [np.zeros(7, bool)] * 151}
    plan = Plan("words", "zero", {"test": units.each_word_class(sequences["test"], tokens, np.random.default_rng(0))})
    logits = sweeps.run([plan])["words", "zero", "test"]
    table = findings.compare_words_with_random(sweeps, plan, logits, "").set_index(["words", "class", "metric"])
    regions = [ablation.region for ablation in plan.ablations["test"]]
    hidden, random = (
        torch.tensor(logits[:, regions.index(name), 0]).double().log_softmax(1).numpy()[np.arange(151), targets]
        for name in ("even", units.RANDOM + "even")
    )
    row = table.loc[("even", "all", "log_prob")]
    assert (row["hidden"], row["random"]) == (pytest.approx(hidden.mean()), pytest.approx(random.mean()))
    assert row["difference"] == pytest.approx((hidden - random).mean())
    drawn = np.concatenate([weights @ (hidden - random) / 151 for weights in resamples(151)])
    assert [row["ci_low"], row["ci_high"]] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=1e-6)
    assert row["ci_low"] != row["ci_high"]
    assert (table.loc["none", ["difference", "ci_low", "ci_high"]] == 0).all(axis=None)
    assert "flip_rate" not in table.index.get_level_values("metric")
    assert set(findings.compare_words_with_random(sweeps, plan, logits, "b")["class"]) == {"all", "b"}


def fake_sweeps(right, majority):
    """Sweeps of 1,000 texts of class 0 in which `right(closed, split)` are predicted right; heads are 0.0 to 1.1."""

    def logits(plan, split, advance):
        closed = tuple(plan.ablations[split][0].region.split())
        hits = np.arange(1000) < right(closed, split)
        return np.eye(2)[np.where(hits, 0, 1)][:, None, None]

    texts = {split: SimpleNamespace(split=split, targets=np.zeros(1000, dtype=int)) for split in ("val", "test")}
    clf = SimpleNamespace(config=GPT2Config(2, 2, 8))
    study = SimpleNamespace(clf=clf, majority=lambda texts: majority[texts.split])
    return SimpleNamespace(study=study, texts=texts, seed=0, logits=logits)


IMPORTANCE = pd.DataFrame(
    {"layer": [0, 0, 1, 1], "head": [0, 1, 0, 1], "class": "all", "exact": [0.4, 0.1, 0.3, 0.2], "normalised": 0.0}
)


def test_the_smallest_set_by_hand():
    """On val 900 of 1,000 are right, 500 by the most frequent class: 95 % of the gain is left at 880. In the order
    0.1, 1.1, 1.0, 0.0 closing costs 15, 10, 5 and 300: all but the second and the last can be closed."""
    cost = {"val": {"0.1": 15, "1.1": 10, "1.0": 5, "0.0": 300}, "test": {"0.1": 30, "1.1": 0, "1.0": 50, "0.0": 0}}
    whole = {"val": 900, "test": 800}
    sweeps = fake_sweeps(
        lambda closed, split: whole[split] - sum(cost[split][name] for name in closed), {"val": 0.5, "test": 0.4}
    )
    assert findings.find_smallest_set(sweeps, IMPORTANCE, "mean") == {
        "fill": "mean",
        "open": ["0.0", "1.1"],
        "n_heads": 4,
        "majority": 0.4,
        "accuracy": 0.8,
        "accuracy_test": 0.72,
        "kept_val": pytest.approx(0.38 / 0.4),
        "kept_test": pytest.approx(0.32 / 0.4),
    }


@pytest.mark.parametrize("split", ["val", "test"])
def test_no_smallest_set_where_nothing_is_gained(split):
    majority = {"val": 0.5, "test": 0.5} | {split: 0.9}
    assert findings.find_smallest_set(fake_sweeps(lambda closed, split: 900, majority), IMPORTANCE, "zero") is None
