"""What the checks of lesson 4 say about right answers and typical mistakes."""

import math

import pytest
import torch

from lessons.checks.ablation import check_1, check_2
from model import GPT2Config, masks

CONFIG = GPT2Config(6, 8, 256)


def close(*index) -> torch.Tensor:
    gate = torch.ones(1, 6, 8, 1)
    gate[index] = 0
    return gate


@pytest.mark.parametrize("answer", [99, 99.0, torch.tensor(99)])
def test_the_head_is_one_more_draw(answer, say):
    assert say(check_1, answer) == "Right."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (100, "one of 101"),
        (98, "are 99 draws"),
        (19, "p = 1/20"),
        (1900, "five times"),
        (50, "more than that are needed"),
        (1000, "fewer than that will do"),
        (0.01, "expected a number of subspaces, got 0.01"),
        (-99, "expected a number of subspaces"),
        (math.nan, "expected a number, got nan"),
        ("a hundred", "expected a number, got str"),
        ([99, 100], "expected a number, got list"),
        (None, "in the place of None"),
    ],
)
def test_each_wrong_number_gets_its_sentence(answer, words, assert_mistake):
    assert_mistake(check_1, answer, words)


@pytest.mark.parametrize(
    "answer", [close(0, 2), masks.close_attention(CONFIG, [2]), close(0, 2).expand(1, 6, 8, 28).double()]
)
def test_a_gate_that_closes_the_heads_of_layer_2_is_right(answer, say):
    assert say(check_2, answer) == "Right."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (masks.close_mlps(CONFIG, [2]), "got 3, of sizes (1, 6, 1)"),
        (1 - close(0, 2), "complement"),
        (close(0, slice(None), 2), "head 2 of every layer"),
        (close(0, 1), "counted from 0"),
        (close(0, 2, 2), "1 of the 8 heads"),
        (torch.ones(1, 6, 8, 1), "0 of the 8 heads"),
        (torch.zeros(1, 6, 8, 1), "every head of the network"),
        (close(0, 2) * 2, "other numbers"),
        (torch.full((1, 6, 8, 1), torch.nan), "other numbers"),
        (torch.ones(1, 8, 6, 1), "the other way round"),
        (torch.ones(1, 5, 8, 1), "or 1 instead, got (1, 5, 8, 1)"),
        (torch.ones(3, 6, 8, 1), "axes of 1 text"),
        (torch.cat([close(0, 2), torch.ones(1, 6, 8, 1)], dim=-1), "at some tokens"),
        (close(0, 2).bool(), "torch.bool is refused"),
        (close(0, slice(1, 3)), "16 heads, and not those"),
        (torch.ones(6, 8), "four axes"),
        ([[1.0]], "expected a tensor, got list"),
        ("layer 2", "expected a tensor, got str"),
        (None, "in the place of None"),
    ],
)
def test_each_wrong_gate_gets_its_sentence(answer, words, assert_mistake):
    assert_mistake(check_2, answer, words)
