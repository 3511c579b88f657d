"""Rationales removed and kept: closed forms, plain loops, a network whose deciding token is known, and chance."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from planted_words import CPU, KEYS, VOCABULARY, draw_texts, explain_texts, parse_ids, plant_words, study_of
from tiny import random_classifier

from experiments.explain import faithfulness
from experiments.explain.attributions import leave_one_out
from experiments.explain.choose import OF_USER
from experiments.explain.faithfulness import draw_orders, measure_faithfulness
from experiments.explain.judge import MEASURED, ROUNDING, Losses, is_circular, judge_methods
from experiments.explain.limits import limit_means
from experiments.explain.methods import METHODS, explain, make_keep
from experiments.explain.rationales import (
    DRAWS,
    METRICS,
    SIZES,
    STEPS,
    average_draws,
    count_tokens,
    list_counts,
    mark_rationales,
    measure_losses,
    order_tokens,
    search,
    spread_counts,
)
from lab.removals import REMOVALS
from model import GPT2Config

KINDS = ["comprehensiveness", "sufficiency"]
NOT_FOUND = {"attention", "rollout", "gradient_norm", "random_network"}  # in the planted network


def small_network(seed=0):
    config = GPT2Config(2, 2, 14, n_ctx=11, vocab_size=VOCABULARY, dropout=0.0, attn_dropout=0.0)
    return random_classifier(config, list("abcd"), seed).requires_grad_(False)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The planted network with 12 texts and what was measured on them."""
    clf, (sequences, positions), folder = plant_words(), draw_texts(12), tmp_path_factory.mktemp("planted")
    texts = explain_texts(clf, sequences)
    return texts, positions, measure_faithfulness(study_of(clf, folder), texts, folder, 0)


@pytest.mark.parametrize(
    ("n_tokens", "shares", "absolute"),
    [
        (1, [1, 1, 1, 1, 1], [1]),
        (3, [1, 1, 1, 1, 2], [1, 2, 3]),
        (20, [1, 1, 2, 4, 10], [1, 2, 3, 5, 10]),
        (70, [1, 4, 7, 14, 35], [1, 2, 3, 5, 10]),  # 0.1 * 70 is 7.000000000000001
        (101, [2, 6, 11, 21, 51], [1, 2, 3, 5, 10]),
    ],
)
def test_sizes_are_rounded_up_and_never_larger_than_the_text(n_tokens, shares, absolute):
    counts = count_tokens(n_tokens)
    assert [counts[size] for size in ("1%", "5%", "10%", "20%", "50%")] == shares
    assert [count for size, count in counts.items() if "%" not in size] == absolute


def test_aopc_takes_equal_shares_once():
    # 20 tokens: different counts 1, 2, 3, 4, 5, 10; the shares are 1, 1, 2, 4, 10
    spread = dict(zip(SIZES, spread_counts(np.array([1.0, 10, 100, 1000, 10000, 100000]), 20), strict=True))
    assert list_counts(20) == [1, 2, 3, 4, 5, 10]
    assert spread["5%"] == 1
    assert spread["20%"] == 1000
    assert spread["5"] == 10000
    assert spread["aopc"] == (1 + 10 + 1000 + 100000) / 4
    short = dict(zip(SIZES, spread_counts(np.array([7.0, 8, 9]), 3), strict=True))
    assert np.isnan([short["5"], short["10"]]).all()
    assert short["aopc"] == 7.5


def test_a_rationale_is_the_tokens_of_largest_value_and_ties_go_by_position():
    order = order_tokens(np.array([1.0, -9, 2, 1, 2]))
    assert order.tolist() == [2, 4, 0, 3, 1]
    marked = mark_rationales(order[None], [0, 1, 3, 5])[0]
    assert marked.astype(int).tolist() == [[0] * 5, [0, 0, 1, 0, 0], [1, 0, 1, 0, 1], [1] * 5]


@pytest.mark.parametrize("removal", REMOVALS)
def test_the_identities_of_comprehensiveness_and_sufficiency(removal):
    ids, y = [3, 1, 4, 1, 5, 9], 1
    keep = make_keep(small_network(), ids, removal, CPU)
    chosen = np.array([[[False] * 6, [True] * 6, [True, False, False, True, True, False]]])  # nothing, all, some

    def measure(rationales):
        losses = measure_losses(keep, y, {"comprehensiveness": rationales, "sufficiency": rationales})
        return dict(zip(METRICS, losses[:, 0], strict=True))

    losses, complement = measure(chosen), measure(~chosen)
    p = torch.tensor(keep(np.array([[True] * 6, [False] * 6]))).softmax(dim=1)[:, y].numpy()
    assert losses["comprehensiveness"][0] == losses["sufficiency"][1] == 0
    for kind, i in (("comprehensiveness", 1), ("sufficiency", 0)):
        assert losses[kind][i] == pytest.approx(p[0] - p[1], abs=1e-6)
        assert losses[f"{kind}_log_odds"][i] == pytest.approx(np.log(p / (1 - p)) @ [1, -1], abs=1e-5)
    for metric in METRICS[::2]:  # those of comprehensiveness
        np.testing.assert_array_equal(losses[metric], complement[metric.replace(*KINDS)])


@pytest.mark.parametrize("removal", REMOVALS)
def test_single_tokens_lose_what_leave_one_out_says(removal):
    clf, ids = random_classifier(GPT2Config(2, 2, 14, 11, VOCABULARY, dropout=0.0), ["a", "b"]), [3, 1, 4, 1, 5]
    keep = make_keep(clf.requires_grad_(False), ids, removal, CPU)
    single = np.eye(5, dtype=bool)[:, None]
    losses = measure_losses(keep, 1, {"comprehensiveness": single, "sufficiency": single})
    values = leave_one_out(keep, 5)  # of two classes, the log-odds are the difference of the logits
    np.testing.assert_allclose(losses[2, :, 0], values[:, 1] - values[:, 0], atol=1e-6)


def test_random_rationales_are_uniform_over_all_of_their_size():
    keep = make_keep(small_network(), [3, 1, 4, 1, 5, 9], "delete", CPU)
    pairs = np.zeros((15, 1, 6), bool)
    for row, pair in zip(pairs, combinations(range(6), 2), strict=True):
        row[0, list(pair)] = True
    every = measure_losses(keep, 0, dict.fromkeys(KINDS, pairs))[:, :, 0]  # (METRICS, 15)
    orders = np.concatenate([draw_orders(6, np.random.default_rng(seed)) for seed in range(200)])
    assert len(orders) == 200 * DRAWS
    drawn = measure_losses(keep, 0, dict.fromkeys(KINDS, mark_rationales(orders, [2])))
    error = every.std(axis=1) / np.sqrt(len(orders))
    assert (np.abs(average_draws(drawn)[:, 0] - every.mean(axis=1)) < 4 * error).all()
    assert error.min() > 0


def test_the_mean_of_equal_draws_is_exact():
    losses = np.full((1, DRAWS, 1), 0.1)
    assert losses.mean() != 0.1  # so a plain mean would not do
    assert average_draws(losses)[0, 0] == 0.1


def test_the_search_takes_weights_in_order_and_sees_what_other_tokens_did():
    weights = np.array([0.5, -1, 3, 2, 0, 1])

    def add(kept):
        return np.stack([kept @ weights, np.zeros(len(kept))], axis=1)

    def need_one_of_two(kept):  # 0 and 1 say the same; 2 says less
        return np.stack([2.0 * (kept[:, 0] | kept[:, 1]) + kept[:, 2], np.zeros(len(kept))], axis=1)

    for kind in KINDS:
        assert search(add, 0, 6, 6, kind).tolist() == [2, 3, 5, 0, 4, 1]
        assert search(add, 1, 6, 2, kind)[:2].tolist() == [1, 4]  # of the other class
    assert search(need_one_of_two, 0, 4, 3, "comprehensiveness").tolist() == [2, 0, 1, 3]
    assert search(need_one_of_two, 0, 4, 3, "sufficiency").tolist() == [0, 2, 1, 3]


def test_the_search_of_a_short_text_goes_on_from_what_it_chose_to_the_end():
    """Each token counts only after the one behind it: a search that ranks all of them at once sees only the last."""
    n = 6

    def count_kept(kept):  # how many of the last tokens are kept, without a gap
        run = np.cumprod(kept[:, ::-1], axis=1).sum(axis=1)
        return np.stack([run.astype(float), np.zeros(len(kept))], axis=1)

    assert search(count_kept, 0, n, n, "sufficiency").tolist() == [5, 4, 3, 2, 1, 0]
    assert search(lambda kept: -count_kept(~kept), 0, n, n, "comprehensiveness").tolist() == [5, 4, 3, 2, 1, 0]


def test_the_search_of_a_long_text_ends_with_one_step_for_all_the_rest():
    weights, calls = np.random.default_rng(0).permutation(30).astype(float), []

    def add(kept):
        calls.append(len(kept))
        return np.stack([kept @ weights, np.zeros(len(kept))], axis=1)

    np.testing.assert_array_equal(search(add, 0, 30, 15, "sufficiency"), np.argsort(-weights))
    assert calls == [30 - i for i in range(STEPS + 1)]


def test_the_table_is_that_of_a_plain_loop(tmp_path):
    rng, clf = np.random.default_rng(0), small_network()
    sequences = [rng.integers(0, VOCABULARY, n).tolist() for n in (1, 2, 3, 5, 7, 7, 10)]
    texts = explain_texts(clf, sequences)
    user = explain_texts(clf, [[1, 2, 3]], OF_USER)
    table = measure_faithfulness(study_of(clf, tmp_path), [*user, *texts], tmp_path, 0).table
    table = table.set_index(["method", "removal", "metric", "size", "class"])

    def read(ids):
        return clf(torch.tensor([ids]))[0].double().softmax(dim=0).numpy()

    losses = {size: [] for size in ("1", "2", "3", "5", "10", "aopc")}
    for text in texts:
        ids, y = text.parsed.ids, text.predicted
        values = text.explanation.values["direct_contribution"][:, y]
        ranked = sorted(range(len(ids)), key=lambda i: (-values[i], i))

        def lose(n, ids=ids, y=y, ranked=ranked):
            rest = [token for i, token in enumerate(ids) if i in ranked[:n]]
            return read(ids)[y] - read(rest)[y]

        for size in losses:
            if size != "aopc" and int(size) <= len(ids):
                losses[size].append(lose(int(size)))
        different = {int(np.ceil(share * len(ids))) for share in (0.01, 0.05, 0.1, 0.2, 0.5)}
        losses["aopc"].append(np.mean([lose(n) for n in different]))
    for size, each in losses.items():
        row = table.loc["direct_contribution", "delete", "sufficiency", size, "all"]
        assert row["n"] == len(each)
        assert row["value"] == pytest.approx(np.mean(each), abs=1e-6)
        assert row["difference"] == pytest.approx(row["value"] - row["random"])
        assert np.isnan(row["ci_low"]) == (len(each) < 5)
    for k, label in enumerate("abcd"):
        assert table.loc["shapley", "hide", "sufficiency", "aopc", label]["n"] == sum(t.predicted == k for t in texts)
    assert table.index.is_unique
    assert len(table) == len(MEASURED) * 3 * 4 * 11 * 5
    assert table.loc["greedy", "fill", "sufficiency", "50%", "all"]["tokens"] == np.mean([1, 1, 2, 3, 4, 4, 5])


def test_limits_are_wider_where_they_hold_for_more_methods_and_absent_for_few_texts():
    values = np.random.default_rng(0).normal(size=(12, 1, 7))
    low, high = limit_means(values)
    alone, _ = limit_means(values[..., :1])
    assert (low < values.mean(axis=0)).all()
    assert (values.mean(axis=0) < high).all()
    assert low[0, 0] < alone[0, 0]
    error = values[:, 0, 0].std(ddof=1) / np.sqrt(12)
    assert values[:, 0, 0].mean() - alone[0, 0] == pytest.approx(2.2 * error, rel=0.1)  # Student's t, 11 degrees
    assert np.isnan(limit_means(values[:4])).all()


def test_where_nothing_is_to_be_found_the_limits_of_all_methods_hold_nineteen_times_in_twenty():
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(400):
        low, high = limit_means(rng.normal(size=(12, 1, 11)))
        wrong += bool((low > 0).any() or (high < 0).any())
    assert wrong / 400 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_each_method_that_can_find_the_planted_word_ranks_it_first_and_is_better_than_random(planted):
    texts, positions, faithfulness = planted
    judged = faithfulness.judged.set_index("method")
    for method in METHODS:
        ranks = [
            (text.explanation.values[method][:, text.predicted] > text.explanation.values[method][key, text.predicted])
            for text, key in zip(texts, positions, strict=True)
        ]
        first = np.mean([rank.sum() == 0 for rank in ranks])
        if method not in NOT_FOUND:
            assert first == 1, method
            assert judged.loc[method, "verdict"] == "better"
            assert judged.loc[method, "better_in"] == judged.loc[method, "judged_in"]
    assert [text.predicted for text in texts] == [i % KEYS for i in range(12)]
    assert judged["judged_in"].to_dict() == {
        method: 6 if method not in METHODS or METHODS[method].removal is None else 4 for method in MEASURED[:-1]
    }


def test_what_does_not_know_the_planted_word_is_no_better_than_random(planted):
    judged = planted[2].judged.set_index("method")
    assert (judged.loc[list(NOT_FOUND), "verdict"] == "no better").all()
    assert (judged.loc[list(NOT_FOUND), "better_in"] == 0).all()
    assert not judged.loc[list(NOT_FOUND), "tied"].any()


def test_of_a_planted_word_all_loss_is_lost_with_the_first_token(planted):
    """Deleted, no class is told from another, and of the log-odds what four equal classes have is left."""
    table = planted[2].table.set_index(["method", "removal", "metric", "size", "class"])
    row = table.loc["direct_contribution", "delete", "comprehensiveness", "1", "all"]
    whole = np.mean([text.probabilities.max() for text in planted[0]])
    assert row["value"] == pytest.approx(whole - 1 / 4, abs=1e-6)
    search = table.loc["greedy", "delete", "comprehensiveness", "1", "all"]
    assert search["value"] == pytest.approx(row["value"], abs=1e-6)


def shuffle_tokens(texts, seed):
    """The same values, at other tokens."""
    rng = np.random.default_rng(seed)
    shuffled = [{m: rng.permutation(values) for m, values in text.explanation.values.items()} for text in texts]
    return [
        replace(text, explanation=replace(text.explanation, values=values))
        for text, values in zip(texts, shuffled, strict=True)
    ]


@pytest.mark.slow
def test_on_random_weights_explanations_of_that_network_are_better_than_random_and_others_are_not(tmp_path):
    """A network of random weights decides as well, so a true explanation of it is better than chance. What must not be
    better are the same values at shuffled tokens, and signed values of other random networks. (Unsigned ones, as the
    length of the gradient, may be: random networks agree about which positions count.)"""
    rng, clf = np.random.default_rng(0), small_network()
    texts = explain_texts(clf, [rng.integers(0, VOCABULARY, rng.integers(5, 7)).tolist() for _ in range(24)])
    others = [small_network(100 + i) for i in range(len(texts))]
    foreign = [
        replace(text, explanation=explain(other, text.parsed, CPU, pairs=2))
        for text, other in zip(texts, others, strict=True)
    ]
    cases = {"its": texts, "shuffled": shuffle_tokens(texts, 0), "foreign": foreign}
    judged = {
        name: measure_faithfulness(study_of(clf, tmp_path), case, tmp_path, 0).judged.set_index("method")
        for name, case in cases.items()
    }
    signed = [name for name, method in METHODS.items() if method.signed]
    assert (judged["its"].loc[[m for m in METHODS if "leave" in m], "verdict"] == "better").all()
    assert (judged["its"].loc["random_network", "verdict"]) == "no better"
    assert (judged["shuffled"]["verdict"] == "no better").all()
    assert (judged["foreign"].loc[signed, "verdict"] == "no better").all()


def test_a_network_that_reads_nothing_gives_nothing_to_find(tmp_path):
    clf = plant_words()
    clf.score.weight.zero_()
    judged = measure_faithfulness(study_of(clf, tmp_path), explain_texts(clf, draw_texts(8)[0]), tmp_path, 0).judged
    assert (judged["verdict"] == "no better").all()
    assert not judged["tied"].any()
    assert judged[["score", "score_low"]].isna().all(axis=None)


def make_losses(reached, n=40, noise=0.02, seed=0):
    """Losses in which random rationales lose 1, and the search loses 4 by comprehensiveness and -4 by sufficiency more.

    reached: by method and removal, the share of it that the method reaches; others reach nothing."""
    rng = np.random.default_rng(seed)
    values = 1 + noise * rng.normal(size=(n, len(REMOVALS), len(METRICS), len(MEASURED) + 1, len(SIZES)))
    values[:, :, :, -1] = 1
    sign = np.array([4 if "compr" in metric else -4 for metric in METRICS])[:, None]
    for method, by_removal in {"greedy": [1, 1, 1], **reached}.items():
        for r, share in enumerate(by_removal):
            values[:, r, :, MEASURED.index(method)] += share * sign
    return Losses(values, np.ones((n, len(SIZES))), np.arange(n) % 2)


def judge(losses):
    return judge_methods(losses).set_index("method")


def test_scores_are_shares_of_what_the_search_reaches_where_the_removal_did_not_make_the_method():
    judged = judge(make_losses({"direct_contribution": [0.6, 0.5, 0.1], "leave_one_out_fill": [0.2, 0.4, 99]}))
    direct, fill = judged.loc["direct_contribution"], judged.loc["leave_one_out_fill"]  # hide, delete, fill
    assert direct["score"] == pytest.approx(0.4, abs=0.01)
    assert fill[["score", "comprehensiveness", "sufficiency"]].tolist() == pytest.approx([0.3] * 3, abs=0.01)
    assert (fill["judged_in"], direct["judged_in"]) == (4, 6)
    assert fill["score_difference"] == pytest.approx(0.3 - 0.55, abs=0.01)  # on hide and delete
    assert fill["score_low"] < fill["score_difference"] < fill["score_high"] < 0
    assert judged.index[judged["tied"]].tolist() == ["direct_contribution"]
    assert (judged.drop(index=["direct_contribution", "leave_one_out_fill"])["verdict"] == "no better").all()


def test_where_the_search_reaches_nothing_no_share_of_it_counts():
    judged = judge(make_losses({"greedy": [1, 1, 0], "direct_contribution": [0.6, 0.5, 0.9]}))
    direct = judged.loc["direct_contribution"]
    assert direct[["score", "comprehensiveness", "sufficiency"]].tolist() == pytest.approx([0.55] * 3, abs=0.01)
    assert (direct["judged_in"], direct["better_in"]) == (6, 6)  # it is better than random all the same


def test_the_best_is_not_one_that_only_had_the_easier_removals():
    """leave_one_out_fill has the larger score, but on hide and delete the other is better than it."""
    judged = judge(make_losses({"leave_one_out_fill": [0.8, 0.8, 0], "direct_contribution": [0.9, 0.9, 0.3]}))
    assert judged.loc["leave_one_out_fill", "score"] > judged.loc["direct_contribution", "score"] + 0.05
    assert judged.index[judged["tied"]].tolist() == ["direct_contribution"]
    assert judged.loc["direct_contribution", "score_difference"] == 0


def test_methods_that_differ_by_less_than_the_texts_do_are_tied():
    judged = judge(make_losses({"shapley": [0.5, 0.5, 0.5], "attention": [0.49, 0.49, 0.49]}, noise=1))
    assert {"shapley", "attention"} <= set(judged.index[judged["tied"]])
    judged = judge(make_losses({"shapley": [0.5, 0.5, 0.5], "attention": [0.49, 0.49, 0.49]}, noise=0.001))
    assert judged.index[judged["tied"]].tolist() == ["shapley"]


def test_a_method_that_is_better_under_some_removals_is_partly_so_and_the_wrong_way_is_no_better():
    judged = judge(make_losses({"attention": [0.5, 0, 0], "rollout": [-0.5, -0.5, -0.5]}))
    assert judged.loc["attention", ["verdict", "better_in", "judged_in"]].tolist() == ["partly", 2, 6]
    assert judged.loc["rollout", ["verdict", "better_in"]].tolist() == ["no better", 0]


def test_of_few_texts_nothing_is_judged():
    judged = judge(make_losses({"shapley": [1, 1, 1]}, n=4))
    assert (judged["verdict"] == "not judged").all()
    assert not judged["tied"].any()


def test_differences_of_rounding_are_none():
    losses = make_losses({"shapley": [ROUNDING / 8] * 3}, noise=0)
    assert judge(losses).loc["shapley", "verdict"] == "no better"
    assert judge(make_losses({"shapley": [ROUNDING] * 3}, noise=0)).loc["shapley", "verdict"] == "better"


def test_a_removal_is_circular_for_the_methods_that_it_made():
    circular = {(method, removal) for method in MEASURED for removal in REMOVALS if is_circular(method, removal)}
    assert circular == {
        *((f"leave_one_out_{removal}", removal) for removal in REMOVALS),
        *((method, "fill") for method in ("gradient_x_input", "integrated_gradients", "shapley")),
    }


@pytest.mark.slow
def test_a_later_call_takes_what_is_on_disk_unless_it_was_computed_from_something_else(tmp_path, monkeypatch):
    clf, study = plant_words(), study_of(plant_words(), tmp_path)
    texts = explain_texts(clf, draw_texts(6)[0])
    before = measure_faithfulness(study, texts, tmp_path, 0)
    calls = []
    monkeypatch.setattr(faithfulness, "search", lambda *a: calls.append(a) or search(*a))
    after = measure_faithfulness(study, texts, tmp_path, 0)
    assert not calls
    assert before.table.equals(after.table)
    assert before.judged.equals(after.judged)
    (tmp_path / "faithfulness_test_3.json").unlink()
    assert measure_faithfulness(study, texts, tmp_path, 0).table.equals(before.table)
    assert len(calls) == 6  # one text: three removals, two kinds
    measure_faithfulness(study, shuffle_tokens(texts[:1], 0), tmp_path, 0)
    assert len(calls) == 12
    measure_faithfulness(study, texts[1:2], tmp_path, 1)
    assert len(calls) == 18


def test_random_rationales_differ_from_text_to_text_and_with_the_seed(tmp_path):
    clf = small_network()
    texts = explain_texts(clf, [[3, 1, 4, 1, 5, 9, 2]] * 6)
    measured = [
        faithfulness.measure_text(study_of(clf, tmp_path), text, tmp_path, seed)
        for text, seed in ((texts[0], 0), (texts[1], 0), (texts[0], 1))
    ]
    one_draw = MEASURED.index("random_network")
    for column in (-1, one_draw):  # the mean random rationale, and that of a random network
        assert not np.allclose(measured[0][:, :, column], measured[1][:, :, column], atol=1e-3)
        assert not np.allclose(measured[0][:, :, column], measured[2][:, :, column], atol=1e-3)
    np.testing.assert_allclose(measured[0][:, :, :one_draw], measured[1][:, :, :one_draw], atol=1e-5)


def test_a_text_of_one_token(tmp_path):
    clf = small_network()
    table = measure_faithfulness(study_of(clf, tmp_path), explain_texts(clf, [[3]] * 6), tmp_path, 0).table
    assert (table[table["class"] == "all"]["difference"].dropna() == 0).all()
    assert parse_ids([3]).groups.tolist() == [0]
