"""The same texts as t-SNE draws them at every site of the networks, each map starting from that of the layer before.

So a text stays where it was as far as its neighbours do, and the eye can follow it from layer to layer."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from joblib import delayed

from lab.progress import progress_bar

from .corrections import STANDARD, Floats
from .reductions import (
    DIMS,
    FEWEST,
    PERPLEXITY,
    drop_duplicates,
    embed_by_tsne,
    place_site,
    run_in_processes,
    tabulate_coordinates,
)
from .spaces import Site, Spaces

PARAMETERS = "through the layers"


def draw_maps(
    spaces: Spaces,
    networks: Sequence[str],
    poolings: Sequence[str] = ("last", "mean_without_first"),
    correction: str = STANDARD,
) -> pd.DataFrame:
    """Return the maps of all sites of these networks, with the columns of `coordinates`.

    Those of a layer are kept when they are done."""
    lines = [(network, pooling) for network in networks for pooling in poolings]
    about = {
        "lines": [list(line) for line in lines],
        "correction": correction,
        "constants": [DIMS, PERPLEXITY, PARAMETERS],
    }
    tables: list[pd.DataFrame] = []
    with progress_bar("layers") as bar:
        task = bar.add_task("maps by t-SNE", total=spaces.n_sites, note="")
        for layer in range(spaces.n_sites):
            sites = [Site(network, layer, pooling, correction) for network, pooling in lines]
            before = tables[-1] if tables else None

            def compute(sites: Sequence[Site] = sites, before: pd.DataFrame | None = before) -> pd.DataFrame:
                return draw_layer(spaces, sites, before)

            tables.append(spaces.keep(f"maps-{correction}-{layer}", compute, **about))
            bar.advance(task)
    return pd.concat(tables, ignore_index=True)


def draw_layer(spaces: Spaces, sites: Sequence[Site], before: pd.DataFrame | None) -> pd.DataFrame:
    """Draw the maps of sites of one layer; `before` has those of the layer before, by network and pooling."""
    starts: list[Floats | None] = [None] * len(sites)
    if before is not None:
        of_line = {line: rows[["x", "y"]].to_numpy() for line, rows in before.groupby(["model", "pooling"])}
        starts = [of_line[site.network, site.pooling] for site in sites]
    vectors = [spaces.read(site)["test"] for site in sites]
    jobs = [delayed(draw_map)(x, spaces.seed, start) for x, start in zip(vectors, starts, strict=True)]
    tables = [
        pd.DataFrame({**place_site(site), **tabulate_coordinates("tsne", PARAMETERS, places)})
        for site, places in zip(sites, run_in_processes(jobs), strict=True)
    ]
    return pd.concat(tables, ignore_index=True)


def draw_map(x: Floats, seed: int, start: Floats | None = None) -> Floats:
    """Return the map (N, 2) of vectors x (N, C), from a map (N, 2) to start from; equal vectors share a place."""
    distinct = drop_duplicates(x)
    if len(distinct.vectors) < FEWEST:
        return np.zeros((len(x), 2))
    begin = None if start is None else start[distinct.first]
    return embed_by_tsne(distinct.vectors, seed, PERPLEXITY, begin).coordinates[distinct.of_text]
