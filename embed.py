"""What do the vectors of whole texts know? `make embed`, or `python embed.py --help`.

Every layer of a run's network, of the one that it began with and of random weights: how alike vectors are, what can be
read from them, which texts and words they put together. Tables, pictures, map.html and report.md land in
runs/NAME/embed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from tyro.conf import OmitArgPrefixes

from experiments.embed.clusters import find_clusters
from experiments.embed.corrections import STANDARD
from experiments.embed.documents import tabulate_crosstab, tabulate_documents
from experiments.embed.figures import clusters as of_clusters
from experiments.embed.figures import maps as of_maps
from experiments.embed.figures import reductions as of_reductions
from experiments.embed.figures import sites as of_sites
from experiments.embed.figures import words as of_words
from experiments.embed.maps import PARAMETERS, draw_maps
from experiments.embed.merges import tabulate_merges
from experiments.embed.page import write_map
from experiments.embed.reductions import reduce_sites
from experiments.embed.report import report
from experiments.embed.sites import tabulate_sites
from experiments.embed.spaces import PRETRAINED, TUNED, Site, Spaces
from experiments.embed.topics import tabulate_topics
from experiments.embed.words import tabulate_words
from lab import output
from lab.cli import check_ranges, command
from lab.defaults import ITS_OWN, StudyOptions
from lab.device import Device, DeviceName, Precision
from lab.fonts import name_classes, rename_classes
from lab.kept import open_analysis
from lab.predict import predict
from lab.progress import console
from lab.study import open_study
from model import InputError

Tables = dict[str, pd.DataFrame]  # by the names of their files
WHOLE_PROMPT = "random tokens come from the whole prompt, its template too: they are more alike than those of texts"
MOST_TEXTS = 2000  # each is compared with each: memory grows with their square


@dataclass(frozen=True)
class Options:
    """Compare the vectors of whole texts, layer by layer: of a run's network, of its start and of random weights.

    Tables, pictures, map.html and report.md land in runs/NAME/embed. After an interruption the same command goes on."""

    run: str = "latest"  # name of the run
    resume: bool = True  # take up what earlier calls have computed; --no-resume: anew, e.g. after editing the code
    model: str | None = None  # with --corpus, a classifier of others takes the place of a run, as it is
    texts: int = 1000  # at most so many of train and of test, drawn at random
    layer: int | None = None  # whose vectors are reduced and clustered: 0 .. L, or L + 1 after ln_f; None: L + 1
    pooling: Literal["last", "mean", "mean_without_first", "weighted"] = "last"  # how tokens become one vector there
    seed: int = 0  # of texts, random weights, reductions and clusters
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # auto: bf16 autocast on CUDA, else fp32
    study: OmitArgPrefixes[StudyOptions] = ITS_OWN


def main(options: Options) -> int:
    check_ranges(options, texts=(20, MOST_TEXTS + 1), seed=(0, 2**32))
    device = Device.choose(options.device, options.precision)
    study = open_study(options.run, device, options.study, options.model)
    with open_analysis(study.run / "embed", "results", options.resume, device) as folder:
        spaces = Spaces(study, folder / "results", options.texts, options.seed)
        sites = choose_sites(spaces, options)
        if study.template:
            spaces.left_out.append(WHOLE_PROMPT)
        tables = measure(spaces, sites)
        spaces.remove_vectors()
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
        Site(network, layer, options.pooling, STANDARD) for network in spaces.networks if network in (PRETRAINED, TUNED)
    ]


def measure(spaces: Spaces, sites: Sequence[Site]) -> Tables:
    """Return all tables. Each part is kept when it is done."""
    study, texts = spaces.study, spaces.texts["test"]
    tables = {"sites": tabulate_sites(spaces), "words": tabulate_words(spaces)}
    tables["reductions"], at_sites = reduce_sites(spaces, sites)
    maps = draw_maps(spaces, [site.network for site in sites])
    coordinates = pd.concat([at_sites, maps], ignore_index=True)  # documents.csv has the first t-SNE
    coordinates["index"] = texts.positions[coordinates["index"]]  # in the split, as in the other tables
    tables["clusters"], members = find_clusters(spaces, sites)
    tables["merges"] = tabulate_merges(spaces, sites)
    tables["topics"] = tabulate_topics(spaces, members, sites)
    tables["crosstab"] = tabulate_crosstab(members, spaces, tables["topics"])
    predicted = predict(study.clf, texts.sequences, study.device).argmax(axis=1)
    tables["documents"] = tabulate_documents(spaces, members, coordinates, predicted)
    return {**tables, "coordinates": coordinates}


def write(folder: Path, spaces: Spaces, sites: Sequence[Site], tables: Tables) -> None:
    """Write tables, pictures, the page of maps and the report."""
    study, labels = spaces.study, spaces.labels
    number = ", ".join(f"{len(texts):,} texts of {split}" for split, texts in spaces.texts.items())
    about = study.provenance(number, spaces.seed) + study.absent_classes(spaces.texts["test"])
    used = {name: tables[name] for name in ("sites", "words", "reductions", "clusters", "topics", "crosstab")}
    with output.replace_outputs(folder) as new:
        for name, table in tables.items():
            output.write_csv(new / f"{name}.csv", table)
        with console.status("pictures"):
            drawn, title = rename_classes(tables, labels), f"run {study.run.name}, corpus {study.corpus.name}"
            draw(new, drawn, name_classes(labels), title)
        write_map(new / "map.html", tables["documents"], tables["coordinates"], tables["topics"], labels, about)
        output.write_text(new / "report.md", report(about, sites[-1], **used, left_out=spaces.left_out))
    names = ", ".join(tables)
    console.print(f"{folder}/report.md says what was found; map.html shows each text; beside them lie {names}.csv")


def draw(folder: Path, tables: Tables, labels: Sequence[str], title: str) -> None:
    """Draw all pictures from the tables alone."""
    documents = tables["documents"]
    classes = dict(zip(documents["index"].tolist(), documents["label"], strict=True))
    coordinates, reductions, clusters = tables["coordinates"], tables["reductions"], tables["clusters"]
    maps = coordinates[coordinates["parameters"] == PARAMETERS]
    of_sites.draw_classes(folder, tables["sites"], title)
    of_sites.draw_spread(folder, tables["sites"], tables["words"], title)
    of_words.draw_senses(folder, tables["words"], title)
    of_reductions.draw_reductions(folder, reductions, coordinates, classes, labels, title)
    of_reductions.draw_quality(folder, reductions, title)
    of_maps.draw_layers(folder, maps, classes, labels, title)
    of_clusters.draw_crosstab(folder, tables["crosstab"], title)
    of_clusters.draw_dendrogram(folder, tables["merges"], len(labels), title)
    of_clusters.draw_scores(folder, clusters, title)
    of_clusters.draw_sweep(folder, clusters, title)


if __name__ == "__main__":
    command(main, Options)
