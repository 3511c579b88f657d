"""Which words decided, and is the explanation true? `make explain`, or `python explain.py --help`.

Ten methods say how much each token adds to each class, on a few test texts. Then the methods are judged: does the
prediction fall with the tokens that a method calls important, more than with random ones? Does the explanation change
when the network does? All lands in runs/NAME/explain."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.explain import choose
from experiments.explain.choose import Chosen, Explained
from experiments.explain.methods import Explanation, explain
from experiments.explain.tables import tabulate_attributions, tabulate_completeness
from lab import output
from lab.cli import check_ranges, command
from lab.device import Device, DeviceName
from lab.kept import open_analysis, read_result, write_result
from lab.progress import progress_bar
from lab.study import Study, open_study


@dataclass(frozen=True)
class Options:
    """Explain the predictions of a run's network word by word, and measure whether the explanations are true.

    Tables, pictures, texts.html and report.md land in runs/NAME/explain."""

    run: str = "latest"  # name of the run
    resume: bool = True  # take up what earlier calls have computed; --no-resume: anew, e.g. after editing the code
    corpus: str | None = None  # None: the one that the run was trained on; else another with the same classes
    text: tuple[str, ...] = ()  # texts of your own, which are explained besides
    texts: int = 48  # how many test texts are explained, balanced over classes and over right and wrong
    seed: int = 0  # of the choice of texts, and of all that is drawn
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU


def main(options: Options) -> int:
    check_ranges(options, texts=(1, np.inf), seed=(0, 2**32))
    device = Device.choose(options.device, "fp32")
    study = open_study(options.run, device, options.corpus)
    users = choose.parse_users(study, options.text)
    with open_analysis(study.run / "explain", "results", options.resume, device) as folder:
        chosen = choose.choose_texts(study, options.texts, options.seed)
        texts = explain_each([*users, *chosen], study, folder / "results", options.seed)
        results = {
            "attributions": tabulate_attributions(texts, study.clf.labels),
            "completeness": tabulate_completeness(texts, study.clf.labels),
        }
        with output.replace_outputs(folder) as new:
            for name, table in results.items():
                output.write_csv(new / f"{name}.csv", table)
    return 0


def explain_each(chosen: Sequence[Chosen], study: Study, folder: Path, seed: int) -> list[Explained]:
    """Explain each text by every method, and say how well integrated gradients add up; what is on disk is taken from
    there."""
    texts = []
    with progress_bar("texts") as bar:
        task = bar.add_task("attributions", total=len(chosen), note="")
        for text in chosen:
            identity = {"weights": study.weights, "ids": text.parsed.ids, "groups": text.parsed.groups.tolist()}
            identity |= {"seed": seed, "precision": study.device.precision}
            path = folder / f"{text.split}_{text.index}.json"
            content = read_result(path, identity)
            if content is None:
                content = explain(study.clf, text.parsed, study.device, seed=seed).as_json()
                write_result(path, identity, content)
            texts.append(Explained(**vars(text), explanation=Explanation.from_json(content)))
            bar.advance(task)
    return texts


if __name__ == "__main__":
    command(main, Options)
