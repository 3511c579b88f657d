"""Tokenizers of other programs: each row of their table in docs/models.md, read as in `transformers`, or refused."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
from commands import line_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, ByteLevelBPETokenizer, normalizers, processors
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast

from model import GPT2Classifier, GPT2Config, Tokenizer, save
from model.added_tokens import WHITE_SPACE
from model.config import END_OF_TEXT
from model.tokenizer_files import ADDED, IN_ONE, IN_TWO, SETTINGS, SPECIAL

ROOT = Path(__file__).parents[2]
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
BOM = b"\xef\xbb\xbf"


def write(folder, name, content):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def read(folder, name):
    return json.loads((folder / name).read_text())


# What programs write. `settings` are those of tokenizer_config.json.


def train(*special, add_prefix_space=False, on=TRAINED_ON, size=340):
    """A tokenizer of the library tokenizers, with the special tokens first."""
    bpe = ByteLevelBPETokenizer(add_prefix_space=add_prefix_space)
    bpe.train_from_iterator(on, size, special_tokens=[*special], show_progress=False)
    return bpe


def in_two(folder, *special, **settings):
    train(*(special or [END_OF_TEXT])).save_model(str(folder))
    if settings:
        write(folder, SETTINGS, settings)


def in_one(folder, *tokens, special=False, **settings):
    """The same as version 5 of transformers saves it, after adding tokens."""
    in_two(folder)
    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    tokenizer.add_tokens([*tokens], special_tokens=special)
    remove(folder, *IN_TWO)
    tokenizer.save_pretrained(folder)
    write(folder, SETTINGS, read(folder, SETTINGS) | settings)


def bare(folder, **settings):
    """Special tokens like those of RoBERTa, and no word that they are special."""
    in_two(folder, "<s>", "<pad>", "</s>", "<unk>", "<mask>", **settings)


def trained_anew(folder):
    in_two(folder)
    tokenizer = GPT2Tokenizer.from_pretrained(folder).train_new_from_iterator([*TRAINED_ON, "happy happier"] * 3, 333)
    remove(folder, *IN_TWO)
    tokenizer.save_pretrained(folder)


def saved_by_the_library(folder):
    train(END_OF_TEXT, add_prefix_space=True).save(str(folder / IN_ONE))


def fast_class(folder):
    in_one(folder)
    backend = GPT2Tokenizer.from_pretrained(folder).backend_tokenizer
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]").save_pretrained(folder)


def saved_in_2020(folder):
    in_two(folder, model_max_length=1024)
    n = len(read(folder, "vocab.json"))
    write(folder, ADDED, {"word[PAD": n + 2, "new word": n + 1, "[PAD]": n})
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True}
    special = {
        "pad_token": "[PAD]",
        "bos_token": {"content": END_OF_TEXT} | flags,
        "additional_special_tokens": ["<s>"],
    }
    write(folder, SPECIAL, special)


def overlapping(folder):
    """Of the added tokens in a file of their own, those in a list are looked for after those with a name."""
    in_two(folder)
    n = len(read(folder, "vocab.json"))
    write(folder, ADDED, {"i f": n, " feel": n + 1})
    write(folder, SPECIAL, {"additional_special_tokens": ["i f"], "pad_token": " feel"})


def saved_in_2022(folder):
    """tokenizer.json with merges as strings, beside two files that differ from it."""
    in_one(folder)
    merges_as_strings(folder)
    write(folder, SETTINGS, {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": False})
    put_others_beside(folder)


def saved_in_2023(folder):
    in_two(folder)
    n, flags = len(read(folder, "vocab.json")), {"rstrip": False, "single_word": False, "special": True}
    mask = {"content": "<mask>", "lstrip": True, "normalized": False} | flags
    pad = {"content": "[PAD]", "lstrip": False, "normalized": True} | flags
    decoder = {str(n): pad, str(n + 1): mask}
    write(folder, SETTINGS, {"added_tokens_decoder": decoder, "mask_token": "<mask>", "pad_token": "[PAD]"})


# What is done to a folder afterwards.


def remove(folder, *names):
    for name in names:
        (folder / name).unlink()


def two(*changes, **settings):
    def make(folder):
        in_two(folder, **settings)
        for change in changes:
            change(folder)

    return make


def one(*changes, tokens=(), special=False, **settings):
    def make(folder):
        in_one(folder, *tokens, special=special, **settings)
        for change in changes:
            change(folder)

    return make


def without(*names):
    return lambda folder: remove(folder, *names)


def edited(name, edit):
    """Write what `edit` makes of the content of a JSON file, or of the lines of another."""

    def change(folder):
        if name.endswith(".json"):
            write(folder, name, edit(read(folder, name)))
        else:
            write(folder, name, "\n".join(edit((folder / name).read_text().split("\n"))))

    return change


def holding(name, content):
    return lambda folder: write(folder, name, content)


def put(*path, to):
    """Replace one value of tokenizer.json."""

    def edit(content):
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        return content

    return edited(IN_ONE, edit)


def replace_bytes(old, new):
    def change(folder):
        for path in folder.iterdir():
            path.write_bytes(path.read_bytes().replace(old, new))

    return change


def mark(folder):
    """Put a byte order mark before each of the tokenizer's files."""
    for path in folder.iterdir():
        if path.name != "config.json":
            path.write_bytes(BOM + path.read_bytes())


def put_others_beside(folder):
    """Put the two files of another vocabulary beside tokenizer.json."""
    train(on=["other words"] * 9, size=270).save_model(str(folder))


def contradict(folder):
    """Say in tokenizer_config.json that the last added token takes spaces, and in tokenizer.json that it does not."""
    last = read(folder, IN_ONE)["added_tokens"][-1]
    decoder = {str(last["id"]): last | {"lstrip": True}}
    write(folder, SETTINGS, read(folder, SETTINGS) | {"added_tokens_decoder": decoder})


def backend(change):
    """Change the tokenizer within that of transformers, and save that."""

    def work(folder):
        tokenizer = GPT2Tokenizer.from_pretrained(folder)
        change(tokenizer.backend_tokenizer)
        tokenizer.save_pretrained(folder)

    return work


def normalize(tokenizer):
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])


def put_before(*tokens, among=()):
    def change(tokenizer):
        template = " ".join([*(token for token, _ in tokens), "$A"])
        each = processors.TemplateProcessing(single=template, special_tokens=[*tokens])
        tokenizer.post_processor = processors.Sequence([*among, each]) if among else each

    return backend(change)


def cut_texts(tokenizer):
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=7)


merges_as_strings = edited(
    IN_ONE,
    lambda content: (
        content | {"model": content["model"] | {"merges": [" ".join(pair) for pair in content["model"]["merges"]]}}
    ),
)
two_merges_turned = edited("merges.txt", lambda lines: [lines[0], lines[2], lines[1], *lines[3:]])
a_merge_twice = edited("merges.txt", lambda lines: [*lines[:30], lines[4], *lines[30:]])
ids_turned = edited("vocab.json", lambda ids: {token: len(ids) - 1 - i for token, i in ids.items()})
MARKED = "files that begin with a byte order mark"
FAST = "PreTrainedTokenizerFast"
MASK = AddedToken("<mask>", lstrip=True, special=True, normalized=False)
STRIPPED = {"__type": "AddedToken", "content": "[PAD]", "lstrip": True}
AROUND = AddedToken("<mask>", rstrip=True, lstrip=True, normalized=False)
SPACED = put("pre_tokenizer", "add_prefix_space", to=True)

# What the folder holds -> what makes it.
READ = {
    "`vocab.json` and `merges.txt`": [two(), two(add_prefix_space=False, model_max_length=1024)],
    "`tokenizer.json`, also alone": [
        one(), one(without(SETTINGS, "config.json")), saved_by_the_library, one(merges_as_strings),
    ],
    "`tokenizer.json` beside `vocab.json` and `merges.txt`": [one(put_others_beside), saved_in_2022],
    "a vocabulary trained anew, its special tokens first or last, its ids and merges in another order": [
        trained_anew, two(ids_turned), two(two_merges_turned), two(a_merge_twice, two_merges_turned, ids_turned),
    ],
    "merges without a line for the version": [two(edited("merges.txt", lambda lines: lines[1:]))],
    "lines that end in CRLF": [
        two(edited("vocab.json", lambda ids: json.dumps(ids, indent=2)), replace_bytes(b"\n", b"\r\n")),
        one(replace_bytes(b"\n", b"\r\n")),
    ],
    MARKED: [two(mark, add_prefix_space=True), one(mark)],
    "`add_prefix_space` true": [
        two(add_prefix_space=True), one(add_prefix_space=True), one(SPACED, add_prefix_space=True),
        one(tokens=["new word", "[A]", AddedToken("[A]b", normalized=False)], add_prefix_space=True),
    ],
    "`add_prefix_space` in `tokenizer.json`, and another one in `tokenizer_config.json`": [
        one(SPACED), one(SPACED, without(SETTINGS)), one(SPACED, tokenizer_class=FAST),
        one(tokenizer_class=FAST, add_prefix_space=True),
    ],
    "`tokenizer_class` `GPT2TokenizerFast`, `PreTrainedTokenizerFast` or `TokenizersBackend`": [
        two(tokenizer_class="GPT2TokenizerFast"), fast_class, one(SPACED, tokenizer_class="TokenizersBackend"),
        one(SPACED, holding(SETTINGS, {}), holding("config.json", {"model_type": "gpt2", "tokenizer_class": FAST})),
    ],
    "added tokens, in any of the files: `[PAD]`, new words": [
        one(tokens=["[PAD]"], special=True), one(tokens=["new word", "new words", "word", "[A]", "[A]b"]),
        one(tokens=["[A]b", "[PAD]"], tokenizer_class=FAST), saved_in_2020, saved_in_2023,
    ],
    "special tokens under names of their own, also without an id": [
        two(pad_token="[PAD]", sep_token="<s>"), one(pad_token="[PAD]", sep_token="<s>"),
        two(extra_special_tokens={"b": "[A]b"}, a_token="[A]"), one(additional_special_tokens=["[A]b", "[A]"]),
        two(holding(SPECIAL, {"pad_token": "[PAD]"})), two(pad_token=STRIPPED),
        two(extra_special_tokens={"b": "[A]b"}, additional_special_tokens=["[A]", "<s>"]),
        two(extra_special_tokens=["[A]b"], additional_special_tokens=["[A]", "<s>"]),
        two(eos_token=STRIPPED, unk_token="[PAD]"), two(eos_token="[PAD]", unk_token=STRIPPED), overlapping,
    ],
    "added tokens with `lstrip` or `rstrip`": [
        one(tokens=[MASK, "[A]"]), one(tokens=[AddedToken("[A]", rstrip=True), AROUND, "[A]b"]),
        one(tokens=[AddedToken(" ", rstrip=True, lstrip=True), AddedToken("\n", rstrip=True, lstrip=True), "[A]"]),
        one(tokens=[AddedToken(" ", rstrip=True), "[A]"]),
    ],
    "`<pad>` in the vocabulary, which no file calls a special token": [bare],
    "no token for the end of a text": [bare, lambda folder: bare(folder, pad_token="[PAD]", bos_token="<s>")],
    "a post-processor that adds no token": [
        one(put_before()), one(put_before(among=[processors.ByteLevel()])), one(put("post_processor", to=None)),
    ],
    "`split_special_tokens` true, but no special token to split": [
        one(tokens=["[A]", "new word"], split_special_tokens=True),
    ],
    "truncation or padding in `tokenizer.json`": [
        one(backend(cut_texts)), one(backend(cut_texts), tokenizer_class=FAST),
    ],
}  # fmt: skip

BYTELEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
START = [(END_OF_TEXT, 0)]
APART = "do not belong together"
# What the folder holds -> (what makes it, a part of what is said).
REFUSED = {
    "a normalizer": [
        (one(put("normalizer", to={"type": "NFC"})), "tokenizer.json has normalizer NFC; headgate reads none"),
        (one(backend(normalize)), "normalizer Sequence; headgate reads none"),
    ],
    "another pre-tokenizer, none, or one with `use_regex` false": [
        (one(put("pre_tokenizer", to={"type": "Whitespace"})), "pre_tokenizer Whitespace; headgate reads ByteLevel"),
        (one(put("pre_tokenizer", to={"type": "Sequence", "pretokenizers": [BYTELEVEL]})), "pre_tokenizer Sequence"),
        (one(put("pre_tokenizer", to=None)), "pre_tokenizer none; headgate reads ByteLevel"),
        (one(put("pre_tokenizer", "use_regex", to=False)), "use_regex of ByteLevel False; headgate reads True"),
    ],
    "another model than BPE: WordPiece, Unigram, WordLevel": [
        (one(put("model", "type", to=name)), f"tokenizer.json has model {name}; headgate reads BPE")
        for name in ("WordPiece", "Unigram", "WordLevel")
    ],
    "`dropout`, `continuing_subword_prefix`, `end_of_word_suffix` or `ignore_merges`": [
        (one(put("model", "dropout", to=0.1)), "dropout of BPE 0.1; headgate reads none"),
        (one(put("model", "continuing_subword_prefix", to="##")), "continuing_subword_prefix of BPE ##"),
        (one(put("model", "end_of_word_suffix", to="</w>")), "end_of_word_suffix of BPE </w>"),
        (one(put("model", "ignore_merges", to=True)), "ignore_merges of BPE True"),
    ],
    "a post-processor that adds tokens": [
        (one(put_before(*START)), "post_processor TemplateProcessing, which adds tokens to a text; headgate adds none"),
        (one(put_before(*START, among=[processors.ByteLevel()])), "post_processor TemplateProcessing, which adds"),
        (one(put("post_processor", to={"type": "RobertaProcessing"})), "RobertaProcessing, which adds tokens"),
    ],
    "`add_bos_token` or `add_eos_token` true, beside `vocab.json`": [
        (two(add_bos_token=True), "add_bos_token true; headgate puts no token before or behind a text"),
        (two(add_eos_token=True), "add_eos_token true; headgate puts no token before or behind a text"),
    ],
    "`split_special_tokens` true, and special tokens": [
        (one(tokens=["[PAD]", "<s>"], special=True, split_special_tokens=True), "true, and '.PAD.'"),
        (two(split_special_tokens=True, mask_token="<mask>"), "split_special_tokens true, and '<mask>' is a special"),
    ],
    "the `tokenizer_class` of another model": [
        (two(tokenizer_class="RobertaTokenizerFast"), "tokenizer_class is RobertaTokenizer; headgate reads GPT2Tok"),
        (one(tokenizer_class="LlamaTokenizer"), "tokenizer_class is LlamaTokenizer; headgate reads GPT2Tokenizer"),
    ],
    "a vocabulary in which a byte has no token": [
        (two(edited("vocab.json", lambda ids: {each: i for i, each in enumerate(sorted({*ids} - {"ć"}))})),
         "expected a token for each of the 256 bytes; 0x07 have none"),
    ],
    "ids with a gap, or one for two tokens": [
        (two(edited("vocab.json", lambda ids: {each: i + (i > 300) for each, i in ids.items()})), "none has 301"),
        (two(edited("vocab.json", lambda ids: ids | {"a": ids["b"]})), "expected an id of its own for each token"),
    ],
    "merges of another vocabulary, or too few": [
        (two(edited("vocab.json", lambda ids: {each: i for i, each in enumerate(sorted({*ids} - {"aa"}))})),
         f"{APART}; merge 1 is 'a a': expected two tokens that make a third"),
        (one(put("model", "merges", to=[["a", "b", "c"]])), f"{APART}; merge 1 is 'a b c'"),
        (two(edited("merges.txt", lambda lines: lines[:20])), r"no merge makes '.+' and \d+ more; is the list of me"),
    ],
    "a merge before those that make its parts": [
        (two(edited("merges.txt", lambda lines: [lines[0], *lines[:0:-1]])), "earlier one takes; expected parts first"),
    ],
    "an added token with `single_word`": [
        (one(tokens=[AddedToken("[A]", single_word=True)]), r"the added token '\[A\]' has single_word, which headgate"),
    ],
    "an added token whose id is not the next free one": [
        (two(holding(ADDED, {"[PAD]": 999})), r"the added token '\[PAD\]' has the id 999; expected \d+, the next free"),
        (two(added_tokens_decoder={"3": {"content": "a"}}), r"the added token 'a' has the id 3; expected \d+"),
    ],
    "an added token of which two files say different things": [
        (one(contradict, tokens=["[A]"], tokenizer_class=FAST), r"say different things of the added token '\[A\]'"),
    ],
    "`vocab.json` or `merges.txt` alone, or no tokenizer": [
        (two(without("merges.txt")), "no merges.txt, so this checkpoint cannot read text"),
        (two(without("vocab.json")), "no vocab.json, so this checkpoint cannot read text"),
        (two(without(*IN_TWO)), "no vocab.json and no merges.txt, so this checkpoint cannot read text"),
    ],
    "a file that is cut short, or holds something else": [
        (two(holding(SETTINGS, "{")), "tokenizer_config.json is not JSON"),
        (two(holding(ADDED, "[]")), "added_tokens.json: expected a JSON object, got list"),
        (one(holding(IN_ONE, '{"model": {')), "tokenizer.json is not JSON"),
        (one(holding(IN_ONE, "{}")), "tokenizer.json are not those of a GPT-2 tokenizer"),
    ],
}  # fmt: skip

CASES = {f"{row}-{i}": make for row, cases in READ.items() for i, make in enumerate(cases)}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Return a function from a case's name to its folder, our tokenizer and theirs."""

    @cache
    def open_both(name):
        folder, unmarked = tmp_path_factory.mktemp("tokenizer"), tmp_path_factory.mktemp("theirs")
        write(folder, "config.json", {"model_type": "gpt2"})
        CASES[name](folder)
        for path in folder.iterdir():  # transformers does not read a byte order mark
            (unmarked / path.name).write_bytes(path.read_bytes().removeprefix(BOM))
        return folder, Tokenizer.load(folder), AutoTokenizer.from_pretrained(unmarked)

    return open_both


@pytest.mark.parametrize("name", CASES)
def test_a_folder_of_the_table_gives_the_ids_and_the_text_of_transformers(opened, name):
    _, ours, theirs = opened(name)

    @given(text=TEXTS, ids=st.lists(st.integers(0, 400)))
    @settings(deadline=None, max_examples=20, derandomize=True)
    @example(text="".join(PARTS), ids=[])
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


REFUSALS = [pytest.param(*case, id=f"{row}-{i}") for row, cases in REFUSED.items() for i, case in enumerate(cases)]


@pytest.mark.parametrize(("make", "said"), REFUSALS)
def test_a_folder_of_the_table_is_refused_with_the_reason(tmp_path, make, said):
    write(tmp_path, "config.json", {"model_type": "gpt2"})
    make(tmp_path)
    line = line_of(Tokenizer.load, tmp_path)
    assert line.startswith(str(tmp_path))
    assert re.search(said, line)


def test_the_table_of_the_page_has_these_rows():
    section = (ROOT / "docs" / "models.md").read_text().partition("## Tokenizers")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in re.findall(r"^\|.*\|$", section, re.M)]
    assert cells[0] == ["what the folder holds", "what headgate does"]
    refused = [row for row, does in cells[2:] if does.startswith("refuses")]
    assert [row for row, _ in cells[2:]] == [*READ, *REFUSED]
    assert refused == [*REFUSED]


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(MARKED)])
def test_transformers_reads_no_byte_order_mark(opened, name):
    """As the table says."""
    with pytest.raises(ValueError, match="BOM"):
        AutoTokenizer.from_pretrained(opened(name)[0])


# What else the tokenizers of these folders do.


@pytest.mark.parametrize("name", CASES)
def test_pieces_lie_in_the_text_in_order_and_cover_it(opened, name):
    _, ours, _ = opened(name)

    @given(text=TEXTS)
    @settings(deadline=None, max_examples=20, derandomize=True)
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


def test_a_space_that_is_added_belongs_to_no_character(tmp_path):
    in_one(tmp_path, "[A]", add_prefix_space=True)
    ours = Tokenizer.load(tmp_path)
    assert ours.pieces("feel 日") == [("feel", 0, 4), (" ", 4, 5), ("日", 5, 6), ("日", 5, 6)]
    assert ours.decode(ours.encode("\n")) == " \n"
    assert ours.pieces("\n") == [("", 0, 0), ("\n", 0, 1)]
    assert ours.decode(ours.encode("i[A]\nso")) == " i[A] \nso"
    assert ("", 4, 4) in ours.pieces("i[A]\nso")


@pytest.mark.parametrize("name", CASES)
def test_end_of_text_is_ordinary_text(opened, name):
    """As the page says; in transformers it is the token."""
    _, ours, theirs = opened(name)
    text = f" i{END_OF_TEXT} so"
    ids = ours.encode(text)
    assert ours.decode(ids) == text
    assert ours.end_of_text not in ids
    assert ids == theirs(text, split_special_tokens=True)["input_ids"]
    assert (END_OF_TEXT in theirs.get_vocab()) == (ids != theirs(text, split_special_tokens=False)["input_ids"])
    assert ours.end_of_text in (None, theirs.convert_tokens_to_ids(END_OF_TEXT))
    assert (ours.end_of_text is None) == name.startswith(("no token", "`<pad>`"))


@pytest.mark.parametrize("name", CASES)
def test_a_tokenizer_has_as_many_tokens_as_its_largest_id_says(opened, name):
    _, ours, theirs = opened(name)
    made_up = theirs.eos_token == END_OF_TEXT and ours.end_of_text is None  # the last, unless others follow
    largest = max(i for token, i in theirs.get_vocab().items() if not made_up or token != END_OF_TEXT)
    assert len(ours) == 1 + largest


@pytest.mark.parametrize("name", CASES)
def test_what_is_saved_is_read_again_by_both(opened, name, tmp_path):
    _, ours, theirs = opened(name)
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
