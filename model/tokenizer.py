"""GPT-2's byte-level BPE (Radford et al. 2019): a checkpoint's `vocab.json` and `merges.txt`, run by tiktoken."""

import json
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str

from .config import END_OF_TEXT, PRESETS, InputError
from .files import parse_json, read_json
from .names import EMBEDDED, checkpoint_files, find

FILES = ("vocab.json", "merges.txt")


class Tokenizer:
    """Text to token ids and back: `Tokenizer.load(folder_or_name)`.

    `<|endoftext|>` written in a text is ordinary text. Raises InputError if the files do not belong together."""

    def __init__(self, files: dict[str, bytes], source: str) -> None:
        self.files = files  # unchanged, so that a saved checkpoint carries the same bytes
        try:
            vocab: dict[str, int] = parse_json(files["vocab.json"])
            merges = [line.split(" ") for line in files["merges.txt"].decode().split("\n")[1:] if line]
            ranks = {bytes(BYTE_OF[char] for char in token): i for token, i in vocab.items() if token != END_OF_TEXT}
            belong_together = ids_follow_merges(vocab, merges, ranks)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"{source}: vocab.json and merges.txt are not those of a GPT-2 tokenizer: {error!r}"
            ) from None
        if not belong_together:
            raise InputError(f"{source}: vocab.json and merges.txt do not belong together")
        special = {END_OF_TEXT: vocab[END_OF_TEXT]} if END_OF_TEXT in vocab else {}
        self.encoding = tiktoken.Encoding("gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens=special)

    @classmethod
    def load(cls, folder_or_name: str | Path) -> "Tokenizer":
        """Load the tokenizer of a checkpoint: a folder, a published name or `gpt2-mini`; InputError if it has none."""
        published = folder_or_name in PRESETS and not Path(folder_or_name).is_dir()  # all share one vocabulary
        folder = EMBEDDED if published else find(folder_or_name, checkpoint_files_with_tokenizer)
        if not (folder / "vocab.json").is_file() and (folder / "tokenizer.json").is_file():
            return cls(from_tokenizer_json(folder / "tokenizer.json"), str(folder))
        if missing := [name for name in FILES if not (folder / name).is_file()]:
            raise InputError(f"{folder}: no {' and no '.join(missing)}, so this checkpoint cannot read text")
        return cls({name: (folder / name).read_bytes() for name in FILES}, str(folder))

    def __len__(self) -> int:
        return self.encoding.n_vocab

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, with nothing before or behind it."""
        return self.encoding.encode_ordinary(text)

    def decode(self, ids: list[int]) -> str:
        """Return the text of these tokens; bytes that are no whole character become U+FFFD."""
        return self.encoding.decode(ids)

    def pieces(self, text: str) -> list[tuple[str, int, int]]:
        """Return (piece, start, end) for each token of `text`, in character offsets: piece == text[start:end].

        A token that holds a part of a character covers that whole character, so neighbours may overlap."""
        byte_ends = list(accumulate(len(char.encode(errors="surrogatepass")) for char in text))  # of each character
        pieces, first_byte = [], 0
        for token in self.encoding.encode_ordinary(text):
            last_byte = first_byte + len(self.encoding.decode_single_token_bytes(token)) - 1
            start, end = bisect_right(byte_ends, first_byte), bisect_right(byte_ends, last_byte) + 1
            pieces.append((text[start:end], start, end))
            first_byte = last_byte + 1
        return pieces


def ids_follow_merges(vocab: dict[str, int], merges: list[list[str]], ranks: dict[bytes, int]) -> bool:
    """Return whether the ids count the 256 bytes, then the merges in their order, then <|endoftext|>, if there is one.

    tiktoken merges the pair with the lowest id first, which is GPT-2's rule only for such ids."""
    merges_in_order = all(vocab[first + second] == 256 + n for n, (first, second) in enumerate(merges))
    bytes_first = sorted(ranks[bytes([byte])] for byte in range(256)) == list(range(256))
    whole_numbers = {*map(type, vocab.values())} == {int}
    without_gaps = whole_numbers and sorted(vocab.values()) == list(range(len(vocab)))
    return merges_in_order and bytes_first and without_gaps and sorted(ranks.values()) == list(range(256 + len(merges)))


def checkpoint_files_with_tokenizer(names: list[str]) -> list[str]:
    """Return the names of a checkpoint's files among those in a repository; InputError if a tokenizer's are missing."""
    if not {*FILES} <= {*names} and "tokenizer.json" not in names:  # other programs may have cached the weights alone
        raise InputError(f"expected {' and '.join(FILES)}, there are {', '.join(names[:20]) or 'no files'}")
    return checkpoint_files(names)


def from_tokenizer_json(path: Path) -> dict[str, bytes]:
    """Return vocab.json and merges.txt, by name, from the one file that `transformers` 5 writes instead of them."""
    content = read_json(path)
    try:
        bpe = content["model"]
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in bpe["merges"]]
        return {"vocab.json": json.dumps(bpe["vocab"]).encode(), "merges.txt": "\n".join(["#", *merges, ""]).encode()}
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected the vocabulary and merges of a GPT-2 tokenizer: {error!r}") from None


def byte_of() -> dict[str, int]:
    """Return the byte for each printable character with which GPT-2's files write bytes.

    Printable latin-1 bytes are written as themselves, the other 68 as the characters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTE_OF = byte_of()
