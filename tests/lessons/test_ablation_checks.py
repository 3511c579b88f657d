"""What the checks of lesson 4 say about right answers and typical mistakes."""

import math

import pytest
import torch

from lessons.checks.ablation import check_1, check_2
from model import GPT2Config, masks

CONFIG = GPT2Config(6, 8, 256)


def verdict(check, answer, capsys) -> str:
    check(answer)
    return capsys.readouterr().out.strip()


def close(*index) -> torch.Tensor:
    gate = torch.ones(1, 6, 8, 1)
    gate[index] = 0
    return gate


@pytest.mark.parametrize("answer", [0.1, 4 / 40, torch.tensor(0.1)])
def test_the_share_with_the_head_counted_in_is_right(answer, capsys):
    assert verdict(check_1, answer, capsys) == "Right."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (3 / 39, "the head is missing"),
        (4 / 39, "not among all draws"),
        (3 / 40, "not among those that take as much"),
        (0.2, "two-sided"),
        (0.9, "take less"),
        (4, "number of draws"),
        (0.5, "0.5 is not the share"),
        (math.nan, "expected a number, got nan"),
        ("a tenth", "expected a number, got str"),
        ([0.1, 0.2], "expected a number, got list"),
        (None, "in the place of None"),
    ],
)
def test_each_wrong_share_gets_its_sentence(answer, words, capsys):
    said = verdict(check_1, answer, capsys)
    assert said.startswith("Not yet: ")
    assert words in said


@pytest.mark.parametrize("answer", [close(0, 2), masks.close_attention(CONFIG, [2]), close(0, 2).bool()])
def test_a_gate_that_closes_the_heads_of_layer_2_is_right(answer, capsys):
    assert verdict(check_2, answer, capsys) == "Right."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (masks.close_mlps(CONFIG, [2]), "gate of an MLP"),
        (1 - close(0, 2), "complement"),
        (close(0, slice(None), 2), "head 2 of every layer"),
        (close(0, 1), "counted from 0"),
        (close(0, 2, 2), "1 of the 8 heads"),
        (torch.ones(1, 6, 8, 1), "0 of the 8 heads"),
        (torch.zeros(1, 6, 8, 1), "48 gates are closed"),
        (close(0, 2) * 2, "other numbers"),
        (torch.full((1, 6, 8, 1), torch.nan), "other numbers"),
        (torch.ones(1, 8, 6, 1), "broadcasts to"),
        (torch.ones(6, 8), "four axes"),
        ([[1.0]], "expected a tensor, got list"),
        ("layer 2", "expected a tensor, got str"),
        (None, "in the place of None"),
    ],
)
def test_each_wrong_gate_gets_its_sentence(answer, words, capsys):
    said = verdict(check_2, answer, capsys)
    assert said.startswith("Not yet: ")
    assert words in said
