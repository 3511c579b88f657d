"""Scores of patterns: a plain loop over the attention of `transformers`, identities, and heads that were planted."""

import numpy as np
import pytest
import torch

from experiments.attend.patterns import (
    LONGEST,
    PATTERNS,
    RANDOM,
    ROWS,
    choose_patterns,
    draw_random_tokens,
    judge_heads,
    measure_base_rates,
    tabulate_patterns,
)
from experiments.attend.weights import read_sums
from lab.device import Device
from lab.heads import score_looking_back
from model import GPT2, GPT2LM, GPT2Config, InputError, load_classifier

CPU = Device(torch.device("cpu"), "fp32")
COLUMNS = ["layer", "head", "class", "pattern", "n", "score", "base_rate", "ci_low", "ci_high"]
COLUMNS += ["excess", "excess_low", "excess_high"]
NO_ROWS = dict.fromkeys(PATTERNS, np.empty((0, 1)))
NO_SCORES = dict.fromkeys(PATTERNS, np.empty((0, 1, 3)))


def read_scores(trunk, sequences, folder, **identity):
    return read_sums(trunk, sequences, choose_patterns, PATTERNS, CPU, folder / "sums" / "scores.npy", identity)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sums").mkdir()
    return tmp_path


def keys_of(pattern, ids, i):
    """The keys of one query, by the words of the definition."""
    match pattern:
        case "previous":
            return [i - 1]
        case "first":
            return [0]
        case "self":
            return [i]
        case "local":
            return [j for j in (i - 3, i - 2, i - 1, i) if j >= 0]
        case "induction":
            return [j for j in range(1, i + 1) if ids[j - 1] == ids[i]]
        case "duplicate":
            return [j for j in range(i) if ids[j] == ids[i]]


def loop(pattern, ids, weights, windows):
    """The mean over queries of the mass (L, H) on their keys, and that of uniform attention in each layer (L,)."""
    queries = [i for i in range(1, len(ids)) if keys_of(pattern, ids, i)]
    masses = [sum(weights[..., i, j] for j in keys_of(pattern, ids, i)) for i in queries]
    uniform = []
    for i in queries:
        seen = [range(max(0, i - window + 1), i + 1) for window in windows]
        uniform.append([len({*keys_of(pattern, ids, i)} & {*keys}) / len(keys) for keys in seen])
    return (np.mean(masses, axis=0), np.mean(uniform, axis=0)) if queries else (None, None)


def test_scores_and_base_rates_are_those_of_a_plain_loop(each_clf, windows, sequences, attentions, folder, monkeypatch):
    monkeypatch.setattr("experiments.attend.weights.CELLS", 200)  # so that a batch comes in pieces
    scores, rates = read_scores(each_clf.ours.trunk, sequences, folder), measure_base_rates(sequences, windows)
    for n, (ids, weights) in enumerate(zip(sequences, attentions, strict=True)):
        for pattern in PATTERNS:
            score, rate = loop(pattern, ids, weights, windows)
            if score is None:
                assert np.isnan(rates[pattern][n]).all()
            else:
                np.testing.assert_allclose(scores[pattern][n], score, atol=1e-5)
                assert rates[pattern][n] == pytest.approx(rate, abs=1e-12)
    assert np.isnan(rates["induction"][:, 0]).sum() > 3  # or the test would see no such text


def test_heads_csv_has_the_means_over_texts_of_each_class(each_clf, windows, sequences, attentions, folder):
    targets = np.array([0, 0, 0, 1, 1, 0, 0, 1, 1, 0])
    scores, rates = read_scores(each_clf.ours.trunk, sequences, folder), measure_base_rates(sequences, windows)
    table = tabulate_patterns(scores, rates, targets, ["a", "b", "nothing"], NO_SCORES, NO_ROWS)
    assert list(table) == COLUMNS
    assert len(table) == 6 * 4 * 3 * 5
    for pattern in ("self", "induction"):
        loops = [loop(pattern, ids, w, windows) for ids, w in zip(sequences, attentions, strict=True)]
        for label, of in (("all", [0, 1]), ("a", [0]), ("b", [1])):
            kept = [each for each, k in zip(loops, targets, strict=True) if each[0] is not None and k in of]
            rows = table[(table["pattern"] == pattern) & (table["class"] == label)].set_index(["layer", "head"])
            assert set(rows["n"]) == {len(kept)}
            expected = np.mean([rate for _, rate in kept], axis=0)
            assert rows["base_rate"].to_numpy() == pytest.approx(expected.repeat(5))
            assert rows.loc[(2, 3), "score"] == pytest.approx(np.mean([score[2, 3] for score, _ in kept]), abs=1e-5)
            excess = np.mean([score[1, 3] - rate[1] for score, rate in kept])
            assert rows.loc[(1, 3), "excess"] == pytest.approx(excess, abs=1e-5)
    nothing = table[table["class"] == "nothing"]
    assert (nothing["n"] == 0).all()
    assert nothing[COLUMNS[5:]].isna().all(axis=None)
    assert table["ci_low"].isna().all()  # of fewer than ten texts


def test_without_queries_every_score_is_its_base_rate(each_clf, windows, sequences, folder):
    clf = load_classifier(each_clf.folder)
    with torch.no_grad():
        for block in clf.trunk.h:
            for parameter in block.attn.c_attn.parameters():
                parameter[: clf.config.n_embd] = 0
    scores, rates = read_scores(clf.trunk, sequences, folder), measure_base_rates(sequences, windows)
    for pattern in PATTERNS:
        for n in np.flatnonzero(~np.isnan(rates[pattern][:, 0])):
            np.testing.assert_allclose(scores[pattern][n], rates[pattern][n][:, None].repeat(5, axis=1), atol=1e-5)
    assert rates["previous"][1, 0] == pytest.approx(np.mean([1 / (i + 1) for i in range(1, 13)]))


def test_random_tokens_said_twice_are_scored_as_lab_heads_scores_them(lm, sequences, folder):
    rows = draw_random_tokens(sequences, 13, 0)
    assert len(rows) == ROWS
    for row in rows:
        assert row[:6] == row[6:]
        assert len(set(row)) == 6
    assert {token for row in rows for token in row} <= {token for ids in sequences for token in ids}
    assert rows != draw_random_tokens(sequences, 13, 1)
    scores, tokens = read_scores(lm.trunk, rows, folder), torch.tensor(rows)[:, :6]
    looking_back = [score_looking_back(lm, tokens, back).numpy() for back in (1, 6)]
    np.testing.assert_allclose(scores["previous"].mean(axis=0), looking_back[0], atol=1e-5)
    np.testing.assert_allclose(scores["duplicate"].mean(axis=0), looking_back[1], atol=1e-5)


def test_rows_of_random_tokens_are_as_long_as_they_can_be():
    assert len(draw_random_tokens([list(range(1000))], 1024, 0)[0]) == 2 * LONGEST
    assert len(draw_random_tokens([[1, 2, 3], [3, 1]], 1024, 0)[0]) == 6
    assert draw_random_tokens([[7, 7, 7]], 1024, 0) == []


def planted_heads() -> GPT2:
    """Two layers of three heads, and 12 positions and tokens, each in a dimension of its own: head 0.0 looks at the
    token before and writes which one it was, head 1.2 looks where its own token was the one before. Others look
    everywhere alike."""
    trunk = GPT2(GPT2Config(2, 3, 36, n_ctx=12, vocab_size=12, dropout=0.0, attn_dropout=0.0))
    position, token, before = (torch.arange(start, start + 12) for start in (0, 12, 24))
    with torch.no_grad():
        for name, parameter in trunk.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        trunk.wpe.weight[range(12), position] = 1
        trunk.wte.weight[range(12), token] = 1
        first, second = (block.attn for block in trunk.h)
        first.c_attn.weight[range(11), position[1:]] = 20  # q of head 0: the position before
        first.c_attn.weight[36 + position, position] = 1  # k
        first.c_attn.weight[72 + position, token] = 1  # v
        first.c_proj.weight[before, position] = 1
        second.c_attn.weight[24 + position, token] = 20  # q of head 2
        second.c_attn.weight[36 + 24 + position, before] = 1  # k
    return trunk.eval()


def test_planted_heads_are_found_and_no_others(folder):
    rng = np.random.default_rng(0)
    trunk, sequences = planted_heads(), [rng.integers(0, 12, rng.integers(8, 13)).tolist() for _ in range(60)]
    rows = draw_random_tokens(sequences, 12, 0)
    (folder / "random" / "sums").mkdir(parents=True)
    table = tabulate_patterns(
        read_scores(trunk, sequences, folder),
        measure_base_rates(sequences, [12, 12]),
        np.zeros(60, dtype=int),
        ["a"],
        read_scores(trunk, rows, folder / "random"),
        measure_base_rates(rows, [12, 12]),
    )
    judged = judge_heads(table)
    surely = judged[judged["above"] & judged["random_above"]].set_index(["layer", "head"])
    assert surely.index[surely["pattern"] == "previous"].tolist() == [(0, 0)]
    assert surely.index[surely["pattern"] == "induction"].tolist() == [(1, 2)]
    assert surely["score"][surely["pattern"] == "previous"].min() > 0.95
    assert set(surely.index) <= {(0, 0), (1, 2)}
    uniform = judged.set_index(["layer", "head"]).drop([(0, 0), (1, 2)])
    assert uniform["excess"].abs().max() < 1e-6
    assert set(table["class"]) == {"all", "a", RANDOM}


def test_a_head_is_judged_by_its_distance_from_a_base_rate_that_moves_with_the_texts():
    """Base rates of short and long texts differ by far, the distance of head 0.0 from them hardly; head 0.1 is 0.01
    above on average, in half of the texts 0.2 above: it moves more than its score alone."""
    rng, n = np.random.default_rng(0), 60
    rate = np.where(np.arange(n) % 2, 0.1, 0.5)
    scores = np.column_stack([rate + 0.01 + rng.normal(size=n) / 1000, np.full(n, 0.31), rate])[:, None]
    rates, every = dict.fromkeys(PATTERNS, rate[:, None]), dict.fromkeys(PATTERNS, scores)
    table = tabulate_patterns(every, rates, np.zeros(n, dtype=int), ["a"], NO_SCORES, NO_ROWS)
    rows = table[(table["pattern"] == "self") & (table["class"] == "all")].set_index("head")
    assert rows.loc[0, "ci_low"] < rows.loc[0, "base_rate"]  # by the score alone nothing could be said
    assert 0.009 < rows.loc[0, "excess_low"] < rows.loc[0, "excess"] < rows.loc[0, "excess_high"] < 0.011
    assert rows.loc[1, "ci_low"] > rows.loc[1, "base_rate"]
    assert rows.loc[1, "excess_low"] < 0
    assert rows.loc[2, ["excess", "excess_low", "excess_high"]].tolist() == [0, 0, 0]
    judged = judge_heads(table)
    assert judged[judged["pattern"] == "self"]["above"].tolist() == [True, False, False]


def test_what_was_computed_is_not_computed_again(lm, sequences, folder, monkeypatch):
    scores = read_scores(lm.trunk, sequences, folder, weights="0")
    monkeypatch.setattr("experiments.attend.weights.sum_weights", None)
    again = read_scores(lm.trunk, sequences, folder, weights="0")
    np.testing.assert_array_equal(again["local"], scores["local"])
    with pytest.raises(TypeError):
        read_scores(lm.trunk, sequences, folder, weights="1")


def test_attention_that_is_not_finite_is_refused(folder):
    lm = GPT2LM(GPT2Config(1, 2, 8, n_ctx=4, vocab_size=5)).eval()
    with torch.no_grad():
        lm.trunk.wte.weight[3] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        read_scores(lm.trunk, [[1, 3]], folder)
