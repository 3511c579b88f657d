"""Pictures of planted maps: legible, with the points and numbers of the tables."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from experiments.embed.figures.maps import draw_layers
from experiments.embed.figures.names import NETWORKS
from experiments.embed.figures.reductions import draw_quality, draw_reductions
from experiments.embed.reductions import COLUMNS, tabulate_coordinates
from experiments.embed.spaces import PRETRAINED, TUNED

N, TITLE = 23, "emotion-0: 23 test texts"
LABELS = [f"class {k}" for k in range(9)]  # more than colours
CLASSES = [LABELS[i % 9] for i in range(N)]
METHODS = {
    "pca": "",
    "random_projection": "Gaussian",
    "mds": "metric, from classical MDS",
    "tsne": "perplexity 30",
    "umap": "30 neighbours, min_dist 0.1",
    "autoencoder": "",
    "variational_autoencoder": "beta 1",
}


def place(network, layer=7, pooling="last"):
    return {"model": network, "layer": layer, "pooling": pooling, "correction": "standardise"}


def make_tables():
    rng, scores, points = np.random.default_rng(0), [], []
    for network in (PRETRAINED, TUNED):
        for method, parameters in [*METHODS.items(), ("pca", "")]:
            named = {"method": method, "dims": 2, "parameters": parameters}
            scores.append({**dict.fromkeys(COLUMNS, rng.uniform()), **named, **place(network)})
            table = tabulate_coordinates(method, parameters, rng.normal(size=(N, 2)))
            points.append(pd.DataFrame({**place(network), **table}))
        scores[-1]["dims"] = 50
        points.pop()
    return pd.DataFrame(scores), pd.concat(points, ignore_index=True)


def count_points(axes):
    return sum(len(each.get_offsets()) for each in axes.collections)


def test_each_method_has_a_panel_with_all_texts_and_its_scores(tmp_path, legible):
    reductions, coordinates = make_tables()
    reductions.loc[2, ["trustworthiness", "null_trustworthiness", "reconstruction"]] = 0.123, np.nan, np.nan
    coordinates = coordinates.drop(index=coordinates[coordinates["method"] == "mds"].index[:3])
    draw_reductions(tmp_path, reductions, coordinates, CLASSES, LABELS, TITLE)
    assert set(legible) == {f"reductions-{name}.{end}" for name in (PRETRAINED, TUNED) for end in ("png", "svg")}
    panels = legible[f"reductions-{PRETRAINED}.png"].axes
    assert [count_points(axes) for axes in panels] == [N, N, N - 3, N, N, N, N]
    assert panels[0].get_title().startswith("PCA")
    assert "after ln_f, last token, standardised" in legible[f"reductions-{PRETRAINED}.png"].get_suptitle()
    assert panels[2].get_title().startswith("MDS, metric\ntrust 0.12 (–)")


def test_a_colour_and_a_mark_are_of_one_class(tmp_path, legible):
    draw_reductions(tmp_path, *make_tables(), CLASSES, LABELS, TITLE)
    figure = legible[f"reductions-{TUNED}.png"]
    marks = [(mark.get_color(), mark.get_marker()) for mark in figure.legends[0].get_lines()]
    assert len(set(marks)) == 9
    first, second = [each for each in figure.axes[0].collections if len(each.get_offsets())]
    assert len(first.get_offsets()) == sum(i % 9 < 7 for i in range(N))
    assert len(second.get_offsets()) == sum(i % 9 >= 7 for i in range(N))


def test_bars_and_marks_are_at_the_scores(tmp_path, legible):
    reductions, _ = make_tables()
    draw_quality(tmp_path, reductions, TITLE)
    axes = legible["quality.png"].axes
    assert len(axes) == 6
    widths = [bar.get_width() for bar in axes[0].patches]
    assert np.allclose(widths, reductions["trustworthiness"])
    colours = [to_hex(bar.get_facecolor()).upper() for bar in axes[0].patches]
    assert colours == [NETWORKS[network][0] for network in reductions["model"]]  # as in all pictures
    nulls = np.concatenate([line.get_xdata() for line in axes[0].lines])
    assert np.allclose(nulls, reductions["null_trustworthiness"])
    assert "PCA, 50 dims" in [text.get_text() for text in axes[0].get_yticklabels()]


def test_every_layer_has_a_map_and_many_layers_a_choice_with_both_ends(tmp_path, legible):
    rng = np.random.default_rng(0)
    for n_layers, headings in ((3, ["layer 0", "before ln_f", "after ln_f"]), (14, None)):
        tables = [
            pd.DataFrame(
                {**place(network, layer, pooling), **tabulate_coordinates("tsne", "p", rng.normal(size=(N, 2)))}
            )
            for network in (PRETRAINED, TUNED)
            for layer in range(n_layers)
            for pooling in ("last", "mean_without_first")
        ]
        draw_layers(tmp_path, pd.concat(tables), CLASSES, LABELS, TITLE)
        axes = legible["maps.png"].axes
        assert {count_points(each) for each in axes} == {N}
        shown = [each.get_title() for each in axes[: len(axes) // 2]]
        assert shown == headings if headings else (len(shown), shown[0], shown[-1]) == (8, "layer 0", "after ln_f")
        legible.clear()


@pytest.mark.parametrize(("k", "longest"), [(13, 40), (28, 40), (28, 9)])
def test_the_legend_of_many_classes_covers_nothing(tmp_path, legible, k, longest):
    rng, labels = np.random.default_rng(0), [str(i).rjust(longest, "n") for i in range(k)]
    classes = [labels[i % k] for i in range(2 * k)]
    tables = [
        pd.DataFrame({**place(TUNED, layer), **tabulate_coordinates("tsne", "p", rng.normal(size=(2 * k, 2)))})
        for layer in range(7)
    ]
    draw_layers(tmp_path, pd.concat(tables), classes, labels, TITLE)
    figure = legible["maps.png"]
    legend, size = figure.legends[0].get_window_extent(), figure.bbox
    assert min(legend.x0, legend.y0, size.x1 - legend.x1, size.y1 - legend.y1) > 0
    covered = [each for each in (*figure.texts, *figure.axes) if legend.overlaps(each.get_window_extent())]
    assert covered == []
