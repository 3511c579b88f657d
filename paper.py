"""The table of results: each corpus, with what can be tuned of a network, over several seeds, beside classifiers on
frozen features and on words: `make paper`.

With several models it holds them all, and with `--init pretrained random` both starts, and their differences on the
same texts. With `--prompt` it says what the networks know without a head."""

import shlex
import sys
from pathlib import Path

import pandas as pd

from experiments.paper import differences, figures, report, results
from experiments.paper.frozen import fit_bag, fit_features
from experiments.paper.plan import Options, Run, describe_remaining, plan
from experiments.paper.prompts import ask, list_asked, read_prompts
from lab import output, runs
from lab.cli import command
from lab.device import Device
from lab.progress import console, progress_bar
from model.files import read_json


def main(options: Options) -> int:
    options.check()
    device = Device.choose(options.device, options.precision)
    planned = plan(options)
    folder = runs.RUNS / options.run
    folder.mkdir(parents=True, exist_ok=True)
    with runs.lock_folder(folder, "wait, or choose another --run"):
        train_missing(planned, device)
        asked = list_asked(planned) if options.prompt else []
        for run in asked:
            ask(run)
        measured, fitted = measure(planned, device), fit_missing(planned, folder / "fitted", device)
        write_results(folder, measured, fitted, read_prompts(asked))
    others = ", differences.csv" * (len(options.init) == 2) + ", model_differences.csv" * (len(options.model) > 1)
    others += ", prompts.csv" * options.prompt
    console.print(f"{folder}: results.md, results.csv{others} and results.png are written", soft_wrap=True)
    return 0


def train_missing(planned: list[Run], device: Device) -> None:
    """Train the planned runs that are not finished."""
    missing = [run for run in planned if not run.read_record()]
    done = f"{len(planned)} runs, {len(planned) - len(missing)} of them are there already"
    console.print(f"{done}: {describe_remaining(planned, device)}")
    for run in missing:
        run.train()
        test = read_json(run.folder / "metrics.json")["test"]
        scores = f"test accuracy {test['accuracy']:.3f}, macro-F1 {test['macro_f1']:.3f}"
        console.print(f"{run.folder}: {scores}. {describe_remaining(planned, device)}")


def measure(planned: list[Run], device: Device) -> list[results.MeasuredRun]:
    """Return what the runs measured, with ROC AUC on their training texts."""
    measured = []
    with progress_bar("runs") as bar:  # rich's `track` leaves its bar behind where a run cannot be read
        task = bar.add_task("ROC AUC on the training texts", total=len(planned), note="")
        for run in planned:
            measured.append(run.measure(device))
            bar.advance(task)
    return measured


def fit_missing(planned: list[Run], folder: Path, device: Device) -> list[results.Fitted]:
    """Return the classifiers on features of each network that runs start from, and the bag of words of each corpus."""
    starts = {(run.corpus.name, run.settings.model, run.settings.init): run for run in planned}
    corpora = {run.corpus.name: run.corpus for run in planned}
    of_networks = [each for run in starts.values() for each in fit_features(run, folder, device)]
    return of_networks + [fit_bag(corpus, folder) for corpus in corpora.values()]


def write_results(
    folder: Path, measured: list[results.MeasuredRun], fitted: list[results.Fitted], prompts: pd.DataFrame
) -> None:
    """Write results.csv, results.md and results.png, differences.csv where there are two starts, model_differences.csv
    where there are several models, and prompts.csv where networks were asked without a head."""
    table = results.tidy(measured, fitted)
    of_starts, of_models = differences.compare_starts(measured), differences.compare_models(measured)
    optional = {"differences.csv": of_starts, "model_differences.csv": of_models, "prompts.csv": prompts}
    accuracies = results.accuracies_on_test(table)
    words = shlex.join(["python", "paper.py", *sys.argv[1:]])
    with output.replace_outputs(folder) as new:
        output.write_csv(new / "results.csv", table)
        for name, rows in optional.items():
            if not rows.empty:
                output.write_csv(new / name, rows)
        output.write_text(new / "results.md", report.report(measured, table, of_starts, of_models, prompts, words))
        figures.draw_forest(
            accuracies, new / "results.png", "accuracy on the test split, with its 95 % bootstrap interval"
        )


if __name__ == "__main__":
    command(main, Options)
