"""Which words decided, and is the explanation true? `make explain`, or `python explain.py --help`.

Ten methods say how much each token adds to each class, on a few test texts. Then the methods are judged: does the
prediction fall with the tokens that a method calls important, more than with random ones? Does the explanation change
when the network does? Last, the words that matter over the corpus, and what is left without them. All lands in
runs/NAME/explain."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tyro.conf import OmitArgPrefixes

from experiments.explain import choose, figures
from experiments.explain.attributions import SETTINGS
from experiments.explain.choose import Chosen, Explained
from experiments.explain.cost import forecast_work
from experiments.explain.faithfulness import measure_faithfulness
from experiments.explain.methods import Explanation, explain
from experiments.explain.page import write_page
from experiments.explain.report import report
from experiments.explain.robustness import measure_robustness
from experiments.explain.sanity import measure_sanity
from experiments.explain.shuffled import describe_shuffled, open_shuffled
from experiments.explain.tables import describe_sum, tabulate_attributions, tabulate_completeness, tabulate_texts
from experiments.explain.words import compare_with_bag_of_words, measure_words
from lab import output
from lab.cli import check_ranges, command
from lab.defaults import ITS_OWN, StudyOptions
from lab.device import Device, DeviceName
from lab.fonts import rename_classes
from lab.kept import open_analysis, read_result, write_result
from lab.progress import console, progress_bar
from lab.study import Study, open_study
from model import GPT2Classifier

Tables = dict[str, pd.DataFrame]  # by the names of their files


@dataclass(frozen=True)
class Options:
    """Explain the predictions of a run's network word by word, and measure whether the explanations are true.

    Tables, pictures, texts.html and report.md land in runs/NAME/explain."""

    run: str = "latest"  # name of the run
    resume: bool = True  # take up what earlier calls have computed; --no-resume: anew, e.g. after editing the code
    model: str | None = None  # with --corpus, a classifier of others takes the place of a run, as it is
    text: tuple[str, ...] = ()  # texts of your own, which are explained besides and count in no average
    texts: int = 48  # how many test texts are explained, balanced over classes and over right and wrong
    shuffled_run: str | None = None  # a run of train.py --shuffle-labels, whose explanations must differ
    seed: int = 0  # of the choice of texts, and of all that is drawn
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    study: OmitArgPrefixes[StudyOptions] = ITS_OWN


def main(options: Options) -> int:
    check_ranges(options, texts=(1, np.inf), seed=(0, 2**32))
    device = Device.choose(options.device, "fp32")
    study = open_study(options.run, device, options.study, options.model)
    users = choose.parse_users(study, options.text)
    shuffled = open_shuffled(options.shuffled_run, study) if options.shuffled_run else None
    chosen = choose.choose_texts(study, options.texts, options.seed)
    console.print(forecast_work(study, chosen))
    with open_analysis(study.run / "explain", "results", options.resume, device) as folder:
        texts = explain_each([*users, *chosen], study, folder / "results", options.seed)
        results = measure(study, texts[len(users) :], folder / "results", options.seed, shuffled)
        results["attributions"] = tabulate_attributions(texts, study.clf.labels)
        results["completeness"] = tabulate_completeness(texts, study.clf.labels)
        about = study.provenance(f"{len(chosen):,} test texts", options.seed)
        about += study.absent_classes(study.texts["test"])
        control = describe_shuffled(options.shuffled_run) if options.shuffled_run else ""
        page = report(about, texts, **results, shuffled=control)
        with output.replace_outputs(folder) as new:
            for name, table in {**results, "texts": tabulate_texts(texts, study.clf.labels)}.items():
                output.write_csv(new / f"{name}.csv", table)
            with console.status("pictures"):
                title = f"run {study.run.name}, corpus {study.corpus.name}"
                figures.draw(new, rename_classes(results, study.clf.labels), title)
            write_page(new / "texts.html", texts, study.clf.labels, about)
            output.write_text(new / "report.md", page)
    console.print(f"{folder}/texts.html shows which words decided; report.md beside it says which methods to believe")
    return 0


def explain_each(chosen: Sequence[Chosen], study: Study, folder: Path, seed: int) -> list[Explained]:
    """Explain each text by every method, and print how well integrated gradients add up; what is on disk is taken from
    there."""
    texts = []
    with progress_bar("texts") as bar:
        task = bar.add_task("attributions", total=len(chosen), note="")
        for text in chosen:
            identity = {"weights": study.weights, "ids": text.parsed.ids, "groups": text.parsed.groups.tolist()}
            identity |= {"seed": seed, "precision": study.device.precision, "settings": SETTINGS}
            path = folder / f"{text.split}_{text.index}.json"
            content = read_result(path, identity)
            if content is None:
                content = explain(study.clf, text.parsed, study.device, seed=seed).as_json()
                write_result(path, identity, content)
            texts.append(Explained(**vars(text), explanation=Explanation.from_json(content)))
            console.print(describe_sum(texts[-1]))
            bar.advance(task)
    return texts


def measure(
    study: Study, texts: Sequence[Explained], folder: Path, seed: int, shuffled: GPT2Classifier | None
) -> Tables:
    """Return the tables that judge the methods, and those of the words of the corpus."""
    faithfulness = measure_faithfulness(study, texts, folder, seed)
    sanity = measure_sanity(study, texts, folder, seed, shuffled)
    words = measure_words(study, folder, seed)
    return {
        "faithfulness": faithfulness.table,
        "judged": faithfulness.judged,
        "sanity": sanity,
        "words": words,
        "compared": compare_with_bag_of_words(words),
        "robustness": measure_robustness(study, words, folder, seed),
    }


if __name__ == "__main__":
    command(main, Options)
