"""Where does each head look? `make attend`, or `python attend.py --help`.

Attention of every head over the test texts, by class, against base rates and random tokens; and of a few texts, in one
page that opens anywhere. In a notebook, `from attend import attend`. All lands in runs/NAME/attend."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

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
from experiments.attend.weights import Floats, read_sums
from experiments.attend.words import Members, choose_words, tabulate_words
from lab import output
from lab.cli import check_ranges, command
from lab.device import Device, DeviceName
from lab.kept import open_analysis
from lab.progress import console
from lab.study import Study, open_study
from lab.texts import Texts, find_words
from lab.units import Head, head_name

__all__ = ["Options", "attend", "main"]
DRAWN = 6  # texts of the user of which pictures are drawn
TITLE = 160  # characters of a text that stand above its pictures


@dataclass(frozen=True)
class Options:
    """See where the heads of a run's network look, in a few texts and over the corpus.

    attention.html, tables, pictures and report.md land in runs/NAME/attend."""

    run: str = "latest"  # name of the run
    resume: bool = True  # take up what earlier calls have computed; --no-resume: anew, e.g. after editing the code
    corpus: str | None = None  # None: the one that the run was trained on; else another with the same classes
    text: tuple[str, ...] = ()  # texts of your own, which come first in the page; pictures are drawn of up to 6
    head: str | None = None  # of the pictures, as 3.1; None: the one that looks around most
    texts: int = 0  # at most so many test texts; 0: all
    seed: int = 0  # of the choice of texts, and of random tokens
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU


def main(options: Options) -> int:
    check_ranges(options, texts=(0, np.inf), seed=(0, 2**32))
    device = Device.choose(options.device, "fp32")
    study = open_study(options.run, device, options.corpus)
    shown = [record_text(study.clf, study.tokenizer, text) for text in options.text]
    head = choose.find_head(options.head, study.clf.config) if options.head else None
    texts = study.draw_texts("test", options.texts, options.seed)
    with open_analysis(study.run / "attend", "sums", options.resume, device) as folder:
        classes, missing = word_classes(study.clf.labels)
        for line in missing:
            console.print(line)
        members = find_words(texts, study.tokenizer, classes)
        scores, masses = read_texts(study, texts, members, folder, options.seed)
        results = {
            "heads": tabulate_heads(study, texts, scores, folder, options.seed),
            "words": tabulate_words(masses, members, count_tokens(texts), texts.targets, study.clf.labels),
        }
        head = head or choose.choose_head(masses[..., -1])
        for text, label in choose.choose_texts(study, texts, options.seed):
            shown.append(record_text(study.clf, study.tokenizer, text, label))
        about = study.provenance(f"{len(texts):,} test texts", options.seed) + study.absent_classes(texts)
        page = report(
            about,
            results["heads"],
            results["words"],
            missing=missing,
            ablation=read_ablation(study.run, study.weights),
            head=head_name(head),
        )
        with output.replace_outputs(folder) as new:
            for name, table in results.items():
                output.write_csv(new / f"{name}.csv", table)
            draw(new, results, shown[: max(1, min(len(options.text), DRAWN))], head, study)
            write_page(new / "attention.html", shown, about)
            output.write_text(new / "report.md", page)
        console.print(f"{folder}/attention.html shows where heads look; report.md beside it says what was found")
    return 0


def count_tokens(texts: Texts) -> np.ndarray:
    return np.array([len(ids) for ids in texts.sequences])


def read_texts(study: Study, texts: Texts, members: Members, folder: Path, seed: int) -> tuple[Floats, Floats]:
    """Return the scores of patterns (N, L, H, P) and the masses of words (N, L, H, W + 2), from one pass."""
    digest = hashlib.sha256(b"/".join(row.tobytes() for rows in members.values() for row in rows)).hexdigest()
    identity = study.identity(texts) | {"seed": seed, "patterns": list(PATTERNS), "words": [*members, digest]}
    n = len(PATTERNS) + len(members) + 2

    def choose_both(batch: Batch) -> torch.Tensor:
        return torch.cat([choose_patterns(batch), choose_words(batch, members)], dim=-1)

    sums = read_sums(
        study.clf.trunk, texts.sequences, choose_both, n, study.device, folder / "sums/texts.npy", identity
    )
    return sums[..., : len(PATTERNS)], sums[..., len(PATTERNS) :]


def tabulate_heads(study: Study, texts: Texts, scores: Floats, folder: Path, seed: int) -> pd.DataFrame:
    """Return heads.csv: the patterns on these texts, and on random tokens of theirs."""
    random = draw_random_tokens(texts.sequences, study.clf.config.n_ctx, seed)
    identity = study.identity(texts) | {"seed": seed, "patterns": list(PATTERNS), "rows": random}
    path, device = folder / "sums/random.npy", study.device
    random_scores = read_sums(study.clf.trunk, random, choose_patterns, len(PATTERNS), device, path, identity)
    rates, random_rates = map(measure_base_rates, (texts.sequences, random))
    return tabulate_patterns(scores, rates, texts.targets, study.clf.labels, random_scores, random_rates)


def draw(folder: Path, results: dict[str, pd.DataFrame], shown: Sequence[ShownText], head: Head, study: Study) -> None:
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
