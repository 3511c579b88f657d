"""Words of planted topics, of counts by hand, and of clusters in a tiny run; vectors against a plain loop."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from experiments.embed import keywords
from experiments.embed.documents import tabulate_crosstab, tabulate_documents
from experiments.embed.keywords import (
    SCORES,
    choose_diverse,
    choose_top,
    draw_null_npmi,
    fit_topics,
    measure_diversity,
    measure_npmi,
    score_class_tfidf,
    score_class_tfidf_sqrt,
    score_log_odds,
    score_tfidf,
)
from experiments.embed.spaces import TUNED, Site, Spaces
from experiments.embed.topics import (
    COLUMNS,
    Directions,
    average_occurrences,
    count_candidates,
    find_candidates,
    find_directions,
    judge,
    list_topics,
    list_words,
    tabulate_topics,
)
from lab.device import Device
from lab.study import open_study
from model import Trace

TOPICS = ("apple pear plum fig", "dog cat cow hen", "red blue green pink")  # no word in two


def plant(n=12, seed=0):
    """Candidates of texts with words of one topic each, and the topic of each text."""
    rng, groups = np.random.default_rng(seed), np.arange(n * 3) % 3
    texts = [rng.choice(TOPICS[g].split(), 6) for g in groups]
    return count_candidates([[(word, (i,)) for i, word in enumerate(text)] for text in texts]), groups


def test_class_tfidf_is_that_of_grootendorst():
    counts = csr_matrix([[2.0, 1, 0], [0, 1, 3]])
    expected = [[0.674401, 0.337200, 0], [0, 0.252900, 0.579892]]
    assert score_class_tfidf(counts, np.array([0, 1]), 2) == pytest.approx(np.array(expected), abs=1e-6)
    root = score_class_tfidf_sqrt(counts, np.array([0, 1]), 2)[0, 1]
    assert root == pytest.approx(np.sqrt(1 / 3) * np.log(1 + 3.5 / 2))


def test_tfidf_is_the_mean_over_the_texts_of_a_group():
    texts, groups = ["a b b", "b c", "c c a", "d"], np.array([0, 1, 0, -1])
    words = TfidfVectorizer(token_pattern=r"\w")
    dense = words.fit_transform(texts).toarray()
    counts = csr_matrix([[text.split().count(word) for word in words.get_feature_names_out()] for text in texts])
    expected = np.stack([dense[[0, 2]].mean(axis=0), dense[1]])
    assert score_tfidf(counts.astype(float), groups, 2) == pytest.approx(expected)


def test_log_odds_by_hand():
    counts = np.array([[4.0, 1, 0], [1, 1, 2], [0, 3, 1]])
    z = score_log_odds(csr_matrix(counts), np.array([0, 1, -1]), 2)
    prior = keywords.PRIOR * counts.sum(axis=0) / counts.sum()
    for g in range(2):
        inside, outside = counts[g], counts.sum(axis=0) - counts[g]
        for w in range(3):
            a, b = inside[w] + prior[w], outside[w] + prior[w]
            rest_a, rest_b = inside.sum() + prior.sum() - a, outside.sum() + prior.sum() - b
            assert z[g, w] == pytest.approx((np.log(a / rest_a) - np.log(b / rest_b)) / np.sqrt(1 / a + 1 / b))


@pytest.mark.parametrize("method", SCORES)
def test_every_method_lists_planted_topics(method):
    candidates, groups = plant()
    scores = SCORES[method](candidates.counts, groups, 3)
    for g, topic in enumerate(TOPICS):
        assert set(candidates.names[choose_top(scores[g], scores[g] > 0)]) == set(topic.split())


def test_lda_finds_planted_topics():
    candidates, groups = plant(n=40)
    topics, main = fit_topics(candidates.counts, 3, seed=0)
    assert topics.sum(axis=1) == pytest.approx(np.ones(3))
    found = {frozenset(candidates.names[np.argsort(-each)[:4]]) for each in topics}
    assert found == {frozenset(topic.split()) for topic in TOPICS}
    assert len(set(zip(main.tolist(), groups.tolist(), strict=True))) == 3


def test_vectors_list_planted_topics():
    candidates, groups = plant()
    of_word = np.array([next(g for g, topic in enumerate(TOPICS) if w in topic.split()) for w in candidates.names])
    rng = np.random.default_rng(0)
    near = [np.eye(3)[g] + 0.05 * rng.normal(size=(len(g), 3)) for g in (groups, of_word)]
    directions = Directions(*(x / np.linalg.norm(x, axis=1, keepdims=True) for x in near))
    rows = pd.DataFrame(list_words(candidates, groups, list("xyz"), directions))
    rows = rows[rows["method"] == "keybert"]
    for g, name in enumerate("xyz"):
        assert set(rows.loc[rows["cluster"] == name, "word"]) == set(TOPICS[g].split())
    assert set(rows["size"]) == {12}


def test_order_of_texts_and_words_does_not_matter():
    candidates, groups = plant()
    order = np.random.default_rng(1).permutation(len(groups))
    found = [
        [(str(w), ()) for w, n in zip(candidates.names[::-1], row[::-1], strict=True) for _ in range(int(n))]
        for row in candidates.counts.toarray()[order]
    ]
    other = count_candidates(found)
    assert list_words(other, groups[order], list("xyz"), None) == list_words(candidates, groups, list("xyz"), None)


def test_diversity_of_keywords_from_cosine_order_to_farthest():
    angles = np.deg2rad([0.0, 4, 9, 60, 75])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cosines, every = vectors @ vectors[0], np.ones(5, dtype=bool)
    assert choose_diverse(cosines, vectors, every, 0.0) == [0, 1, 2, 3, 4]
    assert choose_diverse(cosines, vectors, every, 1.0) == [0, 4, 3, 2, 1]  # 60 is 15 from the nearest, 9 is 9
    assert choose_diverse(cosines, vectors, every & (np.arange(5) != 0), 0.0)[0] == 1
    between = choose_diverse(cosines, vectors, every, 0.3)
    gain = 0.7 * cosines - 0.3 * vectors @ vectors[0]
    assert between[1] == 1 + int(gain[1:].argmax())


def test_coherence_of_pairs():
    has = csr_matrix([[1.0, 1, 1, 0, 1], [1, 1, 0, 0, 1], [0, 0, 1, 1, 1], [0, 0, 0, 1, 1]])
    assert measure_npmi(has, [0, 1]) == pytest.approx(1)
    assert measure_npmi(has, [0, 3]) == -1
    assert measure_npmi(has, [0, 2]) == pytest.approx(0)
    assert measure_npmi(has, [0, 4]) == pytest.approx(0)
    assert measure_npmi(has, [0, 1, 2]) == pytest.approx(1 / 3)
    assert np.isnan(measure_npmi(has, [0]))
    assert measure_diversity([["a", "b"], ["b", "c"]]) == 3 / 4


def test_coherence_leaves_out_pairs_that_have_a_word_in_common():
    texts = [["feel sad", "feel", "sad", "sad day", "day", "rain"], ["feel", "rain"], ["sad"], ["sun"]]
    candidates = count_candidates([[(name, ()) for name in text] for text in texts])
    names = candidates.names.tolist()
    shared = [
        {"feel sad", "feel"},
        {"feel sad", "sad"},
        {"feel sad", "sad day"},
        {"sad day", "sad"},
        {"sad day", "day"},
    ]
    pairs = [pair for pair in combinations(names, 2) if set(pair) not in shared]
    assert len(pairs) == 7 * 6 / 2 - len(shared)
    expected = np.mean([measure_npmi(candidates.counts, [names.index(name) for name in pair]) for pair in pairs])
    about = {"cluster": "0", "size": 4, "method": "keybert", "score": 1.0, "grouping": "class", "model": ""}
    table = judge([about | {"rank": i, "word": name} for i, name in enumerate(names, 1)], candidates, seed=0)
    assert table["npmi"].to_numpy() == pytest.approx(np.full(7, expected))
    assert (table["diversity"] == 1).all()
    assert np.isnan(measure_npmi(candidates.counts, [0, 1], ["feel", "feel sad"]))


def test_words_of_the_null_are_drawn_by_how_many_texts_have_them():
    rng, common, rare = np.random.default_rng(0), 12, 40
    has = np.hstack([rng.random((rare, common)) < 0.9, np.eye(rare, dtype=bool)]).astype(float)
    urn = np.nonzero(has)[1]  # a word is in it once for each text that has it
    draws = [list(dict.fromkeys(rng.permutation(urn).tolist()))[: keywords.TOP] for _ in range(400)]
    expected = np.mean([measure_npmi(csr_matrix(has), words) for words in draws])
    assert draw_null_npmi(csr_matrix(has), rng, 400) == pytest.approx(expected, abs=0.03)


def test_planted_topics_are_more_coherent_than_words_by_frequency():
    candidates, groups = plant(n=20)
    rows = [row | {"grouping": "class", "model": ""} for row in list_words(candidates, groups, list("xyz"), None)]
    table = judge(rows, candidates, seed=0)
    assert list(table) == COLUMNS
    assert (table["npmi"] > table["null_npmi"] + 0.3).all()
    assert (table["diversity"] == 1).all()
    topics = pd.DataFrame(list_topics(candidates, 3, seed=0))
    assert topics.groupby("cluster")["size"].first().sum() == len(groups)


def test_rare_candidates_are_left_out_unless_all_are_rare():
    texts = [[("a", (0,)), ("b", (1,)), ("a b", (0, 1))]] * 3 + [[("c", (0,))]]
    common = count_candidates(texts)
    assert common.names.tolist() == ["a", "a b", "b"]
    assert common.single.tolist() == [True, False, True]
    assert common.counts.toarray().tolist() == [[1, 1, 1]] * 3 + [[0, 0, 0]]
    assert count_candidates(texts[2:]).names.tolist() == ["a", "a b", "b", "c"]


@pytest.fixture
def spaces(here):
    study = open_study("one", Device.choose("cpu", "fp32"))
    (folder := Path("kept")).mkdir()
    return Spaces(study, folder, limit=30, seed=0)


def test_candidates_have_their_tokens(spaces):
    texts, tokenizer = spaces.texts["test"], spaces.study.tokenizer
    candidates = find_candidates(texts, spaces.study, frozenset({"at"}))
    assert "felt" in candidates.names
    assert not {"i", "at", "i felt"} & set(candidates.names)
    assert any(name.startswith("felt ") for name in candidates.names)
    for ids, of_text, row in zip(texts.sequences, candidates.occurrences, candidates.counts.toarray(), strict=True):
        assert row.sum() == len(of_text)
        for number, tokens in of_text:
            assert tokenizer.decode([ids[t] for t in tokens]).strip() == candidates.names[number]


def test_candidates_are_of_the_text_and_not_of_its_prompt_nor_of_what_is_not_read(spaces):
    texts, tokenizer = spaces.texts["test"], spaces.study.tokenizer
    read = replace(texts, sequences=[ids[1:] for ids in texts.sequences])  # the first token is not read
    of_text = [np.arange(len(ids)) > 1 for ids in read.sequences]
    study = SimpleNamespace(tokenizer=tokenizer, find_text=lambda texts: of_text)
    candidates = find_candidates(read, study, frozenset())
    assert "felt" not in candidates.names  # the first that is read
    assert any(candidates.occurrences)
    for ids, occurrences in zip(read.sequences, candidates.occurrences, strict=True):
        for number, tokens in occurrences:
            assert tokenizer.decode([ids[t] for t in tokens]).strip() == candidates.names[number]


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_candidates_have_the_mean_of_their_occurrences(spaces, layer):
    texts, trunk = spaces.texts["test"], spaces.networks[TUNED].trunk
    candidates = find_candidates(texts, spaces.study, frozenset())
    means = average_occurrences(trunk, texts, candidates, layer, spaces.study.device)
    vectors = [[] for _ in candidates.names]
    for ids, of_text in zip(texts.sequences, candidates.occurrences, strict=True):
        trace = Trace("resid_pre")
        with torch.inference_mode():
            final = trunk(torch.tensor([ids]), trace=trace)
        x = [*trace.resid_pre, final][layer][0].numpy()
        for number, tokens in of_text:
            inner = [x[t] for t in tokens if t > 0]
            vectors[number] += [np.mean(inner, axis=0)] if inner else []
    for mean, each in zip(means, vectors, strict=True):
        expected = np.mean(each, axis=0) if each else np.full(mean.shape, np.nan)
        assert mean == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_directions_of_texts_and_candidates_are_corrected_by_train(spaces):
    texts, trunk = spaces.texts["test"], spaces.networks[TUNED].trunk
    candidates = find_candidates(texts, spaces.study, frozenset())
    directions = find_directions(spaces, Site(TUNED, 1, "mean", "standardise"), candidates)
    train, test = (spaces.vectors(TUNED, split).read(1, "mean").astype(float) for split in ("train", "test"))
    means = average_occurrences(trunk, texts, candidates, 1, spaces.study.device)
    for raw, unit in ((test, directions.texts), (means, directions.candidates)):
        expected = (raw - train.mean(axis=0)) / train.std(axis=0)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert unit == pytest.approx(expected, abs=1e-5, nan_ok=True)
    assert not np.isnan(directions.candidates).all()


def test_a_candidate_at_position_0_has_no_vector(spaces):
    texts, trunk = spaces.texts["test"], spaces.networks[TUNED].trunk
    candidates = count_candidates([[("felt", (1,)), ("i felt", (0, 1)), ("i", (0,))]] * len(texts))
    felt, alone, both = average_occurrences(trunk, texts, candidates, 0, spaces.study.device)
    assert candidates.names.tolist() == ["felt", "i", "i felt"]
    assert np.isnan(alone).all()
    assert both == pytest.approx(felt)  # position 0 is left out of it


def test_the_tables_of_a_run(spaces):
    n, site = len(spaces.texts["test"]), Site(TUNED, spaces.n_sites - 1, "last", "standardise")
    index, clusters = spaces.texts["test"].positions, np.where(np.arange(n) % 5, np.arange(n) % 2, -1)
    assignments = {"kmeans": spaces.targets("test"), "dbscan": clusters}
    members = pd.concat(
        pd.DataFrame({"model": TUNED, "method": m, "index": index, "cluster": c}) for m, c in assignments.items()
    )
    topics = tabulate_topics(spaces, members, [site])
    assert list(topics) == COLUMNS
    assert set(topics["grouping"]) == {"cluster", "dbscan", "class", "lda"}
    assert set(topics.loc[topics["grouping"] == "cluster", "method"]) == {*SCORES, "keybert"}
    assert set(topics.loc[topics["grouping"] == "class", "cluster"]) == set(spaces.labels)
    assert topics["rank"].max() <= keywords.TOP
    pd.testing.assert_frame_equal(topics, tabulate_topics(spaces, members, [site]))

    crosstab = tabulate_crosstab(members, spaces, topics)
    assert list(crosstab) == ["model", "method", "cluster", "name", "class", "n", "share"]
    kmeans, noise = crosstab[crosstab["method"] == "kmeans"], crosstab[crosstab["cluster"] == -1]
    diagonal = kmeans[kmeans["class"] == [spaces.labels[k] for k in kmeans["cluster"]]]
    assert (diagonal["share"] == 1).all()
    assert crosstab.groupby("method")["n"].sum().to_dict() == {"kmeans": n, "dbscan": n}
    assert set(noise["name"]) == {"noise"}
    words = topics[(topics["grouping"] == "cluster") & (topics["cluster"] == "1") & (topics["method"] == "log_odds")]
    assert kmeans.set_index("cluster").loc[1, "name"].iloc[0] == ", ".join(words["word"].iloc[:3])

    coordinates = pd.DataFrame({"model": TUNED, "method": "tsne", "index": index[1:], "x": index[1:] * 2.0, "y": 0.0})
    table = tabulate_documents(spaces, members, coordinates, 2 - spaces.targets("test"))
    names = ["split", "index", "text", "label", "predicted", "cluster_kmeans", "cluster_dbscan", "x", "y"]
    assert list(table) == [*names, "last_token", "length"]
    assert np.isnan(table["x"].iloc[0])
    assert (table["x"].iloc[1:] == 2 * table["index"].iloc[1:]).all()
    assert table["text"].tolist() == [spaces.texts["test"].strings[i] for i in range(n)]
    assert [text.endswith(token) for text, token in zip(table["text"], table["last_token"], strict=True)] == [True] * n
    assert (table["label"] == table["predicted"]).tolist() == (table["label"] == spaces.labels[1]).tolist()
