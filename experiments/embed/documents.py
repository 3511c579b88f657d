"""Which texts lie in which cluster: a table of clusters by classes, and a row for each text with all that is known."""

from collections.abc import Hashable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .cluster_scores import NOISE
from .spaces import PRETRAINED, TUNED, Spaces
from .topics import CLUSTER, NAMES


def name_clusters(topics: pd.DataFrame) -> dict[Hashable, str]:
    """Return the name of each cluster, its first three words by log-odds, by grouping, model and cluster."""
    first = topics[(topics["method"] == NAMES) & (topics["rank"] <= 3)].sort_values("rank", kind="stable")
    return first.groupby(["grouping", "model", "cluster"])["word"].agg(", ".join).to_dict()


def tabulate_crosstab(members: pd.DataFrame, spaces: Spaces, topics: pd.DataFrame) -> pd.DataFrame:
    """Return how many texts of each cluster have each class: `model, method, cluster, name, class, n, share`.

    share: of the cluster's texts; the cluster -1 is noise. members: `model, method, cluster` in the order of texts."""
    names, targets, rows = name_clusters(topics), spaces.targets("test"), []
    for (model, method), each in members.groupby(["model", "method"], sort=False):
        clusters, grouping = each["cluster"].to_numpy(), CLUSTER if method == "kmeans" else method
        for cluster in np.unique(clusters).tolist():
            counts = np.bincount(targets[clusters == cluster], minlength=len(spaces.labels))
            name = "noise" if cluster == NOISE else names.get((grouping, model, str(cluster)), "")
            about = {"model": model, "method": method, "cluster": cluster, "name": name}
            for label, n in zip(spaces.labels, counts.tolist(), strict=True):
                rows.append(about | {"class": label, "n": n, "share": n / counts.sum()})
    return pd.DataFrame(rows)


def tabulate_documents(
    spaces: Spaces, members: pd.DataFrame, coordinates: pd.DataFrame, predicted: NDArray[np.integer]
) -> pd.DataFrame:
    """Return a row for each text of test: `split, index, text, label, predicted, cluster_<method>..., x, y, last_token,
    length, pretrained_cluster_<method>...`, where clusters and the t-SNE map are those of the fine-tuned network.

    members: `model, method, index, cluster`; coordinates: `model, layer, pooling, correction, method, parameters,
    index, x, y` at the chosen site, of which the first t-SNE counts; x and y are NaN where there is none. predicted:
    class numbers (N,). length: in tokens."""
    texts, labels = spaces.texts["test"], np.array(spaces.labels)
    table = pd.DataFrame({"split": "test", "index": texts.positions})
    table["text"] = spaces.study.corpus.split("test")["text"].to_numpy()[texts.positions]
    table["label"], table["predicted"] = labels[texts.targets], labels[predicted]
    clusters = {
        (model, method): rows.set_index("index")["cluster"]
        for (model, method), rows in members.groupby(["model", "method"], sort=False)
    }
    for (model, method), of_text in clusters.items():
        if model == TUNED:
            table[f"cluster_{method}"] = table["index"].map(of_text)
    maps = coordinates[(coordinates["model"] == TUNED) & (coordinates["method"] == "tsne")]
    first = maps.drop_duplicates("index").set_index("index")
    table["x"], table["y"] = table["index"].map(first["x"]), table["index"].map(first["y"])
    table["last_token"] = [spaces.study.tokenizer.decode([ids[-1]]) for ids in texts.sequences]
    table["length"] = [len(ids) for ids in texts.sequences]
    for (model, method), of_text in clusters.items():
        if model == PRETRAINED:
            table[f"pretrained_cluster_{method}"] = table["index"].map(of_text)
    return table
