"""Tokenizers as others save them: the same ids as transformers, or a line that says what is not implemented."""

import json
import shutil
import subprocess
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, ByteLevelBPETokenizer, normalizers, processors
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast

from model import GPT2Classifier, GPT2Config, InputError, Tokenizer, save
from model.added_tokens import WHITE_SPACE
from model.config import END_OF_TEXT
from model.names import EMBEDDED
from model.tokenizer import order_merges
from model.tokenizer_files import BYTE_OF

TINY = GPT2Config(n_layer=1, n_head=1, n_embd=2, n_ctx=5, vocab_size=300)
TRAINED_ON = [
    "i feel so happy today, aren't you?",
    "aaaa aaaaaaa bababab  banana",
    "日本語 🙂 naïve\n\n[PAD] <mask>",
] * 9
PARTS = [
    "i feel", " don't", "  ", "\n\n", "\t", " 12", "naïve", "日本語", "🙂", "\u00a0", "\u2003", "\x1c", "aaaaaaa",
    " ban", "[PAD]", "<mask>", "<mas", "k>", "new word", "new words", "<s>", "<pad>", "word", "[A]", "[A]b",
]  # fmt: skip
TEXTS = st.one_of(st.lists(st.sampled_from(PARTS)).map("".join), st.text())


def write(folder, name, content):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def read(folder, name):
    return json.loads((folder / name).read_text())


def embedded(folder, **config):
    """The published vocabulary in two files."""
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(EMBEDDED / name, folder)
    write(folder, "tokenizer_config.json", config)


@cache
def trained():
    """A tokenizer that transformers trained anew: <|endoftext|> has the id 0."""
    return GPT2Tokenizer.from_pretrained(EMBEDDED).train_new_from_iterator(TRAINED_ON, 340)


def in_one(folder, tokenizer=None, **config):
    """A tokenizer of transformers as version 5 saves it, with changed settings."""
    (tokenizer or trained()).save_pretrained(folder)
    write(folder, "tokenizer_config.json", read(folder, "tokenizer_config.json") | config)


def in_two(folder, **config):
    """The same in two files."""
    trained().backend_tokenizer.model.save(str(folder))
    write(folder, "tokenizer_config.json", config)


def with_added(*tokens, special=False, **config):
    def make(folder):
        in_one(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens([*tokens], special_tokens=special)
        in_one(folder, tokenizer, **config)

    return make


def spaced_in_one(folder, **config):
    in_one(folder)
    content = read(folder, "tokenizer.json")
    content["pre_tokenizer"]["add_prefix_space"] = True
    write(folder, "tokenizer.json", content)
    write(folder, "tokenizer_config.json", config)


def bare(folder, **config):
    """What the trainer of the library tokenizers writes: no word of which tokens are special."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(TRAINED_ON, 330, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    bpe.save_model(str(folder))
    if config:
        write(folder, "tokenizer_config.json", config)


def with_crlf(folder):
    in_two(folder)
    (folder / "vocab.json").write_text(json.dumps(read(folder, "vocab.json"), indent=2))
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def without_version(folder):
    in_two(folder)
    write(folder, "merges.txt", (folder / "merges.txt").read_text().partition("\n")[2])


def reordered(folder):
    """Merges in another order, ids in another order, and one merge twice."""
    in_two(folder)
    lines = (folder / "merges.txt").read_text().split("\n")
    write(folder, "merges.txt", "\n".join([lines[0], lines[2], lines[1], *lines[3:30], lines[4], *lines[30:]]))
    ids = read(folder, "vocab.json")
    write(folder, "vocab.json", {token: len(ids) - 1 - i for token, i in ids.items()})


def saved_in_2020(folder):
    in_two(folder, model_max_length=1024)
    n = len(read(folder, "vocab.json"))
    write(folder, "added_tokens.json", {"word[PAD": n + 2, "new word": n + 1, "[PAD]": n})
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True}
    special = {
        "pad_token": "[PAD]",
        "bos_token": {"content": END_OF_TEXT} | flags,
        "additional_special_tokens": ["<s>"],
    }
    write(folder, "special_tokens_map.json", special)


def overlapping(folder):
    """Of the added tokens in a file of their own, those in a list are looked for after those with a name."""
    in_two(folder)
    n = len(read(folder, "vocab.json"))
    write(folder, "added_tokens.json", {"i f": n, " feel": n + 1})
    write(folder, "special_tokens_map.json", {"additional_special_tokens": ["i f"], "pad_token": " feel"})


def saved_in_2022(folder):
    """tokenizer.json with merges as strings, beside two files that differ from it."""
    in_one(folder, add_prefix_space=False)
    content = read(folder, "tokenizer.json")
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    write(folder, "tokenizer.json", content)
    write(folder, "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": False})
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(EMBEDDED / name, folder)


def saved_in_2023(folder):
    n, flags = len(trained()), {"rstrip": False, "single_word": False, "special": True}
    mask = {"content": "<mask>", "lstrip": True, "normalized": False} | flags
    pad = {"content": "[PAD]", "lstrip": False, "normalized": True} | flags
    in_two(folder, added_tokens_decoder={str(n): pad, str(n + 1): mask}, mask_token="<mask>", pad_token="[PAD]")


def whole_class(folder):
    trained().backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    PreTrainedTokenizerFast(tokenizer_object=trained().backend_tokenizer, pad_token="[PAD]").save_pretrained(folder)


def class_in_config(folder):
    spaced_in_one(folder)
    write(folder, "config.json", {"model_type": "gpt2", "tokenizer_class": "PreTrainedTokenizerFast"})


STRIPPED = {"__type": "AddedToken", "content": "[A]", "rstrip": True}
MASK = AddedToken("<mask>", lstrip=True, special=True, normalized=False)
VARIANTS = {
    "published": embedded,
    "prefix space": lambda folder: embedded(folder, add_prefix_space=True),
    "trained anew": in_one,
    "trained anew, two files": in_two,
    "trained anew, prefix space": lambda folder: in_one(folder, add_prefix_space=True),
    "trained anew, two files, prefix space": lambda folder: in_two(folder, add_prefix_space=True),
    "a prefix space that GPT2Tokenizer overrules": spaced_in_one,
    "a prefix space that the fast class follows": lambda folder: spaced_in_one(
        folder, tokenizer_class="PreTrainedTokenizerFast", add_prefix_space=False
    ),
    "the class in config.json": class_in_config,
    "the fast class": whole_class,
    "pad added": with_added("[PAD]", special=True),
    "pad named": lambda folder: embedded(folder, pad_token="[PAD]", sep_token="<s>"),
    "pad named, end of text too": lambda folder: bare(folder, pad_token="[PAD]", bos_token="<s>"),
    "extra tokens": lambda folder: in_two(folder, extra_special_tokens={"b": "[A]b"}, a_token="[A]"),
    "more extra tokens": lambda folder: in_one(folder, additional_special_tokens=["[A]b", "[A]"]),
    "extra tokens of both kinds": lambda folder: in_two(
        folder, extra_special_tokens={"b": "[A]b"}, additional_special_tokens=["[A]", "<s>"]
    ),
    "two lists of extra tokens": lambda folder: in_two(
        folder, extra_special_tokens=["[A]b"], additional_special_tokens=["[A]", "<s>"]
    ),
    "two names for a token, the last as a word": lambda folder: in_two(folder, eos_token=STRIPPED, unk_token="[A]"),
    "two names for a token, the first as a word": lambda folder: in_two(folder, eos_token="[A]", unk_token=STRIPPED),
    "words added": with_added("new word", "new words", "word", "[A]", "[A]b"),
    "words added, prefix space": with_added(
        "new word", "[A]", AddedToken("[A]b", normalized=False), add_prefix_space=True
    ),
    "a mask that takes spaces before it": with_added(MASK, "[A]"),
    "tokens that take spaces behind and around": with_added(
        AddedToken("[A]", rstrip=True), AddedToken("<mask>", rstrip=True, lstrip=True, normalized=False), "[A]b"
    ),
    "white space that takes white space around": with_added(
        AddedToken(" ", rstrip=True, lstrip=True), AddedToken("\n", rstrip=True, lstrip=True), "[A]"
    ),
    "white space that takes white space behind": with_added(AddedToken(" ", rstrip=True), "[A]"),
    "special tokens split, where there are none": with_added("[A]", "new word", split_special_tokens=True),
    "no words about special tokens": bare,
    "two files of another system": with_crlf,
    "merges without version": without_version,
    "another order": reordered,
    "saved in 2020": saved_in_2020,
    "saved in 2020, tokens that overlap": overlapping,
    "saved in 2022": saved_in_2022,
    "saved in 2023": saved_in_2023,
}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Return a function from a variant's name to its folder, our tokenizer and theirs."""

    @cache
    def made(name):
        folder = tmp_path_factory.mktemp("tokenizer")
        write(folder, "config.json", {"model_type": "gpt2"})
        VARIANTS[name](folder)
        return folder, Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)

    return made


@pytest.mark.parametrize("name", VARIANTS)
def test_ids_and_text_are_those_of_transformers(make, name):
    _, ours, theirs = make(name)

    @given(text=TEXTS, ids=st.lists(st.integers(0, 400)))
    @settings(deadline=None, max_examples=60, derandomize=True)
    @example(text="word[PAD] new word", ids=[])
    @example(text="   new[A]  i feel\n \nfine  ", ids=[])
    @example(text="\u3000\u2003<mask>\x1c<mask>\x1c [A]\x85\u200b<mask>", ids=[60000])
    def check(text, ids):
        expected = theirs(text)["input_ids"]
        assert ours.encode(text) == expected
        made_up = theirs.eos_token_id if ours.end_of_text is None else None  # which no file gives an id, is no token
        for each in (expected, [i for i in ids if i != made_up]):
            assert ours.decode(each) == theirs.decode(each, clean_up_tokenization_spaces=False)

    check()


@pytest.mark.parametrize("name", VARIANTS)
def test_pieces_lie_in_the_text_in_order_and_cover_it(make, name):
    _, ours, _ = make(name)

    @given(text=TEXTS)
    @settings(deadline=None, max_examples=60, derandomize=True)
    def check(text):
        pieces, ids = ours.pieces(text), ours.encode(text)
        assert len(pieces) == len(ids)
        assert all(0 <= start <= end <= len(text) and text[start:end] == piece for piece, start, end in pieces)
        assert {i for _, start, end in pieces for i in range(start, end)} == {*range(len(text))}
        for edges in ([start for _, start, _ in pieces], [end for _, _, end in pieces]):
            assert edges == sorted(edges)
        for (piece, _, _), token in zip(pieces, ids, strict=True):
            written = ours.decode([token])
            assert "\ufffd" in written or piece.strip(WHITE_SPACE) == written.strip(WHITE_SPACE)

    check()


def test_a_space_that_is_added_belongs_to_no_character(make):
    ours = make("prefix space")[1]
    assert (
        ours.pieces("Lonely 🙂")
        == [("Lonely", 0, 6), *[(" 🙂", 6, 8)], *[("🙂", 7, 8)] * 2][: len(ours.encode("Lonely 🙂"))]
    )
    assert ours.decode(ours.encode("\n")) == " \n"
    assert ours.pieces("\n") == [("", 0, 0), ("\n", 0, 1)]
    words = make("words added, prefix space")[1]
    assert words.decode(words.encode("i[A]\nso")) == " i[A] \n so".replace("\n so", "\nso")
    assert ("", 4, 4) in words.pieces("i[A]\nso")


def test_end_of_text_is_ordinary_wherever_its_id_is(make):
    for name in ("trained anew", "no words about special tokens", "saved in 2020"):
        _, ours, theirs = make(name)
        text = f"i{END_OF_TEXT} feel"
        assert ours.decode(ours.encode(text)) == text
        assert ours.end_of_text not in ours.encode(text)
        assert ours.end_of_text == (None if name.startswith("no") else theirs.eos_token_id)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_tokenizer_has_as_many_tokens_as_its_largest_id_says(make, name):
    _, ours, theirs = make(name)
    made_up = theirs.eos_token == END_OF_TEXT and ours.end_of_text is None  # the last, unless others follow
    largest = max(i for token, i in theirs.get_vocab().items() if not made_up or token != END_OF_TEXT)
    assert len(ours) == 1 + largest


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_saved_is_read_again_by_both(make, name, tmp_path):
    _, ours, theirs = make(name)
    save(GPT2Classifier(TINY, ["joy", "fear"]), tmp_path, ours)
    again, text = Tokenizer.load(tmp_path), "Lonely and  <mask> new words[A]b[PAD]\n<s>🙂"
    expected = theirs(text)["input_ids"]
    assert again.encode(text) == expected
    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == expected
    assert again.vocabulary == ours.vocabulary
    config = read(tmp_path, "config.json")
    if "pad_token" in ours.special:
        assert config["pad_token_id"] == AutoTokenizer.from_pretrained(tmp_path).pad_token_id
    assert config["pad_token_id"] == theirs.pad_token_id or theirs.pad_token_id is None


# Merges in which a pair may break up another: tiktoken must not make what the list does not say.


@given(data=st.data())
@settings(deadline=None, max_examples=200, derandomize=True)
def test_any_list_of_merges_is_obeyed(data):
    from tokenizers import Tokenizer as Reference
    from tokenizers.models import BPE

    tokens, merges = ["a", "b", "c"], []
    for _ in range(data.draw(st.integers(0, 9))):
        pair = tuple(data.draw(st.sampled_from(tokens)) for _ in range(2))
        if pair not in merges:  # else its last place counts, maybe behind one that needs it
            merges.append(pair)
            tokens.append("".join(pair))
    names = [*BYTE_OF, *dict.fromkeys(tokens[3:])]
    vocab = {token: i for i, token in enumerate(names)}
    reference = Reference(BPE(vocab=vocab, merges=merges))
    lines = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)])
    ours = Tokenizer({"vocab.json": json.dumps(vocab).encode(), "merges.txt": lines.encode()}, "any")
    for text in data.draw(st.lists(st.text("abc", min_size=1, max_size=150), min_size=9, max_size=9)):
        assert ours.encode(text) == reference.encode(text).ids


def test_a_merge_that_never_happens_is_left_out():
    assert order_merges([("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")]) == ["ab", "bc", "abc"]
    assert order_merges([("a", "a"), ("a", "aa")]) == ["aa"]  # the leftmost pair first: aa|a
    assert order_merges([("a", "a"), ("aa", "a")]) == ["aa", "aaa"]
    assert order_merges([("a", "b"), ("b", "c"), ("a", "b")]) == ["bc", "ab"]  # the last place counts


# What changes ids and is not implemented, and files that are broken.


def changed(*path, to):
    """Return a function that makes a tokenizer.json with one value replaced."""

    def make(folder):
        in_one(folder)
        content = inner = read(folder, "tokenizer.json")
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = to
        write(folder, "tokenizer.json", content)

    return make


def without(token):
    def make(folder):
        in_two(folder)
        ids = [each for each in read(folder, "vocab.json") if each != token]
        write(folder, "vocab.json", {each: i for i, each in enumerate(ids)})

    return make


def shifted(folder):
    in_two(folder)
    write(folder, "vocab.json", {token: i + (i > 300) for token, i in read(folder, "vocab.json").items()})


def backwards(folder):
    bare(folder)
    lines = (folder / "merges.txt").read_text().split("\n")
    write(folder, "merges.txt", "\n".join([lines[0], *reversed(lines[1:])]))


def of_normalizer(folder):
    in_one(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    in_one(folder, tokenizer)


def of_processor(folder):
    in_one(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    start = processors.TemplateProcessing(single=f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, 0)])
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), start])
    in_one(folder, tokenizer)


BYTELEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
REFUSED = {
    "normalizer NFC": changed("normalizer", to={"type": "NFC"}),
    "normalizer Sequence": of_normalizer,
    "pre_tokenizer Whitespace": changed("pre_tokenizer", to={"type": "Whitespace"}),
    "pre_tokenizer none": changed("pre_tokenizer", to=None),
    "use_regex of ByteLevel False": changed("pre_tokenizer", to=BYTELEVEL),
    "model WordPiece": changed("model", "type", to="WordPiece"),
    "model Unigram": changed("model", "type", to="Unigram"),
    "dropout of BPE 0.1": changed("model", "dropout", to=0.1),
    "continuing_subword_prefix of BPE ##": changed("model", "continuing_subword_prefix", to="##"),
    "end_of_word_suffix of BPE </w>": changed("model", "end_of_word_suffix", to="</w>"),
    "ignore_merges of BPE True": changed("model", "ignore_merges", to=True),
    "post_processor TemplateProcessing, which adds tokens": of_processor,
    "post_processor RobertaProcessing, which adds tokens": changed("post_processor", to={"type": "RobertaProcessing"}),
    "tokenizer_class is RobertaTokenizer": lambda folder: in_two(folder, tokenizer_class="RobertaTokenizerFast"),
    "add_bos_token true": lambda folder: in_two(folder, add_bos_token=True),
    "256 bytes; 0x07 have none": without("ć"),
    "merge 1 is": without("aa"),
    "none has 301": shifted,
    "expected parts first": backwards,
    "split_special_tokens true, and '[PAD]'": with_added("[PAD]", "<s>", special=True, split_special_tokens=True),
    "split_special_tokens true, and '<mask>'": lambda folder: in_two(
        folder,
        split_special_tokens=True,
        mask_token="<mask>",
        added_tokens_decoder={str(len(trained())): {"content": "<mask>"}},
    ),
    "'[A]' has single_word": with_added(AddedToken("[A]", single_word=True)),
    "'[PAD]' has the id 999; expected": lambda folder: (
        in_two(folder),
        write(folder, "added_tokens.json", {"[PAD]": 999}),
    ),
    "tokenizer_config.json is not JSON": lambda folder: (in_two(folder), write(folder, "tokenizer_config.json", "{")),
    "added_tokens.json: expected a JSON object": lambda folder: (
        in_two(folder),
        write(folder, "added_tokens.json", "[]"),
    ),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_not_implemented_is_named(said, tmp_path):
    REFUSED[said](tmp_path)
    with pytest.raises(InputError) as error:
        Tokenizer.load(tmp_path)
    assert said in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_byte_order_mark_is_no_token(tmp_path, make):
    shutil.copytree(make("trained anew, two files")[0], tmp_path, dirs_exist_ok=True)
    for path in tmp_path.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Tokenizer.load(tmp_path).vocabulary == make("trained anew, two files")[1].vocabulary


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_clone_with_crlf_leaves_the_vocabulary_as_it_is(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", *arguments], check=True, capture_output=True)

    files = [EMBEDDED / "vocab.json", EMBEDDED / "merges.txt", EMBEDDED.parents[1] / ".gitattributes"]
    git("init", tmp_path / "here")
    for path in files:
        shutil.copy(path, tmp_path / "here")
    git("-C", tmp_path / "here", "add", ".")
    git("-C", tmp_path / "here", "commit", "-m", "all")
    git("clone", "-c", "core.autocrlf=true", tmp_path / "here", tmp_path / "clone")
    for path in files:
        assert (tmp_path / "clone" / path.name).read_bytes() == path.read_bytes()
