"""What earlier calls have computed, on disk, so that nothing is computed twice.

Each result lies beside its identity: JSON that says what it was computed from (weights, texts, seed, ...). A result
with another identity is computed anew."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from model import InputError
from model.files import read_json, written_whole

from .device import Device
from .output import write_json
from .runs import lock_folder, remove_unfinished

Identity = dict[str, Any]


@contextmanager
def open_analysis(folder: Path, kept: str, resume: bool, device: Device) -> Iterator[Path]:
    """Lock a folder of a run while an experiment works in it; its subfolder `kept` holds the results of earlier calls.

    Without `resume` they are removed."""
    with ExitStack() as stack:

        def prepare() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock_folder(folder, "wait for it"))
            (folder / kept).mkdir(exist_ok=True)
            remove_unfinished(folder / kept)
            if not resume:
                remove_results(folder / kept)

        device.run_on_first(prepare)
        yield folder


def read_result(path: Path, identity: Identity) -> Any:
    """Return a result that was kept under this identity, or None."""
    content = read_json(path) if path.is_file() else {}
    return content.get("result") if content.get("about") == identity else None


def write_result(path: Path, identity: Identity, result: Any) -> None:
    """Keep a result, as JSON."""
    write_json(path, {"about": identity, "result": result})


def open_array(
    path: Path, identity: Identity, shape: tuple[int, ...], device: Device
) -> np.memmap[Any, np.dtype[np.float32]]:
    """Collective. Open the array that was kept under this identity, else create it, NaN where nothing is computed yet.

    Rank 0 writes to the file; what other ranks write stays in their memory."""
    about = path.with_suffix(".json")

    def create_unless_kept() -> None:
        if path.is_file() and about.is_file() and read_json(about) == {"about": identity}:
            return
        about.unlink(missing_ok=True)  # first: it vouches for the array
        np.save(content := BytesIO(), np.full(shape, np.nan, np.float32))
        with written_whole(path) as [temporary]:
            temporary.write_bytes(content.getbuffer())  # np.save or a mapped file may not notice a full disk
        write_json(about, {"about": identity})

    device.run_on_first(create_unless_kept)
    return np.lib.format.open_memmap(path, "r+" if device.first else "c")


def remove_results(folder: Path) -> None:
    """Remove the results kept here, and no other file."""
    for path in folder.glob("*.json"):
        try:
            about = read_json(path).get("about")
        except InputError:
            continue
        if isinstance(about, dict) and {"weights", "seed", "precision"} <= about.keys():
            path.unlink()  # first: it vouches for the array
            path.with_suffix(".npy").unlink(missing_ok=True)
