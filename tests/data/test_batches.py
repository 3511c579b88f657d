import numpy as np
import pandas as pd
import pytest
import torch
from commands import line_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence

from data import Batch, bucketed, encode
from data.batches import bucket
from data.token_ids import TokenIds
from model import InputError


class Letters:
    """A tokenizer of one token per character."""

    def encode(self, text):
        return [ord(character) for character in text]


EXAMPLES = pd.DataFrame({"text": ["ab", "abcde", "abc"], "file": "train.txt", "line": [1, 2, 7]})


def test_encode():
    assert encode(Letters(), EXAMPLES, n_ctx=5) == ([[97, 98], [97, 98, 99, 100, 101], [97, 98, 99]], 0)


def test_encode_refuses_a_text_that_is_too_long():
    message = line_of(encode, Letters(), EXAMPLES.iloc[1:], 4)
    assert message.startswith("train.txt:2: expected at most 4 tokens, got 5;")
    assert "--truncate" in message
    assert "the first of" not in message
    several = line_of(encode, Letters(), EXAMPLES, 2)  # the second and the third
    assert several.startswith("train.txt:2: expected at most 2 tokens, got 5; shorten the text, the first of 2, or")


def test_encode_keeps_the_end_when_told_to_truncate():
    assert encode(Letters(), EXAMPLES, n_ctx=2, truncate=True) == ([[97, 98], [100, 101], [98, 99]], 2)


def one_batch(lengths):
    return Batch(
        torch.zeros(2, 3, dtype=torch.int64), torch.tensor(lengths), torch.tensor([0, 1]), torch.tensor([0, 1])
    )


@pytest.mark.parametrize("lengths", [[0, 3], [1, 4], [-1, 2]])
def test_batch_refuses_impossible_lengths(lengths):
    with pytest.raises(ValueError, match=r"lengths: expected 1\.\.3, got"):
        one_batch(lengths)


def test_batch_moves_but_for_the_positions_of_its_texts():
    moved = one_batch([1, 3]).to("meta")
    assert {name: tensor.device.type for name, tensor in vars(moved).items()} == {
        "ids": "meta", "lengths": "meta", "targets": "meta", "index": "cpu"
    }  # fmt: skip
    assert moved.ids.shape == (2, 3)
    assert torch.equal(one_batch([1, 3]).to("cpu").lengths, torch.tensor([1, 3]))


SEQUENCES = st.lists(st.lists(st.integers(1, 50256), min_size=1, max_size=9), min_size=1, max_size=60)


def whole_batch(sequences):
    """All texts in one batch in their order, text i of class 3 i."""
    ids = pad_sequence([torch.tensor(sequence) for sequence in sequences], batch_first=True)
    positions = torch.arange(len(sequences))
    return Batch(ids, torch.tensor([len(sequence) for sequence in sequences]), 3 * positions, positions)


def assert_holds(batch, sequences, index):
    """The batch is made of the texts at these positions, padded with 0 to the longest of them."""
    assert batch.index.tolist() == index
    assert batch.targets.tolist() == [3 * i for i in index]
    assert batch.lengths.tolist() == [len(sequences[i]) for i in index]
    T = max(batch.lengths.tolist())
    assert batch.ids.tolist() == [sequences[i] + [0] * (T - len(sequences[i])) for i in index]


@given(SEQUENCES, st.integers(1, 7), st.none() | st.integers(0, 3), st.integers(0, 3))
@settings(deadline=None)
def test_every_text_comes_once_and_unchanged(sequences, batch_size, seed, epoch):
    targets = np.arange(len(sequences)) * 3
    batches = list(bucketed(sequences, targets, batch_size, seed, epoch))
    assert len(batches) == -(-len(sequences) // batch_size)
    assert sorted(i for batch in batches for i in batch.index.tolist()) == list(range(len(sequences)))
    for batch in batches:
        assert all(tensor.dtype == torch.int64 for tensor in vars(batch).values())
        assert_holds(batch, sequences, batch.index.tolist())


@given(SEQUENCES, st.integers(0, 59), st.integers(1, 4))
@settings(deadline=None)
def test_rows_are_some_texts_without_the_padding_of_others(sequences, start, step):
    batch = whole_batch(sequences)
    chosen = slice(start % len(sequences), None, step)
    assert_holds(batch.rows(chosen), sequences, list(range(len(sequences)))[chosen])


@given(SEQUENCES, st.integers(1, 70))
@settings(deadline=None)
def test_pieces_hold_every_text_once_and_few_tokens(sequences, tokens):
    batch, start = whole_batch(sequences), 0
    for piece in batch.split(tokens):
        assert piece.ids.numel() <= tokens or len(piece.ids) == 1
        assert_holds(piece, sequences, list(range(start, start + len(piece.ids))))
        start += len(piece.ids)
    assert start == len(sequences)
    assert len(batch.split(batch.ids.numel())) == 1


LENGTHS = np.random.default_rng(0).integers(1, 90, 1003).tolist()


def test_evaluation_is_sorted_by_length():
    order = np.concatenate(bucket(LENGTHS, 8))
    assert np.asarray(LENGTHS)[order].tolist() == sorted(LENGTHS)
    assert np.array_equal(order, np.concatenate(bucket(LENGTHS, 8)))


def test_seed_and_epoch_decide_the_order():
    def order(seed, epoch):
        return np.concatenate(bucket(LENGTHS, 4, seed, epoch)).tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


def test_training_batches_are_full_tight_and_mixed():
    batches = bucket(LENGTHS, 4, seed=0)
    sizes = [len(batch) for batch in batches]
    assert sorted(sizes) == [3] + [4] * 250
    lengths = [np.asarray(LENGTHS)[batch] for batch in batches]
    padding = 1 - sum(LENGTHS) / sum(part.max() * part.size for part in lengths)
    assert padding < 0.03  # batches at random would be 37 % padding
    means = [np.asarray(LENGTHS)[batch].mean() for batch in bucket(LENGTHS[:200], 4, seed=0)]
    assert abs(np.corrcoef(means, np.arange(50))[0, 1]) < 0.3  # within a pool, not from short to long


def test_batches_are_made_when_asked_for(monkeypatch):
    asked, pad = [], TokenIds.pad
    monkeypatch.setattr(TokenIds, "pad", lambda self, positions: asked.extend(positions) or pad(self, positions))
    batches = bucketed([[1], [2], [3]], np.zeros(3, np.int64), 1)
    assert asked == []
    next(batches)
    assert asked == [0]


@pytest.mark.parametrize("batch_size", [0, -2])
def test_batch_size_must_be_positive(batch_size):
    with pytest.raises(InputError, match=f"batch size: expected at least 1, got {batch_size}"):
        bucketed([[1]], np.zeros(1, np.int64), batch_size)


def test_targets_must_match():
    with pytest.raises(ValueError, match="expected one for each of 2 texts, got 3"):
        bucketed([[1], [2]], np.zeros(3, np.int64), 2)
