"""What does the language model say of each class without a head? `make prompt`, or `python prompt.py --help`.

Templates turn each text into a prompt, label words answer it, and what the network says whatever the text is comes out
as a prior. Tables, pictures and report.md land in runs/NAME/prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tyro.conf import OmitArgPrefixes

from data.prompts import Template, read_templates
from experiments.prompt import figures
from experiments.prompt.asking import Asking
from experiments.prompt.curve import measure_curve
from experiments.prompt.demonstrations import tabulate_demonstrations
from experiments.prompt.ensembles import add_ensembles
from experiments.prompt.heads import measure_heads
from experiments.prompt.judge import judge, predict_references
from experiments.prompt.report import describe_prompt, report
from experiments.prompt.scoring import Answers, Setting
from experiments.prompt.tables import choose, choose_template, tabulate_biases, tabulate_predictions
from lab import output
from lab.cli import check_ranges, command
from lab.defaults import ITS_OWN, StudyOptions
from lab.demonstrations import make_pool
from lab.device import Device, DeviceName, Precision
from lab.fonts import name_classes, rename_classes
from lab.kept import open_analysis
from lab.progress import console
from lab.prompted import open_prompted
from lab.study import Study, open_study
from model import InputError

Tables = dict[str, pd.DataFrame]  # by the names of their files
TRAINED = (
    "This network was trained on label words, on all texts of train, from which the examples come: what follows is no "
    "prompting without training. The learning curve is left out, and so are heads; `make ablate` closes them."
)
SHOWN = ("scores", "chosen", "predictions", "curve", "effects", "correlations")  # in pictures and the report


@dataclass(frozen=True)
class Options:
    """Ask the language model that a run began with for the classes of its corpus: by prompts, without a head.

    Tables, pictures and report.md land in runs/NAME/prompt. After an interruption the same command goes on."""

    run: str = "latest"  # name of the run
    resume: bool = True  # take up what earlier calls have computed; --no-resume: anew, e.g. after editing the code
    model: str | None = None  # another language model to ask; None: the one that the run began with
    template: tuple[str, ...] = ()  # names in data/prompts.toml, or files of its form; empty: all of data/prompts.toml
    words: tuple[str, ...] = ()  # label words, as joy=happy,glad; else those of data/prompts.toml, else the label
    shots: tuple[int, ...] | None = None  # examples of each class, besides none; None: 1 and 4, as far as they fit
    draws: int = 5  # of examples, for each number of shots
    texts: int = 300  # at most so many of val and of test, drawn at random; 0: all
    transductive: bool = False  # also estimate the batch prior on the texts that are classified, as published
    seed: int = 0  # of texts, examples and their orders
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # auto: bf16 autocast on CUDA, else fp32
    study: OmitArgPrefixes[StudyOptions] = ITS_OWN

    def check(self) -> None:
        """Raise InputError for a number out of its range."""
        check_ranges(self, draws=(1, np.inf), texts=(0, np.inf), seed=(0, 2**32))
        if self.study.labels:
            raise InputError("--labels: a language model has no classes of its own; see --words")
        shots = self.shots or ()
        if len(set(shots)) < len(shots) or any(each < 0 for each in shots):
            raise InputError(f"--shots {' '.join(map(str, shots))}: expected different numbers, none below 0")


def main(options: Options) -> int:
    options.check()
    device = Device.choose(options.device, options.precision)
    study = open_study(options.run, device, options.study, any_network=True)
    prompted = open_prompted(study, options.model, options.words)
    console.print(prompted.words.describe(prompted.tokenizer), soft_wrap=True)
    templates, pool = choose_templates(options.template, study), make_pool(study.without_template())
    with open_analysis(study.run / "prompt", "results", options.resume, device) as folder:
        asking = Asking(study, prompted, folder / "results", options.texts, options.seed, options.transductive)
        templates = asking.fit_templates(templates, named=bool(options.template))
        shots = asking.fit_shots(options.shots, templates, pool, options.draws)
        console.print(asking.forecast(templates, shots, options.draws, pool))
        answers = asking.ask([Setting(template) for template in templates])
        name = choose_template(asking.tabulate(answers))
        template = next(each for each in templates if each.name == name)
        first = describe_prompt(prompted, template, asking.texts["test"].strings[0], answers)
        settings = asking.list_few_shot(template, pool, shots, options.draws)
        channel, left_out = ask_channel(asking, template)
        answers += channel + asking.ask(settings)
        tables = tabulate(asking, add_ensembles(answers), settings)
        if prompted.weights == study.weights:
            left_out.append(TRAINED)
        else:
            tables["curve"] = measure_curve(pool, asking.texts["test"], prompted, asking.folder, options.seed)
            heads, without_heads = close_heads(asking, template)
            tables, left_out = tables | heads, left_out + without_heads
        write(folder, tables, asking, first, left_out)
    return 0


def choose_templates(names: Sequence[str], study: Study) -> list[Template]:
    """Return the templates of these names; without any ours, and that which the run was trained with."""
    templates = read_templates(names)
    if names or study.template is None or study.template in templates:
        return templates
    return [study.template, *(each for each in templates if each.name != study.template.name)]


def tabulate(asking: Asking, answers: Sequence[Answers], settings: Sequence[Setting]) -> Tables:
    """Return the tables of what was answered."""
    study, labels = asking.study, asking.study.clf.labels
    scores, test = asking.tabulate(answers), asking.texts["test"]
    references = predict_references(study, test)
    chosen, compared = judge(answers, scores, references, test.targets, labels, asking.shares)
    return {
        "scores": scores,
        "predictions": tabulate_predictions(answers, choose(scores), asking.texts, labels, asking.shares),
        "biases": tabulate_biases(answers, labels),
        "demonstrations": tabulate_demonstrations(settings, asking.texts, labels),
        "chosen": chosen,
        "compared": compared,
    }


def ask_channel(asking: Asking, template: Template) -> tuple[list[Answers], list[str]]:
    """Return the answers of the noisy channel, or why there are none."""
    try:
        return asking.ask_channel(Setting(template)), []
    except InputError as error:
        return [], [f"The noisy channel was left out: {error}"]


def close_heads(asking: Asking, template: Template) -> tuple[Tables, list[str]]:
    """Return the tables of closed heads, or why there are none."""
    try:
        heads = measure_heads(
            asking.study, asking.prompted, Setting(template), asking.texts, asking.contexts, asking.folder, asking.seed
        )
    except InputError as error:
        return {}, [f"No head was closed: {error}"]
    return {"effects": heads.effects, "correlations": heads.correlations}, []


def write(folder: Path, tables: Tables, asking: Asking, first: dict[str, Any], left_out: list[str]) -> None:
    """Write tables, pictures and the report."""
    study, prompted, labels = asking.study, asking.prompted, asking.study.clf.labels
    number = ", ".join(f"{len(texts):,} texts of {split}" for split, texts in asking.texts.items())
    about = [f"language model: {prompted.name}, SHA-256 of its weights: {prompted.weights}"]
    about += study.provenance(number, asking.seed) + study.absent_classes(*asking.texts.values())
    shown = {name: tables.get(name, pd.DataFrame()) for name in SHOWN}
    page = report(about, labels, first, compared=tables["compared"], left_out=left_out, **shown)
    with output.replace_outputs(folder) as new:
        for name, table in tables.items():
            output.write_csv(new / f"{name}.csv", table)
        with console.status("pictures"):
            title, drawn = f"{prompted.name} on {study.corpus.name}", rename_classes(shown, labels)
            figures.draw(new, title, name_classes(labels), **drawn)
        output.write_text(new / "report.md", page)
    console.print(
        f"{folder}/report.md says what prompts can tell; beside it lie {', '.join(tables)}.csv and the pictures"
    )


if __name__ == "__main__":
    command(main, Options)
