"""The files of a GPT-2 tokenizer, read as `transformers` 5 reads them. What is not implemented is refused by name."""

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from operator import itemgetter
from pathlib import Path
from typing import Any

from .added_tokens import AddedToken
from .config import END_OF_TEXT, InputError
from .files import parse_json, read_json
from .names import OFFICIAL

Json = dict[str, Any]

IN_TWO = ("vocab.json", "merges.txt")
IN_ONE = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
ADDED, SPECIAL = "added_tokens.json", "special_tokens_map.json"  # newer ones have this in SETTINGS, or in IN_ONE

WHOLE = ("TokenizersBackend", "PreTrainedTokenizer")  # classes of `transformers` that obey all of tokenizer.json;
CLASSES = ("GPT2Tokenizer", *WHOLE)  # GPT2Tokenizer takes the prefix space and the added tokens from SETTINGS
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
LISTS = ("extra_special_tokens", "additional_special_tokens")


@dataclass(frozen=True)
class Vocabulary:
    """What the files say: the id of each token and the merges in order, both with bytes written as in BYTE_OF; the
    added tokens to look for in a text; and whether each stretch between them gets a space in front, if it has none."""

    ids: dict[str, int]
    merges: list[tuple[str, str]]
    added: list[AddedToken]
    add_prefix_space: bool


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the contents of a folder's tokenizer files by name, without the settings; InputError if it has none.

    Where there is a tokenizer.json, vocab.json and merges.txt are left out, for `transformers` does not read them."""
    in_one = (folder / IN_ONE).is_file()
    missing = [] if in_one else [name for name in IN_TWO if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: no {' and no '.join(missing)}, so this checkpoint cannot read text")
    beside = [name for name in (ADDED, SPECIAL) if (folder / name).is_file()]
    names = [*([IN_ONE] if in_one else IN_TWO), *beside]
    # A byte order mark is left out, because what is saved with these files shall open in `transformers`, too.
    return {name: (folder / name).read_bytes().removeprefix(codecs.BOM_UTF8) for name in names}


def is_published(files: dict[str, bytes]) -> bool:
    """Return whether these are GPT-2's own vocab.json and merges.txt, which need none of the slow checks."""
    return all(sha256(files.get(name, b"")).hexdigest() == OFFICIAL[name][1] for name in IN_TWO)


def read_settings(folder: Path) -> Json:
    """Return the content of a folder's tokenizer_config.json; where that does not name a class, with config.json's.

    The longest text is left out: config.json says it."""
    settings = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    class_name = settings.get("tokenizer_class") or config.get("tokenizer_class")
    settings.pop("model_max_length", None)
    return settings | ({"tokenizer_class": class_name} if class_name else {})


def read_vocabulary(files: dict[str, bytes], settings: Json) -> Vocabulary:
    """Return what a tokenizer's files say; InputError where headgate would make other ids of a text."""
    try:
        return read_two(files, settings) if IN_TWO[0] in files else read_one(files, settings)
    except InputError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        names = " and ".join(IN_TWO if IN_TWO[0] in files else [IN_ONE])
        raise InputError(f"{names} are not those of a GPT-2 tokenizer: {error!r}") from None


def read_two(files: dict[str, bytes], settings: Json) -> Vocabulary:
    """Read vocab.json and merges.txt."""
    check_class(settings)
    for name in ("add_bos_token", "add_eos_token"):
        if settings.get(name):
            raise InputError(f"{SETTINGS} has {name} true; headgate puts no token before or behind a text")
    lines = re.split("\r?\n", files[IN_TWO[1]].decode())
    if lines[0] == "#":  # we wrote this once
        del lines[0]
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    return combine(parse(files, IN_TWO[0]), merges, files, settings, [])


def read_one(files: dict[str, bytes], settings: Json) -> Vocabulary:
    """Read tokenizer.json."""
    whole = check_class(settings) in WHOLE
    content = parse(files, IN_ONE)
    bpe, before = content["model"], content.get("pre_tokenizer") or {"type": "none"}
    refuse("normalizer", content.get("normalizer"), None)
    refuse("pre_tokenizer", before["type"], "ByteLevel")
    refuse("use_regex of ByteLevel", before.get("use_regex", True), True)
    refuse("model", bpe.get("type", "BPE"), "BPE")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        refuse(f"{name} of BPE", bpe.get(name) or None, None)
    refuse_processor(content.get("post_processor"))
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in bpe["merges"]]
    if whole:
        settings = settings | {"add_prefix_space": before["add_prefix_space"]}
    return combine(bpe["vocab"], merges, files, settings, content.get("added_tokens") or [])


def check_class(settings: Json) -> str:
    """Return the name of the class in `transformers` that opens the tokenizer; InputError if it is not GPT-2's."""
    name = (settings.get("tokenizer_class") or CLASSES[0]).removesuffix("Fast")
    if name not in CLASSES:
        raise InputError(f"tokenizer_class is {name}; headgate reads {', '.join(CLASSES)}")
    return name


def refuse(what: str, got: Any, read: Any) -> None:
    """Raise InputError unless tokenizer.json has of `what` that which headgate reads."""
    if got != read:
        name = got.get("type", got) if isinstance(got, dict) else got
        raise InputError(f"{IN_ONE} has {what} {name}; headgate reads {'none' if read is None else read}")


def refuse_processor(processor: Json | None) -> None:
    """Raise InputError for a post-processor that puts tokens before or behind a text."""
    if not processor or processor["type"] == "ByteLevel":  # which changes offsets alone
        return
    if processor["type"] == "Sequence":
        for each in processor["processors"]:
            refuse_processor(each)
    elif processor["type"] != "TemplateProcessing" or any("SpecialToken" in piece for piece in processor["single"]):
        kind = processor["type"]
        raise InputError(f"{IN_ONE} has post_processor {kind}, which adds tokens to a text; headgate adds none")


def combine(
    ids: dict[str, int], merges: Sequence[Sequence[str]], files: dict[str, bytes], settings: Json, written: list[Json]
) -> Vocabulary:
    """Return the vocabulary of these tokens and merges; `written` are the added tokens in tokenizer.json."""
    names = " and ".join(name for name in (*IN_TWO, IN_ONE) if name in files)
    published = is_published(files)
    if not published:
        check_merges(ids, merges, names)
    pairs = [(first, second) for first, second in merges]
    stated, named = list_added(files, settings, written)
    if settings.get("split_special_tokens"):
        refuse_special([*(token for _, token in stated), *named])
    added = number_added(ids, stated, named)
    if not published:
        check_made(ids, pairs, {token.content for token in added}, names)
    all_ids = ids | {token.content: token.id for token in added}
    sought = [token for token in added if token.content != END_OF_TEXT]  # which is ordinary text in a text, by design
    return Vocabulary(all_ids, pairs, sought, bool(settings.get("add_prefix_space")))


def check_merges(ids: dict[str, int], merges: Sequence[Sequence[str]], names: str) -> None:
    """Raise InputError unless ids count from 0 without a gap, each byte has one, and so has every token of a merge."""
    if {*map(type, ids.values())} != {int} or sorted(ids.values()) != [*range(len(ids))]:
        missing_ids = sorted({*range(len(ids))} - {i for i in ids.values() if type(i) is int})
        raise InputError(
            f"{names}: expected an id of its own for each token, 0 to {len(ids) - 1}; none has {missing_ids[0]}"
        )
    if missing := [f"0x{byte:02x}" for char, byte in BYTE_OF.items() if char not in ids]:
        raise InputError(f"{names}: expected a token for each of the 256 bytes; {', '.join(missing)} have none")
    for n, pair in enumerate(merges, 1):
        if len(pair) != 2 or pair[0] not in ids or pair[1] not in ids or pair[0] + pair[1] not in ids:
            problem = f"merge {n} is {' '.join(pair)!r}: expected two tokens that make a third of the vocabulary"
            raise InputError(f"{names} do not belong together; {problem}")


def check_made(ids: dict[str, int], merges: list[tuple[str, str]], added: set[str], names: str) -> None:
    """Raise InputError where merges seem to be lost: no merge makes a token that begins with a space or is not ASCII.

    Other tokens without a merge are those that a trainer was given, such as <pad>; no text holds them."""
    made = {*BYTE_OF, *added, *(first + second for first, second in merges)}
    lost = [token for token in ids if token not in made and not token.isascii() and BYTE_OF.keys() >= {*token}]
    if lost:
        problem = f"no merge makes {lost[0]!r} and {len(lost) - 1} more; is the list of merges whole?"
        raise InputError(f"{names} do not belong together; {problem}")


def list_added(
    files: dict[str, bytes], settings: Json, written: list[Json]
) -> tuple[list[tuple[int, Json]], list[Json]]:
    """Return the added tokens in the order in which `transformers` adds them: those with an id, and those without."""
    whole = IN_ONE in files and check_class(settings) in WHOLE
    joined = join_special(files, settings)
    named = find_named(joined if whole else dict.fromkeys(NAMED[:3], END_OF_TEXT) | joined)
    first = [(token["id"], token) for token in written] if whole else []
    if decoder := settings.get("added_tokens_decoder"):
        return [*first, *sorted(((int(i), token) for i, token in decoder.items()), key=itemgetter(0))], named
    lists = {name: settings.get(name) for name in LISTS}  # those of special_tokens_map.json do not count here
    contents = {token["content"] for token in find_named({name: joined.get(name) for name in NAMED} | lists)}
    old = parse(files, ADDED) if ADDED in files else {}
    stated = {i: {"content": content, "special": content in contents} for content, i in old.items()}
    stated |= {token["id"]: token for token in written}
    return [*first, *sorted(stated.items(), key=itemgetter(0))], named


def join_special(files: dict[str, bytes], settings: Json) -> Json:
    """Return the settings with the special tokens of special_tokens_map.json, unless they have all of them."""
    if SPECIAL not in files or "added_tokens_decoder" in settings:
        return settings
    return settings | parse(files, SPECIAL)


def find_named(settings: Json) -> list[Json]:
    """Return the tokens that settings name, as pad_token and the like, in the order of `transformers`.

    extra_special_tokens is an object of names and tokens, or the newer word for the list additional_special_tokens. Of
    a token with several names, the last says what it is."""
    names = [*NAMED, *(name for name in settings if name.endswith("_token") and name not in NAMED)]
    extra, more = (settings.get(name) or [] for name in LISTS)
    both = [extra] if extra and isinstance(extra, list) else [extra, more]
    tokens: list[Any] = [settings.get(name) for name in names]
    tokens += [token for each in both for token in (each.values() if isinstance(each, dict) else each)]
    objects = [{"content": token} if isinstance(token, str) else token for token in tokens]
    objects = [token | {"special": True} for token in objects if isinstance(token, dict)]  # add_bos_token is a bool
    return [*{token["content"]: token for token in objects}.values()]


def refuse_special(tokens: list[Json]) -> None:
    """Raise InputError for special tokens that a text may hold: with split_special_tokens true, they are text there."""
    special = [token["content"] for token in tokens if token.get("special")]
    if refused := [content for content in special if content not in ("", END_OF_TEXT)]:
        raise InputError(
            f"{SETTINGS} has split_special_tokens true, and {refused[0]!r} is a special token; headgate finds special "
            "tokens in a text; remove split_special_tokens where no text holds one"
        )


def number_added(ids: dict[str, int], stated: list[tuple[int, Json]], named: list[Json]) -> list[AddedToken]:
    """Return the added tokens with their ids: the vocabulary's own, else the next free ones.

    Raises InputError where a file states another id, or what else headgate would not find. <|endoftext|> is left out
    where no file gives it an id: `transformers` makes that one up."""
    all_ids = dict(ids)
    added: dict[str, AddedToken] = {}
    for stated_id, token in [*stated, *((None, token) for token in named)]:
        content = token["content"]
        if not content or (stated_id is None and content in added):
            continue
        token_id = all_ids.setdefault(content, len(all_ids))
        if stated_id not in (None, token_id):
            raise InputError(
                f"the added token {content!r} has the id {stated_id}; expected {token_id}, the next free one"
            )
        normalized = token.get("normalized", not token.get("special"))
        new = AddedToken(content, token_id, bool(token.get("lstrip")), bool(token.get("rstrip")), bool(normalized))
        if added.setdefault(content, new) != new:
            raise InputError(f"{IN_ONE} and {SETTINGS} say different things of the added token {content!r}")
        if token.get("single_word") and content != END_OF_TEXT:
            raise InputError(f"the added token {content!r} has single_word, which headgate does not implement")
    made_up = END_OF_TEXT not in ids and END_OF_TEXT not in [token["content"] for _, token in stated]
    return [token for token in added.values() if token.content != END_OF_TEXT or not made_up]


def name_special(files: dict[str, bytes], settings: Json, ids: dict[str, int]) -> dict[str, str]:
    """Return the tokens that begin, end and fill up texts in `transformers`, those that have an id: by name."""
    joined, names = join_special(files, settings), ("bos_token", "eos_token", "pad_token")
    tokens = {name: joined.get(name) or END_OF_TEXT for name in names}
    contents = {name: token if isinstance(token, str) else token["content"] for name, token in tokens.items()}
    return {name: content for name, content in contents.items() if content in ids}


def parse(files: dict[str, bytes], name: str) -> Json:
    """Return the object in a JSON file; InputError if it is not one."""
    try:
        content = parse_json(files[name])
    except ValueError as error:
        raise InputError(f"{name} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{name}: expected a JSON object, got {type(content).__name__}")
    return content


def byte_of() -> dict[str, int]:
    """Return the byte for each printable character with which GPT-2's files write bytes.

    Printable latin-1 bytes are written as themselves, the other 68 as the characters from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTE_OF = byte_of()
