"""Lesson 7: what its checks say to right answers, to typical mistakes, and to what is no answer at all."""

import numpy as np
import pytest
import torch

from experiments.explain.attributions import gradients as gradients_of
from experiments.explain.attributions import integrate_gradients
from lessons.checks.attributions import check_1, check_2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (-0.1, "Right."),
        ("-0.10", "Right."),
        (np.float32(-0.1), "Right."),
        (0.2, "How much of it do random tokens reach"),
        (0.3, "what random tokens lose"),
        (0.1, "the sign"),
        (0.7, "left without the marked tokens"),
        (0.6, "left without random tokens"),
        (0.5, "you added"),
        (-10, "per cent"),
        (2 / 3, "this is a ratio"),
        (2 / 9, "do not divide"),
        (-1 / 9, "do not divide"),
        (0.1 + 0.35, "0.45 is not it"),
        (7, "7 is not it"),
        (float("nan"), "expected a number, got nan"),
        ("much", "expected a number, got str"),
        (torch.zeros(3), "expected a number"),
        (None, "put your answer"),
    ],
)
def test_comprehensiveness_beyond_random_words_is_judged(answer, said, capsys):
    check_1(answer)
    assert said in capsys.readouterr().out


def integrate(gradients, x, baseline):
    return (gradients.mean(dim=0) * (x - baseline)).sum(dim=-1)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (integrate, "Right."),
        (lambda g, x, b: torch.einsum("stc,tc->t", g, x - b) / len(g), "Right."),
        (lambda g, x, b: integrate(g, x, b).double(), "Right."),
        (lambda g, x, b: len(g) * integrate(g, x, b), "the points of the way are summed"),
        (lambda g, x, b: g.mean(dim=0).sum(dim=-1), "the way is missing"),
        (lambda g, x, b: integrate(g, x, 0 * b), "not with x"),
        (lambda g, x, b: integrate(g, b, x), "the sign"),
        (lambda g, x, b: integrate(g[-1:], x, b), "near x"),
        (lambda g, x, b: integrate(g[:1], x, b), "near the baseline"),
        (lambda g, x, b: integrate(torch.trapezoid(g, dim=0)[None] / (len(g) - 1), x, b), "all points weigh the same"),
        (lambda g, x, b: (g.mean(dim=0) * (x - b)).mean(dim=-1), "are averaged"),
        (lambda g, x, b: integrate(g, x, b).abs(), "may speak against"),
        (lambda g, x, b: (g.mean(dim=0) * (x - b)).norm(dim=-1), "the length has no sign"),
        (lambda g, x, b: integrate(g, x, b) + 1, "the numbers differ"),
        (lambda g, x, b: integrate(g, x, b) * torch.nan, "the numbers differ"),
        (lambda g, x, b: g.mean(dim=0) * (x - b), "a token's value is their sum"),
        (lambda g, x, b: (g.mean(dim=0) * (x - b)).sum(dim=0), "the wrong axis"),
        (lambda g, x, b: (g * (x - b)).sum(dim=-1), "the mean over the points"),
        (lambda g, x, b: g * (x - b), "neither points nor numbers"),
        (lambda g, x, b: (g.mean(dim=0) * (x - b)).sum(), "keep the tokens apart"),
        (lambda g, x, b: torch.zeros(2), "expected the shape (3,), got (2,)"),
        (lambda g, x, b: [1.0, 2.0, 3.0], "got list"),
        (lambda g, x, b: None, "got NoneType"),
        (lambda g, x: g, "which failed: TypeError"),
        (lambda g, x, b: g @ x, "which failed: RuntimeError"),
        (torch.zeros(3), "expected a function, not called yet, got Tensor"),
        (None, "put your answer"),
    ],
)
def test_integrated_gradients_are_judged(answer, said, capsys):
    check_2(answer)
    assert said in capsys.readouterr().out


def test_a_function_that_changes_what_it_gets_is_still_judged_by_its_result(capsys):
    def in_place(gradients, x, baseline):
        x -= baseline
        return (gradients.mean(dim=0) * x).sum(dim=-1)

    check_2(in_place)
    assert "Right." in capsys.readouterr().out


def test_the_right_function_does_what_the_experiment_does():
    weight = torch.randn(7, 1, generator=torch.Generator().manual_seed(0))

    def read(embeddings):  # (B, T, C) -> (B, 1); its gradient is linear, so midpoints give the exact integral
        return (embeddings @ weight).square().sum(dim=1)

    x, baseline = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(1))
    shares = (torch.arange(5) + 0.5) / 5
    way = baseline + shares[:, None, None] * (x - baseline)
    expected = integrate_gradients(read, x, baseline, tokens=1000)
    values = integrate(gradients_of(read, way)[:, 0], x, baseline)
    assert values.numpy() == pytest.approx(expected.values[:, 0], rel=1e-4)
    assert values.sum().item() == pytest.approx(expected.gap[0], rel=1e-4)
