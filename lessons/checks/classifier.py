"""Lesson 3: the mean of the last real tokens of padded texts, and macro-F1 from a confusion matrix."""

from typing import Any

import torch
from torch import Tensor

from lessons.checks import call, check, expect_floats, expect_number, is_close


@check
def check_1(answer: Any) -> str | None:
    x = torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(0))  # the third text has fewer than 3 tokens
    lengths = torch.tensor([5, 7, 2, 6])
    for n in (1, 3):
        result, mistake = call(answer, x, lengths, n)
        if mistake:
            behind = " Positions count from 0: behind the last token of a full row there is nothing."
            return f"n = {n}: {mistake}{behind if 'IndexError' in mistake else ''}"
        if mistake := find_wrong_mean(result, x, lengths, n):
            return f"n = {n}: {mistake}"
    return None


def average_between(x: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Return the mean of x (B, T, C) at positions start .. stop - 1 of each text, (B,) each: (B, C)."""
    position = torch.arange(x.shape[1])
    chosen = ((position >= start[:, None]) & (position < stop[:, None])).float()
    return torch.einsum("btc,bt->bc", x, chosen) / chosen.sum(dim=1, keepdim=True)


def find_wrong_mean(result: Any, x: Tensor, lengths: Tensor, n: int) -> str | None:
    """Return what is wrong with the means of the last n tokens; None where they are right."""
    (B, T, C), first = x.shape, torch.zeros_like(lengths)
    if isinstance(result, Tensor) and result.shape == (B, B, C):
        return "a slice `:` takes all rows for each text; the rows need an index of their own, 0 .. B - 1."
    if mistake := expect_floats(result, (B, C)):
        return mistake
    start = (lengths - n).clamp(min=0)
    expected = average_between(x, start, lengths)
    if is_close(result, expected):
        return None
    padded, full = torch.full_like(lengths, T), torch.full_like(lengths, T - n)
    mistakes = {
        "these are the last columns, which in short texts are padding.": average_between(x, full, padded),
        "that is the mean of all real tokens.": average_between(x, first, lengths),
        "that is the mean of all columns, padding included.": x.mean(dim=1),
        "these are the first tokens of each text.": average_between(x, first, lengths.clamp(max=n)),
        "you are one place too early: the last real token stands at lengths - 1.": average_between(
            x, (start - 1).clamp(min=0), lengths - 1
        ),
        "a text of fewer tokens than n is divided by n.": expected * ((lengths - start) / n)[:, None],
        "that is the sum; divide by the number of tokens.": expected * (lengths - start)[:, None],
        "only the last real token is in it.": average_between(x, lengths - 1, lengths),
    }
    matching = (mistake for mistake, wrong in mistakes.items() if is_close(result, wrong))
    if mistake := next(matching, None):
        return mistake
    row = next(row for row in range(B) if not is_close(result[row], expected[row]))
    return f"the text of {int(lengths[row])} tokens, in {T} columns, is wrong; which positions should count there?"


@check
def check_2(answer: Any) -> str | None:
    if mistake := expect_number(answer):
        return mistake
    number = float(answer)
    of_classes = (12 / 17, 1 / 2, 4 / 7)  # F1 = 2 right / (row + column)
    mistakes = {
        10 / 16: "that is the accuracy, the share of texts that are classified right.",
        (6 / 8 + 2 / 4 + 2 / 4) / 3: "that is the mean recall: right ones in each row, divided by the row.",
        (6 / 9 + 2 / 4 + 2 / 3) / 3: "that is the mean precision: right ones in each column, divided by the column.",
        (8 * of_classes[0] + 4 * of_classes[1] + 4 * of_classes[2]) / 16: "classes count alike in a macro mean, "
        "however many texts they have; this one weighs them.",
        sum(of_classes): "that is the sum over the three classes; take the mean.",
        2 * 11 / 18 * 7 / 12 / (11 / 18 + 7 / 12): "this is made of the mean precision and the mean recall; make the "
        "F1 of each class first.",
    } | {f1: "that is the F1 of one class; there are three." for f1 in of_classes}
    right = sum(of_classes) / 3
    if abs(number - right) < 0.001:
        return None
    if mistake := next((text for wrong, text in mistakes.items() if abs(number - wrong) < 0.001), None):
        return mistake
    if abs(number - right) < 0.005:
        return f"{answer} is near, but give three decimals."
    if 1 < number <= 100:
        return "expected a share between 0 and 1."
    return f"{answer} is not it. Make the F1 of each class first: what is right, what its row has, what its column has."
