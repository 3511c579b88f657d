"""Where does each head look? `make attend`, or `python attend.py --help`.

Attention of every head over the test texts, by class, against base rates and random tokens; and of a few texts, in one
page that opens anywhere. In a notebook, `from attend import attend`. All lands in runs/NAME/attend."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor
from tyro.conf import OmitArgPrefixes

from data.batches import Batch
from data.words import word_classes
from experiments.attend import choose, figures
from experiments.attend.page import ShownText, attend, record_text, write_page
from experiments.attend.patterns import (
    PATTERNS,
    choose_patterns,
    draw_random_tokens,
    measure_base_rates,
    tabulate_patterns,
)
from experiments.attend.report import read_ablation, report
from experiments.attend.weights import read_sums
from experiments.attend.words import ELSEWHERE, Members, choose_words, name_masses, tabulate_words
from lab import output
from lab.attention import MOST_TOKENS
from lab.cli import check_ranges, command
from lab.defaults import ITS_OWN, StudyOptions
from lab.device import Device, DeviceName
from lab.kept import open_analysis
from lab.progress import console
from lab.study import Study, open_study
from lab.texts import Texts, find_words
from lab.units import Head, head_name

__all__ = ["Options", "attend", "main"]
NOTHING_SHOWN = (
    f"there is no attention.html: no test text is read whole and has at most {MOST_TOKENS} tokens; give one with --text"
)
DRAWN = 6  # texts of the user of which pictures are drawn
Tables = dict[str, pd.DataFrame]  # by the names of their files
TITLE = 160  # characters of a text that stand above its pictures


@dataclass(frozen=True)
class Options:
    """See where the heads of a run's network look, in a few texts and over the corpus.

    attention.html, tables, pictures and report.md land in runs/NAME/attend."""

    run: str = "latest"  # name of the run
    resume: bool = True  # take up what earlier calls have computed; --no-resume: anew, e.g. after editing the code
    model: str | None = None  # with --corpus, a classifier of others takes the place of a run, as it is
    text: tuple[str, ...] = ()  # texts of your own, which come first in the page; pictures are drawn of up to 6
    head: str | None = None  # of the pictures, as 3.1; None: the one that looks around most
    texts: int = 0  # at most so many test texts; 0: all
    seed: int = 0  # of the choice of texts, and of random tokens
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU
    study: OmitArgPrefixes[StudyOptions] = ITS_OWN


def main(options: Options) -> int:
    check_ranges(options, texts=(0, np.inf), seed=(0, 2**32))
    device = Device.choose(options.device, "fp32")
    study = open_study(options.run, device, options.study, options.model)
    shown = [record_text(study.clf, study.tokenizer, study.fill(text)) for text in options.text]
    head = choose.find_head(options.head, study.clf.config) if options.head else None
    texts = study.draw_texts("test", options.texts, options.seed)
    with open_analysis(study.run / "attend", "sums", options.resume, device) as folder:
        classes, missing = word_classes(study.clf.labels)
        for line in missing:
            console.print(line)
        members = find_words(texts, study.tokenizer, classes)
        results, looking_around = measure(study, texts, members, folder, options.seed)
        head = head or looking_around
        for text, label in choose.choose_texts(study, texts, options.seed):
            shown.append(record_text(study.clf, study.tokenizer, text, label))
        about = study.provenance(f"{len(texts):,} test texts", options.seed) + study.absent_classes(texts)
        about += [] if shown else [NOTHING_SHOWN]
        ablation = read_ablation(study.run, study.weights)
        page = report(about, **results, missing=missing, ablation=ablation, head=head_name(head) if shown else "")
        with output.replace_outputs(folder) as new:
            for name, table in results.items():
                output.write_csv(new / f"{name}.csv", table)
            draw(new, results, shown[: max(1, min(len(options.text), DRAWN))], head, study)
            if shown:
                write_page(new / "attention.html", shown, about)
            output.write_text(new / "report.md", page)
        if shown:
            console.print(f"{folder}/attention.html shows where heads look; report.md beside it says what was found")
        else:
            console.print(f"{folder}/report.md says what was found; {NOTHING_SHOWN}")
    return 0


def measure(study: Study, texts: Texts, members: Members, folder: Path, seed: int) -> tuple[Tables, Head]:
    """Return the tables by the names of their files, and the head that looks around most."""
    digest = hashlib.sha256(b"/".join(row.tobytes() for rows in members.values() for row in rows)).hexdigest()
    trunk, device, labels = study.clf.trunk, study.device, study.clf.labels
    identity = study.identity(texts) | {"seed": seed}

    def choose_both(batch: Batch) -> dict[str, Tensor]:
        return choose_patterns(batch) | choose_words(batch, members)

    names, about = [*PATTERNS, *name_masses(members)], identity | {"members": digest}
    sums = read_sums(trunk, texts.sequences, choose_both, names, device, folder / "sums/texts.npy", about)
    rows = draw_random_tokens(texts.sequences, trunk.config.n_ctx, seed)
    path, about = folder / "sums/random.npy", identity | {"rows": rows}
    random_sums = read_sums(trunk, rows, choose_patterns, PATTERNS, device, path, about)
    windows = [trunk.config.window(layer) for layer in range(trunk.config.n_layer)]
    rates, random_rates = (measure_base_rates(each, windows) for each in (texts.sequences, rows))
    lengths = np.array([len(ids) for ids in texts.sequences])
    tables = {
        "heads": tabulate_patterns(sums, rates, texts.targets, labels, random_sums, random_rates),
        "words": tabulate_words(sums, members, lengths, windows, texts.targets, labels),
    }
    return tables, choose.choose_head(sums[ELSEWHERE])


def draw(folder: Path, results: Tables, shown: Sequence[ShownText], head: Head, study: Study) -> None:
    """Draw the tables, and the views of these texts."""
    run = f"run {study.run.name}"
    with console.status("pictures"):
        figures.draw_patterns(results["heads"], folder, f"{run}, corpus {study.corpus.name}")
        figures.draw_words(results["words"], folder, f"{run}, corpus {study.corpus.name}")
        for i, text in enumerate(shown):
            title = f"{run}: {' '.join(text.text.split())[:TITLE]}"
            figures.draw_views(text.recording, head, folder, title, f"_{i + 1}" if i else "")


if __name__ == "__main__":
    command(main, Options)
