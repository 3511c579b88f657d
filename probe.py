"""Where does the network know what? `make probe`, or `python probe.py --help`.

Linear probes read the class of a text, and properties of its words, from the residual stream, each head and each MLP.
The class lens and direct contributions say what the network itself makes of them. Tables, pictures and report.md land
in runs/NAME/probe."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tyro.conf import OmitArgPrefixes

from experiments.probe import figures, lens, tables
from experiments.probe.report import report
from experiments.probe.sources import SHARES, Source, collect_brown, collect_texts, collect_words, score_baselines
from experiments.probe.tasks import Probes
from lab import output
from lab.cli import check_ranges, command
from lab.contributions import components, contributions
from lab.defaults import ITS_OWN, StudyOptions
from lab.device import Device, DeviceName, Precision
from lab.effects import read_effects
from lab.fonts import name_classes, rename_classes
from lab.kept import open_analysis
from lab.progress import console
from lab.study import Study, open_study
from lab.texts import Texts
from model.files import read_json

SHORT = 16  # tokens of the longest text that is shown in the picture of the class lens
Tables = dict[str, pd.DataFrame]  # by the name of their file
Shown = tuple[list[str], str, NDArray[np.float32]]  # a text's tokens, its class, its class lens (T, L + 1, K)


@dataclass(frozen=True)
class Options:
    """Find out where a run's network holds what: linear probes of every layer, head and MLP, and the class lens.

    The tables, pictures and report.md land in runs/NAME/probe. After an interruption the same command goes on."""

    run: str = "latest"  # name of the run
    resume: bool = True  # take up what earlier calls have computed; --no-resume: anew, e.g. after editing the code
    model: str | None = None  # another network on the run's texts; with --corpus, it takes the place of the run
    texts: int = 4000  # at most so many: 60 % to train probes, 20 % to choose their strength, 20 % to test
    words: int = 20000  # at most so many of the texts, and of the Brown corpus
    seed: int = 0  # of texts, words, control tasks and the network with random weights
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # auto: bf16 autocast on CUDA, else fp32
    study: OmitArgPrefixes[StudyOptions] = ITS_OWN

    @property
    def replacement(self) -> str | None:
        """The network that is probed in the place of the run's, on its texts."""
        return None if self.study.corpus else self.model


def main(options: Options) -> int:
    check_ranges(options, texts=(100, np.inf), words=(500, np.inf), seed=(0, 2**32))
    device = Device.choose(options.device, options.precision)
    study = open_study(options.run, device, options.study, options.model, any_network=True)
    name = f"probe-{Path(options.replacement).name}" if options.replacement else "probe"
    splits = [study.draw_texts(split, round(share * options.texts), options.seed) for split, share in SHARES.items()]
    with open_analysis(study.run / name, "tasks", options.resume, device) as folder:
        results, shown = fit_probes(study, splits, folder, options), list[Shown]()
        if study.has_classifier:
            readings, shown = read_with_head(study, splits[-1])
            results |= readings
        else:
            console.print(f"{options.model} has no head of its own: no class lens and no direct contributions")
        agreement = read_ablation(study, bool(options.replacement))
        if isinstance(agreement, pd.DataFrame):
            agreement = results["agreement"] = tables.agreement(results["probes"], agreement)
        else:
            console.print(f"Probing beside ablation is left out: {agreement}")
        page = report(
            describe(study, splits, options),
            **{name: results[name] for name in ("probes", "baselines", "differences", "profiles")},
            agreement=agreement,
            lens=results.get("lens"),
            contributions=results.get("contributions"),
        )
        write(folder, results, shown, page, study, options)
    return 0


def fit_probes(study: Study, splits: list[Texts], folder: Path, options: Options) -> Tables:
    """Return the tables of the probes, the baselines and the differences between them."""
    sources = choose_sources(study, splits, options)
    results = Probes(study, folder / "tasks", options.seed).run(sources)
    with console.status("baselines"):
        results["baselines"] = score_baselines(sources, splits)
        tested = {what: task.tested for source in sources for (what, _), task in source.tasks.items()}
        results["differences"] = tables.differences(results["probes"], results["baselines"], tested)
    for name in ("probes", "baselines"):
        del results[name]["correct"]
    return results


def choose_sources(study: Study, splits: list[Texts], options: Options) -> list[Source]:
    """Return the texts, their words, and those of Brown; say what is left out because nltk's data are not here."""
    words, missing = collect_words(splits, study.tokenizer, options.words, options.seed)
    sources = [collect_texts(splits, study.clf.labels), *words]
    try:
        sources.append(collect_brown(study.tokenizer, study.clf.config, options.words, options.seed))
    except LookupError as error:
        missing.append(str(error))
    for line in missing:
        console.print(line)
    return sources


def read_with_head(study: Study, test: Texts) -> tuple[Tables, list[Shown]]:
    """Return the tables of the class lens and of direct contributions, and the texts to show: of each class the first
    short one that is classified right."""
    clf, labels, device = study.clf, study.clf.labels, study.device
    logits = lens.class_lens(clf, test.sequences, device)  # (N, L + 1, K)
    added = contributions(clf, test.sequences, device)  # (N, components, K)
    readings = {
        "lens": tables.lens_by_layer(logits, test.targets, labels),
        "contributions": tables.contributions(added, components(clf.config), test.targets, labels),
    }
    right = logits[:, -1].argmax(1) == test.targets
    short = np.array([len(ids) <= SHORT for ids in test.sequences])
    shown = []
    for k, label in enumerate(labels):
        for i in np.flatnonzero(right & short & (test.targets == k))[:1]:
            pieces = [piece for piece, _, _ in study.tokenizer.pieces(test.strings[i])]
            shown.append((pieces, label, lens.text_lens(clf, test.sequences[i], device)))
    return readings, shown


def read_ablation(study: Study, other_network: bool) -> pd.DataFrame | str:
    """Return what `ablate.py` measured of the same network and texts, or a line that says why there is nothing to
    compare.

    Probes and ablation are ranked over the same heads, so the weights, their precision and the classes must be the
    same. The probes are measured on a sample of the test texts. The ablation must have measured all of them: those hold
    the sample, and no other choice of texts does for certain."""
    folder = study.run / "ablate"
    if other_network:
        return "the ablation is of the run's network, and the probes are of another"
    if not (folder / "effects.csv").is_file():
        return "run `make ablate`, and then this once more, to compare the two"
    if not (folder / "study.json").is_file():
        return "the ablation does not say what it was made of; run `make ablate` once more, and then this"
    ablated, probed = read_json(folder / "study.json"), study.identity(study.draw_texts("test"))
    if differing := [name for name, value in probed.items() if ablated.get(name) != value]:
        advice = "run `make ablate` with the same --corpus and --precision, without --texts and --class, and then this"
        return f"the ablation is of other {', '.join(differing)}; {advice} once more"
    effects = read_effects(folder / "effects.csv")
    if "head" not in set(effects["kind"]):
        return "the ablation closed no heads; run ablate.py --units heads, and then this once more"
    return effects


def describe(study: Study, splits: list[Texts], options: Options) -> list[str]:
    """Return the lines of the report that say what was probed."""
    rows = f"at most {options.texts:,} texts and {options.words:,} words, of which the probes learn from 60 %"
    about = [f"network: {options.replacement}, in the place of the run's"] if options.replacement else []
    return about + study.provenance(rows, options.seed) + study.absent_classes(*splits)


def write(folder: Path, results: Tables, shown: list[Shown], page: str, study: Study, options: Options) -> None:
    """Write tables, pictures and the report."""
    title = f"{options.model or f'run {study.run.name}'}, corpus {study.corpus.name}"
    with output.replace_outputs(folder) as new:
        for name, table in results.items():
            output.write_csv(new / f"{name}.csv", table)
        names = dict(zip(study.clf.labels, name_classes(study.clf.labels), strict=True))
        shown = [(pieces, names[label], logits) for pieces, label, logits in shown]
        draw(new, rename_classes(results, study.clf.labels), shown, [*names.values()], title)
        output.write_text(new / "report.md", page)
    console.print(f"{folder}/report.md says what was found; beside it lie {', '.join(results)}.csv and the pictures")


def draw(folder: Path, results: Tables, shown: list[Shown], labels: Sequence[str], title: str) -> None:
    """Draw one picture for each table."""
    probes, known = results["probes"], results["baselines"]
    figures.draw_layers(probes, known, folder / "layers.png", title)
    figures.draw_heads(probes, known, folder / "heads.png", title)
    figures.draw_profiles(results["profiles"], known, folder / "profiles.png", title)
    if "lens" in results:
        figures.draw_lens(results["lens"], folder / "lens.png", title)
        figures.draw_contributions(results["contributions"], labels, folder / "contributions.png", title)
    if shown:
        figures.draw_texts(shown, labels, folder / "texts.png", title)


if __name__ == "__main__":
    command(main, Options)
