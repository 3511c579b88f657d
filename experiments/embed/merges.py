"""Which clusters are nearest to each other? The last merges of Ward's method, as a table for the dendrogram."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage

from .clustering import DIMS, project
from .corrections import Floats
from .spaces import Site, Spaces

LEAVES = 30  # at most
COLUMNS = ["node", "left", "right", "height", "leaves", "size", "label", "share", "model"]


def tabulate_merges(spaces: Spaces, sites: Sequence[Site]) -> pd.DataFrame:
    """Return the nodes of each site's dendrogram, COLUMNS: see `list_merges`."""
    labels = [spaces.labels[k] for k in spaces.targets("test")]

    def compute(site: Site) -> pd.DataFrame:
        return list_merges(project(spaces.read(site)["test"]), labels)

    about = {"leaves": LEAVES, "dimensions": DIMS}
    tables = [
        spaces.keep(f"merges-{site.network}", partial(compute, site), site=asdict(site), **about).assign(
            model=site.network
        )
        for site in sites
    ]
    return pd.concat(tables, ignore_index=True)


def list_merges(x: Floats, labels: Sequence[str]) -> pd.DataFrame:
    """Return the nodes of the dendrogram of x (N, dims): COLUMNS but the model.

    LEAVES leaves come first: groups of `size` texts, joined below; then what joins `left` and `right`, at this height,
    over so many leaves. `label` is the most frequent class of a node's texts, `share` theirs."""
    n = len(x)
    merges = linkage(x, "ward") if n > 1 else np.empty((0, 4))
    n_hidden = max(0, n - LEAVES)  # merges
    texts: dict[int, NDArray[np.integer]] = {i: np.array([i]) for i in range(n)}
    for node, (left, right) in enumerate(merges[:n_hidden, :2].astype(int).tolist(), n):
        texts[node] = np.concatenate([texts.pop(left), texts.pop(right)])
    number = {node: i for i, node in enumerate(texts)}  # of the nodes that are shown
    rows = [{"node": i, "height": 0.0, "leaves": 1} for i in number.values()]
    for node, (left, right, height, _) in enumerate(merges[n_hidden:].tolist(), n + n_hidden):
        texts[node] = np.concatenate([texts[int(left)], texts[int(right)]])
        number[node], a, b = len(rows), number[int(left)], number[int(right)]
        leaves = rows[a]["leaves"] + rows[b]["leaves"]
        rows.append({"node": len(rows), "left": a, "right": b, "height": height, "leaves": leaves})
    table = pd.DataFrame(rows, columns=COLUMNS[:-1])
    counts = [pd.Series([labels[i] for i in members]).value_counts() for members in texts.values()]
    table["size"], table["label"] = [each.sum() for each in counts], [each.index[0] for each in counts]
    return table.assign(share=[each.iloc[0] / each.sum() for each in counts])
