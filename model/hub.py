"""Files of the Hugging Face hub, in its own cache: found there without asking, or downloaded once; always checked.

The cache names each file after the hash of its content (git's SHA-1, or SHA-256 where it is large), and the hub says
these hashes beforehand. So a file is checked when it has arrived, and again, with no network, whenever it is used.
Mirrors, tokens and the cache's place are those of `huggingface_hub`: HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE.
"""

import hashlib
import os
import re
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any, Literal

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers

from .config import InputError

Kind = Literal["model", "dataset"]
Choice = Callable[[list[str]], list[str]]
PART = r"(?=\w)(?:\w|-(?!-)|\.(?!\.)){1,96}(?<=\w)(?<!\.git)"  # as the hub wants it; else huggingface_hub raises
NAME = re.compile(rf"(?a:{PART}/{PART})")  # owner/repository
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def fetch(kind: Kind, repository: str, choose: Choice, revision: str | None = None) -> Path:
    """The folder in the hub's cache with those files of a repository that `choose` picks from all their names.

    What the cache has is taken without asking whether the hub has something newer; `revision` is a commit, None the
    newest. An interrupted download is resumed. `choose` raises InputError where the names lack what it needs;
    so does this where the hub gives no answer within seconds, refuses, or sends other bytes than it said.
    """
    storage = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type=kind))
    newest = storage / "refs" / "main"
    try:
        folder = storage / "snapshots" / (revision or newest.read_text().strip())
        names = choose(names_in(folder))
    except (FileNotFoundError, InputError):
        try:
            folder, names = download(kind, repository, choose, revision, storage)
        except InputError as error:
            raise InputError(f"{kind} {repository!r}: {error}") from None
        if not revision:  # only now, for it says that the files are there
            newest.parent.mkdir(exist_ok=True)
            newest.write_text(folder.name)
    for name in names:
        check(folder / name)
    return folder


def names_in(folder: Path) -> list[str]:
    """The names of the files in a folder and its subfolders, as the hub writes them."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def download(
    kind: Kind, repository: str, choose: Choice, revision: str | None, storage: Path
) -> tuple[Path, list[str]]:
    """Put the files that `choose` picks into the cache -> their folder, and their names there."""
    commit, files = listing(kind, repository, revision)
    folder = storage / "snapshots" / commit
    names = choose(sorted(files))
    for name in names:
        hash_, size = files[name]
        blob = storage / "blobs" / hash_
        url = hf_hub_url(repository, name, repo_type=kind, revision=commit)
        lock = Path(constants.HF_HUB_CACHE, ".locks", storage.name, f"{hash_}.lock")  # the one of huggingface_hub
        for path in (blob, lock, folder / name):
            path.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if not blob.exists():
                receive(url, blob, size, name)
            link(folder / name, blob)
    return folder, names


def listing(kind: Kind, repository: str, revision: str | None) -> tuple[str, dict[str, tuple[str, int]]]:
    """What the hub says of a repository: its commit, and each file's hash and size in bytes by name."""
    seconds = constants.HF_HUB_ETAG_TIMEOUT
    ask = HfApi().repo_info
    try:
        info = within(
            seconds,
            lambda: ask(repository, repo_type=kind, revision=revision, files_metadata=True, timeout=seconds),
        )
        files = {file.rfilename: (file.lfs.sha256 if file.lfs else file.blob_id, file.size) for file in info.siblings}
        outside = [name for name in files if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
        hashes, sizes = ([fact[i] for fact in files.values()] for i in (0, 1))
        if outside or not all(HASH.fullmatch(text) for text in (info.sha, *hashes)) or not all(s >= 0 for s in sizes):
            raise ValueError
    except (HTTPError, OfflineModeIsEnabled, TimeoutError) as error:
        raise InputError(f"not in the cache, and {problem(error)}") from None
    except (ValueError, TypeError, KeyError):
        strange = f"{constants.ENDPOINT} does not answer as the hub does; check your network and HF_ENDPOINT"
        raise InputError(f"not in the cache, and {strange}") from None
    return info.sha, files


def within(seconds: float, ask: Callable[[], Any]) -> Any:
    """What `ask()` gives, or TimeoutError: a request's own limit counts anew for each address, not at all for names."""
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(ask())
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()  # a daemon does not keep the program from ending
    return future.result(seconds)


def problem(error: Exception) -> str:
    """What went wrong between here and the hub, and what to do."""
    hub = constants.ENDPOINT
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids asking the hub; unset it"
    if isinstance(error, GatedRepoError):
        return f"{hub} guards it: ask for access on its page there, then `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return f"{hub} has none that you may see; check the name, or `hf auth login`"
    if isinstance(error, HfHubHTTPError):
        code = error.response.status_code
        return f"{hub} answered {code}; {'check your token, or `hf auth login`' if code == 401 else 'try again later'}"
    if isinstance(error, TimeoutError):
        return f"{hub} gave no answer within {constants.HF_HUB_ETAG_TIMEOUT} seconds; check your network"
    return f"the connection to {hub} failed ({str(error) or type(error).__name__}); check your network"


def receive(url: str, blob: Path, size: int, name: str) -> None:
    """Download one file, from where an earlier attempt broke off; `blob` is where it goes, named after its hash."""
    part = blob.with_name(f"{blob.name}.incomplete")
    if part.is_file() and part.stat().st_size > size:
        part.unlink()
    try:
        with part.open("ab") as file:
            kept = file.tell()
            http_get(
                url, file, resume_size=kept, expected_size=size, headers=build_hf_headers(), displayed_filename=name
            )
    except HTTPError as error:
        raise InputError(f"{name} did not arrive: {problem(error)}, the download goes on where it stopped") from None
    except OSError as error:
        if error.errno:  # a full disk, ...
            raise
        got = f"{part.stat().st_size:,} of {size:,} bytes"
        raise InputError(f"{name} did not arrive: {constants.ENDPOINT} sent {got}; try again") from None
    if content_hash(part, len(blob.name)) != blob.name:
        part.unlink()
        raise InputError(f"{name} arrived damaged: its hash is not {blob.name}, which the hub told; try again")
    part.replace(blob)


def link(path: Path, blob: Path) -> None:
    """Give the blob its name in the folder."""
    try:
        path.symlink_to(os.path.relpath(blob, path.parent))
    except FileExistsError:
        pass
    except OSError:  # no links on this file system
        blob.replace(path)


def check(path: Path) -> bool:
    """Whether a file is what the hub has: True, or False where it does not lie in the cache as a link to its hash.

    InputError where its content has another hash; the file is then removed, so that it can be fetched anew."""
    blob = path.parent / os.readlink(path) if path.is_symlink() else path
    if not path.is_symlink() or blob.parent.name != "blobs" or not HASH.fullmatch(blob.name):
        return False
    if content_hash(path, len(blob.name)) != blob.name:
        blob.unlink()
        path.unlink()
        raise InputError(f"{path} was damaged: its hash is not {blob.name}; it is removed, run the command again")
    return True


def content_hash(path: Path, digits: int = 64) -> str:
    """SHA-256 of a file as 64 hex digits, or as 40 what git calls it: the SHA-1 of its size and content."""
    status = path.stat()
    return _content_hash(path, digits, status.st_size, status.st_mtime_ns)


@cache
def _content_hash(path: Path, digits: int, size: int, changed: int) -> str:
    hash_ = hashlib.sha256() if digits == 64 else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hash_).hexdigest()
