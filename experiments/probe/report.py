"""The report of `probe.py`, a page of Markdown. Its sentences are in `report.md.jinja`; the functions here compute what
they state, one section each, and nothing that the tables do not hold."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab.report import label, number, render
from lab.stats import LEVEL, holm
from lab.texts import OVERALL

from .tables import PLACE, STREAM, best, contrast_classes

READINGS = {"last": ", last token", "mean": ", mean over tokens", "word": ""}
SCORES = ("macro_f1", "control", "selectivity", "compression")  # besides accuracy
COMPONENTS = ("embedding", "head", "attention bias", "mlp", "final bias")  # kinds, in the order of the table
FEW = 3  # heads or components named of many
Values = dict[Any, Any]  # what the template shows, by name; or a row of a table, by column


def report(
    provenance: Sequence[str],
    probes: pd.DataFrame,
    baselines: pd.DataFrame,
    differences: pd.DataFrame,
    profiles: pd.DataFrame,
    agreement: pd.DataFrame | str,
    lens: pd.DataFrame | None,
    contributions: pd.DataFrame | None,
) -> str:
    """Return the page, from the tables of `tables.py` and `sources.score_baselines`. What is None has no section; where
    there is no agreement, a line says why."""
    by_property = _add_verdicts(probes, differences).groupby("property", sort=False)
    return render(
        Path(__file__).with_suffix(".md.jinja"),
        accuracy=_accuracy,
        provenance=provenance,
        properties=[_property(rows, baselines[baselines["property"] == name]) for name, rows in by_property],
        profiles=None if profiles.empty else _profiles(profiles),
        lens=None if lens is None else _lens(lens),
        contributions=None if contributions is None else _contributions(contributions),
        agreement=agreement if isinstance(agreement, str) else _agreement(agreement),
    )


def _add_verdicts(probes: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """Return the probes with a column for each rival, named after it: the verdict of each place against the rival."""
    place = ["property", *PLACE]
    for rival, rows in differences.groupby("rival"):
        verdicts = rows[[*place, "verdict"]].rename(columns={"verdict": str(rival)})
        probes = probes.merge(verdicts, on=place, how="left")
    return probes


def _property(probes: pd.DataFrame, baselines: pd.DataFrame) -> Values:
    """Return where one property is read best, in the network and with random weights, and what baselines reach."""
    trained, random = (probes[probes["network"] == network] for network in ("trained", "random"))
    stream, known = trained[trained["kind"] == "resid"], baselines.to_dict("records")
    last = stream["layer"].max()
    top, rival = _best(trained, last), _best(random, last) if len(random) else None
    places = [_best(rows, last) for _, rows in trained.groupby("kind", sort=False)]
    cells = [[row["place"], *_scores(row)] for row in places]
    cells += [[f"random weights: {rival['place']}", *_scores(rival)]] if rival else []
    cells += [[row["baseline"], *_scores(row)] for row in known]
    _, _, control, selectivity, _ = _scores(top)
    return {
        "top": top,
        "n": f"{top['n']:,}",
        "control": control,
        "selectivity": selectivity,
        "random": rival,
        "baselines": known,
        "stream": _stream(stream, last),
        "cells": cells,
    }


def _stream(stream: pd.DataFrame, last: int) -> Values:
    """Return how accuracy goes along the residual stream, in the reading that does best."""
    top = _best(stream, last)
    layers = stream[stream["reading"] == top["reading"]].set_index("layer")
    first = layers.index[layers[STREAM] != "below"].min()
    return {
        "reading": READINGS[top["reading"]],
        "start": f"{layers.loc[0, 'accuracy']:.3f}",
        "end": f"{layers.loc[last, 'accuracy']:.3f}",
        "best": _layer(top["layer"], last),
        "not_below": None if first == top["layer"] else _layer(first, last),
    }


def _profiles(profiles: pd.DataFrame) -> Values:
    """Return the accuracy by number of heads, how many are enough, and the first of them."""
    numbers = sorted(profiles["n_heads"].unique())
    cells = []
    for (name, reading), rows in profiles.groupby(["property", "reading"], sort=False):
        rows = rows.sort_values("n_heads")
        accuracy = dict(zip(rows["n_heads"], rows["accuracy"], strict=True))
        scores = [f"{accuracy[n]:.3f}" if n in accuracy else "" for n in numbers]
        enough = rows.loc[rows["difference_high"] >= 0, "n_heads"].min()
        first = ", ".join(rows["heads"].iloc[-1].split()[:FEW])
        cells.append([label(str(name)) + READINGS[str(reading)], *scores, str(enough), first])
    return {"numbers": [str(n) for n in numbers], "cells": cells}


def _lens(lens: pd.DataFrame) -> Values:
    """Return by class from which layer on 50 % and 90 % of the predictions stay as they are."""
    last, cells = lens["layer"].max(), []
    half_decided: dict[int, list[str]] = {}  # classes by layer
    for name, rows in lens[lens["n"] > 0].sort_values("layer", kind="stable").groupby("class", sort=False):
        shown = "all texts" if name == OVERALL else label(str(name))
        half, most = (rows.loc[rows["decided"] >= share, "layer"].min() for share in (0.5, 0.9))
        ends = [_accuracy(rows.iloc[i].to_dict()) for i in (0, -1)]
        cells.append([shown, f"{rows['n'].iloc[-1]:,}", *ends, _layer(half, last), _layer(most, last)])
        if name != OVERALL:
            half_decided.setdefault(half, []).append(shown)
    places = [{"place": _layer(layer, last), "classes": half_decided[layer]} for layer in sorted(half_decided)]
    return {"cells": cells, "half_decided": places}


def _contributions(contributions: pd.DataFrame) -> list[list[str]]:
    """Return by class what each kind of component adds towards it, and the components that add most."""
    contrasts = contrast_classes(contributions)
    by_kind = contrasts.pivot_table(index="class", columns="kind", values="inside", aggfunc="sum", sort=False)
    ranked = contrasts[contrasts["kind"].isin(["head", "mlp"])].sort_values("inside", ascending=False, kind="stable")
    cells = []
    for name, sums in by_kind.iterrows():
        largest = ranked[ranked["class"] == name].head(FEW).to_dict("records")
        named = [f"{_component(row)} {number(row['inside'])} ({number(row['outside'])})" for row in largest]
        kinds = [number(sums[kind]) for kind in COMPONENTS]
        cells.append([label(str(name)), *kinds, number(sums.sum()), ", ".join(named)])
    return cells


def _agreement(agreement: pd.DataFrame) -> Values:
    """Return whether the heads from which a class can be read are those whose closing changes it."""
    tested, undefined = agreement.dropna(subset="p"), agreement[agreement["p"].isna()]
    signs = np.sign(tested["spearman"]).where(holm(tested["p"].to_numpy()) < LEVEL, 0)
    cells = []
    for key, rows in tested.groupby(["property", "reading", "fill", "metric"], sort=False):
        name, reading, fill, metric = map(str, key)
        rho, counts = rows["spearman"], signs[rows.index].value_counts()
        spread = [f"{rho.median():z.2f}", f"{rho.min():z.2f} to {rho.max():z.2f}", str(len(rows))]
        survive = [str(counts.get(sign, 0)) for sign in (1, -1)]
        cells.append([label(name) + READINGS[reading], fill, metric.replace("_", " "), *spread, *survive])
    return {
        "cells": cells,
        "n": f"{len(tested):,}",
        "survive": f"{(signs != 0).sum():,}",
        "positive": f"{(signs == 1).sum():,}",
        "negative": f"{(signs == -1).sum():,}",
        "level": LEVEL,
        "n_undefined": f"{len(undefined):,}",
        "undefined": ["all texts" if name == OVERALL else label(name) for name in undefined["class"].unique()],
    }


def _best(rows: pd.DataFrame, last: int) -> Values:
    """Return the row that does best on val, with the name of its `place` in a network of `last` layers."""
    [row] = best(rows).to_dict("records")
    place = f"the residual stream {_layer(row['layer'], last)}" if row["kind"] == "resid" else _component(row)
    article = "the " if row["kind"] == "mlp" else ""
    return row | {"place": article + place + READINGS[row["reading"]]}


def _component(row: Values) -> str:
    return f"head {row['layer']}.{row['head']}" if row["kind"] == "head" else f"MLP of layer {row['layer']}"


def _layer(layer: int, last: int) -> str:
    return "after the last layer" if layer == last else f"before layer {layer}"


def _scores(row: Values) -> list[str]:
    """Return the accuracy and SCORES of a place or baseline as cells, empty where it has none."""
    return [_accuracy(row), *("" if pd.isna(row.get(name)) else f"{row[name]:.3f}" for name in SCORES)]


def _accuracy(row: Values) -> str:
    """Return an accuracy with its interval, in three decimals because there are many texts."""
    return f"{row['accuracy']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
