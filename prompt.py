"""What does the language model say of each class without a head? `make prompt`, or `python prompt.py --help`.

Templates turn each text into a prompt, label words answer it, and what the network says whatever the text is comes out
as a prior. Tables, pictures and report.md land in runs/NAME/prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.prompts import Template, read_templates
from experiments.prompt import figures, report
from experiments.prompt.asking import Asking, fit_shots
from experiments.prompt.curve import measure_curve
from experiments.prompt.demonstrations import tabulate_demonstrations
from experiments.prompt.ensembles import add_ensembles
from experiments.prompt.heads import Heads, measure_heads
from experiments.prompt.judge import judge, predict_references
from experiments.prompt.scoring import Answers, Setting
from experiments.prompt.tables import choose, tabulate_biases, tabulate_predictions, tabulate_scores
from lab import output
from lab.cli import check_ranges, command
from lab.demonstrations import make_pool
from lab.device import Device, DeviceName, Precision
from lab.kept import open_analysis
from lab.progress import console
from lab.prompted import Prompted, open_prompted
from lab.prompts import Demonstration
from lab.study import Study, open_study
from model import InputError

Tables = dict[str, pd.DataFrame]  # by the names of their files


@dataclass(frozen=True)
class Options:
    """Ask the language model that a run began with for the classes of its corpus: by prompts, without a head.

    Tables, pictures and report.md land in runs/NAME/prompt. After an interruption the same command goes on."""

    run: str = "latest"  # name of the run
    resume: bool = True  # take up what earlier calls have computed; --no-resume: anew, e.g. after editing the code
    model: str | None = None  # another language model to ask; None: the one that the run began with
    corpus: str | None = None  # None: the one that the run was trained on; else another with the same classes
    template: tuple[str, ...] = ()  # names in data/prompts.toml, or files of its form; empty: all of data/prompts.toml
    words: tuple[str, ...] = ()  # label words, as joy=happy,glad; else those of data/prompts.toml, else the label
    shots: tuple[int, ...] | None = None  # examples of each class in a prompt; None: 1 and 4, as far as they fit
    draws: int = 5  # of examples, for each number of shots
    texts: int = 300  # at most so many of val and of test, drawn at random; 0: all
    transductive: bool = False  # also estimate the batch prior on the texts that are classified, as published
    seed: int = 0  # of texts, examples and their orders
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    precision: Precision = "auto"  # auto: bf16 autocast on CUDA, else fp32

    def check(self) -> None:
        """Raise InputError for a number out of its range."""
        check_ranges(self, draws=(1, np.inf), texts=(0, np.inf), seed=(0, 2**32))
        shots = self.shots or ()
        if len(set(shots)) < len(shots) or any(each < 1 for each in shots):
            raise InputError(f"--shots {' '.join(map(str, shots))}: expected different numbers, each at least 1")


def main(options: Options) -> int:
    options.check()
    device = Device.choose(options.device, options.precision)
    study = open_study(options.run, device, options.corpus)
    prompted = open_prompted(study, options.model, options.words)
    console.print(prompted.words.describe(prompted.tokenizer), soft_wrap=True)
    templates, pool = read_templates(options.template), make_pool(study)
    shots = fit_shots(options.shots, templates, pool, prompted, options.draws, options.seed)
    with open_analysis(study.run / "prompt", "results", options.resume, device) as folder:
        asking = Asking(study, prompted, folder / "results", options.texts, options.seed, options.transductive)
        asking.print_first(templates[0])
        console.print(asking.forecast(templates, shots, options.draws))
        zero_shot = asking.ask([Setting(template) for template in templates])
        template = choose_template(zero_shot, templates, asking)
        settings = asking.list_few_shot(template, pool, shots, options.draws)
        answers = zero_shot + asking.ask_channel(Setting(template)) + asking.ask(settings)
        heads, left_out = close_heads(asking, Setting(template))
        curve = measure_curve(study, prompted, pool, asking.texts["test"], folder / "results", options.seed)
        tables = tabulate(asking, add_ensembles(answers), settings, curve, heads)
        write(folder, tables, asking, template, zero_shot, left_out)
    console.print(f"{folder}/report.md says what prompts can tell; beside it lie {', '.join(tables)}.csv and the pictures")
    return 0


if __name__ == "__main__":
    command(main, Options)
