"""The bytes of a corpus as text: reads files, checks their encoding, and cuts them into lines."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from model import InputError

from .rows import BLANK, BadRow, check_encoding

LINE = re.compile(r"[^\n]*\n|[^\n]+")
WESTERN = 0.2  # largest share of bytes beyond ASCII in texts of Western languages


def read_bytes(path: Path) -> bytes:
    """Return the content of a file; InputError if it cannot be read."""
    if not path.is_file():  # reading a pipe or a device may never end
        raise InputError(f"{path}: expected a file, got something else; save its content in a file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check its name and permissions") from error


def decode(data: bytes, path: Path, encoding: str | None) -> str:
    """Decode a file's content, by default as UTF-8. Raises InputError where all of it is in another encoding.

    Bytes of another encoding become halves of surrogate pairs, by which `check_encoding` finds their rows."""
    if encoding is None and (unicode := name_utf16(data)):
        raise InputError(f"{path}:1: expected UTF-8, got another encoding; read it with --encoding {unicode}")
    if encoding and not codecs.lookup(encoding).name.startswith("utf-8") and not data.isascii() and is_utf8(data):
        raise InputError(f"{path}: expected {encoding}, got UTF-8; leave out --encoding")
    try:
        text = data.decode(encoding or "utf-8", errors="surrogateescape").removeprefix("\ufeff")
    except (UnicodeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read with --encoding {encoding}: {error}; give another") from None
    if not text:
        raise InputError(f"{path}: expected labelled texts, the file is empty; give another")
    return text if "\n" in text else text.replace("\r", "\n")  # as Macs once ended their lines


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def name_utf16(data: bytes) -> str | None:
    """Return the name of the UTF-16 in which a file is written; None where it is not."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = data[:1000:2], data[1:1000:2]  # in ASCII, one of the two is NUL throughout
    for name, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if zeros.count(0) > 0.9 * len(zeros) > 0 == others.count(0):
            return name
    return None


def describe_encoding(data: bytes, encoding: str | None) -> str:
    """Say in a clause what is wrong with the bytes of a file that are not of its encoding, and what to do."""
    expected = f"expected {encoding or 'UTF-8'}, got"
    text = data.decode(errors="surrogateescape")
    foreign = sum(text.count(chr(0xDC00 + byte)) for byte in range(0x80, 0x100))
    if encoding is None and 2 * foreign < count_foreign(data):  # more than half of them are UTF-8
        return f"{expected} other bytes in a file that is UTF-8 elsewhere; correct them"
    likely = guess_encoding(data)
    other = "another" if encoding and likely == codecs.lookup(encoding).name else likely
    return f"{expected} another encoding; read it with --encoding {other}"


def guess_encoding(data: bytes) -> str:
    """Return the likely encoding of a file that is not UTF-8, or several that one has to choose from."""
    data = data.removeprefix(codecs.BOM_UTF8)
    if count_foreign(data) > WESTERN * len(data):
        return "cp1251 (Russian), gb18030 (Chinese), shift_jis, euc_kr or another"
    if not any(byte in data for byte in range(0x80, 0xA0)):
        return "latin-1"
    # Where latin-1 has control characters, Windows-1252 has quotation marks and dashes, and five gaps.
    return "cp1250, mac_roman, cp850 or another" if any(byte in data for byte in b"\x81\x8d\x8f\x90\x9d") else "cp1252"


def count_foreign(data: bytes) -> int:
    """Count the bytes beyond ASCII."""
    return sum(data.count(byte) for byte in range(0x80, 0x100))


def cut_lines(text: str, start: int = 0) -> Iterator[str]:
    r"""Yield the lines of a text, from the character `start` on, with the \n that ends them."""
    # str.splitlines would also cut at U+2028, U+0085 and other characters that occur within texts
    return (match[0] for match in LINE.finditer(text, start))


def split_lines(text: str) -> Iterator[tuple[int, str] | BadRow]:
    """Yield (line number, line), and a bad row for a line that is blank or of another encoding."""
    for number, ended in enumerate(cut_lines(text), 1):
        line = ended.removesuffix("\n").removesuffix("\r")
        if line.strip():
            yield check_encoding(number, line) or (number, line)
        else:
            yield BadRow(number, BLANK, "expected a labelled text, got a blank line")
