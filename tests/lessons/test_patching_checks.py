"""Lesson 6: what its checks say to right answers, to typical mistakes, and to what is no answer at all."""

import pytest
import torch

from experiments.patch.cells import Cell, Metric, patch_cells, record
from lessons.checks.patching import HEAD, LAYER, POSITION, H, L, T, check_1, check_2
from model import GPT2LM


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (0.625, "Right."),
        (5 / 8, "Right."),
        ("0.625", "Right."),
        (-0.625, "sign"),
        (0.375, "share that is left"),
        (5 / 6, "clean run"),
        (1 / 6, "has no zero"),
        (1 / 8, "moved from the base run"),
        (5, "Divide it by the gap"),
        (-5, "the sign, and the gap"),
        (62.5, "per cent"),
        (5 / 4, "corrupt one is negative"),
        (7, "7 is not it"),
        (float("nan"), "expected a number, got nan"),
        ("much", "expected a number, got str"),
        ([1], "expected a number, got list"),
        (torch.zeros(3), "expected a number"),
        (None, "put your answer"),
    ],
)
def test_a_share_of_the_gap_is_judged(answer, said, capsys):
    check_1(answer)
    assert said in capsys.readouterr().out


def close(*at):
    """A gate that is 0 there and 1 elsewhere."""
    gate = torch.ones(1, L, H, T)
    gate[0][at] = 0
    return gate


def patch_head(clean, corrupt, layer, head, position):
    return {"head_gate": close(layer, head, position), "head_fill": clean.stacked("z")}


EVERY, RIGHT = slice(None), close(LAYER, HEAD, POSITION)


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (RIGHT, "Right."),
        (torch.ones(1, L, H, T), "never used"),
        (1 - RIGHT, "turned round"),
        (torch.zeros(1, 1, 1, 1), "0 everywhere"),
        (close(LAYER, HEAD), "all positions"),
        (close(LAYER, EVERY, POSITION), "all heads of the layer"),
        (close(EVERY, HEAD, POSITION), "in all layers"),
        (close(HEAD, LAYER, POSITION), "swapped"),
        (close(LAYER - 1, HEAD, POSITION), "counted from 0"),
        (close(LAYER, HEAD, POSITION - 1), "(0 at 1 cells)"),
        (RIGHT / 2, "nothing else"),
        (RIGHT * torch.nan, "nothing else"),
        (RIGHT.int(), "got torch.int32 (1, 3, 5, 7)"),
        (RIGHT.double(), "Right."),
        (
            torch.ones(1, 6, 8, 12),
            'with the sizes of clean.stacked("z")',
        ),
        (RIGHT[0], "got torch.float32 (3, 5, 7)"),
        ("gate", "got str"),
        (None, "got NoneType"),
    ],
)
def test_the_gate_of_a_patch_is_judged(gate, said, capsys):
    check_2(lambda clean, *where: {"head_gate": gate, "head_fill": clean.stacked("z")})
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (lambda clean, corrupt: clean.stacked("z")[:, LAYER, HEAD, POSITION][:, None, None, None], "Right."),
        (lambda clean, corrupt: corrupt.stacked("z"), "corrupt run"),
        (lambda clean, corrupt: 0 * clean.stacked("z"), "takes the head out"),
        (lambda clean, corrupt: clean.stacked("z").roll(1, dims=3), "another layer, head or position"),
        (lambda clean, corrupt: 2 * clean.stacked("z"), "is not what the head emits"),
        (lambda clean, corrupt: clean.z[LAYER], "head_fill: expected a tensor of floats"),
    ],
)
def test_the_fill_of_a_patch_is_judged(fill, said, capsys):
    check_2(lambda clean, corrupt, *where: {"head_gate": RIGHT, "head_fill": fill(clean, corrupt)})
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (patch_head, "Right."),
        (lambda *runs_and_place: None, "expected a dict of head_gate and head_fill, got NoneType"),
        (lambda *runs_and_place: {"gate": 1}, "got ['gate']"),
        (lambda clean, corrupt: {}, "which failed: TypeError"),
        (lambda clean, *rest: clean["z"], "which failed: TypeError"),
        ({"head_gate": 1}, "expected a function, not called yet, got dict"),
        (None, "put your answer"),
    ],
)
def test_a_patch_that_is_no_function_of_two_runs_is_refused(answer, said, capsys):
    check_2(answer)
    assert said in capsys.readouterr().out


def test_the_right_arguments_do_what_the_experiment_does(tiny):
    torch.manual_seed(0)
    lm = GPT2LM(tiny).eval().requires_grad_(False)
    for parameter in lm.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    clean_ids, corrupt_ids = [1, 2, 3, 4, 5, 6, 7], [1, 9, 3, 4, 5, 6, 7]
    metric = Metric.between(lm, (10, 11))
    clean, corrupt = record(lm.trunk, clean_ids), record(lm.trunk, corrupt_ids)
    logits = lm(torch.tensor([corrupt_ids]), **patch_head(clean, corrupt, 1, 2, 4))[0, -1]
    patched = patch_cells(metric, corrupt, clean, [Cell("z", 1, 2, 4)], tokens=100)
    assert (logits[10] - logits[11]).item() == pytest.approx(patched.item(), rel=1e-4)
    assert abs(patched - metric.read(corrupt.resid_pre[-1])) > 1e-3


def test_a_fill_in_double_is_right(capsys):
    check_2(lambda clean, *where: {"head_gate": RIGHT, "head_fill": clean.stacked("z").double()})
    assert capsys.readouterr().out.strip() == "Right."
