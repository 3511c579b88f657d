"""map.html: every text as a point, in every map, in one file; drawn from the tables alone.

Letters: N texts."""

import base64
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab.output import write_text
from lab.page.bundle import PAGE, STYLE, bundle, write_data
from lab.progress import console

from .spaces import PRETRAINED, TUNED

FOLDER = Path(__file__).parent / "page"
SHARED = ("nodes", "tokens", "colours", "exports")
PARTS = ("scatter", "colourings", "map")
MODULES = [*(PAGE / f"{name}.js" for name in SHARED), *(FOLDER / f"{name}.js" for name in PARTS)]
MOST_BYTES = 3_000_000  # of a page
MOST_TEXTS = 2_000
CHARACTERS = (600, 300, 150, 75, 40)  # of a text at most: the first number with which the page is small enough
STEPS = 65_534  # from one end of a map to the other
NOWHERE = 65_535  # a text that a map leaves out
NAMED_BY = "kmeans"  # the clusters whose words the topics list
CLUSTERS = {TUNED: "cluster_", PRETRAINED: "pretrained_cluster_"}  # network -> how its columns of documents begin


def write_map(
    path: Path,
    documents: pd.DataFrame,
    coordinates: pd.DataFrame,
    topics: pd.DataFrame,
    labels: Sequence[str],
    about: Sequence[str],
) -> None:
    """Write the page, whole or not at all; print what it leaves out to stay below 3 MB, and where it does not.

    documents: `split,index,text,label,predicted,last_token,length`, and clusters as CLUSTERS names them; -1 is noise.
    coordinates: one map at least, `model,layer,pooling,method,parameters,index,x,y`. topics: `grouping,model,cluster,
    method,rank,word,score,npmi,null_npmi`. labels: of the classes. about: lines on run, corpus and weights."""
    chosen = documents.iloc[np.linspace(0, len(documents) - 1, min(len(documents), MOST_TEXTS)).astype(int)]
    maps = pack_maps(coordinates, chosen["index"])
    data = {
        "labels": list(labels),
        **describe_texts(chosen, labels),
        "clusters": list_clusters(chosen),
        "named_by": NAMED_BY,
        "topics": list_topics(topics),
        "maps": maps,
        "start": choose_start(maps),
        "left_out": "",
        "about": list(about),
    }
    most = fit_characters(list(chosen["text"]), MOST_BYTES - len(render_map(data).encode()))
    data["texts"] = [shorten(text, most) for text in chosen["text"]]
    data["left_out"] = describe_left_out(documents, chosen, most)
    if data["left_out"]:
        console.print(data["left_out"])
    page = render_map(data)
    if (size := len(page.encode())) > MOST_BYTES:
        console.print(f"map.html has {size / 1e6:.1f} MB and may open slowly: so many are the maps")
    write_text(path, page)


def render_map(data: dict[str, Any]) -> str:
    """Return the page as HTML."""
    return bundle(FOLDER / "map.html", MODULES, [STYLE, FOLDER / "map.css"], data)


def describe_texts(documents: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """Return what map.js knows of each text, one list for each property; classes and last tokens by number."""
    last, tokens = pd.factorize(documents["last_token"])
    numbers = {label: k for k, label in enumerate(labels)}
    return {
        "texts": [],
        "names": [f"{split} {index}" for split, index in zip(documents["split"], documents["index"], strict=True)],
        "label": documents["label"].map(numbers).tolist(),
        "predicted": documents["predicted"].map(numbers).tolist(),
        "length": documents["length"].astype(int).tolist(),
        "last_token": last.tolist(),
        "tokens": list(tokens),
    }


def list_clusters(documents: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the clusters of each network and method: `of` is the number of each text's."""
    return [
        {
            "network": network,
            "method": str(column).removeprefix(start),
            "of": documents[column].fillna(-1).astype(int).tolist(),
        }
        for network, start in CLUSTERS.items()
        for column in documents.columns
        if str(column).startswith(start)
    ]


def list_topics(topics: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the words of each cluster and class by each method, best first; topics of LDA have no texts to show."""
    lists = []
    rows = topics[topics["grouping"] != "lda"].fillna({"model": ""}).sort_values("rank", kind="stable")
    for _, words in rows.groupby(["grouping", "model", "cluster", "method"], sort=False):
        first = words.iloc[0]
        topic = {"grouping": first["grouping"], "network": first["model"], "cluster": str(first["cluster"])}
        topic |= {"method": first["method"], "words": list(words["word"])}
        topic |= {"scores": [round_number(score) for score in words["score"]]}
        lists.append(topic | {name: round_number(first[name]) for name in ("npmi", "null_npmi")})
    return lists


def round_number(value: float) -> float | None:
    """Return a number with four digits, None for NaN: JSON has none."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def pack_maps(coordinates: pd.DataFrame, index: pd.Series) -> list[dict[str, Any]]:
    """Return the maps that have any of these texts, with the places of all, in the order of `index`."""
    maps = []
    names = ["model", "layer", "pooling", "method", "parameters"]
    for _, rows in coordinates.fillna({"parameters": ""}).groupby(names, sort=False):
        places = rows.drop_duplicates("index").set_index("index")[["x", "y"]].reindex(index).to_numpy(dtype=float)
        if np.isfinite(places).any():
            first = rows.iloc[0]
            place = {"network": first["model"], "layer": int(first["layer"]), "pooling": first["pooling"]}
            method = f"{first['method']} {first['parameters']}".strip()
            maps.append({**place, "method": method, "places": pack_places(places)})
    return maps


def pack_places(places: np.ndarray) -> str:
    """Pack float (N, 2) as base64 of uint16 x, y, x, y ..: 0 .. STEPS across the longer side, NOWHERE for NaN.

    Both sides have one scale, and the map is in the middle."""
    low, high = np.nanmin(places, axis=0), np.nanmax(places, axis=0)
    span = (high - low).max() or 1.0
    steps = np.rint(((places - (low + high) / 2) / span + 0.5) * STEPS)
    return base64.b64encode(np.where(np.isnan(steps), NOWHERE, steps).astype("<u2").tobytes()).decode()


def choose_start(maps: Sequence[dict[str, Any]]) -> int:
    """Return the number of the first map to show: where most maps are, fine-tuned before pretrained, by t-SNE, with the
    parameters that most maps have. Where most maps are, all methods were run: there clusters were looked for, too."""
    places = Counter((each["network"], each["layer"], each["pooling"]) for each in maps)
    methods = Counter(each["method"] for each in maps)

    def rank(number: int) -> tuple[int, bool, bool, int]:
        network, layer, pooling, method = (maps[number][name] for name in ("network", "layer", "pooling", "method"))
        return places[network, layer, pooling], network == TUNED, method.startswith("tsne"), methods[method]

    return max(range(len(maps)), key=rank)


def fit_characters(texts: Sequence[str], room: int) -> int:
    """Return how many characters of each text may stay, so that all of them take at most `room` bytes."""
    for most in CHARACTERS:
        if len(write_data([shorten(text, most) for text in texts])) <= room:
            return most
    return CHARACTERS[-1]


def shorten(text: str, most: int) -> str:
    """Return at most so many characters; the last one is an ellipsis where some are gone."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def describe_left_out(documents: pd.DataFrame, chosen: pd.DataFrame, most: int) -> str:
    """Say what the page does not show; nothing where it shows all."""
    left, cut = len(documents) - len(chosen), int((chosen["text"].str.len() > most).sum())
    lines = [f"{left:,} of {len(documents):,} texts are left out"] if left else []
    lines += [f"{cut:,} texts are cut after {most} characters, and searched so far"] if cut else []
    return f"map.html: {'; '.join(lines)}. documents.csv has them whole." if lines else ""
