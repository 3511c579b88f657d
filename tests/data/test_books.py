import gzip
import json
import lzma
from collections import Counter

import pytest
import torch
from commands import line_of
from hypothesis import given
from hypothesis import strategies as st

from data.books import block_batch, consecutive_blocks, read_books, steps_per_epoch
from model import InputError, Tokenizer

TOKENIZER = Tokenizer.load("gpt2-mini")
END = 50256


def written(path, books, between="<|endoftext|>\n"):
    path.write_bytes(between.join(f"{book}\n" for book in books).encode())
    return path


def texts(tokens):
    """The books in these tokens, each without its last newline."""
    parts = "".join("\0" if token == END else TOKENIZER.decode([token]) for token in tokens.tolist()).split("\0")
    assert parts.pop() == ""  # every book is closed
    return [part.removesuffix("\n") for part in parts]


@pytest.mark.parametrize(
    ("n", "held_out"), [(2, [1]), (19, [18]), (20, [19]), (41, [19, 39])], ids=["two", "under-20", "20", "41"]
)
def test_whole_books_are_held_out(tmp_path, n, held_out):
    names = [f"Book {i}" for i in range(n)]
    books = read_books(written(tmp_path / "books.txt", names), TOKENIZER)
    assert books.train.dtype == books.held_out.dtype == torch.int32
    assert texts(books.held_out) == [names[i] for i in held_out]
    assert texts(books.train) == [name for i, name in enumerate(names) if i not in held_out]
    assert books.description["books"] == {"train": n - len(held_out), "held_out": len(held_out)}
    assert books.description["held_out"] == [names[i] for i in held_out]
    assert books.description["tokens"] == {"train": len(books.train), "held_out": len(books.held_out)}


def test_of_a_single_book_the_end_is_held_out(tmp_path):
    book = "".join(f"{i} " for i in range(1000))
    books = read_books(written(tmp_path / "book.txt", [book]), TOKENIZER)
    [start], [end] = texts(books.train), texts(books.held_out)
    assert start + end == book
    assert len(end) == pytest.approx(len(book) / 20, abs=2)


def test_the_line_between_books_is_no_text_and_inside_a_line_it_is(tmp_path):
    books = ["He wrote <|endoftext|> in a line.\n<|endoftext|>, said she.", "  \n", "The end"]
    read = read_books(written(tmp_path / "books.txt", books), TOKENIZER)
    assert texts(read.train) == [books[0]]  # and the blank one is none
    assert texts(read.held_out) == ["The end"]


def test_packed_or_with_other_line_ends_it_is_the_same_text(tmp_path):
    plain = written(tmp_path / "books.txt", ["One\nand “two”", "Three"])
    (tmp_path / "books.txt.xz").write_bytes(lzma.compress(plain.read_bytes()))
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
    expected = read_books(plain, TOKENIZER)
    for name in ("books.txt.xz", "windows.txt"):
        books = read_books(tmp_path / name, TOKENIZER)
        assert torch.equal(books.train, expected.train)
        assert torch.equal(books.held_out, expected.held_out)


characters = st.characters(codec="utf-8", exclude_characters="\r")
# Hypothesis also tries strings of our code, as the mark between books.
lines = st.text(characters, min_size=1).filter(lambda text: text.strip() and "<|endoftext|>" not in text)


@given(st.lists(lines, min_size=2, max_size=25))
def test_any_text_comes_back(tmp_path_factory, books):
    read = read_books(written(tmp_path_factory.mktemp("books") / "books.txt", books), TOKENIZER)
    held_out = books.pop(19 if len(books) >= 20 else -1)
    for part, expected in ((read.train, books), (read.held_out, [held_out])):
        together = b"".join(TOKENIZER.bytes_of[token] for token in part.tolist())
        assert together == "".join(f"{book}\n<|endoftext|>" for book in expected).encode()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("latin.txt", "eins\nzwei\ndrei: ä\n".encode("latin-1"), "latin.txt:3: expected UTF-8"),
        ("bom.txt", b"\xef\xbb\xbfeins\nzw\xe4i\n", "bom.txt:2: expected UTF-8"),
        ("empty.txt", b" \n", "the file is empty"),
        ("marks.txt", b"<|endoftext|>\n<|endoftext|>\n", "no text between"),
        ("cut.txt.xz", lzma.compress(b"one " * 999)[:-40], "no whole xz file"),
        ("other.txt.xz", gzip.compress(b"one", mtime=0), "no whole xz file"),
        ("nothing.txt", None, "expected a text file, found nothing"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, name, content, expected):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert expected in line_of(read_books, tmp_path / name, TOKENIZER)


def test_a_folder_is_no_text(tmp_path):
    assert "found a folder" in line_of(read_books, tmp_path, TOKENIZER)


def test_a_tokenizer_that_cannot_close_a_book_is_refused(tmp_path):
    vocab = json.loads(TOKENIZER.files["vocab.json"])
    del vocab["<|endoftext|>"]
    tokenizer = Tokenizer(TOKENIZER.files | {"vocab.json": json.dumps(vocab).encode()})
    with pytest.raises(InputError, match=r"no <.endoftext.> to close a book"):
        read_books(written(tmp_path / "books.txt", ["one", "two"]), tokenizer)


@pytest.mark.parametrize("tokens", [35, 36, 97, 101])
def test_an_epoch_reads_every_token_but_the_edges_once(tokens):
    text, n_ctx, batch_size = torch.arange(tokens, dtype=torch.int32), 7, 2
    steps = steps_per_epoch(text, n_ctx, batch_size)
    for epoch in range(5):
        batches = [block_batch(text, n_ctx, batch_size, 3, epoch * steps + step) for step in range(steps)]
        blocks = torch.cat(batches)
        assert blocks.dtype == torch.int64
        assert blocks.shape == (steps * batch_size, n_ctx + 1)
        assert torch.equal(blocks - blocks[:, :1], torch.arange(n_ctx + 1).expand_as(blocks))  # consecutive tokens
        read = Counter(blocks[:, :-1].flatten().tolist())
        assert set(read.values()) == {1}
        assert len(read) > tokens - (batch_size + 1) * n_ctx


def test_epochs_and_seeds_read_in_other_orders_and_the_same_step_the_same():
    text = torch.arange(5_000, dtype=torch.int32)
    steps = steps_per_epoch(text, 7, 2)
    first = block_batch(text, 7, 2, 0, 5)
    assert torch.equal(first, block_batch(text, 7, 2, 0, 5))
    assert not torch.equal(first, block_batch(text, 7, 2, 1, 5))
    assert not torch.equal(first, block_batch(text, 7, 2, 0, 5 + steps))
    offsets = {block_batch(text, 7, 2, 0, epoch * steps)[0, 0].item() % 7 for epoch in range(20)}
    assert len(offsets) > 3


def test_too_little_text_for_a_batch_or_for_holding_out():
    assert steps_per_epoch(torch.arange(21), 7, 2) == 1
    with pytest.raises(InputError, match=r"at least 21 tokens for batches of 2 blocks of 7, got 20;.*--batch-size"):
        steps_per_epoch(torch.arange(20), 7, 2)
    with pytest.raises(InputError, match="more than 7 tokens to hold out, got 7"):
        consecutive_blocks(torch.arange(7), 7)


def test_consecutive_blocks_predict_each_token_once():
    blocks = consecutive_blocks(torch.arange(24), 7)
    assert blocks[:, 1:].flatten().tolist() == list(range(1, 22))
    assert blocks[:, :-1].flatten().tolist() == list(range(21))
