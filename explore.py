"""What changes when a part is switched off, here and now? `make explore`, or `python explore.py --help`.

A page in your browser: type a sentence, switch heads, MLPs and words off, and see the class probabilities move. It is
served on this machine alone."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes

from experiments.explore.check import TOLERANCE, compare, find_run, read_export
from experiments.explore.server import create_app
from experiments.explore.subject import Subject, open_language_model, open_run
from lab.cli import check_ranges, command
from lab.defaults import ITS_OWN, StudyOptions
from lab.device import Device, DeviceName
from lab.progress import console
from lab.server import listen, serve
from model import InputError


@dataclass(frozen=True)
class Options:
    """Switch heads, MLPs and words off in a page of your browser, and see the prediction move."""

    run: str | None = None  # name of the run; None: latest
    model: str | None = None  # in the place of a run: a language model or, where --corpus is given, a classifier
    port: int = 8642  # of the page's address; 0: any free one
    open: bool = True  # open the page in the browser, where a person started this; --no-open: only print its address
    host: str = "127.0.0.1"  # address to listen on; any other lets every machine in that reaches it
    allow_host: tuple[str, ...] = ()  # names by which browsers elsewhere call this machine, as "name" or "name:port"
    check: Path | None = None  # run an exported experiment again and compare, instead of serving the page
    device: DeviceName = "auto"  # auto: CUDA, else MPS, else the CPU; fp32 on each
    study: OmitArgPrefixes[StudyOptions] = ITS_OWN


def main(options: Options) -> int:
    check_ranges(options, port=(0, 65536))
    if options.run and options.model and not options.study.corpus:
        raise InputError(f"--run {options.run}: a language model belongs to no run; give either --run or --model")
    device = Device.choose(options.device, "fp32")
    if options.check:
        export = read_export(options.check)
        named = replace(options, run=options.run or find_run(export))
        return check(open_subject(named, device), export, options.check)
    with listen(options.host, options.port) as listener:  # first, for the port may be taken, and loading takes a while
        app = partial(create_app, open_subject(options, device))
        serve(app, listener, options.host, options.allow_host, options.open)
    return 0


def open_subject(options: Options, device: Device) -> Subject:
    if options.model and not options.study.corpus:
        return open_language_model(options.model, device)
    return open_run(options.run or "latest", device, options.study, options.model)


def check(subject: Subject, export: dict[str, Any], path: Path) -> int:
    """Compare an exported experiment with the same computed now, and return the exit code."""
    difference = compare(subject, export)
    passed = difference <= TOLERANCE
    verdict = "the same" if passed else "NOT the same"
    about = f"the largest difference of a probability is {difference:.2g}, and {TOLERANCE:g} may be"
    console.print(f"{path}: {verdict}: {about}")
    return 0 if passed else 1


if __name__ == "__main__":
    command(main, Options)
