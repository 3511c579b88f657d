"""Pictures of planted tables: legible, in two formats, and with the numbers of the tables."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from sklearn.datasets import make_blobs

from experiments.embed.clustering import METHODS
from experiments.embed.clusters import COLUMNS, SWEEP
from experiments.embed.figures import clusters as drawn
from experiments.embed.merges import list_merges
from experiments.embed.spaces import PRETRAINED, TUNED
from lab import figures
from lab.figures import COLOURS, GREY

TITLE = "gpt2-mini on emotion: 300 test texts, last token after ln_f, standardised"
LABELS = ["sadness", "joy", "a class with quite a long name"]


def make_scores():
    rng, rows = np.random.default_rng(0), []
    numbers = [name for name in COLUMNS if name not in ("method", "parameters", "noise", "model")]
    for model in (PRETRAINED, TUNED):
        for method in (*METHODS, *[SWEEP] * 4):
            row = dict(zip(numbers, rng.uniform(size=len(numbers)), strict=True))
            noise = "one class" if "dbscan" in method and method != SWEEP else "none"
            rows.append(row | {"method": method, "noise": noise, "model": model, "parameters": str(5 + len(rows) % 40)})
    table = pd.DataFrame(rows)
    return pd.concat([table, table[table["noise"] == "one class"].assign(noise="singletons", ami=9)])


def make_crosstab(labels=LABELS, n_clusters=3):
    rows = [
        {"model": model, "method": "kmeans", "cluster": c, "name": "anxious, nervous, uncomfortable", "class": label}
        | {"n": 7 * (c + 1), "share": c / 10 + k / 20}
        for model in (PRETRAINED, TUNED)
        for c in range(n_clusters)
        for k, label in enumerate(labels)
    ]
    return pd.DataFrame(rows)


def make_merges(n=60):
    x, classes = make_blobs(n, n_features=5, centers=3, random_state=0)
    nodes = list_merges(x, [LABELS[k] for k in classes])
    return pd.concat([nodes.assign(model=model) for model in (PRETRAINED, TUNED)])


@pytest.fixture
def unsaved(monkeypatch):
    """Pictures are not drawn, which takes seconds; returns the figures by the names of their files."""
    seen = {}
    monkeypatch.setattr(figures, "save", lambda figure, path: seen.setdefault(path.name, figure))
    return seen


@pytest.mark.slow
def test_every_table_is_drawn_twice_and_legibly(tmp_path, legible):
    drawn.draw_crosstab(tmp_path, make_crosstab(), TITLE)
    drawn.draw_dendrogram(tmp_path, make_merges(), 3, TITLE)
    drawn.draw_scores(tmp_path, make_scores(), TITLE)
    drawn.draw_sweep(tmp_path, make_scores(), TITLE)
    names = ("crosstab", "dendrogram", "clusters", "hdbscan")
    assert set(legible) == {f"{name}.{end}" for name in names for end in ("png", "svg")}


def test_marks_stand_at_the_scores_where_noise_is_one_class(unsaved, tmp_path):
    scores = make_scores()
    drawn.draw_scores(tmp_path, scores, TITLE)
    grid = unsaved["clusters.png"].axes
    lines = {(axes.get_xlabel(), line.get_label()): line for axes in grid for line in axes.get_lines()}
    rows = scores[(scores["model"] == TUNED) & (scores["noise"] != "singletons")].set_index("method").loc[list(METHODS)]
    assert lines["AMI with the classes", TUNED].get_xdata().tolist() == rows["ami"].tolist()
    assert (lines["silhouette", f"{TUNED},\none cloud"].get_xdata() == rows["cloud_silhouette"]).all()
    assert (lines["AMI with the classes", f"{TUNED},\npermuted vectors"].get_xdata() == rows["null_ami"]).all()
    assert [label.get_text() for label in grid[0].get_yticklabels()][1] == "agglomerative ward"


def test_the_heat_map_has_the_shares(unsaved, tmp_path):
    drawn.draw_crosstab(tmp_path, make_crosstab(), TITLE)
    first, second = unsaved["crosstab.png"].axes
    assert first.get_title() == PRETRAINED
    assert np.asarray(second.images[0].get_array()) == pytest.approx(np.add.outer(np.arange(3) / 10, np.arange(3) / 20))
    assert [label.get_text() for label in first.get_xticklabels()] == LABELS
    assert first.get_yticklabels()[1].get_text() == "anxious, nervous,\nuncomfortable\n42 texts"


@pytest.mark.slow
def test_many_classes_and_clusters_are_legible_and_what_is_left_out_is_said(tmp_path, legible):
    draw = [(28, 28, ""), (35, 35, "The 30 largest of 35 clusters. ")]
    for n_labels, n_clusters, said in draw:
        labels = [f"disappointment {k}" for k in range(n_labels)]
        drawn.draw_crosstab(tmp_path, make_crosstab(labels, n_clusters), TITLE)
        figure = legible["crosstab.png"]
        first, second = figure.axes[:2]
        assert len(second.get_yticklabels()) == min(n_clusters, 30)
        assert second.get_yticklabels()[1].get_text() == f"anxious, nervous, uncomfortable, {14 * n_labels} texts"
        assert first.get_position().y0 > second.get_position().y1  # one below the other
        assert figure.get_supxlabel().startswith(f"{said}A cell is")
        legible.clear()


def test_a_cluster_of_one_leaf_has_its_colour_and_number(unsaved, tmp_path):
    """One text lies far from all others, and is the first that the cut leaves alone."""
    x = np.concatenate([make_blobs(20, n_features=5, centers=1, random_state=0)[0], np.full((1, 5), 90.0)])
    merges = list_merges(x, ["joy"] * 20 + ["fear"]).assign(model=TUNED)
    drawn.draw_dendrogram(tmp_path, merges, 2, TITLE)
    axes = unsaved["dendrogram.png"].axes[0]
    labels = {round(label.get_position()[1]): label.get_text() for label in axes.get_yticklabels()}
    [alone] = [y for y, text in labels.items() if "fear" in text]
    ends = {
        round(y): to_hex(c).upper()
        for (_, y), c in zip(axes.collections[0].get_offsets(), axes.collections[0].get_facecolors(), strict=True)
    }
    number = 1 if alone == max(labels) else 2
    assert labels[alone] == f"{number}: fear 100% of 1"
    assert ends[alone] == COLOURS[number - 1]
    assert {ends[y] for y in ends if y != alone} == {COLOURS[2 - number]}
    assert {text[:2] for y, text in labels.items() if y != alone} == {f"{3 - number}:"}


def test_clusters_are_numbered_from_top_to_bottom(unsaved, tmp_path):
    drawn.draw_dendrogram(tmp_path, make_merges(), 9, TITLE)  # colours repeat
    axes = unsaved["dendrogram.png"].axes[0]
    labels = sorted(axes.get_yticklabels(), key=lambda label: -label.get_position()[1])
    numbers = [int(label.get_text().split(":")[0]) for label in labels]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(1, 10))
    assert "there are 9, in 7 colours" in unsaved["dendrogram.png"].get_supxlabel().replace("\n", " ")


def test_the_dendrogram_is_cut_into_k_clusters(unsaved, tmp_path):
    merges = make_merges()
    drawn.draw_dendrogram(tmp_path, merges, 3, TITLE)
    axes = unsaved["dendrogram.png"].axes[0]
    colours = [to_hex(line.get_color()).upper() for line in axes.get_lines()]
    assert set(colours) == {*COLOURS[:3], GREY}
    assert colours.count(GREY) == 2  # joins the three
    heights = sorted(float(line.get_xdata()[1]) for line in axes.get_lines())
    nodes = merges[merges["model"] == PRETRAINED]
    assert heights == pytest.approx(sorted(nodes["height"][nodes["left"].notna()]))


@pytest.mark.parametrize("n", [1, 2])
def test_few_texts_have_a_dendrogram(unsaved, tmp_path, n):
    drawn.draw_dendrogram(tmp_path, make_merges(n).assign(model=TUNED)[: 2 * n - 1], 3, TITLE)
    assert len(unsaved["dendrogram.png"].axes[0].get_yticklabels()) == n


def test_the_sweep_has_a_line_for_each_network(unsaved, tmp_path):
    scores = make_scores()
    drawn.draw_sweep(tmp_path, scores, TITLE)
    rows = scores[(scores["method"] == SWEEP) & (scores["model"] == TUNED)]
    line = unsaved["hdbscan.png"].axes[1].get_lines()[1]
    assert line.get_ydata().tolist() == rows["coverage"].tolist()
    drawn.draw_sweep(tmp_path / "nowhere", scores[scores["method"] != SWEEP], TITLE)  # nothing is drawn
