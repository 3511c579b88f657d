"""The strongest edges: followed back from the logits, or into and out of the nodes that a user names."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .measure import EDGE, Direction, measure_edges
from .paths import LayerNormName, Node, edges_from, edges_into, find_node
from .subject import Subject
from .tables import average

LEAST_EDGE = 0.01  # of the gap: a weaker edge is not followed, for there are many ways
STRONGEST = 4  # edges into one receiver that are followed
NAMED = 20  # edges of named nodes that are shown
FOLLOWED = 10  # receivers whose edges are measured, at most
SENDERS, RECEIVERS = ("embedding", "head", "mlp"), ("head", "mlp", "logits")  # kinds of nodes
Edges = tuple[pd.DataFrame, pd.DataFrame]  # of single pairs (paths.csv), and their averages (edges.csv)


def trace_back(subject: Subject, direction: Direction, layer_norm: LayerNormName, kept: pd.DataFrame) -> Edges:
    """Measure all edges into the logits, follow the STRONGEST ones to their senders, measure all edges into those, and
    so on, the strongest first, for at most FOLLOWED receivers.

    The search is greedy: edges into a node that was not reached are not measured. `strong` says which were followed."""
    waiting = {find_node("logits", subject.config, ["logits"]): np.inf}
    tables: list[Edges] = []
    done: list[Node] = []
    while waiting and len(done) < FOLLOWED:
        receiver = max(waiting, key=lambda node: waiting[node])
        del waiting[receiver]
        done.append(receiver)
        edges = edges_into(receiver, subject.config)
        measured = measure_edges(subject, [direction], f"into {receiver}", edges, layer_norm)
        tables.append((measured, average_edges(measured, kept, STRONGEST)))
        for _, edge in tables[-1][1][lambda table: table["strong"]].iterrows():
            sender = find_node(edge["sender"], subject.config, SENDERS)
            if sender.kind != "embedding" and sender not in done:
                waiting[sender] = max(waiting.get(sender, 0), abs(edge["share"]))
    return join(tables)


def measure_named(
    subject: Subject,
    directions: Sequence[Direction],
    senders: Sequence[Node],
    receivers: Sequence[Node],
    layer_norm: LayerNormName,
    kept: pd.DataFrame,
) -> Edges:
    """Measure all edges out of these senders and into these receivers."""
    edges = [edge for node in senders for edge in edges_from(node, subject.config)]
    edges += [edge for node in receivers for edge in edges_into(node, subject.config)]
    measured = measure_edges(subject, directions, "of named nodes", list(dict.fromkeys(edges)), layer_norm)
    return measured, average_edges(measured, kept, NAMED)


def average_edges(measured: pd.DataFrame, kept: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return the columns of `average`, and `strong`: at most so many edges of each direction, the strongest ones that
    are at least LEAST_EDGE of the gap and, with enough texts for limits, of which these exclude 0.

    The limits hold for all measured edges of a direction at once."""
    averages = average(measured, ["direction", *EDGE, "layer_norm"], kept)
    unclear = (averages["share_low"] <= 0) & (averages["share_high"] >= 0)
    size = averages["share"].abs().where((averages["share"].abs() >= LEAST_EDGE) & ~unclear)
    return averages.assign(strong=size.groupby(averages["direction"]).rank(ascending=False, method="first") <= most)


def join(tables: Sequence[Edges]) -> Edges:
    measured, averages = zip(*tables, strict=True)
    return pd.concat(measured, ignore_index=True), pd.concat(averages, ignore_index=True)
