"""Pictures of attention: legible, in two formats, and with the numbers of the recording."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from pictures_on_disk import assert_legible

from experiments.attend import figures as drawn
from experiments.attend.patterns import PATTERNS, RANDOM, tabulate_patterns
from experiments.attend.words import ANY, name_masses, tabulate_words
from lab import figures
from lab.attention import list_tokens, record_attention


def record(clf, ids, pieces=None):
    tokens = list_tokens([(piece, 0, 1) for piece in pieces or map(str, ids)])
    return record_attention(clf.trunk, clf.trunk.embed(torch.tensor([ids])), tokens, {})


@pytest.fixture
def legible(monkeypatch):
    """Every picture that is saved is looked at; returns their names."""
    save, names = figures.save, []

    def save_legible(figure, path):
        save(figure, path)
        if path.suffix == ".png":  # the other has the same layout
            assert_legible(figure, path.name)
        names.append(path.name)

    monkeypatch.setattr(figures, "save", save_legible)
    return names


def assert_both(folder, names):
    for name in names:
        assert min(imread(folder / f"{name}.png").shape[:2]) > 250
        assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")
    assert {path.name for path in folder.iterdir()} == {f"{name}.{end}" for name in names for end in ("png", "svg")}


@pytest.mark.parametrize("ids", [[3], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]])
def test_all_views_of_a_text_are_drawn(clf, tmp_path, legible, ids):
    pieces = ["a", " $\\alpha$", "\n", "<b>", " 🙂", " " + 30 * "long", "\x00", " שלום", "�", " x", " y", " z", "."]
    drawn.draw_views(record(clf, ids, pieces[: len(ids)]), (2, 3), tmp_path, "run: a text of some words " * 3, "_2")
    names = ["view_lines_2.3_2", "view_matrix_2.3_2", "view_neurons_2.3_2", "view_heads_2"]
    assert legible == [f"{name}.{end}" for name in names for end in ("png", "svg")]
    assert_both(tmp_path, names)


def test_the_same_picture_is_the_same_svg(clf, tmp_path):
    for name in "ab":
        drawn.draw_lines(record(clf, [1, 2, 3]), (0, 0), tmp_path, name, "run")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(("kind", "divisor", "window"), [("clf", 7**0.5, 99), ("neo_clf", 1, 5)])
def test_the_neurons_of_a_query_end_in_its_weights(request, kind, divisor, window):
    recording = record(request.getfixturevalue(f"{kind}_reference").ours, [1, 2, 3, 4, 1, 5, 6, 7, 8])
    for query in (0, 2, 8):
        product, scores, allowed, weights = drawn.explain_query(recording, (1, 4), query)
        q, k = (x[1, 4].double().numpy() for x in (recording.q, recording.k))
        np.testing.assert_allclose(product, [q[query] * k[j] for j in range(9)])
        np.testing.assert_allclose(scores, [q[query] @ k[j] / divisor for j in range(9)])
        assert allowed.tolist() == [query - window < j <= query for j in range(9)]
        np.testing.assert_allclose(weights, recording.weights[1, 4, query], atol=1e-5)


@pytest.mark.parametrize(("kind", "title"), [("clf", "score: sum / √7"), ("neo_clf", "score: sum")])
def test_the_score_is_called_what_it_is(request, tmp_path, saved, kind, title):
    recording = record(request.getfixturevalue(f"{kind}_reference").ours, [1, 2, 3])
    drawn.draw_neurons(recording, (0, 0), tmp_path, "neurons", "run")
    assert title in [axes.get_title() for axes in saved[0].axes]


def test_what_is_hidden_is_masked_in_the_neurons(clf):
    recording = record(clf, [1, 2, 3])
    hidden = replace(recording, hidden=[0])
    _, _, allowed, weights = drawn.explain_query(hidden, (0, 0), 2)
    assert allowed.tolist() == [False, True, True]
    assert weights[0] == 0
    assert weights.sum() == pytest.approx(1)
    assert drawn.explain_query(hidden, (0, 0), 0)[-1].tolist() == [0, 0, 0]


def test_the_maps_of_all_heads_are_tiles_of_one_picture(clf, tmp_path, saved):
    recording = record(clf, [1, 2, 3, 4])
    drawn.draw_all_heads(recording, tmp_path, "all", "run")
    image = np.ma.filled(saved[0].axes[0].images[0].get_array(), np.nan)  # (3 * 5 - 1, 5 * 5 - 1): a gap of 1
    tile = image[2 * 5 : 2 * 5 + 4, 3 * 5 : 3 * 5 + 4]
    np.testing.assert_allclose(tile[np.tri(4, dtype=bool)], recording.weights[2, 3][np.tri(4, dtype=bool)])
    assert np.isnan(tile[~np.tri(4, dtype=bool)]).all()


def test_the_tables_are_drawn_with_a_dot_on_heads_that_surely_look_there(tmp_path, legible, monkeypatch):
    rng, marked = np.random.default_rng(0), []
    targets = rng.integers(0, 2, 30)
    scores = {pattern: rng.uniform(0.1, 0.3, (30, 2, 3)) for pattern in PATTERNS}
    scores["previous"][:, 1, 2] = rng.uniform(0.8, 0.9, 30)
    rates = dict.fromkeys(PATTERNS, np.full((30, 2), 0.2))
    rates["induction"] = np.where(np.arange(30) < 9, 0.2, np.nan)[:, None].repeat(2, axis=1)  # 9 texts are too few
    heads = tabulate_patterns(scores, rates, targets, ["a", "b"], scores, rates)
    assert RANDOM in set(heads["class"])
    monkeypatch.setattr(drawn, "mark_cells", lambda axes, rows, cell: marked.append((axes, rows)))
    drawn.draw_patterns(heads, tmp_path, "run")
    titles = [" ".join(axes.get_title().split()) for axes, _ in marked]
    assert [title for title in titles if "too few" in title] == ["induction (too few texts for dots)"]
    assert [len(rows) for _, rows in marked] == [1, 0, 0, 0, 0, 0]
    assert marked[0][1][["layer", "head"]].to_numpy().tolist() == [[1, 2]]
    members = {"feel": [np.ones(5, dtype=bool)] * 30, "none": [np.zeros(5, dtype=bool)] * 30}
    masses = {name: rng.uniform(size=(30, 2, 3)) for name in name_masses(members)}
    apart = np.array([[0.3, 0.01, -0.01], [-0.3, -0.3, -0.3]])  # 0.0 surely more, 0.1 more, 0.2 less, 1.x surely less
    masses["feel"] = masses[ANY] + apart + rng.normal(0, 0.1, (30, 2, 3))
    words = tabulate_words(masses, members, np.full(30, 5), [5, 5], targets, ["a", "b"])
    marked.clear()
    drawn.draw_words(words, tmp_path, "run")
    assert [rows[["layer", "head"]].to_numpy().tolist() for _, rows in marked] == [[[0, 0]], []]
    assert_both(tmp_path, ["patterns", "words"])
