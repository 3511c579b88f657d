"""What carries the difference between two texts? `make patch`, or `python patch.py --help`.

Both texts run through the network. Then one place of one run is replaced by the same place of the other, and the change
of the logits is read: for every place, both ways round, exactly and by estimate. Tables, pictures and report.md land in
runs/NAME/patch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from tyro.conf import OmitArgPrefixes

from experiments.patch import circuit, classes, figures, tables
from experiments.patch.cells import KINDS, STREAM_KINDS, Kind
from experiments.patch.measure import (
    RANDOM,
    Direction,
    check_device,
    choose_by_estimate,
    estimate_all,
    forecast_patches,
    patch_all,
)
from experiments.patch.paths import LayerNormName, find_node
from experiments.patch.report import report
from experiments.patch.subject import Subject, open_classifier, open_language_model
from lab import output
from lab.cli import check_ranges, command
from lab.defaults import ITS_OWN, StudyOptions
from lab.device import Device, DeviceName
from lab.fonts import name_classes, rename_classes
from lab.kept import open_analysis
from lab.progress import console
from lab.shares import LEAST
from lab.study import open_study
from lab.units import random_subspaces
from model import InputError

Tables = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Options:
    """Patch activations between pairs of texts, and measure what each carries of the difference.

    The tables, pictures and report.md land in runs/NAME/patch. After an interruption the same command goes on."""

    run: str | None = None  # the run, None: latest; with --model, a folder in runs/, None: called like the model
    resume: bool = True  # take up what earlier calls have computed; --no-resume: anew, e.g. after editing the code
    model: str | None = None  # in the place of a run: a language model or, where --corpus is given, a classifier
    clean: str | None = None  # a text of your own; None: test texts (for a language model: prompts with two names)
    corrupt: str | None = None  # a text of as many tokens, which differs from it
    answers: tuple[str, str] | None = None  # of the two texts: classes, or next tokens as " Mary" " John"
    pairs: int = 64  # at most so many pairs of a run's test texts
    direction: Literal["both", "denoise", "noise"] = "both"  # denoise: clean into corrupt; noise: corrupt into clean
    kinds: tuple[Kind, ...] = KINDS  # what to patch
    positions: bool = False  # patch z, q, k, v and patterns at each position, too, and not only at all together
    estimate_first: int | None = None  # patch only so many cells of each map, those with the largest estimates
    sender: tuple[str, ...] = ()  # measure all edges out of these, as "head 0.3" "mlp 0"; instead of following back
    receiver: tuple[str, ...] = ()  # measure all edges into these, as "head 3.1" "logits"; instead of following back
    layer_norm: LayerNormName = "recomputed"  # of an edge's receiver; frozen: keeps its scale, so edges add up
    controls: int = 24  # random subspaces of each layer that its heads (kind z) are compared with; 0: no controls
    texts: int = 20  # test texts of each class, as predicted, in which heads emit means of other classes; 0: none
    seed: int = 0  # of the choice of pairs and texts, and of controls
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU; fp32 on each, for effects are small differences
    study: OmitArgPrefixes[StudyOptions] = ITS_OWN

    def check(self) -> None:
        """Raise InputError for options that cannot be."""
        check_ranges(self, pairs=(1, np.inf), estimate_first=(1, np.inf), controls=(0, 10_000), texts=(0, np.inf))
        check_ranges(self, seed=(0, 2**32))
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise InputError(f"--kinds: expected at least one of {', '.join(KINDS)}, and none twice")

    @property
    def directions(self) -> list[Direction]:
        return ["denoise", "noise"] if self.direction == "both" else [self.direction]


def main(options: Options) -> int:
    options.check()
    device = Device.choose(options.device, "fp32")
    texts: dict[str, Any] = {"clean": options.clean, "corrupt": options.corrupt, "answers": options.answers}
    if options.model and not options.study.corpus:
        subject = open_language_model(options.model, options.run, device, options.seed, **texts)
    else:
        run = options.run or "latest"
        opened = open_study(run, device, options.study, options.model)
        subject = open_classifier(opened, options.seed, most=options.pairs, **texts)
    for names, kinds in ((options.sender, circuit.SENDERS), (options.receiver, circuit.RECEIVERS)):
        for name in names:
            find_node(name, subject.config, kinds)
    check_device(subject)
    with open_analysis(subject.run / "patch", "results", options.resume, device) as folder:
        results = measure(subject, options)
        write(folder, results, subject, options)
    return 0


def measure(subject: Subject, options: Options) -> Tables:
    """Return all tables, by the names of their files."""
    cells = estimate_all(subject, options.directions, options.kinds, options.positions)
    chosen = pd.Series(True, cells.index)
    if options.estimate_first:
        chosen = choose_by_estimate(cells, options.estimate_first)
    controls = random_subspaces(subject.config, "head", options.controls, options.seed) if "z" in options.kinds else []
    console.print(forecast_patches(subject, cells[chosen], options.controls if controls else 0))
    cells, others = patch_all(subject, cells, chosen, controls)
    kept = subject.table[subject.table["kept"]]
    paths, edges = measure_paths(subject, kept, options)
    results = {
        "pairs": subject.table,
        "patch": tables.finish_cells(cells, subject.pairs, subject.tokens),
        "averages": tables.average_cells(cells, others, subject.pairs, kept),
        "controls": others[others["kind"] == RANDOM].drop(columns="kind"),
        "sums": tables.compare_sums(cells, others, kept),
        "paths": paths,
        "edges": edges,
    }
    estimates = [tables.compare_estimates(results["patch"]), tables.compare_edge_estimates(paths, kept)]
    results["estimates"] = pd.concat(estimates, ignore_index=True)
    if subject.study and options.texts and not options.clean:
        path = subject.folder / "between.npy"
        results["between"] = classes.measure_between(subject.study, options.texts, path, options.seed)
    return results


def measure_paths(subject: Subject, kept: pd.DataFrame, options: Options) -> circuit.Edges:
    """Follow edges back from the logits or, if nodes were named, measure all of theirs."""
    if options.sender or options.receiver:
        senders = [find_node(name, subject.config, circuit.SENDERS) for name in options.sender]
        receivers = [find_node(name, subject.config, circuit.RECEIVERS) for name in options.receiver]
        return circuit.measure_named(subject, options.directions, senders, receivers, options.layer_norm, kept)
    return circuit.join(
        [circuit.trace_back(subject, direction, options.layer_norm, kept) for direction in options.directions]
    )


def write(folder: Path, results: Tables, subject: Subject, options: Options) -> None:
    """Write tables, pictures and the report."""
    with output.replace_outputs(folder) as new:
        for name, table in results.items():
            output.write_csv(new / f"{name}.csv", table)
        strong = results["edges"][results["edges"]["strong"]]
        if len(strong):
            output.write_text(new / "paths.dot", figures.write_dot(strong))
        draw(new, results, subject, strong)
        page = report(
            subject.about,
            results,
            pictures=figures.name_pictures(new),
            estimate_first=options.estimate_first,
            layer_norm=options.layer_norm,
            followed=not (options.sender or options.receiver),
        )
        output.write_text(new / "report.md", page)
    console.print(f"{folder}/report.md says what was found; beside it lie {', '.join(results)}.csv and the pictures")


def draw(folder: Path, results: Tables, subject: Subject, edges: pd.DataFrame) -> None:
    """Draw what there is to draw."""
    labels = subject.study.clf.labels if subject.study else ()
    names, results = dict(zip(labels, name_classes(labels), strict=True)), rename_classes(results, labels)
    averages, title = results["averages"], subject.title
    by_position = averages["kind"].isin(STREAM_KINDS)
    for pair in subject.choose_examples() if by_position.any() else []:
        cells = results["patch"][results["patch"]["pair"] == pair.number]
        corrupt = [subject.tokenizer.decode([i]) for i in pair.corrupt_ids]
        about = f"pair {pair.number}: {' - '.join(names.get(name, name) for name in pair.names)}"
        figures.draw_pair(cells, corrupt, folder / f"pair_{pair.number}.png", about)
    if averages["share"].notna().any():
        if by_position.any():
            figures.draw_positions(averages, folder / "positions.png", title)
        if (averages["tokens"] == "all").any():
            draw_heads(averages[averages["tokens"] == "all"], folder / "heads.png", title)
        figures.draw_estimates(averages, results["estimates"], folder / "estimates.png", title)
    if len(edges):
        figures.draw_paths(edges, folder / "paths.png", f"{title}; LayerNorm {edges['layer_norm'].iloc[0]}")
    if "between" in results:
        figures.draw_between(results["between"], folder / "between.png", title)


def draw_heads(averages: pd.DataFrame, path: Path, title: str) -> None:
    """Draw the heads, with a dot on those that stand out, if there are enough texts to tell."""
    marked = averages[averages["specific"].fillna(averages["verdict"] == "matters")]
    dot = f"surely more than {LEAST:.0%} of the gap"
    if averages["controls"].notna().any():
        dot += "; of z also more than 95 % of random subspaces of the layer do, each as wide as a head"
    has_limits = averages["share_low"].notna().any()
    figures.draw_heads(averages, marked if has_limits else None, f"{dot}.", path, title)


if __name__ == "__main__":
    command(main, Options)
