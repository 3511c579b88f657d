"""GPT-2's byte-level BPE (Radford et al. 2019): a checkpoint's vocabulary and merges, run by tiktoken."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str

from .added_tokens import Finder
from .config import END_OF_TEXT, PRESETS, InputError
from .names import EMBEDDED, checkpoint_files, find
from .tokenizer_files import (
    BYTE_OF,
    CLASSES,
    IN_ONE,
    IN_TWO,
    is_published,
    name_special,
    read_files,
    read_settings,
    read_vocabulary,
)


class Tokenizer:
    """Text to token ids and back: `Tokenizer.load(folder_or_name)`.

    The ids are those of `transformers`, but for one thing: `<|endoftext|>` written in a text is ordinary text. Raises
    InputError for files that ask for what is not implemented, or do not belong together."""

    def __init__(self, files: dict[str, bytes], settings: dict[str, Any] | None = None) -> None:
        self.files = files  # unchanged, so that a saved checkpoint carries the same bytes
        self.settings = settings or {}  # of tokenizer_config.json
        self.vocabulary = read_vocabulary(files, self.settings)
        ids = self.vocabulary.ids
        self.special = name_special(files, self.settings, ids)  # bos_token, eos_token, pad_token
        self.end_of_text = ids.get(END_OF_TEXT)
        self.finder = Finder(self.vocabulary.added)
        self.bytes_of = {i: spell(token) for token, i in ids.items()}
        merges = self.vocabulary.merges
        ranked = [*BYTE_OF, *(map("".join, merges) if is_published(files) else order_merges(merges))]
        ranks = {self.bytes_of[ids[token]]: rank for rank, token in enumerate(ranked)}
        self.encoding = tiktoken.Encoding("gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})
        ids_of_ranks = np.array([ids[token] for token in ranked])
        self.ids_of_ranks = None if np.array_equal(ids_of_ranks, np.arange(len(ranked))) else ids_of_ranks
        differs = self.vocabulary.added or self.vocabulary.add_prefix_space or self.ids_of_ranks is not None
        self.is_plain = not differs  # as the published ones, of which a text's ranks are its ids

    @classmethod
    def load(cls, folder_or_name: str | Path) -> "Tokenizer":
        """Load the tokenizer of a checkpoint: a folder, a published name or `gpt2-mini`; InputError if it has none."""
        published = folder_or_name in PRESETS and not Path(folder_or_name).is_dir()  # all share one vocabulary
        folder = EMBEDDED if published else find(folder_or_name, checkpoint_files_with_tokenizer)
        files, settings = read_files(folder), read_settings(folder)
        try:
            return make_tokenizer(tuple(files.items()), json.dumps(settings))
        except InputError as error:
            raise InputError(f"{folder}: {error}") from None

    def __len__(self) -> int:
        return 1 + max(self.bytes_of)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, with nothing before or behind it."""
        if self.is_plain:
            return self.encoding.encode_ordinary(text)
        ids = []
        for part in self.finder.split(text):
            if part.token:
                ids.append(part.token.id)
            else:
                ids += self.to_ids(self.encoding.encode_ordinary(self.put_space(text[part.start : part.end])))
        return ids

    def to_ids(self, ranks: list[int]) -> list[int]:
        """Return the ids of tokens that tiktoken calls by their ranks."""
        return ranks if self.ids_of_ranks is None else self.ids_of_ranks[ranks].tolist()

    def put_space(self, text: str) -> str:
        """Return a text with the space in front that some tokenizers want."""
        return f" {text}" if self.vocabulary.add_prefix_space and text and text[0] != " " else text

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of these tokens; bytes that are no whole character become U+FFFD, unknown ids nothing."""
        return b"".join([self.bytes_of.get(i, b"") for i in ids]).decode(errors="replace")

    def pieces(self, text: str) -> list[tuple[str, int, int]]:
        """Return (piece, start, end) for each token of `text`, in character offsets: piece == text[start:end].

        A token that holds a part of a character covers that whole character, so neighbours may overlap. A space that
        the tokenizer puts into the text is no part of it: a token of it alone covers nothing, start == end."""
        pieces = []
        for part in self.finder.split(text):
            spans = [(part.start, part.end)] if part.token else self.find_spans(text, part.start, part.end)
            pieces += [(text[start:end], start, end) for start, end in spans]
        return pieces

    def find_spans(self, text: str, first: int, last: int) -> list[tuple[int, int]]:
        """Return (start, end) in `text` for each token of text[first:last], which holds no added token."""
        segment = text[first:last]
        sizes = (len(char.encode(errors="surrogatepass")) for char in segment)
        bounds = [*accumulate(sizes, initial=0)]  # bytes before each character, and all
        spaced = self.put_space(segment)
        spans, before = [], len(segment) - len(spaced)  # bytes; an added space lies before the text
        for rank in self.encoding.encode_ordinary(spaced):
            after = before + len(self.encoding.decode_single_token_bytes(rank))
            spans.append((first + bisect_right(bounds, max(before, 0)) - 1, first + bisect_left(bounds, after)))
            before = after
        return spans

    def hf_settings(self, n_ctx: int) -> dict[str, Any]:
        """Return the content of tokenizer_config.json with which `transformers` opens the same tokenizer."""
        class_name = self.settings.get("tokenizer_class") if IN_ONE in self.files else None
        settings = self.settings | {"tokenizer_class": class_name or CLASSES[0]}
        if "pad_token" in self.special:  # HF pads a batch only if the config names a token
            settings["pad_token"] = self.settings.get("pad_token") or self.special["pad_token"]
        return settings | {"model_max_length": n_ctx}

    def hf_ids(self) -> dict[str, int]:
        """Return what config.json says of the tokens that begin, end and fill up texts."""
        return {f"{name}_id": self.vocabulary.ids[token] for name, token in self.special.items()}


@lru_cache(maxsize=4)  # a command may load a run and its start, which have the same one; each takes a quarter second
def make_tokenizer(files: tuple[tuple[str, bytes], ...], settings: str) -> Tokenizer:
    """Return the tokenizer of these files; `settings` are JSON."""
    return Tokenizer(dict(files), json.loads(settings))


def order_merges(merges: Sequence[tuple[str, str]]) -> list[str]:
    """Return the tokens that BPE can make, each after the two that it is made of.

    BPE merges the pairs that stand in its list, tiktoken any two neighbours that make a token, both those first that
    come first in the list. That is the same where a token's own BPE ends in the pair of its merge. A merge whose pair
    another one breaks up before never happens, and is left out. InputError for a merge before those of its parts."""
    rank = dict.fromkeys(BYTE_OF, -1)
    left: dict[str, tuple[str, ...]] = {char: (char,) for char in BYTE_OF}  # the tokens at a token's left edge, as it
    right = dict(left)  # grows, and at its right
    too_early = set()
    in_order = [*dict.fromkeys(reversed(merges))][::-1]  # of a pair that comes twice, the last place counts
    for n, (first, second) in enumerate(in_order):
        token = first + second
        if first not in rank or second not in rank:
            too_early |= {first, second} - rank.keys()
        elif token not in rank and meet(right[first], left[second], rank):
            if token in too_early:
                raise InputError(f"a merge makes {token!r}, which an earlier one takes; expected parts first")
            rank[token] = n
            left[token], right[token] = (*left[first], token), (*right[second], token)
    return [token for token in rank if token not in BYTE_OF]


def meet(first: tuple[str, ...], second: tuple[str, ...], rank: dict[str, int]) -> bool:
    """Return whether two tokens side by side both form, before a merge across their border takes a part of one.

    first: the tokens at the right edge of the left one, from a byte to all of it; second: those at the other's left."""
    i = j = 0
    while i + 1 < len(first) or j + 1 < len(second):
        across = rank.get(first[i] + second[j], inf)
        grow_first = rank[first[i + 1]] if i + 1 < len(first) else inf
        grow_second = rank[second[j + 1]] if j + 1 < len(second) else inf
        if across < grow_first and across <= grow_second:  # of equal ranks, the leftmost pair is merged first
            return False
        i, j = (i + 1, j) if grow_first <= grow_second else (i, j + 1)
    return True


def spell(token: str) -> bytes:
    """Return the bytes of a token as files write it; an added token may hold other characters, which are themselves."""
    try:
        return bytes(map(BYTE_OF.__getitem__, token))
    except KeyError:
        return token.encode()


def checkpoint_files_with_tokenizer(names: list[str]) -> list[str]:
    """Return the names of a checkpoint's files among those in a repository; InputError if a tokenizer's are missing."""
    if not {*IN_TWO} <= {*names} and IN_ONE not in names:  # other programs may have cached the weights alone
        raise InputError(f"expected {' and '.join(IN_TWO)}, there are {', '.join(names[:20]) or 'no files'}")
    return checkpoint_files(names)
