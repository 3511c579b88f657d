"""Words in context, against loops over texts and pairs, and with planted senses."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from nltk_files import nltk_files
from planted_spaces import open_spaces
from tiny import random_classifier

from data.senses import LEFT, RIGHT, read_senses
from experiments.embed import words
from experiments.embed.sites import measure_anisotropy
from experiments.embed.spaces import RANDOM, TUNED
from experiments.embed.words import (
    COLUMNS,
    Occurrence,
    describe_context,
    find_ambiguous_words,
    find_corpus_words,
    find_first_share,
    measure_self_similarity,
    read_occurrences,
    record_occurrences,
    score_labels,
    score_senses,
    tabulate_words,
)
from lab.device import Device
from lab.texts import Texts
from model import GPT2Config, Tokenizer
from model.names import EMBEDDED

CPU = Device(torch.device("cpu"), "fp32")
CONFIG = GPT2Config(2, 3, 12, n_ctx=40, dropout=0.0, attn_dropout=0.0)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def clf():
    return random_classifier(CONFIG, ["no", "yes"]).requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load(EMBEDDED)


@pytest.fixture
def open_texts(tmp_path, clf, tokenizer):
    """Return spaces of these texts of train and test."""

    def open_them(train, test, cut=40):
        texts = {}
        for split, strings in (("train", train), ("test", test)):
            ids = [tokenizer.encode(text)[-cut:] for text in strings]
            texts[split] = Texts(split, np.arange(len(ids)), list(strings), ids, np.arange(len(ids)) % 2)
        return open_spaces(tmp_path, clf, texts)

    return open_them


def cosine(a, b):
    a, b = np.asarray(a, float), np.asarray(b, float)
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_vectors_of_words_do_not_depend_on_other_texts_or_padding(clf, monkeypatch):
    monkeypatch.setattr("lab.device.TOKENS", 29)
    texts = [tuple(RNG.integers(0, 50257, n).tolist()) for n in (11, 3, 7, 13, 5)]
    picked = [(3, (4, 5)), (0, (10,)), (1, (1,)), (3, (2,)), (2, (1, 2, 3)), (4, (4,))]
    vectors = record_occurrences(clf.trunk, [Occurrence(texts[i], tokens) for i, tokens in picked], CPU)
    assert vectors.shape == (4, 6, 12)
    for row, (i, tokens) in enumerate(picked):
        x = clf.trunk.embed(torch.tensor([texts[i]]))
        for site in range(4):
            at_site = clf.trunk.norm(x) if site == 3 else x
            expected = at_site[0, list(tokens)].mean(dim=0)
            np.testing.assert_allclose(vectors[site, row], expected, atol=1e-6 * float(expected.abs().max()))
            if site < 2:
                x = clf.trunk.run(x, site, site + 1)


def test_one_token_at_equal_positions_is_the_same_at_layer_0_and_not_behind(clf):
    texts = [(5, 9, 17, 3), (80, 2, 17), (41, 7, 17, 1, 1)]
    vectors = record_occurrences(clf.trunk, [Occurrence(ids, (2,)) for ids in texts], CPU)
    similarity = [measure_self_similarity(x, texts) for x in vectors]
    assert similarity[0] == pytest.approx(1, abs=1e-6)
    assert max(similarity[1:]) < 1 - 1e-4


def test_self_similarity_is_the_mean_cosine_of_pairs_in_different_texts():
    x, texts = RNG.normal(0.5, 1, (7, 5)).astype(np.float32), [(1, 2), (3,), (1, 2), (4,), (4,), (4,), (5,)]
    pairs = [cosine(x[i], x[j]) for i, j in combinations(range(7), 2) if texts[i] != texts[j]]
    assert measure_self_similarity(x, texts) == pytest.approx(np.mean(pairs))
    assert np.isnan(measure_self_similarity(x[:2], [(1,), (1,)]))


def test_the_first_singular_value_and_static_vectors_by_hand():
    x, static = np.array([[3.0, 0], [0, 4], [0, 4]]), np.array([[1.0, 1]] * 3)
    context = describe_context(x, static, [(1,), (2,), (3,)])
    assert context["mev"] == find_first_share(x) == pytest.approx(32 / 41)
    assert context["similarity_to_wte"] == pytest.approx(np.sqrt(0.5))
    assert context["self_similarity"] == pytest.approx(1 / 3)
    expected = [0, cosine([0, 4], [1.5, 2]), cosine([0, 4], [1.5, 2])]
    assert context["similarity_to_mean"] == pytest.approx(np.mean(expected))
    assert np.isnan(find_first_share(np.zeros((2, 3))))


def test_nearest_centroids_are_those_of_a_loop():
    x, labellings = RNG.normal(size=(9, 4)), RNG.permuted(np.tile([0, 0, 0, 1, 1, 1, 2, 2, 2], (5, 1)), axis=1)
    expected = []
    for labels in labellings:
        right = 0
        for i in range(9):
            others = np.delete(np.arange(9), i)
            centroids = [x[others][labels[others] == k].mean(axis=0) for k in range(3)]
            right += int(np.argmax([cosine(x[i], c) for c in centroids]) == labels[i])
        expected.append(right / 9)
    np.testing.assert_allclose(score_labels(x @ x.T, labellings, 3), expected)
    assert len(set(expected)) > 1


def test_planted_senses_are_known_and_shuffled_ones_are_not():
    senses = ["river"] * 6 + ["money"] * 6
    x = RNG.normal(size=(12, 30)) + 1e4  # what all share is taken off, or all cosines are 1 to rounding
    x[:6, :10] += 4
    known = score_senses(x, senses, 0)
    assert known["sense_accuracy"] == 1
    assert known["p"] <= 0.01  # 2 of 924 ways to cut twelve in half
    assert 0.3 < known["null_accuracy"] < 0.7
    unknown = score_senses(x, ["river", "money"] * 6, 0)
    assert unknown["sense_accuracy"] < 0.8
    assert unknown["p"] > 0.05


def test_vectors_that_differ_by_rounding_know_nothing():
    x = np.tile(RNG.normal(size=30), (12, 1)) * (1 + 1e-7 * RNG.normal(size=(12, 30)))
    assert score_senses(x, ["a"] * 4 + ["b"] * 4 + ["c"] * 4, 0) == pytest.approx(
        {"sense_accuracy": 1 / 3, "null_accuracy": 1 / 3, "p": 1}
    )


def test_a_cue_behind_the_word_changes_nothing_and_one_before_it_does(clf, tokenizer):
    for each in read_senses():
        for side in (LEFT, RIGHT):
            group = read_occurrences(each, side, tokenizer)
            spelt = {tokenizer.decode([one.ids[i] for i in one.tokens]) for one in group}
            assert spelt == {f" {each.word}"}
            x = record_occurrences(clf.trunk, group, CPU)[3]
            similarity = measure_self_similarity(x, [one.ids for one in group])
            if side == RIGHT:
                scores = score_senses(x, [one.sense for one in group], 0)
                assert similarity == pytest.approx(1, abs=1e-6)
                assert scores == pytest.approx({"sense_accuracy": 0.5, "null_accuracy": 0.5, "p": 1})
            else:
                assert similarity < 1 - 1e-4


def test_frequent_words_and_their_occurrences(open_texts, tmp_path, monkeypatch):
    train = [f"the cat saw {n} dogs" for n in range(20)] + ["cat and dogs"] * 30
    test = [f"Dogs run: Unbelievability {n} dogs" for n in range(25)]
    with nltk_files({"corpora/stopwords/english": "the\nand\n"}, tmp_path / "nltk", monkeypatch):
        spaces = open_texts(train, test)
        groups = find_corpus_words(spaces)
    assert spaces.left_out == []
    assert [word for word, _ in groups] == ["dogs", "run", "unbelievability", "cat", "saw"]
    dogs = groups["dogs", ""]
    assert len(dogs) == 20 + 1 + 25  # a text that stands there often is one text, and a first token is none
    assert all(min(each.tokens) > 0 for each in dogs)
    tokenizer = spaces.study.tokenizer
    for (word, _), group in groups.items():
        spelt = {tokenizer.decode([each.ids[i] for i in each.tokens]).strip().lower() for each in group}
        assert spelt == {word}
    assert len(groups["unbelievability", ""][0].tokens) > 1
    assert len(groups["cat", ""]) == 20  # at position 0 of the other


def test_without_nltks_list_another_is_taken_and_of_many_words_some_are_drawn(open_texts, tmp_path, monkeypatch):
    monkeypatch.setattr(words, "MOST", 21)
    monkeypatch.setattr(words, "MOST_WORDS", 2)
    with nltk_files({"other": ""}, tmp_path / "nltk", monkeypatch):
        spaces = open_texts([f"the cat and {n} dogs" for n in range(40)], ["no"])
        groups, again = find_corpus_words(spaces), find_corpus_words(spaces)
        other = find_corpus_words(replace(spaces, seed=1))
        nothing = open_texts(["one two"], ["three four"])
        assert find_corpus_words(nothing) == {}
    assert [word for word, _ in groups] == ["cat", "dogs"]  # of equally frequent words, by name
    assert [len(set(group)) for group in groups.values()] == [21, 21]
    assert groups == again != other
    assert "nltk has no list of stop words" in spaces.left_out[0]
    assert "no word of the corpus stands in 20" in nothing.left_out[-1]


def test_of_a_truncated_text_the_words_that_are_read_count(open_texts, tmp_path, monkeypatch):
    with nltk_files({"other": ""}, tmp_path / "nltk", monkeypatch):
        groups = find_corpus_words(open_texts([f"red blue green {n} red black" for n in range(30)], ["no"], cut=4))
    assert {word for word, _ in groups} == {"red", "black"}  # green is the first that is read
    assert {each.tokens for each in groups["red", ""]} == {(2,)}


def test_words_of_a_prompt_are_no_words_of_the_corpus(open_texts, tmp_path, monkeypatch):
    with nltk_files({"other": ""}, tmp_path / "nltk", monkeypatch):
        spaces = open_texts([f"about {n} cats" for n in range(30)], ["no"])
        monkeypatch.setattr(
            type(spaces.study), "find_text", lambda _, texts: [np.arange(len(ids)) < 2 for ids in texts.sequences]
        )
        assert find_corpus_words(spaces) == {}


def test_every_network_site_and_word_has_a_row(open_texts, tmp_path, monkeypatch):
    strings = [f"{n} cats saw {n} dogs" for n in range(25)]
    with nltk_files({"other": ""}, tmp_path / "nltk", monkeypatch):
        spaces = open_texts(strings, [f"he saw {n} cats" for n in range(15)])
        table = tabulate_words(spaces)
        monkeypatch.setattr(words, "measure_words", lambda *_: pytest.fail("what was kept is computed again"))
        assert tabulate_words(spaces).equals(table)
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 2 * 4 * (3 + 2 * 12)
    assert set(table["model"]) == {TUNED, RANDOM}
    assert set(table.loc[table["cue_side"].isna(), "word"]) == {"cats", "saw", "dogs"}
    assert (table["sense_accuracy"].notna() == table["cue_side"].notna()).all()

    vectors = spaces.vectors(TUNED, "test")
    row = table[(table["model"] == TUNED) & (table["layer"] == 2) & (table["word"] == "dogs")].iloc[0]
    tokens = vectors.read(2, "token_without_first")
    assert row["adjusted"] == pytest.approx(row["self_similarity"] - measure_anisotropy(tokens))
    assert row["mev_adjusted"] == pytest.approx(row["mev"] - find_first_share(tokens[: row["n"]]))
    clf, ids = spaces.study.clf, [spaces.study.tokenizer.encode(text) for text in strings]
    last = [clf.trunk.run(clf.trunk.embed(torch.tensor([each])), 0, 2)[0, -1].numpy() for each in ids]
    static = clf.trunk.wte.weight[ids[0][-1]].numpy()
    assert row["similarity_to_wte"] == pytest.approx(np.mean([cosine(x, static) for x in last]), abs=1e-5)
    pairs = [cosine(a, b) for a, b in combinations(last, 2)]
    assert row["self_similarity"] == pytest.approx(np.mean(pairs), abs=1e-5)


def test_a_network_of_short_texts_leaves_long_sentences_out(open_texts):
    spaces = open_texts(["one two"], ["three four"])
    short = replace(spaces, study=replace(spaces.study, clf=random_classifier(replace(CONFIG, n_ctx=5), ["no", "yes"])))
    assert find_ambiguous_words(read_senses()[:2], short) == {}
    assert short.left_out[0] == "senses of bank: a sentence has more than the network's 5 tokens"
    assert len(find_ambiguous_words(read_senses()[:2], spaces)) == 4
