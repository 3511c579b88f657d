"""Explanations of randomised networks: what is randomised, how alike two explanations are, and what is said of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_words import CPU, VOCABULARY, explain_texts, parse_ids, plant_words, study_of
from scipy.stats import spearmanr
from tiny import random_classifier

from experiments.explain import sanity
from experiments.explain.choose import OF_USER
from experiments.explain.methods import METHODS, explain
from experiments.explain.sanity import (
    COLUMNS,
    SIMILARITIES,
    choose_balanced,
    compare_values,
    judge,
    list_parts,
    list_steps,
    make_fresh,
    measure_sanity,
    randomise,
    tabulate_similarities,
)
from model import GPT2Classifier, GPT2Config

PARTS = ["head", "block 1", "block 0", "embeddings"]
CONTROLS = ["attention", "rollout"]  # no head has a part in them


def small_network(seed=0):
    config = GPT2Config(2, 2, 14, n_ctx=11, vocab_size=VOCABULARY, dropout=0.0, attn_dropout=0.0)
    return random_classifier(config, list("abcd"), seed).requires_grad_(False)


def draw_small(n, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, VOCABULARY, rng.integers(5, 7)).tolist() for _ in range(n)]


def copy_parameters(clf):
    return {name: value.clone() for name, value in clf.state_dict().items()}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A small network, its parameters before the measurement, 6 texts, their table, and the folder."""
    clf, folder = small_network(), tmp_path_factory.mktemp("sanity")
    before, texts = copy_parameters(clf), explain_texts(clf, draw_small(6))
    return clf, before, texts, measure_sanity(study_of(clf, folder), texts, folder, 0, small_network(5)), folder


def test_similarities_are_those_of_scipy_and_of_hand():
    rng = np.random.default_rng(0)
    for n in (3, 7, 23):
        a, b = rng.integers(-4, 5, (2, n)).astype(float)  # with ties
        signed, absolute, _ = compare_values(a, b)
        assert signed == pytest.approx(spearmanr(a, b).statistic)
        assert absolute == pytest.approx(spearmanr(np.abs(a), np.abs(b)).statistic)
    a, b = np.array([6.0, -5, 4, 3, 2, 1, 0]), np.array([0.0, 1, 2, -3, 4, 5, 6])
    assert compare_values(a, b)[2] == 3 / 5  # tokens 0 to 4, tokens 2 to 6
    assert compare_values(a, -a) == [-1, 1, 1]
    assert compare_values(a[:3], b[:3])[2] == 1  # all three tokens are among the top five


def test_explanations_without_an_order():
    flat, values = np.full(4, 0.25), np.array([1.0, 2, 3, 4])
    assert compare_values(flat, 2 * flat)[0] == 1
    assert compare_values(flat, values)[0] == 0


def test_fresh_networks_are_as_the_constructor_makes_them_and_leave_the_generator_alone():
    clf, state = plant_words(), torch.get_rng_state()
    fresh, again, other = (make_fresh(clf, 0, purpose) for purpose in ("x", "x", "y"))
    assert torch.equal(torch.get_rng_state(), state)
    assert (fresh.config, fresh.labels, fresh.training) == (clf.config, clf.labels, False)
    for name, value in fresh.named_parameters():
        if "ln_" in name or name.endswith("bias"):
            assert (value == float("ln_" in name and name.endswith("weight"))).all()
        else:
            scale = 0.02 / (2 if name.endswith("c_proj.weight") else 1)  # 1 / sqrt(2 L), of two layers
            assert value.std() == pytest.approx(scale, rel=0.3), name
            assert torch.equal(value, again.get_parameter(name))
            assert not torch.equal(value, other.get_parameter(name))
    assert not torch.equal(fresh.score.weight, make_fresh(clf, 1, "x").score.weight)


@pytest.mark.parametrize("n", range(5))
def test_randomising_takes_these_parts_and_no_others_and_leaves_the_network(n):
    clf, fresh = small_network(), make_fresh(small_network(), 0, "x")
    before = copy_parameters(clf)
    mixed = randomise(clf, fresh, PARTS[:n])
    of_part = {
        "head": {"score.weight", "trunk.ln_f.weight", "trunk.ln_f.bias"},
        "embeddings": {"trunk.wte.weight", "trunk.wpe.weight"},
        **{f"block {i}": {name for name in before if name.startswith(f"trunk.h.{i}.")} for i in range(2)},
    }
    taken = set().union(*(of_part[part] for part in PARTS[:n]))
    for name, value in mixed.state_dict().items():
        assert torch.equal(value, (fresh.state_dict() if name in taken else before)[name]), name
        assert not torch.equal(fresh.state_dict()[name], before[name])
        assert torch.equal(clf.state_dict()[name], before[name])
    assert set().union(*of_part.values()) == set(before)


def test_block_1_is_not_block_11():
    clf = GPT2Classifier(GPT2Config(12, 1, 4, n_ctx=3, vocab_size=5), ["a", "b"])
    mixed = randomise(clf, make_fresh(clf, 0, "x"), ["block 1"])
    changed = {
        n.split(".")[2] for n, value in mixed.state_dict().items() if not torch.equal(value, clf.state_dict()[n])
    }
    assert changed == {"1"}


def test_steps_go_down_from_the_head():
    steps = list_steps(2)
    assert list(list_parts(2)) == PARTS
    assert [step[:3] for step in steps] == [
        (scheme, i, part) for scheme in ("cascading", "independent") for i, part in enumerate(PARTS, 1)
    ]
    assert [parts for *_, parts in steps] == [tuple(PARTS[:i]) for i in range(1, 5)] + [(part,) for part in PARTS]


def test_what_no_head_has_a_part_in_stays_exactly_the_same(measured):
    table = measured[3]
    heads = table[table["part"].isin(["head"]) & table["method"].isin(CONTROLS)]
    assert len(heads) == 2 * 2 * 3  # schemes, methods, similarities
    assert (heads[["value", "ci_low", "ci_high"]] == 1).all(axis=None)
    assert (table[table["method"].isin(CONTROLS)]["verdict"] == "stays").all()
    last_block = table[
        (table["part"] == "block 1") & table["method"].isin(CONTROLS) & (table["similarity"] == "spearman")
    ]
    assert (last_block["value"] < 1).all()


def test_the_table_is_that_of_a_plain_loop(measured):
    clf, before, texts, table, _ = measured
    assert list(table.columns) == COLUMNS
    assert all(torch.equal(value, before[name]) for name, value in clf.state_dict().items())
    assert len(table) == (4 + 4 + 1) * len(METHODS) * len(SIMILARITIES)
    row = table.set_index(["scheme", "part", "method", "similarity"]).loc[
        ("cascading", "block 1", "leave_one_out_delete", "spearman")
    ]
    whole, random = [], []
    for text in texts:
        fresh, other = (make_fresh(clf, 0, f"sanity, {text.name}, {name}") for name in ("one", "another"))
        networks = clf, randomise(clf, fresh, ["head", "block 1"]), fresh, other
        ours, mixed, a, b = (
            explain(each, text.parsed, CPU).values["leave_one_out_delete"][:, text.predicted] for each in networks
        )
        whole.append(spearmanr(ours, mixed).statistic)
        random.append(spearmanr(a, b).statistic)
    assert row["n"] == 6
    assert row["value"] == pytest.approx(np.mean(whole))
    assert row["random"] == pytest.approx(np.mean(random))
    assert row["difference"] == pytest.approx(np.mean(whole) - np.mean(random))
    assert row["ci_low"] < row["value"] < row["ci_high"]
    assert row["random_low"] < row["random"] < row["random_high"]
    assert row["difference_low"] < row["difference"] < row["difference_high"]


def test_the_network_of_shuffled_labels_is_a_scheme_of_its_own(measured):
    clf, _, texts, table, _ = measured
    row = table.set_index(["scheme", "part", "method", "similarity"]).loc[("labels", "labels", "shapley", "top5")]
    shares = []
    for text in texts:
        tops = []
        for network in (clf, small_network(5)):
            values = explain(network, text.parsed, CPU).values["shapley"][:, text.predicted]
            tops.append(set(np.argsort(-np.abs(values))[:5].tolist()))
        shares.append(len(tops[0] & tops[1]) / len(tops[0]))
    assert row["value"] == pytest.approx(np.mean(shares))
    assert (row["step"], row["n"]) == (1, 6)


@pytest.mark.slow
def test_the_last_step_of_the_cascade_knows_nothing_of_our_network(tmp_path):
    """So two networks are alike to it in the same way: of signed methods, not at all."""
    clf = small_network()
    texts = explain_texts(clf, draw_small(10, seed=1))
    table = measure_sanity(study_of(clf, tmp_path), texts, tmp_path, 0, None)
    last = table[
        (table["scheme"] == "cascading") & (table["part"] == "embeddings") & (table["similarity"] == "spearman")
    ]
    signed = last[last["method"].isin([name for name, method in METHODS.items() if method.signed])]
    assert (signed["difference_low"] <= 0).all()
    assert (signed[["ci_low", "random_low"]] < 0).all(axis=None)
    assert (signed[["ci_high", "random_high"]] > 0).all(axis=None)
    assert (signed["verdict"] == "follows the network").all()


def test_noise_falls_to_the_random_level_and_what_never_changes_stays():
    rng, steps = np.random.default_rng(0), [("cascading", 1, "head"), ("cascading", 2, "embeddings")]

    def compare(a, b):
        return [compare_values(x, y) for x, y in zip(a, b, strict=True)]

    same, values, random = np.arange(1.0, 12), [], []
    for _ in range(16):
        networks = rng.normal(size=(5, len(METHODS), 11))  # ours, two steps, two random ones
        networks[:, list(METHODS).index("rollout")] = same
        networks[3:, list(METHODS).index("gradient_norm")] = same  # random networks agree, with each other only
        networks[1, list(METHODS).index("gradient_norm")] = (
            networks[0, list(METHODS).index("gradient_norm")] + 0.1 * same
        )
        values.append([compare(networks[0], networks[i]) for i in (1, 2)])
        random.append([compare(networks[3], networks[4])])
    table = sanity.judge_sanity(tabulate_similarities(np.array(values), np.array(random), steps))
    verdicts = table.drop_duplicates("method").set_index("method")["verdict"]
    assert verdicts.pop("rollout") == "stays"
    assert verdicts.pop("gradient_norm") == "partly"
    assert (verdicts == "follows the network").all()
    signed = table[(table["similarity"] == "spearman") & ~table["method"].isin(["rollout", "gradient_norm"])]
    assert (signed[["ci_low", "difference_low"]] < 0).all(axis=None)
    assert (signed[["ci_high", "difference_high"]] > 0).all(axis=None)


@pytest.mark.parametrize(
    ("head", "head_high", "floor", "last_low", "verdict"),
    [
        (0.1, 0.3, 0.0, -0.2, "follows the network"),
        (0.5, 0.7, 0.0, 0.0, "follows the network"),  # just half the way down
        (0.6, 0.8, 0.2, -0.1, "follows the network"),
        (0.51, 0.7, 0.0, -0.2, "partly"),  # less than half
        (0.4, 1.0, 0.0, -0.2, "partly"),  # not surely lower than 1
        (0.1, 0.3, 0.0, 0.01, "partly"),  # still surely alike when all is random
        (1.0, 1.0, 0.0, -0.2, "stays"),
        (1.0, 1.0, 1.0, 0.0, "stays"),
        (0.1, np.nan, 0.0, np.nan, "not judged"),
    ],
)
def test_verdicts(head, head_high, floor, last_low, verdict):
    assert judge(head, head_high, floor, last_low) == verdict


def test_texts_are_chosen_evenly_from_all_classes_without_short_ones_and_those_of_the_user():
    clf = small_network()
    long, short = explain_texts(clf, [[3, 1, 4]])[0], explain_texts(clf, [[3, 1]])[0]

    def predict(text, index, k, split="test"):
        return replace(text, split=split, index=index, probabilities=np.eye(4)[k])

    texts = [predict(long, i, i * 7 % 48 // 12) for i in range(48)]  # twelve of each class
    chosen = choose_balanced([predict(long, 99, 0, OF_USER), predict(short, 98, 0), *texts])
    assert [text.index for text in chosen] == sorted(text.index for text in chosen)
    assert max(text.index for text in chosen) < 48
    assert np.bincount([text.predicted for text in chosen]).tolist() == [3, 3, 3, 3]
    assert len(choose_balanced(texts[:5])) == 5
    assert parse_ids([1, 2]).groups.tolist() == [0, 1]


def test_a_later_call_takes_what_is_on_disk(measured, monkeypatch):
    clf, _, texts, table, folder = measured
    calls = []
    monkeypatch.setattr(sanity, "explain", lambda *a, **k: calls.append(a) or explain(*a, **k))
    study = study_of(clf, folder)
    assert measure_sanity(study, texts, folder, 0, small_network(5)).equals(table)
    without = measure_sanity(study, texts, folder, 0, None)
    assert not calls
    assert set(without["scheme"]) == {"cascading", "independent"}
    measure_sanity(study, texts, folder, 0, small_network(6))  # another network of shuffled labels
    assert len(calls) == 2 * len(texts)
    measure_sanity(study, texts[:1], folder, 1, None)
    assert len(calls) == 2 * len(texts) + 9  # ours, four of the cascade, three alone, and another random one
