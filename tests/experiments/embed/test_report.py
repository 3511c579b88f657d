"""What the report says of made-up tables, whichever way they came out."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from embedded import make_documents, make_topics

from experiments.embed import clusters, reductions, sites, words
from experiments.embed.report import report
from experiments.embed.spaces import Site

NETWORKS = ("pretrained", "fine-tuned", "random")
CHOSEN = Site("fine-tuned", 3, "last", "standardise")


def make_table(columns, keys, seed=0):
    """Return a table with a row for each combination of the keys; the other columns are numbers between 0 and 1."""
    rng, rows = np.random.default_rng(seed), [dict(zip(keys, each, strict=True)) for each in product(*keys.values())]
    table = pd.DataFrame(rows)
    for column in columns:
        if column not in table:
            table[column] = rng.uniform(0.2, 0.8, len(table)).round(3)
    return table


def make_sites(ami=0.9, null_ami=0.02):
    poolings, corrections = ("last", "mean", "token"), ("none", "standardise")
    keys = {"model": NETWORKS, "layer": range(4), "pooling": poolings, "correction": corrections}
    table = make_table(sites.COLUMNS, keys).assign(ami=ami, null_ami=null_ami, top_dim=7)
    return table.assign(ami=table["ami"].where(table["pooling"] != "token"))


def make_words(right=1.0):
    keys = {"model": NETWORKS, "layer": range(4), "word": ("bank", "spring"), "cue_side": (None, "left", "right")}
    table = make_table(words.COLUMNS, keys)
    return table.assign(self_similarity=table["self_similarity"].where(table["cue_side"] != "right", right))


def make_clusters(**changes):
    keys = {"model": NETWORKS[:2], "method": (*clusters.METHODS, clusters.SWEEP)}
    return make_table(clusters.COLUMNS, keys).assign(**{"k": 3, "p": 0.001, "p_structure": 0.001} | changes)


def write_report(**changed):
    documents = make_documents()
    keys = {"model": NETWORKS[:2], "method": ("kmeans",), "cluster": (0, 1, 2), "class": ("anger", "fear", "joy")}
    crosstab = make_table(("name", "n", "share"), keys).assign(n=7)
    tables = {
        "sites": make_sites(),
        "words": make_words(),
        "reductions": make_table(
            (*reductions.COLUMNS, "layer"), {"model": NETWORKS[:2], "method": ("pca", "tsne"), "parameters": ("",)}
        ),
        "clusters": make_clusters(),
        "topics": make_topics(documents),
        "crosstab": crosstab,
    }
    return report(["about"], CHOSEN, **tables | changed, left_out=["no UMAP"])


def test_the_place_and_what_is_read_there_stand_first():
    page = write_report()
    assert "The place: layer 3, after ln_f, pooling `last`." in page
    answer = page[page.index("## The answer") : page.index("## Layer by layer")]
    table = make_sites().set_index(["model", "layer", "pooling", "correction"])
    for network in NETWORKS:
        row = table.loc[(network, 3, "last", "standardise")]
        line = next(line for line in answer.split("\n") if line.startswith(f"- **{network.capitalize()}.**"))
        assert f"ROC AUC of {row['probe_auc']:.3f} (accuracy {row['probe_accuracy']:.3f}" in line
        assert "AMI of 0.900 with the classes" in line
    assert "- about\n- no UMAP\n" in page


@pytest.mark.parametrize(
    ("ami", "null_ami", "said"),
    [
        (0.01, 0.02, "nowhere do clusters have to do with the classes"),
        (0.03, 0.02, "above chance, and next to nothing"),
    ],
)
def test_clusters_that_are_hardly_the_classes_are_said_to_be_so(ami, null_ami, said):
    assert said in write_report(sites=make_sites(ami, null_ami))
    assert said not in write_report()


def test_no_structure_and_groups_that_are_not_the_classes_are_said():
    assert "Clusters, pretrained: **no structure found**" in write_report(clusters=make_clusters(p_structure=0.3))
    assert "They are not the classes" in write_report(clusters=make_clusters(p=0.3))
    page = write_report()
    assert "no structure found" not in page
    assert "They agree with the classes more than by chance" in page


def test_vectors_that_see_a_cue_behind_them_are_an_alarm():
    assert "which a causal network cannot do" in write_report(words=make_words(right=0.99))
    page = write_report()
    assert "which a causal network cannot do" not in page
    assert "all its vectors are the same, as they must be in a causal network" in page


def test_a_network_that_is_missing_is_left_out():
    rest = {
        name: table[table["model"] != "pretrained"]
        for name, table in {"sites": make_sites(), "words": make_words(), "clusters": make_clusters()}.items()
    }
    page = write_report(**rest)
    assert "- **Pretrained.**" not in page
    assert "- **Fine-tuned.**" in page


def test_corpora_without_frequent_words_or_senses_have_no_lines_about_them():
    table = make_words()
    page = write_report(words=table[table["cue_side"].notna()])
    assert "frequent words of the corpus" not in page
    page = write_report(words=table[table["cue_side"].isna()])
    assert "with two senses" not in page
