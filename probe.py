"""Where does the network know what? `make probe`, or `python probe.py --help`.

Linear probes read the class of a text, and properties of its words, from the residual stream, each head and each MLP;
the class lens and direct contributions say what the network itself makes of it. All lands in runs/NAME/probe."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.probe import figures, lens, tables
from experiments.probe.report import report
from experiments.probe.sources import SHARES, Source, collect_brown, collect_texts, collect_words, score_baselines
from experiments.probe.tasks import Probes
from lab import output, runs
from lab.cli import check_ranges, command
from lab.device import Device, DeviceName, Precision
from lab.effects import read_effects
from lab.progress import console
from lab.study import Study, open_study
from lab.texts import Texts
from model.files import read_json

SHORT = 16  # tokens of the longest text that is shown in the picture of the class lens


@dataclass(frozen=True)
class Options:
    """Find out where a run's network holds what: linear probes of every layer, head and MLP, and the class lens.

    The tables, pictures and report.md land in runs/NAME/probe. After an interruption the same command goes on."""

    run: str = "latest"  # name of the run
    resume: bool = True  # take up what earlier calls have computed; --no-resume: anew, e.g. after editing the code
    model: str = ""  # empty: the run's network; else another one, on the run's texts, e.g. gpt2-mini, never fine-tuned
    corpus: str = ""  # empty: the one that the run was trained on; else another with the same classes
    texts: int = 4000  # at most so many: 60 % to train probes, 20 % to choose their strength, 20 % to test
    words: int = 20000  # at most so many of the texts, and of the Brown corpus
    seed: int = 0  # of texts, words, control tasks and the network with random weights
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # auto: bf16 autocast on CUDA, else fp32


def main(options: Options) -> int:
    check_ranges(options, texts=(100, np.inf), words=(500, np.inf), seed=(0, 2**32))
    device = Device.choose(options.device, options.precision)
    study = open_study(options.run, options.corpus, device, options.model)
    name = f"probe-{Path(options.model).name}" if options.model else "probe"
    splits = [study.draw_texts(split, round(share * options.texts), options.seed) for split, share in SHARES.items()]
    with runs.open_analysis(study.run / name, "tasks", options.resume, device) as folder:
        write(folder, experiment(study, splits, folder, options), study, splits, options)
    return 0


def experiment(study: Study, splits: list[Texts], folder: Path, options: Options) -> dict[str, Any]:
    """All that is found, by the name of its file; `texts` are those in the picture of the class lens, and `agreement`
    is a line where there is none."""
    sources = chosen_sources(study, splits, options)
    found: dict[str, Any] = Probes(study, folder / "tasks", options.seed).run(sources)
    with console.status("baselines"):
        found["baselines"] = score_baselines(sources, splits)
        tested = {what: task.tested for source in sources for (what, _), task in source.tasks.items()}
        found["differences"] = tables.differences(found["probes"], found["baselines"], tested)
    for name in ("probes", "baselines"):
        del found[name]["correct"]
    if study.has_classifier:
        found |= made_of_it(study, splits[-1])
    else:
        console.print(f"{options.model} has no head of its own: no class lens and no direct contributions")
    effects = ablation_of(study, bool(options.model))
    found["agreement"] = effects if isinstance(effects, str) else tables.agreement(found["probes"], effects)
    return found


def ablation_of(study: Study, other_network: bool) -> pd.DataFrame | str:
    """What `ablate.py` measured of the same network and texts, or a line that says why there is nothing to compare.

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
    found, here = read_json(folder / "study.json"), study.identity(study.draw_texts("test"))
    if differing := [name for name, value in here.items() if found.get(name) != value]:
        advice = "run `make ablate` with the same --corpus and --precision, without --texts and --class, and then this"
        return f"the ablation is of other {', '.join(differing)}; {advice} once more"
    effects = read_effects(folder / "effects.csv")
    if "head" not in set(effects["kind"]):
        return "the ablation closed no heads; run it with --units heads, and then this once more"
    return effects


def chosen_sources(study: Study, splits: list[Texts], options: Options) -> list[Source]:
    """The texts, their words, and those of Brown; what nltk has no data for is told and left out."""
    found = [collect_texts(splits, study.clf.labels)]
    words, missing = collect_words(splits, study.tokenizer, options.words, options.seed)
    found += words
    try:
        found.append(collect_brown(study.tokenizer, study.clf.config, options.words, options.seed))
    except LookupError as error:
        missing.append(str(error))
    for line in missing:
        console.print(line)
    return found


def made_of_it(study: Study, test: Texts) -> dict[str, Any]:
    """What the trained head makes of it: `lens`, `contributions`, and the `texts` to show."""
    clf, labels, device = study.clf, study.clf.labels, study.device
    logits = lens.class_lens(clf, test.sequences, device)  # (N, L + 1, K)
    values = lens.contributions(clf, test.sequences, device)  # (N, parts, K)
    right = logits[:, -1].argmax(1) == test.targets
    short = np.array([len(ids) <= SHORT for ids in test.sequences])
    texts = []
    for k, label in enumerate(labels):
        for i in np.flatnonzero(right & short & (test.targets == k))[:1]:
            pieces = [piece for piece, _, _ in study.tokenizer.pieces(test.strings[i])]
            texts.append((pieces, label, lens.text_lens(clf, test.sequences[i], device)))
    return {
        "lens": tables.lens_by_layer(logits, test.targets, labels),
        "contributions": tables.contributions(values, lens.components(clf.config), test.targets, labels),
        "texts": texts,
    }


def write(folder: Path, found: dict[str, Any], study: Study, splits: list[Texts], options: Options) -> None:
    """Tables, pictures and the report."""
    texts, agreement = found.pop("texts", []), found["agreement"]
    if isinstance(agreement, str):
        console.print(f"Probing beside ablation is left out: {found.pop('agreement')}")
    title = f"{options.model or f'run {study.run.name}'}, corpus {study.corpus.name}"
    rows = f"at most {options.texts:,} texts and {options.words:,} words, of which the probes learn from 60 %"
    about = [f"network: {options.model}, in the place of the run's"] if options.model else []
    about += study.provenance(rows, options.seed) + study.absent_classes(*splits)
    read = ("probes", "baselines", "differences", "profiles", "lens", "contributions")
    tables: dict[str, Any] = {name: found.get(name) for name in read}
    page = report(about, agreement=agreement, **tables)
    with output.replace_outputs(folder) as new:
        for name, table in found.items():
            output.write_csv(new / f"{name}.csv", table)
        draw(new, found, texts, study.clf.labels, title)
        output.write_text(new / "report.md", page)
    console.print(f"{folder}/report.md says what was found; beside it lie {', '.join(found)}.csv and the pictures")


def draw(folder: Path, found: dict[str, Any], texts: list[Any], labels: Sequence[str], title: str) -> None:
    probes, known = found["probes"], found["baselines"]
    figures.draw_layers(probes, known, folder / "layers.png", title)
    figures.draw_heads(probes, known, folder / "heads.png", title)
    figures.draw_profiles(found["profiles"], known, folder / "profiles.png", title)
    if "lens" in found:
        figures.draw_lens(found["lens"], folder / "lens.png", title)
        figures.draw_contributions(found["contributions"], labels, folder / "contributions.png", title)
    if texts:
        figures.draw_texts(texts, labels, folder / "texts.png", title)


if __name__ == "__main__":
    command(main, Options)
