"""What do the raters of `make rate` say, and do they agree? `make agreement`, or `python agreement.py --help`.

Accuracy before and after explanations, choices, marked words, and agreement, with limits. All lands in
runs/NAME/explain: agreement.csv, agreement.md and a picture. It can be run while people still rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.rate.answers import Session, read_raters, read_session
from experiments.rate.figures import draw_agreement
from experiments.rate.report import report
from experiments.rate.tables import tabulate_agreement
from lab import output
from lab.cli import command
from lab.fonts import explain_names, rename_classes
from lab.manifest import find_commit
from lab.progress import console
from lab.study import read_run
from model import InputError


@dataclass(frozen=True)
class Options:
    """Measure what raters say about a run's explanations, and whether they agree."""

    run: str = "latest"  # name of the run
    simulated: bool = False  # take the simulated raters, though there are people; they are never mixed


def main(options: Options) -> int:
    run, _ = read_run(options.run)
    folder = run / "explain"
    sessions = read_sessions(folder / "answers", options.simulated)
    simulated = sessions[0].simulated
    table = tabulate_agreement(sessions)
    about = describe(run, sessions)
    output.write_csv(folder / "agreement.csv", table)
    who = "simulated raters" if simulated else "raters"
    [drawn] = rename_classes({"agreement": table}, sessions[0].items.labels).values()
    draw_agreement(drawn, folder, f"run {run.name}: {len(sessions)} {who}")
    output.write_text(folder / "agreement.md", report(about, table, simulated))
    console.print(f"{folder}/agreement.md says what {len(sessions)} {who} found")
    return 0


def read_sessions(folder: Path, simulated: bool) -> list[Session]:
    """Return the sessions with answers, of people if there are any; or, if asked for, of simulated raters."""
    sessions = [read_session(folder / f"{name}.jsonl") for name in read_raters(folder)]
    sessions = [session for session in sessions if session.answers]
    who = "of simulated raters" if simulated else "yet"
    simulated = simulated or all(session.simulated for session in sessions)
    sessions = [session for session in sessions if session.simulated == simulated]
    if not sessions:
        raise InputError(f"{folder}: there are no answers {who}; run `make rate` first")
    return sessions


def describe(run: Path, sessions: Sequence[Session]) -> list[str]:
    """Return the lines of the report that say where its numbers come from."""
    lines = [f"run: {run}"]
    for version in dict.fromkeys(session.items.version for session in sessions):
        alike = [session for session in sessions if session.items.version == version]
        finished = sum(len(session.answers) == len(session.steps) for session in alike)
        items = alike[0].items
        lines.append(f"{items.description}; {items.method} against {items.against}, seed {items.seed}")
        lines.append(f"raters of these items: {len(alike)}, of whom {finished} have answered all")
    return [*lines, *explain_names(sessions[0].items.labels), f"commit {find_commit() or 'unknown'}"]


if __name__ == "__main__":
    command(main, Options)
