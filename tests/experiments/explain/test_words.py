"""Important words: a plain loop over masks, limits by hand and in simulations, scikit-learn's own weights."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from spelled import learn_once, learnt_study, spell, study_of
from tiny import random_classifier

from experiments.explain import words
from experiments.explain.words import (
    COMPARED,
    WORDS,
    Place,
    compare_with_bag_of_words,
    draw_places,
    estimate_means,
    fit_bag_of_words,
    measure_words,
    tabulate_words,
    weigh_words,
)
from model import GPT2Classifier, GPT2Config


def name(token):
    return spell([token]).lower()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return learnt_study(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def table(study):
    return measure_words(study, study.run, 0)


def test_the_key_words_of_each_class_come_first_and_surely(table):
    assert list(table) == WORDS
    assert len(table) == 4 * 23  # every word stands in 10 texts
    for k, label in enumerate("abcd"):
        rows = table[table["class"] == label].reset_index(drop=True)
        assert set(rows["word"][:2]) == {name(k), name(k + 4)}
        assert k == 0 or (rows["ci_low"][:2] > 0).all()  # class a is also what the network says of no key word
        assert (rows["value"].diff()[1:] <= 0).all()
        assert set(rows.loc[rows["bag_of_words"].nlargest(2).index, "word"]) == {name(k), name(k + 4)}
        fillers = rows[rows["word"].isin([name(token) for token in range(8, 23)])]
        assert (fillers["value"].abs() < rows["value"][1] / 3).all()
    compared = compare_with_bag_of_words(table).set_index("class")
    assert (compared["n"] == 23).all()
    assert (compared["seen"] >= 2).all()


def hide_by_mask(clf, ids, hidden):
    """Centred logits of one text of which no query attends to a token; the last one gets the mean embedding."""
    mask = torch.ones(1, 1, 1, 1, len(ids), dtype=torch.bool)
    x = clf.trunk.embed(torch.tensor([ids]))
    if hidden == len(ids) - 1:
        x[0, hidden] = clf.trunk.wte.weight.mean(0) + clf.trunk.wpe.weight[hidden]
    elif hidden is not None:
        mask[..., hidden] = False
    with torch.no_grad():
        logits = clf.read(clf.trunk.norm(clf.trunk.run(x, attn_mask=mask)))[0]
    return (logits[-1] - logits[-1].mean()).numpy() if logits.dim() == 2 else (logits - logits.mean()).numpy()


def test_values_are_those_of_a_plain_loop(study, table):
    texts = study.texts["val"]
    for token in (1, 6):  # words of few texts: none is left out
        losses = [
            hide_by_mask(study.clf, ids, None) - hide_by_mask(study.clf, ids, position)
            for ids in texts.sequences
            for position, other in enumerate(ids)
            if other == token
        ]
        rows = table[table["word"] == name(token)].set_index("class")
        assert len(losses) < words.MOST
        assert set(rows["n"]) == set(rows["texts"]) == {len(losses)}
        np.testing.assert_allclose(rows["frequency"], len(losses) / len(texts))
        np.testing.assert_allclose(rows.loc[list("abcd"), "value"], np.mean(losses, axis=0), atol=1e-5)


def test_of_a_frequent_word_some_texts_are_drawn_with_all_its_places_and_of_a_rare_one_none():
    often = [Place(text, "often", (position,)) for text in range(100) for position in (0, 3)]
    rare = [Place(text, "rare", (1,)) for text in range(9)]
    enough = [Place(text, "enough", (2,)) for text in range(10)]
    drawn = draw_places([*often, *rare, *enough], 0)
    assert [place for place in drawn if place.word == "enough"] == enough
    assert not any(place.word == "rare" for place in drawn)
    chosen = [place.text for place in drawn if place.word == "often"]
    assert len(chosen) == 2 * len(set(chosen)) == 60
    assert chosen != [place.text for place in draw_places([*often, *rare, *enough], 1) if place.word == "often"]
    counts = np.bincount([place.text for seed in range(200) for place in draw_places(often, seed)], minlength=100) / 2
    assert (np.abs(counts / 200 - 0.3) < 0.15).all()  # each text as often as any other


def test_limits_are_students_over_texts_and_not_over_places():
    losses, texts = np.array([1.0, 3.0, 2.0, 6.0, 4.0, 4.0]), [0, 0, 1, 2, 3, 4]
    places = [Place(text, "word", (0,)) for text in texts] + [Place(text, "none", (0,)) for text in range(3)]
    table = tabulate_words(places, np.append(losses, np.zeros(3))[:, None], 9, ["a"]).set_index("word")
    value = 20 / 6
    assert table.loc["word", ["n", "texts"]].tolist() == [6, 5]
    assert table.loc["word", "value"] == pytest.approx(value)
    of_text = [(4 - 2 * value) / 6, (2 - value) / 6, (6 - value) / 6, (4 - value) / 6, (4 - value) / 6]
    variance = 5 * np.sum(np.square(of_text)) * 5 / 4  # of one text, and 0 for the other word
    error = np.sqrt((variance + variance / 2) / 5)
    reach = t.ppf(1 - 0.05 / 2 / 2, 4) * error
    assert table.loc["word", ["ci_low", "ci_high"]].tolist() == pytest.approx([value - reach, value + reach])
    reach = t.ppf(1 - 0.05 / 2 / 2, 2) * np.sqrt(variance / 2 / 3)
    assert table.loc["none", ["ci_low", "ci_high"]].tolist() == pytest.approx([-reach, reach])


def draw_normal(rng):
    return rng.normal(size=(200, 30))


def draw_outliers(rng):
    """One loss in 15 is large and decides; all others are a little below 0, so that the mean is 0."""
    return np.where(rng.random((200, 30)) < 1 / 15, 14.0, -1.0) + 0.1 * rng.normal(size=(200, 30))


@pytest.mark.parametrize(("draw", "most"), [(draw_normal, 0.05), (draw_outliers, 0.1)])
def test_of_words_without_an_effect_hardly_ever_one_is_sure(draw, most):
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        counts = np.zeros((200, 30))
        for word in range(30):
            texts = rng.choice(200, rng.integers(10, 31), replace=False)
            counts[texts, word] = rng.integers(1, 3, len(texts))
        means, reach = estimate_means(counts * draw(rng), counts)
        wrong += (np.abs(means) > reach).any()
    assert wrong / 200 <= most


def test_a_network_that_says_the_same_of_all_texts_has_no_sure_words(tmp_path):
    _, sequences, targets = learn_once()
    clf = GPT2Classifier(GPT2Config(1, 2, 6, n_ctx=7, vocab_size=23, dropout=0, attn_dropout=0), list("abcd"))
    torch.nn.init.zeros_(clf.score.weight)
    compared = compare_with_bag_of_words(measure_words(study_of(clf, sequences, targets, tmp_path), tmp_path, 0))
    assert (compared["sure"] == 0).all()
    assert compared["spearman"].isna().all()  # all values are 0: there is no order


def test_values_in_a_network_of_random_weights_are_no_weights_of_the_bag_of_words(tmp_path):
    """Some of its words are sure all the same: they do move its logits."""
    _, sequences, targets = learn_once()
    config, correlations = GPT2Config(2, 3, 24, n_ctx=7, vocab_size=23, dropout=0.0, attn_dropout=0.0), []
    for seed in range(4):
        study = study_of(random_classifier(config, list("abcd"), seed), sequences, targets, tmp_path)
        table = measure_words(replace(study, weights=str(seed)), tmp_path, 0)
        correlations += compare_with_bag_of_words(table)["spearman"].tolist()
    assert abs(np.mean(correlations)) < 0.15  # 16 correlations of 23 words: a standard error of 0.05


def test_the_bag_of_words_is_fitted_on_all_of_train_and_on_nothing_else(study):
    """In val and test the words stand for other classes than in train."""
    turned = {split: replace(study.texts[split], targets=3 - study.texts[split].targets) for split in ("val", "test")}
    study = replace(study, texts=study.texts | turned)
    bag, train = fit_bag_of_words(study), study.texts["train"]
    weights = weigh_words(bag, [name(token) for token in range(8)])
    assert (weights.argmax(axis=1) == np.arange(8) % 4).all()
    assert bag.score(train.strings, train.targets) > 0.95
    assert set(bag[0].get_feature_names_out()) == {word for text in train.strings for word in text.lower().split()}


@pytest.mark.parametrize("n_classes", [2, 3])
def test_weights_are_what_scikit_learn_adds_to_the_logits(n_classes):
    rng = np.random.default_rng(0)
    texts = [f"i feel {word} {n}" for n, word in enumerate(rng.choice(["well", "being", "bad", "worse"], 60))]
    targets = np.array([0 if "b" in text else 1 for text in texts])
    targets = np.where(rng.random(60) < 0.3, n_classes - 1, targets)
    bag = make_pipeline(CountVectorizer(binary=True), LogisticRegression()).fit(texts, targets)
    decided = bag.decision_function(["feel", "well being", "Bad", ""])
    logits = np.stack([-decided, decided], axis=1) / 2 if n_classes == 2 else decided
    logits -= logits.mean(axis=1, keepdims=True)
    weights = weigh_words(bag, ["feel", "well-being", "Bad", "i", "!", "unknown"])
    np.testing.assert_allclose(weights[:3], logits[:3] - logits[3], atol=1e-12)
    np.testing.assert_allclose(weights[:3].sum(axis=1), 0, atol=1e-12)
    assert np.isnan(weights[3:]).all()


def test_what_the_network_sees_and_the_bag_of_words_does_not():
    rows = [  # word, value, half of its limits, weight
        ("both", 3.0, 1.0, 2.0),
        ("both less", -2.0, 1.0, -1.0),
        ("unsure", 5.0, 6.0, -1.0),
        ("!", -4.0, 1.0, np.nan),
        ("turned", 1.5, 1.0, -0.5),
        ("turned more", -3.5, 1.0, 0.5),
    ]
    table = pd.DataFrame(rows, columns=["word", "value", "reach", "bag_of_words"])
    table = table.assign(ci_low=table["value"] - table["reach"], ci_high=table["value"] + table["reach"])
    filled = pd.DataFrame({"word": [f"w{n}" for n in range(6)], "value": 0.1 * np.arange(6), "bag_of_words": 0.0})
    table = pd.concat([table, filled.assign(ci_low=-1.0, ci_high=1.0)]).assign(**{"class": "a"})
    few = table[:3].assign(**{"class": "b"})
    compared = compare_with_bag_of_words(pd.concat([table, few]))
    assert list(compared) == COMPARED
    row = compared.iloc[0]
    assert row[["class", "n", "sure", "seen"]].tolist() == ["a", 11, 5, 2]
    assert (row["other_sign"], row["no_weight"]) == ('["turned more", "turned"]', '["!"]')
    known = table.dropna(subset="bag_of_words")
    ranks = known[["value", "bag_of_words"]].rank()
    assert row["spearman"] == pytest.approx(np.corrcoef(ranks["value"], ranks["bag_of_words"])[0, 1])
    assert row["p_corrected"] == pytest.approx(row["p"])  # one test: the other class has too few words
    assert compared.iloc[1][["n", "sure"]].tolist() == [3, 2]
    assert np.isnan(compared.iloc[1]["spearman"])


def test_what_was_read_before_is_taken_from_disk(study, tmp_path, monkeypatch):
    study, read, rows = replace(study, run=tmp_path), words.read_remains, []

    def count(clf, remains, device):
        rows.append(len(remains))
        if len(rows) == 3:
            raise KeyboardInterrupt
        return read(clf, remains, device)

    monkeypatch.setattr(words, "ROWS", 100)
    monkeypatch.setattr(words, "read_remains", count)
    with pytest.raises(KeyboardInterrupt):
        measure_words(study, study.run, 0)
    first = measure_words(study, study.run, 0)
    assert rows[:3] == [100, 100, 100]
    n = sum(rows) - rows[2]
    again = measure_words(study, study.run, 0)
    assert sum(rows) - rows[2] == n  # nothing was read again
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    measure_words(replace(study, weights="4567"), study.run, 0)
    assert sum(rows) - rows[2] == 2 * n  # another network


def test_a_corpus_of_few_texts_has_no_rows(study, tmp_path):
    texts = study.texts | {"val": study.texts["val"].select(np.arange(9))}
    table = measure_words(replace(study, texts=texts), tmp_path, 0)
    assert table.empty
    assert list(table) == WORDS
    assert compare_with_bag_of_words(table).empty


def test_texts_that_are_not_read_whole_do_not_count(study, tmp_path):
    val = study.texts["val"]
    longer = replace(val, strings=[f"{text} wordz" for text in val.strings[:20]] + val.strings[20:])
    table = measure_words(replace(study, texts=study.texts | {"val": longer}), tmp_path, 0)
    n = sum(9 in ids for ids in val.sequences[20:])
    assert table.loc[table["word"] == name(9), "frequency"].tolist() == pytest.approx([n / (len(val) - 20)] * 4)
