"""What do the vectors of whole texts know? `make embed`, or `python embed.py --help`.

Every layer of a run's network, of the one that it began with and of random weights: how alike vectors are, what can be
read from them, which texts and words they put together. Tables, pictures, map.html and report.md land in
runs/NAME/embed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from experiments.embed import figures
from experiments.embed.clusters import find_clusters
from experiments.embed.maps import draw_maps
from experiments.embed.page import write_map
from experiments.embed.reductions import reduce_sites
from experiments.embed.report import report
from experiments.embed.sites import tabulate_sites
from experiments.embed.spaces import PRETRAINED, TUNED, Site, Spaces
from experiments.embed.topics import tabulate_crosstab, tabulate_documents, tabulate_topics
from experiments.embed.words import tabulate_words
from lab import output
from lab.cli import check_ranges, command
from lab.device import Device, DeviceName, Precision
from lab.kept import open_analysis
from lab.predict import predict
from lab.progress import console
from lab.study import Study, open_study
from model import InputError

Tables = dict[str, pd.DataFrame]  # by the names of their files
CORRECTION = "standardise"  # of the vectors that are reduced and clustered: without one, a few dimensions are all


@dataclass(frozen=True)
class Options:
    """Compare the vectors of whole texts, layer by layer: of a run's network, of its start and of random weights.

    Tables, pictures, map.html and report.md land in runs/NAME/embed. After an interruption the same command goes on."""

    run: str = "latest"  # name of the run
    resume: bool = True  # take up what earlier calls have computed; --no-resume: anew, e.g. after editing the code
    corpus: str | None = None  # None: the one that the run was trained on; else another with the same classes
    texts: int = 1000  # at most so many of train and of test, drawn at random; 0: all
    layer: int | None = None  # whose vectors are reduced and clustered: 0 .. L, or L + 1 after ln_f; None: L + 1
    pooling: Literal["last", "mean", "mean_without_first", "weighted"] = "last"  # how tokens become one vector there
    seed: int = 0  # of texts, random weights, reductions and clusters
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # auto: bf16 autocast on CUDA, else fp32


def main(options: Options) -> int:
    check_ranges(options, texts=(0, np.inf), seed=(0, 2**32))
    device = Device.choose(options.device, options.precision)
    study = open_study(options.run, device, options.corpus)
    with open_analysis(study.run / "embed", "results", options.resume, device) as folder:
        spaces = Spaces(study, folder / "results", options.texts, options.seed)
        sites = choose_sites(spaces, options)
        tables = measure(spaces, sites)
        write(folder, spaces, sites, tables)
    return 0


def choose_sites(spaces: Spaces, options: Options) -> list[Site]:
    """Return the place whose vectors are reduced and clustered, in each trained network.

    Raises InputError for a layer that the network does not have."""
    last = spaces.n_sites - 1
    layer = last if options.layer is None else options.layer
    if not 0 <= layer <= last:
        raise InputError(f"--layer {layer}: expected 0 .. {last - 1}, or {last} after ln_f")
    return [
        Site(network, layer, options.pooling, CORRECTION)
        for network in spaces.networks
        if network in (PRETRAINED, TUNED)
    ]


def measure(spaces: Spaces, sites: Sequence[Site]) -> Tables:
    """Return all tables. Each part is kept when it is done."""
    tables = {"sites": tabulate_sites(spaces), "words": tabulate_words(spaces)}
    tables["reductions"], reduced = reduce_sites(spaces, sites)
    maps = draw_maps(spaces, [site.network for site in sites])
    tables["coordinates"] = pd.concat([reduced, maps], ignore_index=True)
    tables["clusters"], members, tables["merges"] = find_clusters(spaces, sites)
    tables["topics"] = tabulate_topics(spaces, members, sites)
    tables["crosstab"] = tabulate_crosstab(members, spaces, tables["topics"])
    tables["documents"] = tabulate_documents(spaces, members, reduced, predict_classes(spaces))
    return tables
