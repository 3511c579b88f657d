"""Which heads, layers and regions does each class need? `make ablate`, or `python ablate.py --help`.

Every unit is taken out in turn, on the same texts, and what each class loses of its margin is compared with what random
parts of the network take, and over runs with other seeds. Tables, pictures and report.md land in runs/NAME/ablate, with
--prompt in runs/NAME/prompt/ablate."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
import pandas as pd
from tyro.conf import OmitArgPrefixes, arg

from experiments.ablate import figures, findings, seeds
from experiments.ablate.findings import Tables
from experiments.ablate.importance import Smallest, correlate_estimates, find_strongest
from experiments.ablate.learnt import add_learnt, find_gates
from experiments.ablate.learnt_sets import measure_sets
from experiments.ablate.plans import check_heads, control_plans, first_plans
from experiments.ablate.prompts import NEUTRAL, Correction, ask, describe_prompt, name_logits
from experiments.ablate.report import report
from experiments.ablate.verdicts import judge_units
from lab import output
from lab.cli import check_ranges, command
from lab.defaults import ITS_OWN, StudyOptions
from lab.device import Device, DeviceName, Precision
from lab.fills import FillName
from lab.fonts import rename_classes
from lab.kept import open_analysis
from lab.progress import console, forecast
from lab.prompted import PromptStudy
from lab.shares import LEAST
from lab.study import open_study
from lab.sweeps import Sweeps
from model import InputError

UnitName = Literal["heads", "layers", "regions", "words", "curves", "pairs", "smallest"]
FOLLOW_UPS = {"curves", "pairs", "smallest"}  # units that are chosen by the effects of heads
PAIRED = 8  # heads, of which all pairs are closed


@dataclass(frozen=True)
class Options:
    """Close heads, layers, pieces of attention and words of a run's network, and measure what each class loses.

    The tables, pictures and report.md land in runs/NAME/ablate. After an interruption the same command goes on."""

    run: tuple[str, ...] = ("latest",)  # name of the run; or of several that differ in their seed, to be compared
    resume: bool = True  # take up what earlier calls have computed; --no-resume: anew, e.g. after editing the code
    model: str | None = None  # with --corpus, a classifier of others takes the place of a run, as it is
    units: tuple[UnitName, ...] = ("heads", "layers", "regions", "words", "curves")  # what to close, see docs/ablate.md
    fill: tuple[FillName, ...] = ("mean", "zero")  # what closed heads and MLPs emit; the first is the main one
    prompt: str | None = None  # template: close parts of the language model that answers it, not of the classifier
    shots: int = 0  # of a prompt: examples of each class that stand before the text
    correction: Correction | None = None  # of a prompt: the label prior that is taken out; None: batch
    all: bool = False  # all units, fills and controls, and learnt gates
    texts: int = 0  # at most so many of val and of test, drawn at random; 0: all
    class_: Annotated[str | None, arg(name="class")] = None  # test and report this class alone; None: each
    pairs: tuple[str, ...] = ()  # heads whose pairs are closed, as 0.3 1.5; empty: the 8 that do most on val
    rows: tuple[int, ...] = ()  # queries that may attend to nothing, besides the last; -2 is the last but one
    gates: Literal["learn"] | None = None  # learn which heads to keep open, by gradient descent, where each has a price
    controls: int = 24  # random subspaces of each layer that its heads are compared with; 0: no controls
    least: float = LEAST  # smallest share of a class's margin that is of interest
    seed: int = 0  # of texts, donors, controls, random orders and learnt gates
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # auto: bf16 autocast on CUDA, else fp32
    study: OmitArgPrefixes[StudyOptions] = ITS_OWN

    def resolved(self) -> "Options":
        """Check the options, and fill in what `all` and the units that need others stand for."""
        check_ranges(self, texts=(0, np.inf), seed=(0, 2**32), controls=(0, 10_000), least=(1e-9, 1), shots=(0, 1000))
        if not self.run or len(set(self.run)) < len(self.run):
            raise InputError(f"--run {' '.join(self.run) or '(nothing)'}: expected a run, or several different ones")
        if bool(self.prompt) + bool(self.model) + (len(self.run) > 1) > 1:
            raise InputError("--prompt, --model and several runs: expected at most one of these three")
        if not self.prompt and (self.shots or self.correction):
            raise InputError("--shots and --correction: expected a --prompt, such as feeling")
        if not self.units or not self.fill:
            raise InputError("--units and --fill: expected at least one of each")
        units, fill, gates = set(self.units), self.fill, self.gates
        if self.all:
            units, fill, gates = set(get_args(UnitName)), get_args(FillName), "learn"
        units |= {"heads"} if units & FOLLOW_UPS or gates else set()
        chosen = tuple(name for name in get_args(UnitName) if name in units)
        correction = self.correction or ("batch" if self.prompt else None)
        return replace(self, units=chosen, fill=fill, gates=gates, correction=correction)


def main(options: Options) -> int:
    options, device = options.resolved(), Device.choose(options.device, options.precision)
    studies = [open_study(run, device, options.study, options.model) for run in options.run]
    seeds.check_alike(studies)
    if options.prompt:
        studies = [ask(study, options.prompt, options.shots, options.seed) for study in studies]
    check_heads(options.pairs, studies[0].clf.config)
    if options.class_:
        options = replace(options, class_=studies[0].find_class(options.class_))
    with ExitStack() as stack:
        opened = {}
        for study in studies:
            place, kept = study.run / ("prompt/ablate" if options.prompt else "ablate"), name_logits(study)
            folder = stack.enter_context(open_analysis(place, kept, options.resume, device))
            opened[folder] = Sweeps(study, folder / kept, options.texts, options.seed, NEUTRAL[options.correction])
            opened[folder].check_device()
        measured = {folder: measure(sweeps, options) for folder, sweeps in opened.items()}
        shared = {}
        if len(studies) > 1:
            verdicts = [tables["verdicts"] for tables, _ in measured.values()]
            shared = {"seeds": seeds.compare_seeds(verdicts), "agreement": seeds.measure_agreement(verdicts)}
        for folder, (tables, smallest) in measured.items():
            device.run_on_first(partial(write, folder, tables | shared, smallest, opened[folder], options))
    return 0


def measure(sweeps: Sweeps, options: Options) -> tuple[Tables, Smallest | None]:
    """Sweep, and return the tables and the smallest set of heads; None where it was not asked for, or there is none."""
    plans = list(first_plans(sweeps, options.units, options.fill, options.rows, options.controls, options.all))
    controls = list(control_plans(sweeps, options.units, options.fill, options.controls, options.all))
    number = sum(len(ablations) for plan in plans + controls for ablations in plan.ablations.values())
    take = f"{sweeps.study.run}: {number:,} ablations of val and test take"
    console.print(forecast(take, sweeps.work(plans + controls), sweeps.rate(), sweeps.study.device))
    logits, fill = sweeps.run(plans + controls), options.fill[0]
    with console.status("limits, intervals and permutation tests"):
        tables = findings.measure_plans(sweeps, plans, logits, options.class_, options.least)
        tables["controls"] = findings.measure_controls(sweeps, controls, logits, tables["effects"])
        tables["verdicts"] = judge_units(tables["effects"], tables["controls"])
        for plan in plans:
            if plan.name == "words":
                hidden = logits["words", plan.fill, "test"]
                tables["words"] = findings.compare_words_with_random(sweeps, plan, hidden, options.class_)
    if not FOLLOW_UPS & set(options.units) and not options.gates:
        return tables, None
    singles = logits["heads", fill, "val"]
    importance = findings.estimate_importance(sweeps, singles, fill)
    smallest = findings.find_smallest_set(sweeps, importance, fill) if "smallest" in options.units else None
    if options.gates:
        tables["gates"] = find_gates(sweeps, fill, options.class_)
        tables["learnt_sets"] = measure_sets(sweeps, tables["gates"], singles, fill, smallest)
        importance = add_learnt(importance, tables["gates"])
    if "curves" in options.units or options.gates:
        tables |= {"importance": importance, "correlations": correlate_estimates(importance)}
    if "curves" in options.units:
        tables["curves"] = findings.measure_curves(sweeps, importance, fill)
    if "pairs" in options.units:
        heads = options.pairs or find_strongest(tables["significance"], fill, PAIRED)
        pairs, tables["interactions"] = findings.measure_pairs(
            sweeps, heads, logits["heads", fill, "test"], fill, options.class_, options.least
        )
        pairs["verdicts"] = judge_units(pairs["effects"], tables["controls"])
        tables |= {name: pd.concat([tables[name], table]) for name, table in pairs.items()}
    return tables, smallest


def write(folder: Path, tables: Tables, smallest: Smallest | None, sweeps: Sweeps, options: Options) -> None:
    """Write tables, pictures and the report."""
    study, test = sweeps.study, sweeps.texts["test"]
    number = ", ".join(f"{len(texts):,} texts of {split}" for split, texts in sweeps.texts.items())
    about = study.provenance(number, options.seed) + study.absent_classes(*sweeps.texts.values())
    majority, identity = study.majority(test), study.identity(*sweeps.texts.values())
    if options.class_:
        identity["classes"] = [options.class_]
    with output.replace_outputs(folder) as new:
        for name, table in tables.items():
            output.write_csv(new / f"{name}.csv", table)
        if smallest:
            output.write_json(new / "smallest.json", {**smallest})
        asked = f"\n{study.describe()}" if isinstance(study, PromptStudy) else ""
        titles = {
            split: f"run {study.run.name}: {len(texts):,} {split} texts of {study.corpus.name}{asked}"
            for split, texts in sweeps.texts.items()
        }
        figures.draw_all(new, rename_classes(tables, study.clf.labels), majority, options.least, titles)
        page = report(
            about,
            tables,
            asked=describe_prompt(study, options.correction),
            pictures=figures.name_pictures(new, options.fill[0]),
            majority=majority,
            pretrained=study.record["settings"]["init"] == "pretrained",
            least=options.least,
            smallest=smallest,
        )
        output.write_text(new / "report.md", page)
        output.write_json(new / "study.json", identity)
        (folder / "study.json").unlink(missing_ok=True)  # it must not vouch for tables of which some are new
    names = ", ".join(f"{name}.csv" for name, table in tables.items() if len(table))
    console.print(f"{folder}/report.md says what was found; beside it lie {names} and the pictures")


if __name__ == "__main__":
    command(main, Options, processes=True)
