from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from experiments.patch.layout import BOX, ENDS, LABEL, PASS, lay_out, rank_depths


def draw_edges(n, layers, seed):
    """Edges between random nodes, each from below to above."""
    rng = np.random.default_rng(seed)
    nodes = ["embedding", *(f"{part} {layer}{head}" for layer in range(layers) for part, head in PARTS), "logits"]
    chosen = {tuple(sorted(rng.choice(len(nodes), 2, replace=False))) for _ in range(n)}
    chosen = [(nodes[i], nodes[j]) for i, j in chosen if nodes[i].split(".")[0] != nodes[j].split(".")[0]]
    return pd.DataFrame(chosen, columns=["sender", "receiver"])


PARTS = [("head", ".0"), ("head", ".7"), ("mlp", "")]


def test_depths_follow_the_forward_pass():
    nodes = ["logits", "mlp 10", "head 2.11", "mlp 2", "head 10.0", "embedding", "head 2.3"]
    ordered = sorted(nodes, key=lambda node: rank_depths([node])[0])
    assert ordered == ["embedding", "head 2.11", "head 2.3", "mlp 2", "head 10.0", "mlp 10", "logits"]
    assert len(rank_depths(nodes)) == 6  # two heads of one layer stand beside each other


@pytest.mark.parametrize("seed", range(5))
def test_nothing_lies_on_anything_else(seed):
    edges = draw_edges(25, 4, seed)
    layout = lay_out(edges, rank_depths([*edges["sender"], *edges["receiver"]]))
    widths = {item: BOX if isinstance(item, str) else LABEL if item in layout.labels else PASS for item in layout.x}
    for level in range(max(layout.levels.values()) + 1):
        row = sorted((x, widths[item]) for item, x in layout.x.items() if layout.levels[item] == level)
        for (x, width), (next_x, next_width) in pairwise(row):
            assert next_x - x >= (width + next_width) / 2 - 1e-6
    assert min(x - widths[item] / 2 for item, x in layout.x.items()) == pytest.approx(0)
    assert max(x + widths[item] / 2 for item, x in layout.x.items()) == pytest.approx(layout.width)


@pytest.mark.parametrize("seed", range(5))
def test_each_edge_has_a_place_on_each_level_and_one_label_between_boxes(seed):
    edges = draw_edges(25, 4, seed)
    layout = lay_out(edges, rank_depths([*edges["sender"], *edges["receiver"]]))
    assert len(set(layout.labels)) == len(edges)
    for chain, label, sender, receiver in zip(
        layout.chains, layout.labels, edges["sender"], edges["receiver"], strict=True
    ):
        assert (chain[0], chain[-1]) == (sender, receiver)
        levels = [layout.levels[item] for item in chain]
        assert levels == list(range(levels[0], levels[-1] + 1))
        assert levels[0] % 2 == levels[-1] % 2 == 0
        assert label in chain
        assert layout.levels[label] % 2 == 1
    assert not set(layout.x) & set(ENDS)


def test_a_chain_of_nodes_stands_upright():
    edges = pd.DataFrame([("embedding", "head 0.1"), ("head 0.1", "mlp 3"), ("mlp 3", "logits")])
    edges.columns = ["sender", "receiver"]
    layout = lay_out(edges, rank_depths([*edges["sender"], *edges["receiver"]]))
    assert len(set(np.round(list(layout.x.values()), 6))) == 1


def test_labels_are_spread_over_the_levels():
    rows = [("embedding", "head 0.0"), ("embedding", "logits"), ("head 0.0", "logits")]
    edges = pd.DataFrame(rows, columns=["sender", "receiver"])
    layout = lay_out(edges, rank_depths([*edges["sender"], *edges["receiver"]]))
    assert [layout.levels[label] for label in layout.labels] == [1, 3, 3]
