"""Files from the Hugging Face hub: taken from its standard cache or downloaded into it once, and checked either way.

`huggingface_hub` asks, downloads and lays out the cache, so HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE mean what
they always mean. It never checks content, so this module does: each download against the hash in the hub's listing
(git's SHA-1, or SHA-256 for a large file), and a large file at every use, for the cache names it by its SHA-256.
"""

import errno
import hashlib
import logging
import os
import re
from collections.abc import Callable
from functools import cache, partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal

import huggingface_hub as hf
from huggingface_hub import constants, errors

from .config import InputError
from .files import written_whole
from .hub_problems import problem

log = logging.getLogger("headgate")
constants.HF_HUB_DISABLE_XET = True  # plain HTTP gives up after a minute of silence, with errors of known types

Kind = Literal["model", "dataset"]
Choice = Callable[[list[str]], list[str]]
PART = r"(?=\w)(?:\w|-(?!-)|\.(?!\.)){1,96}(?<=\w)(?<!\.git)"  # huggingface_hub raises for any other
NAME = re.compile(rf"(?a:{PART}/{PART})")  # owner/repository
UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST}  # of a cache
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # git's SHA-1, or SHA-256


class UnavailableError(InputError):
    """The hub does not answer or refuses, or the cache cannot be written to."""


def fetch(kind: Kind, repository: str, choose: Choice, revision: str | None = None) -> Path:
    """Return the folder in the cache with the files of a repository that `choose` picks from their names.

    `revision` is a commit, None the newest. A cached model is used without asking the hub. For a dataset the hub comes
    first, because only the full list of names shows which files belong to it; without an answer the cached copy serves.
    `choose` raises InputError if it misses a file. So does this, within seconds, if the hub does not answer or refuses,
    or if a file arrives with another hash than the hub lists.
    """
    copy = find_cached(kind, repository, choose, revision)
    if copy and kind == "model":
        return copy
    try:
        return download(kind, repository, choose, revision)
    except UnavailableError as error:
        if not copy:
            raise UnavailableError(f"{kind} {repository!r}: not in the cache, and {error}") from None
        log.warning("%s %r: %s. Using its copy in the cache.", kind, repository, error)
        return copy
    except InputError as error:
        raise InputError(f"{kind} {repository!r}: {error}") from None


def find_cached(kind: Kind, repository: str, choose: Choice, revision: str | None = None) -> Path | None:
    """Return the folder in the cache where `choose` finds its files, or None; raise InputError if one is damaged."""
    if constants.HF_HUB_CACHE.startswith("~"):  # nobody knows the home folder of this user; `download` says so
        return None
    try:
        folder = snapshot(kind, repository, revision)
        names = choose(list_names(folder)) if HASH.fullmatch(folder.name) else []
    except (errors.LocalEntryNotFoundError, ValueError):  # from `choose`, or a damaged refs/main
        return None
    for name in names:
        is_verified(folder / name)
    return folder if names else None


def snapshot(kind: Kind, repository: str, revision: str | None) -> Path:
    """Return the cached folder of a revision, None the newest, complete or not; LocalEntryNotFoundError if none."""
    path = hf.snapshot_download(repository, repo_type=kind, revision=revision, local_files_only=True, allow_patterns=[])
    return Path(path)


def list_names(folder: Path) -> list[str]:
    """Return the names of all files in a folder, as the hub writes them: relative, with slashes."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def download(kind: Kind, repository: str, choose: Choice, revision: str | None) -> Path:
    """Download the files that `choose` picks and the cache lacks; return their folder."""
    if constants.HF_HUB_CACHE.startswith("~"):  # as it is, it would become a folder of that name here
        raise UnavailableError(f"{constants.HF_HUB_CACHE}: there is no HOME to keep files in; set HF_HOME")
    commit, hashes = list_files(kind, repository, revision)
    try:
        for name in choose(sorted(hashes)):
            download_file(kind, repository, commit, name, hashes[name])
        folder = snapshot(kind, repository, commit)
        newest = folder.parent.parent / "refs" / "main"
        if not revision and not (newest.is_file() and newest.read_bytes() == commit.encode()):
            newest.parent.mkdir(exist_ok=True)
            with written_whole(newest) as [temporary]:  # last, so that it names a snapshot with all files
                temporary.write_text(commit, encoding="utf-8")
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise UnavailableError(f"{constants.HF_HUB_CACHE} cannot be written to; set HF_HOME") from None
    return folder


def list_files(kind: Kind, repository: str, revision: str | None) -> tuple[str, dict[str, str]]:
    """Ask the hub for a repository's commit and the hash of each of its files by name."""
    seconds = constants.HF_HUB_ETAG_TIMEOUT
    ask = partial(hf.HfApi().repo_info, repo_type=kind, revision=revision, files_metadata=True, timeout=seconds)
    try:
        with ThreadPool(1) as pool:  # `timeout` starts anew for each address, and leaves out the lookup of the name
            info: Any = pool.apply_async(ask, [repository]).get(seconds)
        hashes = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in info.siblings}
        outside = [name for name in hashes if name.startswith("/") or ".." in name.split("/") or "\0" in name]
        if outside or not all(map(HASH.fullmatch, (info.sha, *hashes.values()))):
            raise ValueError
    except Exception as error:  # a strange answer makes huggingface_hub raise almost anything
        raise UnavailableError(problem(error)) from None
    return info.sha, hashes


def download_file(kind: Kind, repository: str, commit: str, name: str, expected: str) -> None:
    """Download one file unless the cache has it; remove it and raise InputError if its hash is not `expected`."""
    where: Any = {"repo_type": kind, "revision": commit}
    try:
        if not hf.try_to_load_from_cache(repository, name, **where):
            # hf_hub_download asks this too, but retries for minutes: fail here within seconds.
            hf.get_hf_file_metadata(hf.hf_hub_url(repository, name, **where), timeout=constants.HF_HUB_ETAG_TIMEOUT)
        path = Path(hf.hf_hub_download(repository, name, **where))
    except (errors.HTTPError, OSError, ValueError) as error:
        if getattr(error, "errno", None):  # a full disk, ...
            raise
        raise InputError(f"{name} did not arrive: {problem(error)}") from None
    if content_hash(path, len(expected)) != expected:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise InputError(f"{name} arrived damaged: its hash is not {expected}, as the hub lists it; try again")


def is_verified(path: Path) -> bool:
    """Return whether the cache names this file by its SHA-256; raise InputError if its content has another."""
    blob = path.parent / os.readlink(path) if path.is_symlink() else path
    if blob.parent.name != "blobs" or not HASH.fullmatch(blob.name) or len(blob.name) < 64:
        return False  # a small file: mirrors name it as they like
    if content_hash(path) != blob.name:
        raise InputError(f"{path} is damaged: its SHA-256 is not {blob.name}; remove {blob.resolve()} and try again")
    return True


def content_hash(path: Path, digits: int = 64) -> str:
    """Return a file's SHA-256 (64 hex digits), or git's SHA-1 of its size and content (40)."""
    status = path.stat()
    return _content_hash(path, digits, status.st_size, status.st_mtime_ns)


@cache
def _content_hash(path: Path, digits: int, size: int, changed: int) -> str:
    hash_ = hashlib.sha256() if digits == 64 else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hash_).hexdigest()
