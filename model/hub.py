"""Files of the Hugging Face hub, in its own cache: found there without asking, or downloaded once; always checked.

The cache names each file after the hash of its content (git's SHA-1, or SHA-256 where it is large), and the hub says
these hashes beforehand. So a file is checked when it has arrived, and a large one again whenever it is used.
Mirrors, tokens and the cache's place are those of `huggingface_hub`: HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE.
"""

import errno
import hashlib
import logging
import os
import re
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache, partial
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any, Literal
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers

from .config import InputError
from .files import written_whole

log = logging.getLogger("headgate")

Kind = Literal["model", "dataset"]
Choice = Callable[[list[str]], list[str]]
PART = r"(?=\w)(?:\w|-(?!-)|\.(?!\.)){1,96}(?<=\w)(?<!\.git)"  # as the hub wants it; else huggingface_hub raises
NAME = re.compile(rf"(?a:{PART}/{PART})")  # owner/repository
SHA256 = re.compile(r"[0-9a-f]{64}")
HASH = re.compile(rf"[0-9a-f]{{40}}|{SHA256.pattern}")  # git's, or SHA-256


class UnavailableError(InputError):
    """What the hub has cannot be had now: it gives no answer, refuses, or there is no place for it."""


def fetch(kind: Kind, repository: str, choose: Choice, revision: str | None = None) -> Path:
    """The folder in the hub's cache with those files of a repository that `choose` picks from all their names.

    `revision` is a commit, None the newest. A model in the cache is taken as it is. What a dataset consists of shows
    only from all its names, so the hub is asked first, and the copy in the cache is taken where that is in vain.
    An interrupted download is resumed. `choose` raises InputError where the names lack what it needs; so does this
    where the hub gives no answer within seconds, refuses, or sends other bytes than it said.
    """
    here = cached(kind, repository, choose, revision)
    if here and kind == "model":
        return here
    try:
        return download(kind, repository, choose, revision)
    except UnavailableError as error:
        if not here:
            raise UnavailableError(f"{kind} {repository!r}: not in the cache, and {error}") from None
        log.warning("%s %r: %s. Its copy in the cache is taken.", kind, repository, error)
        return here
    except InputError as error:
        raise InputError(f"{kind} {repository!r}: {error}") from None


def cached(kind: Kind, repository: str, choose: Choice, revision: str | None = None) -> Path | None:
    """The folder in the cache where `choose` finds what it needs, or None; InputError where that is damaged."""
    storage = storage_of(kind, repository)
    commit = revision or newest_in(storage)
    folder = storage / "snapshots" / commit
    try:
        names = choose(names_in(folder)) if HASH.fullmatch(commit) else []
    except InputError:
        return None
    for name in names:
        is_verified(folder / name)
    return folder if names else None


def storage_of(kind: Kind, repository: str) -> Path:
    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type=kind))


def newest_in(storage: Path) -> str:
    """The commit that the cache calls the newest; empty where it has none."""
    reference = storage / "refs" / "main"
    return reference.read_text(errors="replace").strip() if reference.is_file() else ""


def names_in(folder: Path) -> list[str]:
    """The names of the files in a folder and its subfolders, as the hub writes them."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def download(kind: Kind, repository: str, choose: Choice, revision: str | None = None) -> Path:
    """Put those files that `choose` picks and that are not there into the cache -> their folder."""
    commit, files = listing(kind, repository, revision)
    storage = storage_of(kind, repository)
    folder = storage / "snapshots" / commit
    names = choose(sorted(files))
    try:
        for name in names:
            hash_, size = files[name]
            url = hf_hub_url(repository, name, repo_type=kind, revision=commit)
            put(storage / "blobs" / hash_, folder / name, url, size)
        if not revision and newest_in(storage) != commit:  # only now, for it says that the files are there
            (storage / "refs").mkdir(exist_ok=True)
            with written_whole(storage / "refs" / "main") as [temporary]:
                temporary.write_text(commit)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS):
            raise UnavailableError(f"its place there cannot be written to: {storage}; set HF_HOME") from None
        raise
    for name in names:
        is_verified(folder / name)
    return folder


def put(blob: Path, path: Path, url: str, size: int) -> None:
    """Have a file in the cache as `blob`, named after its hash, and a link to it at `path`."""
    if path.exists():
        return
    lock = Path(constants.HF_HUB_CACHE, ".locks", blob.parent.parent.name, f"{blob.name}.lock")  # huggingface_hub's
    for parent in (blob.parent, path.parent, lock.parent):
        parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if not blob.exists():
            receive(url, blob, size, path.name)
        link(path, blob)


def listing(kind: Kind, repository: str, revision: str | None) -> tuple[str, dict[str, tuple[str, int]]]:
    """What the hub says of a repository: its commit, and each file's hash and size in bytes by name."""
    seconds = constants.HF_HUB_ETAG_TIMEOUT
    ask = partial(HfApi().repo_info, repo_type=kind, revision=revision, files_metadata=True, timeout=seconds)
    try:
        urlsplit(constants.ENDPOINT).port  # noqa: B018  (raises ValueError where it is no number)
        info = within(seconds, lambda: ask(repository))
        files = {file.rfilename: (file.lfs.sha256 if file.lfs else file.blob_id, file.size) for file in info.siblings}
        paths = [PurePosixPath(name) for name in files]
        outside = [path for path in paths if path.is_absolute() or ".." in path.parts or "\0" in str(path)]
        whole = all(HASH.fullmatch(hash_) and size >= 0 for hash_, size in files.values())
        if outside or not whole or not HASH.fullmatch(info.sha):
            raise ValueError
    except (HTTPError, OfflineModeIsEnabled, TimeoutError) as error:
        raise UnavailableError(problem(error)) from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        strange = f"{constants.ENDPOINT} does not answer as the hub does"
        raise UnavailableError(f"{strange}; check your network, HF_ENDPOINT and HF_TOKEN") from None
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
    if isinstance(error, RevisionNotFoundError):
        return f"{hub} does not have this revision; look where HF_ENDPOINT points"
    if isinstance(error, HfHubHTTPError):
        todo = {401: "check your token, or `hf auth login`", 404: "look where HF_ENDPOINT points"}
        code = error.response.status_code
        return f"{hub} answered {code}; {todo.get(code, 'try again later')}"
    if isinstance(error, TimeoutError):
        return f"{hub} gave no answer within {constants.HF_HUB_ETAG_TIMEOUT} seconds; check your network"
    return f"the connection to {hub} failed ({str(error) or type(error).__name__}); check your network and HF_ENDPOINT"


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


def is_verified(path: Path) -> bool:
    """Whether a file lies in the hub's cache, named after its SHA-256, and has it; InputError where it has another."""
    blob = path.parent / os.readlink(path) if path.is_symlink() else path
    if blob.parent.name != "blobs" or not SHA256.fullmatch(blob.name):  # a small file: mirrors name it as they like
        return False
    if content_hash(path) != blob.name:
        raise InputError(f"{path} is damaged: its SHA-256 is not {blob.name}; remove {blob.resolve()} and try again")
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
