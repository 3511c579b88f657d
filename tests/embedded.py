"""Tables of embed.py that nobody has measured: how clearly classes lie apart in each network and layer is planted."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

LABELS = ("anger", "fear", "joy")
NETWORKS = ("pretrained", "fine-tuned")
POOLINGS = ("last", "mean_without_first")
CORRECTION = "standardise"
CLUSTERINGS = ("kmeans", "hdbscan")
TSNE = ("tsne", "through the layers")
OTHERS = (("pca", ""), ("mds", ""), ("tsne", "perplexity 30"))  # maps at the chosen place alone
CHOSEN = ("last", 4)  # pooling and layer
WORDS = {
    "anger": ("annoyed", "furious", "rude", "hateful", "bitter"),
    "fear": ("afraid", "nervous", "shaky", "terrified", "unsure"),
    "joy": ("glad", "cheerful", "thrilled", "content", "proud"),
}
REST = ("i", "feel", "so", "and", "today", "because", "of", "the", "people", "around", "me", "again")
NOISE = 10  # one text in so many has no cluster


def make_documents(n: int = 60, labels: Sequence[str] = LABELS, seed: int = 0) -> pd.DataFrame:
    """Return n test texts, of which one in seven is predicted wrong; fine-tuned clusters are the classes, and noise.

    Those of the pretrained network are drawn at random. Each text ends with a word of its class."""
    rng = np.random.default_rng((seed, *b"documents"))
    targets = rng.integers(len(labels), size=n)
    words = [WORDS.get(label, (label, f"{label}er")) for label in labels]
    last = [str(rng.choice(words[k])) for k in targets]
    lengths = rng.integers(3, 30, size=n)
    noise = np.arange(n) % NOISE == NOISE - 1
    predicted = np.where(np.arange(n) % 7 == 6, (targets + 1) % len(labels), targets)
    table = {
        "split": "test",
        "index": np.arange(n) * 2,  # a draw leaves texts out
        "text": [" ".join([*rng.choice(REST, t - 1), word]) for t, word in zip(lengths, last, strict=True)],
        "label": np.array(labels)[targets],
        "predicted": np.array(labels)[predicted],
        "cluster_kmeans": targets,
        "cluster_hdbscan": np.where(noise, -1, targets),
        "x": 0.0,
        "y": 0.0,
        "last_token": [f" {word}" for word in last],
        "length": lengths,
        "pretrained_cluster_kmeans": rng.integers(len(labels), size=n),
        "pretrained_cluster_hdbscan": -1,
    }
    return pd.DataFrame(table)


def make_coordinates(documents: pd.DataFrame, n_layers: int = CHOSEN[1] + 1, seed: int = 0) -> pd.DataFrame:
    """Return t-SNE at every site, and OTHERS at the chosen one.

    Classes lie apart where the network is fine-tuned, more with each layer. MDS has every second text."""
    rng = np.random.default_rng((seed, *b"coordinates"))
    targets = documents["label"].astype("category").cat.codes.to_numpy()
    angle = 2 * np.pi * targets / (targets.max() + 1)
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    noise = rng.standard_normal((len(documents), 2))
    maps = []
    for network in NETWORKS:
        for pooling in POOLINGS:
            for layer in range(n_layers):
                apart = 5 * layer / n_layers * (network == "fine-tuned")
                for method, parameters in (TSNE, *(OTHERS if (pooling, layer) == CHOSEN else ())):
                    moved = noise + 0.3 * rng.standard_normal(noise.shape) + apart * centres
                    place = {"model": network, "layer": layer, "pooling": pooling, "correction": CORRECTION}
                    places = {"index": documents["index"], "x": 10 * moved[:, 0], "y": 10 * moved[:, 1]}
                    table = pd.DataFrame({**place, "method": method, "parameters": parameters, **places})
                    maps.append(table[::2] if method == "mds" else table)
    return pd.concat(maps, ignore_index=True)


def make_topics(documents: pd.DataFrame) -> pd.DataFrame:
    """Return five words of each class and k-means cluster by two methods, and two topics of LDA.

    `log_odds` lists the words of WORDS, `c_tfidf` those that all texts share."""
    labels = sorted(documents["label"].unique())
    groups = [("class", "", label, label) for label in labels]
    groups += [("cluster", network, str(k), label) for network in NETWORKS for k, label in enumerate(labels)]
    groups += [("lda", "", str(k), labels[0]) for k in range(2)]
    rows = []
    for grouping, model, cluster, label in groups:
        for method in ("c_tfidf", "log_odds") if grouping != "lda" else ("lda",):
            words = WORDS.get(label, (label, f"{label}er")) if method == "log_odds" else REST[:5]
            for rank, word in enumerate(words, start=1):
                row = {"cluster": cluster, "size": int((documents["label"] == label).sum()), "method": method}
                row |= {"rank": rank, "word": word, "score": 10 / rank, "npmi": 0.25, "diversity": 1.0}
                rows.append(row | {"null_npmi": -0.1, "grouping": grouping, "model": model})
    return pd.DataFrame(rows)
