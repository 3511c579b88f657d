"""Which heads, layers and regions does each class need? `make ablate`, or `python ablate.py --help`.

Everything is closed in turn on the same texts, and what changes is measured for each class: ranked on val, confirmed
on test. Tables, pictures and report.md land in runs/NAME/ablate."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pandas as pd
import tyro
from numpy.typing import NDArray

from data.words import tokens_of_class, word_classes, words
from experiments.ablate import figures, findings, units
from experiments.ablate.importance import correlate_estimates, find_strongest
from experiments.ablate.report import report
from lab import output, runs
from lab.cli import check_ranges, command
from lab.device import Device, DeviceName, Precision
from lab.progress import console, forecast
from lab.study import open_study
from lab.sweep import Ablation
from lab.sweeps import Plan, Sweeps
from lab.units import each_head, each_layer, head_name
from model import GPT2Config, InputError

UnitName = Literal["heads", "layers", "regions", "words", "curves", "pairs", "smallest"]
FillName = Literal["zero", "mean", "resample", "class_mean"]
PAIRED = 8  # heads, of which all pairs are closed


@dataclass(frozen=True)
class Options:
    """Close heads, layers, pieces of attention and words of a run's network, and measure what each class loses.

    The tables, pictures and report.md land in runs/NAME/ablate. After an interruption the same command goes on."""

    run: str = "latest"  # name of the run
    resume: bool = True  # take up what earlier calls have computed; --no-resume: anew, e.g. after editing the code
    corpus: str = ""  # empty: the one that the run was trained on; else another with the same classes
    units: tuple[UnitName, ...] = ("heads", "layers", "regions", "words", "curves")  # what to close, see docs/ablate.md
    fill: tuple[FillName, ...] = ("zero", "mean")  # what closed heads and MLPs emit
    all: bool = False  # all units, and all fills
    texts: int = 0  # at most so many of val and of test, drawn at random; 0: all
    class_: Annotated[str, tyro.conf.arg(name="class")] = ""  # test and report this class alone; empty: each
    pairs: tuple[str, ...] = ()  # heads whose pairs are closed, as 0.3 1.5; empty: the 8 that do most on val
    rows: tuple[int, ...] = ()  # queries that may attend to nothing, besides the last; -2 is the last but one
    seed: int = 0  # of texts, donors, random words and random orders
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # auto: bf16 autocast on CUDA, else fp32

    def resolved(self) -> "Options":
        """Checked, and with what `all` and the units that need others stand for."""
        check_ranges(self, texts=(0, np.inf), seed=(0, 2**32))
        if not self.units or not self.fill:
            raise InputError("--units and --fill: expected at least one of each")
        chosen, fill = set(self.units), self.fill
        if self.all:
            chosen, fill = set(get_args(UnitName)), get_args(FillName)
        if chosen & {"curves", "pairs", "smallest"}:
            chosen.add("heads")  # by whose effect they go
        return replace(self, units=tuple(name for name in get_args(UnitName) if name in chosen), fill=fill)


def main(options: Options) -> int:
    options = options.resolved()
    study = open_study(options.run, options.corpus, Device.choose(options.device, options.precision))
    if options.class_:
        options = replace(options, class_=study.find_class(options.class_))
    check_heads(options.pairs, study.clf.config)
    with runs.open_analysis(study.run / "ablate", "logits", options.resume, study.device) as folder:
        sweeps = Sweeps(study, folder / "logits", options.texts, options.seed)
        sweeps.check_device()
        tables = experiment(sweeps, options)
        study.device.run_on_first(lambda: write(folder, tables, sweeps, options))
    return 0


def check_heads(names: tuple[str, ...], config: GPT2Config) -> None:
    """InputError unless these are none, or at least two different heads."""
    heads = [head_name(head) for head in product(range(config.n_layer), range(config.n_head))]
    if names and (len(set(names)) < 2 or not set(names) <= set(heads)):
        raise InputError(f"--pairs {' '.join(names)}: expected two or more heads of {heads[0]} to {heads[-1]}")


def experiment(sweeps: Sweeps, options: Options) -> dict[str, Any]:
    """All that is found, by the name of its file."""
    plans = [*first_plans(sweeps, options)]
    number = sum(len(own) for plan in plans for own in plan.ablations.values())
    take = f"{number:,} ablations of val and test take"
    console.print(forecast(take, sweeps.work(plans), sweeps.rate(), sweeps.study.device))
    logits, fill = sweeps.run(plans), options.fill[0]
    with console.status("intervals and permutation tests"):
        found: dict[str, Any] = findings.measure_plans(sweeps, plans, logits, options.class_)
        for plan in plans:
            if plan.name == "words":
                hidden = logits["words", plan.fill, "test"]
                found["words"] = findings.compare_words_with_random(sweeps, plan, hidden, options.class_)
    if not {"curves", "pairs", "smallest"} & set(options.units):
        return found
    importance = findings.estimate_importance(sweeps, logits["heads", fill, "val"], fill)
    if "curves" in options.units:
        found |= {"importance": importance, "correlations": correlate_estimates(importance)}
        found["curves"] = findings.measure_curves(sweeps, importance, fill)
    if "pairs" in options.units:
        chosen = options.pairs or find_strongest(found["significance"], fill, PAIRED)
        singles = logits["heads", fill, "test"]
        pairs, found["interactions"] = findings.measure_pairs(sweeps, chosen, singles, fill, options.class_)
        found |= {name: pd.concat([found[name], table]) for name, table in pairs.items()}
    if "smallest" in options.units and (smallest := findings.find_smallest_set(sweeps, importance, fill)):
        found["smallest"] = smallest
    return found


def first_plans(sweeps: Sweeps, options: Options) -> Iterator[Plan]:
    """What is closed whatever comes out."""
    config = sweeps.study.clf.config
    for fill in options.fill:
        if "heads" in options.units:
            yield Plan("heads", fill, on_both(each_head(config)))
        if "layers" in options.units:
            yield Plan("layers", fill, on_both(each_layer(config)))
    if "regions" in options.units:
        yield Plan("regions", "zero", on_both(units.each_region(config, options.rows)))
    if "words" in options.units:
        hidden = {split: words_of_classes(sweeps, split) for split in sweeps.texts}
        ablations = {
            split: units.each_word_class(own, np.random.default_rng((options.seed, *split.encode())))
            for split, own in hidden.items()
        }
        if any(ablations.values()):
            yield Plan("words", "zero", ablations, digest(hidden))


def on_both(ablations: list[Ablation]) -> dict[str, list[Ablation]]:
    return {"val": ablations, "test": ablations}


def words_of_classes(sweeps: Sweeps, split: str) -> dict[str, list[NDArray[np.bool_]]]:
    """By class of words, one bool (T,) per text: which tokens are of such a word."""
    study, texts = sweeps.study, sweeps.texts[split]
    classes, missing = word_classes(study.clf.labels)
    if split == "val":  # say it once
        for line in missing:
            console.print(line)
    parsed = [words(text, study.tokenizer) for text in texts.strings]
    lengths = [len(study.tokenizer.encode(text)) for text in texts.strings]
    return {
        name: [
            tokens_of_class(own, vocabulary, n)[-len(ids) :]  # a long text was truncated to its end
            for own, n, ids in zip(parsed, lengths, texts.sequences, strict=True)
        ]
        for name, vocabulary in classes.items()
    }


def digest(hidden: dict[str, dict[str, list[NDArray[np.bool_]]]]) -> str:
    """SHA-256 of which tokens are hidden: it depends on the data of nltk that are here."""
    rows = (row.tobytes() for by_class in hidden.values() for rows in by_class.values() for row in rows)
    return hashlib.sha256(b"/".join(rows)).hexdigest()


def write(folder: Path, found: dict[str, Any], sweeps: Sweeps, options: Options) -> None:
    """Tables, pictures and the report."""
    tables = {name: table for name, table in found.items() if name != "smallest"}
    test, run, corpus = sweeps.texts["test"], sweeps.study.run.name, sweeps.study.corpus.name
    majority = sweeps.study.majority(test)
    told = {name: table for name, table in found.items() if name not in ("effects", "significance", "importance")}
    number = ", ".join(f"{len(texts):,} texts of {split}" for split, texts in sweeps.texts.items())
    about = sweeps.study.provenance(number, options.seed) + sweeps.study.absent_classes(*sweeps.texts.values())
    identity = sweeps.study.identity(*sweeps.texts.values())
    if options.class_:
        identity["classes"] = [options.class_]
    with output.replace_outputs(folder) as new:
        for name, table in tables.items():
            output.write_csv(new / f"{name}.csv", table)
        if "smallest" in found:
            output.write_json(new / "smallest.json", found["smallest"])
        draw(new, tables, majority, f"run {run}: {len(test.targets):,} test texts of {corpus}")
        page = report(about, majority, found["effects"], found["significance"], **told)
        output.write_text(new / "report.md", page)
        output.write_json(new / "study.json", identity)
        (folder / "study.json").unlink(missing_ok=True)  # it must not vouch for tables of which some are new
    console.print(f"{folder}/report.md says what was found; beside it lie {', '.join(tables)}.csv and the pictures")


def draw(folder: Path, tables: dict[str, pd.DataFrame], majority: float, title: str) -> None:
    """One picture for each kind of units and fill."""
    effects, significance = tables["effects"], tables["significance"]
    for kind, fill in effects[["kind", "fill"]].drop_duplicates().itertuples(index=False):
        if kind == "head":
            figures.heads(effects, significance, fill, folder / f"heads_{fill}.png", title)
        elif kind == "layer":
            figures.layers(effects, significance, fill, folder / f"layers_{fill}.png", title)
        elif kind == "mask":
            figures.regions(effects, folder / "regions.png", title)
        elif kind == "words":
            figures.words(effects, folder / "words.png", title)
        elif kind == "pair":
            figures.interactions(tables["interactions"], fill, folder / "interactions.png", title)
    if "curves" in tables:
        fill = effects.loc[effects["kind"] == "head", "fill"].iloc[0]
        figures.curves(tables["curves"], fill, majority, folder / "curves.png", title)


if __name__ == "__main__":
    command(main, Options, processes=True)
