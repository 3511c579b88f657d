"""GPT-2's tokens: the same as transformers' tokenizer makes of the same two files."""

import hashlib
import json
import shutil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model import InputError, Tokenizer, tokenizer, tokenizer_files
from model.names import EMBEDDED, OFFICIAL
from model.tokenizer_files import IN_TWO as FILES


@pytest.fixture(scope="module")
def ours():
    return Tokenizer.load("gpt2-mini")


@pytest.fixture(scope="module")
def theirs():
    """transformers' GPT-2 tokenizer, in which special tokens written in a text are ordinary text."""
    import transformers

    files = dict(vocab=str(EMBEDDED / "vocab.json"), merges=str(EMBEDDED / "merges.txt"))
    tokenizer = transformers.GPT2Tokenizer(**files)
    return lambda text: tokenizer(text, split_special_tokens=True)["input_ids"]


@pytest.mark.parametrize("name", FILES)
def test_the_embedded_files_are_the_official_ones(name):
    assert hashlib.sha256((EMBEDDED / name).read_bytes()).hexdigest() == OFFICIAL[name][1]


def test_the_published_files_are_read_without_the_checks_that_they_pass(ours, monkeypatch):
    monkeypatch.setattr(tokenizer, "is_published", lambda files: False)
    monkeypatch.setattr(tokenizer_files, "is_published", lambda files: False)
    checked = Tokenizer(ours.files, ours.settings)
    assert checked.vocabulary == ours.vocabulary
    assert checked.encoding._mergeable_ranks == ours.encoding._mergeable_ranks
    monkeypatch.undo()
    monkeypatch.setattr(tokenizer, "order_merges", None)
    monkeypatch.setattr(tokenizer_files, "check_merges", None)
    monkeypatch.setattr(tokenizer_files, "check_made", None)
    assert Tokenizer(ours.files, ours.settings).vocabulary == ours.vocabulary


KNOWN = {
    "Hello, my": [15496, 11, 616],
    "Data visualization empowers users to": [6601, 32704, 795, 30132, 2985, 284],
    "IEEE VIS conference highlights the": [40, 31909, 50035, 4495, 11330, 262],
    "": [],
}


@pytest.mark.parametrize("text", KNOWN)
def test_published_ids(ours, text):
    assert ours.encode(text) == KNOWN[text]


# English, other scripts, emoji that are joined from several, spaces of all kinds, and every code point there is.
PARTS = [
    "i feel", " don't", " HE'LL", "  ", "\n\n", "\t", " 1234", " naïve", "日本語", "🙂", " 🙃", "👩‍👩‍👧", "…", "\u00a0",
]  # fmt: skip
WORDS = st.lists(st.sampled_from(PARTS)).map("".join)
TEXTS = st.one_of(WORDS, st.text(st.characters(max_codepoint=0x24F)), st.text())


@given(text=TEXTS)
@settings(deadline=None, max_examples=400)
@example(text="i feel like i'm 100% sure, aren't you?  really…\n\n")
@example(text="   trailing spaces   ")
def test_the_same_ids_as_transformers(ours, theirs, text):
    assert ours.encode(text) == theirs(text)


@given(text=TEXTS)
@settings(deadline=None, max_examples=200)
def test_decoding_gives_the_text_back(ours, text):
    assert ours.decode(ours.encode(text)) == text


@given(text=TEXTS)
@settings(deadline=None, max_examples=300)
@example(text="a🙂b")
@example(text="🙂🙃")
def test_pieces_cover_the_text_in_order(ours, text):
    pieces = ours.pieces(text)
    assert len(pieces) == len(ours.encode(text))
    assert all(text[start:end] == piece and start < end for piece, start, end in pieces)
    assert {i for _, start, end in pieces for i in range(start, end)} == set(range(len(text)))
    starts, ends = [start for _, start, _ in pieces], [end for _, _, end in pieces]
    assert starts == sorted(starts)
    assert ends == sorted(ends)


@given(text=st.text(st.characters(max_codepoint=0x7F)))
@settings(deadline=None, max_examples=100)
def test_pieces_of_ascii_are_the_tokens_themselves(ours, text):
    assert [piece for piece, _, _ in ours.pieces(text)] == [ours.decode([token]) for token in ours.encode(text)]


def test_each_part_of_an_emoji_covers_all_of_it(ours):
    assert ours.decode(ours.encode("🙂")[:1]) == "\ufffd"  # several tokens, none of which is text by itself
    pieces = ours.pieces("a🙂b")
    assert [piece for piece, _, _ in pieces] == ["a", *["🙂"] * len(ours.encode("🙂")), "b"]
    assert {(start, end) for piece, start, end in pieces if piece == "🙂"} == {(1, 2)}


def test_a_token_that_ends_inside_a_character_covers_it(ours):
    """' 🙃' is a token of the space and the emoji's first two bytes, and one for each of the other two."""
    assert ours.pieces("x 🙃") == [("x", 0, 1), (" 🙃", 1, 3), ("🙃", 2, 3), ("🙃", 2, 3)]


def test_the_special_token_in_a_text_is_ordinary_text(ours):
    text = "a<|endoftext|>b"
    assert 50256 not in ours.encode(text)
    assert ours.decode(ours.encode(text)) == text
    assert "".join(piece for piece, _, _ in ours.pieces(text)) == text


def test_the_special_token_can_be_decoded(ours):
    assert ours.decode([64, 50256, 65]) == "a<|endoftext|>b"


# Files that are not there, or not a tokenizer.


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        shutil.copy(EMBEDDED / name, tmp_path)
    return tmp_path


def test_any_folder_with_both_files_loads(folder, ours):
    assert Tokenizer.load(folder).encode("i feel so tired") == ours.encode("i feel so tired")
    assert Tokenizer.load(str(folder)).files == ours.files


def test_the_same_files_are_read_once_and_changed_ones_anew(folder, ours):
    once = Tokenizer.load(folder)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 17}')
    assert Tokenizer.load(folder) is once
    (folder / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    assert Tokenizer.load(folder).encode("i feel") == ours.encode(" i feel")


@pytest.mark.parametrize("missing", [["vocab.json"], ["merges.txt"], ["vocab.json", "merges.txt"]], ids=str)
def test_missing_files_are_named(folder, missing):
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(InputError, match=f"no {' and no '.join(missing)}"):
        Tokenizer.load(folder)


GARBAGE = [b"", b"\xff\xfe", b"{}", b"[1, 2]", b"null", b'{"a": "b"}', b"a b\nc d e\n"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", GARBAGE, ids=str)
def test_garbage_is_refused(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        Tokenizer.load(folder)


UNFIT = {
    "a token added": ("vocab.json", lambda vocab: vocab | {"Ġheadgate": len(vocab)}),
    "a merge dropped": ("merges.txt", lambda lines: [*lines[:100], *lines[101:]]),
    "the last merges dropped": ("merges.txt", lambda lines: lines[:1000]),
}


@pytest.mark.parametrize("name", UNFIT)
def test_files_that_do_not_belong_together_are_refused(folder, name):
    file, change = UNFIT[name]
    content = (folder / file).read_text()
    if file == "vocab.json":
        (folder / file).write_text(json.dumps(change(json.loads(content))))
    else:
        (folder / file).write_text("\n".join(change(content.split("\n"))))
    with pytest.raises(InputError, match="do not belong together"):
        Tokenizer.load(folder)


def test_the_single_file_of_transformers_5_is_read_too(tmp_path):
    import transformers

    transformers.GPT2Tokenizer.from_pretrained(EMBEDDED).save_pretrained(tmp_path)
    assert not (tmp_path / "vocab.json").exists()
    text = "it's 🙂, isn't it?  <|endoftext|>"
    assert Tokenizer.load(tmp_path).encode(text) == Tokenizer.load("gpt2-mini").encode(text)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordLevel"}}')
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)
