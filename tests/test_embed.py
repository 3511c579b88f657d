"""`embed.py` from the command line to its files, on a tiny run."""

import re
from pathlib import Path

import commands
import numpy as np
import pandas as pd
import pytest
from commands import one_line
from sklearn.metrics import adjusted_mutual_info_score

import embed
import train
from model import GPT2LM, GPT2Config, Tokenizer, save

TABLES = {  # columns that the tables begin with
    "sites": "model,layer,pooling,correction,anisotropy,anisotropy_without_first,top_dim,top_dim_share,effective_rank,"
    "norm_first,norm_rest,knn_accuracy,probe_auc",
    "words": "word,layer,n,self_similarity,adjusted,mev,sense_accuracy,cue_side",
    "reductions": "method,dims,parameters,seed,trustworthiness,continuity,knn_recall_5,knn_recall_15,knn_recall_50,"
    "spearman,stress1,class_knn,reconstruction,seconds,null_trustworthiness",
    "clusters": "method,space,k,parameters,seed,coverage,silhouette,ch,db,ari,ami,v,matched_accuracy,stability_seed,"
    "stability_subsample,null_ami",
    "topics": "cluster,size,method,rank,word,score,npmi",
    "documents": "split,index,text,label,predicted,cluster_kmeans",
    "crosstab": "model,method,cluster,name,class,n,share",
    "coordinates": "model,layer,pooling,correction,method,parameters,index,x,y",
    "merges": "node,left,right,height,leaves,size,label,share,model",
}
PICTURES = {"classes", "spread", "senses", "quality", "maps", "crosstab", "dendrogram", "clusters", "hdbscan"}


@pytest.fixture(autouse=True)
def empty_pictures(monkeypatch):
    """Pictures stay empty; tests/experiments/embed draws them."""
    monkeypatch.setattr("lab.figures.save", lambda figure, path: path.touch())


@pytest.fixture
def begun(here, unmeasured, monkeypatch):
    """A run that began with a saved network."""
    save(GPT2LM(GPT2Config(2, 3, 12, n_ctx=23)), here / "start", Tokenizer.load("gpt2-mini"))
    options = "--model start --corpus corpus.txt --epochs 3 --lr 0.02 --dropout 0 --device cpu --run two"
    assert commands.exit_code(monkeypatch, train, *options.split()) == 0
    return here


def run_embed(monkeypatch, *arguments):
    """The exit code of `python embed.py arguments`."""
    return commands.exit_code(monkeypatch, embed, "--device", "cpu", "--texts", "31", *arguments)


def read_tables(folder):
    return {name: pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""]) for name in TABLES}


@pytest.mark.slow
def test_all_of_it_lands_in_the_runs_folder_and_a_second_call_computes_nothing(begun, monkeypatch, capsys):
    assert run_embed(monkeypatch, "--run", "two") == 0
    folder = Path("runs/two/embed")
    tables = read_tables(folder)
    for name, columns in TABLES.items():
        assert ",".join(tables[name]).startswith(columns)
    written = {path.name for path in folder.iterdir()}
    pictures = PICTURES | {"reductions-pretrained", "reductions-fine-tuned"}
    assert {"report.md", "map.html"} | {f"{name}.{form}" for name in pictures for form in ("png", "svg")} <= written
    check_places(tables)
    check_documents(tables)
    out = " ".join(capsys.readouterr().out.split())
    assert "report.md says what was found" in out
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "python embed.py --device cpu --texts 31 --run two" in page
    assert "no UMAP among the reductions: umap-learn is not installed" in page
    named = set(re.findall(r"`([\w-]+\.(?:png|html|csv))`", page))
    assert len(named) > 8
    assert named <= written
    computing = "sites.measure_place", "reductions.measure", "clusters.cluster", "maps.draw_map", "words.measure_groups"
    assert not list((folder / "results").glob("*.npy"))
    for name in (*computing, "spaces.record_vectors"):
        monkeypatch.setattr(f"experiments.embed.{name}", None)
    before = {name: (folder / f"{name}.csv").read_bytes() for name in TABLES}
    assert run_embed(monkeypatch, "--run", "two") == 0
    assert {name: (folder / f"{name}.csv").read_bytes() for name in TABLES} == before
    with pytest.raises(TypeError):
        run_embed(monkeypatch, "--run", "two", "--no-resume")


def check_places(tables):
    """Each network has each site; the trained ones are reduced and clustered after ln_f, and mapped everywhere."""
    sites, coordinates = tables["sites"], tables["coordinates"]
    assert list(sites["model"].unique()) == ["pretrained", "fine-tuned", "random"]
    assert set(sites["layer"]) == {0, 1, 2, 3}
    tuned = sites[(sites["model"] == "fine-tuned") & (sites["correction"] == "standardise") & (sites["layer"] == 3)]
    assert tuned.loc[tuned["pooling"] == "last", "probe_auc"].item() > 0.9  # single words give the class away
    for name in ("reductions", "clusters"):
        assert set(zip(tables[name]["model"], tables[name]["layer"], tables[name]["pooling"], strict=True)) == {
            ("pretrained", 3, "last"),
            ("fine-tuned", 3, "last"),
        }
    maps = coordinates[coordinates["parameters"].str.contains("through the layers")]
    places = maps.groupby(["model", "layer", "pooling"])["index"].nunique()
    assert len(places) == 2 * 4 * 2
    assert set(places) == {len(tables["documents"])}


def check_documents(tables):
    """The texts, their clusters and places are the same in all tables."""
    documents, crosstab, clusters = tables["documents"], tables["crosstab"], tables["clusters"]
    assert documents["index"].is_unique
    assert (documents["label"] == documents["predicted"]).mean() > 0.8
    assert set(tables["coordinates"]["index"]) == set(documents["index"])
    first = tables["coordinates"].query(
        "model == 'fine-tuned' and layer == 3 and pooling == 'last' and method == 'tsne'"
    )
    places = first.drop_duplicates("index").set_index("index")
    np.testing.assert_allclose(documents["x"], documents["index"].map(places["x"]))
    for network, start in (("fine-tuned", "cluster_"), ("pretrained", "pretrained_cluster_")):
        of_network = clusters[clusters["model"] == network].drop_duplicates("method").set_index("method")
        ami = adjusted_mutual_info_score(documents["label"], documents[f"{start}kmeans"])
        assert of_network.loc["kmeans", "ami"] == pytest.approx(ami)
        counted = crosstab[(crosstab["model"] == network) & (crosstab["method"] == "kmeans")]
        counts = documents.groupby([f"{start}kmeans", "label"]).size()
        for row in counted.itertuples():
            assert row.n == counts.get((row.cluster, row[5]), 0)


@pytest.mark.slow
def test_of_a_run_from_random_weights_there_are_two_networks(here, monkeypatch):
    assert run_embed(monkeypatch, "--run", "one", "--layer", "0", "--pooling", "mean") == 0
    tables = read_tables(Path("runs/one/embed"))
    assert list(tables["sites"]["model"].unique()) == ["fine-tuned", "random"]
    assert set(tables["clusters"]["layer"]) == {0}
    assert set(tables["clusters"]["pooling"]) == {"mean"}
    page = Path("runs/one/embed/report.md").read_text(encoding="utf-8")
    assert "called fine-tuned all the same: runs/one began with random weights" in page
    assert "The place: the embeddings, pooling `mean`." in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "4"], "--layer 4: expected 0 .. 2, or 3 after ln_f"),
        (["--layer", "-1"], "--layer -1: expected 0 .. 2, or 3 after ln_f"),
        (["--texts", "7"], "--texts 7: expected at least 20 and below 2001"),
        (["--run", "none"], "runs/none: there is no such run"),
    ],
)
def test_mistakes_are_one_line(here, monkeypatch, capsys, arguments, message):
    assert run_embed(monkeypatch, "--run", "one", *arguments) == 2
    assert message in one_line(capsys)
