"""What all checks of exercises share: a student's function is called safely, and odd answers get a sentence."""

import math

import numpy as np
import pytest
import torch

from lessons.checks import call, check, expect_floats, expect_number, expect_tensor, is_close


def spoil(x, numbers):
    x += 1
    numbers.clear()
    return x


def test_a_function_gets_copies_and_its_result_comes_back():
    x, numbers = torch.zeros(2, 3), [1, 2]
    result, mistake = call(spoil, x, numbers)
    assert mistake is None
    assert torch.equal(result, torch.ones(2, 3))
    assert torch.equal(x, torch.zeros(2, 3))
    assert numbers == [1, 2]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, y, n: x + y, "f(tensor (2, 3), array (4,), 1), which failed: "),
        (lambda x, y, n: not_defined, "NameError: name 'not_defined' is not defined"),  # noqa: F821
        (lambda x, y, n: n.shape, "AttributeError: 'int' object has no attribute 'shape'"),
        (lambda x, y, n: n / 0, "ZeroDivisionError: division by zero"),
        (lambda x, y: x, "TypeError"),
        (torch.nn.LayerNorm, "which failed: "),
        (torch.zeros(2), "expected a function, not called yet, got Tensor"),
        ("mean", "expected a function, not called yet, got str"),
    ],
)
def test_a_function_that_fails_gets_a_sentence(answer, words):
    result, mistake = call(answer, torch.zeros(2, 3), np.zeros(4), 1)
    assert result is None
    assert words in mistake


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (10**400, "too large"),
        pytest.param(10**5000, "too large", id="too long to be printed"),
        (math.inf, "got inf"),
        (None, "got NoneType"),
        (torch.ones(2), "got Tensor"),
        (1j, "got complex"),
    ],
)
def test_what_is_no_number_gets_a_sentence(answer, words):
    assert words in expect_number(answer)


@pytest.mark.parametrize("answer", [1, 0.5, np.float32(2), torch.tensor(3.0), torch.ones(1, dtype=torch.float64)])
def test_numbers_are_numbers(answer):
    assert expect_number(answer) is None


def test_a_wrong_type_is_told_apart_from_a_wrong_shape():
    assert expect_tensor(np.ones((2, 3)), (2, 3)).startswith("expected a tensor, got a numpy array")
    assert expect_tensor([1.0], (1,)) == "expected a tensor, got list."
    assert expect_tensor(torch.ones(3, 2), (2, 3)) == "expected a tensor of shape (2, 3), got (3, 2)."
    assert expect_tensor(torch.ones(2, 3, dtype=torch.bool), (2, 3)) is None
    assert expect_floats(torch.ones(3, 2), (2, 3)) == "expected a tensor of shape (2, 3), got (3, 2)."
    assert expect_floats(torch.ones(2, dtype=torch.int64), (2,)) == "expected a tensor of floats, got torch.int64."
    assert expect_floats(torch.ones(2, dtype=torch.float64), (2,)) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_rounding_is_no_difference_and_a_tenth_is_one(dtype):
    expected = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert is_close(expected.to(dtype), expected)
    assert not is_close(expected.to(dtype) + 0.1, torch.zeros(50))
    assert not is_close((expected * math.nan).to(dtype), expected)


def test_a_verdict_is_one_line(capsys):
    verdict = check(lambda answer: expect_number(answer))
    for answer in (None, "one", 1):
        verdict(answer)
    said = ["Not yet: put your answer in the place of None.", "Not yet: expected a number, got str.", "Right."]
    assert capsys.readouterr().out.splitlines() == said
