"""A corpus as a model reads it: tokens and classes of each split, and what is refused."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from data import read_corpus
from lab.texts import check_pair, describe_texts, name_next_tokens, read_texts
from model import GPT2Config, InputError, Tokenizer

LINES = {
    "train": ["so glad;joy", "so mad;anger", "so very glad today my friend;joy"],
    "val": ["glad;joy", "mad;anger"],
    "test": ["mad again;anger", "glad;joy", "mad;anger"],
}


@pytest.fixture
def corpus(tmp_path):
    for split, lines in LINES.items():
        (tmp_path / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return read_corpus(tmp_path)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load("gpt2-mini")


def test_the_hash_is_that_of_two_lists(corpus, tokenizer):
    texts = read_texts(corpus, tokenizer, config(17), truncate=False)["test"]
    lists = [[*ids] for ids in texts.sequences], [int(k) for k in texts.targets]
    assert texts.sha256 == hashlib.sha256(repr(lists).encode()).hexdigest()
    assert replace(texts, sequences=lists[0]).sha256 == texts.sha256
    assert texts.select(np.array([2, 0])).sequences == [lists[0][2], lists[0][0]]
    nothing = texts.select(np.array([], dtype=np.int64))
    assert nothing.sha256 == hashlib.sha256(b"([], [])").hexdigest()


def config(n_ctx, vocab_size=50257):
    return GPT2Config(1, 1, 4, n_ctx=n_ctx, vocab_size=vocab_size)


def test_each_text_has_its_tokens_and_its_class_in_the_order_of_the_file(corpus, tokenizer, capsys):
    texts = read_texts(corpus, tokenizer, config(17), truncate=False)
    for split, lines in LINES.items():
        told = [line.split(";") for line in lines]
        assert [tokenizer.decode(ids) for ids in texts[split].sequences] == [text for text, _ in told]
        assert [corpus.labels[k] for k in texts[split].targets] == [label for _, label in told]
    assert describe_texts(corpus, texts)["truncated"] == 0
    out = capsys.readouterr().out
    assert f"Corpus {corpus.name}" in out
    assert "only their end is read" not in out


def test_what_is_too_long_is_refused_or_cut_to_its_end_and_counted(corpus, tokenizer, capsys):
    with pytest.raises(InputError, match=r"train.txt:3: expected at most 2 tokens, got 6"):
        read_texts(corpus, tokenizer, config(2), truncate=False)
    texts = read_texts(corpus, tokenizer, config(2), truncate=True)
    assert tokenizer.decode(texts["train"].sequences[2]) == " my friend"
    assert {len(ids) for own in texts.values() for ids in own.sequences} <= {1, 2}
    assert describe_texts(corpus, texts)["truncated"] == 1
    assert "1 texts are longer than the model's context: only their end is read" in capsys.readouterr().out


def test_a_tokenizer_may_not_have_more_tokens_than_the_model(corpus, tokenizer):
    check_pair(tokenizer, config(17))
    with pytest.raises(InputError, match="has 50257 tokens, the model only 50256: not a pair"):
        read_texts(corpus, tokenizer, config(17, vocab_size=50256), truncate=False)


def test_next_tokens_have_names_of_their_own():
    tokenizer = Tokenizer.load("gpt2-mini")
    assert name_next_tokens(tokenizer, [447, 72, 237]) == ["\ufffd (447)", "i", "\ufffd (237)"]
