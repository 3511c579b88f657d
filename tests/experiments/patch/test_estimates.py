"""Estimates against slopes by finite differences, with hooks in `transformers`, and against what follows from the
definition."""

import copy

import pytest
import torch
from hooked import ALL, ANSWERS, SOME, Pair, in_fp64, patch
from tiny import H, L, T, difference
from torch import nn

from experiments.patch.cells import HEAD_KINDS, KINDS, Cell, Metric, patch_cells, record
from experiments.patch.estimates import estimate_cells, integrate_cells, look_up

STEP = 1e-4  # of the way to the other text: in fp64, a slope is then good to 1e-7


def heads_of(kind):
    return range(H) if kind in HEAD_KINDS else (None,)


@pytest.mark.parametrize("texts", [SOME[::-1], ALL], ids=["some", "all"])
def test_an_estimate_is_the_slope_towards_the_other_text(network, metric, texts, monkeypatch):
    pair = Pair(in_fp64(network.hf, monkeypatch), *texts, ANSWERS)
    got = estimate_cells(metric, texts[0], record(metric.trunk, texts[1]))
    assert got.keys() == set(KINDS)
    for kind in KINDS:
        places = [(layer, head) for layer in range(L) for head in heads_of(kind)]
        up, down = (torch.stack([patch(pair, kind, *place, sign * STEP) for place in places]) for sign in (1, -1))
        cells = [[Cell(kind, *place, position) for position in [*range(T), None]] for place in places]
        estimates = torch.tensor([[look_up(got, cell) for cell in row] for row in cells], dtype=torch.float64)
        assert difference(estimates, (up - down) / (2 * STEP)) < 1e-4


@pytest.mark.parametrize("texts", [SOME, ALL], ids=["some", "all"])
def test_an_estimate_is_what_closing_a_gate_a_little_does(metric, texts):
    """The gradient of the metric with respect to a gate that is filled with the other run's activations."""
    base, source = (record(metric.trunk, ids) for ids in texts)
    got = estimate_cells(metric, texts[0], source)
    heads, mlps = torch.ones(1, L, H, T, requires_grad=True), torch.ones(1, L, T, requires_grad=True)
    fills = {"head_fill": source.stacked("z"), "mlp_fill": source.stacked("mlp")}
    stream = metric.trunk.run(base.resid_pre[0], head_gate=heads, mlp_gate=mlps, **fills)
    of_heads, of_mlps = torch.autograd.grad(metric.read(stream).sum(), (heads, mlps))
    assert difference(got["z"], -of_heads[0]) < 1e-5
    assert difference(got["attn"], -of_heads[0].sum(dim=1)) < 1e-5
    assert difference(got["mlp"], -of_mlps[0]) < 1e-5


@pytest.mark.parametrize("texts", [SOME, ALL], ids=["some", "all"])
def test_integrated_estimates_sum_to_the_joint_patch(metric, texts, monkeypatch):
    if not metric.trunk.config.scale_scores:  # random weights then make steep softmaxes, which need more steps
        monkeypatch.setattr("experiments.patch.estimates.NODES", 160)
    base, source = (record(metric.trunk, ids) for ids in texts)
    got = integrate_cells(metric, texts[0], source, 4096)
    assert {kind: values.shape for kind, values in got.items()} == {"z": (L, H, T), "attn": (L, T), "mlp": (L, T)}
    closed = {"z": {"head_gate": torch.zeros(1, 1, 1, 1), "head_fill": source.stacked("z")}}
    closed |= {"attn": closed["z"], "mlp": {"mlp_gate": torch.zeros(1, 1, 1), "mlp_fill": source.stacked("mlp")}}
    plain, simple = metric.read(base.resid_pre[-1]), estimate_cells(metric, texts[0], source)
    for kind, gates in closed.items():
        joint = metric.read(metric.trunk.run(base.resid_pre[0], **gates)) - plain
        assert abs(got[kind].sum() - joint) < 5e-5
        assert abs(simple[kind].sum() - joint) > 0.01  # or the way there would not matter


def test_what_a_linear_network_makes_of_a_cell_is_estimated_exactly(network):
    """Behind the last layer's heads nothing bends once ln_f and the last MLP are out of the way."""
    model = copy.deepcopy(network.ours)
    model.trunk.ln_f = nn.Identity()
    for parameter in model.trunk.h[-1].mlp.c_proj.parameters():
        nn.init.zeros_(parameter)
    metric = Metric.between(model, ANSWERS)
    base, source = (record(model.trunk, ids) for ids in ALL)
    got = estimate_cells(metric, ALL[0], source)
    linear = [
        Cell(kind, L - 1, head, p) for kind in ("z", "v", "pattern") for head in range(H) for p in [*range(T), None]
    ]
    linear += [Cell(kind, L - 1, None, p) for kind in ("resid_mid", "attn", "mlp") for p in range(T)]
    patched = patch_cells(metric, base, source, linear, tokens=500)
    estimates = torch.tensor([look_up(got, cell) for cell in linear])
    assert difference(metric.read(base.resid_pre[-1]).cpu() + estimates, patched) < 1e-5
    bent = [Cell("q", L - 1, head, T - 1) for head in range(H)]
    effects = patch_cells(metric, base, source, bent, tokens=500) - metric.read(base.resid_pre[-1])
    assert difference(torch.tensor([look_up(got, cell) for cell in bent]), effects) > 0.1


def test_a_kind_without_an_estimate_has_none(metric):
    got = integrate_cells(metric, SOME[0], record(metric.trunk, SOME[1]), 4096)
    assert torch.tensor(look_up(got, Cell("q", 1, 2, 3))).isnan()
    assert look_up(got, Cell("z", 1, 2, 3)) == got["z"][1, 2, 3].item()
    assert look_up(got, Cell("z", 1, 2)) == pytest.approx(got["z"][1, 2].sum().item())
    assert look_up(got, Cell("mlp", 1, None, 3)) == got["mlp"][1, 3].item()


def test_the_gradients_of_a_run_leave_nothing_behind(metric):
    estimate_cells(metric, SOME[0], record(metric.trunk, SOME[1]))
    integrate_cells(metric, SOME[0], record(metric.trunk, SOME[1]), 4096)
    assert all(parameter.grad is None for parameter in metric.trunk.parameters())
