"""Pictures of sites and of words in context: legible, and with the numbers of the tables."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from experiments.embed import sites, words
from experiments.embed.corrections import CORRECTIONS
from experiments.embed.figures.sites import draw_classes, draw_spread
from experiments.embed.figures.words import draw_senses
from experiments.embed.spaces import PRETRAINED, RANDOM, TUNED
from lab import figures
from lab.vectors import POOLINGS

TITLE = "gpt2-mini on emotion: 1,000 test texts"
NETWORKS = (PRETRAINED, TUNED, RANDOM)


def make_sites(n_sites=8, networks=NETWORKS, seed=0):
    keys = product(networks, range(n_sites), (*POOLINGS, sites.TOKEN), CORRECTIONS)
    table = pd.DataFrame(keys, columns=["model", "layer", "pooling", "correction"])
    rng = np.random.default_rng(seed)
    for column in sites.COLUMNS[4:]:
        table[column] = rng.uniform(0, 0.02 if column == "null_ami" else 1, len(table))
    return table.sample(frac=1, random_state=seed)


def make_words(
    n_sites=8, networks=NETWORKS, groups=(("cat", None), ("dog", None), ("bank", "left"), ("bank", "right"))
):
    keys = [(network, layer, *group) for network, layer, group in product(networks, range(n_sites), groups)]
    table = pd.DataFrame(keys, columns=["model", "layer", "word", "cue_side"]).assign(n=12)
    rng = np.random.default_rng(1)
    for column in set(words.COLUMNS) - set(table.columns):
        table[column] = rng.uniform(0, 1, len(table))
    return table.sample(frac=1, random_state=1)


@pytest.fixture
def unsaved(monkeypatch):
    """Pictures are not drawn, which takes seconds; returns the figures by the names of their files."""
    seen = {}
    monkeypatch.setattr(figures, "save", lambda figure, path: seen.setdefault(path.name, figure))
    return seen


def line(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


@pytest.mark.parametrize(("n_sites", "networks"), [(8, NETWORKS), (50, NETWORKS), (3, NETWORKS[1:])])
def test_pictures_are_legible(tmp_path, legible, n_sites, networks):
    of_sites, of_words = make_sites(n_sites, networks), make_words(n_sites, networks)
    draw_classes(tmp_path, of_sites, TITLE)
    draw_spread(tmp_path, of_sites, of_words, TITLE)
    draw_senses(tmp_path, of_words, TITLE)
    assert set(legible) == {f"{name}.{end}" for name in ("classes", "spread", "senses") for end in ("png", "svg")}


def test_classes_are_those_of_standardised_vectors_beside_the_null(tmp_path, unsaved):
    table = make_sites()
    draw_classes(tmp_path, table, TITLE)
    panels = unsaved["classes.png"].axes
    for k, pooling in enumerate(("last", "mean_without_first")):
        rows = table[(table["pooling"] == pooling) & (table["correction"] == "standardise")]
        for axes, column in ((panels[k], "ami"), (panels[k + 2], "probe_auc")):
            for network in NETWORKS:
                expected = rows[rows["model"] == network].sort_values("layer")[column]
                np.testing.assert_allclose(line(axes, network).get_ydata(), expected)
        null = rows[rows["layer"] == 3]["null_ami"]
        at_3 = [y for x, y in panels[k].collections[0].get_paths()[0].vertices if x == 3]
        assert (min(at_3), max(at_3)) == pytest.approx((0, null.max()))
    assert [label.get_text() for label in panels[2].get_xticklabels()] == [*"012345", "before\nln_f", "after\nln_f"]


def test_spread_is_that_of_random_tokens_and_words_of_the_corpus(tmp_path, unsaved):
    table, of_words = make_sites(), make_words()
    draw_spread(tmp_path, table, of_words, TITLE)
    left, right = unsaved["spread.png"].axes
    tokens = table[(table["pooling"] == "token") & (table["correction"] == "none")].set_index(["model", "layer"])
    corpus = of_words[of_words["cue_side"].isna()].groupby(["model", "layer"])[["self_similarity", "adjusted"]].mean()
    for network in NETWORKS:
        of_tokens, of_corpus = tokens.loc[network].sort_index(), corpus.loc[network]
        with_first = f"{network} with position 0"
        np.testing.assert_allclose(line(left, network).get_ydata(), of_tokens["anisotropy_without_first"])
        np.testing.assert_allclose(line(left, with_first).get_ydata(), of_tokens["anisotropy"])
        np.testing.assert_allclose(line(right, network).get_ydata(), of_corpus["adjusted"])
        expected = of_corpus["self_similarity"] - of_tokens["anisotropy"]
        np.testing.assert_allclose(line(right, with_first).get_ydata(), expected)


def test_senses_are_means_over_words_by_the_side_of_the_cue(tmp_path, unsaved):
    table = make_words(groups=[(word, side) for word in ("bank", "ring") for side in ("left", "right")])
    draw_senses(tmp_path, table, TITLE)
    panels = unsaved["senses.png"].axes
    shown = [("left", "sense_accuracy"), ("right", "sense_accuracy")]
    shown += [("left", "similarity_to_wte"), ("left", "similarity_to_mean")]
    for axes, (side, column) in zip(panels, shown, strict=True):
        rows = table[(table["model"] == TUNED) & (table["cue_side"] == side)]
        np.testing.assert_allclose(line(axes, TUNED).get_ydata(), rows.groupby("layer")[column].mean())
    rows = table[(table["model"] == RANDOM) & (table["cue_side"] == "left")]
    null = line(panels[0], f"{RANDOM}, senses permuted").get_ydata()
    np.testing.assert_allclose(null, rows.groupby("layer")["null_accuracy"].mean())


def test_what_was_not_measured_is_not_drawn(tmp_path, unsaved):
    corpus, senses = (("cat", None),), (("bank", "left"), ("bank", "right"))
    draw_senses(tmp_path, make_words(groups=corpus), TITLE)
    assert unsaved == {}
    draw_spread(tmp_path, make_sites(), make_words(groups=senses), TITLE)
    assert unsaved["spread.png"].axes[1].texts[0].get_text() == "no word is frequent enough"
