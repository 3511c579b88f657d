"""What the network makes of bare texts is what one forward pass of each says, and is computed once."""

from dataclasses import replace

import numpy as np
import planted_lm
import pytest
import torch

from experiments.prompt.features import encode_texts, record_features
from model import GPT2LM, GPT2Config

STRINGS = ["the day was long", "sun", "and again we saw many people there", "it rained", ""]


@pytest.fixture
def random_lm():
    """A language model with random weights, opened for prompts."""
    torch.manual_seed(0)
    lm = GPT2LM(GPT2Config(2, 3, 12, n_ctx=23, vocab_size=50257)).eval().requires_grad_(False)
    for name, parameter in lm.named_parameters():
        if not name.startswith("trunk.w"):  # but the embeddings, all are made larger
            parameter.mul_(5)
    return planted_lm.open_planted(lm)


def test_both_vectors_are_those_of_a_plain_loop(random_lm, tmp_path):
    strings = [*STRINGS[:4], "the day was long " * 9]  # of the last, the end is read
    features = record_features(random_lm, strings, "test", tmp_path, 0)
    for text, last, mean in zip(strings, features.last, features.mean, strict=True):
        ids = planted_lm.TOKENIZER.encode(text)[-23:]
        x = random_lm.lm.trunk(torch.tensor([ids]))[0]
        torch.testing.assert_close(torch.tensor(last), x[-1])
        counted = x[1:] if len(ids) > 1 else x
        torch.testing.assert_close(torch.tensor(mean), sum(counted) / len(counted))
    assert len(encode_texts(random_lm, strings)[-1]) == 23
    np.testing.assert_array_equal(features.last[1], features.mean[1])  # of a single token


def test_what_is_on_disk_is_not_computed_again(random_lm, tmp_path, monkeypatch):
    strings = STRINGS[:4]
    features = record_features(random_lm, strings, "test", tmp_path, 0)
    kept = np.lib.format.open_memmap(tmp_path / "features-test.npy", "r+")
    kept[2, 1, 5] = np.nan  # as if an earlier call had stopped there
    kept.flush()
    read, forward = [], random_lm.lm.trunk.forward

    def count(ids, lengths):
        read.extend(lengths.tolist())
        return forward(ids, lengths)

    monkeypatch.setattr(random_lm.lm.trunk, "forward", count)
    again = record_features(random_lm, strings, "test", tmp_path, 0)
    assert read == [len(planted_lm.TOKENIZER.encode(strings[2]))]
    np.testing.assert_allclose(again.mean, features.mean, rtol=1e-5)
    read.clear()
    record_features(random_lm, strings, "test", tmp_path, 0)
    assert not read
    for changed, texts in ((random_lm, strings[:3]), (replace(random_lm, weights="cd"), strings[:3])):
        record_features(changed, texts, "test", tmp_path, 0)
        assert len(read) == 3
        read.clear()
