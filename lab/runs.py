"""A run's folder: its name, its lock, how it goes on after an interruption, and which one is the latest."""

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock, SoftFileLock, Timeout

from model import InputError
from model.files import read_json, written_whole

from .device import Device
from .output import write_json
from .progress import console

RUNS = Path("runs")
LATEST = RUNS / "latest"  # a link to the newest run or, on a file system without links, a file with its name
LOCK = ".lock"
MISSING = "not recorded"  # by the version that made a run
SKIPPED = "skipped.csv"  # the rows of its corpus that could not be used
SOFT_LOCK = ".lock.soft"  # on a file system without locks
EARLIER = {
    "shuffle_labels": False,
    "head": "classifier",
    "template": "feeling",
    "words": [],
    "labels": [],
    "regulariser": "attention",
    "regulariser_rate": None,
    "tlm": "both",
    "spare_first": False,
    "shard": False,
    "adapt": 0,
    "lm_weight": 0.0,
    "header": True,
    "encoding": None,
    "label_names": [],
    "single_label": False,
    "skip_bad_rows": False,
}  # settings of runs that are older than these options
# what `written_whole` and `replace_outputs`, tempfile, and safetensors leave when they are killed
UNFINISHED = re.compile(r"\..+\.\d+\.(tmp|old)|\.\w{8}\.tmp|\.tmp[A-Za-z0-9]{6}")


def new_run(name: str | None) -> Path:
    """Make `runs/<name>/`; without a name, the first free one of date and time, then with -2, -3 and so on.

    Raises InputError where it exists or cannot be."""
    if name:
        check_name(name)
    if os.path.lexists(LATEST) and not read_latest():
        raise InputError(f"{LATEST}: expected a link to the latest run, got a real file or folder; move it away")
    now = datetime.now().strftime("%Y-%m-%d-%H%M%S")
    names = iter([name]) if name else (now if n == 1 else f"{now}-{n}" for n in count(1))
    for run in map(RUNS.joinpath, names):
        try:
            make_runs()
            run.mkdir()  # of two processes, one makes it
        except FileExistsError:
            if not name:
                continue
            check_free(run)
        except OSError as error:
            raise InputError(f"{run}: cannot be written to: {error.strerror}; run from a folder that can") from None
        break
    return run


def make_runs() -> None:
    """Make the folder of all runs, where there is none yet. Raises InputError where something else has its name."""
    try:
        RUNS.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        kind = "a link that leads to no folder" if RUNS.is_symlink() else "a file"
        raise InputError(f"{RUNS}: expected a folder, got {kind}; move it away, or run from another folder") from None


def check_name(name: str) -> None:
    """Raise InputError unless a run can have this name."""
    if Path(name).name != name or name in ("latest", ".."):
        raise InputError(f"--run {name}: expected a plain name other than `latest`; it becomes a folder in {RUNS}/")


def check_free(run: Path) -> None:
    """Raise InputError where this path, which exists, holds something that is no run."""
    # A run that was killed at once has left nothing but hidden files, and its name is free.
    if not run.is_dir() or any(not path.name.startswith(".") for path in run.iterdir()):
        raise InputError(f"{run}: expected a new name, got one that is taken; choose another with --run") from None


def read_status(record: dict[str, Any]) -> str | None:
    """Return the status of the run of this name: "finished", or another; None where there is no such run.

    Raises InputError where something else has its name, or a run made with other settings, shape or text."""
    run = RUNS / record["settings"]["run"]
    if (run / "run.json").is_file():
        manifest = read_json(run / "run.json")
        check_identity(run, manifest, record)
        return str(manifest.get("status", "finished"))
    if os.path.lexists(run):
        check_free(run)
    return None


@contextmanager
def open_run(record: dict[str, Any], resume: bool, device: Device) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Lock a run and yield its folder and manifest: a new run, or the unfinished one of that name.

    With `resume`, it may also be a run that Ctrl-C ended and, without a name, the newest one with these settings.
    Raises InputError where the run of that name is finished, or has other settings, another shape or another text."""
    advice = "wait, or choose another --run"
    with ExitStack() as stack:

        def create_or_resume() -> tuple[Path, dict[str, Any]]:
            name = record["settings"]["run"] or (find_unfinished(record["settings"]) if resume else None)
            if name and Path(name).name == name and (RUNS / name / "run.json").is_file():
                stack.enter_context(lock_folder(RUNS / name, advice))
                return RUNS / name, resume_run(RUNS / name, record, resume)
            run, manifest = new_run(name), record | {"status": "unfinished"}
            stack.enter_context(lock_folder(run, advice))
            if resume:
                console.print(f"--resume: there is no such run yet, {run} begins")
            write_json(run / "run.json", manifest)
            return run, manifest

        yield device.run_on_first(create_or_resume)


def find_unfinished(settings: dict[str, Any]) -> str | None:
    """Return the name of the newest run that has these settings and is not finished."""
    started = {}
    for path in RUNS.glob("*/run.json"):
        if path.parent.is_symlink():  # latest, where it is no file
            continue
        try:
            record = read_json(path)
        except (InputError, OSError) as error:
            console.print(f"--resume passes over {path.parent}: {error}", soft_wrap=True)
            continue
        made_with = record.get("settings")
        if (
            record.get("status") != "finished"
            and isinstance(made_with, dict)
            and EARLIER | made_with | {"run": settings["run"]} == EARLIER | settings
        ):
            started[path.parent.name] = record["started"]
    return max(started, key=lambda name: started[name], default=None)


def resume_run(run: Path, record: dict[str, Any], resume: bool) -> dict[str, Any]:
    """Write into a run's manifest that `record`'s command goes on with it, and return the manifest.

    Raises InputError where the run is finished, or made with other settings, another shape or another text."""
    manifest = read_json(run / "run.json")
    resumable = ("unfinished", "interrupted") if resume else ("unfinished",)
    status = manifest.get("status", "finished")
    if status not in resumable:
        hint = "go on with it by --resume, or " if status == "interrupted" else ""
        reason = f"{run} is {status}" if resume else f"{run}: expected a new name, got one that is taken"
        raise InputError(f"{reason}; {hint}choose another with --run")
    check_identity(run, manifest, record)
    resumed = {key: record[key] for key in ("command", "started", "device", "versions", "git")}
    manifest |= {"status": "unfinished", "resumed": [*manifest.get("resumed", []), resumed]}
    write_json(run / "run.json", manifest)
    return manifest


def check_identity(run: Path, manifest: dict[str, Any], record: dict[str, Any]) -> None:
    """Raise InputError where a run's manifest has other settings, another shape or another text than `record`."""
    try:
        before, now = identity(run, manifest), identity(run, record)
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"{run / 'run.json'}: not as this {Path(sys.argv[0]).name} writes it; move it away, or choose another --run"
        ) from None
    changed = [key for key in now | before if before.get(key, MISSING) != now.get(key, MISSING)]
    if changed:
        changes = "; ".join(describe_change(key, manifest, record, before, now) for key in changed)
        finished = manifest.get("status", "finished") == "finished"
        way_out = "move it away, or" if finished else "with the settings as they were it goes on,"
        raise InputError(
            f"{run} is {'finished' if finished else 'unfinished'} and was made with {changes}; {way_out} "
            "another --run begins anew"
        )


def describe_change(
    key: str, manifest: dict[str, Any], record: dict[str, Any], before: dict[str, Any], now: dict[str, Any]
) -> str:
    """Say how a setting differs; of a corpus and a model their names do, or what is in them."""
    option = f"--{key.replace('_', '-')}"
    if key in ("corpus", "model"):  # their identities are hashes
        before, now = manifest["settings"], record["settings"]
        if before[key] == now[key]:
            return f"{option} {now[key]}, which is no longer the same inside"
    was, is_now = ("not given" if side.get(key, MISSING) is None else side.get(key, MISSING) for side in (before, now))
    return f"{option} {was}, now {is_now}"


def identity(run: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return what must be the same for a run to go on: the settings, with the content of corpus, weights and, where it
    was trained on prompts, of template and label words."""
    weights = record["model"].get("sha256") or record["model"]["shape"]
    corpus = sorted(record["corpus"]["sha256"].values())  # wherever its files lie by now
    content = {"run": run.name, "corpus": corpus, "model": weights}
    return EARLIER | record["settings"] | content | record.get("prompt", {})


def discard_run(run: Path) -> None:
    """Remove a run of which nothing was kept, but no file that somebody else put into its folder."""
    for name in ("run.json", "log.jsonl", SKIPPED, LOCK, SOFT_LOCK):
        (run / name).unlink(missing_ok=True)
    if not any(run.iterdir()):
        run.rmdir()


def point_latest(run: Path) -> None:
    """Let `runs/latest` lead to this finished training run."""
    with written_whole(run.parent / LATEST.name) as [temporary]:
        try:
            temporary.symlink_to(run.name, target_is_directory=True)
        except (OSError, NotImplementedError):  # Google Drive, exFAT, some network shares, Windows
            temporary.write_text(run.name, encoding="utf-8")


def read_latest(latest: Path = LATEST) -> str | None:
    """Return the name of the run that `runs/latest` leads to; None where it is missing, or not ours."""
    if latest.is_symlink():
        return Path(os.readlink(latest)).name
    if not latest.is_file() or latest.stat().st_size > 255:  # bytes of a name
        return None
    name = latest.read_bytes().decode(errors="replace").strip()
    return name if name.isprintable() and Path(name).name == name != ".." else None


def find_run(name: str) -> Path:
    """Return the folder of the run of this name, which may be `latest`: in `runs` of this folder or, as git looks for
    its own, of the nearest one above that has it, for a notebook may lie deeper. InputError where there is none."""
    folders = [
        runs / ((read_latest(runs / LATEST.name) if name == LATEST.name else None) or name) for runs in list_places()
    ]
    folder = next((folder for folder in folders if (folder / "run.json").is_file()), None)
    if folder is None:
        reason = "there is no such run; make one with `make train`, or name another with --run"
        raise InputError(f"{folders[0]}: {reason}")
    return folder.parent / folder.resolve().name


def list_places() -> list[Path]:
    """Return where runs may lie: in this folder, and in those above it."""
    try:
        depth = len(Path.cwd().parts)
    except FileNotFoundError:  # somebody has removed this folder
        depth = 1
    return [Path(*[".."] * i) / RUNS for i in range(depth)]


@contextmanager
def lock_folder(folder: Path, advice: str) -> Iterator[None]:
    """Lock a folder against other processes. Raises InputError at once where another process holds the lock."""
    try:
        with acquire_lock(folder):
            remove_unfinished(folder)
            yield
    except Timeout:
        raise InputError(f"{folder}: another {Path(sys.argv[0]).name} is at work on it; {advice}") from None


def acquire_lock(folder: Path) -> AcquireReturnProxy:
    """Lock a folder and return the lock: on a file system without locks, a file that is there meanwhile.

    Raises Timeout at once where another process holds it."""
    try:
        return FileLock(folder / LOCK, timeout=0).acquire()
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # of NFS, and of some others
            raise
    return SoftFileLock(folder / SOFT_LOCK, timeout=0).acquire()


def remove_unfinished(folder: Path) -> None:
    """Remove the files that a process was writing into this folder when it was killed."""
    for path in folder.glob(".*"):
        if UNFINISHED.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
