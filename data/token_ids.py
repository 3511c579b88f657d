"""The token ids of many texts in one array: 4 bytes a token, where lists of Python's numbers take some 36."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from operator import index
from typing import IO, overload

import numpy as np
from numpy.typing import NDArray

from model import InputError

CHUNK = 10_000  # texts that are lists at once; more of them go to a file
Ints = NDArray[np.integer]


class TokenIds(Sequence[list[int]]):
    """The token ids of N texts, to be read like a list of lists.

    Its `repr` is that of the list of lists too: results on disk are known by a hash of it."""

    def __init__(self, ids: Ints, lengths: Ints) -> None:
        """ids: int32, of all texts, one after the other; lengths: int64 (N,), how many each text has."""
        self.ids, self.lengths = ids, lengths
        self.starts = np.cumsum(lengths, dtype=np.int64) - lengths  # (N,), where each text begins in `ids`

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, i: int) -> list[int]: ...
    @overload
    def __getitem__(self, i: slice) -> "TokenIds": ...
    def __getitem__(self, i: int | slice) -> "list[int] | TokenIds":
        if isinstance(i, slice):
            return self.select(np.arange(len(self))[i])
        return self._read(self.starts[index(i)], self.lengths[index(i)])

    def __iter__(self) -> Iterator[list[int]]:
        return map(self._read, self.starts.tolist(), self.lengths.tolist())

    def _read(self, start: int, length: int) -> list[int]:
        ids: list[int] = self.ids[start : start + length].tolist()
        return ids

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TokenIds | list):
            return NotImplemented
        return len(self) == len(other) and all(ids == others for ids, others in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # like a list

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self))}]"

    def select(self, positions: Ints) -> "TokenIds":
        """Return the texts at these positions, int (M,)."""
        lengths = self.lengths[positions]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # from 0 in each text
        return TokenIds(self.ids[np.repeat(self.starts[positions], lengths) + within], lengths)

    def pad(self, positions: Ints) -> NDArray[np.int64]:
        """Return the texts at these positions, int (B,), padded with 0 to the longest of them: (B, T)."""
        lengths = self.lengths[positions]
        real = np.arange(lengths.max()) < lengths[:, None]  # (B, T)
        padded = np.zeros(real.shape, np.int64)
        padded[real] = self.select(positions).ids
        return padded


def pack(sequences: Sequence[Sequence[int]]) -> TokenIds:
    """Return the token ids of texts in one array; one that they are in already is not copied."""
    return sequences if isinstance(sequences, TokenIds) else TokenIds(*_flatten(sequences))


def find_tokens(splits: Iterable[Sequence[Sequence[int]]]) -> Ints:
    """Return the tokens in the texts of several splits, each once, in ascending order: int32 (U,)."""
    return np.unique(np.concatenate([np.unique(pack(sequences).ids) for sequences in splits]))


def store(sequences: Iterable[list[int]]) -> TokenIds:
    """Return the token ids of texts in one array, a few of which are lists at any time.

    Those of many texts lie in a file without a name, which the system removes when the program has ended, and come into
    memory as they are read. Raises InputError where there is no place for it."""
    texts = iter(sequences)
    ids, lengths = _flatten(islice(texts, CHUNK))
    if len(lengths) < CHUNK:
        return TokenIds(ids, lengths)
    all_lengths = []
    with _open_nameless() as file:
        while len(lengths):
            file.write(ids.tobytes())
            all_lengths.append(lengths)
            ids, lengths = _flatten(islice(texts, CHUNK))
        file.flush()
        if file.tell():  # an empty file cannot be mapped
            ids = np.asarray(np.memmap(file, np.int32, "r"))
    return TokenIds(ids, np.concatenate(all_lengths))


@contextmanager
def _open_nameless() -> Iterator[IO[bytes]]:
    """Open a file without a name in the temporary folder. Raises InputError where it cannot be written."""
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as error:
        place = f"{tempfile.tempdir or 'TMPDIR'}: expected space for a temporary file of token ids"
        raise InputError(f"{place}: {error.strerror}; make room, or set TMPDIR to another folder") from error


def _flatten(texts: Iterable[Sequence[int]]) -> tuple[Ints, Ints]:
    """Return the token ids of texts, one after the other, int32, and the length of each text, int64."""
    lists = list(texts)
    return np.fromiter(chain.from_iterable(lists), np.int32), np.fromiter(map(len, lists), np.int64)
