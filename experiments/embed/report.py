"""What the tables say: the numbers that `report.md.jinja` shows.

The sentences stand in that file. This one computes what they say."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lab.report import render
from lab.stats import LEVEL

from .clusters import MAIN, NULLS, SWEEP, state_structure
from .corrections import STANDARD
from .spaces import Site
from .topics import CLASS, CLUSTER, NAMES
from .words import SAME

TEMPLATE = Path(__file__).with_name("report.md.jinja")
SMALL_AMI = 0.05  # below it, clusters have next to nothing to do with the classes
LEAST_LARGE = 0.3  # an anisotropy above it is called large
SHOWN_WORDS = 6  # of a cluster
Row = dict[Hashable, Any]  # of a table


def report(
    about: Sequence[str],
    chosen: Site,
    sites: pd.DataFrame,
    words: pd.DataFrame,
    reductions: pd.DataFrame,
    clusters: pd.DataFrame,
    topics: pd.DataFrame,
    crosstab: pd.DataFrame,
    left_out: Sequence[str],
) -> str:
    """Return the page as Markdown, the answer first. The tables are those of the files.

    chosen: the place whose vectors were reduced and clustered, of any network. left_out: lines on what could not be
    had."""
    last = int(sites["layer"].max())
    return render(
        TEMPLATE,
        about=about,
        left_out=left_out,
        chosen=chosen,
        layer=name_layer(chosen.layer, last),
        classes=[summarise_classes(rows, chosen) for _, rows in sites.groupby("model", sort=False)],
        by_layer=list_layers(sites, chosen.pooling),
        spread=[summarise_spread(rows, last) for _, rows in sites.groupby("model", sort=False)],
        words=[summarise_words(rows) for _, rows in words.groupby("model", sort=False)],
        reductions={str(model): rows.to_dict("records") for model, rows in reductions.groupby("model", sort=False)},
        structure=state_structure(clusters),
        clusters={str(model): list_clusters(rows) for model, rows in clusters.groupby("model", sort=False)},
        named=list_named(topics, crosstab),
        of_classes=list_words(topics[topics["grouping"] == CLASS]),
        coherence=list_coherence(topics),
        level=LEVEL,
        large=LEAST_LARGE,
        small=SMALL_AMI,
        least_p=1 / (1 + NULLS),
        same=1 - SAME,
    )


def name_layer(layer: int, last: int) -> str:
    """Return what a site is called."""
    names = {0: "the embeddings", last - 1: f"layer {last - 1}, before ln_f", last: f"layer {last}, after ln_f"}
    return names.get(layer, f"layer {layer}")


def summarise_classes(sites: pd.DataFrame, chosen: Site) -> Row:
    """Return what is read at the chosen place of a network, and the largest AMI over all sites and poolings beside the
    largest of permuted classes."""
    standard = sites[(sites["correction"] == STANDARD) & sites["ami"].notna()]
    at_place = (standard["layer"] == chosen.layer) & (standard["pooling"] == chosen.pooling)
    row: Row = standard[at_place].iloc[0].to_dict()
    best = standard.iloc[standard["ami"].argmax()]
    return row | {
        "best_ami": best["ami"],
        "best_place": f"{name_layer(best['layer'], int(sites['layer'].max()))}, {best['pooling']}",
        "largest_null": standard["null_ami"].max(),
    }


def list_layers(sites: pd.DataFrame, pooling: str) -> dict[str, Any]:
    """Return AMI and the probe's AUC by layer of each network: {"models": names, "rows": one for each layer}."""
    shown = sites[(sites["correction"] == STANDARD) & (sites["pooling"] == pooling)]
    models, last = list(shown["model"].drop_duplicates()), int(shown["layer"].max())
    wide = shown.pivot(index="layer", columns="model", values=["ami", "probe_auc"])
    pairs = [(column, model) for model in models for column in ("ami", "probe_auc")]
    rows = [
        {"layer": name_layer(layer, last), "values": values}
        for layer, values in zip(wide.index.tolist(), wide[pairs].to_numpy().tolist(), strict=True)
    ]
    return {"models": models, "rows": rows}


def summarise_spread(sites: pd.DataFrame, last: int) -> Row:
    """Return how alike random tokens of a network are at its last layer before ln_f, and what standardising leaves."""
    tokens = sites[(sites["pooling"] == "token") & (sites["layer"] == last - 1)].set_index("correction")
    row: Row = tokens.loc["none"].to_dict()
    return row | {"standardised": tokens.loc[STANDARD, "anisotropy"]}


def summarise_words(words: pd.DataFrame) -> Row:
    """Return what words in context show of a network behind its first block and its last: words of the corpus, then
    words of two senses."""
    first, last = 1, int(words["layer"].max()) - 1
    corpus, left, right = (
        words[words["cue_side"].isna()],
        words[words["cue_side"] == "left"],
        words[words["cue_side"] == "right"],
    )
    at = {"first": corpus[corpus["layer"] == first], "last": corpus[corpus["layer"] == last]}
    senses = left[left["layer"] == last]
    return {
        "model": words["model"].iloc[0],
        "n_words": corpus["word"].nunique(),
        **{f"{name}_similarity": rows["self_similarity"].mean() for name, rows in at.items()},
        **{f"{name}_adjusted": rows["adjusted"].mean() for name, rows in at.items()},
        "last_wte": at["last"]["similarity_to_wte"].mean(),
        "last_mean": at["last"]["similarity_to_mean"].mean(),
        "n_senses": left["word"].nunique(),
        "embedded_accuracy": left.loc[left["layer"] == 0, "sense_accuracy"].mean(),
        "accuracy": senses["sense_accuracy"].mean(),
        "null_accuracy": senses["null_accuracy"].mean(),
        "sure": int((senses["p"] < LEVEL).sum()),
        "by_chance": LEVEL * len(senses),
        "least_right": right["self_similarity"].min(),
        "right_accuracy": right["sense_accuracy"].mean(),
    }


def list_clusters(clusters: pd.DataFrame) -> list[Row]:
    """Return one row for each method: where it leaves texts out, these are struck out."""
    rows = clusters[clusters["method"] != SWEEP].drop_duplicates("method")
    return rows.to_dict("records")


def list_named(topics: pd.DataFrame, crosstab: pd.DataFrame) -> dict[str, list[Row]]:
    """Return the clusters by k-means of each network: size, words, and the class that has most of their texts."""
    named: dict[str, list[Row]] = {}
    of_clusters = crosstab[crosstab["method"] == MAIN]
    for (model, cluster), rows in of_clusters.groupby(["model", "cluster"], sort=False):
        most = rows.iloc[rows["n"].argmax()]
        mine = (topics["grouping"] == CLUSTER) & (topics["model"] == model) & (topics["cluster"] == str(cluster))
        words = topics[mine & (topics["method"] == NAMES)].sort_values("rank")["word"].head(SHOWN_WORDS)
        about = {"cluster": cluster, "size": int(rows["n"].sum()), "words": list(words)}
        named.setdefault(str(model), []).append(about | {"class": most["class"], "share": most["share"]})
    return named


def list_words(topics: pd.DataFrame) -> list[Row]:
    """Return the words of each group by the method that names it."""
    rows = topics[topics["method"] == NAMES].sort_values("rank", kind="stable")
    groups = rows.groupby("cluster", sort=False)
    return [
        {"cluster": cluster, "size": int(of_group["size"].iloc[0]), "words": list(of_group["word"].head(SHOWN_WORDS))}
        for cluster, of_group in groups
    ]


def list_coherence(topics: pd.DataFrame) -> list[Row]:
    """Return coherence and diversity of each method's lists, means over the groups, beside words drawn at random."""
    keys = ["grouping", "model", "method"]
    lists = topics.fillna({"model": ""}).drop_duplicates([*keys, "cluster"])
    means = lists.groupby(keys, sort=False)[["npmi", "null_npmi", "diversity"]].mean().reset_index()
    return means.to_dict("records")
