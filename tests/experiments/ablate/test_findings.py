"""Findings against plain calls of the network and by hand; and whether they can say no."""

from dataclasses import replace
from functools import partial
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from planted import learnt, planted, planted_texts, spread, sweeps_of
from torch.nn import functional as F

import lab.effects
import lab.shares
from experiments.ablate import findings, importance
from experiments.ablate.verdicts import judge_units
from lab import units
from lab.shares import METRIC, fit_temperatures, measure_shares
from lab.stats import permutation_p, resamples
from lab.sweeps import Plan, Sweeps
from lab.units import each_head, each_layer, parse_head
from model import GPT2Config, Trace, masks

FILLS = ("zero", "mean", "resample", "class_mean")
ONE_FILL = [
    pytest.param(fill, marks=[] if fill == "mean" else pytest.mark.slow) for fill in FILLS
]  # takes seconds each
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
    for module in (lab.effects, lab.shares):
        monkeypatch.setattr(module, "permutation_p", partial(permutation_p, draws=1999))
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


BOTH = ("val", "test")


def judge(sweeps, fill, plans=("heads",), controls=12):
    """The tables of findings, and the verdicts."""
    config, seed = sweeps.study.clf.config, sweeps.seed
    pairs = list(combinations([(layer, head) for layer in range(2) for head in range(3)], 2))
    units_of = {"heads": each_head(config), "layers": each_layer(config), "pairs": units.each_pair(config, pairs)}
    planned = [Plan(name, fill, dict.fromkeys(BOTH, units_of[name])) for name in plans]
    subspaces = [
        Plan(f"{kind}-subspaces", fill, dict.fromkeys(BOTH, units.random_subspaces(config, kind, controls, seed)))
        for name, kind in (("heads", "head"), ("layers", "mlp"))
        if name in plans and controls
    ]
    logits = sweeps.run(planned + subspaces)
    tables = findings.measure_plans(sweeps, planned, logits, None)
    tables["controls"] = findings.measure_controls(sweeps, subspaces, logits, tables["effects"])
    return tables | {"verdicts": judge_units(tables["effects"], tables["controls"])}


# Nothing to find.


def shuffled(network, seed):
    """The network, and texts of which test has labels that have nothing to do with them."""
    clf, sequences, targets = network
    rng = np.random.default_rng((seed, 7))
    return clf, sequences, targets | {"test": rng.permutation(targets["test"])}


def survivors(sweeps, fill):
    """By measure and kind of unit: whether any margin survives Holm's correction, and whether anything matters."""
    tables = judge(sweeps, fill, ("heads", "layers", "pairs"), controls=0)
    effects, verdicts = tables["effects"], tables["verdicts"]
    margins = effects[effects["metric"].isin(["specific_margin", METRIC]) & (effects["split"] == "test")]
    assert margins["effect"].abs().max() > 0.1  # closing something does something
    survive = (margins["p_corrected"] < 0.05).groupby([margins["metric"], margins["kind"]]).any()
    matter = (verdicts["verdict"] == "matters").groupby(verdicts["kind"]).any()
    return pd.concat([survive, pd.concat({"verdict": matter})])


@pytest.mark.parametrize("fill", ONE_FILL)
def test_where_labels_are_shuffled_nothing_survives_and_nothing_matters(network, fill, tmp_path):
    """Each family may be wrong once in 20 shuffles."""
    found = [survivors(sweeps_of(*shuffled(network, seed), tmp_path / str(seed)), fill) for seed in (0, 1)]
    assert len(found[0]) == 3 * len(KINDS)
    assert not (found[0] & found[1]).any()


@pytest.mark.slow
@pytest.mark.parametrize(("fill", "of_val"), [("zero", False), ("class_mean", True)])  # each takes half a minute
def test_of_100_shuffles_of_the_labels_something_matters_in_at_most_one_of_20(network, sweeps, fill, of_val):
    """The logits stay, the labels of test go, or those of val, too; more than 11 come with probability 0.004."""
    rng, targets, config = np.random.default_rng(0), network[2], network[0].config
    plans = [Plan("heads", fill, dict.fromkeys(BOTH, each_head(config)))]
    plans.append(Plan("layers", fill, dict.fromkeys(BOTH, each_layer(config))))
    logits = sweeps.run(plans)
    wrong = dict.fromkeys(("head", "heads", "mlp", "layer"), 0)
    for _ in range(100):
        val_labels = rng.permutation(targets["val"]) if of_val else targets["val"]
        test_labels = rng.permutation(targets["test"])
        for plan, kind in ((plans[0], "head"), (plans[1], "heads"), (plans[1], "mlp"), (plans[1], "layer")):
            chosen = [u for u, ablation in enumerate(plan.ablations["test"]) if ablation.kind == kind]
            val, test = findings.compare(sweeps, plan, logits, chosen).values()
            temperatures = fit_temperatures(val.baseline, val.ablated, val_labels)
            table = measure_shares(test.baseline, test.ablated, test_labels, list("abcd"), temperatures, permute=False)
            wrong[kind] += (table["verdict"] == "matters").any()
    assert max(wrong.values()) < 12, wrong


def test_a_fill_that_knew_the_label_would_be_noticed(network, tmp_path, monkeypatch):
    monkeypatch.setattr(Sweeps, "predicted", lambda self, split: self.texts[split].targets)
    found = survivors(sweeps_of(*shuffled(network, 0), tmp_path), "class_mean")
    assert found["specific_margin", "mlp"]
    assert found[METRIC, "mlp"]


# One thing to find.


def mislabelled(targets, share):
    """Targets of which some are wrong, as in any corpus, so that there is a temperature to fit."""
    rng = np.random.default_rng(5)
    return {
        split: np.where(rng.random(len(each)) < share, rng.integers(0, 4, len(each)), each)
        for split, each in targets.items()
    }


@pytest.mark.parametrize("noise", [pytest.param(0, marks=pytest.mark.slow), 0.08])
@pytest.mark.parametrize("fill", ONE_FILL)
def test_one_planted_head_is_found_and_only_it(fill, noise, tmp_path):
    sequences, targets = planted_texts()
    clf = planted()
    assert (clf(torch.tensor(sequences["test"])).argmax(1).numpy() == targets["test"]).mean() > 0.9
    tables = judge(sweeps_of(clf, sequences, mislabelled(targets, noise), tmp_path), fill, controls=24)
    verdicts = tables["verdicts"]
    of_class = verdicts[(verdicts["class"] == "a") & (verdicts["verdict"] == "matters")]
    assert of_class[["layer", "head"]].to_numpy().tolist() == [[1, 2]]
    assert of_class["specific"].all()
    assert of_class["share"].item() == pytest.approx(-1, abs=0.05)
    specific = verdicts[verdicts["specific"]]
    assert set(zip(specific["layer"], specific["head"], strict=True)) == {(1, 2)}
    others = verdicts[(verdicts["layer"] != 1) | (verdicts["head"] != 2)]
    assert others["share"].abs().max() > 1e-5  # the others do something too
    assert (others["verdict"] != "matters").all()
    significance = tables["significance"]
    best = significance[significance["class"] == "a"].iloc[0]
    assert (best["layer"], best["head"], best["p_holm"] < 0.02) == (1, 2, True)


@pytest.mark.parametrize("noise", [pytest.param(0, marks=pytest.mark.slow), 0.08])
@pytest.mark.parametrize("fill", ONE_FILL)
def test_of_a_class_that_all_heads_of_a_layer_carry_no_head_is_specific(fill, noise, tmp_path):
    sequences, targets = planted_texts()
    tables = judge(sweeps_of(spread(), sequences, mislabelled(targets, noise), tmp_path), fill, controls=24)
    verdicts = tables["verdicts"]
    assert not verdicts["specific"].any()
    if noise:
        matter = verdicts[(verdicts["class"] == "a") & (verdicts["verdict"] == "matters")]
        assert matter[["layer", "head"]].to_numpy().tolist() == [[1, 0], [1, 1], [1, 2]]


def test_controls_are_the_shares_of_each_subspace(sweeps):
    tables = judge(sweeps, "mean", ("heads", "layers"), controls=2)
    controls, config = tables["controls"], sweeps.study.clf.config
    assert " ".join(controls) == "kind layer draw class fill split share region"
    assert len(controls) == 2 * 2 * 2 * 4 * 2  # kinds, layers, draws, classes, splits
    for kind, layer, draw in (("head", 1, 1), ("mlp", 0, 0)):
        ablation = units.random_subspaces(config, kind, 2, 0)[2 * layer + draw]
        plan = Plan("alone", "mean", {split: [ablation] for split in BOTH})
        val, test = findings.compare(sweeps, plan, sweeps.run([plan]), [0]).values()
        temperatures = fit_temperatures(val.baseline, val.ablated, val.targets)
        table = measure_shares(test.baseline, test.ablated, test.targets, list("abcd"), temperatures, permute=False)
        chosen = (controls["kind"] == kind) & (controls["layer"] == layer) & (controls["draw"] == draw)
        rows = controls[chosen & (controls["split"] == "test")]
        assert rows["class"].tolist() == list("abcd")
        np.testing.assert_allclose(rows["share"], table["share"], atol=1e-6)
    known = tables["verdicts"].groupby("kind")["specific"].agg(lambda specific: specific.notna().all())
    assert known.to_dict() == {"head": True, "heads": False, "layer": False, "mlp": False}


def test_regions_and_words_stand_beside_what_is_random(sweeps, network):
    clf, sequences, _ = network
    regions = [
        each
        for each in units.each_region(clf.config, seed=0, in_each_layer=True)
        if each.kind == "mask" and each.layer == 1
    ]
    words = {}
    for split in BOTH:
        even = [np.array(ids) % 2 == 0 for ids in sequences[split]]
        words[split] = units.each_word_class(sequences[split], {"even": even}, np.random.default_rng(0))
    plans = [Plan("regions", "zero", dict.fromkeys(BOTH, regions)), Plan("words", "zero", words)]
    logits = sweeps.run(plans)
    tables = findings.measure_plans(sweeps, plans, logits, None)
    effects, significance = tables["effects"], tables["significance"]
    random = effects["region"].str.startswith(units.RANDOM)
    tested = (effects["metric"] == METRIC) & (effects["split"] == "test")
    assert (effects.loc[tested, "p"].isna() == random[tested]).all()
    assert not significance["region"].str.startswith(units.RANDOM).any()
    controls = findings.measure_controls(sweeps, [], logits, effects)
    verdicts = judge_units(effects, controls)
    assert set(controls["region"]) == {"even", *units.REGIONS, *(f"all but {name}" for name in units.REGIONS)}
    assert set(verdicts["region"]) == {*controls["region"], "last query"}
    assert (controls["draw"] == 0).all()
    for region in ("even", "all but self"):
        rows = effects[(effects["region"] == units.RANDOM + region) & (effects["split"] == "test")]
        share = rows.loc[rows["metric"] == METRIC, "share"].to_numpy()
        np.testing.assert_array_equal(verdicts.loc[verdicts["region"] == region, "control_share"], share)
    without_control = verdicts["region"] == "last query"
    assert (verdicts["specific"].isna() == without_control).all()


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


def test_gradients_are_those_of_the_loss_without_the_prior_of_neutral_texts(network, sweeps):
    """Of one text, which prefers its class by far."""
    clf, sequences, targets = network
    domain = replace(sweeps.texts["val"].select(np.arange(1)), split="domain")
    study = replace(sweeps.study, texts=sweeps.study.texts | {"domain": domain})
    corrected, heads = Sweeps(study, sweeps.folder, 0, 0, neutral="domain"), each_head(clf.config)
    logits = corrected.run([Plan("heads", "zero", {"val": heads})])["heads", "zero", "val"]
    table = findings.estimate_importance(corrected, logits, "zero")
    ids, gates = torch.tensor(sequences["val"]), torch.ones(151, 2, 3, 1, requires_grad=True)
    b = clf(ids[:1]).log_softmax(dim=1).detach()
    assert b.max() - b.min() > 3
    loss = F.cross_entropy(clf(ids, head_gate=gates) - b, torch.tensor(targets["val"]), reduction="sum")
    gradients = torch.autograd.grad(loss, gates)[0][..., 0].mean(dim=0)  # (L, H)
    overall = table[table["class"] == "all"]
    np.testing.assert_allclose(overall["signed"], -gradients.flatten(), rtol=1e-3, atol=1e-5)


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
