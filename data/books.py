"""Books for language modelling: reads a text file, splits it into books, and cuts them into blocks of tokens."""

import codecs
import lzma
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import InputError, Tokenizer
from model.config import END_OF_TEXT

from .decoding import guess_encoding

BETWEEN_BOOKS = re.compile(rf"^{re.escape(END_OF_TEXT)}(?:\n|\Z)", re.MULTILINE)
HELD_OUT = 20  # one book in 20, or the last 20th of a single one


@dataclass(frozen=True)
class Books:
    """The tokens of books, int32 (N,): `train`, and `held_out` from other books; `<|endoftext|>` ends every book."""

    train: Tensor
    held_out: Tensor
    description: dict[str, Any]  # for the manifest


def read_books(path: str | Path, tokenizer: Tokenizer) -> Books:
    """Read a UTF-8 text file, or one packed by xz, with a line `<|endoftext|>` between two books.

    Every 20th book is held out; of fewer the last one, of a single one its last 20th. Raises InputError for anything
    else, and for a tokenizer without `<|endoftext|>`."""
    path = Path(path)
    raw = read_bytes(path)
    text = decode(raw, path).replace("\r\n", "\n")
    books = [book for book in BETWEEN_BOOKS.split(text) if book.strip()]
    if not books:
        raise InputError(f"{path}: expected a text, there is no text between the lines {END_OF_TEXT}")
    train, held_out = set_aside(books)
    end = tokenizer.end_of_text
    if end is None:
        raise InputError(f"the tokenizer has no {END_OF_TEXT} to close a book with; take the one of gpt2")
    train_tokens, held_out_tokens = _encode(train, tokenizer, end), _encode(held_out, tokenizer, end)
    description = {
        "name": str(path),
        "sha256": {path.name: sha256(raw).hexdigest()},  # of the text, unpacked
        "books": {"train": len(train), "held_out": len(held_out)},
        "tokens": {"train": len(train_tokens), "held_out": len(held_out_tokens)},
        "held_out": [book.strip().partition("\n")[0] for book in held_out],  # first lines
    }
    return Books(train_tokens, held_out_tokens, description)


def decode(raw: bytes, path: Path) -> str:
    """Return the text in these bytes. Raises InputError with the line of the first that is not UTF-8."""
    raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        advice = f"convert it with iconv, probably from {guess_encoding(raw)}"
        raise InputError(f"{path}:{line}: expected UTF-8, got another encoding; {advice}") from None


def _encode(books: list[str], tokenizer: Tokenizer, end: int) -> Tensor:
    """Return the tokens of all books, int32 (N,), with the token `end` behind each."""
    return torch.from_numpy(np.concatenate([np.array([*tokenizer.encode(book), end], np.int32) for book in books]))


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a text file, unpacked; InputError if it is no file, no whole xz file or empty."""
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "something else" if path.exists() else "nothing"
        raise InputError(f"--corpus {path}: expected a text file, found {kind}")
    try:
        raw = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    except (lzma.LZMAError, EOFError) as error:
        raise InputError(f"{path} is no whole xz file: {error}") from None
    if not raw.strip():
        raise InputError(f"{path}: expected a text, the file is empty")
    return raw


def set_aside(books: list[str]) -> tuple[list[str], list[str]]:
    """Split into train and held out: whole books, or the end of the only one."""
    if len(books) == 1:
        cut = len(books[0]) - len(books[0]) // HELD_OUT
        return [books[0][:cut]], [books[0][cut:]]
    last = [len(books) - 1]
    held_out = range(HELD_OUT - 1, len(books), HELD_OUT) or last
    return [book for i, book in enumerate(books) if i not in held_out], [books[i] for i in held_out]


def steps_per_epoch(tokens: Tensor, n_ctx: int, batch_size: int) -> int:
    """Return the number of batches in one pass over the tokens; InputError if there is not one."""
    steps = (len(tokens) // n_ctx - 1) // batch_size  # one block less, for any offset
    if steps < 1:
        raise InputError(
            f"expected a text of at least {(batch_size + 1) * n_ctx:,} tokens for batches of {batch_size} blocks of "
            f"{n_ctx}, got {len(tokens):,}; take a longer text or a smaller --batch-size"
        )
    return steps


def block_batch(tokens: Tensor, n_ctx: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Return the blocks of one training step: int64 (B, n_ctx + 1), inputs and, one token later, targets.

    Each epoch cuts the tokens (N,) at another offset and orders the blocks anew. The arguments alone decide, so that
    training resumes at any step as if it had never stopped."""
    epoch, number = divmod(step, steps_per_epoch(tokens, n_ctx, batch_size))
    rng = np.random.default_rng((seed, epoch))
    offset, order = rng.integers(n_ctx), rng.permutation(len(tokens) // n_ctx - 1)
    starts = offset + n_ctx * order[number * batch_size : (number + 1) * batch_size]
    return torch.stack([tokens[start : start + n_ctx + 1] for start in starts]).long()


def consecutive_blocks(tokens: Tensor, n_ctx: int) -> Tensor:
    """Return the tokens (N,) in order, as blocks (n, n_ctx + 1) of inputs and targets; the rest at the end is dropped.

    Raises InputError if there is no block."""
    if len(tokens) <= n_ctx:
        raise InputError(f"expected more than {n_ctx:,} tokens to hold out, got {len(tokens):,}; take a longer text")
    return tokens.unfold(0, n_ctx + 1, n_ctx)
