"""A run's folder: its name, its manifest, its tables, and the pointer to the latest one."""

import csv
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from filelock import FileLock, Timeout

from data import SPLITS, Corpus
from data.corpus import fetch
from model import InputError, hub
from model.checkpoint import read_config
from model.files import read_json, written_whole
from model.names import WEIGHTS, find

from .device import Device
from .progress import console

Init = Literal["pretrained", "random"]
RUNS = Path("runs")
LOCK = ".lock"
WRITTEN = ".written.json"  # the list of tables and pictures that headgate left in a folder, with their SHA-256
UNFINISHED = re.compile(r"\..+\.\d+\.(tmp|old)|\.\w{8}\.tmp")  # of `written_whole`, `written_anew` and tempfile
PACKAGES = ("torch", "numpy", "scikit-learn", "tiktoken", "safetensors")


def new_run(name: str) -> Path:
    """Make `runs/<name>/`; without a name, date and time are it. InputError where it exists or cannot be."""
    name = name or datetime.now().strftime("%Y-%m-%d-%H%M%S")
    if Path(name).name != name or name in ("latest", ".."):
        raise InputError(f"--run {name}: expected a plain name other than `latest`; it becomes a folder in {RUNS}/")
    run, latest = RUNS / name, RUNS / "latest"
    if latest.exists() and not latest.is_symlink():
        raise InputError(f"{latest}: expected a link to the latest run, got a real file or folder; move it away")
    try:
        run.mkdir(parents=True)
    except FileExistsError:
        if not run.is_dir() or any(not path.name.startswith(".") for path in run.iterdir()):  # or killed at once
            raise InputError(f"{run}: expected a new name, got one that is taken; choose another with --run") from None
    except OSError as error:
        raise InputError(f"{run}: cannot be written to: {error.strerror}; run from a folder that can") from None
    return run


@contextmanager
def at_work(record: dict[str, Any], resume: bool, device: Device) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder and manifest of a run, while nobody else works on it: a new one, or an unfinished one of that name.

    With `resume` it may also be one that Ctrl-C ended and, where no name is given, the newest made with these settings.
    InputError where the run of that name is finished, or has other settings, another shape or another text."""
    advice = "wait, or choose another --run"
    with ExitStack() as stack:

        def opened() -> tuple[Path, dict[str, Any]]:
            name = record["settings"]["run"] or (newest_unfinished(record["settings"]) if resume else "")
            if name and Path(name).name == name and (RUNS / name / "run.json").is_file():
                stack.enter_context(alone_at(RUNS / name, advice))
                return RUNS / name, taken_up(RUNS / name, record, resume)
            run, new = new_run(name), record | {"status": "unfinished"}
            stack.enter_context(alone_at(run, advice))
            if resume:
                console.print(f"--resume: there is no such run yet, {run} begins")
            write_json(run / "run.json", new)
            return run, new

        yield device.from_first(opened)


def newest_unfinished(settings: dict[str, Any]) -> str:
    """Name of the newest run that has these settings, and an end to come; empty where there is none."""
    started = {}
    for path in RUNS.glob("*/run.json"):
        if path.parent.is_symlink():  # latest
            continue
        try:
            record = read_json(path)
        except (InputError, OSError) as error:
            console.print(f"--resume passes over {path.parent}: {error}", soft_wrap=True)
            continue
        made_with = record.get("settings")
        if record.get("status") != "finished" and isinstance(made_with, dict) and made_with | {"run": ""} == settings:
            started[path.parent.name] = record["started"]
    return max(started, key=lambda name: started[name], default="")


def taken_up(run: Path, record: dict[str, Any], resume: bool) -> dict[str, Any]:
    """The manifest of a run that goes on: what it was, and by what command, when and where it goes on now."""
    former = read_json(run / "run.json")
    possible = ("unfinished", "interrupted") if resume else ("unfinished",)
    status = former.get("status", "finished")
    if status not in possible or former["settings"].keys() != record["settings"].keys():
        hint = "go on with it by --resume, or " if status == "interrupted" else ""
        found = f"{run} is {status}" if resume else f"{run}: expected a new name, got one that is taken"
        raise InputError(f"{found}; {hint}choose another with --run")
    then, now = (
        one["settings"]
        | {"run": run.name, "corpus": one["corpus"]["sha256"]}
        | {"model": one["model"].get("sha256") or one["model"]["shape"]}
        for one in (former, record)
    )
    if differing := [f"--{key.replace('_', '-')} {then[key]}, now {now[key]}" for key in now if then[key] != now[key]]:
        raise InputError(
            f"{run} is unfinished and was made with {'; '.join(differing)}; the same command as then goes on "
            "with it, another --run begins anew"
        )
    again = {key: record[key] for key in ("command", "started", "device", "versions", "git")}
    former |= {"status": "unfinished", "resumed": [*former.get("resumed", []), again]}
    write_json(run / "run.json", former)
    return former


def discard(run: Path) -> None:
    """Remove a run of which nothing was kept, but no file that somebody else has put there."""
    for name in ("run.json", "log.jsonl", LOCK):
        (run / name).unlink(missing_ok=True)
    if not any(run.iterdir()):
        run.rmdir()


def point_latest(run: Path) -> None:
    """Let `runs/latest` point at this finished training run."""
    with written_whole(run.parent / "latest") as [temporary]:
        temporary.symlink_to(run.name)


@contextmanager
def alone_at(folder: Path, advice: str) -> Iterator[None]:
    """Work in a folder while no other process does; InputError at once where one is at it already."""
    try:
        with FileLock(folder / LOCK, timeout=0):
            remove_unfinished(folder)
            yield
    except Timeout:
        raise InputError(f"{folder}: another {Path(sys.argv[0]).name} is at work on it; {advice}") from None


@contextmanager
def analysis(folder: Path, kept: str, resume: bool, device: Device) -> Iterator[Path]:
    """Work in a folder of a run, in which a folder `kept` holds what earlier calls have computed, or nothing yet."""
    with ExitStack() as stack:

        def prepare() -> None:
            folder.mkdir(exist_ok=True)
            stack.enter_context(alone_at(folder, "wait for it"))
            (folder / kept).mkdir(exist_ok=True)
            remove_unfinished(folder / kept)
            if not resume:
                remove_results(folder / kept)

        device.from_first(prepare)
        yield folder


def remove_unfinished(folder: Path) -> None:
    """Remove what a process was writing into this folder when it was killed."""
    for path in folder.glob(".*"):
        if UNFINISHED.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_results(folder: Path) -> None:
    """Remove the results that earlier calls kept here: JSON that says what they are made of, and the arrays beside."""
    for path in folder.glob("*.json"):
        try:
            content = read_json(path)
        except InputError:
            continue
        about = content.get("about", content)
        if isinstance(about, dict) and {"weights", "seed", "precision"} <= about.keys():
            path.unlink()  # first: it vouches for the array
            path.with_suffix(".npy").unlink(missing_ok=True)


@contextmanager
def written_anew(folder: Path) -> Iterator[Path]:
    """Yield a new folder to write tables and pictures into: at the end they take the places of those that an earlier
    call left in `folder`.

    Only what headgate wrote is removed: what is on its list, with the bytes that it wrote."""
    listed = folder / WRITTEN
    former = read_json(listed) if listed.is_file() else {}
    new = folder / f".new.{os.getpid()}.tmp"
    new.mkdir()
    try:
        yield new
        written = {path.name: hub.content_hash(path) for path in sorted(new.iterdir())}
        for name in written:
            os.replace(new / name, folder / name)
    finally:
        shutil.rmtree(new)
    for name in former.keys() - written.keys():
        path = folder / name
        if path.is_file() and hub.content_hash(path) == former[name]:
            path.unlink()
        elif path.is_file():
            console.print(f"{path} was made by an earlier call and has been changed since: it stays", soft_wrap=True)
    write_json(listed, written)  # last: it never names a file that was not written


def write_json(path: Path, content: dict[str, Any]) -> None:
    """UTF-8, whole or not at all, and never NaN, which is no JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, content: str) -> None:
    """UTF-8, whole or not at all."""
    with written_whole(path) as [temporary]:
        temporary.write_text(content, encoding="utf-8")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """UTF-8 with a header, whole or not at all."""
    with written_whole(path) as [temporary]:  # all strings quoted, or a lone \r in one would break its row
        table.to_csv(temporary, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """One JSON object per line, whole or not at all."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def choose_model(name: str, init: Init) -> tuple[str, str | None]:
    """(model, notice): `auto` is the official gpt2 where it can be had, else the embedded gpt2-mini."""
    if name != "auto":
        return name, None
    if init == "random":  # nothing to fetch
        return "gpt2-mini", None
    try:
        find("gpt2")
    except hub.UnavailableError as error:  # but weights that came and are wrong stop everything
        return "gpt2-mini", f"{error}. Going on with the embedded GPT2-MINI, pretrained on English novels."
    return "gpt2", None


def choose_corpus(source: str) -> tuple[str, str | None]:
    """(corpus, notice): `auto` is the emotion corpus where it can be had, else the embedded sample."""
    if source != "auto":
        return source, None
    try:
        fetch("emotion")
    except hub.UnavailableError as error:
        return "sample", f"{error}. Going on with the embedded SAMPLE CORPUS, a small one for trying things out."
    return "emotion", None


def manifest(options: Any, model: dict[str, Any], corpus: dict[str, Any], device: Device) -> dict[str, Any]:
    """What a reader needs to make this run again; `options` is a script's dataclass."""
    return {
        "command": shlex.join(sys.argv),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "settings": settings_of(options),
        "model": model,
        "corpus": corpus,
        "device": str(device),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        "git": git_state(),
    }


def settings_of(options: Any) -> dict[str, Any]:
    """What a run is made with: all options but the one that says how to begin."""
    return {name: value for name, value in asdict(options).items() if name != "resume"}


def corpus_of(corpus: Corpus) -> dict[str, Any]:
    """What a run learns from: name, revision, labels in order, texts per split and SHA-256 per file."""
    return {
        "name": corpus.name,
        "revision": corpus.revision,
        "labels": corpus.labels,
        "texts": {split: len(corpus.split(split)) for split in SPLITS},
        "sha256": corpus.files,
    }


def weights_of(name: str, init: str) -> dict[str, Any]:
    """What a run starts from: name and shape; revision, file, bytes and SHA-256 of its weights unless random."""
    told = {"name": name, "init": init, "shape": asdict(read_config(name))}
    if init == "random":
        return told
    path = find(name) / WEIGHTS
    if not path.is_file():
        raise InputError(
            f"{path.parent}: expected {WEIGHTS}, found no weights; start from its shape with --init random"
        )
    sha256 = hub.content_hash(path)
    revision = path.parent.name if path.parent.parent.name == "snapshots" else None  # the layout of the hub's cache
    return told | {"revision": revision, "file": str(path), "bytes": path.stat().st_size, "sha256": sha256}


def git_state() -> str | None:
    """The commit of this code, marked `dirty` where files differ from it; None outside a git checkout."""
    here = Path(__file__).parent
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"], cwd=here, capture_output=True, text=True
        )
    except OSError:
        return None
    return out.stdout.strip() or None
